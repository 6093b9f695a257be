"""Stage 1's numbers on pictures that are coloured and not square, and on latents whose bits have a closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unilat.maths.seeds import Draws
from unilat.models.control import RateController
from unilat.nets.denoiser import Denoiser
from unilat.nets.gaussian import GaussianDenoiser
from unilat.nets.vit import ViT, ViTConfig
from unilat.run.stages import FARTHEST, AutoencoderStage, prior_stage, settling
from unilat.signals import to_unit

from .pictured import CONFIG, CONTROL, Known, known_nats, pictures, stage


def test_the_controller_reads_bits_per_pixel_of_colour_pictures() -> None:
    """Kills: bits per dimension (a third of them, so three times the wanted bits), nats, the charge for the rate."""
    one = stage(price="stopped", kl_weight=0.5)
    (x,) = one.batch(torch.tensor([3, 0, 7]))
    _, told = one.losses((x,), Draws.keyed(0, 0, 0, 3))
    rate = one.model.losses(to_unit(x), Draws.keyed(0, 0, 0, 3)).rate
    nats = rate.diffusion.flatten(1).sum(1) + rate.terminal.flatten(1).sum(1)
    torch.testing.assert_close(told["bpp"], nats.detach() / (math.log(2) * 16 * 8))


def test_the_loss_is_in_nats_per_dimension_of_colour_pictures() -> None:
    """(R + c L) / max(1, c) over 3 · 16 · 8 numbers. Kills: nats per pixel, so a clip three times as hard; ln c."""
    one = stage(price="stopped", kl_weight=0.5)
    (x,) = one.batch(torch.tensor([3, 0, 7]))
    total, _ = one.losses((x,), Draws.keyed(0, 0, 0, 3))
    terms = one.model.losses(to_unit(x), Draws.keyed(0, 0, 0, 3))
    torch.testing.assert_close(total, (terms.charge + 20 * terms.decoder) / 20 / 384)


def known(wanted: float, aim: float | None = None, gain: float = 1.0) -> tuple[AutoencoderStage, Tensor]:
    """A stage with the encoder :class:`Known`, dark pictures to train on, and the latents of 256 bright ones."""
    one = stage(pictures(256, seed=2) // 4, pictures(256, seed=1) // 4 + 160, aim, target_bpp=wanted)
    one.model.encoder = Known(gain)  # pyright: ignore[reportAttributeAccessIssue]
    return one, one.model.encode(one.calibration.float() / 127.5 - 1) / gain


def test_calibration_is_the_known_bits_of_known_latents() -> None:
    """The untrained prior is the exact one of N(0, I), so the bits of any latent are an integral.

    Kills: bits per dimension, pictures that were trained on, the largest for the mean.
    """
    one, z = known(0.3, gain=1.6)
    exact = float(known_nats(1.6 * z).mean()) / (math.log(2) * 128)
    assert one.calibration_rate(one.model, 24, 0) == pytest.approx(exact, rel=0.01)


def bits_at(z: Tensor, log_scale: float) -> float:
    """Bits per pixel of latents z and their prior N(0, I), both scaled."""
    scale = math.exp(log_scale)
    return float(known_nats(scale * z, scale**2).mean()) / (math.log(2) * 128)


def test_trim_finds_the_scale_that_a_closed_form_asks_for() -> None:
    """Kills: a search that adds up its scales, ends early, or tells another scale or rate than it leaves."""
    one, z = known(0.3)
    wanted = bits_at(z, 0.19)
    one.config = replace(one.config, target_bpp=wanted)
    before = one.calibration_rate(one.model, 8, 0)
    told = one.trim(one.model)
    assert math.log(told["scale"]) == pytest.approx(0.19, abs=0.03)
    assert isinstance(one.model.encoder, Known) and one.model.encoder.gain == pytest.approx(told["scale"])
    assert told["untrimmed_bpp"] == before == pytest.approx(bits_at(z, 0.0), rel=0.02)
    assert told["calibration_bpp"] == pytest.approx(wanted, rel=0.005)


def test_the_aim_is_steered_for_and_the_wanted_bits_are_trimmed_to() -> None:
    """A prior that settles later is trained at more bits. Kills: the one of the two numbers where the other is due."""
    one, z = known(0.3)
    start = bits_at(z, 0.0)
    one, _ = known(bits_at(z, -0.3), aim=1.05 * start)
    assert one.controller.target == pytest.approx(1.05 * start)
    assert one.after_step({"bpp": 0.5}, 8)["target"] == pytest.approx(1.05 * start)
    told = one.trim(one.model)
    assert told["calibration_bpp"] == pytest.approx(bits_at(z, -0.3), rel=0.01) and told["scale"] < 1


@pytest.mark.parametrize("away", [0.68, 1.7, -0.9])
def test_trim_goes_on_where_the_wanted_bits_lie_beyond_its_reach(away: float) -> None:
    """A short run's prior saves so much that the bits are far away. Kills: a trim that stops at its reach and is still.

    Also one that searches the wrong side, or adds the second search's scale twice.
    """
    one, z = known(0.3)
    wanted = bits_at(z, away)
    one.config = replace(one.config, target_bpp=wanted)
    told = one.trim(one.model)
    assert math.log(told["scale"]) == pytest.approx(away, abs=0.03)
    assert isinstance(one.model.encoder, Known) and one.model.encoder.gain == pytest.approx(told["scale"])
    assert told["calibration_bpp"] == pytest.approx(wanted, rel=0.005)


def test_trim_ends_somewhere() -> None:
    """Kills: a search without an end for bits that no scale brings."""
    one, z = known(0.3)
    one.config = replace(one.config, target_bpp=bits_at(z, 6.0))
    told = one.trim(one.model)
    assert math.log(told["scale"]) == pytest.approx(FARTHEST, abs=0.03)
    assert told["calibration_bpp"] == pytest.approx(bits_at(z, FARTHEST), rel=0.03)


def test_trim_goes_back_where_more_scale_brings_no_bits() -> None:
    """Kills: latents left at a scale that was given up, or moved twice as far."""
    one, _ = known(1.2)
    encoder = one.model.encoder
    assert isinstance(encoder, Known)
    one.calibration_rate = lambda model, levels, seed: 1.0 / encoder.gain  # type: ignore[method-assign]
    told = one.trim(one.model)
    assert told == {"calibration_bpp": 1.0, "untrimmed_bpp": 1.0, "scale": 1.0}
    assert encoder.gain == pytest.approx(1.0)


@pytest.mark.parametrize(("pictures", "levels"), [(32, 8), (1024, 8), (2048, 4), (50_000, 2)])
def test_more_pictures_have_fewer_noise_levels_each_in_the_search(pictures: int, levels: int) -> None:
    """Kills: a search of thousands of pictures as dear as four of them, one of few levels for few pictures."""
    one, _ = known(1.2)
    one.calibration, asked = one.calibration[:1].expand(pictures, -1, -1, -1), set[int]()
    one.calibration_rate = lambda model, levels, seed: asked.add(levels) or 1.0  # type: ignore[method-assign]
    one.trim(one.model)
    assert asked == {levels}


def test_each_step_moves_the_controller_by_its_own_batch() -> None:
    """Kills: all samples so far taken for the step's, and a loss factor told that the step did not have."""
    one, twin = stage(), RateController(0.3, CONTROL)
    for step, bpp in enumerate((0.4, 0.35, 0.2), 1):
        used = twin.factor
        twin.update(bpp, 8)
        assert one.after_step({"bpp": bpp}, 8 * step) == {"loss_factor": pytest.approx(used), "target": 0.3}
        assert one.controller.factor == pytest.approx(twin.factor)
    assert twin.factor != pytest.approx(used)


