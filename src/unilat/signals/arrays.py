"""``.npy`` and ``.npz`` files of pictures -> :class:`Pictures`. Nothing is unpickled, what is ambiguous is refused.

Layout: ``[N, H, W, C]`` or ``[N, C, H, W]`` with C of 1, 3 or 4; ``[N, H, W]`` grey. ``[3, H, W]`` could be three grey
pictures or one in colour and is refused, as is ``[N, 3, H, 3]``.
Values: uint8 as it is; uint16 keeps the high byte; bool 0 and 255; other integers must lie in 0..255; floats in
[0, 1], in [-1, 1] or whole numbers of 0..255.
An ``.npz`` holds the pictures under ``images``, ``x``, ``data`` or as its only array of 3 or 4 axes; labels under
``labels``, ``label``, ``y`` or ``targets``; class names under ``classes``. ``x_train``, ``y_train``, ``x_test``,
``y_test`` are one set with its official split.
"""

import tokenize
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from unilat.fields import FieldError, Fit, Size, spelled
from unilat.signals.collect import even_positions, largest_inside, shape_changed
from unilat.signals.decode import changes, printable, shrink
from unilat.signals.pictures import Pictures, Progress, is_grey, pack, require_memory, with_channels
from unilat.types import UserError

IMAGE_NAMES = ("images", "image", "x", "X", "data", "arr_0")
LABEL_NAMES = ("labels", "label", "y", "Y", "targets")
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    KeyError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
    OverflowError,
)


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
    arrays = read_npz(path, source) if path.suffix == ".npz" else {"images": read_npy(path, source)}
    images, labels, held_out = _find(arrays, source)
    names = _class_names(arrays, labels, source)
    chosen = np.array(even_positions(len(images), limit, None if held_out is None else held_out.tolist()))
    pixels, converted, shapes = _pixels(images, chosen, size, fit, channels, source, progress)
    return pack(
        pixels,
        None if labels is None else labels[chosen],
        source,
        classes=names,
        held_out=None if held_out is None else held_out[chosen],
        converted=converted,
        shapes=shapes,
    )


def from_memory(
    images: np.ndarray, source: str, *, size: Size | None, channels: int | None = None, fit: Fit = "crop"
) -> Pictures:
    """Pictures of an array of any layout and values as above, without labels; ``source`` is its name in errors."""
    pixels, converted, shapes = _pixels(images, np.arange(len(images)), size, fit, channels, source, None)
    return pack(pixels, None, source, converted=converted, shapes=shapes)


def _pixels(
    images: np.ndarray,
    chosen: np.ndarray,
    size: Size | None,
    fit: Fit,
    channels: int | None,
    source: str,
    progress: Progress | None,
) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """uint8 ``[n, C, *size]`` of the chosen ones, what was converted, and what became of their shapes."""
    images, layout = _as_nhwc(images, source)
    pixels, converted = _sized(images, chosen, size, fit, source, progress)
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


def read_npz(path: Path, source: str) -> dict[str, np.ndarray]:
    """All arrays of the archive, after its own directory and the arrays' headers have been believed by neither."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            total = sum(entry.file_size for entry in entries)
            require_memory(2 * total, source, len(entries), "an unpacked array")
            for entry in entries:
                with archive.open(entry) as file:
                    _check_header(file, entry.file_size)
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(f"{source}: not an .npz file of numbers ({printable(str(error), 80)})") from None


def _check_header(file: object, stored: int) -> None:
    """Raise ValueError where an array's header asks for objects or for more bytes than the archive holds."""
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    read: Callable = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > stored:
        raise ValueError("an array's header asks for more bytes than are there")


def _find(arrays: dict[str, np.ndarray], source: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """(pictures, labels or None, held out or None) among the arrays of a file."""
    if "x_train" in arrays and "x_test" in arrays:
        images = np.concatenate([arrays["x_train"], arrays["x_test"]])
        labels = None
        if "y_train" in arrays and "y_test" in arrays:
            labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
        held_out = np.arange(len(images)) >= len(arrays["x_train"])
        return images, _check_labels(labels, len(images), source), held_out
    candidates = [name for name in arrays if arrays[name].ndim in (3, 4)]
    named = [name for name in IMAGE_NAMES if name in candidates]
    if not named and len(candidates) != 1:
        shown = ", ".join(f"{printable(name, 30)} {list(array.shape)}" for name, array in list(arrays.items())[:6])
        raise UserError(f"{source}: which array holds the pictures? It has {shown or 'none'}; name one 'images'")
    images = arrays[(named or candidates)[0]]
    labels = next((arrays[name] for name in LABEL_NAMES if name in arrays), None)
    return images, _check_labels(labels, len(images), source), None


def _check_labels(labels: np.ndarray | None, count: int, source: str) -> np.ndarray | None:
    """Labels as int64 ``[N]``, or the line that says why they are none."""
    if labels is None:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise UserError(
            f"{source}: {count} pictures but labels of shape {list(labels.shape)}; one label each is needed"
        )
    if labels.dtype.kind not in "iub" and not (labels.dtype.kind == "f" and (labels == np.round(labels)).all()):
        raise UserError(f"{source}: labels must be whole numbers, not {labels.dtype}; number the classes from 0")
    labels = labels.astype(np.int64)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= 100_000:
        raise UserError(f"{source}: labels from {labels.min()} to {labels.max()}; number the classes from 0")
    return labels


def _class_names(arrays: dict[str, np.ndarray], labels: np.ndarray | None, source: str) -> tuple[str, ...]:
    """Names from the array ``classes``, else the numbers 0..K-1; none without labels."""
    if labels is None:
        return ()
    count = int(labels.max(initial=0)) + 1
    given = arrays.get("classes")
    if given is None or given.dtype.kind != "U" or given.ndim != 1:
        return tuple(str(number) for number in range(count))
    if len(given) < count:
        raise UserError(f"{source}: label {count - 1} but only {len(given)} names in 'classes'")
    return tuple(printable(str(name)) for name in given)


def _as_nhwc(images: np.ndarray, source: str) -> tuple[np.ndarray, str]:
    """Any accepted layout -> ``[N, H, W, C]`` as a view, and the name of the conversion (empty for none)."""
    shape = images.shape
    first, last = shape[-3] in (1, 3, 4), shape[-1] in (1, 3, 4)
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


def _value_map(images: np.ndarray, source: str) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
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
            raise UserError(f"{source}: picture {index} holds NaN or infinity; remove or repair it")
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
    images: np.ndarray, chosen: np.ndarray, size: Size | None, fit: Fit, source: str, progress: Progress | None
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
    to_byte, name = _value_map(images, source)
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
