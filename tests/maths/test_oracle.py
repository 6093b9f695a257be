import math

import pytest
import torch

from unilat.maths import noise
from unilat.maths.levels import uniform
from unilat.maths.oracle import Gaussian, GaussianMixture, Independent, rate_distortion_gaussian, rate_estimates
from unilat.maths.seeds import Draws
from unilat.types import UserError

from .sources import F64, correlated, covariance, mixture, noise_of, seeded

LAMBDA = torch.tensor([-4.0, 0.3, 3.0], dtype=F64)
X = torch.tensor([[0.4, -1.0, 2.0], [1.0, 0.2, -0.3], [-2.0, 1.1, 0.6]], dtype=F64)


def plane():
    """A mixture in two dimensions, unequal in everything."""
    means = torch.tensor([[-1.0, 0.5], [2.0, 1.0], [0.0, -1.5]], dtype=F64)
    return GaussianMixture(torch.tensor([0.5, 0.2, 0.3], dtype=F64), means, torch.tensor([0.4, 0.2, 0.7], dtype=F64))


def test_gaussian_denoiser_is_conditioning():
    """mu + alpha C (alpha² C + sigma²)^-1 (x_t - alpha mu) by a linear solve. Kills: the mean not scaled by alpha."""
    source, eye = correlated(), torch.eye(3, dtype=F64)
    x_hat = source.denoise(X, LAMBDA)
    for row, lambda_t in enumerate(LAMBDA.tolist()):
        alpha_t, sigma_squared = 1 / math.sqrt(1 + math.exp(-lambda_t)), 1 / (1 + math.exp(lambda_t))
        noisy = alpha_t**2 * covariance() + sigma_squared * eye
        step = alpha_t * covariance() @ torch.linalg.solve(noisy, X[row] - alpha_t * source.mean)
        assert torch.allclose(x_hat[row], source.mean + step, rtol=1e-9)


def test_diagonal_and_correlated_agree():
    """A diagonal covariance either way, in float32 as well. Kills: the basis applied in the wrong direction."""
    variances, mean = torch.tensor([2.0, 0.1, 0.7], dtype=F64), torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    plain, full = Gaussian(variances, mean), Gaussian.correlated(variances.diag(), mean)
    assert torch.allclose(plain.denoise(X, LAMBDA), full.denoise(X, LAMBDA), rtol=1e-9)
    assert torch.allclose(plain.probability_flow(X, -2.0, 3.0), full.probability_flow(X, -2.0, 3.0), rtol=1e-9)
    assert plain.denoise(X.float(), LAMBDA.float()).dtype == torch.float32


def test_gaussian_samples_have_their_moments():
    """Mean and covariance of 40,000 draws. Kills: variances where standard deviations belong."""
    rows = correlated().sample(40_000, seeded(0))
    deviation = covariance().diagonal().sqrt()
    assert ((rows.mean(0) - correlated().mean).abs() < 4 * deviation / 200).all()
    assert ((torch.cov(rows.T) - covariance()).abs() < 4 * 1.5 / 200 * deviation[:, None] * deviation).all()


def test_probability_flow_solves_its_equation():
    """dx/dlambda = ½ alpha sigma² x_hat - ½ sigma alpha² eps_hat along the way. Kills: the scale's root left out."""
    source, step = correlated(), 1e-4
    for at in (-3.0, 0.5, 4.0):
        lambda_t = torch.full((3,), at, dtype=F64)
        x = source.probability_flow(X, -5.0, at)
        slope = (source.probability_flow(X, -5.0, at + step) - source.probability_flow(X, -5.0, at - step)) / (2 * step)
        x_hat = source.denoise(x, lambda_t)
        eps_hat = noise_of(x, x_hat, lambda_t)
        alpha_t, sigma_t = noise.alpha(lambda_t)[:, None], noise.sigma(lambda_t)[:, None]
        velocity = 0.5 * alpha_t * sigma_t**2 * x_hat - 0.5 * sigma_t * alpha_t**2 * eps_hat
        assert torch.allclose(slope, velocity, rtol=1e-6, atol=1e-8)


def test_information_is_the_integral_of_the_error():
    """I-MMSE: dI/dlambda = ½ e^lambda mmse, mmse = Σ s² sigma² / (alpha² s² + sigma²). Kills: information without ½."""
    source, step = correlated(), 1e-4
    for at in (-3.0, 0.5, 4.0):
        alpha_squared, sigma_squared = 1 / (1 + math.exp(-at)), 1 / (1 + math.exp(at))
        variances = torch.linalg.eigvalsh(covariance())
        error = float((variances * sigma_squared / (alpha_squared * variances + sigma_squared)).sum())
        slope = (source.information_nats(at + step) - source.information_nats(at - step)) / (2 * step)
        assert slope == pytest.approx(0.5 * math.exp(at) * error, rel=1e-6)


