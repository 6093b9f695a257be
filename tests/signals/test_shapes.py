"""Pictures of any height and width: what is cut out, what is padded, and that both are counted by shape."""

import numpy as np
import pytest
from PIL import Image

from unilat.fields import FieldError, Size, as_size, spelled
from unilat.signals import glyphs, load, look
from unilat.signals.collect import largest_inside
from unilat.signals.decode import Unreadable, changes, decode, shrink
from unilat.types import UserError

from .test_resize import TALL, lanczos
from .zoo import saved


def png(array: np.ndarray) -> bytes:
    return saved(Image.fromarray(array), "PNG")


def pixels(array: np.ndarray, size: Size, fit="crop") -> np.ndarray:
    """The pixels of :func:`decode`, channels last."""
    return decode(png(array), size, fit).pixels.transpose(1, 2, 0)


@pytest.mark.parametrize("value", [(96, 128), [96, 128], "96x128"])
def test_a_size_is_height_and_width(value) -> None:
    """Kills: the axes exchanged, a square that is spelled twice, a text that is taken for a size."""
    assert as_size(value) == (96, 128) and spelled((96, 128)) == "96x128" and spelled((64, 64)) == "64"
    assert as_size(64) == as_size("64") == as_size([64]) == (64, 64)
    for wrong in ("64x", "x64", "6 4", "1x2x3", "-4", "1e3", 1.5, (1, 2, 3), (), (True, 2), None):
        with pytest.raises(UserError, match="64, or 96x128 for height x width, not"):
            as_size(wrong)  # type: ignore[arg-type]


def test_a_whole_factor_of_another_shape_is_the_mean() -> None:
    """75 × 50 to 25 × 10: means of 3 × 3 of the middle 30 columns. Kills: a factor of the other axis, a square cut
    first, a part that lies at the left."""
    means = TALL[:, 10:40].astype(np.float64).reshape(25, 3, 10, 3, 3).mean((1, 3))
    assert np.abs(pixels(TALL, (25, 10)) - means).max() <= 0.6  # Pillow divides by 9 in fixed point
    turned = pixels(TALL.transpose(1, 0, 2), (10, 25))
    np.testing.assert_array_equal(turned.transpose(1, 0, 2), pixels(TALL, (25, 10)))
    np.testing.assert_array_equal(pixels(TALL, (75, 20)), TALL[:, 15:35])


def test_a_broken_factor_of_another_shape_is_lanczos_of_the_centre() -> None:
    """75 × 50 to 16 × 12: the middle 66⅔ rows from row 4 on. Kills: a part rounded to whole pixels, that is pictures
    stretched; another centre."""
    exact = lanczos(TALL.astype(np.float64), 16, 50 * 16 / 12).transpose(1, 0, 2)
    exact = lanczos(exact, 12, 50).transpose(1, 0, 2).clip(0, 255)
    assert np.abs(pixels(TALL, (16, 12)) - exact).max() <= 1.0


def test_a_turned_picture_is_measured_upright() -> None:
    """Stored as 12 × 20, upright 20 × 12. Kills: a picture refused, or taken, for the shape that its file has."""
    exif = Image.Exif()
    exif[0x0112] = 6
    array = np.random.default_rng(5).integers(0, 256, (12, 20, 3), np.uint8)
    data = saved(Image.fromarray(array), "PNG", exif=exif)
    made = decode(data, (20, 12))
    np.testing.assert_array_equal(made.pixels.transpose(1, 2, 0), np.rot90(array, -1))
    assert made.shape == (20, 12) and made.converted == ("exif-turned",)
    with pytest.raises(Unreadable, match=r"^smaller than 12 x 20: 20 x 12$"):
        decode(data, (12, 20))


def test_padding_keeps_the_whole_picture_and_goes_on_with_its_edges() -> None:
    """75 × 50 into 15 × 20: means of 5 × 5 in the middle, five columns left and right of the mean colour of the two
    edges they touch. Kills: a white or black bar, the mean of all edges or of the picture, a picture at one side."""
    made = pixels(TALL, (15, 20), "pad")
    means = TALL.astype(np.float64).reshape(15, 5, 10, 5, 3).mean((1, 3))
    assert np.abs(made[:, 5:15] - means).max() <= 0.6
    colour = np.concatenate([made[:, 5], made[:, 14]]).astype(np.float64).mean(0)
    for bar in (made[:, :5], made[:, 15:]):
        assert (bar == bar[0, 0]).all() and np.abs(bar[0, 0] - colour).max() <= 0.5
    np.testing.assert_array_equal(pixels(TALL.transpose(1, 0, 2), (20, 15), "pad").transpose(1, 0, 2), made)


def test_padding_enlarges_nothing() -> None:
    """4 × 5 grey into 9 × 8: as it is, in the middle, bars of its whole outline's mean. Kills: small pictures enlarged
    or refused, grey made colour."""
    small = np.random.default_rng(6).integers(0, 256, (4, 5), np.uint8)
    made = decode(png(small), (9, 8), "pad")
    np.testing.assert_array_equal(made.pixels[0, 2:6, 1:6], small)
    outline = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    assert made.pixels.shape == (1, 9, 8) and abs(float(made.pixels[0, 0, 0]) - outline.mean()) <= 0.5
    assert made.converted == ("padded",) and pixels(TALL, (40, 50), "pad").shape == (40, 50, 3)
    np.testing.assert_array_equal(np.asarray(shrink(Image.fromarray(small), (4, 5), "pad")), small)


