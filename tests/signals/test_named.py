"""The named sets: what is drawn here, and, where they are on this machine, those that packages carry."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from unilat.signals import catalogue, glyphs, load, named, split
from unilat.types import UserError


@pytest.fixture(scope="module")
def drawn():
    """Drawn here, not taken from a cache that an older drawing may have filled."""
    return glyphs.assemble(glyphs.draw_all((32, 32), None))


def on_this_machine(name):
    try:
        return catalogue.find(name) is not None
    except UserError:
        return False


def test_glyphs_are_letters_in_twelve_faces(drawn):
    """Kills: a face lost, empty or clipped drawings, combining marks let in, labels that are not the drawing's."""
    assert drawn.images.shape[1:] == (1, 32, 32) and 8_000 < len(drawn) < 11_000
    assert drawn.factors.names == ("character", "face") and len(drawn.factors.values[1]) == 12
    of_each = drawn.factors.table[drawn.labels]
    assert int(torch.bincount(of_each[:, 1]).min()) > 590 and set(drawn.class_counts().values()) == {1}
    for index in (0, 700, 8_000):
        letter, point, *face = drawn.names[index].split()
        values = [of[one] for one, of in zip(of_each[index].tolist(), drawn.factors.values, strict=True)]
        assert values == [letter, " ".join(face)] and point == f"U+{ord(letter):04X}"
    assert (drawn.images.amin(dim=(1, 2, 3)) < 90).all(), "every picture has ink"
    assert (drawn.images[:, :, [0, -1], :] > 230).all() and (drawn.images[:, :, :, [0, -1]] > 230).all(), "margins"
    wanted = {f"{char} U+{ord(char):04X} Serif Bold" for char in "Aaz09ÅΩЖж"}
    assert wanted <= set(drawn.names)


def test_glyphs_are_centred_and_keep_their_relative_size(drawn):
    """Kills: letters at an edge, or each enlarged to fill its picture."""
    ink = (255 - drawn.images[:, 0].float()).numpy()
    rows, columns = ink.max(2) > 12, ink.max(1) > 12
    for axis, most in ((rows, 1.0), (columns, 3.0)):
        first, last = axis.argmax(1), 31 - axis[:, ::-1].argmax(1)
        off = np.abs((first + last) / 2 - 15.5)
        assert off.max() <= most and off.mean() < 0.4
    height = {name: int(row.sum()) for name, row in zip(drawn.names, rows, strict=True)}
    assert height["X U+0058 Sans"] > 1.2 * height["x U+0078 Sans"] and height["X U+0058 Sans"] >= 18


@pytest.mark.parametrize(
    ("face", "file"),
    [("Sans", "Sans"), ("Sans Bold Oblique", "Sans-BoldOblique"), ("Sans Mono", "SansMono"),
     ("Sans Mono Oblique", "SansMono-Oblique"), ("Serif Bold", "Serif-Bold"),
     ("Serif Bold Italic", "Serif-BoldItalic")],
)  # fmt: skip
def test_a_glyph_is_its_face(drawn, face, file):
    """The ink of H and g is that of the face's own mask at 0.88 · 32 · 4 points over 4 × 4.
    Kills: another face under the name, light on dark, another scale."""
    font = ImageFont.truetype(str(glyphs.fonts_folder() / f"DejaVu{file}.ttf"), 113, layout_engine=0)
    for letter in "Hg":
        index = drawn.names.index(f"{letter} U+{ord(letter):04X} {face}")
        ink = 255 - drawn.images[index, 0].numpy().astype(np.float64)
        mask = font.getmask(letter, mode="L")
        assert ink.sum() == pytest.approx(np.asarray(mask).sum() / 16, rel=2e-3)
        assert drawn.classes[drawn.labels[index]] == f"{letter} {face}"


