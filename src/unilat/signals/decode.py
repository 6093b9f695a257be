"""One picture file -> bytes of one size: any mode, any shape, hostile or not.

The rules, in order:

* Only the formats of ``FORMATS`` are tried, whatever the file's name says; the pixel count is capped from the header.
* Of several frames the first is taken. EXIF orientation is applied. Colour profiles and gamma are ignored.
* To 8 bits: of 16 bits the high byte is kept, floats must lie in 0..1, 1-bit becomes 0 and 255.
* Transparency is composited on white; CMYK, YCbCr and HSV become RGB.
* ``crop``: the largest part of the wanted shape is cut out of the centre and averaged down, exact means for whole
  factors, else Lanczos. ``pad``: the whole picture is brought down until it fits, with bars around it in the mean
  colour of the edges they touch: a photograph goes on without a hard edge to be paid for, and what was white stays
  white. Nothing is enlarged.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:  # this file runs alone: a reader in a process of its own needs no torch
    from unilat.fields import Fit, Size

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 1 << 26  # 67 million, 8192 x 8192: from the header, before a pixel is decoded
TOO_LARGE = f"over {MAX_PIXELS >> 20} megapixels"
MAX_BYTES = 1 << 29  # of one file
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ACROSS = [TURNS[orientation] for orientation in (5, 6, 7, 8)]
"""Turns that exchange height and width."""
PNG_MARKS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""What a PNG holds that says how it is turned."""


class Unreadable(Exception):
    """Why a picture is skipped, in a few words."""


@dataclass(frozen=True)
class Decoded:
    """A picture of the wanted size and what was done to it."""

    pixels: np.ndarray  # uint8 [1 or 3, height, width]
    converted: tuple[str, ...]  # names of the conversions, as counted in Pictures.converted
    shape: Size  # (height, width) before it was brought to size, turned upright
    peak: int = 0  # the largest value of a picture of 16 bits, before it was brought to 8; 0 for others


