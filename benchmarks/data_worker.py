"""What ``data.py`` measures, each in a process of its own: ``data_worker.py MEASURE PATH OPTIONS`` prints its JSON."""

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unilat.training.records import Fitted, Step

SIDE, BATCH = 64, 64
SECONDS = 6.0
"""Of each measure of speed."""


def resident() -> dict[str, float]:
    """MiB of this process now: all, and what it does not share with files."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {words[0][:-1]: int(words[1]) / 1024 for words in lines if words[0] in ("VmRSS:", "RssAnon:", "VmHWM:")}


def _open(path: Path, budget: int = 0) -> Any:
    from unilat.signals import open_source

    return open_source(str(path), size=SIDE, memory_budget=budget)


def index(path: Path) -> dict[str, Any]:
    """Seconds to open a set that has no index yet."""
    begin = time.perf_counter()
    count = len(_open(path))
    return {"seconds": time.perf_counter() - begin, "count": count}


def first_rows(path: Path) -> dict[str, Any]:
    """Seconds from opening an indexed set to its first 64 rows in training's order."""
    import torch  # noqa: F401 (not a part of the time)

    import unilat.signals.source  # noqa: F401
    from unilat.training.order import batch_indices

    begin = time.perf_counter()
    source = _open(path)
    source.rows(batch_indices(len(source), BATCH, 0, 0, source.blocks))
    return {"seconds": time.perf_counter() - begin}


def memory(path: Path) -> dict[str, Any]:
    """MiB after opening, and after every picture was read once in training's order."""
    from unilat.training.order import batch_indices

    source = _open(path)
    source.rows(batch_indices(len(source), BATCH, 0, 0, source.blocks))
    opened = resident()
    for step in range(len(source) // BATCH):
        source.rows(batch_indices(len(source), BATCH, 0, step, source.blocks))
    return {"opened": opened, "read": resident(), "count": len(source)}


def decoding(path: Path) -> dict[str, Any]:
    """Pictures a second of ``decode`` alone, on 2,000 files in memory."""
    from unilat.signals.decode import decode

    files = [file.read_bytes() for file in sorted(path.glob("c0/*.png"))[:2000]]
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS:
        for data in files[:BATCH]:
            decode(data, SIDE)
        files = files[BATCH:] + files[:BATCH]
        count += BATCH
    return {"rate": count / (time.perf_counter() - begin), "bytes": sum(map(len, files)) / len(files)}


class Batches:
    """Steps of training as a data set of batches, for torch's DataLoader."""

    def __init__(self, source: Any, steps: int) -> None:
        self.source, self.steps = source, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        from unilat.training.order import batch_indices

        return self.source.rows(batch_indices(len(self.source), BATCH, 0, step, self.source.blocks))


def speed(path: Path, workers: int, budget: int = 0) -> dict[str, Any]:
    """Pictures a second through so many workers, after the first batches."""
    from torch.utils.data import DataLoader

    warnings.simplefilter("ignore")  # 4 workers on fewer cores are meant
    batches: Any = Batches(_open(path, budget), 10**6)
    context = "fork" if workers else None
    loader = DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=context)
    count = 0
    begin = time.perf_counter()
    for number, rows in enumerate(loader):
        if number == 4 * max(workers, 1):
            count, begin = 0, time.perf_counter()
        count += len(rows)
        if number > 8 * max(workers, 1) and time.perf_counter() - begin > SECONDS:
            break
    return {"rate": count / (time.perf_counter() - begin)}


def _stage(path: Path, budget: int = 0) -> Any:
    """Stage 1 of the preset small on the set, as `unilat train` makes it."""
    import torch

    from unilat.recipe import presets
    from unilat.recipe.build import build_autoencoder
    from unilat.run import parts
    from unilat.run.stages import AutoencoderStage

    parts.BUDGETS[None] = budget  # pyright: ignore[reportArgumentType]
    config = presets.get("small", size=SIDE)
    source = parts.read_pictures(dataclasses.replace(config.data, source=str(path)), None)
    train, calibration, _ = parts.split_pictures(config, source)
    torch.manual_seed(0)
    model = build_autoencoder(config, 3, torch.zeros(3), torch.full((3,), 0.5))
    held = parts.rows_of(source, calibration[:16], calibration)
    return AutoencoderStage(model, parts.part(source, train), held, config.stage1, 0.2).stage()


