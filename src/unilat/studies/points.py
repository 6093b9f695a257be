"""Finished runs as points of a study: what each was set to, what it cost and what it is worth, read from its folder."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unilat.nets.vit import ViTConfig
from unilat.recipe.build import Description, describe
from unilat.recipe.config import RunConfig
from unilat.results import Distance, Number, Outcome
from unilat.results import read as read_results
from unilat.run import facts, seal
from unilat.run.folder import RunFolder
from unilat.run.trained import read_config
from unilat.types import UserError


@dataclass(frozen=True, kw_only=True)
class Point:
    """One finished run. FLOPs are of training, counted as `unilat train --dry-run` counts them."""

    folder: Path
    data: str
    """Name of the pictures and the first 12 digits of their SHA-256; of one study are runs where it is equal."""
    pixels: int
    """Of a picture."""
    target_bpp: float | None
    """Bits per pixel that training held, or None where a loss factor was fixed."""
    grid: tuple[int, ...]
    """``(C, *grid)`` of a latent."""
    base: str
    """Widths and blocks of the base model, :func:`of_base`; ``none`` where there is none."""
    base_parameters: int
    seed: int
    bits: Number
    """Measured bits per pixel of held-out pictures."""
    psnr: Number
    """Decibels of reconstructions, with the decoder calls that the run was evaluated with."""
    reconstruction: Number | None
    """Kernel distance of reconstructions to held-out pictures; None where no feature network was at hand."""
    generation: Number | None
    """Kernel distance of samples to held-out pictures; None also where there are no samples."""
    base_flops: float
    """FLOPs of training stage 2."""
    autoencoder_flops: float
    """FLOPs of training stage 1, settling included, and of encoding the training pictures once."""
    protocol: str
    """Which pictures, features and calls the numbers stand on; numbers of different protocols do not compare."""
    outcome: Outcome | None
    """Whether the run came to what was wanted; None in files of before December 2026."""

    @property
    def diverged(self) -> bool:
        """Whether its numbers are worth nothing."""
        return self.outcome is not None and self.outcome.verdict == "diverged"


def of_base(vit: ViTConfig) -> str:
    """Widths and blocks of a base model, finest level first: ``128×6``, ``512×6+1024×16``."""
    levels = zip(vit.channels, vit.blocks, strict=True)
    return "+".join(f"{width}×{blocks}" for width, blocks in levels)


def read_point(folder: Path) -> Point:
    """The run in ``folder``; raises :class:`UserError` in one line where it is not finished or damaged."""
    files = RunFolder(Path(folder))
    if not files.config.is_file():
        raise UserError(f"{folder} is no run folder: {files.config.name} is not in it")
    seal.check(files.config, files.metrics)
    config, results, known = read_config(files.path), read_results(files.metrics), facts.read(files.data)
    costs = results.costs
    flops = {name: value for name, value in costs.training_flops.items() if name != "base"}
    networks, name = _described(replace(config, seed=0), known.channels), Path(known.source).name
    lines = [
        results.pictures.replace(known.source, name),
        results.features or "no features",
        results.making.line if results.making else "",
    ]
    encoding = networks.parts["encoder"].forward_flops * known.train
    has_base = "base" in costs.parameters and results.base_bits is not None
    return Point(
        folder=files.path,
        data=f"{name} {known.sha256[:12]}",
        pixels=math.prod(config.data.size),
        target_bpp=results.bits.target,
        grid=networks.latent,
        base=of_base(config.base.vit) if has_base else "none",
        base_parameters=costs.parameters["base"] if has_base else 0,
        seed=config.seed,
        bits=results.bits.measured,
        psnr=results.reconstruction.psnr,
        reconstruction=_kernel(results.reconstruction.distance),
        generation=_kernel(results.generation),
        base_flops=costs.training_flops["base"] if has_base else 0.0,
        autoencoder_flops=sum(flops.values()) + encoding,
        protocol="; ".join(line for line in lines if line),
        outcome=results.outcome,
    )


def read_points(paths: Sequence[Path], skip: Callable[[str], object] | None = None) -> list[Point]:
    """The runs that ``paths`` name, each a run folder or a folder of runs, in the order of their names.

    What cannot be read is told to ``skip``, a line each, and left out; without it :class:`UserError` is raised with
    all those lines in one. It is raised too where nothing is left.
    """
    folders: dict[Path, None] = {}
    lost: list[str] = []
    for path in map(Path, paths):
        inside = [path] if RunFolder(path).config.is_file() else runs_in(path)
        folders |= dict.fromkeys(inside)
        lost += [] if inside else [f"{path} is no run folder, and no folder of runs"]
    points: list[Point] = []
    for folder in folders:
        try:
            points.append(read_point(folder))
        except UserError as problem:
            lost.append(str(problem))
    if lost and (skip is None or not points):
        raise UserError("; ".join(lost))
    for line in lost:
        assert skip is not None
        skip(line)
    return points


def runs_in(folder: Path) -> list[Path]:
    """The run folders directly inside ``folder``, by name; none where it is not there."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if RunFolder(path).config.is_file())


def _kernel(distance: Distance | None) -> Number | None:
    return None if distance is None or not math.isfinite(distance.kernel.value) else distance.kernel


@functools.cache
def _described(config: RunConfig, channels: int) -> Description:
    return describe(config, channels)
