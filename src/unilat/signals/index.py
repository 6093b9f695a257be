"""What stands in a data set too large for memory: one entry a picture, as arrays of numbers and a few long texts.

An index is made once, by reading every file, and kept (``index_file.py``). It knows where each picture lies and its
label, a digest of its bytes, its size by its header and whether that promises colour, and why it cannot be used if it
cannot. It does not depend on the size or the channels that a run asks for.
"""

import hashlib
import mmap
import os
import sys
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from unilat.fields import Fit, Size
from unilat.signals.collect import even_positions
from unilat.signals.decode import FORMATS, MAX_PIXELS, TOO_LARGE, Unreadable, decode, printable, upright_size
from unilat.signals.factors import Labels
from unilat.signals.pictures import Progress, is_grey
from unilat.signals.texts import Texts, TextsBuilder
from unilat.types import UserError

DIGEST = 16
"""Bytes of a picture's digest, BLAKE2b."""
LOOKED_AT = 32
"""Pictures of a set that are decoded when it is indexed, to see whether all are dark."""


class Entry(NamedTuple):
    """One picture of a file, as a format's ``scan`` finds it."""

    name: str = ""  # within its file; empty where the file is the picture
    block: int = 0  # what is read together, within the file
    offset: int = 0
    size: int = 0  # bytes
    label: str = ""
    held_out: bool = False
    digest: bytes = bytes(DIGEST)
    height: int = 0
    width: int = 0
    coloured: bool = False  # by its header: its pixels may still be grey
    problem: str = ""  # why it cannot be used


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a set as they lie on the disk now: what tells whether an index still fits."""

    mark: str  # hexadecimal digest of all of it
    count: int  # F
    arrangement: str  # what entries depend on beside their file: split or not, columns, names of classes
    files: Texts  # [F], or none where only the mark was asked for; so the next two
    sizes: np.ndarray  # int64 [F]
    mtimes: np.ndarray  # int64 [F], ns


def listing(files: Iterable[tuple[str, str]], arrangement: Callable[[], str] = str, *, keep: bool = True) -> Listing:
    """The :class:`Listing` of (name in the set, place); what cannot be looked at has size and time −1.

    Without ``keep`` it is marked and counted only, in little memory however many files there are.
    """
    names, sizes, mtimes = TextsBuilder(), array("q"), array("q")
    total, stream, count, look = hashlib.blake2b(digest_size=32), iter(files), 0, os.stat
    while part := list(islice(stream, 1024)):
        numbers = array("q")
        for _, path in part:
            try:
                status = look(path)
                numbers.extend((status.st_size, status.st_mtime_ns))
            except OSError:
                numbers.extend((-1, -1))
        count += len(part)
        total.update("\0".join(name for name, _ in part).encode("utf-8", "surrogateescape"))
        total.update(numbers)
        if keep:
            for name, _ in part:
                names.add(name)
            sizes.extend(numbers[0::2])
            mtimes.extend(numbers[1::2])
    arranged = arrangement()
    total.update(f"{count} {arranged}".encode("utf-8", "surrogateescape"))
    return Listing(
        mark=total.hexdigest(),
        count=count,
        arrangement=arranged,
        files=names.done(),
        sizes=np.array(sizes),
        mtimes=np.array(mtimes),
    )


@dataclass(frozen=True, kw_only=True)
class Index:
    """One entry a picture, in the set's order, and the files it was made of."""

    mark: str  # of the listing
    arrangement: str
    said: str  # what the format keeps for itself
    colour: bool  # whether the pixels of any picture are in colour
    peak: int  # the largest byte of the ``LOOKED_AT`` pictures that were decoded for it; -1 for none
    files: Texts
    sizes: np.ndarray  # int64 [F]
    mtimes: np.ndarray  # int64 [F]
    names: Texts  # [N]
    labels: Texts  # [L] the distinct ones
    problems: Texts  # [P] the distinct ones; the first is the empty one
    file: np.ndarray  # int32 [N]
    block: np.ndarray  # int32 [N]
    offset: np.ndarray  # int64 [N]
    size: np.ndarray  # int64 [N]
    label: np.ndarray  # int32 [N]
    held_out: np.ndarray  # uint8 [N]
    digest: np.ndarray  # uint8 [N, 16]
    check: np.ndarray  # uint32 [N]: the digest's first bytes, compared whenever a picture is read
    height: np.ndarray  # int32 [N]
    width: np.ndarray  # int32 [N]
    coloured: np.ndarray  # uint8 [N]
    problem: np.ndarray  # int32 [N]
    group: np.ndarray  # int32 [N]: the first entry of the same digest

    mapped: mmap.mmap | None = None  # where the arrays lie

    def __len__(self) -> int:
        return len(self.file)

    def let_go(self) -> None:
        """What was looked at so far counts as this process's memory no longer; it is read again where it is needed."""
        if self.mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)

    def entries(self, begin: int, end: int) -> Iterator[Entry]:
        """Entries ``begin`` to ``end``, as they were scanned."""
        for row in range(begin, end):
            yield Entry(
                name=self.names[row],
                block=int(self.block[row]),
                offset=int(self.offset[row]),
                size=int(self.size[row]),
                label=self.labels[int(self.label[row])],
                held_out=bool(self.held_out[row]),
                digest=self.digest[row].tobytes(),
                height=int(self.height[row]),
                width=int(self.width[row]),
                coloured=bool(self.coloured[row]),
                problem=self.problems[int(self.problem[row])],
            )


