"""Stage 1: an encoder, a diffusion prior and a diffusion decoder trained together (UL Sec. 3, Alg. 1).

::

      x ──► encoder ──► z ──┬──► α₀ z + σ₀ ε = z_0 ──────────────► decoder(x_t, λ, z_0) ──► x̂     L, weighted
                            │      fixed noise λ₀                       ▲
                            │                                          x_t = α x + σ ε,  λ ∈ [λ_min, λ_max]
                            └──► z_t = α z + σ ε,  λ ∈ [λ_min, λ₀] ──► prior(z_t, λ) ──► ẑ        R, weight 1

    minimise  R(x) + c_lf · L(x | z_0)            both in nats per example

The encoder's noise is the prior's lowest noise, so R is an upper bound in nats on what z_0 carries of x.
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unilat.maths.levels import rate_table, truncated_logistic, weighted_table
from unilat.maths.noise import diffuse, expand
from unilat.maths.rate import RateTerms
from unilat.maths.seeds import Draws
from unilat.models.networks import AutoencoderConfig, decoder_of, encoder_of
from unilat.models.placing import Placing
from unilat.models.posterior import Posterior
from unilat.models.price import Charge, price
from unilat.models.reconstruction import reconstruction
from unilat.nets.decoder import readers
from unilat.nets.foreign import ForeignDecoder, ForeignEncoder
from unilat.nets.gaussian import denoiser_of
from unilat.nets.vit import ViT


@dataclass(frozen=True)
class Stage1Losses:
    """Of one batch, all in nats: ``rate`` per dimension, and ``[B]`` what is minimised.

    ``charge`` is ``rate.nats()`` unless another price is paid; ``decoder`` = L(x | z_0), without c_lf, at the decoder's
    noise levels ``decoder_lambda [B]``, None where it has none.
    """

    rate: RateTerms
    charge: Tensor
    decoder: Tensor
    decoder_lambda: Tensor | None = None

    def total(self, loss_factor: float | Tensor) -> Tensor:
        """``(R + c_lf L) / max(1, c_lf)``, ``[B]`` in nats: one common constant keeps the step sane at large c_lf."""
        common = loss_factor.clamp_min(1.0) if isinstance(loss_factor, Tensor) else max(1.0, loss_factor)
        return (self.charge + loss_factor * self.decoder) / common


class Autoencoder(nn.Module):
    """Encoder, prior and decoder; ``x`` is ``[B, channels, *grid]`` in [-1, 1].

    ``mean`` and ``std`` are those of the data, one number a channel, for the decoder's preconditioning; ``grid`` is the
    latents', where the prior shall know their covariance.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        channels: int,
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
        charge: Charge | None = None,
        grid: tuple[int, ...] | None = None,
    ):
        super().__init__()
        axes = len(config.encoder.patch)
        self.config = config
        self.price = price(config.price, config.kl_weight)
        self.charge = charge or self.price.charge
        self.decoding = reconstruction(config.decoder_loss, config.perceptual)
        self.encoder = encoder_of(config, channels)
        shape = (config.latent_channels, *grid) if grid and config.price != "normal" else ()
        self.prior = denoiser_of(ViT(config.prior, config.latent_channels, axes), axes, shape, config.covariance_up_to)
        if config.price == "normal":  # untrained it is the exact denoiser of N(0, I), and stays it
            self.prior.requires_grad_(False)
        self.decoder = decoder_of(config, channels, mean, std)
        self.rate_levels = Placing(rate_table(config.lambda_min, config.lambda_0))
        self.decoder_levels = Placing(weighted_table(config.bias, config.lambda_min, config.lambda_max))

    def posterior(self, x: Tensor, own: Tensor | None = None) -> Posterior:
        """``q(z | x)``: a point, or with ``learned_variance`` a normal distribution.

        ``own``: what an encoder that is kept has made of ``x`` before, without its scale.
        """
        with torch.no_grad() if self.config.frozen else contextlib.nullcontext():
            return Posterior(*self.encoder.posterior(x)) if own is None else Posterior(self.encoder.scaled(own))

    def encode(self, x: Tensor) -> Tensor:
        """The clean latent ``z = E(x)``, ``[B, latent_channels, *coarse grid]``; the mean of a learned posterior."""
        return self.encoder(x)

    def corrupt(self, z: Tensor, noise: Tensor, lambda_end: Tensor | None = None) -> Tensor:
        """The latent that everybody else sees, ``z_0 = α(λ₀) z + σ(λ₀) ε`` (UL eq. 2), or at ``lambda_end`` ``[B]``."""
        return diffuse(z, noise, self._ends(z, lambda_end))

    def rate(self, z: Tensor, draws: Draws) -> RateTerms:
        """The bound R on the information in ``z_0``, one noise level an example (UL eq. 3), nats per dimension."""
        levels = self.rate_levels.sample(draws.strata(len(z)).to(z.device))
        return self.price.rate(self, z, levels, draws.normal(z))

    def condition(self, z_0: Tensor, lambda_end: Tensor | None = None) -> Tensor:
        """What the decoder hears: z_0, and where its noise varies one more channel that tells its log-SNR / 10.

        Of an encoder with a scale of its own the latent without it.
        """
        if self.encoder.scale is not None:
            z_0 = z_0 / self.encoder.scale
        if self.config.random_end is None:
            return z_0
        level = expand(self._ends(z_0, lambda_end) / 10, z_0)
        return torch.cat([z_0, level.expand(-1, 1, *z_0.shape[2:])], dim=1)

    def _ends(self, z: Tensor, lambda_end: Tensor | None) -> Tensor:
        return torch.full((len(z),), self.config.lambda_0, device=z.device) if lambda_end is None else lambda_end

    def reconstruction(self, x: Tensor, z_0: Tensor, draws: Draws, lambda_end: Tensor | None = None) -> Tensor:
        """The decoder's loss L(x | z_0) without the loss factor (UL eq. 4), nats per example ``[B]``."""
        return self.decoding.loss(self, x, self.condition(z_0, lambda_end), draws)[0]

    def losses(self, x: Tensor, draws: Draws, rate_share: float = 1.0, own: Tensor | None = None) -> Stage1Losses:
        """R(x) and L(x | z_0) with independent noise; the gradient of both reaches the encoder.

        ``rate_share`` in [0, 1] scales the gradient of R into the encoder alone, while the prior warms up. ``own``: as
        :meth:`posterior` takes it.
        """
        posterior = self.posterior(x, own)
        z = posterior.draw(draws.normal)
        end = None
        if self.config.random_end is not None:
            end = draws.strata(len(x)).to(x.device)
            end = truncated_logistic(end, *self.config.random_end, self.config.lambda_min, self.config.lambda_0)
        z_0 = self.corrupt(z, draws.normal(z), end)
        share = rate_share * self.price.gradient
        rate = self.rate(z if share == 1.0 else torch.lerp(z.detach(), z, share), draws)
        rate = rate.less(posterior.entropy(self.config.lambda_0))
        charge = self.charge(self, x, z, rate if end is None else rate.up_to(end))
        if self.config.tune == "none":
            return Stage1Losses(rate, charge, torch.zeros_like(charge))
        decoder, lambda_t = self.decoding.loss(self, x, self.condition(z_0, end), draws)
        return Stage1Losses(rate, charge, decoder, lambda_t)

    @torch.no_grad()
    def start_at_unit_scale(self, x: Tensor) -> None:
        """Rescale the encoder's last layer so that each latent channel has mean 0 and variance 1 on ``x``.

        What follows somebody else's encoder does the same, and its own decoder is told.
        """
        if isinstance(self.encoder, ForeignEncoder):
            self.encoder.standardise(x)
            if isinstance(self.decoder, ForeignDecoder):
                self.decoder.mean.copy_(self.encoder.mean)
                self.decoder.std.copy_(self.encoder.std)
            return
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
        self.encoder.rescale(scale)
        self.prior.rescale(scale)
        if self.encoder.scale is None:
            for layer in readers(self.decoder):
                layer.weight[:, : self.config.latent_channels].div_(scale)

    @torch.no_grad()
    def decode(self, z_0: Tensor, x_1: Tensor, steps: int, span: tuple[float, float] = (-6.0, 3.0)) -> Tensor:
        """Sample x given the noisy latent ``z_0`` from ``x_1 ~ N(0, I)``: DDIM, ``steps`` calls over ``span``."""
        return self.decoding.decode(self, self.condition(z_0), x_1, steps, span)
