"""Stage 1's objective: closed forms where the untrained network is exact, sums, and where gradients go."""

import math

import pytest
import torch
from torch import Tensor

from nets.samples import AXES, COARSE, GRIDS, signal
from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, Stage1Losses
from unilat.nets.decoder import START, Heard

from .fixed import Fixed, autoencoder


def draws(batch: int, seed: int = 0) -> Draws:
    return Draws.single(torch.Generator().manual_seed(seed), batch)


def test_rate_of_unit_latents_under_the_untrained_prior_is_the_closed_form() -> None:
    """Kills: a level's density forgotten, λ₀ or λ_min of something else, nats taken for bits, a mean over dimensions.

    The untrained prior is the exact denoiser of N(0, I), so R is 3.611582 bits a dimension at λ₀ = 5 (derivation.md).
    """
    z = torch.randn(512, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nats = autoencoder(fresh=True).rate(z, draws(len(z))).nats()
    assert float(nats.mean()) / (LN2 * 160) == pytest.approx(3.611582, rel=0.01)


@pytest.mark.parametrize(("lambda_0", "lambda_min"), [(3.0, -8.0), (7.0, -10.0)])
def test_rate_ends_at_lambda_0(lambda_0: float, lambda_min: float) -> None:
    """Kills: λ₀ = 5 written in, or the terminal term taken at another level."""
    model = autoencoder(fresh=True, lambda_0=lambda_0, lambda_min=lambda_min)
    z = torch.randn(512, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        nats = model.rate(z, draws(len(z))).nats()
        terminal = model.rate(z, draws(len(z))).terminal
    exact = Gaussian(torch.ones(160), torch.zeros(160)).rate_nats(lambda_min, lambda_0)
    assert float(nats.mean()) == pytest.approx(exact, rel=0.01)
    noise = 1 / (1 + math.exp(lambda_min))
    kept = 0.5 * ((1 - noise) * z.double().square() + noise - 1 - math.log(noise))
    torch.testing.assert_close(terminal.double(), kept, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("bias", "start"), [(-2.0, "data"), (1.5, "data"), (1.5, "latent")])
def test_decoder_loss_of_gaussian_data_is_its_integral(bias: float, start: str) -> None:
    """Kills: the weight's sign (it must fall as λ rises), e^λ or the density left out, the range of the prior used.

    ½ ∫ sigmoid(b − λ) e^λ mmse(λ) dλ with mmse = s² σ² / (α² s² + σ²), and the untrained decoder exact.
    """
    mean, std = torch.tensor([0.3, -0.2, 0.0]), torch.tensor([0.5, 0.2, 1.0])
    config = autoencoder(fresh=True, bias=bias, lambda_max=8.0, decoder_start=start).config
    model = Autoencoder(config, 3, mean, std / math.exp(START) if start == "latent" else std)
    x = mean.view(3, 1, 1) + std.view(3, 1, 1) * torch.randn(512, 3, 8, 16)
    with torch.no_grad():
        loss = model.reconstruction(x, torch.zeros(512, 5, 2, 4), draws(512))
    level = torch.linspace(-10, 8, 4001, dtype=torch.float64)
    signal_share, noise_share = torch.sigmoid(level), torch.sigmoid(-level)
    mmse = sum(s2 * noise_share / (signal_share * s2 + noise_share) for s2 in std.double().square())
    exact = 128 * 0.5 * torch.trapezoid(torch.sigmoid(bias - level) * level.exp() * mmse, level)
    assert float(loss.mean()) == pytest.approx(float(exact), rel=0.02)


def test_losses_are_sums_in_nats() -> None:
    """Kills: a mean over pixels, channels or latents anywhere: twice the same content must cost exactly twice."""
    model = autoencoder(fresh=True)
    z, x = signal(2, 5, coarse=True), signal(2)
    quantiles, noise_z, noise_x = torch.tensor([0.1, 0.6, 0.97]), torch.randn_like(z), torch.randn_like(x)

    def doubled(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor], dim=3)

    one = model.rate(z, Fixed(quantiles, [noise_z]))  # type: ignore[arg-type]
    two = model.rate(doubled(z), Fixed(quantiles, [doubled(noise_z)]))  # type: ignore[arg-type]
    torch.testing.assert_close(two.nats(), 2 * one.nats())
    assert one.nats().shape == (3,)
    single = model.reconstruction(x, z, Fixed(quantiles, [noise_x]))  # type: ignore[arg-type]
    double = model.reconstruction(doubled(x), doubled(z), Fixed(quantiles, [doubled(noise_x)]))  # type: ignore[arg-type]
    torch.testing.assert_close(double, 2 * single)
    assert single.shape == (3,)


def test_terms_of_the_rate_add_up() -> None:
    """Kills: a map or a curve that is of another quantity than the bits beside it."""
    model, z = autoencoder(), signal(2, 5, coarse=True)
    terms = model.rate(z, draws(3))
    mean = terms.nats().mean()
    torch.testing.assert_close(terms.dimension_map().sum(), mean)
    curve = terms.curve(torch.linspace(-10, 5, 31))
    torch.testing.assert_close(curve.sum() + terms.terminal.flatten(1).sum(1).mean(), mean)


@pytest.mark.parametrize(("factor", "shares"), [(0.25, (1.0, 0.25)), (1.0, (1.0, 1.0)), (40.0, (1 / 40, 1.0))])
def test_total_is_one_common_constant(factor: float, shares: tuple[float, float]) -> None:
    """Kills: c_lf on the rate, a total that grows with c_lf, or one that shrinks below c_lf = 1."""
    model = autoencoder()
    losses = model.losses(signal(2), draws(3))
    expected = shares[0] * losses.rate.nats() + shares[1] * losses.decoder
    torch.testing.assert_close(losses.total(factor), expected)


def test_corrupted_latents_have_the_noise_of_lambda_0() -> None:
    """Kills: noise of another level, σ for σ², a latent that is not shrunk by α."""
    model = autoencoder(lambda_0=1.5)
    z, noise = signal(2, 5, coarse=True), signal(2, 5, coarse=True, seed=4)
    for level, end in ((1.5, None), (-0.5, torch.full((3,), -0.5))):
        sigmoid = 1 / (1 + math.exp(-level))
        wanted = math.sqrt(sigmoid) * z + math.sqrt(1 - sigmoid) * noise
        torch.testing.assert_close(model.corrupt(z, noise, end), wanted)


def test_decoder_is_given_z_0() -> None:
    """Kills: the clean latent, or the prior's ẑ, handed to the decoder while training (a known mistake of ports)."""
    model, x = autoencoder(), signal(2)
    given: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[2]))
    z = model.encode(x)
    noise = [torch.randn_like(z), torch.randn_like(z), torch.randn_like(x)]
    model.losses(x, Fixed(torch.tensor([0.1, 0.6, 0.97]), list(noise)))  # type: ignore[arg-type]
    torch.testing.assert_close(given[0], model.corrupt(z, noise[0]))


