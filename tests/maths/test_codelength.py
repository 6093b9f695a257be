"""The codelength of 8-bit pictures: limits, a normalised likelihood, and two sources whose entropy is known."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from unilat.maths.codelength import (
    codelength_terms,
    reconstruction_nats,
)
from unilat.maths.levels import rate_table
from unilat.maths.noise import alpha, diffuse, expand, sigma
from unilat.maths.oracle import Gaussian
from unilat.maths.seeds import Draws
from unilat.types import UserError

from .sources import F64, coarse_reconstruction_nats, seeded

LOW = -10.0


def noisy(picture: torch.Tensor, level: float, seed: int = 0) -> torch.Tensor:
    """``picture`` diffused to one level, float64."""
    x = picture.to(F64) / 127.5 - 1.0
    noise = torch.randn(x.shape, generator=seeded(seed), dtype=F64)
    return diffuse(x, noise, torch.full((len(x),), level, dtype=F64))


def some_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=seeded(3), dtype=torch.uint8)


def test_no_noise_and_pure_noise():
    """0 nats at lambda = 30, ln 256 a number at -30. Kills: the own byte's distance left out."""
    picture = some_bytes(4, 3, 5)
    assert torch.allclose(reconstruction_nats(picture, noisy(picture, 30.0), 30.0), torch.zeros(4, dtype=F64))
    blind = reconstruction_nats(picture, noisy(picture, -30.0), -30.0)
    assert torch.allclose(blind, torch.full((4,), 15 * math.log(256), dtype=F64), rtol=1e-4)


@pytest.mark.parametrize("level", [-2.0, 6.0, 11.0])
def test_the_likelihood_is_one_over_all_bytes(level):
    """Σ over 256 bytes of exp(-nats) = 1, so it can be coded. Kills: 255 bytes instead of 256."""
    x_t = torch.tensor([0.93, -1.02, 0.1, 0.999], dtype=F64)[:, None]
    nats = [reconstruction_nats(torch.full((4, 1), k, dtype=torch.uint8), x_t, level) for k in range(256)]
    assert torch.allclose(torch.stack(nats).neg().exp().sum(0), torch.ones(4, dtype=F64))


@pytest.mark.parametrize("level", [-1.0, 7.0, 12.0])
def test_two_bytes_by_hand(level):
    """ln p(a | x_t) - ln p(b | x_t) is that of two normals around alpha x. Kills: alpha forgotten."""
    x_t = torch.tensor([[0.2, -0.4], [0.7, 0.0], [0.0, 0.31]], dtype=F64)
    a, b = torch.tensor([[150, 80], [210, 120], [131, 168]]), torch.tensor([[155, 76], [214, 127], [128, 163]])
    alpha_t, sigma_t = math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))
    normal = [torch.distributions.Normal(alpha_t * (k.to(F64) / 127.5 - 1), sigma_t).log_prob(x_t) for k in (a, b)]
    told = [reconstruction_nats(k.to(torch.uint8), x_t, level) for k in (a, b)]
    assert torch.allclose(told[1] - told[0], (normal[0] - normal[1]).sum(1), rtol=1e-8)


def test_it_is_a_sum_over_numbers():
    """Kills: mean instead of sum."""
    picture = some_bytes(3, 2, 4)
    x_t = noisy(picture, 6.0)
    parts = sum(reconstruction_nats(picture[:, k], x_t[:, k], 6.0) for k in range(2))
    assert torch.allclose(reconstruction_nats(picture, x_t, 6.0), parts)


@pytest.mark.parametrize("level", [5.0, 8.0])
def test_coarse_noise_has_its_closed_form(level):
    """Noise over many greys: its entropy over the byte's width. Kills: the noise's variance halved."""
    picture = torch.full((100, 100), 128, dtype=torch.uint8)
    nats = reconstruction_nats(picture, noisy(picture, level), level) / 100
    error = float(nats.std()) / math.sqrt(100)
    assert error < 0.01
    assert abs(float(nats.mean()) - coarse_reconstruction_nats(level)) < 3 * error


