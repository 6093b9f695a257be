"""What else stage 1 can charge and ask for: closed forms, where gradients go, and what must not move."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from nets.samples import signal
from unilat.maths.levels import weighted_table
from unilat.maths.rate import RateTerms, terminal_kl
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import prior_as_base
from unilat.models.placing import Placing
from unilat.models.posterior import Posterior
from unilat.models.reconstruction import DiffusionDecoder, Perceptual, SquaredError

from .fixed import autoencoder


def draws(batch: int = 3, seed: int = 0) -> Draws:
    return Draws.single(torch.Generator().manual_seed(seed), batch)


def slopes(model: Autoencoder, pick: Callable[..., Tensor]) -> tuple[bool, bool, bool]:
    """Whether the picked term moves the encoder, the prior and the decoder."""
    model.zero_grad()
    pick(model.losses(signal(2), draws())).sum().backward()
    parts = (model.encoder, model.prior, model.decoder)
    return tuple(any(p.grad is not None and bool(p.grad.any()) for p in part.parameters()) for part in parts)  # type: ignore[return-value]


def test_the_rate_is_charged_by_default() -> None:
    """Kills: a charge that is not the reported rate, where they are one and the same."""
    losses = autoencoder().losses(signal(2), draws())
    assert torch.equal(losses.charge, losses.rate.nats())


def test_a_normal_price_is_the_closed_kl_and_its_prior_stays_normal() -> None:
    """Kills: a prior that is trained, a KL of clean latents, a rate that its own network does not agree with."""
    model = autoencoder(fresh=True, price="normal")
    assert slopes(model, lambda losses: losses.charge) == (True, False, False)
    x = signal(2, batch=512)
    losses = model.losses(x, draws(512))
    torch.testing.assert_close(losses.charge, terminal_kl(model.encode(x), 5.0).flatten(1).sum(1), rtol=1e-5, atol=1e-4)
    assert not any(weight.requires_grad for weight in model.prior.parameters())
    with torch.no_grad():
        z = torch.randn(4096, 5, 2, 4, generator=torch.Generator().manual_seed(1)) * 1.7
        closed, sampled = model.rate(z, draws(4096)).nats(), autoencoder(fresh=True).rate(z, draws(4096)).nats()
    assert float(closed.mean()) == pytest.approx(float(sampled.mean()), rel=0.02)


def test_a_normal_price_has_no_part_at_a_level() -> None:
    """Kills: a KL that is told as the prior's work at one level: it has none, and the curve of its bits is empty."""
    z = 1.7 * signal(2, 5, coarse=True)
    rate = autoencoder(price="normal").rate(z, draws())
    assert not rate.diffusion.any() and not rate.curve(torch.tensor([-10.0, 0.0, 5.0])).any()
    torch.testing.assert_close(rate.terminal, terminal_kl(z, 5.0), rtol=1e-4, atol=1e-5)


def test_a_stopped_price_teaches_the_prior_and_charges_a_small_kl() -> None:
    """Kills: the prior's gradient let through to the encoder, or no charge at all left for it."""
    model = autoencoder(price="stopped", kl_weight=0.25)
    assert slopes(model, lambda losses: losses.rate.nats()) == (False, True, False)
    assert slopes(model, lambda losses: losses.charge) == (True, True, False)
    x = signal(2)
    losses = model.losses(x, draws())
    kl = terminal_kl(model.encode(x), 5.0).flatten(1).sum(1)
    torch.testing.assert_close(losses.charge - losses.rate.nats(), 0.25 * kl, rtol=1e-4, atol=2e-4)


def test_a_learned_variance_is_drawn_and_paid_back() -> None:
    """Kills: eq. 5 with another sign, a variance for a deviation, a draw that the decoder does not see."""
    model = autoencoder(learned_variance=True)
    spread = model.encoder.spread
    assert spread is not None and spread.bias is not None
    with torch.no_grad():
        spread.bias.copy_(torch.tensor([-4.0, -2.0, 0.0, 1.0, 2.0]))
    x = signal(2)
    mean, log_variance = model.encoder.posterior(x)
    assert log_variance is not None and log_variance.shape == mean.shape
    drawn, noise = model.posterior(x).draw(draws().normal), draws().normal(mean)
    torch.testing.assert_close(drawn, mean + log_variance.double().exp().sqrt().float() * noise)
    losses = model.losses(signal(2), draws())
    entropy = model.posterior(signal(2)).entropy(5.0)
    assert entropy is not None and bool((entropy > 0).all())
    made = draws()
    z = model.posterior(signal(2)).draw(made.normal)
    made.normal(z)
    torch.testing.assert_close(
        losses.charge, model.rate(z, made).nats() - entropy.flatten(1).sum(1), rtol=1e-5, atol=1e-3
    )
    assert slopes(model, lambda losses: losses.charge)[0]
    assert Posterior(mean).draw(lambda like: like / 0) is mean


