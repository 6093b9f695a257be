"""Stage 1: an encoder, a diffusion prior and a diffusion decoder trained together (UL Sec. 3, Alg. 1).

::

      x ──► encoder ──► z ──┬──► α₀ z + σ₀ ε = z_0 ──────────────► decoder(x_t, λ, z_0) ──► x̂     L, weighted
                            │      fixed noise λ₀                       ▲
                            │                                          x_t = α x + σ ε,  λ ∈ [λ_min, λ_max]
                            └──► z_t = α z + σ ε,  λ ∈ [λ_min, λ₀] ──► prior(z_t, λ) ──► ẑ        R, weight 1

    minimise  R(x) + c_lf · L(x | z_0)            both in nats per example

The encoder's noise is the prior's lowest noise, so R is an upper bound in nats on what z_0 carries of x.
"""

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unilat.maths.denoising import denoising_loss
from unilat.maths.levels import Draws, Table, rate_table
from unilat.maths.noise import diffuse
from unilat.maths.rate import RateTerms, rate_terms
from unilat.maths.samplers import ddim, uniform_grid
from unilat.maths.weighting import sigmoid_weight
from unilat.nets.denoiser import Denoiser
from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.uvit import UViT, UViTConfig
from unilat.nets.vit import ViT, ViTConfig


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """What stage 1 is made of."""

    latent_channels: int = 8
    """Channels of the latent."""
    lambda_0: float = 5.0
    """Log-SNR of the encoder's fixed noise, the prior's lowest (UL: 5)."""
    lambda_min: float = -10.0
    """Log-SNR of the prior's and the decoder's highest noise."""
    lambda_max: float = 10.0
    """Log-SNR of the decoder's lowest noise."""
    bias: float = 0.0
    """b of the decoder's weight sigmoid(b − λ): below it the decoder is asked for all, above it for less and less."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoder."""
    prior: ViTConfig = field(default_factory=ViTConfig)
    """The diffusion prior, trained with the encoder."""
    decoder: UViTConfig = field(default_factory=UViTConfig)
    """The diffusion decoder."""


@dataclass(frozen=True)
class Stage1Losses:
    """Of one batch: ``rate`` per dimension in nats, ``decoder`` = L(x | z_0) in nats ``[B]``, without c_lf."""

    rate: RateTerms
    decoder: Tensor

    def total(self, loss_factor: float) -> Tensor:
        """``(R + c_lf L) / max(1, c_lf)``, ``[B]`` in nats: one common constant keeps the step sane at large c_lf."""
        return (self.rate.nats() + loss_factor * self.decoder) / max(1.0, loss_factor)


