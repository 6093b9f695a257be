"""The two distances, against closed forms where there are any and against each other's order where there are none."""

import math

import pytest
import torch

from unilat.metrics import compare
from unilat.metrics.distances import NOT_FID, principal_components
from unilat.types import UserError


def gaussian(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(2.0, 0.5, d)
    return torch.randn(n, d, generator=generator) * spread * scale + shift


def patterns(columns: int) -> torch.Tensor:
    """``[16, columns]``: patterns of ±1 that are orthogonal, scaled to sample variance 1; their means are 0."""
    signs = torch.tensor([[1.0]])
    for _ in range(4):
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs[:, 1 : columns + 1] * (15 / 16) ** 0.5


def test_principal_components_are_the_widest_directions() -> None:
    """Uncorrelated columns of spreads 1, 4, 2, 3. Kills the smallest eigenvectors, eigh's order, and other scales."""
    mean, directions = principal_components(patterns(4) * torch.tensor([1.0, 4.0, 2.0, 3.0]) + torch.arange(4.0), 3)
    assert mean.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=1e-6)
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[[1, 3, 2], [0, 1, 2]] = 1.0
    assert torch.allclose(directions.abs(), expected, atol=1e-6)


def test_frechet_of_a_shift_is_the_shift_squared() -> None:
    """Kills a projection without the other set's own mean: an exact copy moved by 3 along one axis is 9 away."""
    real = gaussian(500, 8, 0)
    moved = real.clone()
    moved[:, 0] += 3.0
    assert compare(real, moved).frechet64.value == pytest.approx(9.0, rel=1e-6)
    assert compare(real, real).frechet64.value == pytest.approx(0.0, abs=1e-9)


def test_frechet_uses_64_components_of_the_real_set() -> None:
    """Kills components of the other set: a difference outside the real set's 64 widest directions is not seen."""
    real = torch.cat([gaussian(400, 64, 0, scale=5.0), 0.01 * gaussian(400, 16, 1)], 1)
    other = real.clone()
    other[:, 64:] += 2.0
    found = compare(real, other)
    assert found.components == 64 and found.frechet64.value < 0.01
    assert compare(other, real).frechet64.value < 0.01
    wide = other.clone()
    wide[:, 64] *= 1e5
    assert compare(real, wide).frechet64.value < compare(wide, real).frechet64.value / 10


def test_frechet_is_the_closed_form_where_the_covariances_are_diagonal() -> None:
    """``|mean shift|² + Σ (s_a − s_b)²`` of exact moments. Kills a distance without covariances or their root."""
    wide, shift = torch.tensor([2.0, 3.0, 0.5, 1.0]), torch.tensor([0.5, 0.0, -1.0, 2.0])
    other = torch.tensor([1.0, 5.0, 0.25, 1.5])
    found = compare(patterns(4) * wide + 7.0, patterns(4) * other + 7.0 + shift)
    expected = float(shift.square().sum() + (wide - other).square().sum())
    assert found.frechet64.value == pytest.approx(expected, rel=1e-5) and found.components == 4
    assert found.frechet64.n == 16