def printable(text: str, longest: int = 120) -> str:
    """One line that a terminal can show: control characters and undecodable bytes are escaped, long text is cut."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in safe)
    return safe if len(safe) <= longest else safe[: longest - 1] + "…"


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; never blocks on a pipe or device. Raises :class:`Unreadable`."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            raise Unreadable("dangling link") from None
        reasons = {errno.ELOOP: "link loop", errno.EACCES: "no permission to read", errno.ENXIO: "not a regular file"}
        raise Unreadable(reasons.get(error.errno or 0, os.strerror(error.errno or 0))) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("a pipe, not a file" if stat.S_ISFIFO(status.st_mode) else "not a regular file")
        if status.st_size == 0:
            raise Unreadable("empty file")
        if status.st_size > MAX_BYTES:
            raise Unreadable(f"file over {MAX_BYTES >> 20} MiB")
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    finally:
        os.close(handle)


def decode(data: Path | bytes, size: Size | int, fit: Fit = "crop") -> Decoded:
    """A picture file (or its bytes) -> ``size``, one number for a square; raises :class:`Unreadable` and nothing else.

    ``fit``: what is done to pictures of another shape.
    """
    size = (size, size) if isinstance(size, int) else size
    if isinstance(data, Path):
        data = read_file(data)
    if not data:
        raise Unreadable("empty file")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Unreadable(f"{TOO_LARGE}: {picture.width} x {picture.height}")
            return _sized(picture, size, fit)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("not a picture (" + ", ".join(FORMATS) + ")") from None
    except Image.DecompressionBombError:
        raise Unreadable(TOO_LARGE) from None
    except MemoryError:
        raise Unreadable("too little memory to decode it") from None
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error, ...
        reason = "truncated" if "truncated" in str(error).lower() else f"damaged: {printable(str(error), 60)}"
        raise Unreadable(reason) from None


def _sized(picture: Image.Image, size: Size, fit: Fit) -> Decoded:
    """An opened picture -> :class:`Decoded`."""
    if fit != "pad" and (min(picture.size) < min(size) or max(picture.size) < max(size)):
        raise Unreadable(_too_small(picture, size))
    converted = []
    if getattr(picture, "is_animated", False):
        converted.append("first frame")
        picture.seek(0)
    wide = any("16" in str(tile[3]) for tile in getattr(picture, "tile", ()))  # 16-bit RGB: Pillow keeps the high byte
    picture.load()  # before getexif, which would hide a damaged PNG; and Pillow turns a TIFF by itself while it loads
    turned = turn(picture)
    flat, mode_change = flatten(picture)
    converted += mode_change
    if wide and "16-bit" not in converted:
        converted.append("16-bit")
    peak = _peak(picture, flat) if "16-bit" in converted else 0
    if turned is not None:
        flat = flat.transpose(turned)
        converted.append("exif-turned")
    if fit != "pad" and (flat.height < size[0] or flat.width < size[1]):  # seen now that it stands upright
        raise Unreadable(_too_small(flat, size))
    pixels = np.asarray(shrink(flat, size, fit))
    converted += changes((flat.height, flat.width), size, fit)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return Decoded(pixels, tuple(converted), (flat.height, flat.width), peak)


def _peak(picture: Image.Image, flat: Image.Image) -> int:
    """The largest value of 16 bits; of colour Pillow has kept the high byte alone."""
    if picture.mode.startswith("I"):
        return int(np.asarray(picture).max())
    return int(np.asarray(flat).max()) << 8 | 255


def _too_small(picture: Image.Image, size: Size) -> str:
    """The reason, read again by ``collect.nothing_left``: height first."""
    wanted = f"{size[0]}" if size[0] == size[1] else f"{size[0]} x {size[1]}"
    return f"smaller than {wanted}: {picture.height} x {picture.width}"


def changes(shape: Size, size: Size, fit: Fit = "crop") -> list[str]:
    """What :func:`shrink` does to a picture of ``shape``, as counted in ``Pictures.converted``."""
    other = shape[0] * size[1] != shape[1] * size[0]
    if fit == "pad":
        inner = _inside(shape, size)
        return ["padded"] * (inner != size) + ["resized"] * (inner != shape)
    return ["cropped"] * other + ["resized"] * (shape[0] != size[0] and shape[1] != size[1])


def upright_size(picture: Image.Image, data: bytes) -> Size:
    """(height, width) of an opened picture as :func:`decode` turns it, its pixels unread where that is possible."""
    if picture.format == "PNG" and any(mark in data for mark in PNG_MARKS):
        picture.load()  # what tells the orientation may stand behind the pixels
    elif picture.format in ("PNG", "TIFF"):  # a TIFF's size is told upright; of a PNG all is read to find nothing
        return picture.height, picture.width
    turned = turn(picture) in ACROSS
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def turn(picture: Image.Image) -> Image.Transpose | None:
    """The turn that the EXIF orientation asks for; None where there is none or the EXIF block is damaged."""
    try:
        return TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block must not lose the picture
        return None


def shrink(picture: Image.Image, size: Size, fit: Fit = "crop") -> Image.Image:
    """A picture as large as ``size`` or larger along both axes (with ``pad`` of any shape) -> ``size``."""
    return _padded(picture, size) if fit == "pad" else centre(picture, size)


def centre(picture: Image.Image, size: Size) -> Image.Image:
    """The largest part of the shape of ``size`` around the centre, averaged down to it: exact means for whole factors,
    else Lanczos, which also sees the pixels next to the part."""
    height, width = size
    if picture.width * height > picture.height * width:
        high, wide = float(picture.height), picture.height * width / height
    else:
        high, wide = picture.width * height / width, float(picture.width)
    top, left = int((picture.height - high) // 2), int((picture.width - wide) // 2)
    part = (left, top, left + wide, top + high)
    if (high, wide) == (height, width):
        return picture.crop((left, top, left + width, top + height))
    if high % height == 0 and wide % width == 0:  # one rounding; resize with BOX rounds once per axis
        return picture.reduce(int(high) // height, box=(left, top, left + int(wide), top + int(high)))
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=part)


def _inside(shape: Size, size: Size) -> Size:
    """Height and width of the whole picture brought down until it fits into ``size``; never enlarged."""
    factor = max(1.0, shape[0] / size[0], shape[1] / size[1])
    high, wide = (min(most, max(1, round(side / factor))) for side, most in zip(shape, size, strict=True))
    return high, wide


def _padded(picture: Image.Image, size: Size) -> Image.Image:
    """The whole picture within ``size``, bars around it in the mean colour of the edges they touch."""
    high, wide = _inside((picture.height, picture.width), size)
    factor = picture.height // high
    if (high, wide) == (picture.height, picture.width):
        small = picture
    elif (factor * high, factor * wide) == (picture.height, picture.width):
        small = picture.reduce(factor)
    else:
        small = picture.resize((wide, high), Image.Resampling.LANCZOS)
    if (high, wide) == size:
        return small
    pixels, edges = np.asarray(small, np.float64), []
    if high < size[0]:
        edges += [pixels[0], pixels[-1]]
    if wide < size[1]:
        edges += [pixels[:, 0], pixels[:, -1]]
    colour = np.concatenate(edges).mean(0).round().astype(int).tolist()
    page = Image.new(small.mode, (size[1], size[0]), tuple(colour) if isinstance(colour, list) else colour)
    page.paste(small, ((size[1] - wide) // 2, (size[0] - high) // 2))
    return page


def flatten(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """Any mode -> 8-bit ``L`` or ``RGB`` without transparency, and the names of what was done."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return _eight_bits(picture)
    if mode == "1":
        return picture.convert("L"), ["1-bit"]
    done = {"P": ["palette"], "PA": ["palette"], "CMYK": ["cmyk"], "YCbCr": ["ycbcr"], "HSV": ["hsv"]}.get(mode, [])
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            done = [*done, "composited on white"]
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB"), done
    if not done and mode not in ("L", "RGB", "RGBX"):
        raise Unreadable(f"pixel mode {mode}")
    return picture if mode == "L" else picture.convert("RGB"), done


def _eight_bits(picture: Image.Image) -> tuple[Image.Image, list[str]]:
    """Integer modes (``I;16`` and kin, ``I``) keep their high byte of 16; ``F`` must lie in 0..1."""
    values = np.asarray(picture)
    if picture.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN included
            raise Unreadable(f"float pixels from {low:.3g} to {high:.3g}, not 0 to 1")
        return Image.fromarray(np.round(values * 255).astype(np.uint8)), ["float"]
    if picture.mode == "I" and (int(values.min()) < 0 or int(values.max()) > 65535):
        raise Unreadable("32-bit pixels beyond 0..65535")
    return Image.fromarray((values.astype(np.int64) >> 8).astype(np.uint8)), ["16-bit"]
