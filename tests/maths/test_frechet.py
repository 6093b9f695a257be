import math

import pytest
import torch

from unilat.maths.frechet import Moments, _row_sums, frechet_distance, kernel_distance, mean_and_covariance
from unilat.types import UserError

from .sources import F64, covariance, seeded

MEAN_A, MEAN_B = torch.tensor([0.5, -1.0, 2.0], dtype=F64), torch.tensor([0.0, 0.3, 2.5], dtype=F64)


def other_covariance():
    root = torch.tensor([[0.6, 0.1, 0.0], [0.9, 1.1, -0.3], [-0.2, 0.8, 0.5]], dtype=F64)
    return root @ root.T


def test_diagonal_closed_form():
    """||mean||² + Σ (sqrt(a) - sqrt(b))². Kills: the cross term taken once, not twice."""
    a, b = torch.tensor([4.0, 0.25, 1.0], dtype=F64), torch.tensor([1.0, 2.0, 0.0], dtype=F64)
    expected = float((MEAN_A - MEAN_B).square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(MEAN_A, a.diag(), MEAN_B, b.diag()) == pytest.approx(expected, rel=1e-12)


def test_general_closed_form():
    """tr (AB)^½ from the eigenvalues of AB itself, which do not commute. Kills: A B without A's second root."""
    a, b = covariance(), other_covariance()
    cross = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    expected = float((MEAN_A - MEAN_B).square().sum() + a.trace() + b.trace() - 2 * cross)
    assert frechet_distance(MEAN_A, a, MEAN_B, b) == pytest.approx(expected, rel=1e-10)


def test_distance_is_symmetric_and_zero_to_itself():
    """Also where ranks fall short. Kills: the squared shift of means left unsquared."""
    flat = covariance() * torch.tensor([1.0, 1.0, 0.0], dtype=F64)[:, None] * torch.tensor([1.0, 1.0, 0.0], dtype=F64)
    for cov in (covariance(), flat):
        forth = frechet_distance(MEAN_A, cov, MEAN_B, other_covariance())
        assert forth == pytest.approx(frechet_distance(MEAN_B, other_covariance(), MEAN_A, cov), rel=1e-9)
        assert forth > 0
        assert frechet_distance(MEAN_A, cov, MEAN_A, cov) == pytest.approx(0.0, abs=1e-7)


def test_distance_scales_like_a_square():
    """Features times c, distance times c². Kills: roots of eigenvalues left out of A^½."""
    once = frechet_distance(MEAN_A, covariance(), MEAN_B, other_covariance())
    scaled = frechet_distance(3 * MEAN_A, 9 * covariance(), 3 * MEAN_B, 9 * other_covariance())
    assert scaled == pytest.approx(9 * once, rel=1e-9)


def test_sample_moments():
    """Against torch.cov, in float64 from float32. Kills: division by n."""
    features = torch.randn(7, 4, generator=seeded(0)) * torch.tensor([1.0, 100.0, 0.1, 3.0]) + 50.0
    mean, cov = mean_and_covariance(features)
    assert torch.allclose(mean, features.double().mean(0), rtol=1e-12)
    assert torch.allclose(cov, torch.cov(features.double().T), rtol=1e-9)


def test_kernel_distance_by_hand():
    """All pairs in plain loops, and its jackknife. Kills: pairs of an example with itself counted."""

    def kernel(x, y):
        return (float(x @ y) / 4 + 1) ** 3

    def distance(a, b):
        n, m = len(a), len(b)
        own_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        own_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        return own_a + own_b - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)

    def spread(values):
        values = torch.tensor(values, dtype=F64)
        return (len(values) - 1) * float(values.var(correction=0))

    a, b = torch.randn(6, 4, generator=seeded(1), dtype=F64), 0.5 + torch.randn(4, 4, generator=seeded(2), dtype=F64)
    value, error = kernel_distance(a, b)
    assert value == pytest.approx(distance(a, b), rel=1e-10)
    without = lambda x, i: torch.cat([x[:i], x[i + 1 :]])  # noqa: E731
    variance = spread([distance(without(a, i), b) for i in range(6)]) + spread(
        [distance(a, without(b, i)) for i in range(4)]
    )
    assert error == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_kernel_distance_is_unbiased_on_equal_distributions():
    """Mean of 300 is 0 within 3 s.e.; the error told is not too small. Kills: the cross term's 2 left out."""
    results = [
        kernel_distance(torch.randn(40, 8, generator=seeded(i)), torch.randn(30, 8, generator=seeded(1000 + i)))
        for i in range(300)
    ]
    values, errors = (torch.tensor(column, dtype=F64) for column in zip(*results, strict=True))
    assert abs(float(values.mean())) < 3 * float(values.std()) / math.sqrt(300)
    assert 1.0 < float(errors.square().mean().sqrt() / values.std()) < 1.7


