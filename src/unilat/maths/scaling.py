"""Which bits are best for a budget of FLOPs: a law of the generation distance, fitted to runs, and what it leaves open.

    D(b, C) = E + A (b / b_0)^-alpha + B (b / b_0)^beta (C / C_0)^-gamma

``b`` are bits per pixel, ``C`` the FLOPs of training the base model, ``b_0`` and ``C_0`` the geometric means of the
runs', all six parameters positive. ``E`` is what no run gets below; the second part, what the bits do not hold, falls
with them; the third, what the base model has not learned, rises with the bits and falls with FLOPs. It is the law of
Hoffmann et al. 2022 (eq. 2, "Chinchilla") with bits in the place of parameters.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unilat.types import UserError

PARAMETERS = ("E", "A", "B", "alpha", "beta", "gamma")
_EXPONENTS = (1.0, 1.0, 0.5)
"""Where alpha, beta and gamma are expected, each within a factor of e^0.7 = 2 (one standard deviation)."""
_SPREAD = (1.5, 1.5, 1.5, 0.7, 0.7, 0.7)
"""Standard deviations of the parameters' logarithms; ``E, A, B`` are expected at a third of the median distance."""
_STARTS, _ITERATIONS = 16, 80


@dataclass(frozen=True)
class Law:
    """One law a row of ``theta``: row 0 is the fit, the others are draws of what the errors leave possible."""

    theta: Float[Tensor, "k 6"]
    """Natural logarithms of :data:`PARAMETERS`."""
    bits_0: float
    """``b_0``, bits per pixel."""
    flops_0: float
    """``C_0``, FLOPs."""

    def parts(self, bits: Float[Tensor, " n"], flops: Float[Tensor, " n"]) -> Float[Tensor, "3 k n"]:
        """``E``, what the bits do not hold, and what the base model has not learned; they add up to the distance."""
        low, ln_a, ln_b, *exponents = self.theta[:, :, None].unbind(1)
        alpha, beta, gamma = (one.exp() for one in exponents)
        ln_bits, ln_flops = (bits / self.bits_0).log(), (flops / self.flops_0).log()
        unseen, unlearned = ln_a - alpha * ln_bits, ln_b + beta * ln_bits - gamma * ln_flops
        return torch.stack([low.expand_as(unseen), unseen, unlearned]).exp()

    def distance(self, bits: Float[Tensor, " n"], flops: Float[Tensor, " n"]) -> Float[Tensor, "k n"]:
        """``D(b, C)`` of each pair."""
        return self.parts(bits, flops).sum(0)

    def best_bits(self, flops: float) -> Float[Tensor, " k"]:
        """``argmin_b D(b, C) = b_0 (alpha A / (beta B) (C / C_0)^gamma)^(1 / (alpha + beta))``, bits per pixel."""
        ln_a, ln_b, ln_alpha, ln_beta, ln_gamma = self.theta[:, 1:].unbind(1)
        ln_ratio = ln_a + ln_alpha - ln_b - ln_beta + ln_gamma.exp() * math.log(flops / self.flops_0)
        return self.bits_0 * (ln_ratio / (ln_alpha.exp() + ln_beta.exp())).exp()

    def growth(self) -> Float[Tensor, " k"]:
        """``d ln b* / d ln C = gamma / (alpha + beta)``: 0.3 is twice the best bits for ten times the FLOPs."""
        alpha, beta, gamma = self.theta[:, 3:].exp().unbind(1)
        return gamma / (alpha + beta)


