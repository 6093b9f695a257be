"""The codelength of 8-bit pictures under a diffusion model with weight 1, nats per example (VDM, arXiv 2107.00630).

    -ln p(x) <= KL[ q(x_min | x) || N(0, I) ]  +  ½ ∫ e^lambda E||x - x_hat||² dlambda  +  E[ -ln p(x | x_max) ]

with x_min at lambda_min, x_max at lambda_max and the integral between them (VDM eq. 11 to 13, in log-SNR). Where x_hat
sees a latent z_0, the rate R of z_0 is added, and the sum bounds -ln p(x) again, by bits back.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unilat.maths.denoising import denoising_loss
from unilat.maths.levels import Levels
from unilat.maths.rate import terminal_kl
from unilat.maths.weighting import unweighted
from unilat.types import UserError

_ROWS = 1 << 16
"""Numbers whose 256 distances are held at once."""


@dataclass(frozen=True, eq=False)
class CodelengthTerms:
    """An estimate of the codelength of 8-bit pictures, nats per example."""

    diffusion: Float[Tensor, " b"]
    """``½ e^lambda ||x - x_hat||² / p(lambda)`` at each example's one level."""
    terminal: Float[Tensor, " b"]
    """KL at the noisiest level."""
    reconstruction: Float[Tensor, " b"]
    """``-ln p(x | x_max)`` over the 256 bytes."""

    def nats(self) -> Float[Tensor, " b"]:
        """The sum of the three, ``[B]``."""
        return self.diffusion + self.terminal + self.reconstruction


def reconstruction_nats(
    picture: UInt8[Tensor, "b *dims"], x_t: Float[Tensor, "b *dims"], lambda_max: float
) -> Float[Tensor, " b"]:
    """``-ln p(x | x_t)``, ``[B]``, nats: which of 256 bytes each number was, told from ``x_t`` at ``lambda_max``.

    ``p(byte | x_t) ∝ exp(-(x_t - alpha (byte / 127.5 - 1))² / (2 sigma²))``, independent numbers, no byte preferred
    (VDM eq. 5 and App. C). 0 where the noise is far smaller than half a grey level, ln 256 a number in pure noise.
    """
    if picture.dtype != torch.uint8 or picture.shape != x_t.shape:
        raise UserError(f"pictures must be uint8 {tuple(x_t.shape)}, not {picture.dtype} {tuple(picture.shape)}")
    alpha_max = math.sqrt(1.0 / (1.0 + math.exp(-lambda_max)))
    seen = (x_t.double() / alpha_max + 1.0) * 127.5  # in grey levels, where the noise has the variance below
    variance = 127.5**2 * math.exp(-lambda_max)
    grey = torch.arange(256, dtype=torch.float64, device=x_t.device)
    nats = [
        torch.logsumexp(-0.5 * (part[:, None] - grey).square() / variance, 1) for part in seen.flatten().split(_ROWS)
    ]
    own = 0.5 * (seen - picture).square() / variance
    return (torch.cat(nats).view(x_t.shape) + own).flatten(1).sum(1).to(x_t)


def codelength_terms(
    picture: UInt8[Tensor, "b *dims"],
    x_hat: Float[Tensor, "b *dims"],
    levels: Levels,
    x_max: Float[Tensor, "b *dims"],
    lambda_min: float,
    lambda_max: float,
) -> CodelengthTerms:
    """The bound's terms for 8-bit pictures, the denoiser's ``x_hat`` at ``levels`` and ``x_max`` at ``lambda_max``.

    ``x = picture / 127.5 - 1``. The levels' density covers [lambda_min, lambda_max].
    """
    x = picture.to(x_hat) / 127.5 - 1.0
    diffusion = denoising_loss(x, x_hat, levels, unweighted(levels.lambda_t))
    terminal = terminal_kl(x, lambda_min).flatten(1).sum(1)
    return CodelengthTerms(diffusion, terminal, reconstruction_nats(picture, x_max, lambda_max))
