import math

import pytest
import torch
from jaxtyping import TypeCheckError

from unilat.maths.levels import Levels, rate_table, uniform
from unilat.maths.noise import diffuse
from unilat.maths.oracle import Gaussian, rate_estimates
from unilat.maths.rate import (
    RateTerms,
    added_entropy,
    bits_per_pixel,
    normal_kl,
    rate_terms,
    terminal_kl,
)
from unilat.maths.seeds import Draws
from unilat.types import UserError

from .sources import F64, correlated, mixture, seeded

LOW, HIGH = -10.0, 5.0
TABLE = rate_table(LOW, HIGH)


def unit(dimensions=1024):
    return Gaussian(torch.ones(dimensions), torch.zeros(dimensions))


def independent(draws, batch):
    return uniform(draws.uniform(batch), LOW, HIGH)


def low_discrepancy(draws, batch):
    return uniform(draws.strata(batch), LOW, HIGH)


def importance(draws, batch):
    return TABLE.sample(draws.strata(batch))


def example():
    generator = seeded(0)
    z, z_hat = (0.3 + 1.5 * torch.randn(4, 2, 3, generator=generator, dtype=F64) for _ in range(2))
    levels = Levels(torch.tensor([-3.0, 0.5, 2.0, 4.0], dtype=F64), torch.tensor([0.1, 0.7, 0.2, 2.0], dtype=F64))
    return z, z_hat, levels


@pytest.mark.parametrize("pick", [independent, low_discrepancy, importance])
def test_unit_gaussian_has_the_closed_forms_bits(pick):
    """3.611582 bits per dimension within 3 s.e., for every way of drawing levels. Kills: the ½ left out."""
    estimates = bits_per_pixel(rate_estimates(unit(), pick, LOW, batch=64, repeats=50, seed=1), 1024).double()
    error = float(estimates.std()) / math.sqrt(50)
    assert abs(float(estimates.mean()) - 3.611582) < 3 * error
    assert pick is not importance or error / 3.611582 < 1e-3


@pytest.mark.parametrize("lambda_min", [-10.0, -3.0])
def test_correlated_gaussian_has_the_closed_forms_bits(lambda_min):
    """Affine and correlated, also where the terminal KL weighs. Kills: the terminal KL left out of the rate."""
    table = rate_table(lambda_min, HIGH)
    estimates = rate_estimates(
        correlated(),
        lambda draws, batch: table.sample(draws.strata(batch)),
        lambda_min,
        batch=20_000,
        repeats=30,
        seed=2,
    )
    assert estimates.dtype == F64
    error = float(estimates.std()) / math.sqrt(30)
    assert error < 0.009
    assert abs(float(estimates.mean()) - correlated().rate_nats(lambda_min, HIGH)) < 3 * error


def test_mixture_has_the_bits_of_quadrature():
    """Two ways to one number: denoiser and entropy. Kills: e^-lambda for e^lambda."""
    estimates = rate_estimates(mixture(), importance, LOW, batch=20_000, repeats=30, seed=3)
    error = float(estimates.std()) / math.sqrt(30)
    assert error < 0.005
    assert abs(float(estimates.mean()) - mixture().rate_nats(LOW, HIGH)) < 3 * error


def test_variance_of_the_estimate():
    """14.9 % independent (derivation.md); at least 80 and 500 times less variance. Kills: a table of exp(lambda)."""
    spread = {}
    for pick in (independent, low_discrepancy, importance):
        estimates = rate_estimates(unit(), pick, LOW, batch=64, repeats=100, seed=4)
        spread[pick] = float(estimates.std() / estimates.mean())
    assert 0.12 < spread[independent] < 0.18
    assert (spread[independent] / spread[low_discrepancy]) ** 2 > 80
    assert (spread[independent] / spread[importance]) ** 2 > 500


def test_diffusion_term_by_hand():
    """½ e^lambda (z - z_hat)² / p, number by number. Kills: the density ignored."""
    z, z_hat, levels = example()
    terms = rate_terms(z, z_hat, levels, -3.0)
    for row in range(4):
        factor = 0.5 * math.exp(float(levels.lambda_t[row])) / float(levels.density[row])
        assert torch.allclose(terms.diffusion[row], factor * (z[row] - z_hat[row]) ** 2, rtol=1e-12)


def test_rate_is_a_sum_over_dimensions():
    """Twice the dimensions, twice the nats, one number per example. Kills: mean instead of sum."""
    z, z_hat, levels = example()
    once = rate_terms(z, z_hat, levels, -3.0).nats()
    twice = rate_terms(torch.cat([z, z], 1), torch.cat([z_hat, z_hat], 1), levels, -3.0).nats()
    assert once.shape == (4,)
    assert torch.allclose(twice, 2 * once, rtol=1e-12)


