"""Distillation's starts, targets and loss, written out: what teacher and student are asked, and on which latents."""

import math

import torch
from torch import Tensor

from models.fixed import autoencoder
from nets.samples import shaken, vit
from unilat.maths.samplers import uniform_grid
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base, BaseConfig
from unilat.nets.condition import Condition
from unilat.run.students import base_teacher, decoder_teacher, distill_stage

PICTURES = torch.randint(0, 256, (4, 3, 8, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def share(level: float) -> tuple[float, float]:
    """α and σ."""
    return math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))


def model_and_start() -> tuple[Autoencoder, Tensor, Tensor, Tensor]:
    """An autoencoder with a wide spread, and by hand what its paths start from: noise, z_0 and the pictures."""
    model = autoencoder(learned_variance=True, lambda_0=1.0)
    spread = model.encoder.spread
    assert spread is not None and spread.bias is not None
    torch.nn.init.constant_(spread.bias, 1.0)
    by_hand, x = Draws.keyed(2, 0, 0, 4), PICTURES.float() / 127.5 - 1
    mean, log_variance = model.encoder.posterior(x)
    assert log_variance is not None
    z = mean + log_variance.exp().sqrt() * by_hand.normal(mean)
    alpha, sigma = share(1.0)
    z_0 = (alpha * z + sigma * by_hand.normal(z)).detach()
    return model, by_hand.normal(x), z_0, x


def test_the_decoder_is_distilled_on_noisy_latents_from_its_own_temperature() -> None:
    """Kills: clean latents, the posterior's mean for a draw, a start of deviation 1, another picture as the truth."""
    model, noise, z_0, x = model_and_start()
    teacher = decoder_teacher(model, PICTURES, uniform_grid(-6.0, 3.0, 4, to_clean=True), 0.6)
    start = teacher.start(PICTURES, Draws.keyed(2, 0, 0, 4))
    assert start.cond is not None and start.truth is not None and teacher.denoise is teacher.network is model.decoder
    torch.testing.assert_close(start.x_1, 0.6 * noise)
    torch.testing.assert_close(start.cond, z_0)
    torch.testing.assert_close(start.truth, x)


def test_the_loss_is_of_the_student_in_nats_per_dimension() -> None:
    """½ ‖x̂* − student‖² at both of its calls and ½ w ‖x − student‖² at the last, over C·H·W; DDIM by hand.

    Kills: a student that hears what its teacher draws of the latent, a teacher that is its own student, targets of
    every call, the truth at weight 1, a mean over pixels alone.
    """
    model, noise, z_0, x = model_and_start()
    grid = uniform_grid(-6.0, 3.0, 4, to_clean=True)
    stage = distill_stage("decoder", decoder_teacher(model, PICTURES, grid, 0.6), 2, 0.7, {})
    shaken(stage.model, seed=9, scale=0.1)
    levels = [share(level) for level in (-6.0, -3.0, 0.0, 3.0)] + [(1.0, 0.0)]
    points = [0.6 * noise]
    with torch.no_grad():
        for index, level in enumerate((-6.0, -3.0, 0.0, 3.0)):
            x_hat = model.decoder(points[-1], torch.full((4,), level), z_0)
            (alpha, sigma), (then, less) = levels[index : index + 2]
            points.append(then * x_hat + less / sigma * (points[-1] - alpha * x_hat))
        loss = torch.zeros(4)
        for first, level in ((0, -6.0), (2, 0.0)):
            (alpha, sigma), (then, less) = levels[first], levels[first + 2]
            target = (points[first + 2] - less / sigma * points[first]) / (then - less / sigma * alpha)
            made = stage.model(points[first], torch.full((4,), level), z_0)
            loss += 0.5 * (target - made).square().flatten(1).sum(1)
        loss += 0.5 * 0.7 * (x - made).square().flatten(1).sum(1)
    found, told = stage.losses(stage.batch(torch.arange(4)), Draws.keyed(2, 0, 0, 4))
    assert told == {} and found.requires_grad
    torch.testing.assert_close(found.detach(), loss / 384, rtol=1e-4, atol=1e-5)


def test_the_base_is_distilled_under_its_guidance_by_its_own_sampler() -> None:
    """One call of the student must land where the guided base model does in four, for the class that was asked for.

    Kills: a teacher without guidance, DDIM for the sampler of the base model, another picture's class.
    """
    model = Base(BaseConfig(vit=vit()), 3, 2, 7, -10.0, 5.0, mean=0.3, std=0.5).eval()
    shaken(model.denoise.net, scale=0.2)
    labels = torch.tensor([0, 3, 6, 2])
    teacher = base_teacher(model, labels, (3, 2, 4), uniform_grid(-10.0, 5.0, 4), 2.5)
    start = teacher.start(labels, Draws.keyed(2, 0, 0, 4))
    assert torch.equal(start.x_1, Draws.keyed(2, 0, 0, 4).normal(torch.empty(4, 3, 2, 4))) and start.truth is None
    stage = distill_stage("base", teacher, 4, 0.0, {})
    (alpha, sigma), (then, less) = share(-10.0), share(5.0)
    landed = model.sample(start.x_1, labels, 4, guidance=2.5)
    target = (landed - less / sigma * start.x_1) / (then - less / sigma * alpha)
    with torch.no_grad():
        made = model.denoise(start.x_1, torch.full((4,), -10.0), Condition(labels))
    loss, _ = stage.losses(stage.batch(torch.arange(4)), Draws.keyed(2, 0, 0, 4))
    wanted = 0.5 * (target - made).square().flatten(1).sum(1) / 24
    torch.testing.assert_close(loss.detach(), wanted, rtol=1e-3, atol=1e-6)
    assert float(wanted.min()) > 1e-4
