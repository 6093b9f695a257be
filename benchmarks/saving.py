"""What a save costs the steps beside it: seconds by which one that is written meanwhile lengthens the run, over 60 s.

    make bench-saving                    both presets (minutes)
    make bench-saving ARGS=small         one anew; the other's rows are kept

Stage 1 on random pictures in memory, one thread for the steps, which leaves a core to the thread that writes. A run of
some steps, saved once in its middle, beside the same without: A B B A, the steps before and after the save timed
together, the save at the run's end not. All is written as always: a copy of weights, moments and averages, checksums,
fsync. The median over pairs, with half of their range as its error.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import ROOT, Rows, gather, row
from gpu_steps import Place, stages

WORK = ROOT / "runs" / "bench-saving"
INTERVAL = 60.0
"""Seconds between two saves that a save is told over."""
GOAL = 0.01


@dataclass(frozen=True)
class Size:
    """How much of a preset is timed: examples of a step, steps before and after the save, and pairs of runs."""

    batch: int
    steps: int
    pairs: int


SIZES = {"small": Size(8, 16, 8), "photo-64": Size(1, 4, 3)}


def seconds_of(stage: Any, plan: Any, size: Size, saved: bool) -> tuple[float, float]:
    """Seconds of all steps but the first and up to the last, with a save in their middle or none; MiB that it wrote."""
    from unilat.training.engine import fit

    times: list[float] = []
    count = 2 * size.steps
    timed = replace(
        plan, batch=size.batch, samples=size.batch * (count + 1), save_every=size.steps if saved else 10**9, keep=9
    )
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        fit(
            stage, timed, Path(place), 0, device="cpu", stop_at=count,
            progress=lambda told: times.append(time.perf_counter()),
        )  # fmt: skip
        written = sum(path.stat().st_size for path in Path(place).glob("step-*/*")) / 2**20 / (2 if saved else 1)
    return times[-1] - times[0], written


def measure(name: str) -> Rows:
    """The rows of one preset."""
    import torch

    torch.set_num_threads(1)
    size, place = SIZES[name], Place("cpu", tiny=False, work=WORK)
    _, stage, plan, _, _ = next(stages(place.config(name), place))
    seconds_of(stage, plan, size, True)  # warms up
    found, mib = list[float](), 0.0
    for pair in range(size.pairs):
        both = {}
        for saved in (False, True) if pair % 2 else (True, False):
            both[saved], mib = seconds_of(stage, plan, size, saved)
        found.append(both[True] - both[False])
        print(f"  {name}: {found[-1]:+.3f} s", flush=True)
    return rows_of(name, found, mib)


def rows_of(name: str, found: list[float], mib: float) -> Rows:
    """Rows of seconds that each save has cost."""
    cost, spread = statistics.median(found), (max(found) - min(found)) / 2
    return [
        row(f"{name}: bytes of a save", mib, "MiB"),
        row(f"{name}: a save lengthens the run by", cost, "seconds", stderr=spread, n=len(found)),
        row(
            f"{name}: of an interval of 60 s",
            cost / INTERVAL,
            "of it",
            goal=GOAL,
            stderr=spread / INTERVAL,
            n=len(found),
        ),
    ]


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    gather(
        "saving",
        " ".join((__doc__ or "").split("\n\n")[-1].split()),
        WORK,
        {name: lambda name=name: measure(name) for name in SIZES},
    )
