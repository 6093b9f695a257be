"""One picture file -> one square of bytes: any mode, any size, hostile or not.

The rules, in order:

* Only the formats of ``FORMATS`` are tried, whatever the file's name says; the pixel count is capped from the header.
* Of several frames the first is taken. EXIF orientation is applied. Colour profiles and gamma are ignored.
* To 8 bits: of 16 bits the high byte is kept, floats must lie in 0..1, 1-bit becomes 0 and 255.
* Transparency is composited on white; CMYK, YCbCr and HSV become RGB.
* The centre square is cut out and averaged down: exact means for whole factors, else Lanczos. Nothing is enlarged.
"""

import errno
import os
import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

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


class Unreadable(Exception):
    """Why a picture is skipped, in a few words."""


@dataclass(frozen=True)
class Decoded:
    """A square picture and what was done to it."""

    pixels: np.ndarray  # uint8 [1 or 3, size, size]
    converted: tuple[str, ...]  # names of the conversions, as counted in Pictures.converted


def printable(text: str, longest: int = 120) -> str:
    """One line that a terminal can show: control characters and undecodable bytes are escaped, long text is cut."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in safe)
    return safe if len(safe) <= longest else safe[: longest - 1] + "…"


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; never blocks on a pipe or device. Raises :class:`Unreadable`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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


def decode(data: Path | bytes, size: int) -> Decoded:
    """A picture file (or its bytes) -> a square of ``size``; raises :class:`Unreadable` and nothing else."""
    if isinstance(data, Path):
        data = read_file(data)
    if not data:
        raise Unreadable("empty file")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Unreadable(f"{TOO_LARGE}: {picture.width} x {picture.height}")
            return _square(picture, size)
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


def _square(picture: Image.Image, size: int) -> Decoded:
    """An opened picture -> :class:`Decoded`."""
    if min(picture.size) < size:
        raise Unreadable(f"smaller than {size}: {picture.width} x {picture.height}")
    converted = []
    if getattr(picture, "is_animated", False):
        converted.append("first frame")
        picture.seek(0)
    wide = any("16" in str(tile[3]) for tile in getattr(picture, "tile", ()))  # 16-bit RGB: Pillow keeps the high byte
    picture.load()  # before getexif, which would hide a damaged PNG; and Pillow turns a TIFF by itself while it loads
    turn = _turn(picture)
    flat, mode_change = flatten(picture)
    converted += mode_change
    if wide and "16-bit" not in converted:
        converted.append("16-bit")
    if turn is not None:
        flat = flat.transpose(turn)
        converted.append("exif-turned")
    if flat.width != flat.height:
        converted.append("cropped")
    if min(flat.size) != size:
        converted.append("resized")
    pixels = np.asarray(shrink(flat, size))
    return Decoded(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), tuple(converted))


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """The turn that the EXIF orientation asks for; None where there is none or the EXIF block is damaged."""
    try:
        return TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block must not lose the picture
        return None


def shrink(picture: Image.Image, size: int) -> Image.Image:
    """The centre square, averaged down to ``size``: exact means for whole factors, else Lanczos, which also sees the
    pixels next to the square.
    """
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = (left, top, left + side, top + side)
    if side == size:
        return picture.crop(square)
    if side % size == 0:
        return picture.reduce(side // size, box=square)  # one rounding; resize with BOX rounds once per axis
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=square)


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
