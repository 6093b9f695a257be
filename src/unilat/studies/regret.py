"""What an advice would have cost on an unseen budget, and whether cheaper runs rank choices as full ones do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from unilat.maths.scaling import kendall_tau
from unilat.studies import scaling
from unilat.studies.points import Point
from unilat.types import UserError

BAND = 1.25
"""Runs within this many times of a budget are of it: latents of other grids cost a base model a little more or less."""
Choice = tuple[float, tuple[int, ...], str]
"""Wanted bits, grid and base model: what is chosen among, whatever the budget and the seed."""


@dataclass(frozen=True, kw_only=True)
class Regret:
    """Of one budget that was held out."""

    budget: float
    """FLOPs of training the base model."""
    advised: Choice
    """The choice of this budget whose distance the law of the other budgets expects to be lowest."""
    best: Choice
    """The one that was measured to be lowest."""
    value: float
    """Distance of ``advised`` less that of ``best``; 0 where they are the same, never below."""
    stderr: float
    """Of ``value``: both errors of both, 0 where they are the same."""
    noise: float | None
    """Standard deviation between seeds of a run's distance at ``best``; None where no cell has two seeds."""


def regret(points: Sequence[Point], budget: float, seed: int = 0) -> Regret:
    """Fit the runs of all other budgets, advise for ``budget``, and look what that would have cost.

    Raises :class:`UserError` where the other runs have fewer than two budgets: they tell nothing of a third.
    """
    points, _ = scaling.counted(points)
    held = [point for point in points if max(point.base_flops, budget) <= BAND * min(point.base_flops, budget)]
    laws, lines = scaling.laws([point for point in points if point not in held], seed)
    telling = {law.grid: law for law in laws if len(law.flops) > 1}
    noise = scaling.seed_noise(points)
    means = {choice: _mean(runs, noise or 0.0) for choice, runs in _choices(held).items()}
    expected: dict[Choice, float] = {}
    for choice, runs in _choices(held).items():
        if choice[1] in telling:
            law = telling[choice[1]]
            at = [float(law.distance(point.bits.value, point.base_flops)[0]) for point in runs]
            expected[choice] = sum(at) / len(at)
    if not expected:
        what = "; ".join(lines) or "a law needs two other budgets"
        raise UserError(f"nothing can be advised for {budget:.3g} FLOPs from the other runs: {what}")
    advised, best = min(expected, key=lambda one: expected[one]), min(means, key=lambda one: means[one][0])
    same = advised == best
    return Regret(
        budget=budget,
        advised=advised,
        best=best,
        value=means[advised][0] - means[best][0],
        stderr=0.0 if same else math.hypot(means[advised][1], means[best][1]),
        noise=None if noise is None else noise * means[best][0],
    )


def budgets(points: Sequence[Point]) -> list[float]:
    """Budgets of runs, ascending, where those within :data:`BAND` of the smallest of them are one."""
    found: list[float] = []
    for flops in sorted(point.base_flops for point in points):
        if not found or flops > BAND * found[-1]:
            found.append(flops)
    return found


def agreement(full: Sequence[Point], proxy: Mapping[Choice, float]) -> tuple[float, int]:
    """Kendall's tau of a cheap number with the full runs' distances, and how many choices it stands on.

    Choices are ranked among those of one base model, and the taus of all base models averaged: that a larger one is
    better needs no proxy. Raises :class:`UserError` where no base model has two choices in both.
    """
    truth = distances(full)
    taus: list[float] = []
    count = 0
    for base in dict.fromkeys(choice[2] for choice in truth):
        both = [choice for choice in truth if choice[2] == base and choice in proxy]
        if len(both) > 1:
            columns = (torch.tensor([one[choice] for choice in both], dtype=torch.float64) for one in (truth, proxy))
            taus.append(kendall_tau(*columns))
            count += len(both)
    if not taus:
        raise UserError("no two choices were measured in full and by proxy")
    return sum(taus) / len(taus), count


def halving(rounds: Sequence[Mapping[Choice, float]]) -> Choice:
    """Successive halving: each round keeps the better half of what the one before kept; the last one's best.

    ``rounds`` are distances, shortest runs first; the last ones are the full runs'.
    """
    alive = set(rounds[0])
    for distance in rounds[:-1]:
        ranked = sorted(alive & set(distance), key=lambda choice: distance[choice])
        alive = set(ranked[: -(-len(ranked) // 2)])
    return min(alive & set(rounds[-1]), key=lambda choice: rounds[-1][choice])


def distances(points: Sequence[Point]) -> dict[Choice, float]:
    """Mean generation distance of each choice over its runs."""
    return {choice: _mean(runs, 0.0)[0] for choice, runs in _choices(points).items()}


def _choices(points: Sequence[Point]) -> dict[Choice, list[Point]]:
    found: dict[Choice, list[Point]] = {}
    for point in points:
        found.setdefault((point.target_bpp or point.bits.value, point.grid, point.base), []).append(point)
    return found


def _mean(runs: Sequence[Point], noise: float) -> tuple[float, float]:
    """Mean distance of runs of one cell, and its error: √(mean squared error over pictures + variance of seeds / runs).

    Held-out pictures are much the same for every seed, so that their error does not fall with more runs.
    """
    mean = sum(map(scaling.distance_of, runs)) / len(runs)
    pictures = sum((scaling.relative_error(run) * scaling.distance_of(run)) ** 2 for run in runs) / len(runs)
    return mean, math.sqrt(pictures + (noise * mean) ** 2 / len(runs))
