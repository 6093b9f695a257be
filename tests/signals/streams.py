"""One set of pictures in every format that a source reads."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .samples import COUNT, LABELS, SIDE, TRAIN, npy, parquet, pictures, png, split_folder, split_parquet, split_saved

NAMES = "abc"


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """One member."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def shard(path: Path, rows: range, *, word: str = "cls", first: int = 0) -> Path:
    """Pictures ``rows`` as a tar file with labels in ``word`` files."""
    made = pictures()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        for row in rows:
            label = NAMES[LABELS[row]]
            text = label if word == "cls" else json.dumps({"label": label, "width": SIDE})
            add(out, f"{first + row:05}.{word}", text.encode())
            add(out, f"{first + row:05}.png", png(made[row]))
    return path


def sorted_folder(path: Path) -> str:
    """A folder of class folders; its order is by class."""
    for row, one in enumerate(pictures()):
        place = path / NAMES[LABELS[row]]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row:02}.png").write_bytes(png(one))
    return str(path)


def shards(path: Path) -> str:
    """Three shards, one of them with json labels."""
    shard(path / "00000.tar", range(0, 30))
    shard(path / "00001.tar", range(30, 31), word="json")
    shard(path / "00002.tar", range(31, COUNT))
    return str(path)


def split_shards(path: Path) -> str:
    """Shards that are named after the official split; the test part sorts first."""
    shard(path / "test-0.tar", range(TRAIN, COUNT))
    shard(path / "train-0.tar", range(0, 25))
    shard(path / "train-1.tar", range(25, TRAIN))
    return str(path)


def grouped_parquet(path: Path) -> str:
    """One Parquet file of row groups of 7."""
    import pyarrow as pa
    import pyarrow.parquet

    path.mkdir()
    labels = pa.array([NAMES[label] for label in LABELS])
    table = pa.table({"image": [png(one) for one in pictures()], "label": labels})
    pyarrow.parquet.write_table(table, path / "set.parquet", row_group_size=7)
    return str(path / "set.parquet")


def saved(path: Path) -> str:
    """``save_to_disk`` of the datasets library without a split, in two files of small record batches."""
    import pyarrow as pa

    path.mkdir()
    made = pictures()
    for number, rows in enumerate((range(0, 50), range(50, COUNT))):
        labels = pa.array([NAMES[LABELS[row]] for row in rows])
        table = pa.table({"image": [png(made[row]) for row in rows], "label": labels})
        file = str(path / f"data-{number}.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=8)
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    (path / "state.json").write_text(json.dumps({"_data_files": files}))
    return str(path)


def floats(path: Path) -> str:
    """One float32 array in [-1, 1] with channels first, as a Fortran array."""
    path.mkdir()
    made = pictures().transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0
    np.save(path / "set.npy", np.asfortranarray(made))
    return str(path / "set.npy")


FORMATS: dict[str, Callable[[Path], str]] = {
    "folder": sorted_folder,
    "split folder": split_folder,
    "shards": shards,
    "split shards": split_shards,
    "parquet": grouped_parquet,
    "parquet numbers": parquet,
    "split parquet": split_parquet,
    "saved": saved,
    "split saved": split_saved,
    "npy": npy,
    "floats": floats,
}


def order(name: str) -> np.ndarray:
    """int64 ``[84]``: which of ``pictures()`` stands where in the format."""
    if name == "folder":
        return np.argsort(LABELS, kind="stable")
    if name.startswith("split "):
        test, train = np.arange(TRAIN, COUNT), np.arange(TRAIN)
        if name == "split folder":
            test, train = test[np.argsort(LABELS[test], kind="stable")], train[np.argsort(LABELS[train], kind="stable")]
        parts = (train, test) if name == "split saved" else (test, train)
        return np.concatenate(parts)
    return np.arange(COUNT)