def test_unit_gaussian_has_the_known_bits():
    """3.611582 bits per dimension for lambda_0 = 5, lambda_min = -10. Kills: the terminal KL left out."""
    for dimensions in (1, 1024):
        source = Gaussian(torch.ones(dimensions), torch.zeros(dimensions))
        bits = source.rate_nats(-10.0, 5.0) / math.log(2) / dimensions
        assert bits == pytest.approx(3.611582, abs=5e-7)
        integral = (source.information_nats(5.0) - source.information_nats(-10.0)) / math.log(2) / dimensions
        assert integral == pytest.approx(3.611549, abs=5e-7)


@pytest.mark.parametrize("lambda_min", [-10.0, -2.0, 1.0])
def test_rate_is_information_plus_mismatch(lambda_min):
    """R = I + KL[N(alpha mu, alpha² C + sigma²) || N(0, 1)] by torch.distributions. Kills: mean's energy left out."""
    source, eye = correlated(), torch.eye(3, dtype=F64)
    alpha_squared, sigma_squared = 1 / (1 + math.exp(-lambda_min)), 1 / (1 + math.exp(lambda_min))
    noisy = torch.distributions.MultivariateNormal(
        math.sqrt(alpha_squared) * source.mean, alpha_squared * covariance() + sigma_squared * eye
    )
    normal = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=F64), eye)
    mismatch = float(torch.distributions.kl_divergence(noisy, normal))
    information = 0.5 * float(torch.logdet(eye + math.exp(5.0) * covariance()))
    assert source.rate_nats(lambda_min, 5.0) == pytest.approx(information + mismatch, rel=1e-9)


def test_mixture_denoiser_is_tweedies():
    """x_hat = (x_t + sigma² grad ln p(x_t)) / alpha by autograd. Kills: a component's normaliser left out."""
    source, x_t = plane(), X[:, :2].clone().requires_grad_()
    alpha_t, sigma_t = noise.alpha(LAMBDA)[:, None], noise.sigma(LAMBDA)[:, None]
    noisy = alpha_t**2 * source.std**2 + sigma_t**2
    away = (x_t[:, None] - alpha_t[:, :, None] * source.means).square().sum(2)
    log_density = torch.log((source.weights / (2 * math.pi * noisy) * torch.exp(-0.5 * away / noisy)).sum(1))
    (score,) = torch.autograd.grad(log_density.sum(), x_t)
    expected = (x_t + sigma_t**2 * score) / alpha_t
    assert torch.allclose(source.denoise(x_t, LAMBDA), expected, rtol=1e-8)


def test_mixture_of_one_is_a_gaussian():
    """Denoiser, information and rate. Kills: alpha² for alpha in a component's gain."""
    gaussian = Gaussian(torch.tensor([0.49], dtype=F64), torch.tensor([1.3], dtype=F64))
    one = GaussianMixture(
        torch.tensor([1.0], dtype=F64), torch.tensor([[1.3]], dtype=F64), torch.tensor([0.7], dtype=F64)
    )
    assert torch.allclose(one.denoise(X[:, :1], LAMBDA), gaussian.denoise(X[:, :1], LAMBDA), rtol=1e-10)
    assert one.mutual_information(4.0) == pytest.approx(gaussian.information_nats(4.0), rel=1e-9)
    assert one.rate_nats(-3.0, 4.0) == pytest.approx(gaussian.rate_nats(-3.0, 4.0), rel=1e-9)


def test_mixture_samples_have_their_moments():
    """Mean, variance, spread of each part in 40,000 draws. Kills: equal probabilities, one deviation for all."""
    source = plane()
    rows = source.sample(40_000, seeded(1))
    mean = (source.weights[:, None] * source.means).sum(0)
    variance = (source.weights[:, None] * (source.means**2 + source.std[:, None] ** 2)).sum(0) - mean**2
    assert ((rows.mean(0) - mean).abs() < 4 * variance.sqrt() / 200).all()
    assert ((rows.var(0) / variance - 1).abs() < 0.05).all()
    apart = GaussianMixture(source.weights, 100 * source.means, source.std)
    rows = apart.sample(40_000, seeded(2))
    nearest = torch.cdist(rows, apart.means).argmin(1)
    spread = torch.stack([(rows - apart.means[nearest])[nearest == part].square().mean().sqrt() for part in range(3)])
    torch.testing.assert_close(spread, source.std, rtol=0.02, atol=0)


