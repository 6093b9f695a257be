"""Pictures as small PNG contact sheets inside the page, pixel by pixel; the browser enlarges them without smoothing."""

import base64
import math

import torch
from torch import Tensor

from unilat.report.text import esc
from unilat.signals.kind import Image

HEAT = ((13, 12, 40), (66, 24, 110), (141, 41, 112), (210, 72, 80), (246, 139, 58), (252, 220, 130))
"""Colours from no bits to most bits; their brightness rises evenly, so they read without hue too."""


def sheet(pictures: Tensor, columns: int, gap: int | None = None) -> Tensor:
    """uint8 ``[N, C, H, W]`` side by side as ``[rows·H + gaps, columns·W + gaps, 4]`` with see-through gaps."""
    count, channels, height, width = pictures.shape
    gap = max(1, width // 32) if gap is None else gap
    rows = math.ceil(count / columns)
    page = torch.zeros(rows * (height + gap) - gap, columns * (width + gap) - gap, 4, dtype=torch.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        area = page[top : top + height, left : left + width]
        area[..., :3] = picture.expand(3, -1, -1).permute(1, 2, 0) if channels == 1 else picture.permute(1, 2, 0)
        area[..., 3] = 255
    return page


def framed(pictures: Tensor, columns: int, marked: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """:func:`sheet` with a frame of ``colour`` around the pictures that ``marked``, bool ``[N]``, names."""
    height, width = pictures.shape[2:]
    gap = max(4, width // 8)
    page = torch.nn.functional.pad(sheet(pictures, columns, gap), (0, 0, gap, gap, gap, gap))
    line, frame = gap // 2, torch.tensor([*colour, 255], dtype=torch.uint8)
    for index in marked.nonzero().flatten().tolist():
        top, left = (index // columns) * (height + gap) + gap, (index % columns) * (width + gap) + gap
        inside = page[top : top + height, left : left + width].clone()
        page[top - line : top + height + line, left - line : left + width + line] = frame
        page[top : top + height, left : left + width] = inside
    return page


def heat(share: Tensor) -> Tensor:
    """Values in [0, 1] of any shape to colours uint8 ``[..., 3]``, linear between the colours of ``HEAT``."""
    colours = torch.tensor(HEAT, dtype=torch.float32)
    place = share.float().nan_to_num(0.0).clamp(0.0, 1.0) * (len(HEAT) - 1)
    below = place.floor().long().clamp(max=len(HEAT) - 2)
    mix = (place - below)[..., None]
    return (colours[below] * (1 - mix) + colours[below + 1] * mix).round().to(torch.uint8)


def laid_over(pictures: Tensor, maps: Tensor, top: float) -> Tensor:
    """Bits ``[N, h, w]`` as colour over uint8 ``[N, C, H, W]``: ``[N, 3, H, W]``; dark places dim the colour."""
    grey = pictures.float().mean(1)
    size = grey.shape[1:]
    enlarged = torch.nn.functional.interpolate(maps.float()[:, None], size=size, mode="nearest-exact")[:, 0]
    colour = heat(enlarged / top if top > 0 else enlarged * 0).float().permute(0, 3, 1, 2)
    light = grey[:, None] / 255.0
    return (colour * (0.45 + 0.55 * light) + 36.0 * light).round().clamp(0, 255).to(torch.uint8)


def shrunk(pictures: Tensor, most: int = 128) -> Tensor:
    """Pictures wider than ``most`` brought down by whole factors (means of blocks), so that the page stays small."""
    factor = math.ceil(max(pictures.shape[2:]) / most)
    if factor == 1:
        return pictures
    return torch.nn.functional.avg_pool2d(pictures.float(), factor, ceil_mode=True).round().to(torch.uint8)


def png(page: Tensor, alt: str, style: str = "") -> str:
    """uint8 ``[H, W, 3 or 4]`` as an ``<img>`` with its PNG inside."""
    text = base64.b64encode(Image.png(page.permute(2, 0, 1))).decode()
    height, width = page.shape[:2]
    shape = f' style="{esc(style)}"' if style else ""
    return f'<img src="data:image/png;base64,{text}" width="{width}" height="{height}" alt="{esc(alt)}"{shape}>'