def test_equal_glyphs_share_a_group_and_a_side(drawn):
    """Letters that the first face draws alike are one character; those that only another face does share a group.
    Kills: Latin A and Greek Alpha told apart, italic m in train and Cyrillic te in test."""
    place = {name: index for index, name in enumerate(drawn.names)}
    assert "A U+0041 Sans" in place and not any("U+0391" in name for name in place)
    latin, cyrillic = place["m U+006D Serif Italic"], place["т U+0442 Serif Italic"]
    assert torch.equal(drawn.images[latin], drawn.images[cyrillic]) and drawn.groups[latin] == drawn.groups[cyrillic]
    train, test = split(drawn)
    seen = {drawn.images[i].numpy().tobytes() for i in train.tolist()}
    assert not any(drawn.images[i].numpy().tobytes() in seen for i in test.tolist())
    held, trained = (drawn.factors.table[drawn.labels[side]] for side in (test, train))
    assert len(held[:, 1].unique()) == 12 and len(test) > 700, "of every face"
    assert torch.isin(held[:, 0], trained[:, 0]).all() and len(trained[:, 0].unique()) == len(drawn.factors.values[0])


def test_glyphs_from_the_cache_equal_glyphs_drawn(tmp_path, monkeypatch):
    """Kills: a damaged or unwritable cache that stops the run or changes pixels."""
    monkeypatch.setattr(glyphs, "faces", lambda: (("Sans", "DejaVuSans.ttf"),))
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path))
    first = load("glyphs", size=16)
    files = list((tmp_path / "arrays").iterdir())
    assert len(files) == 1 and files[0].suffix == ".npz"
    assert load("glyphs", size=16).sha256 == first.sha256
    files[0].write_bytes(files[0].read_bytes()[:5000])
    assert load("glyphs", size=16).sha256 == first.sha256
    monkeypatch.setenv("UNILAT_CACHE", "/proc/nowhere")
    assert load("glyphs", size=16).sha256 == first.sha256


def test_channels_and_limit_of_a_named_set(drawn):
    """Kills: --data.channels or --data.at-most that a named set does not hear."""
    colour = load("glyphs", channels=3, limit=100)
    assert colour.images.shape == (100, 3, 32, 32) and colour.converted["grey to colour"] == 100
    assert torch.equal(colour.images[:, :1], drawn.images[:100]) and colour.sha256 != drawn.sha256
    assert torch.equal(colour.factors.table, drawn.factors.table), "the first nine characters in all faces"


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("1f44b-1f3fd", "1f44b"),
        ("1f44b", "1f44b"),
        ("1f44b-1f3ff", "1f44b"),
        ("1f3fb-200d-1f3fc-fe0f-1f44b", "200d-1f44b"),
        ("0039-fe0f-20e3", "39-20e3"),
        ("39-fe0f-20e3", "39-20e3"),
        ("1F9D1-1F3FB-200D-2764-FE0F-200D-1F9D1-1F3FC", "1f491"),
        ("1f3fb", "1f3fb"),
        ("1f3f4-e0067_e0062", "1f3f4-e0067-e0062"),
    ],
)
def test_concepts(stem, expected):
    """Kills: a skin tone or a spelling that makes an emoji of its own."""
    assert named.concept(stem) == expected


def test_concepts_that_look_alike_are_one_group():
    """Kills: merging by look that forgets groups met before."""
    images = np.zeros((5, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0] = [1, 2, 3, 2, 9]
    groups = named.concept_groups(["1f600", "1f601", "1f600-1f3fb", "1f600-1f3fc", "1f603"], images)
    assert groups[0] == groups[1] == groups[2] == groups[3] != groups[4]


def idx(path, array, cut=0):
    data = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data[: len(data) - cut]))
    return path


def test_idx_files(tmp_path):
    """Kills: sizes read in the wrong byte order, a truncated file padded in silence."""
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)
    np.testing.assert_array_equal(named.read_idx(idx(tmp_path / "a.gz", array)), array)
    broken = [idx(tmp_path / "b.gz", array, cut=1), tmp_path / "c.gz", tmp_path / "d.gz", tmp_path / "none.gz"]
    broken[1].write_bytes(b"no gzip")
    broken[2].write_bytes((tmp_path / "a.gz").read_bytes()[:30])
    for path in broken:
        with pytest.raises(UserError, match="fetch the data set again"):
            named.read_idx(path)


