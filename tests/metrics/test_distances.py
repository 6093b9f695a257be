"""The two distances, against closed forms where there are any and against each other's order where there are none."""

import json

import pytest
import torch

from unilat.metrics import compare
from unilat.metrics.distances import NOT_FID, principal_components
from unilat.types import UserError


def gaussian(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(2.0, 0.5, d)
    return torch.randn(n, d, generator=generator) * spread * scale + shift


def test_principal_components_are_the_widest_directions() -> None:
    """Kills the smallest eigenvectors (eigh's order) and components that are not orthonormal."""
    features = gaussian(4000, 6, 0) + torch.arange(6.0)
    mean, directions = principal_components(features, 2)
    assert torch.allclose(mean, features.double().mean(0))
    assert torch.allclose(directions.T @ directions, torch.eye(2, dtype=torch.float64), atol=1e-10)
    assert directions[0, 0].abs() > 0.98 and directions[1, 1].abs() > 0.95


def test_frechet_of_a_shift_is_the_shift_squared() -> None:
    """Kills a projection without the other set's own mean: an exact copy moved by 3 along one axis is 9 away."""
    real = gaussian(500, 8, 0)
    moved = real.clone()
    moved[:, 0] += 3.0
    assert compare(real, moved)["frechet64"]["value"] == pytest.approx(9.0, rel=1e-6)
    assert compare(real, real)["frechet64"]["value"] == pytest.approx(0.0, abs=1e-9)


def test_frechet_uses_64_components_of_the_real_set() -> None:
    """Kills components of the other set: a difference outside the real set's 64 widest directions is not seen."""
    real = torch.cat([gaussian(400, 64, 0, scale=5.0), 0.01 * gaussian(400, 16, 1)], 1)
    other = real.clone()
    other[:, 64:] += 2.0
    row = compare(real, other)["frechet64"]
    assert row["components"] == 64 and row["value"] < 0.01
    assert compare(other, real)["frechet64"]["value"] < 0.01
    wide = other.clone()
    wide[:, 64] *= 1e5
    assert compare(real, wide)["frechet64"]["value"] < compare(wide, real)["frechet64"]["value"] / 10


def test_equal_distributions_are_near_and_worse_ones_farther() -> None:
    real = gaussian(400, 32, 0)
    same, near, far = (compare(real, gaussian(400, 32, 1, shift=s)) for s in (0.0, 0.3, 1.0))
    assert abs(same["kernel"]["value"]) < 3 * same["kernel"]["stderr"]
    for key in ("kernel", "frechet64"):
        assert same[key]["value"] < near[key]["value"] < far[key]["value"]
    assert far["kernel"]["value"] > 10 * far["kernel"]["stderr"]


def test_both_sides_are_cut_to_one_count_and_the_rows_say_so() -> None:
    """Kills distances between unequal counts and rows without a protocol."""
    real, other = gaussian(300, 16, 0), gaussian(200, 16, 1)
    rows = compare(real, other, protocol="features: a ruler")
    assert rows == compare(real[:200], other, protocol="features: a ruler")
    for row in rows.values():
        assert row["n"] == 200 and "200 against 200" in row["protocol"]
        assert "features: a ruler" in row["protocol"] and NOT_FID in row["protocol"]
    json.dumps(rows)


def test_too_few_pictures_have_a_reason_instead_of_a_number() -> None:
    row = compare(gaussian(100, 200, 0), gaussian(100, 200, 1))["frechet64"]
    assert row["value"] is None and "128" in row["reason"]
    for row in compare(gaussian(2, 4, 0), gaussian(9, 4, 1)).values():
        assert row["value"] is None and "at least 3" in row["reason"] and row["n"] == 2


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="do not fit"):
        compare(gaussian(9, 4, 0), gaussian(9, 5, 0))
    broken = gaussian(9, 4, 0)
    broken[3, 2] = float("nan")
    with pytest.raises(UserError, match="other pictures are not finite"):
        compare(gaussian(9, 4, 0), broken)
