"""Distillation: a student that makes in few calls what its teacher makes in many; both keep the one contract.

The teacher walks its grid t_0 < … < t_m; the student calls at every k-th point of it, n = m / k calls. With the teacher
at x_i and x_{i+1} on two neighbouring points of the student's grid,

    κ = σ_{i+1} / σ_i,    x̂*_i = (x_{i+1} − κ x_i) / (α_{i+1} − κ α_i),    L = ½ Σ_i ‖ x̂*_i − student(x_i, λ_i) ‖²

x̂*_i is the prediction with which one DDIM step lands where k steps of the teacher did (progressive distillation,
arXiv 2202.00512, Alg. 2; here all halvings at once, on the teacher's own paths). The start and the condition fix the
whole path, so the target is no mean over many pictures: the student is as sharp as its teacher, and as faulty. Where
there is a picture x that the path is to end at, a decoder's, the last call hears it too: L + ½ w ‖x − student‖².
"""

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unilat.files import Place, read_safetensors, whole, write_safetensors
from unilat.maths.samplers import Sampler, ddim
from unilat.models.latents import fingerprint
from unilat.nets.condition import Condition
from unilat.types import Cond, Denoiser, UserError

FORMAT = "unilat few steps 1"


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of a teacher's path that the student takes in one call."""

    x_t: Tensor
    """Where it begins, ``[B, ...]``."""
    logsnr: float
    """log-SNR there."""
    x_hat: Tensor
    """The prediction that leads to its end in one DDIM step, ``[B, ...]``."""


@torch.no_grad()
def segments(
    teacher: Denoiser[Cond], x: Tensor, grid: Tensor, every: int, sampler: Sampler, cond: Cond
) -> list[Segment]:
    """The teacher's path from ``x`` at grid[0] to grid[-1], cut at every ``every``-th point of ``grid [m + 1]``."""
    visited: list[Tensor] = []

    def watched(x_t: Tensor, logsnr: Tensor, same: Cond) -> Tensor:
        visited.append(x_t)
        return teacher(x_t, logsnr, same)

    end = sampler(watched, x, grid, generator=(), cond=cond)
    points, levels = [*visited[::every], end], coarse(grid, every).double()
    alphas, sigmas = torch.sigmoid(levels).sqrt().tolist(), torch.sigmoid(-levels).sqrt().tolist()
    found = []
    for index, (now, then) in enumerate(zip(points, points[1:], strict=False)):
        kept = sigmas[index + 1] / sigmas[index]
        x_hat = (then - kept * now) / (alphas[index + 1] - kept * alphas[index])
        found.append(Segment(now, float(levels[index]), x_hat))
    return found


def coarse(grid: Tensor, every: int) -> Tensor:
    """The student's grid: every ``every``-th of the teacher's points, the last one among them."""
    calls = len(grid) - 1
    if every < 1 or calls % every:
        raise UserError(f"{calls} calls of the teacher are no multiple of {every}")
    return grid[::every]


def distillation_loss(
    student: Denoiser[Cond], path: list[Segment], cond: Cond, truth: Tensor | None = None, weight: float = 0.0
) -> Tensor:
    """``½ Σ_i ‖x̂*_i − student(x_i, λ_i)‖² + ½ w ‖x − student(x_{n−1}, λ_{n−1})‖²``, ``[B]``; squares add up."""
    loss, made = torch.zeros(len(path[0].x_t), device=path[0].x_t.device), None
    for segment in path:
        made = student(segment.x_t, torch.full_like(loss, segment.logsnr), cond)
        loss = loss + 0.5 * (segment.x_hat - made).square().flatten(1).sum(1)
    if truth is not None and made is not None:
        loss = loss + 0.5 * weight * (truth - made).square().flatten(1).sum(1)
    return loss


@dataclass(frozen=True, eq=False)
class FewSteps:
    """A distilled denoiser with the grid and the start that it was distilled for; one safetensors file."""

    denoise: nn.Module
    grid: Tensor
    """Its calls and where the last one leads, ``[calls + 1]``, float64."""
    temperature: float = 1.0
    """Standard deviation of the noise it starts from."""

    @property
    def calls(self) -> int:
        """Network calls of a sample."""
        return len(self.grid) - 1

    @torch.no_grad()
    def sample(self, x_1: Tensor, cond: Condition | Tensor | None) -> Tensor:
        """From ``x_1 ~ N(0, I)`` to the end of the grid."""
        return ddim(self.denoise, self.temperature * x_1, self.grid, generator=(), cond=cond)

    def save(self, path: Path, teacher: nn.Module, place: Place = whole, **told: str) -> None:
        """Write to ``path``, whole or not at all; ``told`` is kept in the header."""
        levels = [level if math.isfinite(level) else None for level in self.grid.tolist()]
        header = {"format": FORMAT, "grid": json.dumps(levels), "temperature": repr(self.temperature)}
        header |= told | {"teacher_sha256": fingerprint(teacher)}
        write_safetensors(path, self.denoise.state_dict(), header, place)

    @classmethod
    def load(cls, path: Path, teacher: nn.Module) -> "FewSteps":
        """Read what :meth:`save` wrote of a student of ``teacher``; raises :class:`UserError` for any other."""
        if not path.is_file():
            raise UserError(f"there is no {path}: make it with `unilat distill {path.parent}`")
        tensors, header = read_safetensors(path)
        if header.get("format") != FORMAT:
            raise UserError(f"{path} is no distilled network: make it again with `unilat distill {path.parent}`")
        if header.get("teacher_sha256") != fingerprint(teacher):
            raise UserError(
                f"{path} was distilled from another network than this run's: `unilat distill` makes it anew"
            )
        denoise = copy.deepcopy(teacher)
        try:
            denoise.load_state_dict(tensors)
            levels = [math.inf if level is None else float(level) for level in json.loads(header["grid"])]
            return cls(denoise, torch.tensor(levels, dtype=torch.float64), float(header["temperature"]))
        except (RuntimeError, KeyError, ValueError, TypeError):
            raise UserError(f"{path} is damaged: make it again with `unilat distill {path.parent}`") from None
