"""``open_source``: a data set as a :class:`Source`, in memory where it fits and read as it is needed where not."""

import math
from pathlib import Path
from typing import Protocol

from torch import Tensor

from unilat.fields import Fit, Size, as_size, spelled
from unilat.signals import catalogue
from unilat.signals.decode import printable
from unilat.signals.detect import folder_kind
from unilat.signals.factors import Labels
from unilat.signals.index import Format
from unilat.signals.index_file import indexed
from unilat.signals.kind import Image
from unilat.signals.load import FOLDER_SIZE, load, require_labels, require_name
from unilat.signals.memory import InMemory
from unilat.signals.npz import Archive, choose
from unilat.signals.pictures import Progress, available_bytes
from unilat.signals.shards import ShardFormat
from unilat.signals.stream import Streamed
from unilat.signals.stream_folders import FolderFormat
from unilat.types import UserError

UNKNOWN_MEMORY = 1 << 30  # taken where the machine does not tell how much is free


class Source(Protocol):
    """A data set as training sees it. Rows may be asked for in any order, in this process and in those forked from it.

    Two sources of equal ``sha256`` have equal rows and labels in equal order, wherever they lie.
    """

    source: str  # its name, for messages
    kind: Image
    classes: tuple[str, ...]  # empty where none are named
    labels: Tensor  # int64 [N]
    groups: Tensor  # int64 [N]: copies, equal in bytes or (in memory, .npy) in pixels, share the first one's index
    held_out: Tensor | None  # bool [N]: True = the source's own test pictures; None: no official split
    blocks: Tensor | None  # int64 [N]: rows that are read together; None where any order is as quick
    sha256: str
    notes: tuple[str, ...]  # one line each, for the user

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of what could not be used, also of what turned out so while reading."""
        ...

    def __len__(self) -> int: ...

    def rows(self, indices: Tensor, *, among: Tensor | None = None) -> Tensor:
        """int64 ``[B]`` -> uint8 ``[B, C, H, W]``; ``among``: the rows that may stand in for an unreadable one."""
        ...

    def names(self, indices: Tensor) -> list[str]:
        """int64 ``[B]`` -> the file, member or row of each."""
        ...

    def json(self) -> dict[str, object]:
        """What is in it, as plain JSON types, by the keys of ``Pictures.json``."""
        ...


def open_source(
    source: str,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    limit: int | None = None,
    labels: tuple[str, ...] = (),
    memory_budget: int | None = None,
    unreadable_share: float = 0.05,
    progress: Progress | None = None,
) -> InMemory | Streamed:
    """A name of the catalogue, a folder of pictures or of tar shards, Parquet, a saved set, ``.npy`` or ``.npz``.

    ``size`` is a side or (height, width), None the source's natural one; ``channels`` None is 1 if every picture is
    grey, else 3; ``limit`` takes at most so many, evenly; ``labels`` are those of ``load``. The source lies in memory
    where its decoded pictures take at most ``memory_budget`` bytes (None: a quarter of what is free), and is read as it
    is needed otherwise, and for random crops: from an index that is made once and kept in the cache. While it is read
    so, at most ``unreadable_share`` of the pictures may turn out to be unreadable. Raises :class:`UserError` with one
    line that names the thing and the way out.
    """
    require_name(source)
    asked = _checked(size)
    if channels not in (None, 1, 3):
        raise UserError(f"pictures have 1 channel (grey) or 3 (colour), not {channels}")
    if limit is not None and limit < 1:
        raise UserError(f"the limit on pictures must be at least 1, not {limit}")
    if memory_budget is None:
        free = available_bytes()
        memory_budget = UNKNOWN_MEMORY if free is None else free // 4
    wanted = Labels(tuple(labels))
    require_labels(source, wanted)
    form = None if source in catalogue.CATALOGUE else _format(Path(source), memory_budget, wanted)
    into = {"size": asked, "channels": channels, "fit": fit, "limit": limit, "labels": wanted.names}
    if form is None:
        return InMemory(load(source, progress=progress, **into))
    now = form.listing(keep=False)
    shards = form.word == "shards"
    index = indexed(form, now, progress) if shards else None
    count = (now.count if index is None else len(index)) if form.rows is None else form.rows
    shape = asked or as_size(form.side or FOLDER_SIZE)
    small = min(count, count if limit is None else limit) * (channels or 3) * math.prod(shape) <= memory_budget
    small &= fit != "random-crop"
    if small and not shards:
        return InMemory(load(source, progress=progress, **into))
    streamed = Streamed(
        form,
        index or indexed(form, now, progress),
        size=shape,
        fit=fit,
        channels=channels,
        limit=limit,
        unreadable_share=unreadable_share,
        memory=memory_budget,
    )
    return InMemory(streamed.gathered(progress)) if small else streamed


def _checked(size: int | tuple[int, int] | None) -> Size | None:
    """The (height, width) that is asked for."""
    if size is None:
        return None
    size = as_size(size)
    if not 1 <= min(size) <= max(size) <= 8192:
        raise UserError(f"the pictures' size must lie between 1 and 8192, not {spelled(size)}")
    return size


def _format(path: Path, memory_budget: int, labels: Labels) -> Format | None:
    """What reads this path picture by picture; None for what only ``load`` reads, or refuses."""
    if path.is_dir():
        kind = folder_kind(path)
        if kind == "pictures":
            return FolderFormat(path, labels)
        return ShardFormat(path, labels) if kind == "shards" else _table(path, labels)
    if not path.is_file():
        return None
    if path.suffix == ".tar":
        return ShardFormat(path, labels)
    if path.suffix == ".parquet":
        return _table(path, labels)
    if path.suffix == ".npy":
        from unilat.signals.stream_arrays import ArrayFormat

        return ArrayFormat(path)
    if path.suffix == ".npz" and _unpacked(path) > memory_budget:
        raise UserError(
            f"{printable(str(path))}: unpacked it does not fit into {memory_budget / 2**30:.2g} GiB, and an .npz cannot"
            " be read in parts; save its pictures as .npy with numpy.save"
        )
    return None


def _table(path: Path, labels: Labels) -> Format:
    from unilat.signals.stream_tables import TableFormat

    return TableFormat(path, labels)


def _unpacked(path: Path) -> int:
    """Bytes of an archive's pictures, by their headers."""
    archive = Archive(path, printable(str(path)))
    return sum(archive.arrays[part.pictures].unpacked for part in choose(archive))
