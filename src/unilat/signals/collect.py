"""Many encoded pictures -> :class:`Pictures`: decoded by a few threads, in order, with everything counted."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from unilat.fields import FieldError, Fit, Size, spelled
from unilat.signals.decode import Decoded, Unreadable, changes, decode, printable
from unilat.signals.factors import class_name, in_order, told_apart
from unilat.signals.levels import levels_told
from unilat.signals.pictures import Pictures, Progress, is_grey, pack, require_memory, with_channels
from unilat.types import UserError

BLOCK = 64  # pictures handed to the threads at once; bounds what waits in memory


@dataclass(frozen=True)
class Item:
    """One picture to be read: where it is, what it is called, and what is known about it."""

    name: str
    data: Path | bytes | None  # None: there is nothing, for the reason ``name`` is listed under
    label: str = ""
    held_out: bool = False
    problem: str = ""  # known before reading: the item is skipped with this reason


@dataclass
class Tally:
    """What :func:`collect` learns while it reads."""

    kept: list[Item] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    colour: int = 0
    labels: set[str] = field(default_factory=set)  # of all items that were tried
    shapes: Counter[str] = field(default_factory=Counter)
    peak: int = 0  # the largest value of all pictures of 16 bits


def even_positions(count: int, limit: int | None, held_out: Sequence[bool] | None = None) -> list[int]:
    """At most ``limit`` positions of ``count``, evenly spread, so that a sorted list gives of every class.

    Where an official split would lose all its ``held_out`` pictures, or all others, the middle one of them takes the
    place of the last of the others.
    """
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise UserError(f"the limit on pictures must be at least 1, not {limit}")
    chosen = [position * count // limit for position in range(limit)]
    if held_out is None or limit == 1:
        return chosen
    for side in (True, False):
        members = [position for position in range(count) if held_out[position] == side]
        if members and not any(held_out[position] == side for position in chosen):
            chosen = sorted([*chosen[:-1], members[len(members) // 2]])
    return chosen


def collect(
    items: Iterable[Item],
    count: int,
    source: str,
    *,
    size: Size,
    channels: int | None,
    fit: Fit = "crop",
    progress: Progress | None = None,
    class_order: tuple[str, ...] | None = None,
    one_class: bool = False,
    labels: tuple[str, ...] = (),
) -> Pictures:
    """Read ``items`` (at most ``count``) in their order; those that cannot be read are skipped, named and told why.

    Classes are the labels of the pictures kept, sorted, or ``class_order``; with ``one_class`` labels are ignored.
    ``labels``: names of those that each item's text holds, where they are several (``factors.Labels``).
    ``channels`` None means 1 if every picture is grey, else 3. Raises :class:`UserError` if nothing is left.
    """
    depth = 1 if channels == 1 else 3
    height, width = size
    require_memory(count * height * width * (depth + 1), source, count, f"{depth} x {height} x {width}")
    images = np.empty((count, depth, height, width), np.uint8)
    tally = Tally()
    for done, (item, result) in enumerate(_decoded(items, size, fit), start=1):
        if not item.problem:
            tally.labels.add(item.label)
        if isinstance(result, Unreadable):
            tally.skipped.append((printable(item.name), str(result)))
        else:
            images[len(tally.kept)] = with_channels(result.pixels[None], depth)[0]
            tally.colour += result.pixels.shape[0] == 3
            tally.kept.append(item)
            tally.converted.update(result.converted)
            tally.peak = max(tally.peak, result.peak)
            tally.shapes[shape_changed(result.shape, size, fit)] += 1
        if progress and done % BLOCK == 0:
            progress(done, count, "reading pictures")
    if not tally.kept:
        raise FieldError(nothing_left(source, tally.skipped, size))
    images = images[: len(tally.kept)]
    images = _settle_channels(images, channels, tally)
    return _assemble(images, tally, source, class_order, one_class, labels)


def _settle_channels(images: np.ndarray, channels: int | None, tally: Tally) -> np.ndarray:
    """Grey sets become one channel unless three are asked for; what that changed is counted."""
    grey_files = len(tally.kept) - tally.colour
    if channels == 1:
        if tally.colour:
            tally.converted["colour to grey"] += tally.colour
        return images
    if channels is None and (tally.colour == 0 or is_grey(images)):
        return images[:, :1].copy()
    if grey_files:
        tally.converted["grey to colour"] += grey_files
    return images


def _assemble(
    images: np.ndarray,
    tally: Tally,
    source: str,
    class_order: tuple[str, ...] | None,
    one_class: bool,
    names: tuple[str, ...],
) -> Pictures:
    """Number the classes and pack."""
    kept, notes, factors = tally.kept, (), None
    lost = sorted(tally.labels - {item.label for item in kept} - {"", "."})
    if lost and not one_class:
        notes = (f"left out, no readable picture in them: {classes_told(lost, names)}",)
    classes: tuple[str, ...] = ()
    if names:
        labels, classes, factors = told_apart([item.label for item in kept], names, source)
    else:
        if not one_class:
            classes = class_order or in_order({item.label for item in kept})
        if classes == ("",):
            classes = ()
        number = {name: index for index, name in enumerate(classes)}
        labels = np.array([number.get(item.label, 0) for item in kept], np.int64)
    held_out = np.array([item.held_out for item in kept])
    if tally.skipped:
        notes += (f"{len(tally.skipped)} of {len(kept) + len(tally.skipped)} skipped: {reasons(tally.skipped)}",)
    notes += levels_told(images, tally.converted["16-bit"], tally.peak)
    return pack(
        images,
        labels,
        source,
        classes=tuple(printable(name) for name in classes),
        names=tuple(printable(item.name) for item in kept),
        held_out=held_out if held_out.any() else None,
        skipped=tuple(tally.skipped),
        converted=dict(tally.converted),
        shapes=dict(tally.shapes),
        notes=notes,
        factors=factors,
    )


def classes_told(texts: Sequence[str], names: tuple[str, ...]) -> str:
    """The first five classes of these labels."""
    return ", ".join(printable(class_name(text, names), 40) for text in texts[:5])


def shape_changed(shape: Size, size: Size, fit: Fit) -> str:
    """``"480x640 cropped, resized"``: a shape and what is done to it, as counted in ``Pictures.shapes``."""
    return f"{shape[0]}x{shape[1]} {', '.join(changes(shape, size, fit))}".strip()


def reasons(skipped: list[tuple[str, str]] | tuple[tuple[str, str], ...], most: int = 4) -> str:
    """``"8 not a picture, 3 truncated"``: the commonest reasons with their counts."""
    counts = Counter(reason.split(":")[0].split(" (")[0] for _, reason in skipped).most_common()
    shown = ", ".join(f"{number} {reason}" for reason, number in counts[:most])
    return shown + (f", {sum(number for _, number in counts[most:])} other" if len(counts) > most else "")


def largest_inside(shape: Size, size: Size) -> Size:
    """The largest size of the shape of ``size`` that a picture of ``shape`` can be cut to."""
    return min((shape[0], shape[0] * size[1] // size[0]), (shape[1] * size[0] // size[1], shape[1]))


def nothing_left(source: str, skipped: list[tuple[str, str]], size: Size) -> str:
    """The line for a source of which no picture could be used, with the way out."""
    if not skipped:
        return f"{source}: there is no picture in it; name a folder or file that holds pictures"
    small = [reason for _, reason in skipped if reason.startswith("smaller than")]
    if small:
        seen = [tuple(map(int, reason.split(": ")[1].split(" x "))) for reason in small]
        largest = max(largest_inside((high, wide), size) for high, wide in seen)
        way_out = f"choose data.size {spelled(largest)} or less" if min(largest) > 0 else "name larger pictures"
        return f"{source}: every readable picture is smaller than {size[0]} x {size[1]}; {way_out}"
    return (
        f"{source}: none of {len(skipped)} can be used ({reasons(skipped)}); name a folder or file that holds pictures"
    )


def _decoded(items: Iterable[Item], size: Size, fit: Fit) -> Iterator[tuple[Item, Decoded | Unreadable]]:
    """Each item with its picture or the reason why not, in the order of the items."""

    def read(item: Item) -> Decoded | Unreadable:
        if item.problem or item.data is None:
            return Unreadable(item.problem or "empty")
        try:
            return decode(item.data, size, fit)
        except Unreadable as reason:
            return reason

    Image.init()  # the list of formats is loaded once, not by several threads at once
    stream = iter(items)
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow warns about damaged tags that do not touch the pixels
        while block := list(islice(stream, BLOCK)):
            yield from zip(block, pool.map(read, block), strict=True)
