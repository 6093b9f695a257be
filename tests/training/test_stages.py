"""The stages as the engine sees them; their golden steps stand in ``tests/test_golden.py``."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from unilat.maths.rate import LN2
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder, AutoencoderConfig
from unilat.models.base import Base, BaseConfig
from unilat.models.control import ControlConfig
from unilat.models.placing import Placing
from unilat.nets.encoder import EncoderConfig
from unilat.nets.gaussian import GaussianDenoiser
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViTConfig
from unilat.recipe.config import Stage1Config, Stage2Config
from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling
from unilat.signals import to_unit
from unilat.training import checkpoint
from unilat.training.engine import fit
from unilat.training.machine import pick_device
from unilat.training.plan import Stage
from unilat.types import UserError

CONTROL = ControlConfig(gain=0.15, proportional=1.0, smoothing=200.0, start=20.0, limit=1e4)
CONFIG = Stage1Config(
    target_bpp=0.3,
    samples=160,
    batch=8,
    learning_rate=1e-3,
    optimizer="adamw",
    warmup=16,
    decay=0.5,
    ema_halflife=16,
    clip=1.0,
    unit_scale=True,
    prior_warmup=40,
    follow_every=64,
    calibrate_every=64,
    levels="fixed",
    control=CONTROL,
)  # everything said: this file is about the objective, not about the presets


def pictures(count: int = 24) -> torch.Tensor:
    """Waves of different lengths and directions, uint8, the same on every machine."""
    place = torch.arange(16, dtype=torch.float64)
    number = torch.arange(1, count + 1, dtype=torch.float64).view(-1, 1, 1)
    waves = torch.sin(place[:, None] * number / 9) + torch.cos(place * (25 - number) / 11)
    return (127.5 + 60 * waves).clamp(0, 255).to(torch.uint8)[:, None]


def stage(config: Stage1Config = CONFIG, learned_variance: bool = False) -> AutoencoderStage:
    """A tiny stage 1, from a fixed seed."""
    networks = AutoencoderConfig(
        covariance_up_to=1024,
        latent_channels=4,
        learned_variance=learned_variance,
        encoder=EncoderConfig(channels=(16, 16), blocks=(1, 1), strides=((2, 2),), patch=(2, 2)),
        prior=ViTConfig(channels=(32,), blocks=(1,), head_width=16),
        decoder=UViTConfig(channels=(16,), blocks=(1,), strides=((2, 2),), width=32, depth=1, head_width=16),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Autoencoder(networks, 1, torch.zeros(1), torch.full((1,), 0.5), grid=(4, 4))
    data = pictures()
    model.start_at_unit_scale(data[:16].float() / 127.5 - 1)
    return AutoencoderStage(model, data[:20], data[20:], config)


def test_losses_are_what_the_log_calls_them() -> None:
    """Kills: bits per dimension called bits per pixel, a loss per batch, a loss factor applied twice or not."""
    one = stage(replace(CONFIG, prior_warmup=0))
    (rows,) = one.batch(torch.tensor([3, 0, 7]))
    assert rows.dtype == torch.uint8 and torch.equal(rows, one.pictures[[3, 0, 7]])
    x = rows / 127.5 - 1
    total, told = one.losses((rows,), Draws.keyed(0, 0, 0, 3))
    terms = one.model.losses(x, Draws.keyed(0, 0, 0, 3))
    torch.testing.assert_close(told["bpp"], terms.rate.nats() / (LN2 * 256))
    torch.testing.assert_close(told["decoder"], terms.decoder)
    torch.testing.assert_close(total, terms.total(20.0) / 256)
    assert total.requires_grad and not told["bpp"].requires_grad


def test_the_prior_learns_before_the_encoder_pays() -> None:
    """Kills: a warm-up by steps, one that never ends, one that starts whole."""
    one = stage(replace(CONFIG, target_bpp=None, loss_factor=1e-9, prior_warmup=64))
    weight = one.model.encoder.head.weight
    slopes = []
    for samples in (0, 32, 64, 640):
        one.samples = samples
        loss, _ = one.losses(one.batch(torch.arange(4)), Draws.keyed(0, 0, 0, 4))
        (gradient,) = torch.autograd.grad(loss.sum(), weight)  # type: ignore[arg-type]
        slopes.append(float(gradient.norm()))
    assert slopes[0] < 1e-4 * slopes[2]
    assert slopes[1] == pytest.approx(slopes[2] / 2, rel=1e-4) and slopes[3] == pytest.approx(slopes[2], rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "advice"), [(1e-4, "fewer bits, or more autoencoder.latent_channels"), (50.0, "ask for more bits")]
)
def test_a_target_out_of_reach_ends_the_run(rate: float, advice: str) -> None:
    """Kills: training on with the factor at its limit, the wrong way out, and a stop after a single unlucky batch."""
    one = stage(replace(CONFIG, batch=1000, control=replace(CONTROL, limit=30.0)))
    steps = 0
    with pytest.raises(UserError, match=f"0.3 bits per pixel are out of this latent's reach.*{advice}"):
        for _ in range(2000):
            one.after_step({"bpp": rate}, steps * 1000)
            steps += 1
    assert steps >= 20
    lucky = stage(replace(CONFIG, batch=1000, control=replace(CONTROL, limit=30.0)))
    for step in range(400):  # at the limit now and again, never for long
        lucky.after_step({"bpp": rate if step % 40 < 20 else 0.09 / rate}, step * 1000)
    other = stage(replace(CONFIG, target_bpp=None, loss_factor=30.0, control=replace(CONTROL, limit=30.0)))
    for step in range(100):
        assert math.isnan(other.after_step({"bpp": rate}, step * 1000)["target"])


def test_calibration_measures_the_average_and_moves_the_aim() -> None:
    """Kills: the running weights measured in place of the average, trained pictures, noise that is not pinned."""
    one = stage()
    one.controller.update(0.3, 8)
    ema = {name: tensor.detach().clone() for name, tensor in one.model.state_dict().items()}
    assert one.calibrate(ema, 1) == {}  # the average still remembers the start
    for parameter in one.model.parameters():
        torch.nn.init.zeros_(parameter)
    first = one.calibrate(ema, 16)["calibration_bpp"]
    one.controller.log_ratio = 0.0
    assert first > 0.1 and one.calibrate(ema, 16)["calibration_bpp"] == first
    assert math.copysign(1, one.controller.log_ratio) == math.copysign(1, math.log(first / 0.3))
    one.calibration = one.pictures[:4]
    assert one.calibrate(ema, 16)["calibration_bpp"] != first


def test_calibration_measures_what_training_does_where_a_variance_is_learned() -> None:
    """Latents drawn, and what the draws add to their entropy taken off. Kills: the rate of the posterior's mean."""
    one = stage(learned_variance=True)
    spread = one.model.encoder.spread
    assert spread is not None and spread.bias is not None
    torch.nn.init.constant_(spread.bias, -2.0)
    x = to_unit(one.calibration)
    with torch.no_grad():
        rates = [one.model.losses(x, Draws.keyed(1, step, 0, len(x))).rate.nats().mean() for step in range(200)]
    expected = float(torch.stack(rates).mean()) / (LN2 * one.kind.units)
    found = [one.calibration_rate(one.model, 8, seed) for seed in range(25)]
    assert sum(found) / 25 == pytest.approx(expected, rel=0.03)


