"""The runs of a sweep, planned: every combination of bits, grid, base size and seed, all checked before the first.

Runs of equal bits, grid and seed share one autoencoder: the first base size trains it, the others take it over.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unilat.fields import FieldError, at_least
from unilat.recipe import config as configuration
from unilat.recipe import sizes
from unilat.recipe.build import describe
from unilat.recipe.config import RunConfig
from unilat.studies.bench import bench
from unilat.types import UserError


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What is swept: every combination is a run."""

    target_bpp: tuple[float, ...]
    """Wanted bits per pixel."""
    grid: tuple[str, ...]
    """Height x width x channels of a latent."""
    base: tuple[str, ...]
    """Sizes of the base model (``recipe/sizes.py``), ``small`` or ``tiny@500000``; runs of the first one train the
    autoencoders."""
    seed: tuple[int, ...]
    """Of weights, order and noise."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of a sweep."""

    name: str
    """Of its folder, ``0.1bpp-16x16x2-small-seed0``."""
    target_bpp: float
    grid: str
    base: str
    seed: int
    owner: str
    """Name of the run that trains its autoencoder; its own where it does so itself."""
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one run of a sweep will cost."""

    name: str
    latent: tuple[int, ...]
    capacity_bpp: float
    base_parameters: int
    autoencoder_parameters: int
    base_flops: float
    """Of training stage 2."""
    autoencoder_flops: float
    """Of training stage 1; 0 where another run's is taken."""
    minutes: float
    """On this machine."""


def axes_of(
    start: RunConfig, target_bpp: Sequence[float], base: Sequence[str], grid: Sequence[str], seeds: int
) -> Axes:
    """The axes with each value once; no ``grid`` is the configuration's own. Raises :class:`UserError`."""
    for bits in target_bpp:
        if not (math.isfinite(bits) and bits > 0):
            raise FieldError(f"target_bpp is a positive number of bits per pixel, 0.2 for example, not {bits:g}")
    for name, values in (("target_bpp", target_bpp), ("base", base)):
        if not values:
            raise FieldError(f"a sweep needs at least one value of {name}")
    if start.stage1.loss_factor is not None or start.stage1.autoencoder is not None:
        field = "loss_factor" if start.stage1.loss_factor is not None else "stage1.autoencoder"
        raise FieldError(f"a sweep trains its autoencoders to wanted bits: leave out {field}")
    if start.stage2.samples == 0:
        raise FieldError("a sweep compares base models: give stage2.samples 1 or more")
    at_least(1, seeds, "seeds")
    grids = [sizes.spelled(sizes.as_grid(one)) for one in grid] or [sizes.spelled(sizes.grid_of(start))]
    return Axes(
        target_bpp=tuple(dict.fromkeys(map(float, target_bpp))),
        grid=tuple(dict.fromkeys(grids)),
        base=tuple(dict.fromkeys(base)),
        seed=tuple(range(start.seed, start.seed + seeds)),
    )


def planned(start: RunConfig, axes: Axes, folder: Path) -> list[Planned]:
    """The runs in the order in which they are trained: all of a seed, then the next.

    Raises :class:`FieldError` that names the first run which cannot be.
    """
    return [
        _run(start, bits, grid, base, seed, f"{bits:.12g}bpp-{grid}-{axes.base[0]}-seed{seed}", folder)
        for seed in axes.seed
        for grid in axes.grid
        for bits in axes.target_bpp
        for base in axes.base
    ]


def _run(start: RunConfig, bits: float, grid: str, base: str, seed: int, owner: str, folder: Path) -> Planned:
    name = f"{bits:.12g}bpp-{grid}-{base}-seed{seed}"
    try:
        shape = sizes.as_grid(grid)
        config = start if shape == sizes.grid_of(start) else sizes.with_grid(start, shape)
        config = replace(sizes.with_base(config, base), seed=seed)
        config = replace(config, stage1=replace(config.stage1, target_bpp=bits))
        configuration.check(config)
    except UserError as problem:
        raise FieldError(f"{name}: {problem}") from None
    if owner != name:
        shared = replace(config.stage1, autoencoder=str((folder / owner).absolute()))
        config = replace(config, stage1=shared)
    return Planned(name=name, target_bpp=bits, grid=grid, base=base, seed=seed, owner=owner, config=config)


def estimates(plan: Sequence[Planned], say: Callable[[str], None] = lambda line: None) -> list[Estimate]:
    """What each run will cost. The first one's stages are timed here, as `unilat bench` does; the others' minutes
    follow from their FLOPs at the same rate, and their evaluation is taken to be as long.
    """
    channels = plan[0].config.data.channels or 3
    timed, found = None, list[Estimate]()
    for run in plan:
        described = describe(run.config, channels)
        base = described.parts["base"]
        others = [part for name, part in described.parts.items() if name != "base"]
        flops = (float(sum(part.training_flops for part in others)), float(base.training_flops))
        if timed is None:
            way = bench(run.config, channels, say).chosen
            stage1 = sum(stage.minutes for name, stage in way.stages.items() if name != "stage2")
            rates = (stage1 / flops[0], way.stages["stage2"].minutes / flops[1])
            timed = (rates, way.encode_minutes + way.evaluate_minutes)
        own = run.owner == run.name
        paid = (flops[0] if own else 0.0, flops[1])
        found.append(
            Estimate(
                name=run.name,
                latent=described.latent,
                capacity_bpp=described.capacity_bpp,
                base_parameters=base.parameters,
                autoencoder_parameters=sum(part.parameters for part in others),
                base_flops=paid[1],
                autoencoder_flops=paid[0],
                minutes=paid[0] * timed[0][0] + paid[1] * timed[0][1] + timed[1],
            )
        )
    return found
