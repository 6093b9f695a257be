"""The arithmetic of ``headline.py``: what is chosen, curves of work, ratios with their errors, and who wins."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from common import Rows, error, interpolated, mean, row

DRAWS = 1_000
"""Curves drawn within their errors, for the error of a ratio."""


@dataclass(frozen=True)
class Told:
    """A distance of one run on one part, with its jackknife over pictures."""

    value: float
    stderr: float


@dataclass(frozen=True)
class Point:
    """One setting of a method with a base model of one budget, over the seeds."""

    label: str
    base_flops: float
    stage1_flops: float
    validation: tuple[float, ...]
    """One distance a seed: what is chosen by."""
    test: tuple[Told, ...]
    """One a seed: what is told."""
    second: tuple[Told, ...] = ()
    """The same by the second network, by which nothing is chosen."""
    psnr: tuple[float, ...] = ()
    """Of reconstructions of the test part, one a seed, dB."""

    @property
    def value(self) -> float:
        """Mean distance on the test part."""
        return mean([one.value for one in self.test])

    @property
    def stderr(self) -> float:
        """Of :attr:`value` (:func:`combined`)."""
        return combined(self.test)


def combined(each: Sequence[Told]) -> float:
    """Standard error of a mean over seeds that were all held against the same pictures: ``√(s²/n + j²)``.

    ``s`` is the spread of the seeds; ``j`` the root mean square of the runs' own jackknife errors, which more seeds do
    not make smaller: the pictures are the same. Alone neither will do; two seeds may lie 0.0002 apart by chance.
    """
    own = mean([one.stderr**2 for one in each])
    return math.sqrt((error([one.value for one in each]) or 0.0) ** 2 + own)


def chosen(points: Sequence[Point]) -> Point:
    """The one that is nearest on the validation part; the test part is not looked at."""
    return min(points, key=lambda one: mean(one.validation))


Curve = Sequence[tuple[float, float]]


def reached(wanted: float, points: Curve) -> tuple[float, int]:
    """FLOPs at which a curve ``(FLOPs, distance)`` first comes down to ``wanted``, linear in ln FLOPs, and the sign of
    what they may be off by: −1 where it begins below (they are at most these), 1 where it never does (they are more).
    """
    for index, (flops, distance) in enumerate(points):
        if distance <= wanted:
            last = points[max(index - 1, 0) : index + 1]
            crossing = [(height, math.log(place)) for place, height in last]
            return (math.exp(interpolated(wanted, crossing)), 0) if index else (flops, -1)
    return points[-1][0], 1


@dataclass(frozen=True)
class Ratio:
    """FLOPs of the other method over ours at one distance."""

    value: float
    bound: str
    """What the value is of the truth; empty where it is the truth."""


def ratio(wanted: float, ours: Curve, theirs: Curve, added: tuple[float, float] = (0.0, 0.0)) -> Ratio:
    """The ratio at ``wanted``, ``added`` FLOPs to ours and to theirs; a curve that begins below or ends above bounds
    it."""
    (our, below), (their, above) = reached(wanted, ours), reached(wanted, theirs)
    signs = {above, -below} - {0}
    bound = {(): "", (1,): "at least", (-1,): "at most"}.get(tuple(signs), "not known, smallest budgets give")
    return Ratio((their + added[1]) / (our + added[0]), bound)


def spread(ours: Sequence[Point], theirs: Sequence[Point], added: tuple[float, float]) -> list[float]:
    """The ratios of :data:`DRAWS` pairs of curves, each point drawn within its error, at their own distance, sorted."""
    generator = random.Random(0)

    def drawn(points: Sequence[Point]) -> list[tuple[float, float]]:
        return [(one.base_flops, generator.gauss(one.value, one.stderr)) for one in points]

    pairs = [(drawn(ours), drawn(theirs)) for _ in range(DRAWS)]
    return sorted(ratio(nearest(one, other), one, other, added).value for one, other in pairs)


def curve(points: Sequence[Point]) -> list[tuple[float, float]]:
    """What :func:`reached` walks along."""
    return [(one.base_flops, one.value) for one in points]


def nearest(ours: Curve, theirs: Curve) -> float:
    """The distance at which work is compared: the nearest that both curves come to."""
    return max(min(distance for _, distance in one) for one in (ours, theirs))


def work_rows(what: str, name: str, ours: Sequence[Point], theirs: Sequence[Point], goals: tuple[float, float]) -> Rows:
    """FLOPs of ``name`` over UL's to the distance that both reach: of the base model, and with stage 1."""
    wanted = nearest(curve(ours), curve(theirs))
    words = next(one.label for one in (*theirs, *ours) if one.value == wanted)
    added = (mean([one.stage1_flops for one in ours]), mean([one.stage1_flops for one in theirs]))
    rows: Rows = []
    for part, more, goal in (("base", (0.0, 0.0), goals[0]), ("base and stage 1", added, goals[1])):
        found = ratio(wanted, curve(ours), curve(theirs), more)
        drawn = spread(ours, theirs, more)
        low, high = drawn[round(0.025 * (DRAWS - 1))], drawn[round(0.975 * (DRAWS - 1))]
        wins = "UL needs fewer" if low > 1 else f"{name} needs fewer" if high < 1 else "within the error of each other"
        text = f"{what}: {part} FLOPs to equal distance, {name} over UL, at the nearest of {words}, {wanted:.3g}; 95 % "
        text += f"from {low:.3g} to {high:.3g}: {wins}" + (f"; {found.bound} this" if found.bound else "")
        width = (drawn[round(0.84 * (DRAWS - 1))] - drawn[round(0.16 * (DRAWS - 1))]) / 2
        n = min(len(one.test) for one in (*ours, *theirs))
        rows.append(row(text, found.value, "ratio", goal=goal, at_least=True, stderr=width, n=n))
    return rows


def farther(what: str, ours: Point, theirs: Point, goal: float | None = None) -> Rows:
    """How much farther than ours another point lies, and whether that is more than twice its error."""
    gap, width = theirs.value - ours.value, math.hypot(ours.stderr, theirs.stderr)
    wins = "ours nearer" if gap > 2 * width else "the other nearer" if gap < -2 * width else "within the error"
    text = f"{what}, {theirs.label} less {ours.label}: {wins}"
    n = min(len(ours.test), len(theirs.test))
    return [row(text, gap, "kernel distance", goal=goal, at_least=goal is not None, stderr=width, n=n)]


def by_second(point: Point) -> Point:
    """The same point, told by the second network."""
    return replace(point, test=point.second)


def point_rows(what: str, measures: Mapping[str, Sequence[Told]], unit: str = "kernel distance") -> Rows:
    """One row a measure, with both errors in one."""
    return [
        row(f"{what}: {name}", mean([one.value for one in each]), unit, stderr=combined(each), n=len(each))
        for name, each in measures.items()
        if each
    ]
