import math

import pytest
import torch

from unilat.maths import noise

from .sources import F64, seeded

LAMBDA = torch.tensor([-9.0, -0.7, 4.2], dtype=F64)


def signal(dtype=F64):
    generator = seeded(0)
    shape = (3, 2, 5)
    x = 0.4 + 1.7 * torch.randn(shape, generator=generator, dtype=F64)
    return x.to(dtype), torch.randn(shape, generator=generator, dtype=F64).to(dtype)


def test_endpoints():
    """Large lambda is clean, and infinities are safe. Kills: alpha and sigma swapped."""
    ends = torch.tensor([-math.inf, math.inf])
    assert noise.alpha(ends).tolist() == [0.0, 1.0]
    assert noise.sigma(ends).tolist() == [1.0, 0.0]


def test_lambda_is_the_log_of_the_signal_to_noise_ratio():
    """2 ln(alpha / sigma) = lambda and alpha² + sigma² = 1. Kills: amplitudes without their square root."""
    lambda_t = torch.linspace(-20, 20, 81, dtype=F64)
    alpha_t, sigma_t = noise.alpha(lambda_t), noise.sigma(lambda_t)
    assert torch.allclose(2 * (alpha_t / sigma_t).log(), lambda_t, atol=1e-9)
    assert torch.allclose(alpha_t**2 + sigma_t**2, torch.ones_like(lambda_t), atol=1e-14)


def test_float32_keeps_its_digits_at_both_ends():
    """Relative error under 1e-6 for |lambda| <= 20. Kills: sigma as sqrt(1 - alpha²), which cancels."""
    lambda_t = torch.linspace(-20, 20, 81)
    for function in (noise.alpha, noise.sigma):
        exact = function(lambda_t.double())
        assert ((function(lambda_t).double() - exact) / exact).abs().max() < 1e-6


def test_derivatives():
    """d alpha = ½ alpha sigma², d sigma = -½ sigma alpha² by jvp. Kills: alpha as sigmoid(lambda / 2)."""
    lambda_t = torch.linspace(-6, 6, 13, dtype=F64)
    alpha_t, d_alpha = torch.func.jvp(noise.alpha, (lambda_t,), (torch.ones_like(lambda_t),))
    sigma_t, d_sigma = torch.func.jvp(noise.sigma, (lambda_t,), (torch.ones_like(lambda_t),))
    assert torch.allclose(d_alpha, 0.5 * alpha_t * sigma_t**2, rtol=1e-12)
    assert torch.allclose(d_sigma, -0.5 * sigma_t * alpha_t**2, rtol=1e-12)


def test_diffuse_mixes_each_example_at_its_own_level():
    """Example by example against plain numbers. Kills: the noise's sign flipped."""
    x, eps = signal()
    x_t = noise.diffuse(x, eps, LAMBDA)
    for row, lambda_t in enumerate(LAMBDA.tolist()):
        expected = x[row] / math.sqrt(1 + math.exp(-lambda_t)) + eps[row] / math.sqrt(1 + math.exp(lambda_t))
        assert torch.allclose(x_t[row], expected, rtol=1e-12)


def test_diffused_data_have_the_variance_of_the_convention():
    """Var x_t = alpha² s² + sigma². Kills: the noise left out of x_t."""
    generator = seeded(1)
    x = 3.0 * torch.randn(40_000, 1, generator=generator)
    x_t = noise.diffuse(x, torch.randn(x.shape, generator=generator), torch.full((40_000,), -1.0))
    assert abs(float(x_t.var()) / (9 / (1 + math.e) + 1 / (1 + math.exp(-1))) - 1) < 4 * math.sqrt(2 / 40_000)


@pytest.mark.parametrize("name", ["x_from_v", "eps_from_v", "v_from_x", "eps_from_x", "x_from_eps", "v_from_eps"])
def test_round_trips(name):
    """Each map returns what made x_t. Kills: a flipped sign in any of the six maps."""
    x, eps = signal()
    alpha_t, sigma_t = noise.alpha(LAMBDA)[:, None, None], noise.sigma(LAMBDA)[:, None, None]
    known = {"x": x, "eps": eps, "v": alpha_t * eps - sigma_t * x}
    wanted, given = name.split("_from_")
    result = getattr(noise, name)(alpha_t * x + sigma_t * eps, known[given], LAMBDA)
    assert torch.allclose(result, known[wanted], rtol=1e-8, atol=1e-10)


def test_v_is_the_velocity_along_the_angle():
    """x_t = cos(phi) x + sin(phi) eps has dx_t/dphi = v, by jvp. Kills: v with its terms exchanged."""
    x, eps = signal()
    phi = torch.atan(torch.exp(-0.5 * LAMBDA))[:, None, None]
    x_t, velocity = torch.func.jvp(lambda a: a.cos() * x + a.sin() * eps, (phi,), (torch.ones_like(phi),))
    assert torch.allclose(noise.v_from_x(x_t, x, LAMBDA), velocity, rtol=1e-8, atol=1e-10)
    assert torch.allclose(noise.v_from_eps(x_t, eps, LAMBDA), velocity, rtol=1e-6, atol=1e-8)


def test_errors_of_x_and_eps_differ_by_the_signal_to_noise_ratio():
    """e^lambda ||x - x_hat||² = ||eps - eps_hat||². Kills: eps from x divided by alpha instead of sigma."""
    x, eps = signal()
    x_t = noise.diffuse(x, eps, LAMBDA)
    x_hat = 0.3 * x + 0.1 * eps.square()
    errors_x = (x - x_hat).square().flatten(1).sum(1)
    errors_eps = (eps - noise.eps_from_x(x_t, x_hat, LAMBDA)).square().flatten(1).sum(1)
    assert torch.allclose(LAMBDA.exp() * errors_x, errors_eps, rtol=1e-9)


def test_v_prediction_is_safe_at_infinite_levels():
    """At +inf x_t is x and v is eps; at -inf x_t is eps and v is -x. Kills: alpha from e^lambda / (1 + e^lambda)."""
    x, eps = signal(torch.float32)
    clean, pure = torch.full((3,), math.inf), torch.full((3,), -math.inf)
    assert torch.equal(noise.diffuse(x, eps, clean), x)
    assert torch.equal(noise.diffuse(x, eps, pure), eps)
    assert torch.equal(noise.x_from_v(x, eps, clean), x)
    assert torch.equal(noise.x_from_v(eps, -x, pure), x)
    assert torch.equal(noise.eps_from_v(eps, -x, pure), eps)


def test_results_have_the_signals_dtype():
    """float64 levels leave float32 signals float32. Kills: the cast to the signal's dtype removed."""
    x, eps = signal(torch.float32)
    assert noise.diffuse(x, eps, LAMBDA).dtype == torch.float32
    assert noise.expand(LAMBDA, x).shape == (3, 1, 1)
