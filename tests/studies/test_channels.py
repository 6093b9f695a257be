"""Statistics of latents by channel, against latents whose mean, scale, noise and correlation are known."""

import math

import numpy as np
import pytest
import torch

from unilat.studies.channels import channels_of, own_level, posterior_kl, scaling_of, standardised
from unilat.types import UserError

MEANS, STDS = torch.tensor([0.0, 3.0, -1.0]), torch.tensor([1.0, 0.2, 7.0])


def _latents(count: int = 4000, seed: int = 0) -> torch.Tensor:
    """Independent Gaussian latents ``[count, 3, 2, 5]`` with ``MEANS`` and ``STDS``."""
    noise = torch.randn(count, 3, 2, 5, generator=torch.Generator().manual_seed(seed))
    return MEANS.view(1, 3, 1, 1) + STDS.view(1, 3, 1, 1) * noise


def test_means_scales_and_correlations():
    """Kills statistics over the wrong axes, of one batch, or with standard deviation and variance mixed up."""
    z = _latents()
    z[:, 2] = 0.6 * z[:, 2] - 0.8 * 7.0 / 0.2 * (z[:, 1] - 3.0)
    found = channels_of(z)
    assert torch.allclose(found.mean.float(), torch.tensor([0.0, 3.0, -0.6]), atol=0.15)
    assert torch.allclose(found.std.float(), STDS, rtol=0.02) and torch.allclose(found.spread.float(), STDS, rtol=0.02)
    assert float(found.correlation[1, 2]) == pytest.approx(-0.8, abs=0.02)
    assert float(found.correlation[0, 1]) == pytest.approx(0.0, abs=0.02)
    assert found.noise is None and found.capacity is None and not bool(found.dead.any())


