"""What an image is: its shape, unit, range, measures, and its PNG."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from unilat.metrics import quality
from unilat.signals.kind import Image, kind_of


def test_an_image_knows_its_shape_and_unit():
    """Kills: height for width, channels counted as pixels."""
    kind = Image(height=48, width=80, channels=3)
    assert kind.shape == (3, 48, 80) and kind.units == 3840 and (kind.name, kind.unit) == ("image", "pixel")
    assert kind.dtype == torch.uint8 and all(callable(getattr(quality, name)) for name in kind.quality)
    for wrong in ({"height": 0}, {"width": -1}, {"channels": 2}):
        with pytest.raises(ValueError, match="1 or 3 channels"):
            Image(**{"height": 8, "width": 8, "channels": 1} | wrong)


def test_every_byte_comes_back():
    """``to_unit`` reaches −1 and 1 and is undone by ``from_unit``, which clamps. Kills: another range, a cut."""
    kind = Image(height=1, width=256, channels=1)
    rows = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 256)
    x = kind.to_unit(rows)
    assert float(x.min()) == -1.0 and float(x.max()) == 1.0 and torch.equal(kind.from_unit(x), rows)
    assert kind.from_unit(torch.tensor([-math.inf, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_is_the_picture(channels: int):
    """Kills: axes in another order, grey written as colour."""
    made = np.random.default_rng(1).integers(0, 256, (channels, 5, 9), np.uint8)
    with Pillow.open(io.BytesIO(Image.png(torch.from_numpy(made)))) as picture:
        assert picture.format == "PNG" and picture.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(picture).reshape(5, 9, channels), made.transpose(1, 2, 0))
    for wrong in (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="a PNG is made of"):
            Image.png(wrong)


def test_rows_tell_their_kind():
    """Kills: axes of a shape taken in another order, rows of floats or of two channels taken for pictures."""
    rows = torch.zeros(2, 3, 5, 9, dtype=torch.uint8)
    assert kind_of(rows.shape) == Image(height=5, width=9, channels=3) and Image.are_rows(rows)
    for wrong in (rows[0], rows[:0], rows[:, :2], rows.float(), rows.numpy(), None):
        assert not Image.are_rows(wrong)


def test_a_png_says_what_wrote_it():
    """Kills: a name in another field, or in every PNG."""
    rows = torch.zeros(1, 2, 2, dtype=torch.uint8)
    for software, said in (("unilat", {"Software": "unilat"}), ("", {})):
        with Pillow.open(io.BytesIO(Image.png(rows, software))) as picture:
            assert picture.info == said
