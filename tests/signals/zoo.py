"""A folder of odd files, each with what must come of it: exact pixels, or the reason it is skipped.

The expected pixels are computed here with numpy from the numbers that were written, never by Pillow's own conversions.
"""

import os
import pickle
import socket
import struct
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIDE = 16
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE]
GREY = ((ROWS * 16 + COLUMNS) % 256).astype(np.uint8)
RGB = np.stack([GREY, (COLUMNS * 13 + 7) % 256, (ROWS * 9 + COLUMNS * 5 + 3) % 256], axis=-1).astype(np.uint8)
FIVES = RGB // 5 * 5  # multiples of 5: mixing with white at 51/255 is then exact
ALPHA = np.choose((ROWS + 2 * COLUMNS) % 4, [0, 51, 102, 255]).astype(np.uint8)
TURNS = {  # EXIF orientation -> how the stored pixels must be turned to stand upright
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """``pixels a + 255 (1 - a)``, exact for the fives above."""
    weight = alpha.astype(np.int64) if pixels.ndim == 2 else alpha.astype(np.int64)[..., None]
    total = pixels.astype(np.int64) * weight + 255 * (255 - weight)
    assert (total % 255 == 0).all()
    return (total // 255).astype(np.uint8)


def png(width: int, height: int, depth: int, colour: int, body: bytes) -> bytes:
    """A PNG file written by hand: modes and sizes that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture file."""
    out = BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def _turned(rgb: Image.Image, wide: np.ndarray) -> dict[str, tuple[bytes, np.ndarray]]:
    """Pictures with an EXIF orientation, and how they must be read."""
    files = {}
    for orientation, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"turned-{orientation}.png"] = (saved(rgb, "PNG", exif=exif), np.ascontiguousarray(turn(RGB)))
        files[f"turned-{orientation}.tif"] = (saved(rgb, "TIFF", exif=exif), np.ascontiguousarray(turn(RGB)))
    exif = Image.Exif()
    exif[0x0112] = 6
    files["turned-wide.png"] = (saved(Image.fromarray(wide), "PNG", exif=exif), np.rot90(wide, -1)[4:20])
    return files


@lru_cache
def across() -> dict[str, bytes]:
    """Pictures of 30 x 20 that lie on their side in the file, and say so in every way that there is."""
    picture = Image.fromarray(np.kron(RGB, np.ones((2, 2, 1), np.uint8))[:20, :30])
    exif = Image.Exif()
    exif[0x0112] = 6
    told = PngInfo()
    told.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    raw, block = PngInfo(), exif.tobytes()
    raw.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    early = saved(picture, "PNG", exif=exif)
    begin = early.index(b"eXIf") - 4
    end = begin + 12 + struct.unpack(">I", early[begin : begin + 4])[0]
    last = early.index(b"IEND") - 4
    return {
        "exif.png": early,
        "exif-behind-the-pixels.png": early[:begin] + early[end:last] + early[begin:end] + early[last:],
        "raw-profile.png": saved(picture, "PNG", pnginfo=raw),
        "xmp.png": saved(picture, "PNG", pnginfo=told),
        "exif.jpg": saved(picture, "JPEG", exif=exif),
        "xmp.jpg": saved(picture, "JPEG", xmp=b'<x tiff:Orientation="6"/>'),
        "exif.webp": saved(picture, "WEBP", exif=exif),
        "exif.tif": saved(picture, "TIFF", exif=exif),
        "two-in-one.jpg": saved(picture, "MPO", exif=exif, save_all=True, append_images=[picture]),
    }


@lru_cache
def readable() -> dict[str, tuple[bytes, np.ndarray]]:
    """File name -> (bytes, expected ``[H, W]`` or ``[H, W, 3]``)."""
    rgb, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    palette = rgb.quantize(64, dither=Image.Dither.NONE)
    indices = np.asarray(palette)
    colours = np.array(palette.getpalette("RGB")).reshape(-1, 3).astype(np.uint8)
    with_hole = np.where((indices == 5)[..., None], 255, colours[indices]).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([FIVES, ALPHA]))
    la = Image.merge("LA", [Image.fromarray(FIVES[..., 0].copy()), Image.fromarray(ALPHA)])
    sixteen = GREY.astype(np.uint16) * 256 + 255 - GREY  # the low byte must not matter
    sixteen_rgb = RGB.astype(">u2") * 256 + 255 - RGB
    rows_rgb16 = b"".join(b"\0" + row.tobytes() for row in sixteen_rgb.astype(">u2"))
    cmyk = np.dstack([255 - RGB, np.zeros_like(GREY)])
    cmyk[:, 8:, 3] = 255  # black plate: those pixels are black
    black_right = RGB.copy()
    black_right[:, 8:] = 0
    wide = np.concatenate(
        [RGB[:, :4] // 2, RGB, RGB[:, :5] // 3], axis=1
    )  # 25 x 16: the centre starts at (25 - 16) // 2
    other = Image.fromarray(255 - RGB)
    float_grey = (np.maximum(GREY - 0.3, 0) / 255).astype(np.float32)  # to be rounded, not cut
    flat = np.full((SIDE, SIDE), 77, np.uint8)
    files = {
        "rgb.png": (saved(rgb, "PNG"), RGB),
        "grey.png": (saved(grey, "PNG"), GREY),
        "grey-in-colour.png": (saved(Image.fromarray(np.dstack([GREY] * 3)), "PNG"), GREY),
        "rgba.png": (saved(rgba, "PNG"), on_white(FIVES, ALPHA)),
        "opaque.png": (saved(Image.fromarray(np.dstack([RGB, np.full_like(GREY, 255)])), "PNG"), RGB),
        "rgba.webp": (saved(rgba, "WEBP", lossless=True, exact=True), on_white(FIVES, ALPHA)),
        "grey-alpha.png": (saved(la, "PNG"), on_white(FIVES[..., 0], ALPHA)),
        "palette.png": (saved(palette, "PNG"), colours[indices]),
        "palette-hole.png": (saved(palette, "PNG", transparency=5), with_hole),
        "palette.gif": (saved(palette, "GIF"), colours[indices]),
        "one-bit.png": (saved(grey.point(lambda v: 255 * (v > 99), "1"), "PNG"), np.where(GREY > 99, 255, 0)),
        "grey-hole.png": (saved(grey, "PNG", transparency=34), np.where(GREY == 34, 255, GREY)),
        "grey16.png": (saved(Image.fromarray(sixteen), "PNG"), GREY),
        "grey16.tif": (saved(Image.fromarray(sixteen), "TIFF"), GREY),
        "grey16.pgm": (b"P5 16 16 65535\n" + sixteen.astype(">u2").tobytes(), GREY),
        "rgb16.png": (png(SIDE, SIDE, 16, 2, rows_rgb16), RGB),
        "float.tif": (saved(Image.fromarray(float_grey), "TIFF"), GREY),
        "cmyk.tif": (saved(Image.fromarray(cmyk, "CMYK"), "TIFF"), black_right),
        "grey.jpg": (saved(Image.fromarray(flat), "JPEG", quality=95), flat),
        "colour.bmp": (saved(rgb, "BMP"), RGB),
        "colour.ppm": (saved(rgb, "PPM"), RGB),
        "colour.tif": (saved(rgb, "TIFF"), RGB),
        "animated.gif": (saved(palette, "GIF", save_all=True, append_images=[other.quantize(64)]), colours[indices]),
        "animated.png": (saved(rgb, "PNG", save_all=True, append_images=[other]), RGB),
        "animated.webp": (saved(rgb, "WEBP", save_all=True, append_images=[other], lossless=True), RGB),
        "pages.tif": (saved(rgb, "TIFF", save_all=True, append_images=[other]), RGB),
        "wide.png": (saved(Image.fromarray(wide), "PNG"), wide[:, 4:20]),
        "tall.png": (saved(Image.fromarray(wide.transpose(1, 0, 2).copy()), "PNG"), wide.transpose(1, 0, 2)[4:20]),
        "four-times.png": (saved(Image.fromarray(np.kron(RGB, np.ones((4, 4, 1), np.uint8))), "PNG"), RGB),
        "named-wrongly.jpg": (saved(rgb, "PNG"), RGB),
        "without-extension": (saved(rgb, "PNG"), RGB),
        "new\nline.png": (saved(rgb, "PNG"), RGB),
        "ünï©ødé 猫.png": (saved(rgb, "PNG"), RGB),
    }
    files |= _turned(rgb, wide)
    return {name: (data, np.asarray(pixels, np.uint8)) for name, (data, pixels) in files.items()}


@lru_cache
def bombs() -> dict[str, bytes]:
    """30,000 x 30,000 pixels in a few bytes, in every format that is read."""
    side = 30_000
    webp = bytearray(
        saved(
            Image.new("RGBA", (64, 64)),
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=[Image.new("RGBA", (64, 64), 9)],
        )
    )
    place = webp.index(b"VP8X") + 12
    webp[place : place + 6] = struct.pack("<I", 16_382)[:3] * 2  # WebP's own largest side
    jpeg = bytearray(saved(Image.new("L", (8, 8)), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", side, side)
    bitmap = bytearray(saved(Image.new("L", (8, 8)), "BMP"))
    bitmap[18:26] = struct.pack("<ii", side, side)
    tiff = saved(Image.new("L", (8, 8)), "TIFF").replace(struct.pack("<HHI", 256, 4, 1), b"")
    entries = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, side**2)]
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + b"\0\0\0\0"
    return {
        "bomb.png": png(side, side, 8, 0, bytes(10_000_000)),
        "bomb-1bit.png": png(side, side, 1, 0, bytes(1_000_000)),
        "bomb.jpg": bytes(jpeg),
        "bomb.gif": b"GIF89a"
        + struct.pack("<HH", side, side)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", side, side)
        + b"\0\2\0;",
        "bomb.bmp": bytes(bitmap),
        "bomb.tif": tiff,
        "bomb.ppm": f"P5 {side} {side} 255\n".encode() + bytes(100),
        "bomb.webp": bytes(webp),
    }


@lru_cache
def skipped() -> dict[str, tuple[bytes, str]]:
    """File name -> (bytes, how the reason must begin)."""
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")
    photo = saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    nan = np.full((SIDE, SIDE), np.nan, np.float32)
    lab = Image.frombytes("LAB", (SIDE, SIDE), bytes(3 * SIDE * SIDE))
    files = {
        "empty.png": (b"", "empty file"),
        "truncated.png": (whole[: len(whole) // 2], "truncated"),
        "truncated.jpg": (photo[: len(photo) // 2], "truncated"),
        "header-only.png": (whole[:33], ""),
        "flipped-bit.png": (bytes(flipped), "damaged"),
        "text.png": (b"this is no picture\n" * 9, "not a picture"),
        "page.jpg": (b"<html><body>404</body></html>", "not a picture"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n", "not a picture"),
        "pickle.png": (pickle.dumps({"a": [1, 2, 3]}), "not a picture"),
        "notes.txt": (b"remember the milk", "not a picture"),
        "1x1.png": (saved(Image.new("L", (1, 1)), "PNG"), "smaller than 16: 1 x 1"),
        "1x500.png": (saved(Image.new("RGB", (1, 500)), "PNG"), "smaller than 16: 500 x 1"),
        "float-wide.tif": (saved(Image.fromarray(nan * 0 + 7), "TIFF"), "float pixels"),
        "float-beyond.tif": (saved(Image.fromarray(np.full((16, 16), 7, np.float32)), "TIFF"), "float pixels from 7"),
        "nan.tif": (saved(Image.fromarray(nan), "TIFF"), "float pixels"),
        "negative.tif": (saved(Image.fromarray(np.full((16, 16), -5, np.int32)), "TIFF"), "32-bit pixels"),
        "lab.tif": (saved(lab, "TIFF"), "pixel mode LAB"),
        ".hidden.png": (whole, "hidden"),
    }
    header = png(9000, 9000, 8, 0, b"")
    files["over-the-cap.png"] = (header, "over 64 megapixels: 9000 x 9000")
    return files | {name: (data, "over 64 megapixels" if "webp" not in name else "") for name, data in bombs().items()}


def build(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Write the whole zoo; returns name -> expected pixels, and name -> how the reason must begin."""
    folder.mkdir(parents=True, exist_ok=True)
    expected, reasons = {}, {}
    for name, (data, pixels) in readable().items():
        (folder / name).write_bytes(data)
        expected[name] = pixels
    for name, (data, reason) in skipped().items():
        (folder / name).write_bytes(data)
        reasons[name] = reason
    (folder / "link.png").symlink_to("rgb.png")
    expected["link.png"] = RGB
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "loop-a.png").symlink_to("loop-b.png")
    (folder / "loop-b.png").symlink_to("loop-a.png")
    (folder / "around").symlink_to(".")
    (folder / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket may be 108 bytes long
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
    bytes_name = os.fsdecode(b"\xff\xfe.png")
    (folder / bytes_name).write_bytes(b"")
    reasons |= {
        "pipe.png": "a pipe",
        "dangling.png": "dangling link",
        "loop-a.png": "link loop",
        "loop-b.png": "link loop",
        "around": "link to a folder",
        "device.png": "not a regular file",
        "socket.png": "not a regular file",
        bytes_name: "empty file",
    }
    return expected, reasons
