"""Finished runs under one law for each latent grid: which count, how far each may be off, and what the law tells."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unilat.maths.scaling import Law, fit_law
from unilat.maths.seeds import seeded
from unilat.studies.points import Point
from unilat.types import UserError

SAME = 1.1
"""Bits, or FLOPs, of two runs count as one level where the larger is at most this many times the smaller."""
CONFIDENCE = 0.9
"""Share of the draws inside an interval."""
LEAST_BITS = 3
"""Levels of bits that a law needs: fewer have no middle."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and the interval that holds it with the probability :data:`CONFIDENCE`."""

    value: float
    low: float
    high: float

    def overlaps(self, other: "Interval") -> bool:
        """Whether both have a number in common."""
        return self.low <= other.high and other.low <= self.high


def interval(values: Tensor) -> Interval:
    """Of ``values [k]``: row 0 is the number itself, the others are draws of it. It holds the number too."""
    tail = (1.0 - CONFIDENCE) / 2
    low, high = values[1:].quantile(torch.tensor([tail, 1.0 - tail], dtype=values.dtype)).tolist()
    value = float(values[0])
    return Interval(value=value, low=min(low, value), high=max(high, value))


@dataclass(frozen=True, kw_only=True)
class GridLaw:
    """The law of the runs with latents of one grid."""

    grid: tuple[int, ...]
    """``(C, *grid)`` of a latent."""
    points: tuple[Point, ...]
    law: Law
    bits: tuple[float, ...]
    """Levels of measured bits per pixel, ascending."""
    flops: tuple[float, ...]
    """Levels of the base model's training FLOPs, ascending: the budgets of these runs."""

    def best_bits(self, flops: float) -> Tensor:
        """Of the fit and its draws, ``[k]``, wherever they lie."""
        return self.law.best_bits(flops)

    def within(self, bits: float) -> float:
        """``bits``, or the nearest that these runs have seen."""
        return min(max(bits, self.bits[0]), self.bits[-1])

    def distance(self, bits: float, flops: float) -> Tensor:
        """Of the fit and its draws, ``[k]``."""
        at = torch.tensor([bits], dtype=torch.float64), torch.tensor([flops], dtype=torch.float64)
        return self.law.distance(*at)[:, 0]