def test_a_draw_has_the_deviation_of_its_own_row_channel_and_place() -> None:
    """Kills: one spread for all, a variance for a deviation, a draw around nothing."""
    mean, variance, noise = signal(2, 5, coarse=True), signal(2, 5, coarse=True, seed=2).square() + 0.1, torch.ones(())
    wanted = mean + variance.sqrt() * 1.5
    drawn = Posterior(mean, variance.log()).draw(lambda like: 1.5 * noise.expand_as(like))
    torch.testing.assert_close(drawn, wanted)


@pytest.mark.parametrize("lambda_0", [5.0, -1.0])
def test_entropy_is_what_the_draws_add_to_that_of_z_0(lambda_0: float) -> None:
    """h[N(·, α² s² + σ²)] − h[N(·, σ²)], each ½ ln(2πe v). Kills: a sign of λ₀, s for s², half of it or twice."""
    variance = signal(2, 5, coarse=True).double().square() + 0.01
    entropy = Posterior(variance, variance.log()).entropy(lambda_0)
    alpha_2, sigma_2 = 1 / (1 + math.exp(-lambda_0)), 1 / (1 + math.exp(lambda_0))
    wanted = Normal(0.0, (alpha_2 * variance + sigma_2).sqrt()).entropy() - Normal(0.0, math.sqrt(sigma_2)).entropy()
    assert entropy is not None and Posterior(variance).entropy(lambda_0) is None
    torch.testing.assert_close(entropy, wanted, rtol=1e-6, atol=1e-6)


def test_a_learned_variance_scales_with_the_latents() -> None:
    """Kills: a trim of scale that leaves the spread around the latents where it was."""
    model, x = autoencoder(learned_variance=True), signal(2)
    before = model.posterior(x)
    model.rescale(1.5)
    after = model.posterior(x)
    torch.testing.assert_close(after.mean, 1.5 * before.mean)
    assert before.log_variance is not None and after.log_variance is not None
    torch.testing.assert_close(after.log_variance, before.log_variance + 2 * math.log(1.5))


def test_a_squared_error_is_half_the_square_of_one_answer() -> None:
    """Kills: a mean over pixels, noise in the input, an answer that depends on the steps or on x_1."""
    model, x, z_0 = autoencoder(decoder_loss="mse"), signal(2), signal(2, 5, coarse=True)
    made = model.decode(z_0, torch.randn_like(x), 1)
    assert torch.equal(made, model.decode(z_0, torch.randn_like(x), 4))
    assert not torch.equal(made, model.decode(z_0 + 1, x, 1))
    torch.testing.assert_close(model.reconstruction(x, z_0, draws()), 0.5 * (x - made).square().flatten(1).sum(1))
    assert slopes(model, lambda losses: losses.decoder) == (True, False, True)


def test_a_squared_error_asks_at_the_noisiest_level() -> None:
    """Kills: an answer asked for at another level than the one where the picture says nothing."""
    model, levels = autoencoder(decoder_loss="mse", lambda_min=-7.0), list[Tensor]()
    model.decoder.register_forward_pre_hook(lambda module, inputs: levels.append(inputs[1]))
    model.losses(signal(2), draws())
    model.decode(signal(2, 5, coarse=True), signal(2), 3)
    assert [level.tolist() for level in levels] == [[-7.0] * 3] * 2


class First(torch.nn.Module):
    """In place of the perceptual distance: what one number of each pair is apart."""

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        return (made - wanted)[:, 0, 0, 0]


def test_a_perceptual_term_is_added_with_its_weight() -> None:
    """Kills: a weight not used, a distance per batch, a network that becomes part of the model's weights."""
    model, x, z_0 = autoencoder(decoder_loss="mse", perceptual=3.0), signal(2), signal(2, 5, coarse=True)
    assert isinstance(model.decoding, SquaredError)
    model.decoding.perceptual.network.append(First())
    made = model.decode(z_0, x, 1)
    wanted = 0.5 * (x - made).square().flatten(1).sum(1) + 3 * (made - x)[:, 0, 0, 0]
    torch.testing.assert_close(model.reconstruction(x, z_0, draws()), wanted)
    assert not any("network" in name for name in model.state_dict())


