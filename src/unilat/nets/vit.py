"""The ViT of the prior (one level) and of the base model (two levels), UL Sec. 5.1, for 1, 2 or 3 axes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unilat.fields import check_fields
from unilat.nets.checks import check_heads, check_levels
from unilat.nets.condition import Condition
from unilat.nets.layers import (
    Embedding,
    Positions,
    Transformer,
    convolution,
    merge_patches,
    normalisation,
    split_patches,
    zero_,
)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Levels of a ViT, finest first; half of a finer level's blocks stand before the coarser level, half after."""

    channels: tuple[int, ...] = (128,)
    """Width of each level."""
    blocks: tuple[int, ...] = (4,)
    """Transformer blocks of each level."""
    patch: int = 1
    """Latent positions folded into one token along each axis."""
    head_width: int = 32
    """Channels of one attention head."""
    dropout: float = 0.0
    """Dropout in attention and MLP outputs."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be built; ``name`` is the field it stands under."""
        check_fields(self, name, least={"patch": 1, "head_width": 1}, shares=("dropout",))
        check_levels(name, self.channels, self.blocks)
        check_heads(name, self.channels, self.head_width)

    def tokens(self, grid: tuple[int, ...]) -> int:
        """Tokens of the coarsest level on a grid of latents."""
        return math.prod(side // (self.patch * 2 ** (len(self.channels) - 1)) for side in grid)


class ViT(nn.Module):
    """``(z_t [B, C, *grid], λ [B], condition or None) -> [B, C, *grid]``, the raw output behind a denoiser.

    The grid folds ``patch`` positions of each axis at the input and 2 between levels, and must divide by them.
    ``shown``: channels that come behind those of z_t and are no part of the answer. Given
    ``keep_BK``, places of tokens, all others are dropped in the coarsest level, and in no finer one.
    """

    def __init__(
        self,
        config: ViTConfig,
        channels: int,
        axes: int,
        classes: int = 0,
        factors: Tensor | None = None,
        shown: int = 0,
    ):
        super().__init__()
        widths, counts = config.channels, config.blocks
        embedding, self.patch = widths[-1], (config.patch,) * axes
        cell = config.patch**axes
        self.embed = Embedding(embedding, classes, factors)
        self.stem = convolution(axes, (channels + shown) * cell, widths[0], kernel=1)
        self.positions = nn.ModuleList(Positions(axes, width) for width in widths)
        self.before, self.after = nn.ModuleList(), nn.ModuleList()
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for index, (width, count) in enumerate(zip(widths, counts, strict=True)):
            last = index == len(widths) - 1
            first_half = count if last else count - count // 2
            self.before.append(Transformer(width, first_half, embedding, config.head_width, config.dropout))
            if not last:
                self.after.append(Transformer(width, count // 2, embedding, config.head_width, config.dropout))
                self.downs.append(convolution(axes, width * 2**axes, widths[index + 1], kernel=1))
                self.ups.append(convolution(axes, widths[index + 1], width * 2**axes, kernel=1))
        self.norm = normalisation(widths[0])
        self.head = zero_(convolution(axes, widths[0], channels * cell, kernel=1))

    def forward(
        self, z_BCX: Tensor, logsnr: Tensor, cond: Condition | None = None, keep_BK: Tensor | None = None
    ) -> Tensor:
        e_BE = self.embed(logsnr, cond)
        h_BDX, skips = self.stem(merge_patches(z_BCX, self.patch)), []
        fold = (2,) * (z_BCX.dim() - 2)
        for index, level in enumerate(self.before):
            if index:
                skips.append(h_BDX)
                h_BDX = self.downs[index - 1](merge_patches(h_BDX, fold))
            position_LD = self.positions[index](tuple(h_BDX.shape[2:]), h_BDX)
            coarsest = index == len(self.before) - 1
            h_BDX = h_BDX + position_LD.T.reshape(1, -1, *h_BDX.shape[2:])
            h_BDX = level(h_BDX, e_BE, keep_BK if coarsest else None)
        for up, level in zip(reversed(self.ups), reversed(self.after), strict=True):
            h_BDX = level(torch.add(skips.pop(), split_patches(up(h_BDX), fold)), e_BE)
        return split_patches(self.head(self.norm(h_BDX)), self.patch)
