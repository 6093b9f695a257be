"""Seconds of steps, calls and matrix products on this machine, and the memory that they take."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unilat.nets.products import times_transposed
from unilat.training.engine import fit
from unilat.training.machine import peak_memory
from unilat.training.micro import MicroBatch
from unilat.training.plan import Schedule, Stage

WARM, TIMED = 3, 8
"""Steps that are not counted, and steps whose median is told."""


def step_of(stage: Stage, plan: Schedule, place: torch.device, capture: bool = False) -> tuple[float, int]:
    """Seconds of a step, and the examples that are computed at a time in it; ``capture``: replayed as a graph."""
    micro = MicroBatch(search=place.type == "cuda")
    if capture:
        return _steps(stage, plan, place, micro, capture=True), micro.size or plan.batch
    if micro.search:
        _steps(stage, plan, place, micro, 1)  # finds what fits
    size = micro.size or plan.batch
    parts = -(-plan.batch // size)
    if parts <= 2:
        return _steps(stage, plan, place, micro), size
    one, two = (_steps(stage, replace(plan, batch=count * size), place, micro) for count in (1, 2))
    return one + (parts - 1) * (two - one), size


def _steps(
    stage: Stage,
    plan: Schedule,
    place: torch.device,
    micro: MicroBatch,
    count: int = WARM + TIMED,
    capture: bool = False,
) -> float:
    """Median seconds of some real steps: gradients, clipping, optimiser, averaging and the log, but no checkpoint."""
    times: list[float] = []

    def note(_: object) -> None:
        _wait(place)
        times.append(time.perf_counter())

    timed = replace(plan, samples=plan.batch * (count + 1))
    with tempfile.TemporaryDirectory() as folder:
        machine = {"device": place.type, "micro": micro, "capture": capture}
        fit(stage, timed, Path(folder), 0, progress=note, stop_at=count, **machine)
    steps = [after - before for before, after in zip(times[WARM - 1 :], times[WARM:], strict=False)]
    return statistics.median(steps) if steps else 0.0


def matrix_rate(place: torch.device, side: int = 1024) -> float:
    """GFLOPs a second of a matrix product: on a GPU of a large one in bf16, else in float32 by the faster library."""
    if place.type == "cuda":
        left = torch.randn(8 * side, 8 * side, device=place, dtype=torch.bfloat16)
        return 2 * (8 * side) ** 3 / 1e9 / seconds(lambda: left @ left, place)
    left, right = torch.randn(1, side, side, device=place), torch.randn(1, side, side, device=place)
    return 2 * side**3 / 1e9 / seconds(lambda: times_transposed(left, right), place)


def seconds(call: Callable[[], Any], place: torch.device) -> float:
    """Median seconds of a call, after some that warm up."""
    found = []
    for _ in range(WARM + TIMED):
        _wait(place)
        start = time.perf_counter()
        call()
        _wait(place)
        found.append(time.perf_counter() - start)
    return statistics.median(found[WARM:])


def once(call: Callable[[], Any]) -> float:
    """Seconds of a call that takes long, made once."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def forget_peak(place: torch.device) -> None:
    """Let :func:`peak` begin anew, where the system can."""
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    with contextlib.suppress(OSError):  # Linux alone has it
        Path("/proc/self/clear_refs").write_text("5")


def peak(place: torch.device) -> float:
    """Largest memory in MiB: of the device where it has its own, else of the process."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place) / 2**20
    return peak_memory()
