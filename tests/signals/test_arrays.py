"""Arrays: layouts told apart or refused, value ranges handled one by one, nothing unpickled."""

import os
import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from unilat.signals import load, split
from unilat.types import UserError

CHOOSER = np.random.default_rng(0)
RGB = CHOOSER.integers(0, 256, (5, 12, 10, 3), np.uint8)  # [N, H, W, C], height and width differ
SQUARE = RGB[:, 1:11]  # its centre square


def centre(array):
    """The centre square as a reader gives it."""
    return array[:, 1:11].transpose(0, 3, 1, 2)


def saved(path, array):
    np.save(path, array)
    return str(path)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, SQUARE.transpose(0, 3, 1, 2)),
        (RGB.transpose(0, 3, 1, 2), SQUARE.transpose(0, 3, 1, 2)),
        (RGB[..., :1], SQUARE[..., :1].transpose(0, 3, 1, 2)),
        (RGB[..., 0], SQUARE[..., :1].transpose(0, 3, 1, 2)),
        (np.asfortranarray(RGB), SQUARE.transpose(0, 3, 1, 2)),
        (np.repeat(RGB[..., :1], 3, axis=-1), SQUARE[..., :1].transpose(0, 3, 1, 2)),
    ],
)
def test_layouts(tmp_path, array, expected):
    """Kills: height and width swapped, channels last read as channels first, crop off by one."""
    pictures = load(saved(tmp_path / "a.npy", array))
    np.testing.assert_array_equal(pictures.images.numpy(), expected)


@pytest.mark.parametrize(
    "shape", [(3, 9, 9), (9, 9, 3), (5, 3, 9, 3), (5, 9, 9, 2), (5, 9), (2, 2, 3, 9, 9), (0, 9, 9)]
)
def test_ambiguous_layouts_are_refused(tmp_path, shape):
    """Kills: three grey pictures read as one in colour, or the other way round, without a word."""
    with pytest.raises(UserError) as error:
        load(saved(tmp_path / "a.npy", np.zeros(shape, np.uint8)))
    assert "a.npy" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (RGB.astype(np.int64), "int64 0..255"),
        (RGB.astype(np.float32), "float32 0..255"),
        (RGB.astype(np.uint16) * 256 + 13, "16-bit"),
        ((RGB / 255).astype(np.float32), "float 0..1"),
        ((RGB - 0.2) / 255, "float 0..1"),
        ((RGB - 0.1) / 127.5 - 1, "float -1..1"),
        ((RGB / 127.5 - 1).astype(np.float64), "float -1..1"),
        ((RGB / 127.5 - 1).astype(np.float32), "float -1..1"),
    ],
)
def test_value_ranges(tmp_path, values, name):
    """Kills: [-1, 1] read as [0, 1], a floor where the nearest byte is meant."""
    pictures = load(saved(tmp_path / "a.npy", values))
    np.testing.assert_array_equal(pictures.images.numpy(), SQUARE.transpose(0, 3, 1, 2))
    assert pictures.converted[name] == 5


def test_floats_of_two_values_and_half_transparent_pixels(tmp_path):
    """0.0 and 1.0 are black and white; ``pixel a + 255 (1 - a)`` over white. Kills: ones read as bytes of 1, a black
    ground, alpha that is cut off, whole files of transparency alone."""
    two = (RGB > 99).astype(np.float32)
    pictures = load(saved(tmp_path / "two.npy", two))
    np.testing.assert_array_equal(pictures.images.numpy(), centre(two * 255))
    assert pictures.converted == {"cropped": 5, "float 0..1": 5}
    fives, alpha = RGB // 5 * 5, CHOOSER.choice([0, 51, 102, 255], (*RGB.shape[:3], 1))
    mixed = (fives.astype(int) * alpha + 255 * (255 - alpha)) // 255
    pictures = load(saved(tmp_path / "alpha.npy", np.concatenate([fives, alpha], -1).astype(np.uint8)))
    np.testing.assert_array_equal(pictures.images.numpy(), centre(mixed))
    assert pictures.converted == {"composited on white": 5, "cropped": 5}


def test_channels_that_are_asked_for_are_counted(tmp_path):
    """Kills: colour made grey, or grey made colour, without a word; a conversion told that was none."""
    colour, grey = saved(tmp_path / "a.npy", RGB), saved(tmp_path / "b.npy", RGB.transpose(0, 3, 1, 2)[:, :1])
    assert load(colour, channels=1).converted == {"colour to grey": 5, "cropped": 5}
    assert load(grey, channels=3).converted == {"channels first": 5, "cropped": 5, "grey to colour": 5}
    assert load(colour).converted == load(colour, channels=3).converted == {"cropped": 5}
    assert load(colour, size=5, limit=3).converted == {"cropped": 3, "resized": 3}


def test_bool_and_rgba(tmp_path):
    """True is white; a wholly transparent picture is the white below it. Kills: 1 for 255, a black ground."""
    mask = RGB[..., 0] > 99
    np.testing.assert_array_equal(load(saved(tmp_path / "a.npy", mask)).images[:, 0].numpy(), mask[:, 1:11] * 255)
    clear = np.dstack([RGB[0], np.zeros((12, 10), np.uint8)])[None]
    assert load(saved(tmp_path / "b.npy", clear)).images.unique().tolist() == [255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -7.0, 900.0, 3.5])
