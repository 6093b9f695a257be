"""The rate: an upper bound on the information in z_0, in nats per example (UL eq. 3).

    R = ½ ∫_{lambda_min}^{lambda_0} e^lambda E||z - z_hat||² dlambda  +  KL[ N(alpha_1 z, sigma_1²) || N(0, 1) ]

with alpha_1, sigma_1 at lambda_min. Averaged over data it is I(x; z_0) plus the prior's mismatch, which is a KL.
One level per example, divided by its density, estimates the integral; sums over latent dimensions, never means.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
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


def bits_per_pixel(nats: Number, pixels: int) -> Number:
    """``nats / (ln 2 · H · W)``: bits per pixel of the picture (per sample, frame or voxel of other signals)."""
    return nats / (LN2 * pixels)


def bits_per_dimension(nats: Number, dimensions: int) -> Number:
    """``nats / (ln 2 · C · H · W)``: bits per number of the signal."""
    return nats / (LN2 * dimensions)
