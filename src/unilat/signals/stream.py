"""A source that reads what is asked for: of every format that has an index, in any order, in any process."""

import hashlib
import mmap
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unilat.fields import FieldError, Fit, Size, spelled
from unilat.maths.seeds import key
from unilat.signals.collect import classes_told, even_positions, nothing_left, reasons
from unilat.signals.crops import crop_place, cut, held_out_fit, random_crops, strip_size
from unilat.signals.decode import Unreadable, printable
from unilat.signals.factors import Factors, in_order, told_apart
from unilat.signals.index import LOOKED_AT, Format, Index, first_alike
from unilat.signals.kind import Image
from unilat.signals.levels import dark_told
from unilat.signals.pictures import Pictures, Progress, _told, copies_told, pack, with_channels
from unilat.types import UserError

PART = 1 << 14  # entries looked at together, where all of them are


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Which entries of an index are read, and what is known about them."""

    rows: np.ndarray | None  # int32 [N]; None: all of them
    skipped: tuple[tuple[str, str], ...]
    classes: tuple[str, ...]
    labels: np.ndarray  # int64 [N]
    factors: Factors | None
    notes: tuple[str, ...]


class Streamed:
    """Pictures read and decoded when they are asked for: the ``Source`` of every format larger than memory.

    It holds the numbers of the index, mapped from the cache, and 18 to 22 bytes a picture. A picture that cannot be
    read is replaced by another of its class and side of the split, chosen by a hash of its index alone; which ones are
    is known to this process and to those forked from it. Not for use by several threads at once.
    """

    def __init__(
        self,
        form: Format,
        index: Index,
        *,
        size: Size,
        fit: Fit = "crop",
        channels: int | None = None,
        limit: int | None = None,
        unreadable_share: float = 0.05,
        memory: int = 0,
    ) -> None:
        if not 0 <= unreadable_share <= 1:
            raise UserError(f"the share of unreadable pictures must lie between 0 and 1, not {unreadable_share}")
        self.source = printable(str(form.path))
        self.kind = Image(height=size[0], width=size[1], channels=channels or (3 if index.colour else 1))
        self._form, self._index, self._share = form, index, unreadable_share
        self._fit: Fit = held_out_fit(fit)
        self.random = fit == "random-crop"
        chosen = _choose(form, index, size, self._fit, limit, self.source)
        self._rows, self._skipped = chosen.rows, chosen.skipped
        groups = index.group if chosen.rows is None else first_alike(index.group[chosen.rows])
        held_out = _of(index.held_out, chosen.rows).astype(bool)
        self.classes, self.labels, self.factors = chosen.classes, torch.from_numpy(chosen.labels), chosen.factors
        self.groups = torch.from_numpy(groups.astype(np.int64))
        self.held_out = torch.from_numpy(held_out) if held_out.any() else None
        self._notes = chosen.notes
        self._strips: dict[int, np.ndarray] = {}
        self.converted, self.resident = self._room(memory) if self.random else ({}, False)
        if self.random:
            self._notes += (random_crops(sum(self.converted.values()), len(self)),)
        official = held_out if held_out.any() else None
        self.notes = self._notes + copies_told(groups)
        if self.factors is None:
            self.notes += _told(chosen.labels, self.classes, groups, official)
        self.sha256 = self._identity(chosen.labels)
        self.blocks = self._blocks() if form.has_blocks else None
        index.let_go()
        self._unreadable = mmap.mmap(-1, len(self))  # a byte a picture, shared with the processes forked from this one

    def __len__(self) -> int:
        return len(self.labels)

    def _room(self, memory: int) -> tuple[dict[str, int], bool]:
        """How many pictures leave room for random crops, and whether what they are cut from fits into memory."""
        strips = [(strip_size(shape, self.size), count) for shape, count in self.shapes().items()]
        room = sum(count for strip, count in strips if strip != self.size)
        pixels = sum(high * wide * count for (high, wide), count in strips)
        return ({"cropped at random": room} if room else {}), pixels * self.channels <= memory

    def shapes(self) -> dict[Size, int]:
        """How many pictures are (height, width) by their headers, the commonest first."""
        both = np.stack([_of(one, self._rows) for one in (self._index.height, self._index.width)], 1)
        kinds, counts = np.unique(both, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable").tolist()
        return {(int(kinds[k, 0]), int(kinds[k, 1])): int(counts[k]) for k in order}

    def keep(self, indices: Tensor) -> None:
        """Decode once what ``indices`` are cut from at random, where it fits into memory."""
        for index in self._checked(indices) if self.resident else []:
            if (strip := self._attempt(index, strip=True)) is not None:
                self._strips[index] = strip

    @property
    def size(self) -> Size:
        """(height, width) of a picture."""
        return self.kind.height, self.kind.width

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.kind.channels

    def _identity(self, labels: np.ndarray) -> str:
        """SHA-256 of the pictures' digests, labels, classes, shape and fit, in order; neither names nor places."""
        padded = " pad" if self._fit == "pad" else ""
        total = hashlib.sha256(f"{self.kind.shape} {self.classes}{padded}".encode("utf-8", "surrogateescape"))
        total.update(np.ascontiguousarray(labels, "<i8").data)
        for first in range(0, len(self), PART):
            part = slice(first, first + PART)
            total.update(
                np.ascontiguousarray(self._index.digest[part if self._rows is None else self._rows[part]]).data
            )
        return total.hexdigest()

    def _blocks(self) -> Tensor:
        """int64 ``[N]``: one number for pictures that are read together."""
        file, block = (_of(one, self._rows).astype(np.int64) for one in (self._index.file, self._index.block))
        return torch.from_numpy(file * (int(block.max()) + 1) + block)

    def names(self, indices: Tensor) -> list[str]:
        """What the pictures ``indices`` (int64 ``[B]``) are called: path, member or row."""
        return [self._name(index) for index in self._checked(indices)]

    def _row(self, index: int) -> int:
        """The index's entry of a picture."""
        return index if self._rows is None else int(self._rows[index])

    def _name(self, index: int) -> str:
        return _entry_name(self._form, self._index, self._row(index))

    def _checked(self, indices: Tensor) -> list[int]:
        wanted = indices.tolist()
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self):
            raise IndexError(f"{self.source} has pictures 0 to {len(self) - 1}, not {min(wanted)} to {max(wanted)}")
        return wanted

    def rows(self, indices: Tensor, *, among: Tensor | None = None) -> Tensor:
        """Pictures ``indices`` (int64 ``[B]``) -> uint8 ``[B, C, H, W]``.

        ``among`` (int64, sorted): the pictures that may stand in for one that cannot be read, such as those trained
        on; None: all. Raises :class:`UserError` once too many cannot be read, where none of a class can, or where the
        files are no longer those that were indexed.
        """
        return self._filled(self._checked(indices), None, among)

    def crops(self, indices: Tensor, epochs: Tensor, seed: int, *, among: Tensor | None = None) -> Tensor:
        """:meth:`rows` as training sees them in ``epochs``, int64 ``[B]``: each cut out at a place of its own."""
        wanted = self._checked(indices)
        cuts = [crop_place(seed, epoch, index) for epoch, index in zip(epochs.tolist(), wanted, strict=True)]
        return self._filled(wanted, cuts, among)

    def _filled(self, wanted: list[int], cuts: list[tuple[float, float]] | None, among: Tensor | None) -> Tensor:
        """Pictures ``wanted`` by their centres, or cut out where ``cuts`` say."""
        out = np.empty((len(wanted), *self.kind.shape), np.uint8)
        for place in sorted(range(len(wanted)), key=wanted.__getitem__):  # in the order that they lie in
            picture = self._picture(wanted[place], among, strip=cuts is not None)
            out[place] = picture if cuts is None else cut(picture, self.size, cuts[place])
        return torch.from_numpy(out)

    def _read(self, index: int, strip: bool = False) -> np.ndarray:
        """uint8 ``[C, H, W]``, or the longer ``strip`` that it is cut from; raises Unreadable."""
        if strip and index in self._strips:
            return self._strips[index]
        row, size = self._row(index), self.size
        if strip:
            size = strip_size((int(self._index.height[row]), int(self._index.width[row])), size)
        pixels = self._form.pixels(self._index, row, size, self._fit)
        return with_channels(pixels[None], self.kind.channels)[0]

    def _picture(self, index: int, among: Tensor | None, strip: bool = False) -> np.ndarray:
        """The picture, or the one that stands in for it."""
        if (picture := self._attempt(index, strip)) is not None:
            return picture
        others = self.labels == self.labels[index]
        if self.held_out is not None:
            others &= self.held_out == self.held_out[index]
        candidates = others.nonzero().flatten()
        if among is not None:
            candidates = candidates[torch.isin(candidates, among)]
        while len(candidates):
            position = key("stands in", index, len(candidates)) % len(candidates)
            if (picture := self._attempt(int(candidates[position]), strip)) is not None:
                return picture
            candidates = torch.cat([candidates[:position], candidates[position + 1 :]])
        name = repr(self.classes[int(self.labels[index])]) if self.classes else "the set"
        raise UserError(f"{self.source}: no picture of {name} can be read any more; put its files back and resume")

    def _attempt(self, index: int, strip: bool = False) -> np.ndarray | None:
        """The picture; None where it cannot be read, which is noted and told once it happens too often."""
        if self._unreadable[index]:
            return None
        try:
            return self._read(index, strip)
        except Unreadable as reason:
            self._unreadable[index] = 1
            count = int(np.count_nonzero(np.frombuffer(self._unreadable, np.uint8)))
            if count > self._share * len(self):
                name = self._name(index)
                raise FieldError(
                    f"{self.source}: {count} of {len(self)} pictures cannot be read, over a share of {self._share:.3g}"
                    f" (last {name}: {reason}); repair the set, or allow a larger data.unreadable_share"
                ) from None
            return None

    def gathered(self, progress: Progress | None = None) -> Pictures:
        """All of it in memory; pictures that cannot be read are left out, named and told why."""
        images, kept, skipped = np.empty((len(self), *self.kind.shape), np.uint8), [], list(self._skipped)
        for index in range(len(self)):
            try:
                images[len(kept)] = self._read(index)
                kept.append(index)
            except Unreadable as reason:
                skipped.append((self._name(index), str(reason)))
            if progress and index % 256 == 0:
                progress(index, len(self), "reading pictures")
        chosen = torch.tensor(kept, dtype=torch.int64)
        return pack(
            images[: len(kept)],
            self.labels[chosen].numpy(),
            self.source,
            classes=self.classes,
            groups=self.groups[chosen].numpy(),
            names=tuple(self.names(chosen)),
            held_out=None if self.held_out is None else self.held_out[chosen].numpy(),
            skipped=tuple(skipped),
            notes=self._notes,
            factors=self.factors,
        )

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of what was left out at the start, and of what could not be read since."""
        return self._skipped + self.lost

    @property
    def lost(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of what could not be read since it was opened, here and in processes forked from this one."""
        since = np.flatnonzero(np.frombuffer(self._unreadable, np.uint8)).tolist()
        return tuple((self._name(index), self._reason(index)) for index in since)

    def _reason(self, index: int) -> str:
        try:
            self._read(index)
        except (Unreadable, UserError) as reason:
            return str(reason)
        return "could not be read while training"

    def class_counts(self) -> dict[str, int]:
        """Pictures per class, in the order of ``classes``; empty where there are no classes."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True)) if self.classes else {}

    def json(self) -> dict[str, object]:
        """What is in it, as plain JSON types, by the keys of ``Pictures.json``."""
        return {
            "source": self.source,
            "count": len(self),
            "size": [self.kind.height, self.kind.width],
            "channels": self.kind.channels,
            "classes": list(self.classes),
            "class_counts": self.class_counts(),
            "groups": int(self.groups.unique().numel()),
            "held_out": None if self.held_out is None else int(self.held_out.sum()),
            "skipped": [list(item) for item in self.skipped],
            "converted": dict(self.converted),
            "notes": list(self.notes),
            "sha256": self.sha256,
        }


class Part:
    """Some pictures of a streamed set as a tensor ``[N, C, H, W]`` that is read where it is indexed, and only there.

    ``seed``: of the places where pictures are cut at random.
    """

    def __init__(self, source: Streamed, indices: Tensor, seed: int = 0) -> None:
        self.source, self.indices, self.seed, self.random = source, indices, seed, source.random
        self.shape = torch.Size((len(indices), *source.kind.shape))
        self.blocks = None if source.blocks is None else source.blocks[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """Rows ``which`` as uint8; only pictures of this part stand in for those that cannot be read."""
        return self.source.rows(self.indices[which], among=self.indices)

    def seen(self, numbers: Tensor) -> Tensor:
        """Row ``number % N`` as it is cut at random in epoch ``number // N``, for each of ``numbers`` int64 ``[B]``."""
        rows, epochs = self.indices[numbers % len(self)], numbers // len(self)
        return self.source.crops(rows, epochs, self.seed, among=self.indices)


