"""The rate: an upper bound on the information in z_0, in nats per example (UL eq. 3):

    R = ½ ∫_{lambda_min}^{lambda_0} e^lambda E||z - z_hat||² dlambda  +  KL[ N(alpha_1 z, sigma_1²) || N(0, 1) ]

with alpha_1, sigma_1 at lambda_min. Averaged over data it is I(x; z_0) plus the prior's mismatch, which is a KL.
One level per example, divided by its density, estimates the integral; sums over latent dimensions, never means.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from unilat.maths.levels import Levels
from unilat.maths.noise import expand
from unilat.types import UserError

LN2 = math.log(2.0)
"""Nats in a bit."""

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True, eq=False)
class RateTerms:
    """An estimate of the rate, one term per example and latent dimension, nats."""

    diffusion: Float[Tensor, "b *dims"]
    """``½ e^lambda (z - z_hat)² / p(lambda)`` at each example's one level, ``[B, *dims]``."""
    terminal: Float[Tensor, "b *dims"]
    """KL at the noisiest level, ``[B, *dims]``."""
    lambda_t: Float[Tensor, " b"]
    """Log-SNR of each example's level, ``[B]``."""

    def nats(self) -> Float[Tensor, " b"]:
        """The rate of each example, ``[B]``, nats."""
        return (self.diffusion + self.terminal).flatten(1).sum(1)

    def dimension_map(self) -> Float[Tensor, "*dims"]:
        """Mean nats per example that each latent dimension carries, ``[*dims]``; adds up to the mean of ``nats``."""
        return (self.diffusion + self.terminal).mean(0)

    def up_to(self, lambda_end: Float[Tensor, " b"]) -> "RateTerms":
        """The rate of latents whose lowest noise is each example's own ``lambda_end``: levels beyond it cost nothing.

        Over a random lambda_end this weights the integral with ``P(lambda_end > lambda)`` (UL App. B).
        """
        inside = expand(self.lambda_t <= lambda_end, self.diffusion)
        return replace(self, diffusion=torch.where(inside, self.diffusion, 0.0))

    def less(self, entropy: Float[Tensor, "b *dims"] | None) -> "RateTerms":
        """The rate of latents that were drawn with a learned variance: see :func:`added_entropy`. None: of points."""
        return self if entropy is None else replace(self, terminal=self.terminal - entropy)

    def curve(self, edges: Float[Tensor, " k_plus_1"]) -> Float[Tensor, " k"]:
        """Mean nats per example in each bin of log-SNR, ``[K]``; with the mean terminal KL it adds up to ``nats``.

        Bins are closed below and open above, the last one closed. Every level must fall into a bin.
        """
        edges = edges.to(self.lambda_t)
        if bool((self.lambda_t < edges[0]).any()) or bool((self.lambda_t > edges[-1]).any()):
            raise UserError(f"levels fall outside the curve's bins [{float(edges[0])}, {float(edges[-1])}]")
        bin_index = torch.bucketize(self.lambda_t, edges[1:-1].contiguous(), right=True)
        each = self.diffusion.flatten(1).sum(1)
        return torch.zeros(len(edges) - 1).to(each).index_add(0, bin_index, each) / len(each)


def terminal_kl(z: Float[Tensor, "b *dims"], lambda_min: float) -> Float[Tensor, "b *dims"]:
    """``½ (alpha_1² z² + sigma_1² - 1 - ln sigma_1²)`` per dimension, nats; = ½ (alpha_1² (z² - 1) - ln sigma_1²)."""
    alpha_squared = 1.0 / (1.0 + math.exp(-lambda_min))
    return 0.5 * (alpha_squared * (z.square() - 1.0) - math.log1p(-alpha_squared))


