"""The UViT of the diffusion decoder (UL Sec. 5.1): convolutions outside, a transformer in the middle, skips across.

Or convolutions alone, or the transformer alone: :class:`UViTConfig`'s ``kind``.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unilat.fields import check_fields
from unilat.nets.checks import check_cells, check_heads, check_levels
from unilat.nets.kinds import Kind, blocks_for, check_kind, places, residual, transformer
from unilat.nets.layers import (
    Embedding,
    Positions,
    Stack,
    Transformer,
    convolution,
    merge_patches,
    normalisation,
    split_patches,
    to_grid,
    zero_,
)


@dataclass(frozen=True, kw_only=True)
class UViTConfig:
    """Convolution levels, finest first, and the transformer below them; ``strides[i]`` leads below level i."""

    channels: tuple[int, ...] = (48,)
    """Channels of each convolution level."""
    blocks: tuple[int, ...] = (2,)
    """Residual blocks of each level, on the way down and again on the way up."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2),)
    """How many samples each axis folds below each level."""
    patch: tuple[int, ...] = (2, 2)
    """Patch folded into channels at the input."""
    width: int = 128
    """Width of the transformer in the middle."""
    depth: int = 4
    """Its blocks."""
    head_width: int = 32
    """Channels of one attention head."""
    dropout: float = 0.0
    """Dropout in the residual and transformer blocks."""
    kind: Kind = "uvit"
    """uvit: as it stands. conv: residual blocks in the place of the transformer. vit: a transformer alone, on patches
    that cover what a place of the last level does. Depths are what the FLOPs of the rest buy."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be built; ``name`` is the field it stands under."""
        check_kind(name, self.kind)
        check_fields(self, name, least={"width": 1, "depth": 0, "head_width": 1}, shares=("dropout",))
        check_cells(name, (self.patch, *self.strides))
        check_levels(name, self.channels, self.blocks, len(self.strides), len(self.channels))
        check_levels(f"{name}.width", (self.width,), (self.depth,))
        check_heads(name, (self.width,), self.head_width)

    def built(self) -> "UViTConfig":
        """The levels that the kind leaves, and the depth of its middle for the FLOPs that it takes away."""
        axes, middle = len(self.patch), self.depth * transformer(self.width)
        if self.kind == "conv":
            return replace(self, depth=blocks_for(middle, residual(axes, self.width)))
        if self.kind == "uvit":
            return self
        *inner, last = self.strides
        levels = enumerate(zip(self.channels, self.blocks, strict=True))
        cost = sum(2 * n * residual(axes, c) * places(self.strides[at:-1]) for at, (c, n) in levels)
        patch = tuple(math.prod(axis) for axis in zip(self.patch, *inner, strict=True))
        depth = blocks_for(cost + middle / math.prod(last), transformer(self.width))
        return replace(self, channels=(), blocks=(), strides=(), patch=patch, depth=depth)


class UViT(nn.Module):
    """``(x_t [B, C + shown, *grid], λ [B], z_0 [B, latent_channels, *coarse]) -> [B, C, *grid]``.

    The latent enters twice: among the transformer's tokens, and laid on the grid of every convolution level. ``shown``:
    channels beside those of x_t that the input has.
    """

    def __init__(self, config: UViTConfig, channels: int, latent_channels: int, shown: int = 0):
        super().__init__()
        config = self.config = config.built()
        axes, widths = len(config.patch), config.channels
        outer, kernel = (widths or (config.width,))[0], 1 if config.kind == "vit" else 3
        embedding = config.width
        folded = channels * math.prod(config.patch)
        below = (*widths, config.width)[1:]
        self.embed = Embedding(embedding)
        self.stem = convolution(axes, (channels + shown) * math.prod(config.patch), outer, kernel)
        self.latents = nn.ModuleList(
            convolution(axes, latent_channels, width, kernel=3) for width in (*widths, config.width)
        )
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        self.downs, self.ups, self.joins = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for width, count, stride, lower in zip(widths, config.blocks, config.strides, below, strict=True):
            self.down_blocks.append(Stack(axes, width, count, embedding, config.dropout))
            self.up_blocks.append(Stack(axes, width, count, embedding, config.dropout))
            self.downs.append(convolution(axes, width * math.prod(stride), lower, kernel=1))
            self.ups.append(convolution(axes, lower, width * math.prod(stride), kernel=1))
            self.joins.append(convolution(axes, 2 * width, width, kernel=1))
        if config.kind == "conv":
            self.middle = Stack(axes, config.width, config.depth, embedding, config.dropout)
        else:
            self.positions = Positions(axes, config.width)
            self.middle = Transformer(config.width, config.depth, embedding, config.head_width, config.dropout)
        self.norm = normalisation(outer)
        self.head = zero_(convolution(axes, outer, folded, kernel))

    def forward(self, x_BCX: Tensor, logsnr: Tensor, z_BCX: Tensor) -> Tensor:
        e_BE = self.embed(logsnr)
        h_BCX, skips = self.stem(merge_patches(x_BCX, self.config.patch)), []
        for index, blocks in enumerate(self.down_blocks):
            h_BCX = h_BCX + to_grid(self.latents[index](z_BCX), h_BCX.shape[2:])
            h_BCX = blocks(h_BCX, e_BE)
            skips.append(h_BCX)
            h_BCX = self.downs[index](merge_patches(h_BCX, self.config.strides[index]))
        if self.config.kind != "conv":
            position_LD = self.positions(tuple(h_BCX.shape[2:]), h_BCX)
            h_BCX = h_BCX + position_LD.T.reshape(1, -1, *h_BCX.shape[2:])
        h_BCX = self.middle(h_BCX + to_grid(self.latents[-1](z_BCX), h_BCX.shape[2:]), e_BE)
        for index in reversed(range(len(skips))):
            h_BCX = split_patches(self.ups[index](h_BCX), self.config.strides[index])
            h_BCX = self.joins[index](torch.cat([h_BCX, skips[index]], dim=1))
            h_BCX = self.up_blocks[index](h_BCX, e_BE)
        return split_patches(self.head(self.norm(h_BCX)), self.config.patch)