class Autoencoder(nn.Module):
    """Encoder, prior and decoder; ``x`` is ``[B, channels, *grid]`` in [-1, 1].

    ``mean`` and ``std`` are those of the data, one number a channel, for the decoder's preconditioning.
    """

    def __init__(self, config: AutoencoderConfig, channels: int, mean: float | Tensor = 0.0, std: float | Tensor = 1.0):
        super().__init__()
        axes = len(config.encoder.patch)
        self.config = config
        self.encoder = Encoder(config.encoder, channels, config.latent_channels)
        self.prior = Denoiser(ViT(config.prior, config.latent_channels, axes), axes)
        self.decoder = Denoiser(UViT(config.decoder, channels, config.latent_channels), axes, mean, std)

    @functools.cached_property
    def rate_levels(self) -> Table:
        """Where the prior's noise levels fall: where a unit Gaussian's rate does."""
        return rate_table(self.config.lambda_min, self.config.lambda_0)

    @functools.cached_property
    def decoder_levels(self) -> Table:
        """Where the decoder's noise levels fall: where its weight meets an even error of unit-variance data."""
        return Table.proportional(
            lambda lambda_t: torch.sigmoid(self.config.bias - lambda_t) * torch.sigmoid(lambda_t),
            self.config.lambda_min,
            self.config.lambda_max,
        )

    def encode(self, x: Tensor) -> Tensor:
        """The clean latent ``z = E(x)``, ``[B, latent_channels, *coarse grid]``."""
        return self.encoder(x)

    def corrupt(self, z: Tensor, noise: Tensor) -> Tensor:
        """The latent that everybody else sees, ``z_0 = α(λ₀) z + σ(λ₀) ε`` (UL eq. 2)."""
        return diffuse(z, noise, torch.full((len(z),), self.config.lambda_0, device=z.device))

    def rate(self, z: Tensor, draws: Draws) -> RateTerms:
        """The bound R on the information in ``z_0``, one noise level an example (UL eq. 3), nats per dimension."""
        return self.rate_at(z, draws.strata(len(z)).to(z.device), draws.normal(z))

    def rate_at(self, z: Tensor, strata: Tensor, noise: Tensor) -> RateTerms:
        """:meth:`rate` with the level's quantiles ``strata`` in [0, 1) ``[B]`` and the noise given."""
        levels = self.rate_levels.sample(strata)
        z_t = diffuse(z, noise, levels.lambda_t)
        return rate_terms(z, self.prior(z_t, levels.lambda_t, None), levels, self.config.lambda_min)

    def reconstruction(self, x: Tensor, z_0: Tensor, draws: Draws) -> Tensor:
        """The decoder's weighted loss L(x | z_0) without the loss factor (UL eq. 4), nats per example ``[B]``."""
        levels = self.decoder_levels.sample(draws.strata(len(x)).to(x.device))
        x_t = diffuse(x, draws.normal(x), levels.lambda_t)
        weight = sigmoid_weight(levels.lambda_t, self.config.bias)
        return denoising_loss(x, self.decoder(x_t, levels.lambda_t, z_0), levels, weight)

    def losses(self, x: Tensor, draws: Draws, rate_share: float = 1.0) -> Stage1Losses:
        """R(x) and L(x | z_0) with independent noise; the gradient of both reaches the encoder.

        ``rate_share`` in [0, 1] scales the gradient of R into the encoder alone, while the prior warms up.
        """
        z = self.encode(x)
        z_0 = self.corrupt(z, draws.normal(z))
        priced = z if rate_share == 1.0 else torch.lerp(z.detach(), z, rate_share)
        return Stage1Losses(self.rate(priced, draws), self.reconstruction(x, z_0, draws))

    @torch.no_grad()
    def start_at_unit_scale(self, x: Tensor) -> None:
        """Rescale the encoder's last layer so that each latent channel has mean 0 and variance 1 on ``x``."""
        z = self.encode(x)
        axes = [0, *range(2, z.dim())]
        mean, std = z.mean(axes), z.std(axes).clamp_min(1e-6)
        head = self.encoder.head
        assert head.bias is not None
        head.bias.copy_((head.bias - mean) / std)
        head.weight.div_(std.view(-1, *[1] * (head.weight.dim() - 1)))

    @torch.no_grad()
    def rescale(self, scale: float) -> None:
        """Multiply the latents by ``scale``: more room above the fixed noise, so more bits, or less and fewer.

        The prior of scaled latents is the old prior at λ + 2 ln scale (:class:`Denoiser`); above scale 1 it is asked a
        little beyond the levels it was trained on, which can only loosen the bound. The decoder sees the latents it
        knows, with the noise of log-SNR λ₀ + 2 ln scale.
        """
        head = self.encoder.head
        assert head.bias is not None
        head.weight.mul_(scale)
        head.bias.mul_(scale)
        self.prior.mean.mul_(scale)
        self.prior.std.mul_(scale)
        for name, parameter in self.decoder.named_parameters():
            if name.startswith("net.latents.") and name.endswith(".weight"):
                parameter.div_(scale)

    @torch.no_grad()
    def decode(self, z_0: Tensor, x_1: Tensor, steps: int, span: tuple[float, float] = (-6.0, 3.0)) -> Tensor:
        """Sample x given the noisy latent ``z_0`` from ``x_1 ~ N(0, I)``: DDIM, ``steps`` calls over ``span``."""
        grid = uniform_grid(*span, steps, to_clean=True).to(z_0.device)
        return ddim(self.decoder, x_1, grid, generator=(), cond=z_0)
