"""Pictures to latents and back with torch alone: what the autoencoder for diffusers and the nodes of ComfyUI share.

Latents are z_0, what the decoder was trained on: ``z_0 = α(λ₀) z + σ(λ₀) ε`` with z of the encoder. So the posterior of
a picture is normal, with mean ``α z`` and variance ``σ²``, or ``α² v + σ²`` where the encoder learned a variance v.
"""

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, sigma
from unilat.maths.samplers import ddim, uniform_grid
from unilat.maths.seeds import seeded
from unilat.nets.decoder import Decoder, hear
from unilat.nets.denoiser import Denoiser
from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.uvit import UViT, UViTConfig

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What an autoencoder is built of and called with; each field is one of its config.json, where the two that are
    configurations of networks are called ``encoder_config`` and ``decoder_config``."""

    in_channels: int
    """Of the pictures."""
    latent_channels: int
    encoder: dict
    """Fields of an ``EncoderConfig``."""
    decoder: dict
    """Fields of a ``UViTConfig``."""
    decoder_start: str
    """``latent`` or ``data``: the Gaussian whose exact denoiser the untrained decoder is."""
    learned_variance: bool
    lambda_0: float
    """Log-SNR of the latents' noise."""
    lambda_min: float
    """Log-SNR at which a decoder of one call is called."""
    tells_noise: bool
    """Whether the decoder hears λ₀ / 10 as one more channel of the latent."""
    one_call: bool
    """Whether the decoder was trained by a squared error: its answer to an empty picture is the picture."""
    decoder_range: tuple[float, float]
    """Log-SNR of the first and the last call."""
    decoder_temperature: float
    """Standard deviation of the noise that a picture is decoded from."""
    num_inference_steps: int
    """Calls where nobody asks for another number."""
    decoder_grid: tuple[float, ...] | None
    """Log-SNR of each call of a distilled decoder, the clean end left out; None of any other."""


def networks(coding: Coding) -> tuple[Encoder, nn.Module]:
    """Encoder and decoder, not yet filled with weights."""
    encoder = EncoderConfig(**_tuples(coding.encoder))
    decoder = UViTConfig(**_tuples(coding.decoder))
    axes, channels, mean = len(encoder.patch), coding.in_channels, torch.zeros(coding.in_channels)
    heard = coding.latent_channels + coding.tells_noise
    coder = Encoder(encoder, channels, coding.latent_channels, coding.learned_variance)
    if coding.decoder_start == "latent":
        return coder, Decoder(decoder, encoder, channels, heard, mean, mean + 1)
    return coder, Denoiser(UViT(decoder, channels, heard), axes, mean, mean + 1)


def posterior(coding: Coding, encoder: Encoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """``(mean, log-variance)`` of z_0 for pictures in [-1, 1], both ``[B, latent_channels, h, w]``."""
    mean, log_variance = in_full(encoder).posterior(x.float())
    level = torch.tensor(coding.lambda_0)
    variance = sigma(level).square().to(mean.device).expand_as(mean)
    if log_variance is not None:
        variance = alpha(level).square() * log_variance.exp() + variance
    return alpha(level) * mean, variance.log()


def decode(coding: Coding, decoder: nn.Module, z_0: Tensor, x_1: Tensor, steps: int | None = None) -> Tensor:
    """Pictures ``[B, C, H, W]``, about in [-1, 1], of latents and noise ``x_1 ~ N(0, I)`` of the pictures' shape."""
    net, cond = in_full(decoder), z_0.float()
    if coding.tells_noise:
        level = torch.full_like(cond[:, :1], coding.lambda_0 / 10)
        cond = torch.cat([cond, level], dim=1)
    x_1 = x_1.float()
    if coding.one_call:
        return net(torch.zeros_like(x_1), torch.full((len(x_1),), coding.lambda_min, device=x_1.device), cond)
    if coding.decoder_grid is not None:
        grid = torch.tensor([*coding.decoder_grid, torch.inf], dtype=torch.float64)
    else:
        grid = uniform_grid(*coding.decoder_range, steps or coding.num_inference_steps, to_clean=True)
    return ddim(net, coding.decoder_temperature * x_1, grid, generator=(), cond=hear(net, cond))


def check_steps(coding: Coding, steps: int | None) -> None:
    """Raise ``ValueError`` for a number of calls that this decoder cannot take."""
    if steps is not None and steps < 1:
        raise ValueError(f"num_inference_steps must be 1 or more, not {steps}")
    fixed = 1 if coding.one_call else coding.decoder_grid and len(coding.decoder_grid)
    if steps is not None and fixed and steps != fixed:
        raise ValueError(f"this decoder makes a picture in {fixed} call(s), not {steps}: leave num_inference_steps out")


def picture_shape(coding: Coding, z_0: Tensor) -> tuple[int, ...]:
    """``(C, H, W)`` of the pictures of latents ``[B, c, h, w]``."""
    factor = EncoderConfig(**_tuples(coding.encoder)).factor
    return (coding.in_channels, *(side * fold for side, fold in zip(z_0.shape[2:], factor, strict=True)))


def noise(seed: int, purpose: str, count: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, float32 ``[count, *shape]``: row i depends on (seed, purpose, i) alone, as in unilat."""
    makers = [seeded(seed, purpose, index) for index in range(count)]
    return torch.stack([torch.randn(shape, generator=maker) for maker in makers])


def in_full(net: Net) -> Net:
    """The network in float32, in which it computes whatever its weights are kept in: itself, or a copy."""
    kept = all(one.dtype == torch.float32 for one in net.state_dict().values() if one.is_floating_point())
    return net if kept else copy.deepcopy(net).float()


def _tuples(tree: dict) -> dict:
    """Lists, which JSON has, as the tuples that configurations are made of."""

    def plain(value: object) -> object:
        return tuple(plain(one) for one in value) if isinstance(value, list | tuple) else value

    return {name: plain(value) for name, value in tree.items()}
