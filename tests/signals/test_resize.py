"""The centre square and its smaller copy, by the equations and not by Pillow."""

import numpy as np
import pytest
from PIL import Image

from unilat.signals import load
from unilat.signals.decode import decode

from .zoo import saved

TALL = np.random.default_rng(2).integers(0, 256, (75, 50, 3), np.uint8)


def lanczos(values: np.ndarray, size: int, side: int) -> np.ndarray:
    """The middle ``side`` rows brought to ``size`` by ``sinc(x) sinc(x / 3)``, stretched by the factor so that it
    averages, normalised; it reaches beyond the middle where there are rows."""
    count, factor = len(values), side / size
    centres = (np.arange(size)[:, None] + 0.5) * factor + (count - side) // 2
    x = (np.arange(count) + 0.5 - centres) / factor
    weight = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
    return np.tensordot(weight / weight.sum(1, keepdims=True), values, 1)


def test_a_broken_factor_is_lanczos_of_the_centre_square() -> None:
    """75 × 50 to 16: the middle 50 rows, not all of them squeezed. Kills: another filter, none, a square at the top."""
    exact = lanczos(TALL.astype(np.float64), 16, 50).transpose(1, 0, 2)
    exact = lanczos(exact, 16, 50).transpose(1, 0, 2).clip(0, 255)
    for array, wanted in ((TALL, exact), (TALL.transpose(1, 0, 2), exact.transpose(1, 0, 2))):
        made = decode(saved(Image.fromarray(array), "PNG"), 16).pixels.transpose(1, 2, 0)
        assert np.abs(made - wanted).max() <= 1.0  # Pillow rounds once an axis


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_a_whole_factor_is_the_mean(tmp_path, kind: str) -> None:
    """75 × 50 to 25: means of 2 × 2 of the middle 50 rows. Kills: single pixels kept, a factor of the longer side, sums
    by axis that are rounded twice; files and arrays by another rule."""
    (tmp_path / "in").mkdir()
    if kind == "png":
        Image.fromarray(TALL).save(tmp_path / "in" / "a.png")
    else:
        np.save(tmp_path / "a.npy", TALL[None])
    pictures = load(str(tmp_path / ("in" if kind == "png" else "a.npy")), size=25)
    means = TALL[12:62].astype(np.float64).reshape(25, 2, 25, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(pictures.images[0].numpy() - means).max() <= 0.5
    assert pictures.converted == {"cropped": 1, "resized": 1}