class Format(Protocol):
    """A way to store pictures: which files a set has, what stands in one, and how a picture is read."""

    @property
    def word(self) -> str:
        """Its name, a part of the index's key."""
        ...

    @property
    def path(self) -> Path:
        """The set's folder or file."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes in their order where the set fixes it; None: the labels, sorted."""
        ...

    @property
    def labels(self) -> Labels:
        """Which labels of a picture are read."""
        ...

    @property
    def has_blocks(self) -> bool:
        """Whether rows of one block are read together."""
        ...

    @property
    def rows(self) -> int | None:
        """How many pictures there are, where that is known without an index."""
        ...

    @property
    def side(self) -> int | None:
        """The pictures' own side, where all have one."""
        ...

    @property
    def said(self) -> str:
        """What it has to know later of what it scanned; kept in the index."""
        ...

    def listing(self, *, keep: bool = True) -> Listing:
        """The files as they are now; without ``keep`` marked and counted only."""
        ...

    def scan(self, file: str) -> Iterator[Entry]:
        """The pictures of one file, in order. Raises UserError where the file is no part of such a set."""
        ...

    def name(self, file: str, entry: str) -> str:
        """What a picture is called."""
        ...

    def pixels(self, index: Index, row: int, size: Size, fit: Fit = "crop") -> np.ndarray:
        """uint8 ``[1 or 3, H, W]`` of entry ``row``. Raises Unreadable, or UserError where the set has changed."""
        ...


class _Columns:
    """Entries on the way to an :class:`Index`: numbers in arrays, no object a picture."""

    def __init__(self) -> None:
        self.numbers = {name: array("q" if name in ("offset", "size") else "i") for name in _NUMBERS}
        self.names, self.labels, self.problems = TextsBuilder(), TextsBuilder(), TextsBuilder()
        self.digests = bytearray()
        self.problems.place("")

    def add(self, file: int, entry: Entry) -> None:
        """Append one entry of file number ``file``."""
        self.names.add(entry.name)
        self.digests += entry.digest
        values = (file, entry.block, entry.offset, entry.size, self.labels.place(entry.label), entry.held_out)
        values += (entry.height, entry.width, entry.coloured, self.problems.place(entry.problem))
        for column, value in zip(self.numbers.values(), values, strict=True):
            column.append(value)


_NUMBERS = ("file", "block", "offset", "size", "label", "held_out", "height", "width", "coloured", "problem")


def build(form: Format, now: Listing, before: Index | None, progress: Progress | None = None) -> Index:
    """The index of the files of ``now``; a file that ``before`` knows with its size and time is not read again."""
    columns = _Columns()
    known = _known(before) if before is not None and before.arrangement == now.arrangement else {}
    done = 0
    for number in range(len(now.files)):
        name = now.files[number]
        same = known.get((name, int(now.sizes[number]), int(now.mtimes[number])))
        for entry in form.scan(name) if same is None or before is None else before.entries(*same):
            columns.add(number, entry)
            done += 1
            if progress and done % 256 == 1:
                progress(done, form.rows or 0, "indexing pictures")
    digest = np.frombuffer(bytes(columns.digests), np.uint8).reshape(-1, DIGEST)
    numbers = {name: np.array(column) for name, column in columns.numbers.items()}
    for name in ("held_out", "coloured"):
        numbers[name] = numbers[name].astype(np.uint8)
    made = Index(
        mark=now.mark,
        arrangement=now.arrangement,
        said=form.said,
        colour=False,
        peak=-1,
        files=now.files,
        sizes=now.sizes,
        mtimes=now.mtimes,
        names=columns.names.done(),
        labels=columns.labels.done(),
        problems=columns.problems.done(),
        digest=digest,
        check=np.ascontiguousarray(digest[:, :4]).view(np.uint32)[:, 0],
        group=first_alike(digest).astype(np.int32),
        mapped=None,
        **numbers,
    )
    return replace(made, colour=_in_colour(form, made), peak=_peak(form, made))


