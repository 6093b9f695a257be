import math

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


def test_infinite_levels_are_clean_and_pure():
    """At +inf x_t is x, at -inf it is eps. Kills: alpha from e^lambda / (1 + e^lambda)."""
    x, eps = signal(torch.float32)
    clean, pure = torch.full((3,), math.inf), torch.full((3,), -math.inf)
    assert torch.equal(noise.diffuse(x, eps, clean), x)
    assert torch.equal(noise.diffuse(x, eps, pure), eps)


def test_results_have_the_signals_dtype():
    """float64 levels leave float32 signals float32. Kills: the cast to the signal's dtype removed."""
    x, eps = signal(torch.float32)
    assert noise.diffuse(x, eps, LAMBDA).dtype == torch.float32
    assert noise.expand(LAMBDA, x).shape == (3, 1, 1)
