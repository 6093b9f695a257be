"""What must hold before a stage is trained: numbers that a run can have, and processes that agree."""

import math
from pathlib import Path

import torch

from unilat.training.parallel import World, join
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError


def joined(stage: Stage, schedule: Schedule, place: torch.device, evenly: bool) -> World:
    """The processes of the run, each of which gets a part of every batch; ``evenly``: as many rows as the others."""
    world = join(place)
    if schedule.batch < world.size:
        raise UserError(f"batch {schedule.batch} is smaller than the {world.size} processes; raise it")
    if evenly and schedule.batch % world.size:
        raise UserError(
            f"batch {schedule.batch} is no multiple of the {world.size} processes that share the model, which "
            "micro-batches need: change it"
        )
    return world


def agreed(world: World, place: torch.device, step: int, folder: Path) -> int:
    """``step``, refused where not all processes have read the same checkpoint."""
    if float(world.sum(torch.tensor(float(step), dtype=torch.float64, device=place))) != step * world.size:
        raise UserError(f"{folder}: the processes read different checkpoints; it must be on a disk they share")
    return step


def check(schedule: Schedule, stage: Stage) -> None:
    """Refuse numbers no run can have."""
    for name in ("batch", "samples", "log_every", "save_every", "keep"):
        if getattr(schedule, name) < 1:
            raise UserError(f"{stage.name}: {name} must be at least 1, not {getattr(schedule, name)}")
    if not (schedule.learning_rate > 0 and math.isfinite(schedule.learning_rate)):
        raise UserError(f"{stage.name}: learning_rate must be a positive number, not {schedule.learning_rate}")
    if not 0 <= schedule.decay <= 1 or not schedule.clip > 0 or schedule.warmup < 0 or schedule.ema_halflife < 0:
        raise UserError(f"{stage.name}: decay lies in 0..1, clip above 0, warmup and ema_halflife at or above 0")
    if stage.count < 1:
        raise UserError(f"{stage.name}: there is nothing to train on")
