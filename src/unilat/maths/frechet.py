"""Distances between two sets of features, from their statistics (Fréchet) or pairwise (kernel). float64 throughout."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unilat.types import UserError


def mean_and_covariance(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Sample mean and unbiased covariance (divided by n - 1), float64."""
    features = features.double()
    if len(features) < 2:
        raise UserError("a covariance needs at least two examples")
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of examples that come a part at a time, float64; no part is kept."""

    count: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]
    """``Σ (x − mean)(x − mean)ᵀ``."""

    @classmethod
    def of(cls, features: Float[Tensor, "n d"]) -> "Moments":
        """Of one part."""
        exact = features.double()
        apart = exact - exact.mean(0)
        return cls(len(exact), exact.mean(0), apart.T @ apart)

    def plus(self, other: "Moments") -> "Moments":
        """Of both parts: ``S = S_a + S_b + (n_a n_b / n) δ δᵀ``, ``δ = mean_b − mean_a`` (Chan, Golub and LeVeque
        1979, "Updating formulae and a pairwise algorithm for computing sample variances"), which loses no digits to
        a large mean."""
        count, apart = self.count + other.count, other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), scatter)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased, divided by n - 1."""
        if self.count < 2:
            raise UserError("a covariance needs at least two examples")
        return self.scatter / (self.count - 1)


def frechet_distance(
    mean_a: Float[Tensor, " d"], cov_a: Float[Tensor, "d d"], mean_b: Float[Tensor, " d"], cov_b: Float[Tensor, "d d"]
) -> float:
    """``||mean_a - mean_b||² + tr(A) + tr(B) - 2 tr((A^½ B A^½)^½)``: Wasserstein-2 squared between two Gaussians.

    Roots by symmetric eigendecomposition, which keeps them real and the distance symmetric to rounding.
    """
    cov_a, cov_b = cov_a.double(), cov_b.double()
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    product = root_a @ cov_b @ root_a
    cross = torch.linalg.eigvalsh(0.5 * (product + product.T)).clamp(min=0.0).sqrt().sum()
    shift = (mean_a.double() - mean_b.double()).square().sum()
    return float(shift + cov_a.trace() + cov_b.trace() - 2.0 * cross)


def _row_sums(features: Tensor, others: Tensor, chunk: int = 2048) -> Tensor:
    """Σ_j k(features_i, others_j) with ``k(x, y) = (x·y / D + 1)³``, ``[N]``, without holding the whole matrix."""
    parts = [(part @ others.T / others.shape[1] + 1.0).pow(3).sum(1) for part in features.split(chunk)]
    return torch.cat(parts)


def kernel_distance(feats_a: Float[Tensor, "n d"], feats_b: Float[Tensor, "m d"]) -> tuple[float, float]:
    """``(value, standard error)`` of the unbiased squared MMD with the cubic kernel: the kernel distance, KID.

    ``mean_{i≠j} k(a_i, a_j) + mean_{i≠j} k(b_i, b_j) - 2 mean_{ij} k(a_i, b_j)`` over ALL pairs, so it can be negative
    and is 0 on average for equal distributions. The customary mean over random subsets estimates the same number with
    more noise, and its subsets overlap, so their spread is no standard error. Here it is the jackknife's, leaving out
    one example at a time on either side: right where the distributions differ, cautious (up to √2 too wide) where
    they are equal.
    """
    a, b = feats_a.double(), feats_b.double()
    n, m = len(a), len(b)
    if n < 3 or m < 3:
        raise UserError("a kernel distance needs at least three examples on either side")

    def own(x: Tensor) -> Tensor:  # Σ_{j≠i} k(x_i, x_j)
        return _row_sums(x, x) - (x.square().sum(1) / x.shape[1] + 1.0).pow(3)

    within_a, within_b, a_to_b, b_to_a = own(a), own(b), _row_sums(a, b), _row_sums(b, a)
    sum_a, sum_b, sum_ab = within_a.sum(), within_b.sum(), a_to_b.sum()
    mean_a, mean_b, mean_ab = sum_a / (n * (n - 1)), sum_b / (m * (m - 1)), sum_ab / (n * m)
    without_a = (sum_a - 2 * within_a) / ((n - 1) * (n - 2)) + mean_b - 2 * (sum_ab - a_to_b) / ((n - 1) * m)
    without_b = mean_a + (sum_b - 2 * within_b) / ((m - 1) * (m - 2)) - 2 * (sum_ab - b_to_a) / (n * (m - 1))
    variance = (n - 1) * without_a.var(correction=0) + (m - 1) * without_b.var(correction=0)
    return float(mean_a + mean_b - 2.0 * mean_ab), float(variance.sqrt())