def test_two_terms_have_noise_of_their_own() -> None:
    """Kills: one draw of levels or noise for both terms, or the encoder's noise used again by the prior."""
    made: list[Tensor] = []

    class Recorded(Draws):
        def normal(self, like: Tensor) -> Tensor:
            made.append(super().normal(like))
            return made[-1]

        def strata(self, batch: int) -> Tensor:
            made.append(super().strata(batch))
            return made[-1]

    autoencoder().losses(signal(2), Recorded(0, 0, 3))
    assert [tuple(tensor.shape) for tensor in made] == [(3, 5, 2, 4), (3,), (3, 5, 2, 4), (3,), (3, 3, 8, 16)]
    assert not torch.equal(made[0], made[2]) and not torch.equal(made[1], made[3])


def test_start_at_unit_scale() -> None:
    """Kills: a scale applied twice or not to the bias, one number for all channels, the wrong axis of the weight."""
    model, x = autoencoder(), signal(2, batch=16)
    before = model.encode(x).detach()
    model.start_at_unit_scale(x)
    z = model.encode(x).detach()
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(5), rtol=1e-5, atol=0)
    mean, std = before.mean((0, 2, 3)).view(5, 1, 1), before.std((0, 2, 3)).view(5, 1, 1)
    torch.testing.assert_close(z, (before - mean) / std, rtol=1e-4, atol=1e-4)


def test_start_survives_a_dead_channel() -> None:
    """Kills: a division by zero for a channel that is the same everywhere, as on all-black pictures."""
    model = autoencoder()
    model.start_at_unit_scale(torch.full((4, 3, 8, 16), -1.0))
    assert bool(model.encode(signal(2)).isfinite().all())


def _gradients(model: Autoencoder, share: float, pick: str) -> tuple[list[Tensor], list[Tensor], Stage1Losses]:
    """Gradients of the picked term in the encoder and in the prior."""
    losses = model.losses(signal(2), draws(3), rate_share=share)
    term = losses.rate.nats().sum() if pick == "rate" else losses.decoder.sum()
    encoder, prior = list(model.encoder.parameters()), list(model.prior.parameters())
    found = torch.autograd.grad(term, encoder + prior, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(found, encoder + prior, strict=True)]
    return filled[: len(encoder)], filled[len(encoder) :], losses


def test_rate_share_scales_one_gradient_and_nothing_else() -> None:
    """Kills: a share that also cuts the decoder's way into the encoder, starves the prior, or changes a value."""
    model = autoencoder()
    whole, half, none = (_gradients(model, share, "rate") for share in (1.0, 0.5, 0.0))
    assert all(bool(g.any()) for g in whole[0])
    for full, scaled, cut in zip(whole[0], half[0], none[0], strict=True):
        torch.testing.assert_close(scaled, 0.5 * full, rtol=1e-4, atol=1e-5 * float(full.abs().max()))
        assert not cut.any()
    for full, scaled, cut in zip(whole[1], half[1], none[1], strict=True):
        torch.testing.assert_close(scaled, full)
        torch.testing.assert_close(cut, full)
    for share in (1.0, 0.5, 0.0):
        decoder, prior, losses = _gradients(model, share, "decoder")
        assert all(bool(g.any()) for g in decoder) and not any(g.any() for g in prior)
        torch.testing.assert_close(losses.rate.nats(), whole[2].rate.nats())
        torch.testing.assert_close(losses.decoder, whole[2].decoder)