@pytest.mark.parametrize("lambda_min", [-20.0, -10.0, -1.0, 5.0])
def test_terminal_kl_is_the_divergence_of_two_normals(lambda_min):
    """Against torch.distributions. Kills: sigma_1² where its logarithm belongs."""
    z, _, _ = example()
    alpha_t, sigma_t = 1 / math.sqrt(1 + math.exp(-lambda_min)), 1 / math.sqrt(1 + math.exp(lambda_min))
    noisy, normal = torch.distributions.Normal(alpha_t * z, sigma_t), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(noisy, normal)
    assert torch.allclose(terminal_kl(z, lambda_min), expected, rtol=1e-6, atol=1e-14)


def test_terminal_kl_keeps_its_digits_in_float32():
    """At lambda_min = -16 it is 1e-7 nats and not rounding. Kills: ln sigma_1² of a rounded sigma_1²."""
    z = torch.tensor([[1.0, 1.5], [-1.0, 2.0]])
    assert torch.allclose(terminal_kl(z, -16.0).double(), terminal_kl(z.double(), -16.0), rtol=1e-4, atol=0)


def test_map_and_curve_add_up_to_the_rate():
    """Per dimension and per level are splits of one total. Kills: the terminal KL missing from the map."""
    z, z_hat, levels = example()
    terms = rate_terms(z, z_hat, levels, -3.0)
    total = terms.nats().mean()
    assert terms.dimension_map().shape == (2, 3)
    assert torch.allclose(terms.dimension_map().sum(), total, rtol=1e-12)
    curve = terms.curve(torch.tensor([-3.0, -1.0, 0.5, 4.0], dtype=F64))
    assert torch.allclose(curve.sum() + terms.terminal.flatten(1).sum(1).mean(), total, rtol=1e-12)


def test_dimension_map_keeps_dimensions_in_place():
    """Nats only where the error is. Kills: the map of the first example alone."""
    z, _, levels = example()
    z_hat = z.clone()
    z_hat[1:, 1, 2] += 1.0
    terms = RateTerms(rate_terms(z, z_hat, levels, -3.0).diffusion, torch.zeros_like(z), levels.lambda_t)
    assert terms.dimension_map().nonzero().tolist() == [[1, 2]]


def test_curve_puts_each_level_into_its_bin():
    """Closed below, the last bin closed on both sides. Kills: a level on a border counted in the bin below."""
    levels = torch.tensor([-3.0, 0.5, 0.6, 4.0], dtype=F64)
    terms = RateTerms(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]), torch.zeros(4, 1), levels)
    curve = terms.curve(torch.tensor([-3.0, 0.5, 1.0, 4.0], dtype=F64))
    assert torch.allclose(curve, torch.tensor([1.0, 110.0, 1000.0]) / 4)


def test_curve_follows_the_integrand():
    """Unit Gaussian: a bin's nats are ½ ln[(1 + e^high) / (1 + e^low)]. Kills: the curve divided by bins, not rows."""
    source, batch = unit(64), 8192
    generator = seeded(5)
    z = source.sample(batch, generator)
    levels = uniform((torch.arange(batch) + 0.5) / batch, LOW, HIGH)
    alpha_t, sigma_t = levels.lambda_t.sigmoid().sqrt()[:, None], (-levels.lambda_t).sigmoid().sqrt()[:, None]
    z_t = alpha_t * z + sigma_t * torch.randn(z.shape, generator=generator)
    edges = torch.linspace(LOW, HIGH, 6)
    curve = rate_terms(z, source.denoise(z_t, levels.lambda_t), levels, LOW).curve(edges)
    assert torch.allclose(curve, 64 * 0.5 * torch.nn.functional.softplus(edges).diff(), rtol=0.02)


def test_levels_outside_the_curve_are_told():
    """Else its bins would not add up. Kills: the check of the upper end removed."""
    terms = RateTerms(torch.ones(3, 2), torch.ones(3, 2), torch.tensor([-1.0, 0.0, 2.0]))
    for edges in ([-1.0, 0.0, 1.9], [-0.9, 0.0, 2.0]):
        with pytest.raises(UserError, match="outside"):
            terms.curve(torch.tensor(edges))


def test_gradient_reaches_latent_and_prediction():
    """gradcheck of the nats in z and z_hat: the rate's gradient reaches the encoder. Kills: z detached."""
    z, z_hat, levels = example()
    inputs = (z.requires_grad_(), z_hat.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: rate_terms(a, b, levels, -3.0).nats(), inputs)


def test_units():
    """ln 2 nats are one bit; tensors and floats alike. Kills: bits times ln 2."""
    assert bits_per_pixel(math.log(2) * 32 * 32, 32 * 32) == pytest.approx(1.0, rel=1e-12)
    assert bits_per_pixel(torch.tensor([6.0]) * math.log(2), 12).item() == pytest.approx(0.5)


def test_shapes_must_agree():
    """No broadcasting, with or without the hook of shapes. Kills: the check of shapes turned round."""
    z, _, levels = example()
    with pytest.raises((UserError, TypeCheckError), match=r"denoiser returned|z_hat"):
        rate_terms(z, z[:, :1], levels, -3.0)