def test_the_prior_follows_halfway_to_the_training_pictures() -> None:
    """Once, when 64 samples are full: (0 + mean) / 2 and (1 + variance) / 2 of 20 latents, too few for covariances.

    Kills: the calibration pictures' latents, all of the way at once, a look at every step.
    """
    one = stage()
    prior = one.model.prior
    assert isinstance(prior, GaussianDenoiser)
    z = one.model.encode(one.pictures.float() / 127.5 - 1).detach()
    for step in range(1, 10):
        one.after_step({"bpp": 0.3}, 8 * step)
        assert bool(prior.mean.any()) == (step >= 8)
    torch.testing.assert_close(prior.mean, 0.5 * z.mean(0), rtol=1e-4, atol=1e-5)
    variance = 0.5 + 0.5 * z.flatten(1).var(0, correction=0)
    torch.testing.assert_close(prior.covariance, variance.diag(), rtol=1e-4, atol=1e-5)


def test_latents_to_settle_on_are_drawn_each_with_noise_of_its_own() -> None:
    """300 times the same picture, in two parts. Kills: the posterior's mean, one noise for both parts."""
    one = stage(learned_variance=True)
    spread = one.model.encoder.spread
    assert spread is not None and spread.bias is not None
    torch.nn.init.constant_(spread.bias, 1.0)
    z = one.latents(one.pictures[:1].expand(300, -1, -1, -1), 5)
    mean, log_variance = one.model.encoder.posterior(one.pictures[:1].float() / 127.5 - 1)
    assert log_variance is not None and z.shape == (300, 4, 4, 2)
    noise = (z - mean) / log_variance.exp().sqrt()
    assert float(noise.detach().std()) == pytest.approx(1, abs=0.03)
    assert len({round(float(row), 6) for row in noise.detach()[:, 0, 0, 0]}) == 300