def test_trim_comes_no_further_from_the_wanted_bits() -> None:
    """Kills: a search in the wrong direction, a scale that is told but not applied, a rate worse than before."""
    for wanted in (0.5, 1.0, 1.6, 5.0):
        one = stage(replace(CONFIG, target_bpp=wanted))
        before = one.model.encode(to_unit(one.batch(torch.arange(3))[0]))
        told = one.trim(one.model)
        assert abs(told["calibration_bpp"] - wanted) <= abs(told["untrimmed_bpp"] - wanted)
        assert one.calibration_rate(one.model, 8, 0) == pytest.approx(told["calibration_bpp"], rel=1e-5)
        torch.testing.assert_close(
            one.model.encode(to_unit(one.batch(torch.arange(3))[0])), told["scale"] * before, rtol=1e-5, atol=1e-5
        )
        assert math.exp(-2.001) <= told["scale"] <= math.exp(2.001)
    reach = one.calibration_rate(one.model, 8, 0)
    near = stage(replace(CONFIG, target_bpp=0.97 * reach))
    near.model.load_state_dict(one.model.state_dict())
    assert near.trim(near.model)["calibration_bpp"] == pytest.approx(0.97 * reach, rel=0.01)
    assert stage(replace(CONFIG, target_bpp=None, loss_factor=2.0)).trim(one.model) == {}


