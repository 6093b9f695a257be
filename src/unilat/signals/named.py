"""Readers of the catalogue's data sets, one function each: files of a fetched package -> :class:`Pictures`."""

import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from unilat.fields import FieldError, Fit, Size, spelled
from unilat.signals.cache import Arrays, cached_arrays
from unilat.signals.collect import Item, collect
from unilat.signals.decode import shrink
from unilat.signals.pictures import Pictures, Progress, pack
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
VERSION = 2  # of the conversion of files to arrays; a cached array of another version is not used


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


def load_fashion(folder: Path, size: Size) -> Pictures:
    """Fashion-MNIST, 28 x 28 grey; larger sizes by a black border (32: two pixels wide), smaller ones averaged down.

    Its official 10,000 test pictures are marked ``held_out``.
    """
    images = np.concatenate([read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")])
    labels = np.concatenate([read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")])
    if images.shape != (70_000, 28, 28) or labels.shape != (70_000,) or labels.max() > 9:
        raise UserError(f"{folder}: not Fashion-MNIST (70,000 pictures of 28 x 28); fetch the data set again")
    images, converted = around(images[:, None], size)
    held_out = np.arange(70_000) >= 60_000
    return pack(images, labels, "fashion-mnist", classes=FASHION_CLASSES, held_out=held_out, converted=converted)


def around(images: np.ndarray, size: Size) -> tuple[np.ndarray, dict[str, int]]:
    """``uint8 [N, C, s, s]`` -> ``[N, C, *size]``: averaged down to the shorter side if larger, zeros around them."""
    have, side, converted = images.shape[-1], min(images.shape[-1], *size), {}
    if side < have:
        small = [np.asarray(shrink(Image.fromarray(plane), (side, side))) for plane in images.reshape(-1, have, have)]
        images, converted = np.stack(small).reshape(*images.shape[:2], side, side), {"resized": len(images)}
    if size != (side, side):
        edges = [((most - side) // 2, most - side - (most - side) // 2) for most in size]
        images = np.pad(images, ((0, 0), (0, 0), *edges))
        converted[f"padded from {side}"] = len(images)
    return images, converted


def concept(stem: str) -> str:
    """An emoji's code points without skin tones and variation selectors: ``"1f44b-1f3fd" -> "1f44b"``."""
    parts = [part.lstrip("0") for part in re.split("[-_]", stem.lower())]
    plain = "-".join(part for part in parts if part not in SKIN_TONES and part != "fe0f") or stem.lower()
    return SAME_CONCEPT.get(plain, plain)


def concept_groups(stems: list[str], images: np.ndarray) -> list[int]:
    """One number per concept; concepts that share a picture byte for byte (a cat's face, twice) are one."""
    first: dict[str | bytes, int] = {}
    merged: dict[int, int] = {}
    groups: list[int] = []
    for index, (stem, image) in enumerate(zip(stems, images, strict=True)):
        by_name = first.setdefault(concept(stem), index)
        by_look = first.setdefault(image.tobytes(), by_name)
        low, high = sorted([merged.get(by_name, by_name), merged.get(by_look, by_look)])
        if low != high:
            merged = {key: low if value == high else value for key, value in merged.items()} | {high: low}
        groups.append(low)
    return [merged.get(group, group) for group in groups]


def decode_all(files: list[Path], size: Size, fit: Fit, source: str, progress: Progress | None) -> Arrays:
    """``images [N, 1 or 3, *size]`` of files that must all be readable: they belong to a checked package."""
    listed = [Item(path.name, path) for path in files]
    pictures = collect(listed, len(listed), source, size=size, channels=None, fit=fit, progress=progress)
    if pictures.skipped:
        name, reason = pictures.skipped[0]
        if reason.startswith("smaller than"):
            raise FieldError(f"{source}: {reason}; choose a smaller data.size")
        raise UserError(
            f"{source}: {name} is damaged in the cache ({reason}); delete {files[0].parent}, fetch it again"
        )
    counts = sorted(pictures.converted.items())
    return {
        "images": pictures.images.numpy(),
        "converted": np.array([name for name, _ in counts], dtype="U40"),
        "counts": np.array([count for _, count in counts], np.int64),
    }


def _key(folder: Path, size: Size, fit: Fit) -> str:
    """The name under which a set's arrays are kept: all that shapes them."""
    return f"{folder.name}-v{VERSION}-{spelled(size)}" + ("" if fit == "crop" else f"-{fit}")


def _converted(arrays: Arrays) -> dict[str, int]:
    """The counts that :func:`decode_all` put beside the pictures."""
    return dict(zip(arrays["converted"].tolist(), arrays["counts"].tolist(), strict=True))


def load_fluent(folder: Path, size: Size, fit: Fit = "crop", progress: Progress | None = None) -> Pictures:
    """Fluent emoji 3D: 3,391 pictures in colour on white; skin tones of one emoji share a group. No classes."""
    files = sorted((folder / "package" / "assets").glob("*.webp"))
    if not files:
        raise UserError(f"emoji: no pictures in {folder}; delete it and fetch them again: unilat data get emoji")
    stems = [path.stem for path in files]
    key = _key(folder, size, fit)
    arrays = cached_arrays(key, lambda: decode_all(files, size, fit, "emoji", progress))
    images = arrays["images"]
    return pack(
        images, None, "emoji", groups=concept_groups(stems, images), names=tuple(stems), converted=_converted(arrays)
    )


def load_datasource(
    folder: Path, vendor: str, size: Size, fit: Fit = "crop", progress: Progress | None = None
) -> Pictures:
    """Noto (``google``) or Twemoji (``twitter``): classes are Unicode's categories, groups are concepts."""
    source = f"emoji-{vendor}"
    try:
        listed = json.loads((folder / "package" / "emoji.json").read_bytes())
        entries = [(form["image"], emoji["category"]) for emoji in listed for form in _forms(emoji)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: emoji.json cannot be read ({error}); delete {folder}, fetch it again") from None
    pictures_folder = folder / "package" / "img" / vendor / "64"
    entries = sorted({(name, category) for name, category in entries if (pictures_folder / name).is_file()})
    if not entries:
        raise UserError(f"{source}: no pictures in {folder}; delete it and fetch them again: unilat data get {source}")
    files = [pictures_folder / name for name, _ in entries]
    key = _key(folder, size, fit)
    arrays = cached_arrays(key, lambda: decode_all(files, size, fit, source, progress))
    images = arrays["images"]
    classes = tuple(sorted({category for _, category in entries}))
    stems = [Path(name).stem for name, _ in entries]
    return pack(
        images,
        [classes.index(category) for _, category in entries],
        source,
        classes=classes,
        groups=concept_groups(stems, images),
        names=tuple(stems),
        converted=_converted(arrays),
    )


def _forms(emoji: dict) -> list[dict]:
    """An emoji's entry and those of its skin tones."""
    return [emoji, *emoji.get("skin_variations", {}).values()]


def load_solar(folder: Path, size: Size, fit: Fit = "crop", progress: Progress | None = None) -> Pictures:
    """ELPV: photographs of solar cells, grey; a class is the cell's type and how likely it is defective."""
    data = folder / "elpv_dataset" / "data"
    try:
        rows = [line.split() for line in (data / "labels.csv").read_text().splitlines() if line.strip()]
        entries = [(data / name, kind, round(100 * float(odds))) for name, odds, kind in rows]
    except (OSError, ValueError) as error:
        raise UserError(f"solar: labels.csv cannot be read ({error}); delete {folder}, fetch it again") from None
    files = [path for path, _, _ in entries]
    key = _key(folder, size, fit)
    arrays = cached_arrays(key, lambda: decode_all(files, size, fit, "solar", progress))
    images = arrays["images"]
    kinds = sorted({(kind, odds) for _, kind, odds in entries})
    return pack(
        images,
        [kinds.index((kind, odds)) for _, kind, odds in entries],
        "solar",
        classes=tuple(f"{kind}, defect {odds}%" for kind, odds in kinds),
        names=tuple(path.stem for path in files),
        converted=_converted(arrays),
    )


def load_digits(size: Size) -> Pictures:
    """scikit-learn's digits, 8 x 8: ``bytes = round(value 255 / 16)``, light on black; larger by a black border."""
    from sklearn.datasets import load_digits as sklearn_digits

    values, labels = sklearn_digits(return_X_y=True)
    images = np.round(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    images, converted = around(images, size)
    return pack(images, labels, "digits", classes=tuple("0123456789"), converted=converted)
