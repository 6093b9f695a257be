"""``.npy`` and ``.npz`` files of pictures -> :class:`Pictures`. Nothing is unpickled, what is ambiguous is refused.

Layout: ``[N, H, W, C]`` or ``[N, C, H, W]`` with C of 1, 3 or 4; ``[N, H, W]`` grey. ``[3, H, W]`` could be three grey
pictures or one in colour and is refused, as is ``[N, 3, H, 3]``.
Values: uint8 as it is; uint16 keeps the high byte; bool 0 and 255; other integers must lie in 0..255; floats in
[0, 1], in [-1, 1] or whole numbers of 0..255.
Which arrays of an ``.npz`` are pictures and labels: ``npz.py``; ``classes`` are their names. Labels ``[N, F]`` are
several a picture (``factors.py``), and ``factors`` the names of their columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unilat.fields import FieldError, Fit, Size, spelled
from unilat.signals.collect import even_positions, largest_inside, shape_changed
from unilat.signals.decode import changes, printable, shrink
from unilat.signals.factors import combined
from unilat.signals.levels import levels_told
from unilat.signals.npz import DAMAGED, Archive, Chosen, choose
from unilat.signals.pictures import Pictures, Progress, is_grey, pack, require_memory, with_channels
from unilat.types import UserError


def load_array(
    path: Path,
    *,
    size: Size | None,
    channels: int | None = None,
    fit: Fit = "crop",
    progress: Progress | None = None,
    limit: int | None = None,
) -> Pictures:
    """A ``.npy`` or ``.npz`` file; ``size`` None is a square of its pictures' shorter side."""
    source = printable(str(path))
    found = _unpacked(path, source) if path.suffix == ".npz" else _Found(read_npy(path, source))
    images, labels, held_out, classes, factors = found.images, found.labels, found.held_out, found.classes, None
    if labels is not None and labels.ndim == 2:
        values = [
            [f"{name}={value}" for value in range(1 + most)] for name, most in zip(classes, labels.max(0), strict=True)
        ]
        labels, classes, factors = combined(labels, classes, values)
    _as_nhwc(images, source)
    chosen = np.array(even_positions(len(images), limit, None if held_out is None else held_out.tolist()))
    pixels, converted, shapes = _pixels(images, chosen, size, fit, channels, source, progress, found.called)
    return pack(
        pixels,
        None if labels is None else labels[chosen],
        source,
        classes=classes,
        held_out=None if held_out is None else held_out[chosen],
        converted=converted,
        shapes=shapes,
        notes=found.notes + _levels(images, chosen, pixels),
        factors=factors,
    )


def from_memory(
    images: np.ndarray, source: str, *, size: Size | None, channels: int | None = None, fit: Fit = "crop"
) -> Pictures:
    """Pictures of an array of any layout and values as above, without labels; ``source`` is its name in errors."""
    pixels, converted, shapes = _pixels(images, np.arange(len(images)), size, fit, channels, source, None)
    notes = _levels(images, np.arange(len(images)), pixels)
    return pack(pixels, None, source, converted=converted, shapes=shapes, notes=notes)


def _levels(images: np.ndarray, chosen: np.ndarray, pixels: np.ndarray) -> tuple[str, ...]:
    """What is told of the levels that the chosen ones use, which became ``pixels``."""
    if images.dtype.name != "uint16":
        return levels_told(pixels)
    return levels_told(pixels, len(chosen), max(int(images[index].max()) for index in chosen))


def _pixels(
    images: np.ndarray,
    chosen: np.ndarray,
    size: Size | None,
    fit: Fit,
    channels: int | None,
    source: str,
    progress: Progress | None,
    called: Callable[[int], str] = "picture {}".format,
) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """uint8 ``[n, C, *size]`` of the chosen ones, what was converted, and what became of their shapes."""
    images, layout = _as_nhwc(images, source)
    pixels, converted = _sized(images, chosen, size, fit, source, progress, called)
    shapes = {shape_changed(images.shape[1:3], pixels.shape[2:], fit): len(chosen)}
    if layout:
        converted[layout] = len(chosen)
    if channels is None:
        channels = 1 if pixels.shape[1] == 1 or is_grey(pixels) else 3
    elif channels != pixels.shape[1]:
        converted["colour to grey" if channels == 1 else "grey to colour"] = len(chosen)
    return with_channels(pixels, channels), converted, shapes