def uniform_bytes_denoiser(x_t: torch.Tensor, lambda_t: torch.Tensor) -> torch.Tensor:
    """Posterior mean of a number that is any of 256 bytes with equal probability."""
    values = torch.arange(256, dtype=F64) / 127.5 - 1.0
    away = x_t[..., None] - expand(alpha(lambda_t), x_t)[..., None] * values
    return (-0.5 * away.square() / expand(sigma(lambda_t), x_t)[..., None].square()).softmax(-1) @ values


def estimates(picture, denoise, high, repeats, seed):
    """``repeats`` of the mean codelength with fresh noise, nats per example."""
    table, found = rate_table(LOW, high), []
    x = picture.to(F64) / 127.5 - 1.0
    for repeat in range(repeats):
        draws = Draws.keyed(seed, repeat, 0, len(x))
        levels = table.sample(draws.strata(len(x)).to(F64))
        x_hat = denoise(diffuse(x, draws.normal(x), levels.lambda_t), levels.lambda_t)
        x_max = diffuse(x, draws.normal(x), torch.full((len(x),), high, dtype=F64))
        found.append(codelength_terms(picture, x_hat, levels, x_max, LOW, high).nats().mean())
    return torch.stack(found)


@pytest.mark.parametrize("high", [3.0, 8.0, 13.0])
def test_uniform_bytes_cost_eight_bits_wherever_the_range_ends(high):
    """Exact denoiser: diffusion = I(x; x_max), reconstruction = H(x | x_max), so ln 256 a number, and the KL of the
    noisiest level. Kills: the reconstruction left out of the sum."""
    picture = torch.arange(256, dtype=torch.uint8).repeat(8)[torch.randperm(2048, generator=seeded(1))][:, None]
    found = estimates(picture, uniform_bytes_denoiser, high, 20, 4)
    error = float(found.std()) / math.sqrt(20)
    second = float((picture.to(F64) / 127.5 - 1.0).square().mean())
    mismatch = 0.5 * (math.exp(LOW) * (second - 1.0)) ** 2 / 2  # the marginal's KL to N(0, 1), second order: 1e-10
    assert error < 0.05
    assert abs(float(found.mean()) - math.log(256) - mismatch) < 3 * error


