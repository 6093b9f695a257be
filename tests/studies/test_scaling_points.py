"""Which runs a law stands on, how far each may be off, and what is refused."""

import math
from pathlib import Path

import pytest
import torch

from studies.sweeps import Made, best, grid, law
from unilat.studies import scaling
from unilat.studies.points import Point
from unilat.types import UserError


def points(*runs: Made) -> list[Point]:
    return [run.point(Path(f"run-{number:03}")) for number, run in enumerate(runs)]


def test_levels_are_groups_of_near_values():
    """0.1 and 0.105 are one level, 0.2 another, told by their geometric means. Kills: every value a level."""
    assert scaling.levels([0.2, 0.105, 0.1]) == pytest.approx((math.sqrt(0.1 * 0.105), 0.2))
    assert len(scaling.levels([1.0, 1.09, 1.18])) == 2  # a chain of near values is no level


def test_an_interval_holds_its_middle_90_percent_and_the_number():
    """Of 0 … 100 it is 5 to 95. Kills: row 0 among the draws, and one tail for two."""
    draws = torch.arange(101, dtype=torch.float64)
    found = scaling.interval(torch.cat([draws[[40]], draws]))
    assert (found.value, found.low, found.high) == pytest.approx((40.0, 5.0, 95.0))
    assert scaling.interval(torch.cat([-draws[[99]], draws])).low == -99.0
    one = scaling.Interval(value=1.0, low=0.0, high=2.0)
    assert one.overlaps(scaling.Interval(value=3.0, low=2.0, high=4.0))
    assert not one.overlaps(scaling.Interval(value=3.0, low=2.5, high=4.0))


def test_noise_between_seeds_by_hand():
    """Two cells of two seeds, e^±0.1 and e^±0.3 apart: the root of (2 · 0.1² + 2 · 0.3²) / 2, whatever stands alone.
    Kills: other bits or budgets taken for seeds, and n for n - 1."""
    runs = [
        Made(bits=bits, seed=seed, times=math.exp(sign * off))
        for bits, off in ((0.1, 0.1), (0.2, 0.3))
        for seed, sign in ((0, 1), (1, -1))
    ]
    alone = [Made(bits=0.4, times=3.0), Made(samples=10000, times=3.0), Made(channels=8, times=5.0)]
    assert scaling.seed_noise(points(*runs, *alone)) == pytest.approx(math.sqrt(0.1))
    assert scaling.seed_noise(points(*alone)) is None


def test_laws_are_of_their_own_grid():
    """The law's best bits and distances come back for each grid. Kills: grids together, bits and FLOPs exchanged."""
    given = {"samples": (625, 10000), "stderr": 1e-5}
    found, lines = scaling.laws(points(*grid(**given), *grid(channels=8, times=2.0, **given)))
    assert [one.grid for one in found] == [(4, 4, 4), (8, 4, 4)] and not lines
    for one, times in zip(found, (1.0, 2.0), strict=True):
        assert float(one.best_bits(1e13)[0]) == pytest.approx(best(1e13), rel=0.02)
        assert float(one.distance(0.2, 4e13)[0]) == pytest.approx(times * law(0.2, 4e13), rel=0.01)
        assert one.bits == pytest.approx((0.05, 0.1, 0.2, 0.4, 0.8)) and one.flops == pytest.approx((2.5e12, 4e13))
        assert (one.within(0.01), one.within(0.3), one.within(3.0)) == pytest.approx((0.05, 0.3, 0.8))


def test_both_errors_reach_the_law(monkeypatch: pytest.MonkeyPatch):
    """Each run has its own error as a share of its distance, and shares the noise between seeds with the runs of its
    autoencoder. Kills: either left out, absolute errors, and runs of two seeds or of other bits in one group."""
    seen = []
    monkeypatch.setattr(scaling, "fit_law", lambda *columns, **given: seen.append((columns, given)))
    runs = [
        Made(bits=bits, seed=seed, samples=samples, times=math.exp(sign * 0.03), stderr=0.004)
        for bits in (0.1, 0.2, 0.4)
        for seed, sign in ((0, 1), (1, -1))
        for samples in (625, 2500)
    ]
    scaling.laws(points(*runs))
    (bits, flops, distance, error), given = seen[0]
    assert bits.tolist() == [0.1] * 4 + [0.2] * 4 + [0.4] * 4 and flops.tolist() == [2.5e12, 1e13] * 6
    assert distance.tolist() == pytest.approx([one.distance for one in runs])
    assert error.tolist() == pytest.approx([0.004 / one.distance for one in runs])
    assert given["group"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert given["group_error"] == pytest.approx(math.sqrt(2 * 0.03**2))


def test_too_few_bits_are_told_with_their_number():
    """Kills: a parabola through two points."""
    found, lines = scaling.laws(points(*grid(bits=(0.1, 0.2)), *grid(channels=8, bits=(0.1,))))
    assert not found
    assert lines[0].startswith("4×4×4 has runs of 2 levels of bits (0.1, 0.2), and a law needs 3: add")
    assert lines[1].startswith("4×4×8 has runs of 1 level of bits (0.1), and")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"verdict": "diverged"}, "it has diverged"),
        ({"verdict": "missed"}, "it has missed its bits"),
        ({"times": 0.0}, "its generation distance is 0, which has no logarithm"),
        ({"times": -0.1}, "which has no logarithm"),
        ({"stderr": 0.0}, "has no standard error"),
    ],
)
def test_runs_that_say_nothing_are_left_out_by_name(given: dict, why: str):
    """Kills: a diverged run in the law, the logarithm of 0, and silence about either."""
    kept, lines = scaling.counted(points(Made(), Made(bits=0.1, **given)))
    assert [point.bits.value for point in kept] == [0.2]
    assert len(lines) == 1 and lines[0].startswith("run-001 is left out: ") and lines[0].endswith(why)
    with pytest.raises(UserError, match="run-001 is left out"):
        scaling.counted(points(Made(), Made(bits=0.1, **given))[1:])
    with pytest.raises(UserError, match="no runs: name"):
        scaling.counted([])


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"sha256": "fedcba9876543210"}, "of different pictures"),
        ({"size": "32"}, "of pictures of different sizes"),
        ({"features": "features: others"}, "measured by different protocols"),
    ],
)
def test_runs_that_do_not_compare_are_refused(given: dict, what: str):
    """Kills: distances of two feature networks under one law."""
    with pytest.raises(UserError, match=f"these runs are {what} and do not compare, .*run-000.* and .*run-002"):
        scaling.counted(points(Made(), Made(bits=0.1), Made(bits=0.4, **given)))
