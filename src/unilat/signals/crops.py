"""Random crops: a picture is brought down until it only just covers its size, and each epoch cuts out another part."""

import numpy as np

from unilat.fields import Fit, Size
from unilat.maths.seeds import key


def strip_size(shape: Size, size: Size) -> Size:
    """Height and width of a picture of ``shape`` brought down until it only just covers ``size``: from it is cut."""
    high, wide = shape
    if wide * size[0] > high * size[1]:
        return size[0], wide * size[0] // high
    return high * size[1] // wide, size[1]


def cut(strip: np.ndarray, size: Size, place: tuple[float, float]) -> np.ndarray:
    """``size`` out of a strip ``[C, H, W]``; ``place`` in the room there is: ``(down, across)`` in [0, 1)."""
    rooms = (strip.shape[1] - size[0], strip.shape[2] - size[1])
    top, left = (int(share * (room + 1)) for share, room in zip(place, rooms, strict=True))
    return strip[:, top : top + size[0], left : left + size[1]]


def held_out_fit(fit: Fit) -> Fit:
    """How pictures are brought to size that are not trained on: what is random in training is the centre there."""
    return "crop" if fit == "random-crop" else fit


def crop_place(seed: int, epoch: int, index: int) -> tuple[float, float]:
    """Where picture ``index`` is cut in this epoch: ``(down, across)`` in [0, 1), for :func:`cut`."""
    number = key(seed, "crop", epoch, index)
    return (number >> 32) / 2**31, (number & 0x7FFFFFFF) / 2**31


def random_crops(count: int, of: int) -> str:
    """What the user should know of a set of which ``count`` pictures are cut at random."""
    return f"{count:,} of {of:,} pictures leave room for random crops: training sees another part of them each epoch"