@pytest.mark.parametrize("high", [4.0, 5.5])
def test_gaussian_greys_cost_their_entropy(high):
    """Rounded N(m, s²) with the Gaussian's denoiser: rate in closed form and coarse reconstruction. Kills: the terminal
    KL left out."""
    source = Gaussian(torch.full((16,), 0.2**2, dtype=F64), torch.full((16,), 0.1, dtype=F64))
    x = source.sample(1000, seeded(2))
    picture = ((x + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    low = 0.0
    table, found = rate_table(low, high), []
    for repeat in range(10):
        draws = Draws.keyed(5, repeat, 0, len(x))
        own = picture.to(F64) / 127.5 - 1.0
        levels = table.sample(draws.strata(len(x)).to(F64))
        x_hat = source.denoise(diffuse(own, draws.normal(own), levels.lambda_t), levels.lambda_t)
        x_max = diffuse(own, draws.normal(own), torch.full((len(x),), high, dtype=F64))
        found.append(codelength_terms(picture, x_hat, levels, x_max, low, high).nats().mean() / 16)
    measured = torch.stack(found)
    error = float(measured.std()) / math.sqrt(10)
    expected = source.rate_nats(low, high) / 16 + coarse_reconstruction_nats(high)
    assert error < 7e-3
    assert abs(float(measured.mean()) - expected) < 3 * error


def test_the_diffusion_term_is_unweighted():
    """½ e^lambda ||x - x_hat||² / p by hand. Kills: the byte's scale 127.5 replaced by 128."""
    picture = some_bytes(3, 2)
    x_hat = torch.zeros(3, 2, dtype=F64)
    levels = rate_table(LOW, 13.0).sample(torch.tensor([0.1, 0.5, 0.9], dtype=F64))
    terms = codelength_terms(picture, x_hat, levels, noisy(picture, 13.0), LOW, 13.0)
    squares = (picture.to(F64) / 127.5 - 1.0).square().sum(1)
    assert torch.allclose(terms.diffusion, 0.5 * levels.lambda_t.exp() * squares / levels.density)


def test_pictures_must_be_bytes_of_the_same_shape():
    """No broadcasting and no floats. Kills: the check turned round."""
    x_t = torch.zeros(2, 3)
    for picture in (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.uint8)):
        with pytest.raises((UserError, TypeCheckError)):
            reconstruction_nats(picture, x_t, 10.0)
    assert reconstruction_nats(torch.zeros(2, 3, dtype=torch.uint8), x_t, 10.0).shape == (2,)


def test_the_three_terms_by_hand():
    """Every level another, x_hat, x_max and the picture far apart. Kills: a term of the prediction's or of another
    level's in the place of the picture's own."""
    picture, low, high = some_bytes(3, 2), -1.0, 4.0
    x, x_hat = picture.to(F64) / 127.5 - 1, torch.randn(3, 2, generator=seeded(5), dtype=F64)
    levels = rate_table(low, high).sample(torch.tensor([0.1, 0.5, 0.9], dtype=F64))
    x_max = noisy(picture, high)
    terms = codelength_terms(picture, x_hat, levels, x_max, low, high)
    at_low = torch.distributions.Normal(x / math.sqrt(1 + math.exp(-low)), 1 / math.sqrt(1 + math.exp(low)))
    divergence = torch.distributions.kl_divergence(at_low, torch.distributions.Normal(0.0, 1.0))
    bytes_ = torch.arange(256, dtype=F64) / 127.5 - 1
    at_high = torch.distributions.Normal(bytes_ / math.sqrt(1 + math.exp(-high)), 1 / math.sqrt(1 + math.exp(high)))
    coded = at_high.log_prob(x_max[..., None]).log_softmax(-1).gather(-1, picture.long()[..., None])[..., 0]
    squares = 0.5 * levels.lambda_t.exp() * (x - x_hat).square().sum(1) / levels.density
    for found, wanted in (
        (terms.diffusion, squares),
        (terms.terminal, divergence.sum(1)),
        (terms.reconstruction, -coded.sum(1)),
        (terms.nats(), squares + divergence.sum(1) - coded.sum(1)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", [5.0, 7.0])
def test_coarse_closed_form_by_quadrature(level):
    """The mean over the noise of byte 128's nats, by quadrature. Kills: 256 steps for the 255 between the bytes."""
    steps = torch.linspace(-8.0, 8.0, 4001, dtype=F64)
    weight = torch.exp(-0.5 * steps.square())
    grey = 128 + 127.5 * math.exp(-level / 2) * steps
    x_t = (grey / 127.5 - 1)[:, None] / math.sqrt(1 + math.exp(-level))
    nats = reconstruction_nats(torch.full((4001, 1), 128, dtype=torch.uint8), x_t, level)
    assert coarse_reconstruction_nats(level) == pytest.approx(float((weight @ nats) / weight.sum()), abs=1e-6)


def test_many_numbers_are_taken_in_parts(monkeypatch):
    """Seven at a time, the last part shorter. Kills: parts put together in another order."""
    picture = some_bytes(3, 5, 2)
    x_t = noisy(picture, 4.0)
    whole = reconstruction_nats(picture, x_t, 4.0)
    monkeypatch.setattr("unilat.maths.codelength._ROWS", 7)
    assert torch.allclose(reconstruction_nats(picture, x_t, 4.0), whole, rtol=1e-12)
