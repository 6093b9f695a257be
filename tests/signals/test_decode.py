"""Odd files: pixels equal to a reference table, or skipped with the reason. Kills: any changed conversion rule."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from unilat.signals import decode as decode_module
from unilat.signals import load
from unilat.signals.decode import Unreadable, decode, printable
from unilat.signals.index import Entry, described

from .zoo import RGB, SIDE, across, bombs, build, readable, saved, skipped


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return folder, *build(folder)


def test_zoo_is_large():
    """Kills: the tests below passing because their table is empty."""
    assert len(readable()) + len(skipped()) + 8 >= 60


@pytest.mark.parametrize("name", readable())
def test_pixels_equal_the_reference_table(name):
    """Every pixel of every readable file, from numpy alone. Kills: any changed rule of turning, cropping, scaling or
    mixing."""
    data, expected = readable()[name]
    pixels = decode(data, SIDE).pixels
    wanted = np.dstack([expected] * 3) if expected.ndim == 2 and len(pixels) == 3 else expected
    wanted = wanted[None] if wanted.ndim == 2 else wanted.transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("name", [*readable(), *across()])
def test_an_index_knows_each_size_as_it_is_decoded(name):
    """Turned upright, in every format, wherever the file says so. Kills: EXIF of JPEG alone believed, a TIFF turned
    twice, an orientation behind the pixels or in XMP that is not seen, and random crops cut by the wrong sides."""
    data = (across() | {name: data for name, (data, _) in readable().items()})[name]
    entry = described(Entry(), data)
    shape = decode(data, 4).shape
    assert (entry.problem, entry.height, entry.width) == ("", *shape)
    assert name not in across() or shape == (30, 20)


def test_the_pixels_of_a_png_that_says_nothing_of_turning_stay_unread(monkeypatch):
    """Kills: an index of a folder that decodes every picture, as Pillow does to find a block that is not there."""
    data = saved(Image.fromarray(RGB), "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda picture: pytest.fail("the pixels were read"))
    monkeypatch.setattr(PngImageFile, "load", lambda picture: pytest.fail("the pixels were read"))
    entry = described(Entry(), data)
    assert (entry.problem, entry.height, entry.width) == ("", *RGB.shape[:2])


@pytest.mark.parametrize("name", [name for name in skipped() if not name.startswith(".")])
def test_bad_files_are_refused_with_their_reason(name):
    """Kills: a damaged file read as far as it goes, a reason that is another's."""
    data, reason = skipped()[name]
    with pytest.raises(Unreadable) as refused:
        decode(data, SIDE)
    assert str(refused.value).startswith(reason) and "\n" not in str(refused.value)


def test_the_whole_zoo_as_one_folder(zoo):
    """Names, order, pixels and reasons of all at once. Kills: a skipped file that shifts the pictures behind it."""
    folder, expected, reasons = zoo
    pictures = load(str(folder), size=SIDE)
    assert set(pictures.names) == {printable(name) for name in expected}
    assert list(pictures.names) == [printable(name) for name in sorted(expected)]
    for name, image in zip(sorted(expected), pictures.images.numpy(), strict=True):
        pixels = expected[name]
        pixels = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
        np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1), err_msg=name)
    told = dict(pictures.skipped)
    assert set(told) == {printable(name) for name in reasons}
    for name, reason in reasons.items():
        assert told[printable(name)].startswith(reason), (name, told[printable(name)])
    assert not any("\n" in text for pair in pictures.skipped for text in pair)


def test_conversions_are_counted(zoo):
    """Kills: a conversion counted twice, for the wrong files, or not at all."""
    converted = load(str(zoo[0]), size=SIDE).converted
    assert converted["first frame"] == 4 and converted["exif-turned"] == 8 and converted["16-bit"] == 4
    assert converted["palette"] >= 4 and converted["cmyk"] == 1 and converted["1-bit"] == 1 and converted["float"] == 1
    assert converted["composited on white"] == 5 and converted["cropped"] == 3 and converted["resized"] == 1


def test_twice_the_same_bytes(zoo):
    """Kills: an order of threads or folders that reaches the hash."""
    assert load(str(zoo[0]), size=SIDE).sha256 == load(str(zoo[0]), size=SIDE).sha256


BOMB_CHILD = """
import importlib.util, resource, sys, time
from pathlib import Path
from PIL import Image
spec = importlib.util.spec_from_file_location("decode", sys.argv[2])  # alone: the package would import torch first
module = sys.modules["decode"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
decode, Unreadable = module.decode, module.Unreadable
Image.init()
folder = Path(sys.argv[1])
try:
    decode(folder / "warm.png", 16)
except Unreadable:
    pass
for path in sorted(folder.glob("bomb*")):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        decode(path, 16)
        print("READ", path.name)
    except Unreadable:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print("ok" if grown < 64 * 1024 and time.process_time() - start < 1 else "COSTLY", path.name, grown)
"""


def test_bombs_are_refused_on_the_header(tmp_path):
    """Each within 64 MiB and 1 s. Kills: decoding before the cap is checked."""
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "warm.png").write_bytes(saved(Image.new("RGBA", (64, 64)), "PNG"))
    command = [sys.executable, "-c", BOMB_CHILD, str(tmp_path), decode_module.__file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(bombs()) and all(line.startswith("ok") for line in lines), lines


def test_lanczos_for_broken_factors_keeps_flat_colours_and_the_mean():
    """Kills: a resize without antialiasing (nearest keeps single pixels of a checkerboard)."""
    checker = ((np.indices((50, 50)).sum(0) % 2) * 255).astype(np.uint8)
    small = decode(saved(Image.fromarray(checker), "PNG"), 16).pixels
    assert abs(float(small.mean()) - 127.5) < 3 and float(small.std()) < 30
    flat = decode(saved(Image.new("RGB", (37, 53), (9, 99, 199)), "PNG"), 16).pixels
    assert (flat == np.array([9, 99, 199])[:, None, None]).all()


def test_flipped_bits_of_a_png_never_change_pixels_in_silence():
    """Kills: a damaged stream that is decoded as far as it goes."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    whole = saved(Image.fromarray(pixels), "PNG")
    refused = 0
    for position in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        try:
            np.testing.assert_array_equal(decode(bytes(flipped), SIDE).pixels, pixels.transpose(2, 0, 1))
        except Unreadable:
            refused += 1
    assert refused > 0.9 * len(whole) / 5


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_pictures_are_turned_too(kind):
    """Kills: EXIF orientation that is read of PNG and TIFF alone."""
    picture = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = decode(saved(picture, kind, quality=100), SIDE)
    turned = decode(saved(picture, kind, quality=100, exif=exif), SIDE)
    np.testing.assert_array_equal(turned.pixels, np.rot90(plain.pixels, -1, axes=(1, 2)))
    assert turned.converted == ("exif-turned",) and plain.converted == ()


def test_printable_is_one_safe_line():
    """Kills: control characters of a file's name that reach a terminal, a line without an end."""
    assert printable("a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\udcff"
    assert len(printable("x" * 999)) == 120


def test_a_file_is_never_waited_for(tmp_path):
    """Kills: a reader that blocks on a terminal or opens a folder."""
    with pytest.raises(Unreadable, match="not a regular file"):
        decode(Path("/dev/tty") if Path("/dev/tty").exists() else tmp_path, 16)