@pytest.mark.parametrize(
    ("shape", "size", "crop", "pad"),
    [
        ((16, 24), (16, 24), [], []),
        ((32, 48), (16, 24), ["resized"], ["resized"]),
        ((16, 30), (16, 24), ["cropped"], ["padded", "resized"]),
        ((40, 48), (16, 24), ["cropped", "resized"], ["padded", "resized"]),
        ((9, 24), (16, 24), None, ["padded"]),
    ],
)
def test_what_is_done_to_a_shape(shape: Size, size: Size, crop: list[str] | None, pad: list[str]) -> None:
    """By hand. Kills: a crop that is counted as a resize, a pad that is none."""
    array = np.zeros((*shape, 3), np.uint8)
    assert list(decode(png(array), size, "pad").converted) == pad == changes(shape, size, "pad")
    if crop is not None:
        assert list(decode(png(array), size).converted) == crop == changes(shape, size)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_files_and_arrays_are_brought_to_size_alike(tmp_path, fit) -> None:
    """Kills: a rule of arrays that is another than that of files; height for width; a fit that does not arrive."""
    (tmp_path / "in").mkdir()
    Image.fromarray(TALL).save(tmp_path / "in" / "a.png")
    np.save(tmp_path / "a.npy", TALL[None])
    one, other = (load(str(tmp_path / name), size=(15, 20), fit=fit) for name in ("in", "a.npy"))
    np.testing.assert_array_equal(one.images.numpy(), other.images.numpy())
    np.testing.assert_array_equal(one.images[0].numpy().transpose(1, 2, 0), pixels(TALL, (15, 20), fit))
    assert one.size == (15, 20) and one.shapes == other.shapes and one.converted == other.converted
    assert list(one.shapes) == [f"75x50 {'padded' if fit == 'pad' else 'cropped'}, resized"]
    assert one.json()["size"] == [15, 20] and one.json()["shapes"] == one.shapes


def test_a_fit_that_nobody_knows_is_refused(tmp_path) -> None:
    """Kills: a word that is taken for a crop."""
    np.save(tmp_path / "a.npy", TALL[None])
    with pytest.raises(UserError, match="crop or pad or random-crop, not 'stretch'"):
        load(str(tmp_path / "a.npy"), size=16, fit="stretch")  # type: ignore[arg-type]


def test_advice_for_pictures_that_are_too_small_fits_them(tmp_path) -> None:
    """The largest is 20 × 40, asked for 48 × 64: 20 × 26 can be cut of it. Kills: advice of another shape, of the
    smallest picture, or that is refused in its turn."""
    for name, shape in (("a", (20, 40)), ("b", (18, 90)), ("c", (9, 9))):
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(FieldError, match=r"smaller than 48 x 64; choose data\.size 20x26 or less$"):
        load(str(tmp_path), size=(48, 64))
    assert len(load(str(tmp_path), size=(20, 26))) == 1
    assert largest_inside((60, 40), (48, 64)) == (30, 40) and largest_inside((60, 80), (48, 64)) == (60, 80)


def test_a_look_tells_the_shapes_and_draws_them(tmp_path) -> None:
    """Kills: shapes counted in the order of files, without what was done to them, a sheet of squares."""
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.new("RGB", (48, 32) if number < 3 else (24, 40), (0, 200, 0)).save(tmp_path / "in" / f"{number}.png")
    seen = look(str(tmp_path / "in"), size="16x24", out=tmp_path / "out" / "sheet.png")
    assert "shapes, height x width: 3 of 32x48 resized; 2 of 40x24 cropped" in seen.lines()
    assert seen.json()["shapes"] == {"32x48 resized": 3, "40x24 cropped": 2}
    assert seen.lines()[0].endswith("5 pictures of 16 x 24, colour")
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        green = (np.asarray(sheet) == (0, 200, 0)).all(-1)
    assert (green.any(1).sum(), green.any(0).sum()) == (64, 5 * 96)
    padded = look(str(tmp_path / "in"), size=(16, 24), fit="pad").lines()
    assert "shapes, height x width: 3 of 32x48 resized; 2 of 40x24 padded, resized" in padded


def test_a_glyph_keeps_its_size_on_a_wider_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 × 24 is 16 × 16 with four white columns on either side. Kills: letters scaled by the longer side, stretched,
    or at one side."""
    monkeypatch.setattr(glyphs, "faces", lambda: (("Sans", "DejaVuSans.ttf"),))
    monkeypatch.setattr(glyphs, "characters", lambda path: list("AgŒĴЖ"))
    square, wide, high = (glyphs.draw_all(size, None)["images"] for size in ((16, 16), (16, 24), (24, 16)))
    np.testing.assert_array_equal(wide[..., 4:20], square)
    np.testing.assert_array_equal(high[:, :, 4:20], square)
    assert (wide[..., :4] == 255).all() and (high[:, :, 20:] == 255).all()
