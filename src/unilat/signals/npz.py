"""``.npz`` archives, read an array at a time, and which of their arrays are pictures, labels and parts of a split.

Neither the archive's directory nor an array's header is believed about its size. Nothing is unpickled.
"""

import lzma
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from unilat.signals.decode import printable
from unilat.signals.parts import HELD_OUT, TRAIN, word_side
from unilat.signals.pictures import require_memory
from unilat.types import UserError

DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, SyntaxError, tokenize.TokenError, MemoryError)
DAMAGED += (OverflowError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, TypeError)
"""What damaged or foreign files raise: RuntimeError for one with a password."""
PICTURE_WORDS = ("images", "image", "imgs", "img", "pictures", "x", "data", "arr0")
LABEL_WORDS = ("labels", "label", "y", "targets", "target", "arr1")
PACKED_MOST, UNPACKED_LEAST = 300, 1 << 26
"""An array of more than so many bytes that were packed into so many times fewer is no picture's."""


@dataclass(frozen=True)
class Stored:
    """An array of an archive, by its header."""

    shape: tuple[int, ...]
    dtype: np.dtype
    unpacked: int  # bytes
    packed: int

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)


class Archive:
    """An ``.npz`` file: its arrays' headers, and each array when it is read. ``source`` is its name in errors."""

    def __init__(self, path: Path, source: str) -> None:
        self.source, self._path = source, path
        with self._one_line():
            size = path.stat().st_size
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
                self.arrays: Mapping[str, Stored] = {
                    entry.filename.removesuffix(".npy"): _header(archive, entry, size) for entry in entries
                }

    def read(self, name: str) -> np.ndarray:
        """One of :attr:`arrays`; :class:`UserError` for objects, for what is damaged, and for what no memory holds."""
        stored = self.arrays[name]
        if stored.unpacked > max(UNPACKED_LEAST, PACKED_MOST * stored.packed):
            raise UserError(
                f"{self.source}: {printable(name, 30)} unpacks from {stored.packed / 2**20:.3g} MiB to"
                f" {stored.unpacked / 2**30:.3g} GiB, as no pictures do; if they are real, save them as .npy"
            )
        require_memory(2 * stored.unpacked, self.source, 1, "an unpacked array")
        with self._one_line(), zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def parts(self, name: str, rows: int) -> Iterator[np.ndarray]:
        """One of :attr:`arrays` in its order, ``rows`` of its first axis at a time; no more is ever in memory."""
        stored = self.arrays[name]
        with self._one_line(), zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
            _, fortran, _ = _read_header(file)
            if fortran or stored.dtype.hasobject or not stored.shape:
                raise ValueError(f"{printable(name, 30)} is no array of numbers in rows")
            each = int(np.prod(stored.shape[1:], dtype=object)) * stored.dtype.itemsize
            for first in range(0, stored.shape[0], rows):
                count = min(rows, stored.shape[0] - first)
                data = file.read(count * each)
                yield np.frombuffer(bytearray(data), stored.dtype).reshape(count, *stored.shape[1:])

    def shown(self, names: list[str] | None = None) -> str:
        """``images uint8 [5, 8, 8], labels int64 [5]``: names, types and shapes of the first six."""
        names = list(self.arrays) if names is None else names
        few = [f"{printable(name, 30)} {self.arrays[name].dtype} {list(self.arrays[name].shape)}" for name in names[:6]]
        return ", ".join(few + ["..."] * (len(names) > 6)) or "none"

    def _one_line(self) -> "_OneLine":
        return _OneLine(self.source)


