"""The prior that builds on a covariance: exact before training, and under any scaling."""

import copy

import pytest
import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, sigma
from unilat.nets.denoiser import Denoiser
from unilat.nets.gaussian import GaussianDenoiser, denoiser_of

LEVELS = torch.tensor([-9.0, -1.5, 0.3, 4.0])
SHAPE = (2, 3)


class Affine(nn.Module):
    """Answers a fixed function of what it sees and of the level, so that a slip in either shows."""

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: object) -> Tensor:
        return 0.5 * x_t + 0.1 * logsnr.view(-1, 1, 1) + 0.2


class Nothing(nn.Module):
    """The untrained network."""

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: object) -> Tensor:
        return torch.zeros_like(x_t)


def correlated(count: int = 20_000) -> Tensor:
    """Latents with a mean and with every pair of numbers correlated."""
    draw = torch.Generator().manual_seed(1)
    mix = torch.randn(6, 6, generator=draw) * torch.tensor([2.0, 1.0, 0.5, 0.3, 0.2, 0.1])
    return (torch.randn(count, 6, generator=draw) @ mix.T + torch.arange(6) / 3).view(-1, *SHAPE)


def test_untrained_it_is_the_posterior_mean_of_the_correlated_gaussian() -> None:
    """Kills: basis and its transpose swapped, mean forgotten at either end, a variance for a deviation.

    ``ẑ = m + α C (α² C + σ² I)⁻¹ (z_t − α m)``, by a dense solve in float64.
    """
    z = correlated()
    denoise = GaussianDenoiser(Nothing(), SHAPE)
    denoise.follow(z)
    flat = z.flatten(1).double()
    mean, covariance = flat.mean(0), torch.cov(flat.T)
    z_t = torch.randn(4, *SHAPE)
    made = denoise(z_t, LEVELS).flatten(1)
    for row, level in enumerate(LEVELS.double()):
        a, s = alpha(level), sigma(level)
        centred = z_t[row].flatten().double() - a * mean
        exact = mean + a * covariance @ torch.linalg.solve(a**2 * covariance + s**2 * torch.eye(6).double(), centred)
        torch.testing.assert_close(made[row].double(), exact, rtol=2e-3, atol=2e-3)


class Asked(nn.Module):
    """An affine answer to what it sees, the level and the condition."""

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: Tensor) -> Tensor:
        return 0.5 * x_t + 0.1 * logsnr.view(-1, 1, 1) + cond.view(-1, 1, 1)


def test_the_whole_of_it_is_its_formula() -> None:
    """``σ √(c₀ / v₀) F((z_t − α m) / √v₀, λ + ln c₀, cond)`` beside the posterior mean, c₀ the variances' mean.
    Kills: their geometric mean, which equal variances forgive, and a condition that the network never hears."""
    denoise, cond = GaussianDenoiser(Asked(), SHAPE), torch.tensor([0.3, -1.0, 2.0, 0.0])
    denoise.follow(correlated())
    z_t = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(2))
    covariance, mean = denoise.covariance.double(), denoise.mean.double().flatten()
    typical = covariance.trace() / 6
    found = denoise(z_t, LEVELS, cond).flatten(1)
    for row, level in enumerate(LEVELS.double()):
        a, s = alpha(level), sigma(level)
        away, v = z_t[row].double().flatten() - a * mean, a**2 * typical + s**2
        exact = mean + a * covariance @ torch.linalg.solve(a**2 * covariance + s**2 * torch.eye(6).double(), away)
        output = 0.5 * away / v.sqrt() + 0.1 * (level + typical.log()) + cond[row]
        torch.testing.assert_close(found[row].double(), exact + s * (typical / v).sqrt() * output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "whole"), [(11, False), (12, True), (13, True)])
