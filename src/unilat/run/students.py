"""Distillation as the engine sees it: a student, its teacher's paths, and what each path starts from."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unilat.maths.samplers import Sampler, ddim, dpmpp_2m
from unilat.maths.seeds import Draws
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.models.few_steps import distillation_loss, segments
from unilat.nets.condition import Condition
from unilat.nets.decoder import hear
from unilat.signals import kind_of
from unilat.signals.stream import Part
from unilat.training.plan import Batch, Saved, Stage
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
    examples: Tensor | Part
    """Pictures uint8 ``[N, C, H, W]``, or labels ``[N]``."""
    start: Callable[[Tensor, Draws], Start]


def decoder_teacher(model: Autoencoder, pictures: Tensor | Part, grid: Tensor, temperature: float) -> Teacher:
    """The decoder on latents of training ``pictures``, from noise of standard deviation ``temperature``."""
    kind = kind_of(pictures.shape)

    @torch.no_grad()
    def start(pictures: Tensor, draws: Draws) -> Start:
        x = kind.to_unit(pictures)
        z = model.posterior(x).draw(draws.normal)
        z_0 = model.corrupt(z, draws.normal(z))
        return Start(temperature * draws.normal(x), model.condition(z_0), x)

    return Teacher(model.decoder, model.decoder, ddim, grid, pictures, start)


def base_teacher(model: Base, labels: Tensor, shape: tuple[int, ...], grid: Tensor, guidance: float) -> Teacher:
    """The base model under ``guidance``; ``labels [N]`` are the classes asked for, ``shape`` is that of a latent."""

    def start(labels: Tensor, draws: Draws) -> Start:
        return Start(draws.normal(torch.empty(len(labels), *shape, device=labels.device)), model.condition(labels))

    return Teacher(model.denoise, model.guided(guidance), dpmpp_2m, grid, labels, start)


def distill_stage(name: str, teacher: Teacher, every: int, truth: float, settings: Saved) -> Stage:
    """A student that calls at every ``every``-th point of its teacher's grid; ``truth`` weighs the picture itself.

    The loss is the distillation's in nats of unit variance per dimension. ``settings`` tell this distillation from
    others; a checkpoint of others is refused with a :class:`UserError`.
    """
    student = copy.deepcopy(teacher.network).requires_grad_(True)

    def losses(batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        start = teacher.start(batch[0], draws)
        known = hear(teacher.network, start.cond)
        path = segments(teacher.denoise, start.x_1, teacher.grid, every, teacher.sampler, known)
        loss = distillation_loss(student, path, hear(student, start.cond), start.truth, truth)
        return loss / math.prod(start.x_1.shape[1:]), {}

    def load_state(state: Saved) -> None:
        if state != settings:
            raise UserError(f"{name} was begun with other settings ({state}): delete its folder in the run, or go on")

    return Stage(
        name=name,
        model=student,
        count=len(teacher.examples),
        batch=lambda indices: (teacher.examples[indices],),
        losses=losses,
        state=lambda: settings,
        load_state=load_state,
    )