def test_mixture_information_is_the_integral_of_the_error():
    """I-MMSE by central differences, mmse by quadrature of the denoiser. Kills: the noise's entropy left out."""
    source, step = mixture(), 1e-3
    second_moment = float((source.weights * (source.means[:, 0] ** 2 + source.std**2)).sum())
    points = torch.linspace(-12, 12, 24_001, dtype=F64)[:, None]
    for at in (-2.0, 1.0, 5.0):
        lambda_t = torch.full((len(points),), at, dtype=F64)
        alpha_t, sigma_squared = 1 / math.sqrt(1 + math.exp(-at)), 1 / (1 + math.exp(at))
        spread = (alpha_t**2 * source.std**2 + sigma_squared).sqrt()
        density = (source.weights * torch.exp(-0.5 * ((points - alpha_t * source.means.T) / spread) ** 2) / spread).sum(
            1
        )
        density = density / math.sqrt(2 * math.pi)
        error = second_moment - float((density * source.denoise(points, lambda_t)[:, 0] ** 2).sum()) * 1e-3
        slope = (source.mutual_information(at + step) - source.mutual_information(at - step)) / (2 * step)
        assert slope == pytest.approx(0.5 * math.exp(at) * error, rel=1e-5)


def test_mixture_of_far_points_carries_its_label():
    """Almost discrete: I tends to the label's entropy. Kills: entropy's sign flipped."""
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    points = GaussianMixture(
        weights, torch.tensor([[-4.0], [0.0], [9.0]], dtype=F64), torch.full((3,), 1e-3, dtype=F64)
    )
    entropy = -float((weights * weights.log()).sum())
    assert points.mutual_information(5.0) == pytest.approx(entropy, abs=1e-3)


def test_quadrature_is_for_one_dimension():
    """Else told. Kills: the check of dimensions removed."""
    with pytest.raises(UserError, match="one dimension"):
        plane().mutual_information(5.0)


def test_independent_dimensions_are_a_mixture_of_all_their_pairs():
    """Two dimensions of two peaks each are four peaks on the plane. Kills: dimensions that see each other's part."""
    weights, std = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=F64), torch.full((2,), 0.4, dtype=F64)
    places = torch.tensor([[-1.0, 0.8], [0.1, 2.0]], dtype=F64)
    parts = tuple(GaussianMixture(w, at[:, None], std) for w, at in zip(weights, places, strict=True))
    pairs = torch.cartesian_prod(places[0], places[1])
    joint = GaussianMixture(torch.outer(*weights).flatten(), pairs, std.repeat(2))
    product, x_t = Independent(parts), X[:, :2]
    assert torch.allclose(product.denoise(x_t, LAMBDA), joint.denoise(x_t, LAMBDA), rtol=1e-9)
    rows = product.sample(40_000, seeded(6))
    assert rows.mean(0).tolist() == pytest.approx([0.26, 0.86], abs=0.02)
    assert float(torch.corrcoef(rows.T)[0, 1]) == pytest.approx(0.0, abs=0.02)


def test_independent_rates_add_up():
    """The sum, not the mean, and met by estimates with the exact denoiser. Kills: one part's rate for all."""
    one, two = mixture(), GaussianMixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.5]], [0.7])))
    source = Independent((one, two, one))
    truth = source.rate_nats(-10.0, 5.0)
    assert truth == pytest.approx(2 * one.rate_nats(-10.0, 5.0) + two.rate_nats(-10.0, 5.0), rel=1e-12)
    found = rate_estimates(source, lambda d, n: uniform(d.strata(n), -10.0, 5.0), -10.0, batch=512, repeats=40, seed=4)
    assert float(found.mean()) == pytest.approx(truth, abs=4 * float(found.std()) / math.sqrt(40), rel=1e-3)


def test_reverse_water_filling():
    """Distortion Σ min(theta, s²) and rate ½ Σ ln(s² / theta) for a water level. Kills: rate without its ½."""
    variances = torch.tensor([4.0, 0.25, 1.0, 1e-3], dtype=F64)
    for theta in (1e-4, 0.01, 0.25, 0.7, 3.0):
        distortion = float(variances.clamp(max=theta).sum())
        rate = sum(0.5 * math.log(float(v) / theta) for v in variances if float(v) > theta)
        assert rate_distortion_gaussian(variances, distortion) == pytest.approx(rate, rel=1e-9)


def test_rate_distortion_ends():
    """Nothing to send at the variance; a distortion of 0 is refused. Kills: a negative rate beyond the variance."""
    variances = torch.tensor([4.0, 1.0])
    assert rate_distortion_gaussian(variances, 5.0) == 0.0
    assert rate_distortion_gaussian(variances, 7.0) == 0.0
    assert rate_distortion_gaussian(variances, 2.0) == pytest.approx(math.log(2.0))
    with pytest.raises(UserError, match="positive"):
        rate_distortion_gaussian(variances, 0.0)


def test_rate_estimates_are_seeded_and_apart():
    """Same seed, same estimates; each repeat its own draws. Kills: every repeat drawn from step 0."""

    def pick(draws: Draws, batch: int):
        return uniform(draws.strata(batch), -10.0, 5.0)

    first, again, other = (
        rate_estimates(correlated(), pick, -10.0, batch=5, repeats=4, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert len(set(first.tolist() + other.tolist())) == 8