def read_npy(path: Path, source: str) -> np.ndarray:
    """A memory map of the array; object arrays (pickles) are refused by numpy itself."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive; name it .npz")
        return array
    except DAMAGED as error:
        raise UserError(f"{source}: not a .npy file of numbers ({printable(str(error), 80)})") from None


@dataclass(frozen=True, eq=False)
class _Found:
    """What a file holds, before a picture is looked at."""

    images: np.ndarray  # [N, ...] in any layout
    labels: np.ndarray | None = None  # int64 [N], or [N, F] of several factors
    held_out: np.ndarray | None = None  # bool [N]
    classes: tuple[str, ...] = ()
    """Names of the classes; of the factors, where there are several labels a picture."""
    called: Callable[[int], str] = "picture {}".format
    """The name of a picture, for errors."""
    notes: tuple[str, ...] = ()


def _unpacked(path: Path, source: str) -> _Found:
    """The pictures of an archive with their labels, the parts of a split one behind the other."""
    archive = Archive(path, source)
    parts = choose(archive)
    stored = [archive.arrays[part.pictures] for part in parts]
    if len({(one.shape[1:], one.dtype) for one in stored}) > 1:
        shown = archive.shown([part.pictures for part in parts])
        raise UserError(f"{source}: {shown}: the parts must have pictures of one shape and type; store them alike")
    counts = [one.shape[0] for one in stored]
    labels = [
        _check_labels(archive.read(part.labels), count, source)
        for part, count in zip(parts, counts, strict=True)
        if part.labels is not None
    ]
    images = [archive.read(part.pictures) for part in parts]
    if len({one.shape[1:] for one in labels}) > 1:
        raise UserError(f"{source}: the parts have other numbers of labels a picture; give each as many")
    given = np.concatenate(labels) if labels else None
    names = "" if given is None else "classes" if given.ndim == 1 else "factors"
    used = {name for part in parts for name in (part.pictures, part.labels)} | {names}
    left = [name for name in archive.arrays if name not in used]
    return _Found(
        images=images[0] if len(images) == 1 else np.concatenate(images),
        labels=given,
        held_out=np.repeat([part.held_out for part in parts], counts) if len(parts) > 1 else None,
        classes=() if given is None else _names(archive, names, given, source),
        called=lambda index: _called(parts, counts, index),
        notes=(f"arrays that are not read: {archive.shown(left)}",) if left else (),
    )


def _called(parts: list[Chosen], counts: list[int], index: int) -> str:
    """``picture 3 of x_test``, counted from 0 in its array."""
    for part, count in zip(parts, counts, strict=True):
        if index < count:
            return f"picture {index} of {printable(part.pictures, 30)}"
        index -= count
    raise IndexError(index)


def _check_labels(labels: np.ndarray, count: int, source: str) -> np.ndarray:
    """Labels as int64 ``[N]``, or ``[N, F]`` of several factors, or the line that says why they are none."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or len(labels) != count or labels.size < count:
        raise UserError(
            f"{source}: {count} pictures but labels of shape {list(labels.shape)}; one label each is needed,"
            " or a row of labels each"
        )
    if labels.dtype.kind not in "iub" and not (labels.dtype.kind == "f" and (labels == np.round(labels)).all()):
        raise UserError(f"{source}: labels must be whole numbers, not {labels.dtype}; number the classes from 0")
    labels = labels.astype(np.int64)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= 100_000:
        raise UserError(f"{source}: labels from {labels.min()} to {labels.max()}; number the classes from 0")
    return labels


def _names(archive: Archive, array: str, labels: np.ndarray, source: str) -> tuple[str, ...]:
    """Names from ``array``: ``classes`` of labels ``[N]``, ``factors`` of columns ``[N, F]``; else numbers from 0."""
    columns = labels.ndim == 2
    count = labels.shape[1] if columns else int(labels.max(initial=0)) + 1
    stored = archive.arrays.get(array)
    if stored is None:
        return tuple(f"label{number}" if columns else str(number) for number in range(count))
    if stored.ndim != 1 or stored.dtype.kind not in "US":
        each = "column of the labels" if columns else "class"
        raise UserError(
            f"{source}: {array!r} is {stored.dtype} {list(stored.shape)}; it must hold one text for each {each}"
        )
    if stored.shape[0] < count or (columns and stored.shape[0] > count):
        wanted = (
            f"{count} labels a picture and {stored.shape[0]}"
            if columns
            else f"label {count - 1} but only {stored.shape[0]}"
        )
        raise UserError(f"{source}: {wanted} names in {array!r}")
    given = archive.read(array)
    try:
        texts = [
            name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
            for name in given.tolist()
        ]
    except (ValueError, SystemError):  # numbers that are no characters
        raise UserError(f"{source}: {array!r} holds what is no text; store names as text") from None
    names = tuple(printable(text) for text in texts)
    if len(set(names)) < len(names):
        raise UserError(f"{source}: two {array} have one name in {array!r}; give each its own")
    return names


