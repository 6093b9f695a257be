"""A run seen from outside, from its folder alone: whether it is trained now, how far it is, and its curves.

For the terminal and the page, also while another process trains it. Reads ``config.json``, the end of ``log.jsonl`` and
``metrics.json``, and holds nothing.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unilat.files import alive, open_regular, read_bytes
from unilat.recipe.config import RunConfig
from unilat.report.figures import Points, thin
from unilat.report.folder import LogRow, logged
from unilat.results import Results
from unilat.results import read as read_results
from unilat.run.folder import RunFolder
from unilat.run.stages import schedule, settling
from unilat.run.trained import read_config

TAIL = 2**24
"""Bytes of the log's end that are read; the lines of some ten thousand hours of steps."""
RECENT = 20
"""Lines of the log that the speed is taken over."""
DRAWN = 120
"""Points of a curve, means of neighbouring lines."""
CURVES = ("bpp", "calibration_bpp", "loss", "decoder", "loss_factor", "learning_rate")
"""Numbers whose curve is kept."""


@dataclass(frozen=True, kw_only=True)
class StageSeen:
    """How far a stage is, by its last line in the log."""

    name: str
    """``stage1``, ``prior`` or ``stage2``."""
    step: int
    steps: int
    """Of the whole stage."""
    samples: int
    """Examples seen."""
    samples_per_second: float | None
    """Over the last lines; None before there are two."""
    seconds_left: float | None
    """Until the stage is done, at that speed."""
    latest: Mapping[str, float]
    """Every number of the last line; of those that are measured now and then, as last measured."""
    curves: Mapping[str, Points]
    """``(samples, value)``, at most :data:`DRAWN` points each."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What can be seen of a run."""

    folder: Path
    state: Literal["training", "stopped", "finished"]
    """``training``: a process holds it; ``finished``: it was measured; ``stopped``: neither."""
    process: int | None
    """Number of the process that trains it, where it tells."""
    target_bpp: float | None
    """Wanted bits per pixel, None where a loss factor was fixed."""
    stages: tuple[StageSeen, ...]
    """Those begun so far, in their order."""
    planned: tuple[str, ...]
    """Names of all stages."""
    results: Results | None
    """What it was measured to be worth."""
    way_out: str
    """What to do next, in a line; empty while it is trained."""

    def to_json(self) -> dict[str, object]:
        """As ``unilat watch --json`` prints it."""
        tree = dataclasses.asdict(dataclasses.replace(self, results=None))
        measured = self.results and {"bits": self.results.bits.value, "stderr": self.results.bits.stderr}
        return tree | {"folder": str(self.folder), "results": measured}


def watch(folder: Path) -> Watched:
    """Look at the run in ``folder`` once; UserError where it is no run folder."""
    folder = Path(folder)
    config, files = read_config(folder), RunFolder(folder)
    steps, process = planned(config), _trainer(folder)
    rows, results = log_rows(files.log), None
    if process is None and files.metrics.is_file():
        results = read_results(files.metrics)
    state = "training" if process is not None else "finished" if results else "stopped"
    stages = (_stage(name, count, [row for row in rows if row.stage == name]) for name, count in steps.items())
    return Watched(
        folder=folder,
        state=state,
        process=process or None,
        target_bpp=config.stage1.target_bpp,
        stages=tuple(stage for stage in stages if stage is not None),
        planned=tuple(steps),
        results=results,
        way_out=_way_out(state, config, files),
    )


def planned(config: RunConfig) -> dict[str, int]:
    """Steps of each stage that a run of ``config`` goes through, by its name."""
    steps = {"stage1": schedule(config.stage1).steps} if config.stage1.autoencoder is None else {}
    if steps and config.stage1.settle and config.autoencoder.price != "normal":
        steps["prior"] = settling(config.stage1).steps
    if config.stage2.samples:
        steps["stage2"] = schedule(config.stage2).steps
    return steps


def _way_out(state: str, config: RunConfig, files: RunFolder) -> str:
    if state == "training":
        return ""
    if state == "finished":
        return f"its report is {files.report}" if files.report.is_file() else f"measured, see {files.metrics}"
    done = files.autoencoder.is_file()
    what = "stage 1 is done, and can be encoded and decoded with" if done else "nothing of it can be used yet"
    return f"no process trains it: {what}; go on with `unilat train {config.data.source}` and `out` {files.path}"


def _trainer(folder: Path) -> int | None:
    """The process that holds the run: 0 where it does not tell which it is, None where there is none."""
    path = folder / ".lock"
    try:
        text = read_bytes(path, 64).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError:
        return 0
    if not text.isdecimal():
        return 0
    return int(text) if alive(int(text)) else None


def log_rows(path: Path) -> list[LogRow]:
    """The lines of the log's end that are whole."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().split(b"\n")[:-1]  # what stands behind the last newline is being written
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and "skipped" not in row and "back" not in row:
            found.append(logged(row))
    return [row for row in found if {"step", "samples", "seconds"} <= row.numbers.keys()]


def _stage(name: str, steps: int, rows: Sequence[LogRow]) -> StageSeen | None:
    if not rows:
        return None
    latest: dict[str, float] = {}
    for row in rows:
        latest |= row.numbers
    last = rows[-1].numbers
    step, samples = int(last["step"]), int(last["samples"])
    first = rows[-min(RECENT, len(rows))].numbers
    took, made = last["seconds"] - first["seconds"], last["step"] - first["step"]
    pace = took / made if made > 0 and took > 0 else None
    per_step = (last["samples"] - first["samples"]) / made if made > 0 else math.nan
    return StageSeen(
        name=name,
        step=step,
        steps=steps,
        samples=samples,
        samples_per_second=per_step / pace if pace else None,
        seconds_left=(steps - step) * pace if pace else None,
        latest={key: value for key, value in latest.items() if key not in ("step", "samples", "seconds")},
        curves={key: curve for key in CURVES if len(curve := _curve(rows, key)) > 1},
    )


def _curve(rows: Sequence[LogRow], key: str) -> Points:
    points = [(row.numbers["samples"], row.numbers[key]) for row in rows if key in row.numbers]
    return thin(points, DRAWN)[0] if points else points