def _known(before: Index) -> dict[tuple[str, int, int], tuple[int, int]]:
    """(file, size, time) -> where its entries begin and end."""
    numbers = np.arange(len(before.files))
    begins, ends = (np.searchsorted(before.file, numbers, side).tolist() for side in ("left", "right"))
    return {
        (before.files[k], int(before.sizes[k]), int(before.mtimes[k])): (begins[k], ends[k]) for k in numbers.tolist()
    }


def first_alike(values: np.ndarray) -> np.ndarray:
    """``[N]`` or ``[N, bytes]`` -> int64 ``[N]``: the first index of an equal value."""
    if values.ndim == 2:
        values = np.ascontiguousarray(values).view(np.dtype((np.void, values.shape[1])))[:, 0]
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return first[which.reshape(-1)]


def _in_colour(form: Format, index: Index) -> bool:
    """Whether any picture has pixels in colour; those whose header promises it are read until one has."""
    for row in np.flatnonzero(index.coloured & (index.problem == 0)).tolist():
        side = min(int(index.height[row]), int(index.width[row]))
        try:
            pixels = form.pixels(index, row, (side, side))
        except Unreadable:
            continue
        if len(pixels) == 3 and not is_grey(pixels[None]):
            return True
    return False


def _peak(form: Format, index: Index) -> int:
    """The largest byte of some pictures, evenly spread."""
    rows, peak = np.flatnonzero(index.problem == 0), -1
    for row in rows[even_positions(len(rows), LOOKED_AT)].tolist():
        side = min(int(index.height[row]), int(index.width[row]))
        try:
            peak = max(peak, int(form.pixels(index, row, (side, side)).max()))
        except Unreadable:
            continue
    return peak


def digest_of(data: bytes | memoryview) -> bytes:
    """The digest of a picture's bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def described(entry: Entry, data: bytes) -> Entry:
    """``entry`` with what the bytes of its picture file say: digest, upright size, colour, or why it cannot be read."""
    entry = entry._replace(size=len(data), digest=digest_of(data))
    if not data:
        return entry._replace(problem="empty file")
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(data), formats=FORMATS) as picture:
            warnings.simplefilter("ignore")
            if picture.width * picture.height > MAX_PIXELS:
                return entry._replace(problem=f"{TOO_LARGE}: {picture.width} x {picture.height}")
            mode, transparent = picture.mode, "transparency" in picture.info
            height, width = upright_size(picture, data)
    except UnidentifiedImageError:
        return entry._replace(problem="not a picture (" + ", ".join(FORMATS) + ")")
    except Image.DecompressionBombError:
        return entry._replace(problem=TOO_LARGE)
    except Exception as error:  # decoders of damaged files raise anything
        return entry._replace(problem=f"damaged: {printable(str(error), 60)}")
    grey = mode in ("1", "F") or mode.startswith("I") or (mode == "L" and not transparent)
    return entry._replace(height=height, width=width, coloured=not grey)


def sized(data: bytes, size: Size, fit: Fit) -> np.ndarray:
    """The bytes of a picture file -> uint8 ``[1 or 3, H, W]`` of ``size`` (H, W). Raises Unreadable."""
    return decode(data, size, fit).pixels


def checked(index: Index, row: int, data: bytes | memoryview, source: str) -> None:
    """Raise :class:`UserError` where the bytes of entry ``row`` are not those that were indexed."""
    if int.from_bytes(digest_of(data)[:4], sys.byteorder) != int(index.check[row]):
        raise _changed(index, row, source)


def unread(index: Index, row: int, folder: Path, source: str, error: Exception) -> Unreadable:
    """What to raise where the file of entry ``row`` fails; raises :class:`UserError` if it is another one by now."""
    file = int(index.file[row])
    try:
        status = (folder / index.files[file]).stat()
    except OSError:
        return Unreadable("its file is gone")
    if (status.st_size, status.st_mtime_ns) != (int(index.sizes[file]), int(index.mtimes[file])):
        raise _changed(index, row, source) from None
    return Unreadable(f"its file cannot be read ({printable(str(error), 60)})")


def _changed(index: Index, row: int, source: str) -> UserError:
    file = printable(index.files[int(index.file[row])])
    return UserError(
        f"{source}: {file} has changed since its index was made; stop, and open the set anew: it is indexed again"
    )