def test_around_pads_and_averages():
    """By axis. Kills: a white or one-sided border, pixels picked where means are told, height for width."""
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), np.uint8)
    larger, told = named.around(images, (32, 32))
    np.testing.assert_array_equal(larger[:, :, 2:30, 2:30], images)
    assert larger.sum() == images.sum() and told == {"padded from 28": 2}
    smaller, told = named.around(images, (14, 14))
    assert told == {"resized": 2}
    means = images.reshape(2, 1, 14, 2, 14, 2).mean((3, 5))
    assert np.abs(smaller - means).max() <= 0.5
    both, told = named.around(images, (14, 33))
    np.testing.assert_array_equal(both[..., 9:23], smaller)
    assert both.sum() == smaller.sum() and both.shape == (2, 1, 14, 33)
    assert told == {"resized": 2, "padded from 14": 2}


@pytest.mark.skipif(not on_this_machine("fashion-mnist"), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    """The package's files, where they are installed. Kills: other bytes than those of the first version."""
    pictures = load("fashion-mnist")
    train, test = split(pictures)
    tested = {image.tobytes() for image in pictures.images[60_000:].numpy()}
    unlike = sum(image.tobytes() not in tested for image in pictures.images[:60_000].numpy())
    assert pictures.images.shape == (70_000, 1, 32, 32) and len(train) == unlike > 59_000 and len(test) == 2_000
    assert pictures.classes[int(pictures.labels[0])] == "ankle boot"
    assert pictures.sha256 == "922d83cd0bda2e4e10a19b4f84d2d78bdb2393a33402509eb4a7d2b2e2dd56a5"


@pytest.mark.parametrize(
    ("name", "count", "channels", "classes"),
    [("emoji", 3391, 3, 0), ("emoji-google", 3786, 3, 10), ("emoji-twitter", 3786, 3, 10), ("solar", 2624, 1, 8)],
)
def test_packaged_sets(name, count, channels, classes):
    """The packages' own files, where they are on this machine. Kills: a reader that the small folders of
    test_packages.py suit alone."""
    size = {"solar": 64}.get(name, 32)
    arrays = catalogue.cache_folder() / "arrays"
    if not on_this_machine(name) or not list(arrays.glob(f"{name}-[0-9]*-v{named.VERSION}-{size}.npz")):
        pytest.skip(f"{name} is not in the cache")
    pictures = load(name)
    assert pictures.images.shape == (count, channels, size, size) and len(pictures.classes) == classes
    if name.startswith("emoji"):
        train, test = split(pictures)
        stems = {named.concept(pictures.names[i]) for i in train.tolist()}
        assert not any(named.concept(pictures.names[i]) in stems for i in test.tolist())
        assert int(pictures.groups.unique().numel()) < 0.6 * count


def test_digits():
    """Kills: digits that end at another value than 255, a size that is not heard."""
    pytest.importorskip("sklearn")
    pictures = load("digits")
    assert pictures.images.shape == (1797, 1, 8, 8) and pictures.images.max() == 255
    assert load("digits", size=16).images.shape[-1] == 16


def test_a_letter_too_large_is_shrunk_smoothly() -> None:
    """As the same letter drawn eight times larger and averaged down to the free room. Kills: ink of which rows and
    columns are left out."""
    path, room = str(glyphs.fonts_folder() / "DejaVuSans.ttf"), round(128 * 0.92)
    font, larger = (ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC) for size in (180, 1440))
    left, top, right, bottom = larger.getbbox("Ж")
    ink = Image.new("L", (int(right - left), int(bottom - top)), 255)
    ImageDraw.Draw(ink).text((-left, -top), "Ж", fill=0, font=larger)
    ink = ink.resize((room, round(ink.height * room / ink.width)), Image.Resampling.BOX)
    canvas = Image.new("L", (128, 128), 255)
    canvas.paste(ink, ((128 - ink.width) // 2, (128 - ink.height) // 2))
    drawn = glyphs.draw("Ж", font, (32, 32))
    assert np.abs(drawn.astype(int) - np.asarray(canvas.reduce(4)).astype(int)).max() <= 12
