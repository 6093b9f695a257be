"""Precision and recall on points whose balls can be drawn by hand."""

import math

import pytest
import torch

from unilat.metrics import compare, precision_recall
from unilat.metrics.distances import NOT_FID
from unilat.metrics.manifolds import share_within
from unilat.types import UserError


def line(*places: float) -> torch.Tensor:
    """Points on a line in two dimensions, away from the origin."""
    return torch.tensor([[3.0 * place / 5.0 + 7.0, 4.0 * place / 5.0] for place in places], dtype=torch.float64)


def test_a_point_is_within_where_a_ball_reaches_it() -> None:
    """Balls of 0, 1, 3, 7 with k = 2: radii 3, 2, 3, 6, so they cover [-3, 13]. Kills the point itself as its first
    neighbour, k + 1, balls around the points asked about, squared radii, and the largest distance for a ball."""
    manifold = line(0, 1, 3, 7)
    inside, outside = line(-2.9, 0, 5, 12.9), line(-3.1, 13.1)
    assert share_within(inside, manifold, 2) == 1.0 and share_within(outside, manifold, 2) == 0.0
    assert share_within(torch.cat([inside, outside]), manifold, 2) == pytest.approx(4 / 6)
    assert share_within(line(-0.9, 4.9, 11.1, -1.1), manifold, 1) == pytest.approx(2 / 4)  # radii 1, 1, 2, 4: [-1, 11]


def test_the_border_of_a_ball_is_in_it() -> None:
    """Whole numbers, exact in float64. Kills `<` for `≤`."""
    manifold = torch.tensor([[0, 0], [3, 4], [0, 5], [-5, 0]])  # k = 3: radii 5, √80, √50, √80
    assert share_within(torch.tensor([[0, -5], [0, -6]]), manifold[:3], 2) == 0.5  # radius of the origin: 5


def test_copies_are_neighbours_with_balls_of_no_size() -> None:
    """Kills: copies left out as if they were the point itself."""
    assert share_within(line(1.0, 1.1), line(1, 1, 1, 9), 2) == pytest.approx(1.0)  # 9 reaches back to 1
    assert share_within(line(1.0, 1.1, 0.9), line(1, 1, 1), 2) == pytest.approx(1 / 3)


def test_many_rows_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: the wrong place left out of a later part of the matrix, and a part that is lost."""
    generator = torch.Generator().manual_seed(0)
    points, manifold = torch.randn(41, 3, generator=generator) * 1.5, torch.randn(37, 3, generator=generator)
    distances = torch.cdist(manifold, manifold).sort(1).values[:, 3]
    wanted = (torch.cdist(points, manifold) <= distances).any(1).double().mean()
    assert 0.2 < wanted < 0.9 and share_within(points, manifold, 3) == pytest.approx(float(wanted))
    nearest = share_within(points, manifold, 1)
    assert 0 < nearest < float(wanted)
    monkeypatch.setattr("unilat.metrics.manifolds.ROWS", 10)
    assert share_within(points, manifold, 3) == pytest.approx(float(wanted))
    assert share_within(points, manifold, 1) == pytest.approx(nearest)


def test_precision_is_of_the_made_and_recall_of_the_real() -> None:
    """Made pictures that all look like one half of the real ones: all are real, half of the real ones are made. Kills
    the two exchanged, sets of unequal counts, an error of another share, and a line without k, n or features."""
    real, made = line(0, 1, 2, 3, 4, 100, 110, 120, 130, 140), line(*(i / 8 for i in range(20)))
    precision, recall = precision_recall(real, made, protocol="a ruler")
    assert precision.value == 1.0 and precision.stderr == 0.0  # radii of 0 to 4: 3, 2, 2, 2, 3
    # the first ten made ones lie in [0, 1.125], the ball of the last reaches 0.375 further, of the first below 0
    assert recall.value == pytest.approx(0.2) and recall.stderr == pytest.approx(math.sqrt(0.2 * 0.8 / 10))
    assert precision.n == recall.n == 10
    assert precision.protocol == "precision (Kynkäänniemi et al. 2019, k = 3), 10 against 10; a ruler"
    assert recall.protocol.startswith("recall (Kynkäänniemi et al. 2019, k = 3), 10 against 10")


def test_they_stand_beside_the_distances() -> None:
    """Kills: the other way round in ``compare``, and a protocol without the network."""
    real, made = line(0, 1, 2, 3, 4, 100, 110, 120, 130, 140), line(*(i / 8 for i in range(20)))
    found = compare(real, made, protocol="a ruler")
    assert found.precision is not None and found.recall is not None
    assert (found.precision.value, found.recall.value) == (1.0, pytest.approx(0.2))
    assert found.precision.protocol.endswith(f"; a ruler; {NOT_FID}")


def test_too_few_points_have_no_share() -> None:
    """Kills: an index out of range, and a share of nothing told as 0."""
    for share in precision_recall(line(0, 1, 2), line(0, 1, 2, 3)):
        assert math.isnan(share.value) and share.stderr is None and share.n == 3
    assert not math.isnan(precision_recall(line(0, 1, 2, 3), line(0, 1, 2, 3))[0].value)
    with pytest.raises(UserError, match="3 points are too few"):
        share_within(line(0), line(0, 1, 2), 3)
