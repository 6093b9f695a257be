"""Pictures through a feature network, some at a time."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from unilat.types import UserError

PARTS = 25
"""Pictures through a network at once on a CPU; ten times as many on a GPU."""


def _three_channels(pictures: Tensor) -> Tensor:
    """uint8 ``[B, 1 or 3, H, W]`` to ``[B, 3, H, W]``; grey is repeated."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] not in (1, 3):
        raise UserError(
            f"features are of uint8 pictures with 1 or 3 channels, not of {pictures.dtype} {tuple(pictures.shape)}"
        )
    return pictures.expand(-1, 3, -1, -1)


def in_parts(network: Callable[[Tensor], Tensor], pictures: Tensor, device: torch.device) -> Tensor:
    """``network`` on ``device`` over some pictures at a time, without gradients or rounding; float32 ``[B, D]`` on the
    CPU."""
    parts = PARTS if device.type == "cpu" else 10 * PARTS
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), contextlib.nullcontext() if device.type == "cpu" else exact:
        rows = [network(part.to(device)).cpu() for part in _three_channels(pictures).split(parts)]
    return torch.cat(rows).float().clone()