def test_the_prior_alone_learns_by_the_rate_in_nats_per_latent_dimension() -> None:
    """Kills: nats per channel, a terminal term at λ₀, levels that end at 5."""
    model = Denoiser(ViT(ViTConfig(channels=(32,), blocks=(1,), head_width=16), 4, 2), 2)
    z = 0.3 + 1.5 * torch.randn(512, 4, 4, 2, generator=torch.Generator().manual_seed(0))
    one = prior_stage(model, z, lambda_0=3.0, lambda_min=-2.0)
    with torch.no_grad():
        losses = [one.losses(one.batch(torch.arange(512)), Draws.keyed(0, step, 0, 512))[0] for step in range(12)]
    exact = known_nats(z, lambda_0=3.0, lambda_min=-2.0) / 32
    assert losses[0].shape == (512,)
    assert float(torch.cat(losses).mean()) == pytest.approx(float(exact.mean()), rel=0.01)


def test_each_placing_hears_of_its_own_loss() -> None:
    """Kills: the decoder's levels learned from the rate, the rate's from all of its nats, one's sums for the other."""
    one = stage(levels="learned", lambda_min=-4.0)
    (x,) = one.batch(torch.tensor([3, 0, 7]))
    _, told = one.losses((x,), Draws.keyed(0, 0, 0, 3))
    terms, (prior, decoder) = (
        one.model.losses(to_unit(x), Draws.keyed(0, 0, 0, 3)),
        (one.model.rate_levels, one.model.decoder_levels),
    )
    work = terms.rate.diffusion.detach().flatten(1).sum(1)
    assert terms.decoder_lambda is not None
    torch.testing.assert_close(told["prior_levels"], prior.observe(terms.rate.lambda_t, work))
    torch.testing.assert_close(told["decoder_levels"], decoder.observe(terms.decoder_lambda, terms.decoder.detach()))
    sums = {name: told[name].sum(0) for name in ("prior_levels", "decoder_levels")}
    assert not torch.equal(sums["prior_levels"], sums["decoder_levels"])
    one.observe(sums)
    assert torch.equal(prior.moments.flatten(), sums["prior_levels"])
    assert torch.equal(decoder.moments.flatten(), sums["decoder_levels"])


@pytest.mark.parametrize(("settle", "warmup", "halflife"), [(6_000, 750, 750.0), (80_000, 2_000, 5_000)])
def test_settling_is_as_long_as_its_configuration_says(settle: int, warmup: int, halflife: float) -> None:
    """Kills: stage 1's length, an average or a rise that is longer than a short fit."""
    made = settling(replace(CONFIG, settle=settle))
    assert (made.samples, made.warmup, made.ema_halflife, made.batch) == (settle, warmup, halflife, 64)
    assert (made.decay, made.clip, made.learning_rate, made.optimizer) == (0.5, 1.0, 1e-3, "adamw")


def test_settling_in_larger_batches_takes_as_many_latents() -> None:
    """As many steps of warm-up and of memory, as many latents in all. Kills: a rise of four steps on a GPU, an average
    that knows ten of them, a batch of stage 1."""
    made = settling(replace(CONFIG, settle=4_000_000, settle_batch=512))
    assert (made.batch, made.samples, made.warmup, made.ema_halflife) == (512, 4_000_000, 16_000, 40_000)
    few = settling(replace(CONFIG, settle=8_000, settle_batch=512))
    assert (few.warmup, few.ema_halflife) == (1_000, 1_000)


def test_calibrations_fall_due_by_pictures() -> None:
    """Kills: steps for pictures, and none at all where a batch is longer than the interval."""
    assert stage(calibrate_every=64).eval_every == 8
    assert stage(calibrate_every=5).eval_every == 1
