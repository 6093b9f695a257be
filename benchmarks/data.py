"""`make bench-data`: does reading from disk keep up with decoding, and does its memory stay flat?

Cheap pictures of 64 x 64 are made on the spot, in a folder of ten classes and in shards of 10,000, and a tenth of them
beside. Every figure is taken in a process of its own: resident memory after an indexed set was opened and every picture
read once in the order of training, pictures a second by source and workers, the time to the first rows.
`ARGS="--share 0.1"` rehearses it at a tenth of the size and writes no result.
"""

import argparse
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Rows, row, write

WORK = ROOT / "runs" / "bench-data"
SIDE, BATCH, PER_SHARD, PER_GROUP = 64, 64, 10_000, 500
LARGE, SMALL = 200_000, 20_000
SPEED = 20_000  # pictures of the comparison of sources
SECONDS = 6.0  # of each measure of speed
WORKERS = (0, 1, 4)
MEMORY = ("folder", "shards")
FORMATS = ("folder", "shards", "parquet", "saved", "npy")
GROWTH, FIRST_ROWS = 5.0, 2.0
PROTOCOL = (
    "Pictures of 64 x 64 in colour, PNG files of about {size:.1f} kB, no two alike. Resident memory is VmRSS after the"
    " last rows, by a process that opens an indexed set and reads every picture once in training's order, batches of"
    " 64; growth is from {small:,} to {large:,} pictures. Pictures a second: batches of 64 in training's order for"
    " {seconds:g} s; workers are those of torch's DataLoader; decoding alone is `decode` on bytes in memory. One"
    " thread a process; files lie in the page cache. First rows: open_source to 64 rows of an indexed set, no imports."
    " Training: stage 1 of `small`, 60 steps of 32."
)


def picture(number: int) -> bytes:
    """A PNG of its own for each number: a gradient, two bars, and 64 noisy pixels that no other picture has."""
    from PIL import Image

    chooser = np.random.default_rng(number)
    line = np.linspace(0, 160, SIDE).astype(np.uint8)
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = line[:, None], line[None, :]
    top, left = chooser.integers(0, SIDE - 16, 2)
    pixels[top : top + 16] += np.uint8(40)
    pixels[:, left : left + 8, 2] = chooser.integers(0, 256)
    pixels[chooser.integers(0, SIDE, 64), chooser.integers(0, SIDE, 64)] = chooser.integers(0, 256, (64, 3))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def pictures(count: int) -> Iterator[tuple[int, bytes]]:
    """(number, file) of so many, told now and then; those of the folder where it is made already."""
    for number in range(count):
        if number % 20_000 == 0:
            print(f"  {number:,} of {count:,} pictures", flush=True)
        kept = WORK / f"folder-{count}" / f"c{number % 10}" / f"{number:06}.png"
        yield number, kept.read_bytes() if kept.is_file() else picture(number)


def as_folder(path: Path, count: int) -> None:
    """Ten class folders."""
    for kind in range(10):
        (path / f"c{kind}").mkdir(parents=True)
    for number, content in pictures(count):
        (path / f"c{number % 10}" / f"{number:06}.png").write_bytes(content)


