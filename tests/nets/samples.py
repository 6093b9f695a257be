"""Small networks and signals of 1, 2 and 3 axes, unequal along every axis, and weights without zeros."""

import torch
from torch import Tensor, nn

from unilat.nets.encoder import EncoderConfig
from unilat.nets.kinds import Kind
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig

AXES = (1, 2, 3)
KINDS: tuple[Kind, ...] = ("conv", "vit", "uvit")
GRIDS = {1: (24,), 2: (8, 16), 3: (4, 8, 16)}
"""The signal's grid; every axis has another size, so that swapped axes show."""
COARSE = {1: (6,), 2: (2, 4), 3: (2, 2, 4)}
"""The latent's grid behind :func:`encoder`."""
_PATCH = {1: (2,), 2: (2, 2), 3: (1, 2, 2)}
_STRIDE = {1: (2,), 2: (2, 2), 3: (2, 2, 2)}


def shaken(module: nn.Module, seed: int = 0, scale: float = 0.2) -> nn.Module:
    """Every parameter redrawn: layers that start at zero would hide all that stands before them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def encoder(axes: int, kind: Kind = "conv") -> EncoderConfig:
    """Two levels; 4 samples a latent position along each axis, 2 along time."""
    return EncoderConfig(channels=(16, 20), blocks=(1, 2), strides=(_STRIDE[axes],), patch=_PATCH[axes], kind=kind)


def uvit(axes: int, dropout: float = 0.0, kind: Kind = "uvit") -> UViTConfig:
    """One level of convolutions; its tokens lie on the latent's grid."""
    return UViTConfig(
        channels=(16,),
        blocks=(1,),
        strides=(_STRIDE[axes],),
        patch=_PATCH[axes],
        width=32,
        depth=1,
        head_width=16,
        dropout=dropout,
        kind=kind,
    )


def vit(dropout: float = 0.0) -> ViTConfig:
    """Two levels, one block on each side of the coarse one."""
    return ViTConfig(channels=(16, 32), blocks=(2, 1), head_width=16, dropout=dropout)


def signal(axes: int, channels: int = 3, batch: int = 3, coarse: bool = False, seed: int = 1) -> Tensor:
    """Normal numbers on the grid of so many axes."""
    grid = (COARSE if coarse else GRIDS)[axes]
    return torch.randn(batch, channels, *grid, generator=torch.Generator().manual_seed(seed))
