"""Sources of every format with planted copies: the same pixels twice, in files of other kinds, classes and sides."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .zoo import saved

SIDE, TRAIN, TEST = 16, 60, 24
COUNT = TRAIN + TEST
LABELS = np.arange(COUNT) // 3 % 3
"""Three classes in both parts, in turns of three."""


def pictures() -> np.ndarray:
    """uint8 ``[84, 16, 16, 3]``, no two alike but for the planted: 60 to 67 are copies of 0 to 7, 40 to 49 of 30 to 39,
    72 to 75 of 68 to 71. Number 8 is red and number 76 is green, of one luma."""
    chooser = np.random.default_rng(3)
    made = chooser.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
    made[60:68], made[40:50], made[72:76] = made[0:8], made[30:40], made[68:72]
    made[8], made[76] = (100, 0, 0), (0, 51, 0)  # (19595 * 100 + 32768) >> 16 = (38470 * 51 + 32768) >> 16 = 30
    return made


def png(array: np.ndarray) -> bytes:
    """The bytes of a PNG file."""
    return saved(Image.fromarray(array), "PNG")


def folder(path: Path) -> str:
    """Class folders; every second picture is a BMP, so that copies are no equal files."""
    for index, one in enumerate(pictures()):
        place = path / "abc"[LABELS[index]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(place / f"{index:02}.{'bmp' if index // 10 % 2 else 'png'}")
    return str(path)


def split_folder(path: Path) -> str:
    """``train/`` and ``test/`` with class folders in each."""
    for index, one in enumerate(pictures()):
        place = path / ("train" if index < TRAIN else "test") / "abc"[LABELS[index]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(place / f"{index:02}.png")
    return str(path)


def npy(path: Path) -> str:
    """One array, no classes."""
    path.mkdir()
    np.save(path / "set.npy", pictures())
    return str(path / "set.npy")


def npz(path: Path) -> str:
    """Pictures and labels, no split."""
    path.mkdir()
    np.savez(path / "set.npz", images=pictures(), labels=LABELS)
    return str(path / "set.npz")


def split_npz(path: Path) -> str:
    """Keras' names: an official split."""
    path.mkdir()
    x, y = pictures(), LABELS
    np.savez(path / "set.npz", x_train=x[:TRAIN], y_train=y[:TRAIN], x_test=x[TRAIN:], y_test=y[TRAIN:])
    return str(path / "set.npz")


def _table(rows: slice) -> object:
    import pyarrow as pa

    return pa.table({"image": [png(one) for one in pictures()[rows]], "label": pa.array(LABELS[rows])})


def parquet(path: Path) -> str:
    """One Parquet file."""
    import pyarrow.parquet

    path.mkdir()
    pyarrow.parquet.write_table(_table(slice(0, COUNT)), path / "set.parquet")
    return str(path / "set.parquet")


def split_parquet(path: Path) -> str:
    """A folder of Parquet files, one of them named after the test part."""
    import pyarrow.parquet

    path.mkdir()
    pyarrow.parquet.write_table(_table(slice(0, TRAIN)), path / "train-0.parquet")
    pyarrow.parquet.write_table(_table(slice(TRAIN, COUNT)), path / "test-0.parquet")
    return str(path)


def split_saved(path: Path) -> str:
    """``save_to_disk`` of the datasets library: two parts in Arrow files."""
    import pyarrow as pa

    for name, rows in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, COUNT))):
        (path / name).mkdir(parents=True)
        table = _table(rows)
        with pa.OSFile(str(path / name / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (path / name / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return str(path)


PLAIN: dict[str, Callable[[Path], str]] = {one.__name__: one for one in (folder, npy, npz, parquet)}
OFFICIAL: dict[str, Callable[[Path], str]] = {
    one.__name__: one for one in (split_folder, split_npz, split_parquet, split_saved)
}


def fluent(path: Path) -> Path:
    """What the package of Fluent emoji holds: ``1f6xx.webp``, of each a skin tone of other looks."""
    place = path / "package" / "assets"
    place.mkdir(parents=True)
    for index, one in enumerate(pictures()):
        stem = f"1f6{index % 42:02x}" + ("" if index < 42 else "-1f3fd")
        Image.fromarray(one).save(place / f"{stem}.webp", lossless=True)
    return path


def datasource(path: Path, vendor: str) -> Path:
    """What emoji-datasource holds: emoji.json in another order than the files' names, two categories."""
    place = path / "package" / "img" / vendor / "64"
    place.mkdir(parents=True)
    listed = []
    for index, one in reversed(list(enumerate(pictures()))):
        name = f"1f6{index:02x}.png"
        Image.fromarray(one).save(place / name)
        listed.append({"image": name, "category": ("Travel", "Animals")[index % 2]})
    tone = {"image": "1f600-1f3fb.png", "category": "Travel"}
    Image.fromarray(255 - pictures()[0]).save(place / tone["image"])
    listed[-1]["skin_variations"] = {"1F3FB": {"image": tone["image"]}}
    for one in listed:
        for form in one.get("skin_variations", {}).values():
            form["category"] = one["category"]
    listed.append({"image": "missing.png", "category": "Flags"})
    (path / "package" / "emoji.json").write_text(json.dumps(listed))
    return path


def solar(path: Path) -> Path:
    """ELPV's labels.csv with three kinds of cells, not in the order of their names."""
    data = path / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    lines = []
    for index, one in enumerate(pictures()[..., 0]):
        Image.fromarray(one).save(data / "images" / f"cell{index:04}.png")
        odds, kind = (("1.0", "poly"), ("0.6666666666666666", "mono"), ("0.0", "poly"))[index % 3]
        lines.append(f"images/cell{index:04}.png  {odds}   {kind}")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    """A gzipped IDX file of bytes."""
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes(), 1))


def fashion(path: Path) -> Path:
    """Files as Fashion-MNIST's: black but for five pixels that number the picture; test pictures 0 to 99 are copies of
    training pictures 100 to 199; labels count up in training and down in test."""
    path.mkdir()
    for part, first, count, step in (("train", 0, 60_000, 1), ("t10k", 60_000, 10_000, -1)):
        number = np.arange(first, first + count)
        if part == "t10k":
            number[:100] = np.arange(100, 200)
        images = np.zeros((count, 28, 28), np.uint8)
        for digit in range(5):
            images[:, 3 + digit, 9] = 20 * (number // 10**digit % 10) + 10
        write_idx(path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(path / f"{part}-labels-idx1-ubyte.gz", (step * np.arange(count) % 10).astype(np.uint8))
    return path
