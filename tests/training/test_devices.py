"""What a step computes stays on the device of its batch: shown on a CPU, while the default device is another one.

Every tensor that the code makes without saying where lies on the meta device here, and torch refuses to mix the two:
as it refuses, on a GPU, a tensor that was left on the CPU.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from models.fixed import autoencoder
from nets.samples import encoder, uvit, vit
from unilat.maths.samplers import uniform_grid
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base, BaseConfig
from unilat.recipe.config import Stage1Config
from unilat.run.stages import AutoencoderStage, base_stage, prior_stage
from unilat.run.students import base_teacher, decoder_teacher, distill_stage
from unilat.training.plan import Stage

PICTURES = torch.randint(0, 256, (6, 3, 8, 16), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
LABELS = torch.arange(6) % 4


def first(**changed: Any) -> Stage:
    """Stage 1 of an autoencoder, with mirror images and learned levels."""
    return AutoencoderStage(autoencoder(**changed), PICTURES, PICTURES[:0], Stage1Config(batch=6), flip=True).stage()


def whole() -> Stage:
    """Stage 1 with a prior on the latents' covariance."""
    made = autoencoder()
    model = Autoencoder(replace(made.config, covariance_up_to=1024), 3, grid=(2, 4))
    return AutoencoderStage(model, PICTURES, PICTURES[:0], Stage1Config(batch=6)).stage()


def second(**changed: Any) -> Stage:
    """Stage 2 with classes and learned levels."""
    model = Base(BaseConfig(vit=vit(), **changed), 3, 2, 4, -10.0, 5.0)
    return base_stage(model, torch.randn(6, 3, 2, 4), LABELS, "learned")


def prior() -> Stage:
    """The prior alone."""
    return prior_stage(autoencoder().prior, torch.randn(6, 5, 2, 4), lambda_0=6.0, lambda_min=-10.0)


def student(part: str) -> Stage:
    """A decoder's or a base model's distillation."""
    if part == "decoder":
        teacher = decoder_teacher(autoencoder(), PICTURES, uniform_grid(-6.0, 3.0, 4, to_clean=True), 0.2)
    else:
        model = Base(BaseConfig(vit=vit()), 3, 2, 4, -10.0, 5.0)
        teacher = base_teacher(model, LABELS, (3, 2, 4), uniform_grid(-10.0, 5.0, 4), 2.0)
    return distill_stage(part, teacher, 2, 1.0 if part == "decoder" else 0.0, {})


MADE: dict[str, Callable[[], Stage]] = {
    "stage 1": first,
    "a learned variance": lambda: first(learned_variance=True),
    "a random end": lambda: first(random_end=(0.0, 1.0)),
    "a squared error": lambda: first(decoder_loss="mse"),
    "a normal prior": lambda: first(price="normal"),
    "a stopped prior": lambda: first(price="stopped"),
    "a decoder of the data": lambda: first(decoder_start="data"),
    "transformers": lambda: first(encoder=encoder(2, "uvit"), decoder=uvit(2, kind="vit")),
    "convolutions": lambda: first(encoder=encoder(2, "vit"), decoder=uvit(2, kind="conv")),
    "a covariance": whole,
    "settling": prior,
    "stage 2": second,
    "dropped tokens": lambda: second(token_dropping=0.25),
    "a decoder's student": lambda: student("decoder"),
    "a base model's student": lambda: student("base"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_step_makes_nothing_on_another_device(name: str) -> None:
    """Kills: ``torch.zeros(n)`` for ``torch.zeros(n, device=x.device)`` in a network, a loss or what is observed."""
    stage = MADE[name]()
    batch = stage.batch(torch.arange(6))
    for step in range(2):  # the second one on levels that the first has moved
        with torch.device("meta"):
            loss, metrics = stage.losses(batch, Draws.keyed(0, step, 0, 6))
            loss.sum().backward()
        sums = {key: value.detach().sum(0, dtype=torch.float64) for key, value in metrics.items() if value.dim() > 1}
        assert loss.device.type == "cpu" and bool(loss.isfinite().all())
        if sums:
            stage.observe(sums)


def test_a_tensor_left_behind_is_seen() -> None:
    """Kills: a test that passes because torch would mix the two."""

    def left(z: Tensor) -> Tensor:
        return z + torch.zeros(len(z), 1)

    with torch.device("meta"), pytest.raises((RuntimeError, NotImplementedError)):
        (left(torch.ones(3, 2, device="cpu")) * torch.ones(3, 2, device="cpu")).sum().item()
