"""The noise convention: variance preserving, with log-SNR ``lambda_t`` as the only coordinate.

    alpha² = sigmoid(lambda),  sigma² = sigmoid(-lambda),  x_t = alpha x + sigma eps

so lambda = ln(alpha² / sigma²). Large lambda = clean. ``lambda_t`` has one value per example, ``[B]``; ``alpha`` and
``sigma`` alone take any shape. Results have x's dtype. Networks predict x; what others call v, alpha eps - sigma x, is
minus a network's output behind :class:`~unilat.nets.denoiser.Denoiser` for data of unit variance.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def alpha(lambda_t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Signal's amplitude ``sqrt(sigmoid(lambda))``: 0 at -inf, 1 at +inf (UL Sec. 2)."""
    return torch.sigmoid(lambda_t).sqrt()


def sigma(lambda_t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Noise's amplitude ``sqrt(sigmoid(-lambda))``: 1 at -inf, 0 at +inf, accurate where 1 - alpha² is not."""
    return torch.sigmoid(-lambda_t).sqrt()


def expand(lambda_t: Shaped[Tensor, " b"], like: Float[Tensor, "b *dims"]) -> Shaped[Tensor, "b *ones"]:
    """``[B]`` to ``[B, 1, 1, ...]`` with as many axes as ``like``, so that it multiplies example by example."""
    return lambda_t.reshape(-1, *[1] * (like.ndim - 1))


def amplitudes(
    lambda_t: Float[Tensor, " b"], like: Float[Tensor, "b *dims"]
) -> tuple[Float[Tensor, "b *ones"], Float[Tensor, "b *ones"]]:
    """``(alpha, sigma)`` expanded to ``like``'s axes and cast to its dtype."""
    lambda_t = expand(lambda_t, like)
    return alpha(lambda_t).to(like), sigma(lambda_t).to(like)


def diffuse(
    x: Float[Tensor, "b *dims"], noise: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """The noisy signal ``x_t = alpha x + sigma eps``."""
    alpha_t, sigma_t = amplitudes(lambda_t, x)
    return alpha_t * x + sigma_t * noise
