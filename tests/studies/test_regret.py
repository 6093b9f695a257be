"""What an advice would have cost, by hand; and whether cheap numbers rank as full ones do."""

import math
from dataclasses import replace

import pytest

from studies.sweeps import Made, grid, law
from unilat.studies.points import Point
from unilat.studies.regret import agreement, budgets, distances, halving, regret
from unilat.types import UserError

BITS = (0.1, 0.2, 0.4)
A, B, C, D = ((bits, (4, 4, 4), "32×2") for bits in (0.1, 0.2, 0.4, 0.8))


def runs(**given) -> list[Point]:
    return [one.point() for one in grid(**given)]


def test_the_advice_of_the_law_has_no_regret():
    """On the law, the best of 0.1, 0.2, 0.4 at 1e13 is 0.4 and found without that budget. Kills: the largest in its
    place, and a fit that saw it."""
    found = regret(runs(bits=BITS, stderr=1e-5), 1e13)
    assert law(0.4, 1e13) < law(0.2, 1e13) < law(0.1, 1e13)
    assert (found.advised, found.best, found.value, found.stderr, found.noise) == (C, C, 0.0, 0.0, None)


def test_regret_by_hand():
    """Where the held-out budget alone has 0.2 at half its distance, 0.4 is advised for what was seen elsewhere. Kills:
    the sign, the errors of one of both, the noise of the whole for a run's, and the held-out budget in the fit."""
    given = {"bits": BITS, "samples": (625, 10000), "stderr": 1e-5}
    held = [
        replace(one, times=times * math.exp(0.02 * (1 if one.seed else -1)), stderr=0.002)
        for one in grid(bits=BITS, samples=(2500,), seeds=(0, 1))
        for times in [0.5 if one.bits == 0.2 else 1.0]
    ]
    found = regret([*runs(**given), *(one.point() for one in held)], 1.1e13)
    at = {bits: [one.distance for one in held if one.bits == bits] for bits in BITS}
    mean = {bits: sum(both) / 2 for bits, both in at.items()}
    noise = math.sqrt(2 * 0.02**2)
    assert (found.advised, found.best) == (C, B)
    assert found.value == pytest.approx(mean[0.4] - mean[0.2]) and found.value > 0
    assert found.noise == pytest.approx(noise * mean[0.2])
    squares = [0.002**2 + (noise * mean[bits]) ** 2 / 2 for bits in (0.4, 0.2)]
    assert found.stderr == pytest.approx(math.sqrt(sum(squares)))


def test_two_budgets_tell_nothing_of_each_other():
    """Kills: a law of one budget that advises for another."""
    with pytest.raises(UserError, match=r"nothing can be advised for 1e\+13 FLOPs from the other runs"):
        regret(runs(bits=BITS, samples=(625, 2500)), 1e13)


def test_budgets_are_apart_by_more_than_a_quarter():
    """Kills: other grids' costs as budgets of their own."""
    points = [Made(samples=samples).point() for samples in (1000, 1200, 2500, 1000, 3200)]
    assert budgets(points) == pytest.approx([4e12, 1e13, 1.28e13])


def test_agreement_ranks_within_each_base_model():
    """Of three choices of one base model two pairs of three agree, of two of another the only one: (1/3 + 1) / 2.
    Kills: base models ranked among each other."""
    full = [Made(bits=bits, times=times).point() for bits, times in ((0.1, 1.0), (0.2, 2.0), (0.4, 3.0))]
    full += [Made(bits=bits, base="16×2", times=times).point() for bits, times in ((0.1, 9.0), (0.2, 20.0))]
    truth = distances(full)
    assert sorted(truth, key=lambda choice: truth[choice])[0] == A
    proxy = {A: 1.0, B: 3.0, C: 2.0, (0.1, (4, 4, 4), "16×2"): 0.1, (0.2, (4, 4, 4), "16×2"): 0.2}
    assert agreement(full, proxy) == (pytest.approx((1 / 3 + 1) / 2), 5)
    with pytest.raises(UserError, match="no two choices"):
        agreement(full, {A: 1.0})


def test_distances_are_means_over_seeds():
    """Kills: the last seed's alone."""
    pair = [Made(seed=0, times=1.0), Made(seed=1, times=2.0)]
    assert distances([one.point() for one in pair]) == {B: pytest.approx(1.5 * pair[0].distance)}


def test_halving_by_hand():
    """Four, two of the quarter-length runs, one of the half-length: what is best at full length is lost early on
    where a round says so. Kills: the worse half, a round that is skipped, and the last one halved."""
    quarter, half = {A: 1.0, B: 2.0, C: 3.0, D: 4.0}, {A: 2.0, B: 1.0, C: 0.1, D: 0.0}
    full = {A: 0.5, B: 0.7, C: 0.1, D: 0.2}
    assert halving([quarter, half, full]) == B
    assert halving([quarter, full]) == A
    assert halving([full]) == C
