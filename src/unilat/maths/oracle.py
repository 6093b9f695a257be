"""Closed forms that estimates, trained priors and samplers are held against. Nats; sums over dimensions."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.maths.levels import Levels
from unilat.maths.noise import alpha, diffuse, sigma
from unilat.maths.rate import rate_terms
from unilat.maths.seeds import Draws
from unilat.types import UserError


def _squares(lambda_t: float) -> tuple[float, float]:
    """(alpha², sigma²) at one level."""
    level = torch.tensor(lambda_t, dtype=torch.float64)
    return float(torch.sigmoid(level)), float(torch.sigmoid(-level))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """z ~ N(mean, V diag(variances) V^T); independent dimensions where ``basis`` V is left out."""

    variances: Float[Tensor, " d"]
    """Variances along the basis' axes, ``[D]``."""
    mean: Float[Tensor, " d"]
    """``[D]``."""
    basis: Float[Tensor, "d d"] | None = None
    """Orthonormal columns V, ``[D, D]``."""

    @classmethod
    def correlated(cls, covariance: Float[Tensor, "d d"], mean: Float[Tensor, " d"]) -> "Gaussian":
        """From a full covariance: its eigenvalues and eigenvectors."""
        variances, basis = torch.linalg.eigh(covariance)
        return cls(variances.clamp(min=0.0), mean, basis)

    def _turn(self, x: Tensor, *, back: bool = False) -> Tensor:
        if self.basis is None:
            return x
        basis = self.basis.to(x)
        return x @ (basis.T if back else basis)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
        """Independent draws, ``[count, D]``."""
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        return self.mean + self._turn(noise * self.variances.sqrt(), back=True)

    def denoise(
        self, x_t: Float[Tensor, "b d"], logsnr: Float[Tensor, " b"], cond: None = None
    ) -> Float[Tensor, "b d"]:
        """Posterior mean ``E[z | z_t] = mean + V s² alpha / (alpha² s² + sigma²) V^T (z_t - alpha mean)``."""
        alpha_t, sigma_t = alpha(logsnr).to(x_t)[:, None], sigma(logsnr).to(x_t)[:, None]
        variances, mean = self.variances.to(x_t), self.mean.to(x_t)
        gain = variances * alpha_t / (alpha_t.square() * variances + sigma_t.square())
        return mean + self._turn(gain * self._turn(x_t - alpha_t * mean), back=True)

    def probability_flow(self, x: Float[Tensor, "b d"], start: float, end: float) -> Float[Tensor, "b d"]:
        """Exact solution of the probability-flow ODE from log-SNR ``start`` to ``end``.

        Along each axis of the basis the deviation from ``alpha mean`` scales with ``sqrt(alpha² s² + sigma²)``.
        """
        (start_alpha, start_sigma), (end_alpha, end_sigma) = _squares(start), _squares(end)
        variances, mean = self.variances.to(x), self.mean.to(x)
        ratio = (end_alpha * variances + end_sigma) / (start_alpha * variances + start_sigma)
        deviation = self._turn(x - math.sqrt(start_alpha) * mean) * ratio.sqrt()
        return math.sqrt(end_alpha) * mean + self._turn(deviation, back=True)

    def information_nats(self, lambda_0: float) -> float:
        """``I(z; z_0) = ½ Σ ln(1 + s² e^lambda_0)``."""
        return float(0.5 * torch.log1p(self.variances.double() * math.exp(lambda_0)).sum())

    def rate_nats(self, lambda_min: float, lambda_0: float) -> float:
        """The rate with the exact denoiser: ``½ Σ ln[(1 + s² e^lambda_0) / (1 + s² e^lambda_min)] + E[KL term]``.

        ``E[KL term] = ½ Σ (alpha_1² (s² + mean²) + sigma_1² - 1 - ln sigma_1²)``. Equals the information plus
        KL[N(alpha_1 mean, alpha_1² s² + sigma_1²) || N(0, 1)].
        """
        alpha_squared, sigma_squared = _squares(lambda_min)
        energy = float(self.variances.double().sum() + self.mean.double().square().sum())
        terminal = alpha_squared * energy + len(self.mean) * (sigma_squared - 1.0 - math.log(sigma_squared))
        return self.information_nats(lambda_0) - self.information_nats(lambda_min) + 0.5 * terminal


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """z ~ Σ_k weights_k N(means_k, std_k² I)."""

    weights: Float[Tensor, " k"]
    """Probabilities, ``[K]``."""
    means: Float[Tensor, "k d"]
    """``[K, D]``."""
    std: Float[Tensor, " k"]
    """One standard deviation for each component, positive, ``[K]``."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
        """Independent draws, ``[count, D]``."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[which] + self.std[which, None] * noise

    def denoise(
        self, x_t: Float[Tensor, "b d"], logsnr: Float[Tensor, " b"], cond: None = None
    ) -> Float[Tensor, "b d"]:
        """Posterior mean: each component's Gaussian one, weighted by its probability given ``x_t``."""
        alpha_t, sigma_t = alpha(logsnr).to(x_t)[:, None], sigma(logsnr).to(x_t)[:, None]
        weights, means, variances = self.weights.to(x_t), self.means.to(x_t), self.std.to(x_t).square()
        noisy = alpha_t.square() * variances + sigma_t.square()  # [B, K]
        away = x_t[:, None, :] - alpha_t[:, :, None] * means  # [B, K, D]
        log_joint = weights.log() - 0.5 * away.square().sum(2) / noisy - 0.5 * means.shape[1] * noisy.log()
        responsibility = log_joint.softmax(1)[:, :, None]
        component = means + (variances * alpha_t / noisy)[:, :, None] * away
        return (responsibility * component).sum(1)

    def _noisy(self, lambda_t: float) -> tuple[Tensor, Tensor, float]:
        """Points, ln density at them and their spacing for ``alpha z + sigma eps`` in one dimension, float64."""
        if self.means.shape[1] != 1:
            raise UserError(f"quadrature is for one dimension; this mixture has {self.means.shape[1]}")
        alpha_squared, sigma_squared = _squares(lambda_t)
        centres = math.sqrt(alpha_squared) * self.means.double()[:, 0]
        spread = (alpha_squared * self.std.double().square() + sigma_squared).sqrt()
        low, high = float((centres - 12 * spread).min()), float((centres + 12 * spread).max())
        count = math.ceil((high - low) / float(spread.min()) * 8) + 1
        points = torch.linspace(low, high, count, dtype=torch.float64)
        away = (points[:, None] - centres) / spread
        log_parts = self.weights.double().log() - 0.5 * away.square() - spread.log() - 0.5 * math.log(2 * math.pi)
        return points, log_parts.logsumexp(1), (high - low) / (count - 1)

    def mutual_information(self, lambda_0: float) -> float:
        """``I(z; z_0) = h(z_0) - ½ ln(2 pi e sigma_0²)``, one dimension, by quadrature."""
        _, log_density, spacing = self._noisy(lambda_0)
        entropy = -float((log_density.exp() * log_density).sum()) * spacing
        return entropy - 0.5 * math.log(2 * math.pi * math.e * _squares(lambda_0)[1])

    def rate_nats(self, lambda_min: float, lambda_0: float) -> float:
        """The rate with the exact denoiser, one dimension: information plus KL[z at lambda_min || N(0, 1)]."""
        points, log_density, spacing = self._noisy(lambda_min)
        log_normal = -0.5 * points.square() - 0.5 * math.log(2 * math.pi)
        mismatch = float((log_density.exp() * (log_density - log_normal)).sum()) * spacing
        return self.mutual_information(lambda_0) + mismatch