def test_values_that_fit_no_range_are_refused(tmp_path, bad):
    """Kills: a value beyond every range that is clipped or scaled in silence."""
    values = (RGB / 255).astype(np.float32)
    values[3, 2, 2, 1] = bad
    with pytest.raises(UserError) as error:
        load(saved(tmp_path / "a.npy", values))
    assert "picture 3" in str(error.value) or "fit none of" in str(error.value)


def test_npz_with_labels_and_names(tmp_path):
    """Names stay in the file's order, labels go with their pictures. Kills: names sorted, labels of the first
    pictures."""
    path = tmp_path / "set.npz"
    np.savez(path, images=RGB, labels=np.array([1, 0, 2, 2, 1]), classes=np.array(["bee", "cat", "ant"]), other=RGB)
    pictures = load(str(path))
    assert pictures.classes == ("bee", "cat", "ant") and pictures.labels.tolist() == [1, 0, 2, 2, 1]
    np.savez(path, arr_0=RGB, y=np.array([[1], [0], [1], [1], [0]]))
    assert load(str(path)).classes == ("0", "1")
    thin = load(str(path), limit=2, size=5)
    assert len(thin) == 2 and thin.labels.tolist() == [1, 1] and thin.size == (5, 5)


def test_keras_names_carry_the_official_split(tmp_path):
    """Training pictures first, test pictures behind, each with its label. Kills: the parts exchanged in pictures,
    labels or marks."""
    path = tmp_path / "mnist.npz"
    grey = RGB[..., 0]
    np.savez(path, x_train=grey, y_train=np.array([0, 1, 2, 0, 1]), x_test=255 - grey[:2], y_test=np.array([2, 2]))
    pictures = load(str(path))
    train, test = split(pictures)
    assert train.tolist() == [0, 1, 2, 3, 4] and test.tolist() == [5, 6]
    np.testing.assert_array_equal(pictures.images[train, 0].numpy(), grey[:, 1:11])
    np.testing.assert_array_equal(pictures.images[test, 0].numpy(), 255 - grey[:2, 1:11])
    assert pictures.labels.tolist() == [0, 1, 2, 0, 1, 2, 2]


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": RGB, "b": RGB},
        {"labels": np.arange(5)},
        {"images": RGB, "labels": np.arange(4)},
        {"images": RGB, "labels": np.array([0.5, 1, 1, 1, 1])},
        {"images": RGB, "labels": np.array([-1, 0, 0, 0, 0])},
        {"images": RGB, "labels": np.arange(5), "classes": np.array(["a", "b"])},
    ],
)
def test_npz_that_says_too_little_is_refused(tmp_path, arrays):
    """Kills: a guess at which array holds the pictures, labels of another count, class names too few."""
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"set\.npz"):
        load(str(path))


class Canary:
    def __reduce__(self):
        return os.mkdir, (os.environ["CANARY"],)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    """Kills: allow_pickle=True anywhere. The payload would make a folder."""
    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Canary()))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Canary()))
    objects = np.empty(1, object)
    objects[0] = Canary()
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "objects.npz", images=RGB, labels=objects)
    np.savez(tmp_path / "images.npz", images=objects)
    canary.rmdir() if canary.exists() else None
    for name in ("plain.npy", "plain.npz", "objects.npy", "objects.npz", "images.npz"):
        with pytest.raises(UserError, match=name):
            load(str(tmp_path / name))
    assert not canary.exists()


def test_damaged_and_lying_files(tmp_path):
    """Kills: memory taken because a header asks for it."""
    header = BytesIO()
    asked = {"descr": "|u1", "fortran_order": False, "shape": (999_999, 999, 999, 3)}
    np.lib.format.write_array_header_1_0(header, asked)
    lying = header.getvalue() + RGB.tobytes()
    with zipfile.ZipFile(tmp_path / "lying.npz", "w") as archive:
        archive.writestr("images.npy", lying)
    data = (Path(saved(tmp_path / "whole.npy", RGB))).read_bytes()
    with pytest.raises(UserError, match="asks for more bytes than are there"):
        load(str(tmp_path / "lying.npz"))
    np.savez(tmp_path / "ok.npz", images=RGB)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "ok.npz").read_bytes()[:900])
    flipped = bytearray((tmp_path / "ok.npz").read_bytes())
    flipped[700] ^= 1
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    (tmp_path / "cut.npy").write_bytes(data[:400])
    (tmp_path / "lying.npy").write_bytes(lying)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "zip.npy").write_bytes((tmp_path / "ok.npz").read_bytes())
    for name in ("lying.npz", "cut.npz", "flipped.npz", "cut.npy", "lying.npy", "empty.npy", "zip.npy"):
        with pytest.raises(UserError, match=name):
            load(str(tmp_path / name))


def test_smaller_than_wanted_names_the_way_out(tmp_path):
    """Kills: pictures that are enlarged, or advice that is the longer side."""
    with pytest.raises(UserError, match=r"data\.size 10 or less"):
        load(saved(tmp_path / "a.npy", RGB), size=32)


def test_of_several_arrays_of_pictures_the_likeliest_name_wins(tmp_path) -> None:
    """Whatever their order in the file. Kills: the first array that has any of the names, data beside images."""
    for order in (("data", "x", "images"), ("images", "x", "data")):
        arrays = {name: RGB if name == "images" else 255 - RGB for name in order}
        np.savez(tmp_path / "several.npz", allow_pickle=False, **arrays)
        assert np.array_equal(load(str(tmp_path / "several.npz")).images.numpy(), centre(RGB))