def test_it_moves_a_share_of_the_way_to_the_moments(count: int, whole: bool) -> None:
    """30 % of the way to mean and covariance over N, from twice 6 numbers on with all pairs. Kills: all of the way at
    once, the share taken for what stays, moments around 0 or the old mean, N − 1 for N, another border."""
    denoise, z = GaussianDenoiser(Nothing(), SHAPE), correlated(count)
    denoise.mean.copy_(torch.linspace(-1, 2, 6).view(SHAPE))
    start = torch.diag(torch.arange(1.0, 7.0)) + 0.1
    denoise.covariance.copy_(start)
    denoise.follow(z, 0.3)
    flat = z.flatten(1).double()
    moment = torch.cov(flat.T, correction=0)
    moment = moment if whole else moment.diagonal().diag()
    torch.testing.assert_close(denoise.covariance.double(), 0.7 * start.double() + 0.3 * moment, rtol=1e-5, atol=1e-5)
    mean = 0.7 * torch.linspace(-1, 2, 6).double() + 0.3 * flat.mean(0)
    torch.testing.assert_close(denoise.mean.flatten().double(), mean, rtol=1e-5, atol=1e-5)


def test_no_direction_is_taken_for_certain() -> None:
    """Of one direction alone, of variance 300, the others get 1e-4 of the mean variance 50. Kills: a floor that does
    not follow the latents' scale, or one of the sum."""
    denoise, line = GaussianDenoiser(Nothing(), SHAPE), torch.tensor([3.0, -1.0, 2.0, 0.0, 1.0, 1.0])
    denoise.covariance.copy_(300 * torch.outer(line, line) / line.square().sum())
    values = denoise.eigen()[0].sort().values
    torch.testing.assert_close(values, torch.tensor([5e-3] * 5 + [300.0]), rtol=1e-4, atol=1e-6)


def test_of_equal_variances_it_is_the_plain_denoiser() -> None:
    """Kills: the network's input, output or level scaled otherwise than in ``Denoiser``."""
    denoise, plain = GaussianDenoiser(Affine(), SHAPE), Denoiser(Affine(), 1, 0.7, 0.4)
    denoise.mean.fill_(0.7)
    denoise.covariance.mul_(0.16)
    z_t = torch.randn(4, *SHAPE)
    torch.testing.assert_close(denoise(z_t, LEVELS), plain(z_t, LEVELS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_rescaled_it_denoises_scaled_latents(scale: float) -> None:
    """Kills: a variance scaled like a deviation. Scaled latents at λ are the old ones at λ + 2 ln s, up to size."""
    denoise = GaussianDenoiser(Affine(), SHAPE)
    denoise.follow(correlated())
    other = copy.deepcopy(denoise)
    other.rescale(scale)
    noisier = LEVELS + 2 * torch.tensor(scale).log()
    z_t = torch.randn(4, *SHAPE)
    size = (sigma(noisier) / sigma(LEVELS)).view(-1, 1, 1)
    torch.testing.assert_close(other(z_t, LEVELS), scale * denoise(size * z_t, noisier), rtol=1e-4, atol=1e-5)


def test_eigenvectors_follow_a_covariance_changed_in_place() -> None:
    """Kills: stale eigenvectors after a checkpoint was copied into the buffers."""
    one, other = GaussianDenoiser(Nothing(), SHAPE), GaussianDenoiser(Nothing(), SHAPE)
    other.follow(correlated())
    z_t = torch.randn(4, *SHAPE)
    assert not torch.allclose(one(z_t, LEVELS), other(z_t, LEVELS))
    one.covariance.copy_(other.covariance)
    one.mean.copy_(other.mean)
    torch.testing.assert_close(one(z_t, LEVELS), other(z_t, LEVELS))
    one.load_state_dict(GaussianDenoiser(Nothing(), SHAPE).state_dict())
    torch.testing.assert_close(one(z_t, LEVELS), GaussianDenoiser(Nothing(), SHAPE)(z_t, LEVELS))


def test_few_latents_give_variances_alone() -> None:
    """Kills: directions that a few examples happen not to show, taken for certain; one variance for all."""
    denoise = GaussianDenoiser(Nothing(), SHAPE)
    z = correlated(8)
    denoise.follow(z)
    torch.testing.assert_close(denoise.covariance, z.flatten(1).var(0, correction=0).diag())


def test_large_latents_keep_the_plain_denoiser() -> None:
    """Kills: a matrix of D² numbers for latents of any size; 0 asks for none."""
    assert isinstance(denoiser_of(Nothing(), 1, SHAPE, 6), GaussianDenoiser)
    assert isinstance(denoiser_of(Nothing(), 1, SHAPE, 5), Denoiser)
    assert isinstance(denoiser_of(Nothing(), 1, (), 6), Denoiser)