def as_shards(path: Path, count: int) -> None:
    """Tar files of 10,000 pictures with their classes."""
    path.mkdir(parents=True)
    shard = None
    for number, content in pictures(count):
        if number % PER_SHARD == 0:
            if shard is not None:
                shard.close()
            shard = tarfile.open(path / f"{number // PER_SHARD:05}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        assert shard is not None
        for ending, data in (("cls", str(number % 10).encode()), ("png", content)):
            member = tarfile.TarInfo(f"{number:06}.{ending}")
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    if shard is not None:
        shard.close()


def _table(count: int) -> Any:
    import pyarrow as pa

    files = [content for _, content in pictures(count)]
    return pa.table({"image": files, "label": [number % 10 for number in range(count)]})


def as_parquet(path: Path, count: int) -> None:
    """One file of row groups of 500."""
    import pyarrow.parquet

    path.mkdir(parents=True)
    pyarrow.parquet.write_table(_table(count), path / "set.parquet", row_group_size=PER_GROUP, compression="none")


def as_saved(path: Path, count: int) -> None:
    """What ``save_to_disk`` of the datasets library writes."""
    import pyarrow as pa

    path.mkdir(parents=True)
    table = _table(count)
    with pa.OSFile(str(path / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    (path / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')


def as_npy(path: Path, count: int) -> None:
    """One array of decoded pictures."""
    from PIL import Image

    path.mkdir(parents=True)
    shape = (count, SIDE, SIDE, 3)
    array = np.lib.format.open_memmap(path / "set.npy", mode="w+", dtype=np.uint8, shape=shape)
    for number, content in pictures(count):
        array[number] = np.asarray(Image.open(io.BytesIO(content)))
    array.flush()


MAKE: dict[str, Callable[[Path, int], None]] = {
    "folder": as_folder,
    "shards": as_shards,
    "parquet": as_parquet,
    "saved": as_saved,
    "npy": as_npy,
}


def made(name: str, count: int) -> Path:
    """The set in this format, made where it is not there yet; a half-made one is made anew."""
    path = WORK / f"{name}-{count}"
    if not path.exists():
        print(f"making {path}", flush=True)
        part = WORK / f".part-{name}-{count}"
        shutil.rmtree(part, ignore_errors=True)
        MAKE[name](part, count)
        part.rename(path)
    return path / "set.npy" if name == "npy" else path


def apart(what: str, path: Path, **options: object) -> dict[str, Any]:
    """``MEASURES[what](path, **options)`` in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    environment["UNILAT_CACHE"] = str(WORK / "cache")
    words = [sys.executable, __file__, "--measure", what, "--path", str(path), "--options", json.dumps(options)]
    ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{what} of {path} ended with {ended.returncode}")
    return json.loads(ended.stdout.splitlines()[-1])


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


def _stage(path: Path, budget: int) -> Any:
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


def training(path: Path, steps: int = 60, workers: int = 1, budget: int = 0) -> dict[str, Any]:
    """MiB of the training process after so many steps of 32, and the median step; budget: lies in memory below it."""
    from unilat.training.engine import fit
    from unilat.training.plan import Schedule

    stage, times = _stage(path, budget), [time.perf_counter()]
    plan = Schedule(batch=32, samples=32 * steps, learning_rate=1e-4, save_every=10**6)
    with tempfile.TemporaryDirectory() as folder:
        fit(stage, plan, Path(folder), 0, progress=lambda _: times.append(time.perf_counter()), workers=workers)
    passed = sorted(after - before for before, after in zip(times[20:], times[21:], strict=False))
    return {"memory": resident(), "step": passed[len(passed) // 2]}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "index": index,
    "first": first_rows,
    "memory": memory,
    "decoding": decoding,
    "speed": speed,
    "training": training,
}


def memory_rows(large: int, small: int) -> Rows:
    """Index time, first rows, and memory through both sizes, by source."""
    rows: Rows = []
    for name in MEMORY:
        read: dict[int, float] = {}
        for count in (small, large):
            path = made(name, count)
            took = apart("index", path)
            assert took["count"] == count
            rows.append(row(f"{name}, {count:,}: index made", took["seconds"], "s", n=count))
            first = apart("first", path)["seconds"]
            rows.append(row(f"{name}, {count:,}: first rows of an indexed set", first, "s", goal=FIRST_ROWS, n=count))
            found = apart("memory", path)
            read[count] = found["read"]["VmRSS"]
            opened = found["opened"]["VmRSS"]
            rows.append(row(f"{name}, {count:,}: resident memory after opening", opened, "MiB", n=count))
            rows.append(row(f"{name}, {count:,}: resident memory after reading all", read[count], "MiB", n=count))
            anonymous = found["read"]["RssAnon"]
            rows.append(row(f"{name}, {count:,}: of it no file's", anonymous, "MiB", n=count))
        growth = 100.0 * (read[large] / read[small] - 1.0)
        rows.append(row(f"{name}: growth of memory with ten times the pictures", growth, "%", goal=GROWTH))
    return rows


def speed_rows(count: int) -> tuple[Rows, float]:
    """Pictures a second by source and workers beside decoding alone, and the mean bytes of a file."""
    alone = apart("decoding", made("folder", count))
    rows = [row("decoding alone, one process", alone["rate"], "pictures/s")]
    resident_rate = apart("speed", made("folder", count), workers=0, budget=1 << 34)["rate"]
    rows.append(row("in memory, 0 workers", resident_rate, "pictures/s"))
    for name in FORMATS:
        path = made(name, count)
        apart("index", path)
        for workers in WORKERS:
            rate = apart("speed", path, workers=workers)["rate"]
            rows.append(row(f"{name}, {workers} workers", rate, "pictures/s"))
            if workers == 0 and name != "npy":  # an array needs no decoding
                rows.append(row(f"{name}, 0 workers / decoding alone", rate / alone["rate"], ""))
    return rows, alone["bytes"]


def training_rows(large: int, small: int) -> Rows:
    """Memory of the training process through both sizes, and a step on streams beside one in memory."""
    rows: Rows = []
    for name in MEMORY:
        kept = {count: apart("training", made(name, count))["memory"]["VmRSS"] for count in (small, large)}
        for count, value in kept.items():
            rows.append(row(f"{name}, {count:,}: resident memory while training", value, "MiB", n=count))
        growth = 100.0 * (kept[large] / kept[small] - 1.0)
        rows.append(row(f"{name}: growth of memory while training", growth, "%", goal=GROWTH))
    resident_step = apart("training", made("folder", small), workers=0, budget=1 << 40)["step"]
    for name in MEMORY:
        step = apart("training", made(name, small))["step"]
        rows.append(row(f"{name}: step streamed by one worker / from memory", step / resident_step, "ratio", goal=1.05))
    return rows


def main() -> None:
    """Everything, or one measure for the process that started this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the pictures; below 1 no result is written")
    parser.add_argument("--measure", choices=[*MEASURES], help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default={}, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(MEASURES[given.measure](given.path, **given.options)))
        return
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(WORK / "cache", ignore_errors=True)  # the index's time is measured
    large, small, count = (round(number * given.share) for number in (LARGE, SMALL, SPEED))
    rows, size = speed_rows(count)
    shutil.rmtree(WORK / "cache", ignore_errors=True)
    rows += memory_rows(large, small)
    rows += training_rows(large, small)
    protocol = PROTOCOL.format(size=size / 1000, small=small, large=large, seconds=SECONDS)
    if given.share < 1:
        for one in rows:
            print(f"{one['what']:55} {one['value']:10.4g} {one['unit']:12} goal {one['goal']} holds {one['holds']}")
        return
    print(write("data", protocol, rows).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
