"""The diffusion decoder: a denoiser of x that starts as the exact one of a Gaussian drawn from the latent.

A small network, the encoder's mirror image, draws a mean and a standard deviation of every number of x from z_0; the
UViT corrects the exact denoiser of ``N(m, diag s²)``. With ``v = α² s² + σ²``, all per number of x,

    x̂ = m(z_0) + α s² / v · (x_t − α m) + σ s / √v · F( (x_t − α m) / √v, λ + ln s₀², z_0, m, s )

(EDM's preconditioning, arXiv 2206.00364, with moments that depend on the latent.) At the noisiest level x̂ = m: what the
latent says is heard at once, and where it says that nothing is left open (s small), x_t's noise does not come through.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, expand, sigma
from unilat.nets.condition import Condition
from unilat.nets.denoiser import Denoiser, call, per_channel
from unilat.nets.encoder import EncoderConfig
from unilat.nets.layers import Convolution, Stack, Tokens, convolution, normalisation, split_patches, through, zero_
from unilat.nets.uvit import UViT, UViTConfig

START = math.log(0.3)
"""ln of s over the data's standard deviation, before training."""
SPAN = (-6.0, 1.0)
"""Range of the same."""
READING = 8.0
"""How much stronger than usual the latent is read at first: one of few bits has deviations of 0.1 to 0.5."""


class Drawing(nn.Module):
    """``z_0 [B, latent_channels, *coarse] -> [B, 2 C, *grid]``: the encoder's levels the other way round."""

    def __init__(self, config: EncoderConfig, channels: int, latent_channels: int):
        super().__init__()
        kernel = 1 if config.kind == "vit" else 3
        config, depth = config.built()
        axes, widths = len(config.patch), config.channels[::-1]
        self.strides = (*config.strides[: len(widths) - 1][::-1], config.patch)
        self.stem = convolution(axes, latent_channels, widths[0], kernel)
        with torch.no_grad():
            self.stem.weight.mul_(READING)
        self.tokens = Tokens(axes, widths[0], depth) if depth else nn.Identity()
        self.levels = nn.ModuleList(
            Stack(axes, width, count) for width, count in zip(widths, config.blocks[::-1], strict=True)
        )
        self.ups = nn.ModuleList(
            convolution(axes, width, finer * math.prod(stride), kernel)
            for width, finer, stride in zip(widths, (*widths[1:], 2 * channels), self.strides, strict=True)
        )
        zero_(self.ups[-1])
        self.norm = normalisation(widths[-1])

    def forward(self, z_BCX: Tensor) -> Tensor:
        h_BCX = self.tokens(self.stem(z_BCX))
        for index, (level, up) in enumerate(zip(self.levels, self.ups, strict=True)):
            h_BCX = level(h_BCX)
            if index == len(self.levels) - 1:
                h_BCX = self.norm(h_BCX)
            h_BCX = split_patches(up(h_BCX), self.strides[index])
        return h_BCX


@dataclass(frozen=True, eq=False)
class Heard:
    """A latent and what is drawn from it, for several calls on the same latent: :meth:`Decoder.hear`."""

    z_0: Tensor
    """``[B, latent_channels, *coarse]``."""
    drawn: Tensor
    """What mean and deviation of x are made of, ``[B, 2 C, *grid]``."""


class Decoder(nn.Module):
    """``denoise(x_t, logsnr, z_0) -> x_hat``; ``mean`` and ``std`` are those of the data, a number or one a channel.

    ``more``: channels that :meth:`shown` has beside what is drawn.
    """

    mean: Tensor
    std: Tensor
    checkpointing = False
    """Whether what stands around F is computed again in the backward pass."""

    def __init__(
        self,
        config: UViTConfig,
        encoder: EncoderConfig,
        channels: int,
        latent_channels: int,
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
        precision: torch.dtype = torch.float32,
        more: int = 0,
    ):
        super().__init__()
        axes = len(config.patch)
        self.precision = precision
        kind = "vit" if config.kind == "vit" else "conv"
        self.drawing = Drawing(replace(encoder, kind=kind), channels, latent_channels)
        self.net = UViT(config, channels, latent_channels, shown=2 * channels + more)
        self.register_buffer("mean", per_channel(mean, axes))
        self.register_buffer("std", per_channel(std, axes))

    def gaussian(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """``(m, s)``, mean and standard deviation of x, each ``[B, C, *grid]``, of what :class:`Drawing` has drawn."""
        mean, log_std = drawn.chunk(2, dim=1)
        return self.mean + self.std * mean, self.std * (log_std + START).clamp(*SPAN).exp()

    def hear(self, z_0: Tensor) -> Heard:
        """What all calls on these latents share."""
        return Heard(z_0, call(self.drawing, self.precision, z_0))

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: Tensor | Heard) -> Tensor:
        heard = cond if isinstance(cond, Heard) else self.hear(cond)
        centred, start, gain = through(self.around, self.checkpointing, x_t, logsnr, heard.drawn)
        level = logsnr + 2 * (self.std.log().mean() + START)
        seen = torch.cat([centred, self.shown(x_t, logsnr, heard)], dim=1)
        output = call(self.net, self.precision, seen, level, heard.z_0)
        return torch.addcmul(start, gain, output)

    def shown(self, x_t: Tensor, logsnr: Tensor, heard: Heard) -> Tensor:
        """What the network sees beside the centred x_t."""
        return heard.drawn

    def around(self, x_t: Tensor, logsnr: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``((x_t − α m) / √v, m + α s² / v · (x_t − α m), σ s / √v)``: F's input, and ``x̂ = start + gain F``."""
        mean, std = self.gaussian(drawn)
        alpha_t, sigma_t = expand(alpha(logsnr), x_t), expand(sigma(logsnr), x_t)
        scale = torch.rsqrt(alpha_t.square() * std.square() + sigma_t.square())
        centred, share = (x_t - alpha_t * mean) * scale, std * scale
        return centred, torch.addcmul(mean, alpha_t * std * share, centred), sigma_t * share


def hear(denoiser: nn.Module, cond: Tensor | Condition | None) -> Tensor | Heard | Condition | None:
    """The condition for several calls of a denoiser, drawn once where it is a latent's and for a :class:`Decoder`."""
    return denoiser.hear(cond) if isinstance(denoiser, Decoder) and isinstance(cond, Tensor) else cond


def readers(decoder: nn.Module) -> list[Convolution]:
    """The layers that read the latent: what must change when its scale does."""
    net = decoder.net if isinstance(decoder, Decoder | Denoiser) else None
    assert isinstance(net, UViT)
    stems = [decoder.drawing.stem] if isinstance(decoder, Decoder) else []
    return [*stems, *(layer for layer in net.latents if isinstance(layer, Convolution))]
