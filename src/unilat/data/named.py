"""Readers of the catalogue's data sets, one function each: files of a fetched package -> :class:`Pictures`."""

import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from unilat.data.cache import Arrays, cached_arrays
from unilat.data.pictures import Pictures, Progress, pack
from unilat.types import UserError

FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SKIN_TONES = {f"1f3f{last}" for last in "bcdef"}
SAME_CONCEPT = {  # a toned pair is spelt out where the plain one has a code point of its own
    "1f469-200d-1f91d-200d-1f468": "1f46b",
    "1f468-200d-1f91d-200d-1f468": "1f46c",
    "1f469-200d-1f91d-200d-1f469": "1f46d",
    "1f9d1-200d-2764-200d-1f9d1": "1f491",
    "1f9d1-200d-2764-200d-1f48b-200d-1f9d1": "1f48f",
    "1faf1-200d-1faf2": "1f91d",
}
EMOJI_VERSION = 1  # of the conversion in emoji_arrays; a cached array of another version is not used


def read_idx(path: Path) -> np.ndarray:
    """A gzipped IDX file of bytes (MNIST's format: 0, 0, 8, dimensions, then each size as big-endian uint32)."""
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4)
            if len(header) < 4 or header[:3] != b"\0\0\x08" or not 1 <= header[3] <= 4:
                raise UserError(f"{path}: not an IDX file of bytes; fetch the data set again")
            shape = struct.unpack(f">{header[3]}I", file.read(4 * header[3]))
            expected = int(np.prod(shape, dtype=object))
            body = file.read(min(expected, 1 << 31) + 1)
    except (OSError, EOFError, struct.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); fetch the data set again") from None
    if len(body) != expected:
        raise UserError(f"{path}: {len(body)} bytes where its header says {expected}; fetch the data set again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def load_fashion(folder: Path, size: int) -> Pictures:
    """Fashion-MNIST, 28 x 28 grey; larger sizes by a black border of equal width (32: two pixels), smaller by the box filter.

    Its official 10,000 test pictures are marked ``held_out``.
    """
    images = np.concatenate([read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")])
    labels = np.concatenate([read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")])
    if images.shape != (70_000, 28, 28) or labels.shape != (70_000,) or labels.max() > 9:
        raise UserError(f"{folder}: not Fashion-MNIST (70,000 pictures of 28 x 28); fetch the data set again")
    images, converted = fit_square(images[:, None], size)
    held_out = np.arange(70_000) >= 60_000
    return pack(images, labels, "fashion-mnist", classes=FASHION_CLASSES, held_out=held_out, converted=converted)


def fit_square(images: np.ndarray, size: int) -> tuple[np.ndarray, dict[str, int]]:
    """``uint8 [N, C, s, s]`` -> ``[N, C, size, size]``: zeros around smaller pictures, the box filter for larger ones."""
    have = images.shape[-1]
    if size == have:
        return images, {}
    if size > have:
        before = (size - have) // 2
        edges = (before, size - have - before)
        return np.pad(images, ((0, 0), (0, 0), edges, edges)), {f"padded from {have}": len(images)}
    small = np.stack(
        [
            np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BOX))
            for plane in images.reshape(-1, have, have)
        ]
    )
    return small.reshape(*images.shape[:2], size, size), {"resized": len(images)}


def on_white(picture: Image.Image, size: int) -> np.ndarray:
    """Any picture -> ``uint8 [3, size, size]``: composited on white, then averaged down (box over a whole factor, else Lanczos)."""
    rgba = picture.convert("RGBA")
    flat = Image.new("RGBA", rgba.size, "white")
    flat.alpha_composite(rgba)
    rgb = flat.convert("RGB")
    if rgb.size != (size, size):
        whole = rgb.width % size == 0 and rgb.height % size == 0
        rgb = rgb.resize((size, size), Image.Resampling.BOX if whole else Image.Resampling.LANCZOS)
    return np.asarray(rgb).transpose(2, 0, 1)


def concept(stem: str) -> str:
    """An emoji's code points without skin tones and variation selectors: ``"1f44b-1f3fd" -> "1f44b"``."""
    parts = [part for part in stem.lower().split("-") if part not in SKIN_TONES and part != "fe0f"]
    plain = "-".join(parts) or stem.lower()
    return SAME_CONCEPT.get(plain, plain)


def emoji_arrays(files: list[Path], size: int, progress: Progress | None) -> Arrays:
    """``images [N, 3, size, size]`` of the files, in their order."""
    images = []
    for index, path in enumerate(files):
        with Image.open(path, formats=("WEBP", "PNG")) as picture:
            images.append(on_white(picture, size))
        if progress and index % 50 == 0:
            progress(index, len(files), "reading emoji")
    return {"images": np.stack(images)}


def load_fluent(folder: Path, key: str, size: int, progress: Progress | None = None) -> Pictures:
    """Fluent emoji 3D: 3,391 pictures in colour on white; skin tones of one emoji share a group. It names no classes."""
    files = sorted((folder / "package" / "assets").glob("*.webp"))
    if not files:
        raise UserError(f"emoji: no pictures in {folder}; delete that folder and fetch it again: unilat data get emoji")
    stems = [path.stem for path in files]
    arrays = cached_arrays(f"{key}-v{EMOJI_VERSION}-{size}", lambda: emoji_arrays(files, size, progress))
    order = {name: number for number, name in enumerate(sorted({concept(stem) for stem in stems}))}
    groups = [order[concept(stem)] for stem in stems]
    converted = {"composited on white": len(files), "resized": len(files)}
    return pack(arrays["images"], None, "emoji", groups=groups, names=tuple(stems), converted=converted)
