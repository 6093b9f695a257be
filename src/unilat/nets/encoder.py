"""The encoder ``z = E(x)``: a ResNet from pixels to the latent grid (UL Sec. 5.1), for 1, 2 or 3 axes.

Or a transformer on patches, or convolutions with a transformer below them: :class:`EncoderConfig`'s ``kind``.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unilat.nets.checks import check_cells, check_levels
from unilat.nets.denoiser import call
from unilat.nets.kinds import Kind, blocks_for, check_kind, places, residual, transformer
from unilat.nets.layers import Stack, Tokens, convolution, merge_patches, normalisation, zero_

START_LOG_VARIANCE = -5.0
"""Of a learned variance at the first step: as much as the fixed noise of λ₀ = 5."""
LOG_VARIANCES = (-30.0, 20.0)
"""Range of a learned log-variance, as in latent diffusion."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """One entry of ``channels`` and ``blocks`` a level; ``strides`` lead from each level to the next."""

    channels: tuple[int, ...] = (32, 64)
    """Channels of each level, finest first."""
    blocks: tuple[int, ...] = (2, 2)
    """Residual blocks of each level."""
    strides: tuple[tuple[int, ...], ...] = ((2, 2),)
    """How many samples each axis folds between two levels; one entry fewer than levels."""
    patch: tuple[int, ...] = (2, 2)
    """Patch folded into channels at the input."""
    kind: Kind = "conv"
    """conv: the levels as they stand. vit: patches of one latent position each, and transformer blocks on them. uvit:
    the levels, whose last gives half of its blocks to a transformer. Depths are what the levels' FLOPs buy."""

    def check(self, name: str) -> None:
        """Raise :class:`~unilat.fields.FieldError` for what cannot be built; ``name`` is the field it stands under."""
        check_kind(name, self.kind)
        check_cells(name, (self.patch, *self.strides))
        check_levels(name, self.channels, self.blocks, len(self.strides), len(self.channels) - 1)

    @property
    def factor(self) -> tuple[int, ...]:
        """How many samples of the signal one latent position covers along each axis."""
        strides = [self.patch, *self.strides[: len(self.channels) - 1]]
        return tuple(math.prod(axis) for axis in zip(*strides, strict=True))

    def built(self) -> tuple["EncoderConfig", int]:
        """The levels that the kind leaves, and its transformer blocks behind them, for the FLOPs that it takes away."""
        axes, width = len(self.patch), self.channels[-1]
        if self.kind == "vit":
            strides = self.strides[: len(self.channels) - 1]
            levels = zip(self.channels, self.blocks, strict=True)
            cost = sum(n * residual(axes, c) * places(strides[at:]) for at, (c, n) in enumerate(levels))
            alone = replace(self, channels=(width,), blocks=(0,), strides=(), patch=self.factor)
            return alone, blocks_for(cost, transformer(width))
        given = (self.blocks[-1] + 1) // 2 if self.kind == "uvit" else 0
        less = replace(self, blocks=(*self.blocks[:-1], self.blocks[-1] - given))
        return less, blocks_for(given * residual(axes, width), transformer(width))


class Encoder(nn.Module):
    """Deterministic: ``x [B, C, *grid] -> z [B, latent_channels, *coarse grid]``.

    Every level ends by folding patches into channels and a 1-wide convolution; the last layer is a plain linear map,
    so that the scale of ``z`` is free and the bits it carries are what the objective makes them. ``precision``: of the
    convolutions; the sum that blocks add to, the last norm and the last layer stay float32. What is rounded in ``z`` is
    noise to the prior, and is paid for: with all in bf16 the bits rose by 0.9 %, so by 0.2 % (LOG.md).
    """

    precision: torch.dtype = torch.float32
    scale: Tensor | None
    """What the latents are multiplied by where the weights are kept as they are; None where these do it."""

    def __init__(
        self,
        config: EncoderConfig,
        channels: int,
        latent_channels: int,
        learned_variance: bool = False,
        kept: bool = False,
    ):
        super().__init__()
        self.register_buffer("scale", torch.ones(()) if kept else None)
        kernel = 1 if config.kind == "vit" else 3
        config, depth = config.built()
        self.config = config
        axes, widths = len(config.patch), config.channels
        folded = channels * math.prod(config.patch)
        self.stem = convolution(axes, folded, widths[0], kernel)
        self.levels = nn.ModuleList(
            Stack(axes, width, count) for width, count in zip(widths, config.blocks, strict=True)
        )
        self.downs = nn.ModuleList(
            convolution(axes, fine * math.prod(stride), coarse, kernel=1)
            for fine, coarse, stride in zip(widths, widths[1:], config.strides, strict=False)
        )
        self.tokens = Tokens(axes, widths[-1], depth) if depth else nn.Identity()
        self.norm = normalisation(widths[-1])
        self.head = convolution(axes, widths[-1], latent_channels, kernel=1)
        self.spread = zero_(convolution(axes, widths[-1], latent_channels, kernel=1)) if learned_variance else None
        if self.spread is not None and self.spread.bias is not None:
            nn.init.constant_(self.spread.bias, START_LOG_VARIANCE)

    def forward(self, x_BCX: Tensor) -> Tensor:
        return self.posterior(x_BCX)[0]

    def posterior(self, x_BCX: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(mean, log-variance or None)`` of z, both ``[B, latent_channels, *coarse grid]``."""
        if self.scale is not None:
            return self.scaled(self.unscaled(x_BCX)), None
        h_BCX = call(self.features, self.precision, x_BCX)
        return self.head(h_BCX), None if self.spread is None else self.spread(h_BCX).clamp(*LOG_VARIANCES)

    def unscaled(self, x_BCX: Tensor) -> Tensor:
        """What never changes where the weights are kept: z without its scale."""
        return self.head(call(self.features, self.precision, x_BCX))

    def scaled(self, own_BCX: Tensor) -> Tensor:
        """z of :meth:`unscaled`."""
        return own_BCX if self.scale is None else own_BCX * self.scale

    def features(self, x_BCX: Tensor) -> Tensor:
        """What the last layer reads: ``[B, channels[-1], *coarse grid]``."""
        h_BCX = self.stem(merge_patches(x_BCX, self.config.patch)).float()
        for index, level in enumerate(self.levels):
            if index:
                h_BCX = self.downs[index - 1](merge_patches(h_BCX, self.config.strides[index - 1])).float()
            h_BCX = level(h_BCX)
        return self.norm(self.tokens(h_BCX))

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Multiply the latents, and the spread around them, by ``scale``."""
        if self.scale is not None:
            self.scale.mul_(scale)
            return
        assert self.head.bias is not None
        self.head.weight.mul_(scale)
        self.head.bias.mul_(scale)
        if self.spread is not None and self.spread.bias is not None:
            self.spread.bias.add_(2 * math.log(scale))
