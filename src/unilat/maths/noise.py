"""The noise convention: variance preserving, with log-SNR ``lambda_t`` as the only coordinate.

    alpha² = sigmoid(lambda),  sigma² = sigmoid(-lambda),  x_t = alpha x + sigma eps,  v = alpha eps - sigma x

so (x_t, v) is (x, eps) turned by an angle, and any of x, eps, v follows from x_t and any other. Large lambda = clean.
``lambda_t`` has one value per example, ``[B]``; ``alpha`` and ``sigma`` alone take any shape. Results have x_t's dtype.
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


def x_from_v(
    x_t: Float[Tensor, "b *dims"], v: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """``x = alpha x_t - sigma v``; good at every lambda, ±inf included."""
    alpha_t, sigma_t = amplitudes(lambda_t, x_t)
    return alpha_t * x_t - sigma_t * v


def eps_from_v(
    x_t: Float[Tensor, "b *dims"], v: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """``eps = sigma x_t + alpha v``; good at every lambda, ±inf included."""
    alpha_t, sigma_t = amplitudes(lambda_t, x_t)
    return sigma_t * x_t + alpha_t * v


def v_from_x(
    x_t: Float[Tensor, "b *dims"], x: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """``v = (alpha x_t - x) / sigma``; undefined (nan) at lambda = +inf, where x_t says nothing of eps."""
    alpha_t, sigma_t = amplitudes(lambda_t, x_t)
    return (alpha_t * x_t - x) / sigma_t


def eps_from_x(
    x_t: Float[Tensor, "b *dims"], x: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """``eps = (x_t - alpha x) / sigma``; undefined (nan) at lambda = +inf."""
    alpha_t, sigma_t = amplitudes(lambda_t, x_t)
    return (x_t - alpha_t * x) / sigma_t


def x_from_eps(
    x_t: Float[Tensor, "b *dims"], eps: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """``x = (x_t - sigma eps) / alpha``; undefined (nan) at lambda = -inf, where x_t says nothing of x."""
    alpha_t, sigma_t = amplitudes(lambda_t, x_t)
    return (x_t - sigma_t * eps) / alpha_t


def v_from_eps(
    x_t: Float[Tensor, "b *dims"], eps: Float[Tensor, "b *dims"], lambda_t: Float[Tensor, " b"]
) -> Float[Tensor, "b *dims"]:
    """``v = (eps - sigma x_t) / alpha``; undefined (nan) at lambda = -inf."""
    alpha_t, sigma_t = amplitudes(lambda_t, x_t)
    return (eps - sigma_t * x_t) / alpha_t
