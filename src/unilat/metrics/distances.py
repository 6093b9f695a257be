"""How far two sets of pictures are apart, from their features: two distances that stand on small sets.

The customary Fréchet distance estimates a 1,280² covariance and, with 1,000 pictures, is mostly bias (real against
real: 178). Two numbers that do stand on few pictures take its place: the kernel distance, unbiased, with its standard
error, and the Fréchet distance on the first 64 principal components. Neither compares with a published FID.
"""

import math

import torch
from torch import Tensor

from unilat.maths.frechet import frechet_distance, kernel_distance, mean_and_covariance
from unilat.metrics.manifolds import precision_recall
from unilat.results import Distance, Number
from unilat.types import UserError

COMPONENTS = 64
NOT_FID = "no number here compares with a published FID"


def principal_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``(mean [D], directions [D, count])``, float64: where ``features [N, D]`` vary most, largest variance first."""
    mean, covariance = mean_and_covariance(features)
    _, vectors = torch.linalg.eigh(covariance)
    return mean, vectors[:, -count:].flip(1)


def compare(features_a: Tensor, features_b: Tensor, *, protocol: str = "features not named") -> Distance:
    """Distances of the set b from the real set a.

    kernel     unbiased squared MMD with ``(x·y/D + 1)³`` (KID), ``value`` and ``stderr`` (jackknife over pictures;
               cautious where b is made from a picture by picture, because it takes the sets as independent). Around 0
               for equal sets, and then as often negative.
    frechet64  Wasserstein-2 squared between Gaussians on the first 64 principal components of the REAL features. Always
               positive and biased upwards by a term that falls as 1/n: compare equal ``n`` only. ``value`` is NaN,
               with a ``reason``, where there are fewer than twice as many pictures as components.
    precision  share of b among real ones, and
    recall     share of real ones among b (:func:`~unilat.metrics.manifolds.precision_recall`).

    Both sets are cut to the same ``n``, the first ones, so pass them in random order. ``protocol`` is the feature
    network's own line and becomes part of each number's. UserError when shapes do not fit or a value is not finite.
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise UserError(f"feature sets do not fit: {tuple(features_a.shape)} against {tuple(features_b.shape)}")
    n = min(len(features_a), len(features_b))
    a, b = features_a[:n].double(), features_b[:n].double()
    for name, features in (("real", a), ("other", b)):
        if not torch.isfinite(features).all():
            raise UserError(f"the features of the {name} pictures are not finite: no distance can be told")
    if n < 3:
        reason = f"a distance needs at least 3 pictures on either side, here are {n}"
        none = Number(value=math.nan, n=n, protocol=protocol)
        return Distance(kernel=none, frechet64=none, reason=reason, precision=none, recall=none)
    precision, recall = precision_recall(a, b, protocol=f"{protocol}; {NOT_FID}")
    value, stderr = kernel_distance(a, b)
    line = (
        f"kernel distance (unbiased squared MMD, cubic kernel, all pairs), {n:,} against {n:,}; {protocol}; {NOT_FID}"
    )
    kernel = Number(value=value, stderr=stderr, n=n, protocol=line)
    count = min(COMPONENTS, a.shape[1])
    line = (
        f"Fréchet distance on the first {count} principal components of the real features, {n:,} against {n:,}; "
        f"{protocol}; {NOT_FID}"
    )
    if n < 2 * count:
        reason = f"needs at least {2 * count} pictures on either side for {count} components, here are {n}"
        frechet = Number(value=math.nan, n=n, protocol=line)
        return Distance(
            kernel=kernel, frechet64=frechet, components=count, reason=reason, precision=precision, recall=recall
        )
    mean, directions = principal_components(a, count)
    a, b = (a - mean) @ directions, (b - mean) @ directions
    value = frechet_distance(*mean_and_covariance(a), *mean_and_covariance(b))
    frechet = Number(value=value, n=n, protocol=line)
    return Distance(kernel=kernel, frechet64=frechet, components=count, precision=precision, recall=recall)
