"""A sweep: one run for each wanted bits, grid of latents, size of the base model and seed, in one folder.

    FOLDER/0.1bpp-16x16x2-small-seed0 …   ordinary run folders of `unilat train`
    FOLDER/sweep.json, sweep.html         what is swept and what it has come to, written anew after each run

Started again it goes on: finished runs stay, begun ones go on. More bits, grids, sizes or seeds may be added.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from unilat.files import Unfit, built, read_json, write_json
from unilat.recipe import config as configuration
from unilat.recipe.config import RunConfig
from unilat.report import sweep as page
from unilat.report.folder import read
from unilat.report.swept import Cell, Row, Swept, cells
from unilat.run import again, begin
from unilat.run.folder import RunFolder
from unilat.run.records import Note, OnStep, ignore
from unilat.run.trained import read_config
from unilat.studies.cells import Axes, Planned, axes_of, planned
from unilat.studies.points import of_base, read_point
from unilat.training.checkpoint import lock
from unilat.training.fast import Choices
from unilat.training.guard import Diverged
from unilat.types import UserError

FORMAT = "unilat sweep 1"
RECORD, PAGE = "sweep.json", "sweep.html"


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep has come to."""

    folder: Path
    rows: tuple[Row, ...]
    """Its runs."""
    cells: tuple[Cell, ...]
    """Means over seeds, with the efficient front."""

    @property
    def page(self) -> Path:
        """Where its page lies."""
        return self.folder / PAGE

    def to_json(self) -> dict[str, object]:
        """Runs and cells as ``sweep.json`` holds them."""
        return {"runs": [asdict(row) for row in self.rows], "cells": [asdict(cell) for cell in self.cells]}


def sweep(
    data: str | Path | RunConfig,
    *,
    out: str | Path,
    target_bpp: Sequence[float],
    base: Sequence[str] = ("small",),
    grid: Sequence[str] = (),
    seeds: int = 1,
    on_step: OnStep | None = None,
    device: str = "auto",
    choices: Choices | None = None,
    features: str | Path | None = None,
    size: int | None = None,
    preset: str | None = None,
    seed: int | None = None,
    **fields: Any,
) -> Sweep:
    """Train every combination of bits, grids, sizes of the base model and seeds, or go on with that in ``out``.

    >>> swept = unilat.sweep("photos/", target_bpp=(0.05, 0.1, 0.2), base=("small", "medium"), out="sweeps/photos")

    ``grid``: ``("8x8x8", "16x16x2")``, by default the configuration's own. ``seeds`` are counted from ``seed`` on. The
    rest is as in ``unilat.train`` and goes for every run. A run that diverges is marked, and the sweep goes on. Raises
    :class:`UserError` in one line for what a user can mend, and before the first run where that can be known.
    """
    start = again.placed(begin.configured(data, size=size, preset=preset, seed=seed, **fields))
    folder, axes = Path(out), axes_of(start, target_bpp, base, grid, seeds)
    planned(start, axes, folder)  # a mistake is told before the folder is made
    _refuse_foreign(folder)
    with lock(folder):
        axes = _taken_up(folder, start, axes)
        plan, lost = planned(start, axes, folder), dict[str, str]()
        tell = on_step or ignore
        write_json(folder / RECORD, _head(start, axes))  # first: it makes the folder a sweep's
        for place, run in enumerate(plan):
            if _finished(folder / run.name, run.config):
                continue
            tell(Note(f"run {place + 1} of {len(plan)}: {run.name}"))
            named = {"on_step": on_step, "device": device, "choices": choices, "features": features}
            if run.owner in lost and not RunFolder(folder / run.owner).autoencoder.is_file():
                lost[run.name] = f"the autoencoder of {run.owner}, which it shares, has diverged"
            elif why := _trained(run, folder / run.name, **named):
                lost[run.name] = why
            if run.name in lost:
                tell(Note(f"{run.name} is left out: {lost[run.name]}"))
            _written(folder, start, axes, plan, lost)
        return _written(folder, start, axes, plan, lost)


def _trained(run: Planned, folder: Path, **named: Any) -> str:
    """Train a run; why training was given up, or nothing. Whatever else goes wrong is raised, for it would again."""
    try:
        begin.train(run.config, out=folder, **named)
    except Diverged as problem:
        return str(problem)
    except UserError:
        if not _finished(folder, run.config) or not read_point(folder).diverged:
            raise
    return ""


