"""The pictures of ``data.py``: cheap, 64 x 64, no two alike, the same ones in every format."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT

WORK = ROOT / "runs" / "bench-data"
SIDE, PER_SHARD, PER_GROUP = 64, 10_000, 500


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


def _linked(path: Path, count: int, place: Callable[[int], str]) -> None:
    """The files of the folder under other names, as hard links where the disk has them."""
    folder = made("folder", count)
    for number in range(count):
        name = path / place(number)
        name.parent.mkdir(parents=True, exist_ok=True)
        original = folder / f"c{number % 10}" / f"{number:06}.png"
        try:
            os.link(original, name)
        except OSError:
            shutil.copyfile(original, name)


def as_flat(path: Path, count: int) -> None:
    """Every file in one folder."""
    _linked(path, count, lambda number: f"{number:06}.png")


def as_classes(path: Path, count: int) -> None:
    """A thousand class folders."""
    _linked(path, count, lambda number: f"c{number % 1000:03}/{number:06}.png")


MAKE: dict[str, Callable[[Path, int], None]] = {
    "folder": as_folder,
    "shards": as_shards,
    "parquet": as_parquet,
    "saved": as_saved,
    "npy": as_npy,
    "flat": as_flat,
    "classes": as_classes,
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
