"""A set of pictures in memory: what every reader of this folder returns."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unilat.fields import FieldError, Size
from unilat.signals.factors import Factors
from unilat.signals.kind import Image, kind_of
from unilat.signals.parts import folder_side
from unilat.types import UserError

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``: called now and then by slow readers; ``total`` is 0 where it is not known."""


@dataclass(frozen=True)
class Pictures:
    """Pictures with their labels, kept as bytes: 1/4 of the float32 size, and the exact values that were read.

    ``classes`` is empty where the source names none; ``labels`` are then zeros. Pictures of one group are
    near-duplicates (skin tones of one emoji, letters drawn alike) that must not straddle a split.
    """

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]
    classes: tuple[str, ...]
    groups: Tensor  # int64 [N]
    names: tuple[str, ...] | None
    held_out: Tensor | None  # bool [N]: True = the source's own test pictures
    source: str
    skipped: tuple[tuple[str, str], ...] = ()  # (name, reason)
    converted: dict[str, int] = field(default_factory=dict)  # e.g. {"palette": 3, "resized": 40}
    shapes: dict[str, int] = field(default_factory=dict)  # e.g. {"480x640 cropped, resized": 12}, commonest first
    notes: tuple[str, ...] = ()  # one line each, to be told to the user
    sha256: str = ""  # of the pictures' and labels' bytes
    factors: Factors | None = None  # where each class is a combination of several labels

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def kind(self) -> Image:
        """What each row is."""
        return kind_of(self.images.shape)

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.kind.height, self.kind.width

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.kind.channels

    def class_counts(self) -> dict[str, int]:
        """Pictures per class, in the order of ``classes``; empty where there are no classes."""
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True)) if self.classes else {}

    def json(self) -> dict:
        """What is in it, as plain JSON types: the run folder's ``data.json`` starts from this."""
        return {
            "source": self.source,
            "count": len(self),
            "size": list(self.size),
            "channels": self.channels,
            "classes": list(self.classes),
            "class_counts": self.class_counts(),
            "groups": int(self.groups.unique().numel()),
            "held_out": None if self.held_out is None else int(self.held_out.sum()),
            "skipped": [list(item) for item in self.skipped],
            "converted": dict(self.converted),
            "shapes": dict(self.shapes),
            "notes": list(self.notes),
            "sha256": self.sha256,
        }


def pack(
    images: np.ndarray,
    labels: np.ndarray | list[int] | None,
    source: str,
    *,
    classes: tuple[str, ...] = (),
    groups: np.ndarray | list[int] | None = None,
    names: tuple[str, ...] | None = None,
    held_out: np.ndarray | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
    converted: dict[str, int] | None = None,
    shapes: dict[str, int] | None = None,
    notes: tuple[str, ...] = (),
    factors: Factors | None = None,
) -> Pictures:
    """Pictures ``uint8 [N, C, H, W]`` with everything said about them -> :class:`Pictures`, hashed and checked.

    Pictures that are equal byte for byte share a group, whatever ``groups`` says besides.
    """
    count = len(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"pack wants uint8 [N, C, H, W], not {images.dtype} {list(images.shape)}")
    if count == 0:
        raise UserError(f"{source}: no picture could be read; name a folder or file that holds pictures")
    label_array = np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64)
    group_array = None if groups is None else np.asarray(groups, np.int64)
    for what, array in (("labels", label_array), ("groups", group_array), ("names", names), ("held_out", held_out)):
        if array is not None and len(array) != count:
            raise ValueError(f"{count} pictures but {len(array)} {what}")
    equal = equal_groups(images)
    group_array = equal if group_array is None else joined(group_array, equal)
    notes += copies_told(equal)
    notes += _told(label_array, classes, group_array, held_out) if factors is None else ()
    images = np.ascontiguousarray(images)
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(images.data)
    digest.update(np.ascontiguousarray(label_array, "<i8").data)
    return Pictures(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(label_array),
        classes=tuple(classes),
        groups=torch.from_numpy(group_array),
        names=names,
        held_out=None if held_out is None else torch.from_numpy(np.asarray(held_out, bool)),
        source=source,
        skipped=skipped,
        converted=dict(sorted((converted or {}).items())),
        shapes=dict(sorted((shapes or {}).items(), key=lambda item: -item[1])),
        notes=notes,
        sha256=digest.hexdigest(),
        factors=factors,
    )


