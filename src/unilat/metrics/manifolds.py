"""How much of what is made looks real, and how much of what is real is made: precision and recall of features.

One distance mixes both: samples that are all alike and good, and samples that are varied and bad, may lie equally far.
"""

import math

import torch
from torch import Tensor

from unilat.results import Number
from unilat.types import UserError

NEIGHBOURS = 3
ROWS = 1024
"""Rows of a matrix of distances that are held at once."""


def _squares(rows: Tensor, others: Tensor) -> Tensor:
    """``‖row − other‖²``, ``[len(rows), len(others)]``."""
    return rows.square().sum(1)[:, None] + others.square().sum(1) - 2.0 * rows @ others.T


def _radii(points: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other one, ``[N]``."""
    found = []
    for first in range(0, len(points), ROWS):
        squares = _squares(points[first : first + ROWS], points)
        squares.diagonal(first).fill_(math.inf)  # a point is not its own neighbour, a copy of it is
        found.append(squares.kthvalue(k, dim=1).values)
    return torch.cat(found)


def share_within(points: Tensor, manifold: Tensor, k: int = NEIGHBOURS) -> float:
    """Share of ``points [M, D]`` that lie in the ``manifold [N, D]``: in the union of balls around its points.

    ``mean_i max_j 1(‖p_i − m_j‖ ≤ ‖m_j − NN_k(m_j)‖)``, where ``NN_k`` is the k-th nearest other point of the manifold
    (Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019, "Improved precision and recall metric for assessing generative
    models", eq. 1 and 2). float64; a point on the border of a ball is in it. Raises UserError for k points or fewer.
    """
    if not 0 < k < len(manifold):
        raise UserError(f"a ball reaches to the neighbour {k} of a point: {len(manifold)} points are too few")
    points, manifold = points.double(), manifold.double()
    radii = _radii(manifold, k)
    inside = [(_squares(part, manifold) <= radii).any(1) for part in points.split(ROWS)]
    return float(torch.cat(inside).double().mean())


def precision_recall(
    real: Tensor, made: Tensor, *, k: int = NEIGHBOURS, protocol: str = "features not named"
) -> tuple[Number, Number]:
    """``(precision, recall)`` of the ``made`` features against the ``real`` ones, both ``[., D]``, in [0, 1].

    precision  share of the made pictures that lie in the manifold of the real ones (:func:`share_within`)
    recall     share of the real pictures that lie in the manifold of the made ones

    Both sets are cut to the same n, the first ones: the more points, the smaller the balls, so compare equal ``n``
    only. ``stderr`` is the binomial ``√(p (1 − p) / n)`` over the points that are counted, with the manifold as it is.
    NaN where there are no more than k pictures on either side.
    """
    n = min(len(real), len(made))
    real, made = real[:n], made[:n]
    found = []
    for name, points, manifold in (("precision", made, real), ("recall", real, made)):
        line = f"{name} (Kynkäänniemi et al. 2019, k = {k}), {n:,} against {n:,}; {protocol}"
        share = share_within(points, manifold, k) if n > k else math.nan
        stderr = math.sqrt(share * (1.0 - share) / n) if n > k else None
        found.append(Number(value=share, stderr=stderr, n=n, protocol=line))
    return found[0], found[1]