def _refuse_foreign(folder: Path) -> None:
    """Raise :class:`UserError` for a place that is another's."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a sweep trains in one process: start it without torchrun")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another `out`")
    if RunFolder(folder).config.is_file():
        raise UserError(f"{folder} is a run folder: choose another `out`")
    seen = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    if seen and not (folder / RECORD).is_file():
        raise UserError(f"{folder} is not empty and no folder of a sweep: choose another `out`")


def _head(start: RunConfig, axes: Axes) -> dict[str, object]:
    """What ``sweep.json`` begins with. The seed stands among the axes alone."""
    config = replace(start, seed=0)
    return {"format": FORMAT, "axes": asdict(axes), "config": configuration.to_dict(config)}


def _taken_up(folder: Path, start: RunConfig, axes: Axes) -> Axes:
    """The axes of the sweep in ``folder`` with what is new behind; refused where it was begun with other settings.

    As in a run folder, what is measured may change, and where the pictures lie.
    """
    path = folder / RECORD
    if not path.is_file():
        return axes
    try:
        tree = read_json(path)
        before = built(Axes, tree["axes"], "axes")
        found = configuration.from_json(json.dumps(tree["config"]))
    except (Unfit, KeyError, TypeError) as problem:
        raise UserError(f"{path} is damaged ({problem}): bring it back, or choose another `out`") from None
    data = replace(found.data, source=start.data.source, unreadable_share=start.data.unreadable_share)
    differs = configuration.differences(
        replace(found, evaluation=start.evaluation, data=data), replace(start, seed=found.seed)
    )
    for name, old in asdict(before).items():
        new = getattr(axes, name)
        if gone := [str(value) for value in old if value not in new]:
            differs.append(f"{name}: {', '.join(gone)} no longer in it")
    if differs:
        raise UserError(f"{folder} holds a sweep of other settings ({'; '.join(differs)}): choose another `out`")
    merged = {name: tuple(dict.fromkeys((*old, *getattr(axes, name)))) for name, old in asdict(before).items()}
    return Axes(**merged)


def _finished(folder: Path, config: RunConfig) -> bool:
    """Whether a run is whole and measured as ``config`` says, wherever it and its pictures lie."""
    if not RunFolder(folder).metrics.is_file():
        return False
    try:
        found = read_config(folder)
        read_point(folder)
    except UserError:
        return False
    stage1 = replace(found.stage1, autoencoder=config.stage1.autoencoder)
    return replace(found, data=replace(found.data, source=config.data.source), stage1=stage1) == config


def _written(folder: Path, start: RunConfig, axes: Axes, plan: Sequence[Planned], lost: Mapping[str, str]) -> Sweep:
    """What it has come to by now, also in ``sweep.json`` and ``sweep.html``."""
    rows = tuple(_row(folder, run, lost) for run in plan)
    found = Sweep(folder, rows, cells(rows))
    write_json(folder / RECORD, _head(start, axes) | found.to_json())
    shown = {cell.runs[0]: _samples(folder / cell.runs[0]) for cell in found.cells if cell.runs}
    data = next((read_point(folder / row.name).data for row in rows if row.bits), start.data.source)
    page.write(found.page, Swept(name=folder.resolve().name, data=data, rows=rows, cells=found.cells), shown)
    return found


def _samples(folder: Path) -> Tensor | None:
    """Samples of a run; None where it has none."""
    return read(folder).arrays.get("samples")


def _row(folder: Path, run: Planned, lost: Mapping[str, str]) -> Row:
    vit = of_base(run.config.base.vit)
    named = {"name": run.name, "target_bpp": run.target_bpp, "grid": run.grid, "base": run.base, "levels": vit}
    if run.name in lost:
        return Row(**named, seed=run.seed, state="diverged", reason=lost[run.name])
    if not _finished(folder / run.name, run.config):
        return Row(**named, seed=run.seed, state="waiting")
    point = read_point(folder / run.name)
    reason = point.outcome.reason if point.outcome else ""
    if point.diverged:
        return Row(**named, seed=run.seed, state="diverged", reason=reason, protocol=point.protocol)
    missed = point.outcome is not None and point.outcome.verdict == "missed"
    return Row(
        **named,
        seed=run.seed,
        state="missed" if missed else "done",
        reason=reason,
        bits=point.bits,
        psnr=point.psnr,
        reconstruction=point.reconstruction,
        generation=point.generation,
        base_flops=point.base_flops,
        autoencoder_flops=point.autoencoder_flops,
        protocol=point.protocol,
    )
