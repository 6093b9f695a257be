"""Pictures while networks train, for whoever looks on: what the averaged weights make, a few, ten times a stage.

Nothing that is trained is touched: the averaged weights go into a model of their own, and all noise is drawn from
generators that depend on the run's seed alone, so that only the weights differ between two looks.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.recipe.config import EvaluationConfig, RunConfig
from unilat.run.classes import labels_of
from unilat.run.rate import generators, noise_of
from unilat.run.records import Note, Shown, Tell
from unilat.run.stages import AutoencoderStage, schedule
from unilat.run.trained import Run
from unilat.signals.kind import Image
from unilat.training.micro import out_of_memory
from unilat.training.plan import Stage

TIMES = 10
"""Looks at a stage, the last one after its last step."""
SHOWN = 8
"""Pictures of each kind."""


def shown_reconstructions(stage: Stage, of: AutoencoderStage, config: RunConfig, tell: Tell) -> Stage:
    """Stage 1 that tells originals and their reconstructions: pictures set aside for calibration, or else of training.

    Decoded as the run will be evaluated: its calls, its temperature, its range.
    """
    originals = of.calibration[:SHOWN] if len(of.calibration) else of.pictures[torch.arange(min(SHOWN, of.count))]

    def show(ema: dict[str, Tensor], step: int, samples: int) -> None:
        model = of.averaged(ema)
        device = next(model.parameters()).device
        z = model.posterior(of.kind.to_unit(originals).to(device)).mean.cpu()
        makers = generators(config.seed, "shown", 0, len(z))
        z_0 = model.corrupt(z, noise_of(makers, z.shape[1:])).to(device)
        made = decoded(model, z_0, makers, of.kind, config.evaluation)
        pictures = {"originals": originals, "reconstructions": made}
        tell(Shown(stage=stage.name, step=step, samples=samples, pictures=pictures))

    return _looked_at(stage, show, schedule(config.stage1).steps, tell)


def shown_samples(stage: Stage, run: Run, config: RunConfig, tell: Tell) -> Stage:
    """Stage 2 that tells samples, classes in turn; the latents' noise is the same each time."""
    assert isinstance(stage.model, Base)
    base, how = copy.deepcopy(stage.model).eval().requires_grad_(False), config.evaluation
    labels = labels_of(run.data, SHOWN, None)

    def show(ema: dict[str, Tensor], step: int, samples: int) -> None:
        base.to(run.device).load_state_dict(ema)
        makers = generators(config.seed, "shown", 0, SHOWN)
        z_1 = noise_of(makers, run.latent_shape).to(run.device)
        z_0 = base.sample(z_1, labels.to(run.device), how.base_steps, how.guidance)
        made = decoded(run.autoencoder, z_0, makers, run.kind, how)
        tell(Shown(stage=stage.name, step=step, samples=samples, pictures={"generated": made}))

    return _looked_at(stage, show, schedule(config.stage2).steps, tell)


def decoded(
    model: Autoencoder, z_0: Tensor, makers: list[torch.Generator], kind: Image, how: EvaluationConfig
) -> Tensor:
    """Pictures uint8 of noisy latents, each from noise of its own maker."""
    x_1 = how.decoder_temperature * noise_of(makers, kind.shape).to(z_0.device)
    steps = 1 if model.config.decoder_loss == "mse" else how.decoder_steps
    return kind.from_unit(model.decode(z_0, x_1, steps, how.decoder_range).cpu())


def _looked_at(stage: Stage, show: Callable[[dict[str, Tensor], int, int], None], steps: int, tell: Tell) -> Stage:
    """``stage`` with looks at it; where memory does not suffice for one there are no more, and a note says so."""
    blind = False

    def look(ema: dict[str, Tensor], step: int, samples: int) -> None:
        nonlocal blind
        if blind:
            return
        try:
            show(ema, step, samples)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            blind = True
            tell(Note(f"{stage.name}: no memory is left for pictures; training goes on without them"))

    return replace(stage, show=look, show_every=-(-steps // TIMES))