@pytest.mark.parametrize("lambda_0", [5.0, 1.0])
def test_learned_variance_leaves_the_information(lambda_0):
    """x ~ N(0, 1), z ~ N(x, v): the rate of z less the entropy is I(x; z_0) plus the terminal mismatch. Kills: UL eq. 5
    with another sign, factor or level: I(x; z_0) = ½ ln(1 + α²/(α² v + σ²)), written apart from the library."""
    variance = torch.tensor([0.3, 2.0, 1e-3], dtype=F64)
    signal = 1 / (1 + math.exp(-lambda_0))
    wanted = 0.5 * torch.log1p(signal / (signal * variance + 1 - signal)).sum()
    source = Gaussian(1 + variance, torch.zeros(3, dtype=F64))
    got = source.rate_nats(-30.0, lambda_0) - float(added_entropy(variance.log()[None], lambda_0).sum())
    assert got == pytest.approx(float(wanted), rel=1e-6)
    terms = RateTerms(torch.ones(1, 3), torch.full((1, 3), 2.0), torch.zeros(1))
    torch.testing.assert_close(
        terms.less(torch.tensor([[0.5, 0.0, 1.0]])).dimension_map(), torch.tensor([2.5, 3.0, 2.0])
    )


@pytest.mark.parametrize("lambda_0", [5.0, -1.0])
def test_normal_kl_is_the_divergence_of_two_normals(lambda_0):
    """Against torch.distributions, affine priors. Kills: a mean, the noise or a variance left out on either side."""
    z = torch.randn(5, 3, 2, generator=seeded(0), dtype=F64)
    mean, std = (
        torch.tensor([0.4, -1.0, 0.0], dtype=F64).view(3, 1),
        torch.tensor([0.5, 2.0, 1.0], dtype=F64).view(3, 1),
    )
    signal, noise = 1 / (1 + math.exp(-lambda_0)), 1 / (1 + math.exp(lambda_0))
    posterior = torch.distributions.Normal(signal**0.5 * z, noise**0.5)
    prior = torch.distributions.Normal(signal**0.5 * mean, (signal * std.square() + noise).sqrt())
    wanted = torch.distributions.kl_divergence(posterior, prior)
    torch.testing.assert_close(normal_kl(z, lambda_0, mean, std), wanted)
    one = torch.ones(3, 1, dtype=F64)
    torch.testing.assert_close(normal_kl(z, lambda_0, 0 * one, one), terminal_kl(z, lambda_0))


def test_rate_up_to_a_level_is_the_integral_up_to_it():
    """A unit Gaussian: ½ ln((1 + e^end) / (1 + e^min)) per dimension. Kills: the levels above the end kept, or those
    below it dropped."""
    draws = Draws.single(seeded(0), 8_000)
    z = torch.randn(8_000, 64, generator=seeded(1))
    levels = uniform(draws.strata(8_000), LOW, HIGH)
    z_hat = unit(64).denoise(diffuse(z, draws.normal(z), levels.lambda_t), levels.lambda_t)
    terms = rate_terms(z, z_hat, levels, LOW)
    for end in (-2.0, 3.0):
        wanted = 64 * 0.5 * math.log((1 + math.exp(end)) / (1 + math.exp(LOW)))
        assert float(terms.up_to(torch.full((8_000,), end)).diffusion.sum(1).mean()) == pytest.approx(wanted, rel=0.03)


def test_terminal_term_is_of_the_latent_itself():
    """KL of the noisy z at lambda_min, whatever was predicted and wherever the levels fell. Kills: the prediction in
    z's place, with which the rate bounds nothing, and the lowest level drawn in lambda_min's."""
    z, z_hat, levels = example()
    noisy = torch.distributions.Normal(z / math.sqrt(1 + math.exp(1.0)), 1 / math.sqrt(1 + math.exp(-1.0)))
    wanted = torch.distributions.kl_divergence(noisy, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(rate_terms(z, z_hat, levels, -1.0).terminal, wanted, rtol=1e-9)


def test_rate_up_to_a_level_is_each_examples_own():
    """By hand, borders included; the noisiest level's KL stays. Kills: one end for all, a border left out, no KL."""
    terms = RateTerms(torch.full((4, 2), 3.0), torch.full((4, 2), 0.5), torch.tensor([-1.0, 0.5, 2.0, 2.0]))
    cut = terms.up_to(torch.tensor([0.0, 0.5, 1.0, 5.0]))
    assert cut.nats().tolist() == [7.0, 7.0, 1.0, 7.0]
    assert cut.diffusion.tolist() == [[3.0, 3.0], [3.0, 3.0], [0.0, 0.0], [3.0, 3.0]]


def test_learned_variance_is_taken_off_number_by_number():
    """Each example its own; None takes nothing off. Kills: the batch's mean entropy taken off every example."""
    terms = RateTerms(torch.ones(3, 2), torch.full((3, 2), 2.0), torch.zeros(3))
    entropy = torch.tensor([[0.5, 0.0], [1.0, 0.25], [2.0, 3.0]])
    assert terms.less(entropy).nats().tolist() == [5.5, 4.75, 1.0]
    assert terms.less(None) is terms
