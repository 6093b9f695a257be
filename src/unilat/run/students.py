"""Distillation as the engine sees it: a student, its teacher's paths, and what each path starts from."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unilat.maths.samplers import Sampler, ddim, dpmpp_2m
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.models.few_steps import distillation_loss, segments
from unilat.nets.condition import Condition
from unilat.nets.decoder import hear
from unilat.signals import to_unit
from unilat.types import Denoiser, UserError


@dataclass(frozen=True, eq=False)
class Start:
    """What a path starts from: ``x_1 [B, ...]``, the condition, and for a decoder the picture it is to end at."""

    x_1: Tensor
    cond: Tensor | Condition | None
    truth: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Teacher:
    """A denoiser, the way it samples, and the starts that it is asked from."""

    network: nn.Module
    """What the student is a copy of."""
    denoise: Denoiser
    """The same under guidance, where it is guided."""
    sampler: Sampler
    grid: Tensor
    examples: Tensor
    """Pictures uint8 ``[N, C, H, W]``, or labels ``[N]``."""
    start: Callable[[Tensor, Draws], Start]


def decoder_teacher(model: Autoencoder, pictures: Tensor, grid: Tensor, temperature: float) -> Teacher:
    """The decoder on latents of training ``pictures``, from noise of standard deviation ``temperature``."""

    @torch.no_grad()
    def start(pictures: Tensor, draws: Draws) -> Start:
        x = to_unit(pictures)
        z = model.posterior(x).draw(draws.normal)
        z_0 = model.corrupt(z, draws.normal(z))
        return Start(temperature * draws.normal(x), model.condition(z_0), x)

    return Teacher(model.decoder, model.decoder, ddim, grid, pictures, start)


def base_teacher(model: Base, labels: Tensor, shape: tuple[int, ...], grid: Tensor, guidance: float) -> Teacher:
    """The base model under ``guidance``; ``labels [N]`` are the classes asked for, ``shape`` is that of a latent."""

    def start(labels: Tensor, draws: Draws) -> Start:
        return Start(draws.normal(torch.empty(len(labels), *shape, device=labels.device)), model.condition(labels))

    return Teacher(model.denoise, model.guided(guidance), dpmpp_2m, grid, labels, start)


class DistillStage:
    """A student that calls at every ``every``-th point of its teacher's grid; ``truth`` weighs the picture itself.

    ``settings`` tell this distillation from others; a checkpoint of others is refused.
    """

    def __init__(self, name: str, teacher: Teacher, every: int, truth: float, settings: dict[str, Any]):
        self.name, self.settings = name, settings
        self.teacher, self.every, self.truth = teacher, every, truth
        self.model = copy.deepcopy(teacher.network).requires_grad_(True)
        self.count = len(teacher.examples)

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Pictures or labels."""
        return (self.teacher.examples[indices],)

    def losses(self, batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """The distillation loss in nats of unit variance per dimension."""
        start = self.teacher.start(batch[0], draws)
        told = hear(self.teacher.network, start.cond)
        path = segments(self.teacher.denoise, start.x_1, self.teacher.grid, self.every, self.teacher.sampler, told)
        loss = distillation_loss(self.model, path, hear(self.model, start.cond), start.truth, self.truth)
        return loss / math.prod(start.x_1.shape[1:]), {}

    def after_step(self, metrics: dict[str, float], samples: int) -> dict[str, float]:
        """Nothing moves between steps."""
        return {}

    def state(self) -> dict[str, Any]:
        """The settings."""
        return self.settings

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to load, but a checkpoint of other settings is none of this student."""
        if state != self.settings:
            raise UserError(
                f"{self.name} was begun with other settings ({state}): delete its folder in the run, or go on"
            )