def test_the_rates_gradient_in_the_encoder_is_the_slope() -> None:
    """Kills: a detach on the clean or on the noisy side of the prior's error: part of the gradient would be missing."""
    model, x = autoencoder(), signal(2)
    quantiles, noise = torch.tensor([0.3, 0.7, 0.9]), torch.randn(3, 5, 2, 4)
    bias = model.encoder.head.bias
    assert isinstance(bias, Tensor)
    direction = torch.randn(5, generator=torch.Generator().manual_seed(3))

    def nats() -> Tensor:
        return model.rate(model.encode(x), Fixed(quantiles, [noise])).nats().sum()  # type: ignore[arg-type]

    def rate(shift: float) -> Tensor:
        with torch.no_grad():
            bias.add_(shift * direction)
            value = nats()
            bias.sub_(shift * direction)
        return value

    slope = (rate(0.02) - rate(-0.02)) / 0.04
    (gradient,) = torch.autograd.grad(nats(), bias)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=5e-3, atol=1e-3)


def test_noise_levels_are_those_of_the_configuration() -> None:
    """Kills: a decoder trained beyond λ_max or λ_min, or a prior trained below its lowest noise λ₀."""
    model = autoencoder(lambda_0=4.0, lambda_min=-7.0, lambda_max=9.0)
    ends = torch.tensor([0.0, 1.0 - 2**-24])
    torch.testing.assert_close(model.rate_levels.sample(ends).lambda_t, torch.tensor([-7.0, 4.0]))
    torch.testing.assert_close(model.decoder_levels.sample(ends).lambda_t, torch.tensor([-7.0, 9.0]))


@pytest.mark.parametrize("steps", [1, 3])
def test_decoding_makes_so_many_calls_and_hears_z_0(steps: int) -> None:
    """Kills: a call more than was asked for, a decoder deaf to z_0, a result that keeps noise."""
    model, z_0, x_1 = autoencoder(), signal(2, 5, coarse=True), signal(2, seed=7)
    calls: list[tuple[Tensor, Heard]] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[1:]))
    made = model.decode(z_0, x_1, steps, (-5.0, 4.0))
    assert len(calls) == steps and all(call[1].z_0 is z_0 for call in calls)
    assert [float(call[0][0]) for call in calls] == pytest.approx([-5.0, -0.5, 4.0][:steps])
    assert made.shape == x_1.shape and not made.requires_grad
    assert torch.equal(model.decode(z_0, x_1, steps, (-5.0, 4.0)), made)
    assert not torch.equal(model.decode(z_0 + 1, x_1, steps, (-5.0, 4.0)), made)


def test_decoding_starts_from_the_noise_and_ends_where_the_exact_flow_does() -> None:
    """DDIM written out on the untrained decoder, which is exact for N(m, s²): λ from −6 to 3, then clean.

    Kills: another span, a start that is not the noise given, a last answer that keeps noise.
    """
    mean, std = torch.tensor([0.3, -0.2, 0.0]).view(3, 1, 1), torch.tensor([0.5, 0.2, 1.0]).view(3, 1, 1)
    model = Autoencoder(autoencoder(fresh=True, decoder_start="data").config, 3, mean.flatten(), std.flatten())
    x = x_1 = signal(2, seed=7)
    levels = [(1 / (1 + math.exp(-level)), 1 / (1 + math.exp(level))) for level in (-6.0, -3.0, 0.0, 3.0)] + [(1, 0)]
    for (now, noise), (then, less) in zip(levels, levels[1:], strict=False):  # α² and σ² of both ends of a step
        gain = math.sqrt(now) * std.square() / (now * std.square() + noise)
        x_hat = mean + gain * (x - math.sqrt(now) * mean)
        x = math.sqrt(then) * x_hat + math.sqrt(less / noise) * (x - math.sqrt(now) * x_hat)
    torch.testing.assert_close(model.decode(signal(2, 5, coarse=True), x_1, 4), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", AXES)
def test_every_number_of_axes_trains_and_decodes(axes: int) -> None:
    """Kills: two axes written into the objective or into decoding."""
    model = autoencoder(axes)
    x = signal(axes)
    model.losses(x, draws(3)).total(2.0).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    z = model.encode(x)
    assert z.shape == (3, 5, *COARSE[axes])
    assert model.decode(z.detach(), torch.randn(3, 3, *GRIDS[axes]), 2).shape == x.shape


def test_losses_of_rows_do_not_depend_on_the_process_that_computes_them() -> None:
    """Kills: randomness of the batch instead of the global batch: rows 2 and 3 of four must be the second process's."""
    model, x = autoencoder(), signal(2, batch=4)
    whole = model.losses(x, Draws.keyed(1, 5, 0, 4))
    part = model.losses(x[2:], Draws.keyed(1, 5, 2, 4))
    torch.testing.assert_close(part.total(3.0), whole.total(3.0)[2:], rtol=1e-5, atol=1e-4)
