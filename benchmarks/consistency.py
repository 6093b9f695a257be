"""The other way to a base model of few calls, for ``benchmarks/decoder.py``: multistep consistency distillation.

    λ_j → λ_{j+1}: one DDIM step of the guided teacher from a noised latent of the data, on a grid of ``POINTS`` calls
    λ_{j+1} → end of the student's segment: one DDIM step of the student itself, without gradient
    L = ½ ‖ x̂* − student(z_j, λ_j) ‖²,   x̂*: the prediction that leads from z_j to that end in one DDIM step

(arXiv 2403.06807, with a teacher and fixed segments; of one segment it is consistency distillation, arXiv 2303.01469.)
A sample costs 2 calls of the teacher and 2 of the student where a path of `unilat distill` costs 40 and 4.
"""

import copy
import math
from pathlib import Path

import torch
from torch import Tensor

from unilat.maths.noise import alpha, diffuse, expand, sigma
from unilat.maths.samplers import uniform_grid
from unilat.maths.seeds import Draws
from unilat.models.base import Base
from unilat.models.few_steps import FewSteps
from unilat.models.shards import LatentShards, open_shards
from unilat.run.trained import Run
from unilat.training.engine import fit
from unilat.training.plan import Batch, Schedule, Stage

POINTS = 40
"""Steps of the teacher's grid, a multiple of the student's."""


def step(x: Tensor, x_hat: Tensor, now: Tensor, then: Tensor) -> Tensor:
    """DDIM from log-SNR ``now [B]`` to ``then [B]``."""
    kept = expand(sigma(then) / sigma(now), x)
    return kept * x + (expand(alpha(then), x) - kept * expand(alpha(now), x)) * x_hat


class ConsistencyStage:
    """A student of the base model in ``steps`` segments, on latents and labels of the data."""

    def __init__(self, base: Base, latents: LatentShards, steps: int, guidance: float):
        self.name, self.count = f"consistency-{steps}", len(latents)
        self.base, self.latents, self.teacher = base, latents, base.guided(guidance)
        self.model = copy.deepcopy(base.denoise).requires_grad_(True)
        self.grid, self.every = uniform_grid(base.lambda_min, base.lambda_0, POINTS).float(), POINTS // steps

    def batch(self, indices: Tensor) -> Batch:
        """Latents and labels."""
        return self.latents.z[indices], self.latents.labels[indices]

    def losses(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss above, per dimension."""
        z, labels = batch
        cond = self.base.condition(labels)
        index = (POINTS * draws.strata(len(z))).long().clamp_max(POINTS - 1)
        now, then = self.grid[index], self.grid[index + 1]
        end = self.grid[(index // self.every + 1) * self.every]
        z_t = diffuse(z, draws.normal(z), now)
        with torch.no_grad():
            z_s = step(z_t, self.teacher(z_t, now, cond), now, then)
            landed = torch.where(expand(then == end, z), z_s, step(z_s, self.model(z_s, then, cond), then, end))
            kept = expand(sigma(end) / sigma(now), z)
            x_hat = (landed - kept * z_t) / (expand(alpha(end), z) - kept * expand(alpha(now), z))
        loss = 0.5 * (x_hat - self.model(z_t, now, cond)).square().flatten(1).sum(1)
        return loss / math.prod(z.shape[1:]), {}

    def stage(self) -> Stage:
        """This for the engine."""
        return Stage(name=self.name, model=self.model, count=self.count, batch=self.batch, losses=self.losses)


def student(run: Run, steps: int, samples: int, folder: Path) -> tuple[FewSteps, float]:
    """A student of ``steps`` calls and the seconds that it took."""
    assert run.base is not None
    latents = open_shards(run.files.latents)
    assert latents is not None
    stage = ConsistencyStage(run.base, latents, steps, run.config.evaluation.guidance)
    schedule = Schedule(
        batch=32, samples=samples, learning_rate=1e-3, optimizer="muon", warmup=samples // 10, decay=0.5,
        ema_halflife=samples / 20, clip=1.0,
    )  # fmt: skip
    done = fit(stage.stage(), schedule, folder / stage.name, 0)
    stage.model.load_state_dict(done.ema)
    return FewSteps(stage.model, stage.grid[:: stage.every].double()), done.seconds
