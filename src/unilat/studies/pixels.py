"""A diffusion model of the bytes themselves, trained with weight 1 down to fine noise, with or without a latent.

Near lambda_max the noise is a fraction of a grey level, and what is left to say is which grey. A network of the raw
picture hardly sees that, so it also gets waves of 1, 2, 4 and 8 grey levels of it (VDM's Fourier features, App. C, with
the periods of our bytes), faded by ``exp(-½ f² e^-lambda)``, their mean over the noise.
"""

import math

import torch
from torch import Tensor

from unilat.maths.denoising import denoising_loss
from unilat.maths.levels import rate_table
from unilat.maths.noise import alpha, diffuse, expand
from unilat.maths.seeds import Draws
from unilat.maths.weighting import unweighted
from unilat.models.autoencoder import AutoencoderConfig
from unilat.nets.decoder import Decoder, Heard
from unilat.signals import kind_of
from unilat.training.plan import Batch, Stage

PERIODS = (1, 2, 4, 8)
"""Grey levels a wave."""


class PixelDenoiser(Decoder):
    """The one contract with ``cond`` = z_0: a decoder whose network also sees waves of its noisy picture.

    Made of an autoencoder's configuration; :meth:`continue_from` takes a trained decoder's weights over, and then
    equals it.
    """

    def __init__(self, config: AutoencoderConfig, channels: int, mean: float | Tensor = 0.0, std: float | Tensor = 1.0):
        waves = 2 * channels * len(PERIODS)
        mean, std = (torch.as_tensor(value, dtype=torch.float32).expand(channels) for value in (mean, std))
        super().__init__(config.decoder, config.encoder, channels, config.latent_channels, mean, std, more=waves)

    def shown(self, x_t: Tensor, logsnr: Tensor, heard: Heard) -> Tensor:
        """What a decoder's network is shown, and sine and cosine of each period."""
        level = expand(logsnr, x_t)
        clean = x_t / expand(alpha(logsnr), x_t)
        waves = []
        for period in PERIODS:
            frequency = 2.0 * math.pi * 127.5 / period
            fade = torch.exp(-0.5 * frequency**2 * torch.exp(-level))
            phase = frequency * (clean + 1.0)
            waves += [fade * torch.sin(phase), fade * torch.cos(phase)]
        return torch.cat([super().shown(x_t, logsnr, heard), *waves], 1)

    @torch.no_grad()
    def continue_from(self, decoder: Decoder) -> None:
        """Take over ``decoder``'s weights; waves weigh nothing at first, so that both give the same answer."""
        own = self.state_dict()
        for name, value in decoder.state_dict().items():
            target = own[name]
            if target.shape != value.shape:  # the first convolution, whose last inputs are the waves
                target.zero_()
            target[tuple(slice(length) for length in value.shape)] = value


def pixel_stage(
    name: str,
    model: PixelDenoiser,
    pictures: Tensor,
    z: Tensor,
    span: tuple[float, float],
    lambda_0: float | None,
) -> Stage:
    """Trains a :class:`PixelDenoiser` on uint8 pictures ``[N, C, H, W]`` with weight 1 over [lambda_min, lambda_max].

    The loss is ``½ ∫ ||eps - eps_hat||² dlambda``, nats per number of the picture; noise levels fall along the
    integrand of data of unit variance. ``z``: clean latents ``[N, ...]`` of a frozen encoder, noised afresh at
    ``lambda_0`` each time; zeros, and ``lambda_0`` None, for a model of the pictures alone.
    """
    table, kind = rate_table(*span), kind_of(pictures.shape)
    dimensions = math.prod(kind.shape)

    def losses(batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        x, z = kind.to_unit(batch[0]), batch[1]
        levels = table.sample(draws.strata(len(x)).to(x.device))
        x_t = diffuse(x, draws.normal(x), levels.lambda_t)
        x_hat = model(x_t, levels.lambda_t, noisy_latents(z, lambda_0, draws))
        return denoising_loss(x, x_hat, levels, unweighted(levels.lambda_t)) / dimensions, {}

    return Stage(
        name=name,
        model=model,
        count=len(pictures),
        batch=lambda indices: (pictures[indices], z[indices]),
        losses=losses,
    )


def noisy_latents(z: Tensor, lambda_0: float | None, draws: Draws) -> Tensor:
    """``z_0 = alpha_0 z + sigma_0 eps``, or ``z`` as it is where there is no ``lambda_0``."""
    if lambda_0 is None:
        return z
    return diffuse(z, draws.normal(z), torch.full((len(z),), lambda_0, device=z.device))