def _told(
    labels: np.ndarray, classes: tuple[str, ...], groups: np.ndarray, held_out: np.ndarray | None
) -> tuple[str, ...]:
    """What the user should know of the split: classes of one picture, or what an official split leaves untrained."""
    if held_out is None or held_out.all() or not held_out.any():
        single = [name for k, name in enumerate(classes) if (labels == k).sum() == 1]
        told = f"{len(single)} class(es) of one picture: {_names(single)}; it is trained on, nothing of it is held out"
        parts = [name for name in classes if folder_side(name)]
        alone = f"{_names(parts)}: trained on as a class, as no train and test (or val, dev) stand side by side"
        return (told,) * bool(single) + (alone,) * bool(parts)
    copies = np.isin(groups, groups[held_out]) & ~held_out
    trained = labels[~held_out & ~copies]
    bare = [name for k, name in enumerate(classes) if k in labels and k not in trained]
    notes = []
    if copies.any():
        rest = ", and none is left: take the copies out" if not len(trained) else ""
        notes.append(
            f"{copies.sum()} training picture(s) have a copy among the source's test pictures: not trained on{rest}"
        )
    if bare:
        notes.append(f"{len(bare)} class(es) without a picture to train on: {_names(bare)}")
    return tuple(notes)


def copies_told(equal: np.ndarray) -> tuple[str, ...]:
    """How many pictures repeat an earlier one; ``equal`` int64 ``[N]``: the first index of each picture's equals."""
    repeats = int((equal != np.arange(len(equal))).sum())
    told = f"{repeats:,} of {len(equal):,} pictures are exact copies of another; no split parts them"
    return (told,) if repeats else ()


def _names(classes: list[str]) -> str:
    """The first five names."""
    return ", ".join(repr(name) for name in classes[:5]) + (" ..." if len(classes) > 5 else "")


def joined(groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 ``[N]``: one group for pictures that either numbering puts together, by the index of its first picture."""
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        start = node
        while (above := parent.setdefault(node, node)) != node:
            node = above
        parent[start] = node  # the way is short the next time
        return node

    nodes = [("given", group) for group in groups.tolist()]
    for node, other in zip(nodes, others.tolist(), strict=True):
        parent[root(("equal", other))] = root(node)
    first: dict[tuple[str, int], int] = {}
    return np.array([first.setdefault(root(node), index) for index, node in enumerate(nodes)], np.int64)


def digests(images: np.ndarray) -> list[bytes]:
    """Uint8 ``[N, C, H, W]`` -> 16 bytes of BLAKE2b for each picture: equal where all its pixels are."""
    return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]


def equal_groups(images: np.ndarray) -> np.ndarray:
    """int64 ``[N]``: the first index of a picture equal byte for byte (Latin A, Greek Alpha; copies in a folder)."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, index) for index, digest in enumerate(digests(images))], np.int64)


def distinct(rows: Tensor) -> Tensor:
    """Indices, int64 and rising, of the rows ``[N, ...]`` that no earlier one equals bit for bit.

    A copy tells nothing new: a mean's standard error ``std / √N`` is right for different rows alone. So whatever tells
    one over pictures or latents measures these.
    """
    return torch.from_numpy(equal_groups(rows.numpy())).unique()


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """``uint8 [N, 1 or 3, H, W]`` with ``channels`` channels: grey is repeated, colour becomes luma.

    Luma is ``(19595 R + 38470 G + 7471 B + 32768) >> 16``, ITU-R 601, the same integers as Pillow's.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    luma = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for first in range(0, len(images), 1024):  # in parts: the sums are four times as large
        red, green, blue = (images[first : first + 1024, k].astype(np.uint32) for k in range(3))
        luma[first : first + 1024, 0] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return luma


def is_grey(images: np.ndarray) -> bool:
    """Whether every picture of ``uint8 [N, 3, H, W]`` has equal channels."""
    return bool((images[:, 0] == images[:, 1]).all() and (images[:, 0] == images[:, 2]).all())


def available_bytes() -> int | None:
    """Memory that may still be taken: the least of the machine's and the control group's; None where neither tells."""
    found = []
    try:
        with open("/proc/meminfo") as file:
            found += [int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            found.append(int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    return min(found) if found else None


def require_memory(needed: int, source: str, count: int, shape: str) -> None:
    """:class:`FieldError` before, not a crash after, ``needed`` bytes do not fit."""
    free = available_bytes()
    if free is not None and needed > 0.9 * free:
        raise FieldError(
            f"{source}: {count:,} pictures of {shape} need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free;"
            " choose a smaller data.size or fewer pictures"
        )