def test_settling_trains_the_prior_alone_and_nearer(tmp_path: Path) -> None:
    """Kills: an encoder that moves, a covariance left as it was, levels that end at λ₀, weights that are thrown away,
    latents of another encoder taken for these, a schedule of stage 1's length."""
    one = stage(replace(CONFIG, settle=6_000, learning_rate=3e-3))
    one.calibration = one.pictures
    one.model.to(pick_device())  # as stage 1 leaves it
    frozen = {name: value.clone() for name, value in one.model.state_dict().items() if not name.startswith("prior.")}
    z, before = one.latents(one.pictures, 0), one.calibration_rate(one.model, 32, 0)
    settled = one.settled()
    assert isinstance(one.model.prior, GaussianDenoiser)
    torch.testing.assert_close(one.model.prior.mean, z.mean(0))
    assert settled.state()["lambda_0"] == pytest.approx(6.0) and torch.equal(
        settled.batch(torch.arange(20))[0], z.cpu()
    )
    done = fit(settled, settling(one.config), tmp_path, 0)
    one.model.prior.load_state_dict(done.ema)
    assert done.samples == 6_016  # whole steps of 64
    after = one.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert one.calibration_rate(one.model, 32, 0) < 0.9 * before
    torch.nn.init.normal_(one.model.encoder.head.weight)
    with pytest.raises(UserError, match="latents differ"):
        fit(one.settled(), settling(one.config), tmp_path, 0)


def second(levels: Literal["learned", "fixed"]) -> Stage:
    """A tiny stage 2, from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Base(BaseConfig(vit=ViTConfig(channels=(16,), blocks=(1,), head_width=16)), 3, 2, 4, -10.0, 5.0)
        return base_stage(model, 0.2 * torch.randn(24, 3, 2, 4), torch.arange(24) % 4, levels)


@pytest.mark.parametrize("which", ["stage 1", "stage 2"])
def test_levels_learned_across_a_stop_are_those_of_the_run_that_was_not_stopped(tmp_path: Path, which: str) -> None:
    """Kills: moments left out of a checkpoint or of the average, a table kept from before the weights were read."""

    def made(levels: Literal["learned", "fixed"]) -> Stage:
        return stage(replace(CONFIG, levels=levels)).stage() if which == "stage 1" else second(levels)

    whole, before, after, fixed = made("learned"), made("learned"), made("learned"), made("fixed")
    ends = [
        fit(whole, schedule(CONFIG), tmp_path / "whole", 0),
        fit(before, schedule(CONFIG), tmp_path / "two", 0, stop_at=9),
    ]
    ends.append(fit(after, schedule(CONFIG), tmp_path / "two", 0))
    marks = [checkpoint.load(tmp_path / name) for name in ("whole", "two")]
    assert marks[0] and marks[1] and marks[0].fingerprint() == marks[1].fingerprint()
    names = [name for name in ends[0].ema if name.endswith("moments")]
    assert len(names) == (2 if which == "stage 1" else 1)
    for name in names:
        place, found = whole.model.get_submodule(name.removesuffix(".moments")), ends[0].ema[name]
        assert isinstance(place, Placing) and float(place.moments[0].sum()) > 100
        assert bool((found > 0).any()) and not torch.equal(found, place.moments)
        learned = place.table
        assert not torch.equal(learned.mass, place.guess.mass)
        place.load_state_dict({"moments": found})
        assert not torch.equal(place.table.mass, learned.mass)
    fit(fixed, schedule(CONFIG), tmp_path / "fixed", 0)
    assert all(not tensor.any() for name, tensor in fixed.model.state_dict().items() if name.endswith("moments"))


def test_a_stages_state_is_json_and_whole() -> None:
    """Kills: a count that a checkpoint forgets: the warm-up or the limit's patience would begin anew."""
    one, other = stage(), stage()
    for step in range(1, 5):
        one.after_step({"bpp": 0.1 * step}, 8 * step)
    one.stuck = 16
    other.load_state(json.loads(json.dumps(one.state())))
    assert (other.samples, other.stuck) == (32, 16)
    assert other.after_step({"bpp": 0.2}, 40) == one.after_step({"bpp": 0.2}, 40)
    assert other.controller.factor == one.controller.factor
    with pytest.raises(UserError, match="begun by another unilat"):
        other.load_state({**one.state(), "stuck": "16"})


