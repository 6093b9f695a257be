"""Scale and shift of z_0 as published configurations tell them."""

from pathlib import Path

import pytest
import torch

from handed import close, handed_run
from unilat.interop import space as spaces
from unilat.interop.space import space, space_of
from unilat.maths.noise import alpha, sigma
from unilat.types import UserError


def test_standardised_latents_have_unit_variance():
    """On latents that are given, with the noise on them: exactly, in each channel and in all together. Kills: the
    encoder's z in place of z_0, a variance for a deviation, 1 / scale, a shift that is left out of the scale, an axis
    too many."""
    torch.manual_seed(0)
    z = torch.randn(400_000, 3) * torch.tensor([0.3, 1.0, 2.5]) + torch.tensor([-1.0, 0.5, 3.0])
    level = torch.tensor(1.0)
    z_0 = alpha(level) * z + sigma(level) * torch.randn_like(z)
    found = space(z.mean(0), z.std(0), 1.0)
    mean, std = torch.tensor(found.latents_mean), torch.tensor(found.latents_std)
    assert close(mean, z_0.mean(0), 0.01) and close(std, z_0.std(0), 0.01)
    scaled = (z_0 - found.shift_factor) * found.scaling_factor
    assert float(scaled.mean()) == pytest.approx(0, abs=0.005) and float(scaled.std()) == pytest.approx(1, abs=0.005)
    assert found.noise_std == pytest.approx(float(sigma(level)))


def test_the_numbers_by_hand():
    """Two channels at λ₀ = 0, where α² = σ² = ½: means ±1/√2, variances ½ 1 + ½ and ½ 9 + ½. Kills: any of them."""
    found = space(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 3.0]), 0.0)
    assert found.latents_mean == pytest.approx((0.5**0.5, -(0.5**0.5)))
    assert found.latents_std == pytest.approx((1.0, 5.0**0.5)) and found.shift_factor == pytest.approx(0)
    assert found.scaling_factor == pytest.approx(1 / ((1 + 5) / 2 + 0.5) ** 0.5)


def test_without_kept_latents_training_pictures_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: held-out pictures among them, pixels in the place of latents, a mean over channels."""
    run = handed_run("plain", tmp_path, monkeypatch)
    from handed import pictures

    train = run.split(pictures())[0]
    z = run.latents(pictures().images[train])
    expected = space(z.mean((0, 2, 3)), z.transpose(0, 1).flatten(1).std(1), 4.0)
    assert space_of(run).latents_mean == pytest.approx(expected.latents_mean, abs=1e-6)  # a mean near zero
    assert space_of(run).latents_std == pytest.approx(expected.latents_std)
    monkeypatch.setattr(spaces, "MOST", 5)
    some = run.latents(pictures().images[train[torch.linspace(0, len(train) - 1, 5).long()]])
    assert space_of(run).latents_mean == pytest.approx((alpha(torch.tensor(4.0)) * some.mean((0, 2, 3))).tolist())


def test_pictures_that_are_gone_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: a scale of 1 where nothing is known."""
    run = handed_run("plain", tmp_path, monkeypatch)
    monkeypatch.undo()
    with pytest.raises(UserError, match="keeps no latents of them"):
        space_of(run)


def test_kept_latents_are_the_statistics(tiny_run: Path):
    """Of the shards that stage 2 was trained on, noise added. Kills: latents read anew, another encoder's latents."""
    import unilat

    run = unilat.load(tiny_run)
    shards = spaces.kept_latents(run)
    assert shards is not None and len(shards) == run.data.train
    found = space_of(run)
    level = torch.tensor(run.config.autoencoder.lambda_0)
    whole = shards.z.whole()
    assert torch.tensor(found.latents_mean).allclose(alpha(level) * whole.mean((0, 2, 3)), atol=1e-5)
    run.encoder_sha256 = "0" * 64
    assert spaces.kept_latents(run) is None