def counted(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """The runs that a law can stand on, and a line for each that is left out, by its name.

    Raises :class:`UserError` where none is left, and where two were measured on other pictures or by another protocol.
    """
    kept: list[Point] = []
    lines: list[str] = []
    for point in points:
        reason = _left_out(point)
        kept += [] if reason else [point]
        lines += [f"{point.folder} is left out: {reason}"] if reason else []
    if not kept:
        raise UserError("; ".join(lines) or "no runs: name run folders, or folders of runs")
    told: tuple[tuple[str, Callable[[Point], str]], ...] = (
        ("of different pictures", lambda point: point.data),
        ("of pictures of different sizes", lambda point: f"{point.pixels:,} pixels"),
        ("measured by different protocols", lambda point: point.protocol),
    )
    for what, read in told:
        first = kept[0]
        other = next((point for point in kept if read(point) != read(first)), None)
        if other is not None:
            both = " and ".join(f"{point.folder} ({read(point)})" for point in (first, other))
            raise UserError(f"these runs are {what} and do not compare, {both}: name runs of one kind")
    return kept, lines


def _left_out(point: Point) -> str:
    """Why a run says nothing about bits and budgets; empty where it does."""
    if point.outcome is not None and point.outcome.verdict in ("diverged", "missed"):
        return f"it has {point.outcome.verdict}" + (" its bits" if point.outcome.verdict == "missed" else "")
    if point.base_flops <= 0:
        return "it has no base model (stage 2)"
    if point.generation is None:
        return "it has no generation distance (no feature network was at hand)"
    if not (math.isfinite(point.generation.value) and point.generation.value > 0):
        return f"its generation distance is {point.generation.value:.2g}, which has no logarithm"
    if not point.generation.stderr or not math.isfinite(point.generation.stderr):
        return "its generation distance has no standard error"
    return "" if point.bits.value > 0 and math.isfinite(point.bits.value) else "it has no bits"


def distance_of(point: Point) -> float:
    """Its generation distance; of a run that :func:`counted` has kept."""
    assert point.generation is not None
    return point.generation.value


def relative_error(point: Point) -> float:
    """Standard error of its generation distance over pictures, as a share of it."""
    assert point.generation is not None and point.generation.stderr is not None
    return point.generation.stderr / point.generation.value


def levels(values: Sequence[float]) -> tuple[float, ...]:
    """Geometric means of the groups that positive ``values`` fall into, ascending: none is wider than :data:`SAME`."""
    groups: list[list[float]] = []
    for value in sorted(values):
        if groups and value <= SAME * groups[-1][0]:
            groups[-1].append(value)
        else:
            groups.append([value])
    return tuple(math.exp(sum(map(math.log, group)) / len(group)) for group in groups)


Cell = tuple[float, tuple[int, ...], str, float]
"""Wanted bits (measured ones where none were wanted), grid, base model and budget: what runs of other seeds share."""


def cells(points: Sequence[Point]) -> dict[Cell, list[Point]]:
    """The runs of each cell; FLOPs of one level are one budget."""
    budgets = levels([point.base_flops for point in points])
    found: dict[Cell, list[Point]] = {}
    for point in points:
        budget = min(budgets, key=lambda level: abs(math.log(level / point.base_flops)))
        found.setdefault((point.target_bpp or point.bits.value, point.grid, point.base, budget), []).append(point)
    return found


def seed_noise(points: Sequence[Point]) -> float | None:
    """Standard deviation between seeds as a share of the distance, pooled over cells; None where no cell has two."""
    square, freedom = 0.0, 0
    for runs in cells(points).values():
        logs = [math.log(distance_of(point)) for point in runs]
        mean = sum(logs) / len(logs)
        square += sum((one - mean) ** 2 for one in logs)
        freedom += len(logs) - 1
    return math.sqrt(square / freedom) if freedom else None


def laws(points: Sequence[Point], seed: int = 0) -> tuple[list[GridLaw], list[str]]:
    """The law of each grid with enough levels of bits, and a line for each grid without.

    A run is off by its distance's error over pictures and by the noise between seeds; by the latter together with the
    runs of its autoencoder, those of the same seed, bits and PSNR.
    """
    noise = seed_noise(points) or 0.0
    found: list[GridLaw] = []
    lines: list[str] = []
    for grid in dict.fromkeys(point.grid for point in points):
        runs = [point for point in points if point.grid == grid]
        bits = levels([point.bits.value for point in runs])
        if len(bits) < LEAST_BITS:
            told = ", ".join(f"{one:.3g}" for one in bits)
            lines.append(
                f"{spelled(grid)} has runs of {len(bits)} level{'s' * (len(bits) > 1)} of bits ({told}), and a law "
                f"needs {LEAST_BITS}: add runs of other bits"
            )
            continue
        columns = (
            [point.bits.value for point in runs],
            [point.base_flops for point in runs],
            [distance_of(point) for point in runs],
            [relative_error(point) for point in runs],
        )
        tensors = (torch.tensor(column, dtype=torch.float64) for column in columns)
        keys = [(point.seed, point.bits.value, point.psnr.value) for point in runs]
        group = torch.tensor([list(dict.fromkeys(keys)).index(key) for key in keys])
        generator = seeded(seed, f"law of {grid}")
        law = fit_law(*tensors, group=group, group_error=noise, generator=generator)
        budgets = levels([point.base_flops for point in runs])
        found.append(GridLaw(grid=grid, points=tuple(runs), law=law, bits=bits, flops=budgets))
    return found, lines


def spelled(grid: tuple[int, ...]) -> str:
    """``(2, 16, 16)`` as ``16×16×2``: the sides, then the channels."""
    return "×".join(map(str, (*grid[1:], grid[0])))