class _OneLine:
    """Turns what damaged files raise into one line."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DAMAGED):
            raise UserError(f"{self._source}: not an .npz file of numbers ({printable(str(error), 80)})") from None


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> Stored:
    """ValueError where a header asks for more bytes than the archive holds; objects are no such thing until read."""
    with archive.open(entry) as file:
        shape, _, dtype = _read_header(file)
    if not dtype.hasobject and int(np.prod(shape, dtype=object)) * dtype.itemsize > entry.file_size:
        raise ValueError("an array's header asks for more bytes than are there")
    return Stored(shape, dtype, entry.file_size, min(entry.compress_size, size))


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis runs fastest, and type; the file stands at the numbers then."""
    version = np.lib.format.read_magic(file)
    read: Callable = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def read_npz(path: Path, source: str) -> dict[str, np.ndarray]:
    """All arrays of an archive, by their names."""
    archive = Archive(path, source)
    return {name: archive.read(name) for name in archive.arrays}


@dataclass(frozen=True)
class Chosen:
    """One part of the pictures of an archive, by the names of its arrays."""

    pictures: str
    labels: str | None
    held_out: bool


def choose(archive: Archive) -> list[Chosen]:
    """Which arrays hold pictures, and which their labels; several where the names say that they are parts of a split.

    ``x_train`` with ``x_test``, ``train_images`` with ``val_images`` and ``test_images`` are parts; each has the labels
    that share its word. Else the pictures are ``images``, ``x``, ``data``, ``arr_0``, or the only array of 3 or 4 axes,
    and the labels ``labels``, ``y``, ``targets``, or ``arr_1`` beside ``arr_0``.
    """
    boxes = {name: one for name, one in archive.arrays.items() if one.ndim in (3, 4)}
    pictures = _by_part(boxes, PICTURE_WORDS)
    labels = _by_part({name: one for name, one in archive.arrays.items() if name not in boxes}, LABEL_WORDS)
    sides = {word_side(word) for word in pictures}
    if {"train", "test"} <= sides:
        words = sorted((word for word in pictures if word), key=lambda word: word_side(word) == "test")
        found = [Chosen(pictures[word], labels.get(word), word_side(word) == "test") for word in words]
        bare = [one.pictures for one in found if one.labels is None]
        if bare and len(bare) < len(found):
            raise UserError(
                f"{archive.source}: {printable(', '.join(bare), 60)} has no labels, the other part has;"
                f" it has {archive.shown()}; give each part its labels, or none"
            )
        return found
    names = [pictures[word] for word in ("", *pictures) if word in pictures] or list(boxes)
    if not names or (not pictures and len(names) != 1):
        raise UserError(
            f"{archive.source}: which array holds the pictures? It has {archive.shown()}; name one 'images'"
        )
    part = next((word for word, name in pictures.items() if name == names[0]), "")
    label = labels.get(part) or labels.get("") or next(iter(labels.values()), None)
    if label == "arr_1" and (names[0] != "arr_0" or not _is_column(archive.arrays[label], archive.arrays[names[0]])):
        label = None
    return [Chosen(names[0], label, False)]


def _by_part(arrays: Mapping[str, Stored], words: tuple[str, ...]) -> dict[str, str]:
    """The word of a part ("" for none) -> the array that goes by one of ``words`` beside it, the first of them best."""
    found: dict[str, tuple[int, str]] = {}
    for name in arrays:
        parts = list(_words(name))
        part = next((word for word in parts if word in TRAIN + HELD_OUT), "")
        rest = [word for word in parts if word != part]
        if len(rest) == 1 and rest[0] in words:
            found[part] = min(found.get(part, (len(words), name)), (words.index(rest[0]), name))
    return {part: name for part, (_, name) in found.items()}


def _words(name: str) -> Iterator[str]:
    """``x_train`` -> x, train; ``arr_0`` is one word."""
    yield from (word for word in re.split(r"[^a-z\d]+", name.casefold().replace("arr_", "arr")) if word)


def _is_column(labels: Stored, pictures: Stored) -> bool:
    """Whether it has the shape of one label a picture."""
    return labels.shape in ((pictures.shape[0],), (pictures.shape[0], 1)) and labels.dtype.kind in "iubf"
