"""A sweep as plain records: its runs, its cells (runs that differ in their seed alone) and the efficient front."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unilat.results import Number

State = Literal["waiting", "done", "missed", "diverged"]
"""Of a run: not finished; finished at the wanted bits; finished at others; of no worth."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of a sweep. Its numbers are None until it is finished, and of one that has diverged."""

    name: str
    """Of its folder."""
    target_bpp: float
    grid: str
    """Height x width x channels of a latent."""
    base: str
    """Name of the base model's size."""
    levels: str
    """Widths and blocks of the base model."""
    seed: int
    state: State
    reason: str = ""
    """Why it missed or diverged."""
    bits: Number | None = None
    psnr: Number | None = None
    reconstruction: Number | None = None
    """Kernel distance of reconstructions."""
    generation: Number | None = None
    """Kernel distance of samples."""
    base_flops: float | None = None
    """Of training stage 2."""
    autoencoder_flops: float | None = None
    """Of training stage 1, settling included, and of encoding the training pictures."""
    protocol: str = ""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of one number over the finished seeds of a cell."""

    value: float
    stderr: float
    """√(mean of the runs' squared standard errors + variance between seeds / seeds): held-out pictures are the same
    few for every seed, so their error does not fall with more seeds."""
    each: tuple[float, ...]
    """The seeds' own."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs that differ in their seed alone."""

    target_bpp: float
    grid: str
    base: str
    runs: tuple[str, ...]
    """Names of the finished ones."""
    bits: Mean | None
    psnr: Mean | None
    reconstruction: Mean | None
    generation: Mean | None
    base_flops: float | None
    autoencoder_flops: float | None
    front: bool = False
    """Not beaten in base FLOPs and generation distance."""
    front_whole: bool = False
    """The same with the FLOPs of the autoencoder counted in."""

    @property
    def whole_flops(self) -> float | None:
        """Of base model and autoencoder together."""
        both = (self.base_flops, self.autoencoder_flops)
        return None if None in both else sum(one or 0.0 for one in both)


def mean(numbers: Sequence[Number | None]) -> Mean | None:
    """The mean of what is there; None of nothing. A number without a standard error counts with none."""
    found = [number for number in numbers if number is not None and math.isfinite(number.value)]
    if not found:
        return None
    each, count = tuple(number.value for number in found), len(found)
    value = sum(each) / count
    own = sum((number.stderr or 0.0) ** 2 for number in found) / count
    between = sum((one - value) ** 2 for one in each) / max(1, count - 1) / count
    return Mean(value=value, stderr=math.sqrt(own + between), each=each)


def front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Which of the points ``(cost, distance)`` no other one beats: costs no more and is no farther, and one of the two
    is less. None, a point that is not there, is on no front and beats none."""
    known = [point for point in points if point is not None]

    def beaten(point: tuple[float, float]) -> bool:
        return any(one[0] <= point[0] and one[1] <= point[1] and one != point for one in known)

    return [point is not None and not beaten(point) for point in points]


def cells(rows: Sequence[Row]) -> tuple[Cell, ...]:
    """The cells of a sweep in the order of their first runs, with the fronts."""
    together: dict[tuple[float, str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row.target_bpp, row.grid, row.base), []).append(row)
    found = [_cell(key, runs) for key, runs in together.items()]
    fronts = [front([_place(cell, cost(cell)) for cell in found]) for cost in _COSTS]
    return tuple(replace(cell, front=on, front_whole=whole) for cell, on, whole in zip(found, *fronts, strict=True))


_COSTS: tuple[Callable[[Cell], float | None], ...] = (lambda cell: cell.base_flops, lambda cell: cell.whole_flops)


def _place(cell: Cell, cost: float | None) -> tuple[float, float] | None:
    return None if cost is None or cell.generation is None else (cost, cell.generation.value)


def _cell(key: tuple[float, str, str], runs: Sequence[Row]) -> Cell:
    done = [row for row in runs if row.state in ("done", "missed")]
    return Cell(
        target_bpp=key[0],
        grid=key[1],
        base=key[2],
        runs=tuple(row.name for row in done),
        bits=mean([row.bits for row in done]),
        psnr=mean([row.psnr for row in done]),
        reconstruction=mean([row.reconstruction for row in done]),
        generation=mean([row.generation for row in done]),
        base_flops=done[0].base_flops if done else None,
        autoencoder_flops=done[0].autoencoder_flops if done else None,
    )


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A sweep as its page shows it."""

    name: str
    data: str
    """Name of the pictures."""
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]