@dataclass(frozen=True, eq=False)
class Independent:
    """z whose dimension d is drawn from ``parts[d]``, a mixture in one dimension, independently of the others."""

    parts: tuple[GaussianMixture, ...]
    """One a dimension, ``D`` of them."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count d"]:
        """Independent draws, ``[count, D]``."""
        return torch.cat([part.sample(count, generator) for part in self.parts], dim=1)

    def denoise(
        self, x_t: Float[Tensor, "b d"], logsnr: Float[Tensor, " b"], cond: None = None
    ) -> Float[Tensor, "b d"]:
        """Posterior mean, dimension by dimension."""
        columns = zip(self.parts, x_t.split(1, dim=1), strict=True)
        return torch.cat([part.denoise(column, logsnr) for part, column in columns], dim=1)

    def rate_nats(self, lambda_min: float, lambda_0: float) -> float:
        """The rate with the exact denoiser, the sum of the dimensions' (by quadrature)."""
        return sum(part.rate_nats(lambda_min, lambda_0) for part in self.parts)


Source = Gaussian | GaussianMixture | Independent
"""Anything whose rate is known."""


def rate_distortion_gaussian(variances: Float[Tensor, " d"], distortion: float) -> float:
    """Shannon's R(D) of independent Gaussians, nats: ``½ Σ max(0, ln(s² / theta))`` by reverse water-filling.

    ``distortion`` is the squared error of the whole vector, ``E||x - x_hat||² = Σ min(theta, s²)``. For correlated
    sources give the covariance's eigenvalues.
    """
    if distortion <= 0.0:
        raise UserError(f"a distortion must be positive, not {distortion}: at 0 the rate is infinite")
    ordered = variances.double().sort().values
    if distortion >= float(ordered.sum()):
        return 0.0
    drowned = torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0)[:-1]])
    above = torch.arange(len(ordered), 0, -1, dtype=torch.float64)
    water = (distortion - drowned) / above  # the level if the k smallest lie under it
    theta = water[water <= ordered][0]
    return float(0.5 * (ordered / theta).log().clamp(min=0.0).sum())


def rate_estimates(
    source: Source,
    pick: Callable[[Draws, int], Levels],
    lambda_min: float,
    *,
    batch: int,
    repeats: int,
    seed: int,
) -> Float[Tensor, " repeats"]:
    """``repeats`` estimates of the rate with the exact denoiser, each the mean over one batch, nats.

    ``pick(draws, batch)`` draws the levels. The spread of the result is the noise that a way of drawing levels puts
    into a training step: ``estimates.std() / estimates.mean()`` is one step's relative standard error.
    """
    estimates = []
    for repeat in range(repeats):
        draws = Draws.keyed(seed, repeat, 0, batch)
        z = source.sample(batch, draws.generator)
        levels = pick(draws, batch)
        z_hat = source.denoise(diffuse(z, draws.normal(z), levels.lambda_t), levels.lambda_t)
        estimates.append(rate_terms(z, z_hat, levels, lambda_min).nats().mean())
    return torch.stack(estimates)
