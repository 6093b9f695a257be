"""What learned noise levels are worth to one batch's estimate; :func:`rows` is called by ``benchmarks/training.py``."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from common import Rows, row
from torch import Tensor

import unilat
from unilat.maths.denoising import denoising_loss
from unilat.maths.levels import Levels, uniform
from unilat.maths.noise import diffuse
from unilat.maths.seeds import Draws
from unilat.maths.weighting import sigmoid_weight
from unilat.run.evaluate import held_out
from unilat.signals import to_unit

BATCH = 64
Place = Callable[[Draws], Levels]


@torch.no_grad()
def rows(folder: Path, batches: int = 400) -> Rows:
    """The prior's rate and the decoder's loss of one batch of 64 held-out pictures, by where its levels fall.

    ``folder``: a run whose stage 1 learned its levels. Batches of other pictures each time, and of the same 64, whose
    estimates differ by levels and noise alone.
    """
    run = unilat.load(folder, "cpu")
    ae, config = run.autoencoder, run.config.autoencoder
    x = to_unit(held_out(run)[0])
    z = ae.encode(x)

    def rate(which: Tensor, levels: Levels, draws: Draws) -> Tensor:
        return ae.price.rate(ae, z[which], levels, draws.normal(z[which])).nats()

    def decoder(which: Tensor, levels: Levels, draws: Draws) -> Tensor:
        clean, cond = x[which], ae.condition(ae.corrupt(z[which], draws.normal(z[which])))
        made = ae.decoder(diffuse(clean, draws.normal(clean), levels.lambda_t), levels.lambda_t, cond)
        return denoising_loss(clean, made, levels, sigmoid_weight(levels.lambda_t, config.bias))

    told: Rows = []
    for what, loss, placing, highest in (
        ("rate", rate, ae.rate_levels, config.lambda_0),
        ("decoder's loss", decoder, ae.decoder_levels, config.lambda_max),
    ):
        places: dict[str, Place] = {
            "independent uniform": lambda draws, top=highest: uniform(draws.uniform(BATCH), config.lambda_min, top),
            "fixed": lambda draws, placing=placing: placing.guess.sample(draws.strata(BATCH)),
            "learned": lambda draws, placing=placing: placing.sample(draws.strata(BATCH)),
        }
        for same in (False, True):
            told += _compared(
                f"{what}, {'the same' if same else 'other'} pictures", places, loss, len(z), same, batches
            )
    return told


def _compared(
    what: str,
    places: dict[str, Place],
    loss: Callable[[Tensor, Levels, Draws], Tensor],
    count: int,
    same: bool,
    batches: int,
) -> Rows:
    """Relative standard error of a batch's mean under each placing, and the first's variance over the others'."""
    found = {name: torch.empty(batches, dtype=torch.float64) for name in places}
    for index in range(batches):
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0 if same else index))[:BATCH]
        for name, place in places.items():
            draws = Draws.keyed(0, index, 0, BATCH)
            found[name][index] = loss(chosen, place(draws), draws).double().mean()
    first, *others = places
    told = [
        row(
            f"{what}: relative standard error of one batch, {name} levels",
            float(each.std() / each.mean()),
            "",
            n=batches,
        )
        for name, each in found.items()
    ]
    for name in others:
        ratio = float(found[first].var() / found[name].var())
        error, goal = ratio * math.sqrt(4 / batches), 80.0 if name == "learned" and what.startswith("rate") else None
        label = f"{what}: variance, {first} / {name}"
        told.append(row(label, ratio, "ratio", goal=goal, at_least=goal is not None, stderr=error, n=batches))
    return told