def _of(column: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """The column of the chosen entries."""
    return column if rows is None else column[rows]


def _entry_name(form: Format, index: Index, row: int) -> str:
    return printable(form.name(index.files[int(index.file[row])], index.names[row]))


def fits(height: np.ndarray, width: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool ``[N]``: which pictures are as large as ``size`` (H, W) asks; nothing is enlarged."""
    return (height >= size[0]) & (width >= size[1])


def _choose(form: Format, index: Index, size: Size, fit: Fit, limit: int | None, source: str) -> _Chosen:
    """The entries that can be used, at most ``limit`` of them evenly, with their classes numbered."""
    whole = index.problem == 0
    usable = whole if fit == "pad" else whole & fits(index.height, index.width, size)
    skipped = []
    for row in np.flatnonzero(~usable).tolist():
        reason = index.problems[int(index.problem[row])]
        small = f"smaller than {spelled(size)}: {index.height[row]} x {index.width[row]}"
        skipped.append((_entry_name(form, index, row), reason or small))
    if not usable.any():
        raise UserError(nothing_left(source, skipped, size))
    rows = None if usable.all() else np.flatnonzero(usable).astype(np.int32)
    if limit is not None and limit < usable.sum():
        rows = np.flatnonzero(usable).astype(np.int32)
        rows = rows[even_positions(len(rows), limit, index.held_out[rows].astype(bool).tolist())]
    label = _of(index.label, rows)
    there = np.flatnonzero(np.bincount(label))
    used, several = {index.labels[number] for number in there.tolist()}, form.labels.several
    tried = {index.labels[number] for number in np.flatnonzero(np.bincount(index.label)).tolist()}
    notes: tuple[str, ...] = ()
    if limit is None and (lost := sorted(tried - used - {"", "."})):
        notes += (f"left out, no readable picture in them: {classes_told(lost, several)}",)
    if skipped:
        notes += (f"{len(skipped)} of {len(index)} skipped: {reasons(skipped)}",)
    if index.peak >= 0:
        notes += dark_told(index.peak, f"{min(LOOKED_AT, int(whole.sum())):,} pictures that were looked at")
    factors, numbers = None, np.zeros(len(index.labels), np.int64)
    if several:
        numbers[there], classes, factors = told_apart([index.labels[one] for one in there.tolist()], several, source)
    else:
        classes = () if used <= {"", "."} else form.classes or in_order(used)
        number = {name: place for place, name in enumerate(classes)}
        numbers[:] = [number.get(name, 0) for name in index.labels.all()]
    return _Chosen(
        rows=rows,
        skipped=tuple(skipped),
        classes=tuple(printable(name) for name in classes),
        labels=numbers[label],
        factors=factors,
        notes=notes,
    )