@pytest.mark.parametrize("learned", [False, True])
def test_a_perceptual_term_beside_the_diffusion_loss_is_its_mean_over_the_first_levels(learned: bool) -> None:
    """Of a distance that is the log-SNR itself, by an integral. Kills: a term that moves with what is learned of the
    levels, a weight not used, a density turned round."""
    bias, low, high, batch = 2.0, -9.0, 7.0, 20_000
    placing = Placing(weighted_table(bias, low, high))
    if learned:
        level = placing.sample((torch.arange(batch) + 0.5) / batch).lambda_t
        placing.learn(placing.observe(level, 1.0 + 5.0 * (level > 2)).sum(0))
    model: Any = SimpleNamespace(
        config=SimpleNamespace(bias=bias, lambda_min=low),
        decoder=lambda x_t, level, cond: level.view(-1, 1, 1, 1).expand_as(x_t),
        decoder_levels=placing,
    )
    level = torch.linspace(low, high, 4001, dtype=torch.float64)
    guess = torch.sigmoid(bias - level) * torch.sigmoid(level)
    mean = float(torch.trapezoid(guess * level, level) / torch.trapezoid(guess, level))
    wanted = 3 * (0.9 * mean + 0.1 * (low + high) / 2)  # a tenth of the levels is spread evenly
    x, told = torch.zeros(batch, 1, 1, 1), dict[float, Tensor]()
    for share in (0.0, 3.0):
        told[share] = DiffusionDecoder(Perceptual(share, [First()])).loss(model, x, x, draws(batch))[0]
    assert float((told[3.0] - told[0.0]).mean()) == pytest.approx(wanted, abs=0.02)


def test_a_random_end_is_told_to_the_decoder_and_cuts_the_charge() -> None:
    """Kills: a charge beyond the latent's own end, a decoder not told of it, latents with the noise of λ₀."""
    model, x = autoencoder(random_end=(0.0, 1.0)), signal(2, batch=256)
    heard: list[Tensor] = []
    model.decoder.net.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[2]))
    losses = model.losses(x, draws(256))
    ends = heard[0].detach()[:, 5, 0, 0] * 10
    assert heard[0].shape[1] == 6 and float(ends.std()) > 1 and float(ends.max()) <= 5
    z, by_hand = model.encode(x), draws(256)
    share = by_hand.strata(256).double()  # quantiles of the logistic distribution, cut to [−10, 5]
    low, high = 1 / (1 + math.exp(10.0)), 1 / (1 + math.exp(-5.0))
    torch.testing.assert_close(ends.double(), torch.logit(low + share * (high - low)), rtol=1e-4, atol=1e-4)
    alpha, sigma = (torch.sigmoid(sign * ends).sqrt().view(-1, 1, 1, 1) for sign in (1, -1))
    torch.testing.assert_close(heard[0][:, :5], alpha * z + sigma * by_hand.normal(z), rtol=1e-4, atol=1e-4)
    paid = losses.rate.diffusion * (losses.rate.lambda_t <= ends).view(-1, 1, 1, 1) + losses.rate.terminal
    torch.testing.assert_close(losses.charge, paid.flatten(1).sum(1), rtol=1e-5, atol=1e-4)
    assert float(losses.charge.detach().mean()) < 0.95 * float(losses.rate.nats().detach().mean())
    model.decode(signal(2, 5, coarse=True), signal(2), 1)
    assert torch.equal(heard[-1][:, 5], torch.full((3, 2, 4), 0.5))


def test_a_charge_of_your_own_takes_the_rates_place() -> None:
    """Kills: a charge that is ignored, is added to the rate, or hides the rate that is reported."""

    def charge(model: Autoencoder, x: Tensor, z: Tensor, rate: RateTerms) -> Tensor:
        return 2 * rate.nats() + z.square().flatten(1).sum(1)

    plain = autoencoder()
    model = Autoencoder(plain.config, 3, charge=charge).eval()
    model.load_state_dict(plain.state_dict())
    x, ours, theirs = signal(2), plain.losses(signal(2), draws()), model.losses(signal(2), draws())
    torch.testing.assert_close(theirs.rate.nats(), ours.rate.nats())
    torch.testing.assert_close(theirs.charge, 2 * ours.charge + model.encode(x).square().flatten(1).sum(1))
    torch.testing.assert_close(theirs.total(0.5), theirs.charge + 0.5 * theirs.decoder)


def test_the_prior_samples_in_the_bases_place() -> None:
    """Kills: another network than stage 1's prior, a range of its own, a class that it has never heard of."""
    model = autoencoder(lambda_0=4.0)
    base = prior_as_base(model)
    assert base.denoise is model.prior and base.classes == 0 and (base.lambda_min, base.lambda_0) == (-10.0, 4.0)
    assert base.sample(signal(2, 5, coarse=True), None, 3).shape == (3, 5, 2, 4)