def test_standardised_latents_have_mean_0_and_variance_1():
    """Kills a division by the variance, statistics of another channel, and dead channels that are blown up to 1."""
    z = _latents()
    z[:, 1] = 3.0 + 1e-6 * z[:, 1]
    found = channels_of(z)
    unit = standardised(z, found)
    assert tuple(unit.shape) == (4000, 2, 2, 5)
    assert torch.allclose(unit.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(unit.std((0, 2, 3)), torch.ones(2), atol=1e-4)


def test_a_channel_that_varies_by_place_alone_is_dead():
    """Kills a spread that is taken over places too: a fixed pattern tells nothing about the picture."""
    z = _latents()
    z[:, 0] = torch.linspace(-3, 3, 10).view(1, 2, 5)
    found = channels_of(z)
    assert found.dead.tolist() == [True, False, False]
    assert float(found.std[0]) > 1 and float(found.spread[0]) < 1e-6


def test_with_a_posterior_its_noise_decides():
    """Kills a threshold on the scale: a narrow channel is alive under little noise or none that is known, a wide one
    dead under much."""
    z = _latents()
    z[:, 1] = 3.0 + (z[:, 1] - 3.0) * 0.01  # standard deviation 0.002, 3,500 times below the widest
    logvar = torch.tensor([math.log(100.0), math.log(1e-10), math.log(0.49)]).view(1, 3, 1, 1).expand_as(z)
    found = channels_of(z, logvar)
    assert found.dead.tolist() == [True, False, False]
    assert channels_of(z).dead.tolist() == [False, False, False]
    assert channels_of(z).faint.tolist() == [False, True, False] and not bool(found.faint.any())
    assert found.capacity is not None
    assert float(found.capacity[2]) == pytest.approx(0.5 * math.log2(1 + 49 / 0.49), rel=0.01)
    assert own_level(found)[2] == pytest.approx(math.log(49 / 0.49), abs=0.05)
    assert own_level(channels_of(z)) == [None, None, None]


def test_posterior_kl_is_that_of_two_normals():
    """Kills a lost ½, a lost −1 and a wrong sign of the log-variance."""
    mean, logvar = torch.tensor([0.5, -2.0, 0.0]), torch.tensor([-1.0, 0.3, 0.0])
    posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(posterior_kl(mean, logvar), expected, atol=1e-6)
    z, logvars = _latents(50), torch.full((50, 3, 2, 5), -1.0)
    found = channels_of(z, logvars)
    assert found.kl is not None
    assert torch.allclose(found.kl, posterior_kl(z, logvars).double().sum((2, 3)).mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("declared", "shift", "factor"),
    [
        ({}, [0.0, 0.0], [1.0, 1.0]),
        ({"scaling_factor": 0.5, "shift_factor": 0.25}, [0.25, 0.25], [0.5, 0.5]),
        (
            {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [4.0, 0.25]},
            [1.0, 2.0],
            [0.125, 2.0],
        ),
    ],
)
def test_scale_and_shift_as_diffusers_pipelines_use_them(declared: dict, shift: list[float], factor: list[float]):
    """Kills a division by scaling_factor, a shift after the scale and latents_std as a factor."""
    found = scaling_of(declared, 2)
    assert found.shift.tolist() == shift and found.factor.tolist() == factor


@pytest.mark.parametrize(
    "declared", [{"latents_std": [1.0, 0.0]}, {"scaling_factor": -1.0}, {"latents_mean": [1.0] * 5}]
)
def test_scales_that_no_latents_have(declared: dict):
    """Kills a division by zero, and broadcasting over channels that are not there."""
    with pytest.raises(UserError):
        scaling_of(declared, 2)


def test_statistics_by_hand():
    """Two latents of two channels on three places, by numpy's own words. Kills: an unbiased for the plain variance, a
    spread over places, noise that is e to the mean, a KL of means, correlation without its sign or its means."""
    z = torch.tensor([[[1.0, 2.0, 6.0], [0.5, 0.0, -1.0]], [[3.0, 0.0, 6.0], [-2.5, 1.0, -1.0]]])
    logvar = torch.tensor([[[-1.0, 0.0, 2.0], [0.5, 0.1, -3.0]], [[-2.0, 1.0, 0.0], [0.0, 0.0, -1.0]]])
    found, array = channels_of(z, logvar), z.double().numpy()
    flat = array.transpose(1, 0, 2).reshape(2, 6)
    assert found.mean.tolist() == pytest.approx(list(flat.mean(1)))
    assert found.std.tolist() == pytest.approx(list(flat.std(1)))
    assert found.spread.tolist() == pytest.approx(list(array.var(0).mean(1) ** 0.5))
    assert found.correlation.tolist()[0] == pytest.approx(list(np.corrcoef(flat)[0]))
    assert found.noise is not None and found.kl is not None and found.capacity is not None
    noise = np.exp(logvar.double().numpy()).mean((0, 2))
    assert found.noise.tolist() == pytest.approx(list(noise))
    kl = 0.5 * (array**2 + np.exp(logvar.double().numpy()) - 1 - logvar.double().numpy())
    assert found.kl.tolist() == pytest.approx(list(kl.mean(0).sum(1)), rel=1e-6)
    assert found.capacity.tolist() == pytest.approx(list(0.5 * np.log2(1 + array.var(0).mean(1) / noise)))
    assert own_level(found) == pytest.approx(list(np.log(flat.var(1) / noise)))


@pytest.mark.parametrize(("share", "faint"), [(0.9e-3, True), (1.1e-3, False)])
def test_where_faint_begins_without_a_posterior(share: float, faint: bool):
    """A thousandth of the widest channel's spread. Kills: a limit of another size, or of a channel's own mean."""
    z = _latents()
    z[:, 0] *= 7.0 * share / float(z[:, 0].var(0, unbiased=False).mean().sqrt()) * float(z[:, 2].std()) / 7.0
    assert channels_of(z).faint.tolist() == [faint, False, False] and not bool(channels_of(z).dead.any())


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize(("share", "dead"), [(0.9e-6, True), (1.1e-6, False)])
def test_where_dead_begins_without_a_posterior(share: float, dead: bool, places: bool):
    """A millionth of the channel's own size, as its mean or as a pattern over places. Kills: a limit of another size,
    one that other channels set, and a pattern whose rounding counts as signal."""
    z = _latents().double()
    unit = z[:, 0] / z[:, 0].var(0, unbiased=False).mean().sqrt()
    pattern = torch.tensor([-1.0, 1.0]).repeat(5).view(2, 5) if places else torch.ones(2, 5)
    z[:, 0] = 1e5 * (pattern + share * unit)
    found = channels_of(z)
    assert found.dead.tolist() == [dead, False, False] and not bool(found.faint[1:].any())


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1500.0, 1e6, 1e18])
def test_a_channels_scale_and_shift_are_no_ones_death(scale: float):
    """Kills: a channel that is dead because another is wide, and statistics that leave what float32 can hold."""
    z = _latents()
    z[:, 0] = scale * (z[:, 0] + 9.0)
    found = channels_of(z)
    assert not bool(found.dead.any())
    unit, plain = standardised(z, found), standardised(_latents(), channels_of(_latents()))
    assert torch.allclose(unit, plain, atol=2e-4)
    assert torch.allclose(found.correlation, channels_of(_latents()).correlation, atol=1e-4)


@pytest.mark.parametrize(("bits", "dead"), [(0.009, True), (0.011, False)])
def test_where_dead_begins_with_a_posterior(bits: float, dead: bool):
    """A hundredth of a bit a number. Kills: nats, a lost half, and a limit of another size."""
    z = _latents()
    spread = float(z[:, 0].var(0, unbiased=False).mean())
    noise = spread / (4**bits - 1)
    logvar = torch.full_like(z, -9.0)
    logvar[:, 0] = math.log(noise)
    assert channels_of(z, logvar).dead.tolist() == [dead, False, False]