def test_kernel_distances_error_is_right_where_distributions_differ():
    """Its square is the variance over repetitions. Kills: the second set's share of the error left out."""
    results = [
        kernel_distance(
            1.0 + torch.randn(60, 5, generator=seeded(i)), 1.5 * torch.randn(25, 5, generator=seeded(1000 + i))
        )
        for i in range(300)
    ]
    values, errors = (torch.tensor(column, dtype=F64) for column in zip(*results, strict=True))
    assert 0.8 < float(errors.square().mean().sqrt() / values.std()) < 1.25


def test_row_sums_do_not_depend_on_chunks():
    """Chunks of 3 and of all rows. Kills: only the first chunk summed."""
    a, b = torch.randn(10, 4, generator=seeded(1), dtype=F64), torch.randn(7, 4, generator=seeded(2), dtype=F64)
    assert torch.allclose(_row_sums(a, b, chunk=3), _row_sums(a, b), rtol=1e-12)


def test_too_few_examples_are_told():
    """A covariance of one, a jackknife of two. Kills: the check of counts removed."""
    with pytest.raises(UserError, match="two examples"):
        mean_and_covariance(torch.zeros(1, 3))
    with pytest.raises(UserError, match="three examples"):
        kernel_distance(torch.zeros(2, 3), torch.zeros(9, 3))


def test_single_precision_statistics_are_taken_up():
    """Far from the origin float32 has no digits left. Kills: products and roots in the features' own precision."""
    wide = torch.tensor([1.0, 1e3, 1e-2])
    a, b = (covariance().float() * wide[:, None] * wide, other_covariance().float() * wide[:, None] * wide)
    cross = torch.linalg.eigvals(a.double() @ b.double()).real.clamp(min=0).sqrt().sum()
    exact = float((MEAN_A - MEAN_B).square().sum() + (a.double() + b.double()).trace() - 2 * cross)
    assert frechet_distance(MEAN_A, a, MEAN_B, b) == pytest.approx(exact, rel=1e-9)
    left, right = 50.0 + torch.randn(9, 4, generator=seeded(1)), 50.1 + torch.randn(7, 4, generator=seeded(2))
    own, other, between = (
        (x.double() @ y.double().T / 4 + 1) ** 3 for x, y in ((left, left), (right, right), (left, right))
    )
    exact = float((own.sum() - own.trace()) / 72 + (other.sum() - other.trace()) / 42 - 2 * between.mean())
    assert kernel_distance(left, right)[0] == pytest.approx(exact, rel=1e-6)


def test_moments_of_two_parts_are_those_of_both():
    """Unequal parts, other means. Kills: parts weighted alike, the step between their means left out or of one sign."""
    rows = torch.randn(11, 3, generator=seeded(5), dtype=F64) * torch.tensor([1.0, 2.0, 0.5]) + MEAN_A
    rows[4:] += torch.tensor([3.0, -2.0, 10.0])
    found = Moments.of(rows[:4]).plus(Moments.of(rows[4:]))
    mean, cov = mean_and_covariance(rows)
    assert found.count == 11
    assert torch.allclose(found.mean, mean, rtol=1e-12) and torch.allclose(found.covariance, cov, rtol=1e-12)
    with pytest.raises(UserError, match="at least two"):
        _ = Moments.of(rows[:1]).covariance
