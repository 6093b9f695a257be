"""Bits of latents with a learned variance, and of a normal price: their means and errors against closed forms."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from unilat.maths.levels import rate_table, uniform
from unilat.maths.noise import diffuse
from unilat.maths.rate import RateTerms, added_entropy, drawn_rate_terms, normal_kl, rate_terms
from unilat.maths.seeds import Draws
from unilat.models.posterior import Posterior
from unilat.recipe import presets
from unilat.run.rate import latent_nats, measure_rate, nats_of
from unilat.run.stages import AutoencoderStage

LOW, HIGH, WIDE = -8.0, 10.0, 1.7
F64 = torch.float64


def exact(x_t: Tensor, logsnr: Tensor, cond: Any = None) -> Tensor:
    """The denoiser of N(0, WIDE²)."""
    at = logsnr.view(-1, *[1] * (x_t.dim() - 1))
    alpha_2 = torch.sigmoid(at)
    return WIDE**2 * alpha_2.sqrt() * x_t / (alpha_2 * WIDE**2 + 1 - alpha_2)


def closed_form(mean: Tensor, variance: Tensor) -> Tensor:
    """``KL[q(z_0 | x) || prior]`` at the lowest noise, less that at the highest, plus the one to N(0, 1) there."""

    def kl(level: float, wide: float) -> Tensor:
        alpha_2, noise = 1 / (1 + math.exp(-level)), 1 / (1 + math.exp(level))
        own = Normal(math.sqrt(alpha_2) * mean, (alpha_2 * variance + noise).sqrt())
        return kl_divergence(own, Normal(0.0, math.sqrt(alpha_2 * wide**2 + noise)))

    return kl(HIGH, WIDE) - kl(LOW, WIDE) + kl(LOW, 1.0)


def test_drawn_latents_are_priced_number_by_number() -> None:
    """One picture's numbers, 40,000 draws and levels each: the mean is the closed form. Kills: a gain of another noise,
    draws pulled the wrong way, a variance for a deviation, the end's KL without it, and an entropy twice or never."""
    mean, variance = torch.tensor([0.3, -1.4, 2.0], dtype=F64), torch.tensor([0.05, 0.5, 2.0], dtype=F64)
    draws, many = Draws.keyed(0, 0, 0, 40_000), torch.zeros(40_000, 3, dtype=F64)
    levels = uniform(draws.strata(40_000).double(), LOW, HIGH)
    z = mean + variance.sqrt() * draws.normal(many)
    z_t = diffuse(z, draws.normal(many), levels.lambda_t)
    spread = variance.log().expand_as(z)
    found = drawn_rate_terms(z_t, exact(z_t, levels.lambda_t), mean.expand_as(z), spread, levels, LOW)
    torch.testing.assert_close(found.dimension_map(), closed_form(mean, variance), rtol=0.02, atol=0.005)
    assert bool((found.diffusion >= 0).all()) and bool((found.terminal >= 0).all())
    before = rate_terms(z, exact(z_t, levels.lambda_t), levels, LOW).less(added_entropy(spread, HIGH))
    assert float(before.nats().mean()) == pytest.approx(float(found.nats().mean()), rel=0.1)
    assert float(before.nats().std()) > 1.5 * float(found.nats().std())
    alpha_2 = 1 / (1 + math.exp(1.0))  # at an end that is no pure noise
    last = Normal(math.sqrt(alpha_2) * mean, (alpha_2 * variance + 1 - alpha_2).sqrt())
    ended = drawn_rate_terms(z_t, z_t, mean.expand_as(z), spread, levels, -1.0).terminal
    torch.testing.assert_close(ended[7], kl_divergence(last, Normal(torch.zeros(3, dtype=F64), 1.0)))