def test_stage_2_gives_the_engine_nats_per_dimension() -> None:
    """Kills: labels of other latents, a loss that grows with the latent and so outruns its clip."""
    torch.manual_seed(0)
    model = Base(BaseConfig(vit=ViTConfig(channels=(16,), blocks=(1,), head_width=16)), 3, 2, 4, -10.0, 5.0)
    z, labels = torch.randn(6, 3, 2, 4), torch.arange(6) % 4
    one = base_stage(model, z, labels)
    rows, named = one.batch(torch.tensor([5, 2]))
    assert torch.equal(rows, z[[5, 2]]) and named.tolist() == [1, 2] and one.count == 6
    loss, told = one.losses((rows, named), Draws.keyed(0, 0, 0, 2))
    torch.testing.assert_close(loss, model.losses(rows, named, Draws.keyed(0, 0, 0, 2))[0] / 24)
    assert told == {} == one.after_step({}, 3) == one.state()
    learning = base_stage(model, z, labels, "learned")
    same, told = learning.losses((rows, named), Draws.keyed(0, 0, 0, 2))
    assert torch.equal(same, loss) and told["levels"].shape == (2, 64) and not told["levels"].requires_grad


def test_stage_2_draws_every_latent_anew_where_a_variance_is_learned() -> None:
    """Its latents are mean + deviation · noise of the step's own key. Kills: one draw a picture for all of training, a
    variance for a deviation, the mean alone, noise that z_t's is made of too, and a draw that a resumed step misses."""
    torch.manual_seed(0)
    model = Base(BaseConfig(vit=ViTConfig(channels=(16,), blocks=(1,), head_width=16)), 3, 2, 4, -10.0, 5.0)
    moments, labels = torch.stack([torch.randn(6, 3, 2, 4), torch.rand(6, 3, 2, 4) + 0.5], 1), torch.arange(6) % 4
    one = base_stage(model, torch.zeros(6, 3, 2, 4), labels, moments=moments)
    rows, named = one.batch(torch.tensor([5, 2]))
    assert torch.equal(rows, moments[[5, 2]]) and named.tolist() == [1, 2]
    draws = Draws.keyed(0, 7, 0, 2)
    z = rows[:, 0] + rows[:, 1] * draws.normal(rows[:, 0])
    wanted = model.losses(z, named, draws)[0] / 24
    torch.testing.assert_close(one.losses((rows, named), Draws.keyed(0, 7, 0, 2))[0], wanted)
    assert torch.equal(*(one.losses((rows, named), Draws.keyed(0, 7, 0, 2))[0] for _ in range(2)))


def test_the_schedule_is_the_configurations() -> None:
    """Kills: a setting that the engine never hears of."""
    for config in (CONFIG, Stage2Config(samples=300, batch=7, learning_rate=3e-4, warmup=11, decay=0.2, clip=0.5)):
        made = schedule(config)
        for name in ("batch", "samples", "learning_rate", "optimizer", "warmup", "decay", "ema_halflife", "clip"):
            assert getattr(made, name) == getattr(config, name)
