"""Randomness is a function of seed, step and row, and of nothing else; and it is distributed as it says."""

import math

import pytest
import torch

from unilat.maths import seeds
from unilat.maths.seeds import ROWS, Draws, key
from unilat.types import UserError

from .sources import F64, kolmogorov_smirnov, seeded

GOLDEN = 6044531327517377189


def test_low_discrepancy_beats_independence_where_the_ends_differ():
    """Variance of an estimate at least 300 times smaller with 64 levels. Kills: independent numbers as strata."""
    spread = {}
    for kind in ("uniform", "strata"):
        steps = [torch.exp(-getattr(Draws.keyed(2, step, 0, 64), kind)(64)).mean() for step in range(200)]
        spread[kind] = float(torch.stack(steps).double().var())
    assert spread["uniform"] > 300 * spread["strata"]


def test_strata_leave_no_gap_and_pair_up():
    """Two in every 2/total, and their mean is ½ to rounding. Kills: the lattice without its fold."""
    strata = Draws.single(seeded(4), 64).strata(64)
    assert (strata * 32).long().bincount(minlength=32).tolist() == [2] * 32
    assert abs(float(strata.double().mean()) - 0.5) < 1e-6


def test_each_row_of_the_strata_is_uniform():
    """KS test of row 1 over 2,000 steps. Kills: rows in order, so that one row always gets the noisy end."""
    first = torch.stack([Draws.keyed(0, step, 0, 6).strata(6)[1] for step in range(2000)])
    assert kolmogorov_smirnov(first) < 1.63


def test_the_lattice_is_shifted():
    """KS test of a batch of one. Kills: a lattice without its random offset."""
    single = torch.cat([Draws.keyed(5, step, 0, 1).strata(1) for step in range(1000)])
    assert kolmogorov_smirnov(single) < 1.63
    assert 0.0 <= float(single.min()) < float(single.max()) < 1.0


def test_world_size_changes_nothing():
    """Rows of two unequal ranks are one process' rows, call after call. Kills: rows sliced from 0 on every rank."""
    like = torch.zeros(8, 3, 2)

    def calls(first, count):
        draws = Draws.keyed(7, 11, first, 8)
        return [draws.normal(like[:count]), draws.uniform(count), draws.strata(count), draws.normal(like[:count, :2])]

    for whole, left, right in zip(calls(0, 8), calls(0, 3), calls(3, 5), strict=True):
        assert torch.equal(whole, torch.cat([left, right]))


def test_keyed_draws_are_a_pure_function_of_seed_and_step():
    """Equal keys agree, others do not, across processes and versions. Kills: seed and step joined without a border."""
    keys = {(1, 23), (12, 3), (1, 2), (2, 1), (0, 0), (0, 1)}
    assert len({Draws.keyed(seed, step, 0, 4).seed for seed, step in keys}) == len(keys)
    assert Draws.keyed(1, 23, 0, 4).seed == key(1, 23) == GOLDEN
    assert torch.equal(Draws.keyed(1, 2, 0, 4).uniform(4), Draws.keyed(1, 2, 0, 4).uniform(4))


def test_normal_noise_is_normal():
    """KS test through the normal distribution function, and a fresh draw each call, in full.

    Kills: uniform noise, noise of float32 for a signal of float64.
    """
    draws = Draws.single(seeded(8), 100)
    like = torch.zeros(100, 5, 7, dtype=F64)
    first, second = draws.normal(like), draws.normal(like)
    assert (first.dtype, first.shape) == (F64, like.shape) and not torch.equal(first, first.float().double())
    assert kolmogorov_smirnov(torch.special.ndtr(first).flatten()) < 1.63
    assert abs(float((first * second).mean())) < 4 / math.sqrt(3500)


def test_low_precision_noise_is_drawn_in_float32():
    """A bfloat16 run sees the float32 run's noise, rounded. Kills: noise drawn in the signal's own dtype."""
    like = torch.zeros(4, 9)
    full = Draws.keyed(0, 0, 0, 4).normal(like)
    low = Draws.keyed(0, 0, 0, 4).normal(like.bfloat16())
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, full.bfloat16())


def test_uniform_numbers_are_uniform():
    """KS test and the unit interval. Kills: numbers of [0, ½) only."""
    assert kolmogorov_smirnov(Draws.single(seeded(9), 4000).uniform(4000)) < 1.63


@pytest.mark.parametrize(("first", "count"), [(0, 41), (5, 20), (16, 16), (31, 2), (40, 1)])
def test_a_row_draws_what_its_block_says(first: int, count: int):
    """Rows of any part are those of the whole, and of a longer batch. Kills: a block keyed by the part, one generator
    for all blocks, blocks cut at the part's border, a last block drawn shorter."""
    like = torch.zeros(41, 3)
    whole, longer = Draws.keyed(3, 4, 0, 41), Draws.keyed(3, 4, 0, 60)
    part = Draws.keyed(3, 4, first, 41)
    for _ in range(2):
        rows = whole.normal(like)
        assert torch.equal(part.normal(like[:count]), rows[first : first + count])
        assert torch.equal(longer.normal(torch.zeros(60, 3))[:41], rows)
        assert torch.equal(part.uniform(count), whole.uniform(41)[first : first + count])
        longer.uniform(60)


def test_blocks_and_calls_are_independent():
    """No row of noise stands twice, in other blocks, calls, steps or seeds. Kills: a block's number left out of its
    key, a generator made anew at each call."""
    rows = []
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        draws = Draws.keyed(seed, step, 0, 4 * ROWS)
        rows += [draws.normal(torch.zeros(4 * ROWS, 2)), draws.normal(torch.zeros(4 * ROWS, 2))]
    assert len(torch.cat(rows).unique(dim=0)) == 24 * ROWS


def test_a_process_draws_no_more_than_its_blocks(monkeypatch: pytest.MonkeyPatch):
    """Rows 32 to 47 of 1,000 cost 16 rows, rows 40 to 55 twice that. Kills: noise of the global batch drawn on every
    process."""
    drawn: list[int] = []
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda shape, **named: drawn.append(shape[0]) or real(shape, **named))
    Draws.keyed(0, 0, 32, 1000).normal(torch.zeros(16, 5))
    Draws.keyed(0, 0, 40, 1000).normal(torch.zeros(16, 5))
    assert drawn == [16, 16, 16]


def test_single_goes_on_with_its_generator():
    """Equal states draw alike, and the generator moves. Kills: a seed that every batch shares."""
    one, other = seeded(5), seeded(5)
    first = Draws.single(one, 3).normal(torch.zeros(3, 2))
    assert torch.equal(first, Draws.single(other, 3).normal(torch.zeros(3, 2)))
    assert not torch.equal(first, Draws.single(one, 3).normal(torch.zeros(3, 2)))


def test_keys_have_borders():
    """``(1, 23)`` is not ``(12, 3)`` nor ``("1", 23)``. Kills: parts joined without a border or a type."""
    found = [key(1, 23), key(12, 3), key("1", 23), key(123), key(1, 2, 3), key()]
    assert len(set(found)) == 6 and all(0 <= one < 2**63 for one in found)
    assert seeds.seeded(1, 23).initial_seed() == key(1, 23)


@pytest.mark.parametrize("call", [lambda draws: draws.uniform(4), lambda draws: draws.strata(4)])
def test_rows_outside_the_batch_are_told(call):
    """Kills: rows past the end taken as fewer rows."""
    with pytest.raises(UserError, match="rows 5 to 9 are not in a global batch of 8"):
        call(Draws.keyed(0, 0, 5, 8))