def by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased squared MMD with the cubic kernel, pair by pair."""

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x.double() @ y.double()) / len(x) + 1.0) ** 3

    def own(rows: torch.Tensor) -> float:
        values = [kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(values) / len(values)

    across = [kernel(x, y) for x in a for y in b]
    return own(a) + own(b) - 2 * sum(across) / len(across)


def test_the_kernel_distance_is_that_of_the_first_pictures_pair_by_pair() -> None:
    """13 against the first 9, both ways, and the jackknife by leaving each out. Kills the last rows and another cut."""
    real, other = gaussian(13, 3, 0, shift=0.3), gaussian(9, 3, 1, scale=1.5)
    for a, b in ((real, other), (other, real)):
        row = compare(a, b).kernel
        a, b = a[:9], b[:9]
        assert row.value == pytest.approx(by_hand(a, b), rel=1e-9) and row.n == 9
        without = [
            [by_hand(torch.cat([a[:i], a[i + 1 :]]), b) for i in range(9)],
            [by_hand(a, torch.cat([b[:i], b[i + 1 :]])) for i in range(9)],
        ]
        spread = sum(8 / 9 * sum((value - sum(left) / 9) ** 2 for value in left) for left in without)
        assert row.stderr == pytest.approx(spread**0.5, rel=1e-9)


def test_a_distance_is_told_from_twice_as_many_pictures_as_components_on() -> None:
    """Kills a limit of one picture a component, and one of more than two: 9 are too few for 5, 10 are not."""
    real, other = gaussian(10, 5, 0), gaussian(10, 5, 1)
    found = compare(real[:9], other)
    assert math.isnan(found.frechet64.value) and found.frechet64.n == 9 and found.components == 5
    assert found.reason == "needs at least 10 pictures on either side for 5 components, here are 9"
    assert compare(real, other).frechet64.value > 0 and compare(real, other).reason == ""


def test_components_are_the_real_sets_widest_however_few() -> None:
    """70 features, 64 of which are kept: the other set is 9 away along the real set's widest and narrowest ones."""
    spread = torch.linspace(3.0, 0.1, 70)
    real = torch.randn(400, 70, generator=torch.Generator().manual_seed(0)) * spread
    _, directions = principal_components(real, 70)
    for column, expected in ((0, 9.0), (63, 9.0), (64, 0.0), (69, 0.0)):
        moved = real + 3.0 * directions[:, column]
        assert compare(real, moved).frechet64.value == pytest.approx(expected, rel=1e-6, abs=1e-6)
    narrow = directions[:, 69:]
    stretched = real + 99.0 * (real - real.mean(0)).double() @ narrow @ narrow.T  # now the other set's widest
    assert compare(real, stretched).frechet64.value == pytest.approx(0.0, abs=1e-6)


def test_equal_distributions_are_near_and_worse_ones_farther() -> None:
    """Kills a distance that falls, an error that is too small and a bias as large as a shift."""
    real = gaussian(400, 32, 0)
    same, near, far = (compare(real, gaussian(400, 32, 1, shift=s)) for s in (0.0, 0.3, 1.0))
    assert abs(same.kernel.value) < 3 * (same.kernel.stderr or 0)
    assert same.kernel.value < near.kernel.value < far.kernel.value
    assert same.frechet64.value < near.frechet64.value < far.frechet64.value
    assert far.kernel.value > 10 * (far.kernel.stderr or 1)


def test_both_sides_are_cut_to_one_count_and_the_rows_say_so() -> None:
    """Kills distances between unequal counts, rows without a protocol, and one distance's protocol under the other."""
    real, other = gaussian(300, 16, 0), gaussian(200, 16, 1)
    rows = compare(real, other, protocol="features: a ruler")
    assert rows == compare(real[:200], other, protocol="features: a ruler")
    for row in (rows.kernel, rows.frechet64):
        assert row.n == 200 and "200 against 200" in row.protocol
        assert "features: a ruler" in row.protocol and NOT_FID in row.protocol
    assert rows.kernel.protocol.startswith("kernel distance (unbiased squared MMD, cubic kernel, all pairs)")
    assert rows.frechet64.protocol.startswith("Fréchet distance on the first 16 principal components of the real")


def test_too_few_pictures_have_a_reason_instead_of_a_number() -> None:
    """Kills a covariance of fewer pictures than components told as a distance."""
    found = compare(gaussian(100, 200, 0), gaussian(100, 200, 1))
    assert math.isnan(found.frechet64.value) and math.isfinite(found.kernel.value) and "128" in found.reason
    found = compare(gaussian(2, 4, 0), gaussian(9, 4, 1))
    assert "at least 3" in found.reason
    for row in (found.kernel, found.frechet64):
        assert math.isnan(row.value) and row.n == 2


def test_features_that_do_not_fit_are_refused() -> None:
    """Kills a comparison of other lengths, and NaN told as a distance."""
    with pytest.raises(UserError, match="do not fit"):
        compare(gaussian(9, 4, 0), gaussian(9, 5, 0))
    broken = gaussian(9, 4, 0)
    broken[3, 2] = float("nan")
    with pytest.raises(UserError, match="other pictures are not finite"):
        compare(gaussian(9, 4, 0), broken)