def test_a_normal_price_charges_the_whole_posterior() -> None:
    """Kills: the variance left out on one side, or a point's KL."""
    mean, variance = torch.tensor([[0.3, -1.4, 2.0]]), torch.tensor([[0.05, 0.5, 2.0]])
    alpha_2, noise = 1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(2.0))
    own = Normal(math.sqrt(alpha_2) * mean, (alpha_2 * variance + noise).sqrt())
    wanted = kl_divergence(own, Normal(math.sqrt(alpha_2) * 0.4, math.sqrt(alpha_2 * 1.21 + noise)))
    found = normal_kl(mean, 2.0, torch.tensor(0.4), torch.tensor(1.1), variance.log())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_bits_of_a_normal_price_are_those_against_the_unit_normal() -> None:
    """Whatever the estimates under the run's own network say. Kills: a prior scaled with its latents, a draw for its
    distribution, the KL of clean latents."""
    config = replace(presets.get("kl-vae").autoencoder, lambda_0=3.0)
    mean, spread = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.full((5, 2, 3, 4), -1.0)
    alpha_2, noise = 1 / (1 + math.exp(-3.0)), 1 / (1 + math.exp(3.0))
    planted = [RateTerms(mean.square(), mean.square(), mean[:, 0, 0, 0])]
    for posterior, variance in ((Posterior(mean, spread), alpha_2 * math.exp(-1.0) + noise), (None, noise)):
        wanted = kl_divergence(Normal(math.sqrt(alpha_2) * mean, math.sqrt(variance)), Normal(0.0, 1.0))
        found = latent_nats(config, mean + (posterior is not None), planted, posterior)
        torch.testing.assert_close(found, wanted.flatten(1).sum(1), rtol=1e-4, atol=1e-4)
    plain = latent_nats(replace(config, price="diffusion"), mean, planted, None)
    torch.testing.assert_close(plain, planted[0].nats())


def measured(seed: int) -> tuple[float, float]:
    """Mean nats of 150 fresh pictures of 24 numbers and the standard error that is told of it."""
    generator = torch.Generator().manual_seed(seed)
    mean = math.sqrt(WIDE**2 - 0.2) * torch.randn(150, 24, generator=generator)
    posterior = Posterior(mean, torch.full_like(mean, math.log(0.2)))
    z = posterior.draw(lambda like: torch.randn(like.shape, generator=generator))
    cpu = torch.device("cpu")
    found = measure_rate(z, exact, rate_table(LOW, HIGH), LOW, levels=4, seed=seed, device=cpu, posterior=posterior)
    nats = nats_of(found, posterior)
    plain = torch.stack([terms.nats() for terms in found]).mean(0)
    assert float(nats.mean()) == pytest.approx(float(plain.mean()), rel=1e-5)
    return float(nats.mean()), float(nats.std() / math.sqrt(150))


def test_the_standard_error_is_the_spread_of_repeated_measurements() -> None:
    """Sixty sets of pictures, each with its own draws and noise: their means spread as far as each tells. Kills: levels
    that lie evenly over a set taken for chance, and draws whose entropy is taken off elsewhere than where they cost."""
    means, errors = map(torch.tensor, zip(*map(measured, range(60)), strict=True))
    assert float(errors.mean() / means.std()) == pytest.approx(1.0, abs=0.25)
    wanted = 24 * float(0.5 * math.log((WIDE**2 + math.exp(-HIGH)) / (0.2 + math.exp(-HIGH))))
    assert float(means.mean()) == pytest.approx(wanted, rel=0.02)


def test_a_normal_price_is_not_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bits are of a KL to N(0, I), whatever is wanted. Kills: latents and their prior scaled together, until
    what is told is what was wanted."""
    stage = AutoencoderStage.__new__(AutoencoderStage)
    stage.config, stage.calibration = replace(presets.get("tiny").stage1, target_bpp=0.3), torch.zeros(3, 1, 16, 16)
    monkeypatch.setattr(stage, "calibration_rate", lambda model, levels, seed: 0.5)
    model: Any = SimpleNamespace(config=SimpleNamespace(price="normal"))  # which cannot be rescaled
    assert stage.trim(model) == {"calibration_bpp": 0.5}