def fit_law(
    bits: Float[Tensor, " n"],
    flops: Float[Tensor, " n"],
    distance: Float[Tensor, " n"],
    relative_error: Float[Tensor, " n"],
    *,
    group: Int64[Tensor, " n"] | None = None,
    group_error: float = 0.0,
    draws: int = 400,
    generator: torch.Generator,
) -> Law:
    """The most probable law of ``n`` runs, and ``draws`` that are as probable as the errors leave them.

    ``relative_error`` is each run's own; runs of one number in ``group`` (those of one autoencoder) are off together by
    another of ``group_error``, a share of the distance too, which averages out over groups only.
    Weighted least squares of ``ln D`` by Levenberg and Marquardt from several starts, with a weak expectation of each
    parameter's logarithm (:data:`_EXPONENTS`, :data:`_SPREAD`), without which few runs would leave some without end.
    Where runs lie further from the law than their errors explain, all errors are widened by the root of ``chi² / (n -
    parameters determined)``. A draw is the fit of runs and expectations that have both been moved by their errors
    (Bardsley et al. 2014, "randomize then optimize"): exact where the law is linear.
    """
    if not all(bool(((one > 0) & one.isfinite()).all()) for one in (bits, flops, distance, relative_error)):
        raise UserError("a law of distances needs bits, FLOPs, distances and errors above 0")
    bits, flops, ln_d, own = (one.double() for one in (bits, flops, distance.log(), relative_error))
    group = torch.arange(len(bits)) if group is None else group
    error = (own.square() + group_error**2).sqrt()
    units = float(bits.log().mean().exp()), float(flops.log().mean().exp())
    third = float(ln_d.median()) - math.log(3.0)
    expected = torch.tensor([third] * 3 + [math.log(one) for one in _EXPONENTS], dtype=torch.float64)
    spread = torch.tensor(_SPREAD, dtype=torch.float64)

    def noise(rows: int, scale: Tensor) -> Tensor:
        return scale * torch.randn(rows, len(scale), dtype=torch.float64, generator=generator)

    def fitted(start: Tensor, ln_d: Tensor, expected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _least_squares(start, (bits, flops, *units), ln_d, error, expected, spread)

    starts = expected + noise(_STARTS, spread) * (torch.arange(_STARTS) > 0)[:, None]
    theta, loss, _ = fitted(starts, ln_d.expand(_STARTS, -1), expected.expand(_STARTS, -1))
    best = theta[loss.argmin()][None]
    for _ in range(2):  # wider errors move the fit a little, and with it what they are widened by
        best, _, determined = fitted(best, ln_d[None], expected[None])
        off = (Law(best, *units).distance(bits, flops).log() - ln_d)[0] / error
        left = len(bits) - float(determined[0])
        wider = math.sqrt(max(1.0, float(off.square().sum()) / left)) if left >= 1.0 else 1.0
        error, own, group_error = wider * error, wider * own, wider * group_error
    together = noise(draws, torch.full((int(group.max()) + 1,), group_error, dtype=torch.float64))[:, group]
    moved = ln_d + noise(draws, own) + together
    theta, _, _ = fitted(best.expand(draws, -1), moved, expected + noise(draws, spread))
    return Law(torch.cat([best, theta]), *units)


def _least_squares(
    theta: Tensor,
    runs: tuple[Tensor, Tensor, float, float],
    ln_d: Tensor,
    error: Tensor,
    expected: Tensor,
    spread: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise ``Σ ((ln D - ln_d) / error)² + Σ ((theta - expected) / spread)²`` for each row of ``theta [k, 6]``.

    Returns ``theta``, the sum ``[k]``, and how many parameters the runs rather than the expectations determine ``[k]``.
    """
    bits, flops, *units = runs
    ln_bits, ln_flops = (bits / units[0]).log(), (flops / units[1]).log()

    def total(theta: Tensor) -> Tensor:
        off = (Law(theta, *units).distance(bits, flops).log() - ln_d) / error
        return off.square().sum(1) + ((theta - expected) / spread).square().sum(1)

    def curvature(theta: Tensor) -> tuple[Tensor, Tensor]:
        parts = Law(theta, *units).parts(bits, flops)
        distance = parts.sum(0)
        low, unseen, unlearned = parts / distance
        alpha, beta, gamma = theta[:, 3:, None].exp().unbind(1)
        slopes = (low, unseen, unlearned, -alpha * ln_bits * unseen, beta * ln_bits * unlearned)
        jacobian = torch.stack([*slopes, -gamma * ln_flops * unlearned], -1) / error[:, None]
        off = (distance.log() - ln_d) / error
        gradient = (jacobian * off[:, :, None]).sum(1) + (theta - expected) / spread.square()
        return jacobian.mT @ jacobian, gradient

    weak, loss = torch.diag(spread.square().reciprocal()), total(theta)
    damping = torch.full_like(loss, 1e-2)
    for _ in range(_ITERATIONS):
        known, gradient = curvature(theta)
        whole = known + weak
        damped = whole + damping[:, None, None] * torch.diag_embed(whole.diagonal(dim1=-2, dim2=-1))
        step = torch.linalg.solve(damped, gradient).clamp(-1.0, 1.0)
        new = total(theta - step)
        better = new < loss
        theta, loss = torch.where(better[:, None], theta - step, theta), torch.where(better, new, loss)
        damping = torch.where(better, damping / 3.0, damping * 4.0).clamp(1e-9, 1e9)
    known, _ = curvature(theta)
    return theta, loss, torch.linalg.solve(known + weak, known).diagonal(dim1=-2, dim2=-1).sum(-1)


def kendall_tau(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """``(concordant - discordant pairs) / (n (n - 1) / 2)``: 1 for one order, -1 for its reverse; ties count as 0."""
    if len(a) < 2 or len(a) != len(b):
        raise UserError("a rank agreement needs two lists of as many numbers, two or more")
    signs = (a[:, None] - a).sign() * (b[:, None] - b).sign()
    return float(signs.sum() / (len(a) * (len(a) - 1)))