def _as_nhwc(images: np.ndarray, source: str) -> tuple[np.ndarray, str]:
    """Any accepted layout -> ``[N, H, W, C]`` as a view, and the name of the conversion (empty for none)."""
    shape = images.shape
    first, last = shape[-3:-2] in ((1,), (3,), (4,)), shape[-1:] in ((1,), (3,), (4,))
    if len(shape) == 3:
        if not first and not last:
            return images[..., None], ""
        raise UserError(
            f"{source}: pictures of shape {list(shape)} could be one in colour or several in grey;"
            " store them as [N, H, W, C]"
        )
    if len(shape) != 4 or first == last:
        raise UserError(
            f"{source}: the layout of shape {list(shape)} cannot be told; store pictures as [N, H, W, C] or"
            " [N, C, H, W] with 1, 3 or 4 channels"
        )
    return (images, "") if last else (images.transpose(0, 2, 3, 1), "channels first")


def _value_map(
    images: np.ndarray, source: str, called: Callable[[int], str] = "picture {}".format
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """How this array's values become bytes, and the name of the conversion; looks at every value once, in parts."""
    kind, name = images.dtype.kind, images.dtype.name
    if name == "uint8":
        return lambda part: part, ""
    if kind == "b":
        return lambda part: part.astype(np.uint8) * np.uint8(255), "1-bit"
    if name == "uint16":
        return lambda part: (part >> 8).astype(np.uint8), "16-bit"
    if kind not in "iuf":
        raise UserError(f"{source}: pictures of type {name}; store them as uint8, or as float in [0, 1]")
    low, high, whole = np.inf, -np.inf, True
    for index in range(len(images)):
        part = images[index]
        if kind == "f" and not np.isfinite(part).all():
            raise UserError(f"{source}: {called(index)} holds NaN or infinity; remove or repair it")
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        whole = whole and (kind != "f" or bool((part == np.round(part)).all()))
    if low >= 0 and high <= 255 and (kind != "f" or (whole and high > 1)):
        return lambda part: part.astype(np.uint8), f"{name} 0..255"
    if kind == "f" and low >= -1e-3 and high <= 1 + 1e-3:
        return lambda part: np.clip(np.round(part * 255.0), 0, 255).astype(np.uint8), "float 0..1"
    if kind == "f" and low >= -1 - 1e-3 and high <= 1 + 1e-3:
        return lambda part: np.clip(np.round((part + 1.0) * 127.5), 0, 255).astype(np.uint8), "float -1..1"
    raise UserError(
        f"{source}: values from {low:.4g} to {high:.4g} ({name}) fit none of [0, 1], [-1, 1] and 0..255; rescale them"
    )


def _sized(
    images: np.ndarray,
    chosen: np.ndarray,
    size: Size | None,
    fit: Fit,
    source: str,
    progress: Progress | None,
    called: Callable[[int], str] = "picture {}".format,
) -> tuple[np.ndarray, dict[str, int]]:
    """``[N, H, W, C]`` of any accepted values -> ``uint8 [n, 1 or 3, *size]`` of the chosen ones."""
    count, height, width, depth = (int(number) for number in images.shape)
    if count == 0 or min(height, width) == 0:
        raise UserError(f"{source}: the array of pictures is empty, shape {list(images.shape)}")
    size = size or (min(height, width), min(height, width))
    if fit != "pad" and (height < size[0] or width < size[1]):
        small = f"its pictures are {height} x {width}, smaller than {size[0]} x {size[1]}"
        raise FieldError(
            f"{source}: {small}; choose data.size {spelled(largest_inside((height, width), size))} or less"
        )
    channels = 1 if depth == 1 else 3
    each = channels * size[0] * size[1]
    require_memory(2 * len(chosen) * each, source, len(chosen), f"{channels} x {size[0]} x {size[1]}")
    to_byte, name = _value_map(images, source, called)
    out = np.empty((len(chosen), channels, *size), np.uint8)
    for row, index in enumerate(chosen):
        pixels = np.ascontiguousarray(to_byte(np.asarray(images[index])))
        picture = Image.fromarray(pixels[..., 0] if depth == 1 else pixels)
        if depth == 4:
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            picture = white.convert("RGB")
        small = np.asarray(shrink(picture, size, fit))
        out[row] = small[None] if depth == 1 else small.transpose(2, 0, 1)
        if progress and row % 1024 == 0:
            progress(row, len(chosen), "reading pictures")
    done = {name, "composited on white" if depth == 4 else "", *changes((height, width), size, fit)}
    return out, {what: len(chosen) for what in done if what}