def _fit(stage: Any, folder: Path, steps: int, **options: Any) -> "Fitted":
    """So many steps of 32 pictures."""
    from unilat.training.engine import fit
    from unilat.training.plan import Schedule

    plan = Schedule(batch=32, samples=32 * steps, learning_rate=1e-4, save_every=10**6)
    return fit(stage, plan, folder, 0, **options)


def training(path: Path, steps: int = 40, workers: int = 1, budget: int = 0) -> dict[str, Any]:
    """The median step in seconds, the process's largest memory between steps and in all its life; budget: lies in
    memory below it."""
    times, kept = [time.perf_counter()], []

    def after(_: object) -> None:
        times.append(time.perf_counter())
        kept.append(resident()["VmRSS"])

    with tempfile.TemporaryDirectory() as folder:
        _fit(_stage(path, budget), Path(folder), steps, progress=after, workers=workers)
    passed = sorted(end - begin for begin, end in zip(times[10:], times[11:], strict=False))
    return {"step": passed[len(passed) // 2], "between": max(kept[10:]), "peak": resident()["VmHWM"]}


def resumed(path: Path) -> dict[str, Any]:
    """By workers, how many of the weights differ from those of a run that was never stopped, made without workers: 6
    steps, stopped after 3, in the middle of an epoch."""
    import torch

    differ = {}
    with tempfile.TemporaryDirectory() as folder:
        whole = _fit(_stage(path), Path(folder) / "whole", 6).ema
        for workers in (0, 1, 4):
            place = Path(folder) / str(workers)
            _fit(_stage(path), place, 6, stop_at=3, workers=workers)
            again = _fit(_stage(path), place, 6, workers=workers)
            assert again.resumed == 3
            differ[workers] = sum(int((again.ema[name] != one).sum()) for name, one in whole.items())
        other = _fit(_stage(path), Path(folder) / "other", 7).ema
        assert any(not torch.equal(other[name], one) for name, one in whole.items())
    return {"differ": differ}


def noticed(path: Path, number: int) -> dict[str, Any]:
    """Seconds from a signal to one of two workers in the fourth step to the line that tells of it."""
    from unilat.types import UserError

    sent: list[float] = []

    def after(record: "Step") -> None:
        if record.step == 4:
            os.kill(sorted(child.pid or 0 for child in multiprocessing.active_children())[0], number)
            sent.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        try:
            _fit(_stage(path), Path(folder), 10**4, progress=after, workers=2)
        except UserError as error:
            return {"seconds": time.perf_counter() - sent[0], "line": str(error)}
    raise AssertionError("no line told of it")


def killed(path: Path) -> dict[str, Any]:
    """:func:`noticed` after a worker was killed."""
    return noticed(path, signal.SIGKILL)


def hung(path: Path) -> dict[str, Any]:
    """:func:`noticed` after a worker was stopped and does not go on."""
    return noticed(path, signal.SIGSTOP)


def looked(path: Path) -> dict[str, Any]:
    """Seconds and peak memory of ``unilat data look``, imports and contact sheet among them."""
    from unilat.cli import main

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = ["data", "look", str(path), "--size", str(SIDE), "--out", f"{folder}/sheet.png"]
        sys.stdout, kept = sys.stderr, sys.stdout
        code = main(words)
        sys.stdout = kept
    assert not code
    return {"seconds": time.perf_counter() - begin, "peak": resident()["VmHWM"]}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    one.__name__: one for one in (index, first_rows, memory, decoding, speed, training, resumed, killed, hung, looked)
}


if __name__ == "__main__":
    what, where, options = sys.argv[1:]
    print(json.dumps(MEASURES[what](Path(where), **json.loads(options))))