def rate_terms(
    z: Float[Tensor, "b *dims"], z_hat: Float[Tensor, "b *dims"], levels: Levels, lambda_min: float
) -> RateTerms:
    """The rate's terms for latents ``z`` and the prior's ``z_hat`` from z diffused to ``levels`` (UL eq. 3)."""
    if z.shape != z_hat.shape:
        raise UserError(f"the denoiser returned {tuple(z_hat.shape)} for latents of {tuple(z.shape)}")
    factor = 0.5 * levels.lambda_t.exp() / levels.density
    diffusion = expand(factor, z) * (z - z_hat).square()
    return RateTerms(diffusion, terminal_kl(z, lambda_min), levels.lambda_t)


def drawn_rate_terms(
    z_t: Float[Tensor, "b *dims"],
    z_hat: Float[Tensor, "b *dims"],
    mean: Float[Tensor, "b *dims"],
    log_variance: Float[Tensor, "b *dims"],
    levels: Levels,
    lambda_min: float,
) -> RateTerms:
    """The rate of latents drawn from ``N(mean, s²)``, the entropy of the draws taken off, from z diffused to z_t.

        ½ ∫ e^lambda E||E[z | z_t, x] - z_hat||² dlambda  +  KL[ N(alpha_1 mean, alpha_1² s² + sigma_1²) || N(0, 1) ]

    with ``E[z | z_t, x] = mean + g (z_t / alpha - mean)``, ``g = s² e^lambda / (1 + s² e^lambda)``. Its mean is that of
    :func:`rate_terms` less :func:`added_entropy`, number by number; but nothing large has to cancel.
    """
    lambda_t = expand(levels.lambda_t, z_t)
    gain = torch.sigmoid(log_variance + lambda_t)
    known = mean + gain * (z_t * torch.rsqrt(torch.sigmoid(lambda_t)) - mean)
    terms = rate_terms(known, z_hat, levels, lambda_min)
    alpha_squared = 1.0 / (1.0 + math.exp(-lambda_min))
    variance = alpha_squared * log_variance.exp() + 1.0 - alpha_squared
    return replace(terms, terminal=0.5 * (alpha_squared * mean.square() + variance - 1.0 - variance.log()))


def normal_kl(
    z: Float[Tensor, "b *dims"],
    lambda_0: float,
    mean: Float[Tensor, "..."],
    std: Float[Tensor, "..."],
    log_variance: Float[Tensor, "b *dims"] | None = None,
) -> Float[Tensor, "b *dims"]:
    """``KL[ N(alpha z, alpha² s² + sigma²) || N(alpha mean, alpha² std² + sigma²) ]`` at lambda_0 per dimension, nats.

    The rate of z_0 under a normal prior N(mean, std²) of z, in closed form: what a KL term counts. ``log_variance``:
    ``ln s²`` of a learned one around z; None is a point, of mean 0 and std 1 :func:`terminal_kl` at lambda_0.
    """
    noise = 1.0 / (1.0 + math.exp(lambda_0))
    variance = (1.0 - noise) * std.square() + noise
    own = noise if log_variance is None else (1.0 - noise) * log_variance.exp() + noise
    return 0.5 * (((1.0 - noise) * (z - mean).square() + own) / variance - 1.0 + (variance / own).log())


def added_entropy(log_variance: Float[Tensor, "b *dims"], lambda_0: float) -> Float[Tensor, "b *dims"]:
    """``½ ln(1 + s_z² e^lambda_0)`` nats per dimension: what a learned variance s_z² adds to the entropy of z_0.

    With ``z ~ N(mean, s_z²)`` and ``z_0 = alpha z + sigma eps`` the rate of z overstates the information in z_0 about
    the picture by ``h(z_0 | x) - h(z_0 | z)``, which is this; UL eq. 5 is its negative.
    """
    return 0.5 * functional.softplus(log_variance + lambda_0)


def bits_per_pixel(nats: Number, pixels: int) -> Number:
    """``nats / (ln 2 · H · W)``: bits per pixel of the picture (per sample, frame or voxel of other signals)."""
    return nats / (LN2 * pixels)
