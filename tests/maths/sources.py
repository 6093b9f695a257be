"""Sources that no symmetry makes easy: affine, unequal variances, correlated."""

import math

import torch

from unilat.maths.noise import alpha, expand, sigma
from unilat.maths.oracle import Gaussian, GaussianMixture

F64 = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance() -> torch.Tensor:
    root = torch.tensor([[1.3, 0.0, 0.0], [-0.7, 0.4, 0.0], [0.5, 0.2, 0.15]], dtype=F64)
    return root @ root.T


def correlated() -> Gaussian:
    return Gaussian.correlated(covariance(), torch.tensor([0.5, -1.5, 2.0], dtype=F64))


def mixture() -> GaussianMixture:
    """One dimension, three unequal components."""
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    return GaussianMixture(
        weights, torch.tensor([[-2.0], [0.3], [1.1]], dtype=F64), torch.tensor([0.3, 0.5, 0.1], dtype=F64)
    )


def kolmogorov_smirnov(quantiles):
    """sqrt(n) times the greatest distance from the uniform distribution; above 1.63 once in a hundred."""
    ordered = quantiles.double().sort().values
    steps = torch.arange(len(ordered) + 1, dtype=F64) / len(ordered)
    return math.sqrt(len(ordered)) * float(torch.maximum(ordered - steps[:-1], steps[1:] - ordered).max())


def coarse_reconstruction_nats(lambda_max: float) -> float:
    """Closed form of one number's reconstruction where the noise spans many grey levels and no border is near.

    ``½ ln(2 pi e e^-lambda_max) - ln(2 / 255)``: the entropy of the noise in x over the width of a byte.
    """
    return 0.5 * (math.log(2.0 * math.pi * math.e) - lambda_max) - math.log(2.0 / 255.0)


def noise_of(x_t, x, lambda_t):
    """``eps = (x_t - alpha x) / sigma``."""
    return (x_t - expand(alpha(lambda_t), x_t) * x) / expand(sigma(lambda_t), x_t)
