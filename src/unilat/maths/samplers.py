"""Samplers: functions of a denoiser and a grid of log-SNR, from noise to signal. Nothing is kept between calls.

    sampler(denoise, x, grid, *, generator, cond=None) -> x at grid[-1]

``grid`` is increasing, ``[n + 1]`` for n calls of the network; ``x`` is given AT grid[0] and the result lies AT
grid[-1]: it still carries the noise sigma(grid[-1]), which is what a decoder of z_0 was trained on. The clean
prediction x_hat is returned only where grid[-1] = +inf, since there sigma is 0.

``generator`` is one ``torch.Generator`` or a list of one per example; with a list, example i depends on its own only.
Deterministic samplers take it and leave it alone, so that all are called alike.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.types import Cond, Denoiser, UserError

Generators = torch.Generator | Sequence[torch.Generator]
"""One for the batch, or one per example."""
Sampler = Callable[..., Tensor]
"""``sampler(denoise, x, grid, *, generator, cond=None) -> x at grid[-1]``: one of the functions below."""


class _Level(NamedTuple):
    """A point of the grid as Python floats, so that a step costs no small tensors."""

    lambda_t: float
    alpha: float
    sigma: float


def _levels(grid: Tensor) -> list[_Level]:
    points = grid.tolist()
    if len(points) < 2 or any(not low < high for low, high in pairwise(points)):
        raise UserError("a sampling grid needs at least two points, and log-SNR that increases")
    if not all(map(math.isfinite, points[:-1])):
        raise UserError("only the last point of a sampling grid may be infinite")
    alphas, sigmas = torch.sigmoid(grid.double()).sqrt().tolist(), torch.sigmoid(-grid.double()).sqrt().tolist()
    return [_Level(*level) for level in zip(points, alphas, sigmas, strict=True)]


def _steps(grid: Tensor) -> Iterator[tuple[_Level, _Level]]:
    return pairwise(_levels(grid))


def _call(denoise: Denoiser[Cond], x: Tensor, lambda_t: float, cond: Cond) -> Tensor:
    logsnr = torch.full((x.shape[0],), lambda_t, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    return denoise(x, logsnr, cond)


def noise_like(x: Float[Tensor, "b *dims"], generator: Generators) -> Float[Tensor, "b *dims"]:
    """Standard normal noise of x's shape; with one generator per example, row i comes from generator i alone."""
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    if len(generator) != x.shape[0]:
        raise UserError(f"{len(generator)} generators for {x.shape[0]} examples: give one for each, or a single one")
    rows = [torch.randn(x.shape[1:], generator=one, device=one.device, dtype=x.dtype) for one in generator]
    return torch.stack(rows).to(x.device)


def ddim(
    denoise: Denoiser[Cond | None],
    x: Float[Tensor, "b *dims"],
    grid: Float[Tensor, " n"],
    *,
    generator: Generators,
    cond: Cond | None = None,
) -> Float[Tensor, "b *dims"]:
    """First order, deterministic: ``x_s = alpha_s x_hat + sigma_s eps_hat`` with eps_hat from x_t and x_hat."""
    for now, then in _steps(grid):
        x_hat = _call(denoise, x, now.lambda_t, cond)
        kept = then.sigma / now.sigma
        x = kept * x + (then.alpha - kept * now.alpha) * x_hat
    return x


def ancestral(
    denoise: Denoiser[Cond | None],
    x: Float[Tensor, "b *dims"],
    grid: Float[Tensor, " n"],
    *,
    generator: Generators,
    cond: Cond | None = None,
) -> Float[Tensor, "b *dims"]:
    """Stochastic: draws from ``q(x_s | x_t, x = x_hat)``, the chain whose KL the rate is (VDM eq. 32-34).

    With ``c = 1 - e^(lambda_t - lambda_s)``: mean ``(alpha_t sigma_s²) / (alpha_s sigma_t²) x_t + alpha_s c x_hat``,
    variance ``c sigma_s²``.
    """
    for now, then in _steps(grid):
        x_hat = _call(denoise, x, now.lambda_t, cond)
        fresh = -math.expm1(now.lambda_t - then.lambda_t)
        kept = (now.alpha * then.sigma**2) / (then.alpha * now.sigma**2)
        x = kept * x + (then.alpha * fresh) * x_hat
        if then.sigma > 0.0:
            x = x + (then.sigma * math.sqrt(fresh)) * noise_like(x, generator)
    return x


def dpmpp_2m(
    denoise: Denoiser[Cond | None],
    x: Float[Tensor, "b *dims"],
    grid: Float[Tensor, " n"],
    *,
    generator: Generators,
    cond: Cond | None = None,
) -> Float[Tensor, "b *dims"]:
    """Second order, deterministic, one call a step: DPM-Solver++(2M), an exponential integrator in log-SNR.

    ``x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) d`` with ``h = (lambda_s - lambda_t) / 2`` and d the line
    through the last two predictions taken at the step's middle: ``d = x_hat + (x_hat - x_hat_last) h / (2 h_last)``.
    The first step, and one that ends at +inf, take ``d = x_hat``: first order, as in ``ddim``.
    """
    before: Tensor | None = None
    h_before = math.inf
    for now, then in _steps(grid):
        x_hat = _call(denoise, x, now.lambda_t, cond)
        h = 0.5 * (then.lambda_t - now.lambda_t)
        direction = x_hat
        if before is not None and math.isfinite(h):
            direction = x_hat + (x_hat - before) * (0.5 * h / h_before)
        x = (then.sigma / now.sigma) * x - (then.alpha * math.expm1(-h)) * direction
        before, h_before = x_hat, h
    return x


def uniform_grid(lambda_min: float, lambda_max: float, steps: int, to_clean: bool = False) -> Float[Tensor, " n"]:
    """``steps + 1`` points, evenly spaced in log-SNR from lambda_min to lambda_max: ``steps`` calls; float64.

    With ``to_clean`` the last call is made AT lambda_max and its clean prediction is the result: ``steps`` points up
    to lambda_max, then +inf.
    """
    if steps < 1 or not lambda_min < lambda_max:
        raise UserError(f"a grid needs at least 1 step and {lambda_min} < {lambda_max}, not {steps} steps")
    if not to_clean:
        return torch.linspace(lambda_min, lambda_max, steps + 1, dtype=torch.float64)
    points = torch.linspace(lambda_min, lambda_max, steps, dtype=torch.float64)
    return torch.cat([points, torch.tensor([math.inf], dtype=torch.float64)])
