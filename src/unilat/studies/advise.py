"""Which bits, latent grid and base model to take for a budget of FLOPs, from the finished runs of a sweep."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unilat.fields import FieldError, Size, as_size, spelled
from unilat.recipe.build import describe
from unilat.recipe.config import RunConfig, check
from unilat.run.folder import RunFolder
from unilat.run.trained import read_config
from unilat.studies import scaling
from unilat.studies.advice import Advice, Change, GridAdvice, SizeAdvice
from unilat.studies.points import Point, read_points
from unilat.studies.scaling import GridLaw, interval
from unilat.types import UserError

ALONE = 1.5
"""Times that a budget may lie from the only one that was swept."""
FAR = 4.0
"""Times that a budget may lie beyond those swept before a note says so; and from those of the runs that tell sizes."""
STEP = 1.1
"""A tenth of the bits more, or fewer."""


def advise(paths: Sequence[str | Path], flops: float, pixels: str | int | None = None, seed: int = 0) -> Advice:
    """What the runs in ``paths`` advise for ``flops`` of training the base model.

    ``pixels``: the size of the pictures wanted, where it is another than the runs'. It is taken that pictures of k
    times the pixels have as many bits a pixel and come as far for k times the FLOPs; no run of one size can tell.
    Raises :class:`UserError` where the runs do not compare, or say too little.
    """
    if not 0 < flops < math.inf:
        raise UserError(f"`flops` must be a positive number of FLOPs, 1e15 for example, not {flops:g}")
    try:
        wanted = None if pixels is None else as_size(pixels)
    except UserError as problem:
        raise UserError(f"`pixels`: {problem}") from None
    if wanted is not None and min(wanted) < 1:
        raise UserError(f"`pixels` must be 1 or more a side, 64 or 64x96 for example, not {pixels}")
    unread: list[str] = []
    return advised(read_points([Path(path) for path in paths], unread.append), flops, wanted, unread, seed)


def advised(
    points: Sequence[Point], flops: float, wanted: Size | None = None, unread: Sequence[str] = (), seed: int = 0
) -> Advice:
    """:func:`advise` of runs that have been read; ``unread`` are lines about those that could not be."""
    points, lines = scaling.counted(points)
    laws, without = scaling.laws(points, seed)
    if not laws:
        raise UserError("; ".join(without))
    own = read_config(points[0].folder).data.size
    size = wanted or own
    asked = flops * math.prod(own) / math.prod(size)
    laws, silent = _telling(laws, asked)
    grids = sorted((_grid_advice(law, asked) for law in laws), key=lambda one: one.distance.value)
    law = next(law for law in laws if law.grid == grids[0].grid)
    noise = scaling.seed_noise(points)
    bases = _sizes(law, asked, noise or 0.0)
    samples, command = _command(law, grids[0].bits, bases[0], asked, size)
    notes = _notes(law, grids, bases, asked, noise)
    if size != own:
        notes.append(
            f"these runs are of {spelled(own)} pixels and tell nothing of {spelled(size)}: it is taken that as many "
            f"bits a pixel are best and that {math.prod(size) / math.prod(own):.3g} times the pixels need as many "
            "times the FLOPs"
        )
    return Advice(
        flops=flops,
        data=points[0].data,
        size=size,
        chosen=grids[0],
        base=bases[0],
        samples=samples,
        more=_change(law, grids[0].bits, STEP, asked),
        fewer=_change(law, grids[0].bits, 1 / STEP, asked),
        seed_noise=noise,
        grids=tuple(grids),
        bases=tuple(bases),
        notes=tuple(notes),
        left_out=(*unread, *lines, *without, *silent),
        command=command,
    )


def _telling(laws: list[GridLaw], flops: float) -> tuple[list[GridLaw], list[str]]:
    """The laws that tell of this budget; a line for each of one other budget. Raises where none is left."""
    silent = [law for law in laws if len(law.flops) == 1 and not _near(law.flops[0], flops, ALONE)]
    lines = [
        f"{scaling.spelled(law.grid)} has runs of one budget, {law.flops[0]:.3g} FLOPs, and they tell nothing of "
        f"{flops:.3g}: add runs of other base models or `stage2.samples`, or ask for {law.flops[0]:.3g}"
        for law in silent
    ]
    if len(silent) == len(laws):
        raise UserError("; ".join(lines))
    return [law for law in laws if law not in silent], lines


def _near(a: float, b: float, times: float) -> bool:
    return max(a, b) <= times * min(a, b)


def _grid_advice(law: GridLaw, flops: float) -> GridAdvice:
    best = interval(law.best_bits(flops))
    bits = law.within(best.value)
    return GridAdvice(
        grid=law.grid,
        best_bits=best,
        bits=bits,
        distance=interval(law.distance(bits, flops)),
        growth=interval(law.law.growth()),
        runs=len(law.points),
        levels_of_bits=law.bits,
        budgets=law.flops,
    )


def _change(law: GridLaw, bits: float, times: float, flops: float) -> Change:
    other = bits * times
    return Change(bits=other, distance=interval(law.distance(other, flops) - law.distance(bits, flops)))


def _sizes(law: GridLaw, flops: float, noise: float) -> list[SizeAdvice]:
    """The base models with runs near the budget, the advised one first.

    Runs are near within :data:`FAR`, or else those of the nearest budget are. Of the models that lie within two
    standard errors of the best, the one whose runs lie nearest to the budget is advised: it has been trained most
    nearly as long as it would be.
    """

    def away(point: Point) -> float:
        return abs(math.log(point.base_flops / flops))

    reach = max(math.log(FAR), min(map(away, law.points)) + math.log(scaling.SAME))
    found: list[SizeAdvice] = []
    for base in dict.fromkeys(point.base for point in law.points):
        runs = [point for point in law.points if point.base == base and away(point) <= reach]
        if not runs:
            continue
        off = [
            math.log(scaling.distance_of(point) / float(law.distance(point.bits.value, point.base_flops)[0]))
            for point in runs
        ]
        squares = sum(scaling.relative_error(point) ** 2 + noise**2 for point in runs)
        nearest = min(runs, key=away)
        found.append(
            SizeAdvice(
                base=base,
                parameters=nearest.base_parameters,
                off=sum(off) / len(off),
                stderr=math.sqrt(squares) / len(runs),
                runs=len(runs),
                flops=nearest.base_flops,
            )
        )
    best = min(found, key=lambda one: one.off)

    def order(one: SizeAdvice) -> tuple[bool, float]:
        apart = one.off - best.off > 2 * math.hypot(one.stderr, best.stderr)
        return apart, abs(math.log(one.flops / flops)) if not apart else one.off

    return sorted(found, key=order)


def _command(law: GridLaw, bits: float, base: SizeAdvice, flops: float, size: Size) -> tuple[int, str]:
    """The samples of stage 2 that use the budget up, and the command line that trains them.

    ``flops``: for pictures of the runs' own size; those of another cost others a sample, and have others in all.
    """
    runs = [point for point in law.points if point.base == base.base]
    point = min(runs, key=lambda one: abs(math.log(one.bits.value / bits)) + abs(math.log(one.base_flops / flops)))
    own = read_config(point.folder)
    config, a_sample = own, point.base_flops / own.stage2.samples
    if size != own.data.size:
        config = _sized(own, size)
        costs = [describe(one, own.data.channels).parts["base"].forward_flops for one in (config, own)]
        a_sample *= costs[0] / costs[1]
        flops *= math.prod(size) / math.prod(own.data.size)
    samples, bpp = max(1, round(flops / a_sample)), float(f"{bits:.3g}")
    check(replace(config, stage1=replace(config.stage1, target_bpp=bpp, loss_factor=None)))
    words = ["unilat", "train", config.data.source, "--config", str(RunFolder(point.folder).config)]
    words += ["--target-bpp", f"{bpp:g}", "--stage2.samples", str(samples)]
    words += ["--size", spelled(size)] if size != own.data.size else []
    return samples, shlex.join([*words, "--out", "runs/advised"])


def _sized(config: RunConfig, size: Size) -> RunConfig:
    sized = replace(config, data=replace(config.data, size=size))
    try:
        check(sized)
    except FieldError as problem:
        raise UserError(str(problem).replace("data.size", "`pixels`")) from None
    return sized


def _notes(
    law: GridLaw, grids: list[GridAdvice], bases: list[SizeAdvice], flops: float, noise: float | None
) -> list[str]:
    """What the reader must know, a sentence each."""
    first, notes = grids[0], []
    same = [scaling.spelled(one.grid) for one in grids[1:] if one.distance.overlaps(first.distance)]
    if same:
        notes.append(f"{scaling.spelled(first.grid)} cannot be told apart from {' and '.join(same)}: intervals overlap")
    if first.bits != first.best_bits.value:
        edge, side = ("most", "more") if first.bits < first.best_bits.value else ("fewest", "fewer")
        notes.append(f"{first.bits:.3g} are the {edge} bits of these runs and {side} may be better: add such runs")
    if len(law.flops) == 1:
        notes.append(f"these runs have one budget, {law.flops[0]:.3g} FLOPs: nothing is known of others")
    elif flops > FAR * law.flops[-1] or flops < law.flops[0] / FAR:
        near, where = (law.flops[-1], "above") if flops > law.flops[-1] else (law.flops[0], "below")
        times = max(flops / near, near / flops)
        notes.append(
            f"{flops:.3g} FLOPs lie {times:.3g} times {where} the nearest budget of these runs, {near:.3g}: the law is "
            "drawn out that far, which no run has checked"
        )
    best = bases[0]
    alike = [one.base for one in bases[1:] if abs(one.off - best.off) <= 2 * math.hypot(one.stderr, best.stderr)]
    if alike:
        notes.append(f"base {best.base} cannot be told apart from {' and '.join(alike)} at equal bits and FLOPs")
    elif len(bases) == 1:
        notes.append(f"base {best.base} is the only one with runs near this budget")
    if noise is None:
        notes.append("no two runs differ in their seed alone: the noise between seeds is not in the intervals")
    costs = [point.autoencoder_flops for point in law.points]
    if max(costs) > scaling.SAME * min(costs):
        notes.append("autoencoders of this grid were trained at different cost, which the law takes for the same")
    return notes
