"""Few steps from many: distil the decoder or the base model of a finished run into its folder.

    load → the teacher's paths → student → fast-decoder.safetensors or fast-base.safetensors

Goes on where it stopped, like the training it follows, each way of distilling in a folder of its own; the full
networks stay as they are, and a finished student until another is finished.
"""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from unilat.fields import at_least
from unilat.files import writable
from unilat.maths.samplers import uniform_grid
from unilat.models.few_steps import FewSteps, coarse
from unilat.models.latents import fingerprint
from unilat.run.classes import labels_of
from unilat.run.evaluate import own_pictures
from unilat.run.folder import RunFolder
from unilat.run.parts import part
from unilat.run.records import Note, OnStep, ignore
from unilat.run.seal import grown, sealed
from unilat.run.students import Teacher, base_teacher, decoder_teacher, distill_stage
from unilat.run.trained import Run, load
from unilat.training.checkpoint import lock
from unilat.training.engine import fit
from unilat.training.fast import Choices, applied
from unilat.training.journal import Log
from unilat.training.plan import Schedule
from unilat.types import UserError

LABELS = 4096
"""Classes asked for in turn where a base model is distilled."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How a student is made."""

    part: Literal["decoder", "base"] = "decoder"
    """The network that shall need fewer calls."""
    steps: int = 1
    """Calls of the student."""
    teacher_steps: int = 8
    """Calls of its teacher, a multiple of ``steps``."""
    samples: int = 8_000
    """Paths seen in training."""
    batch: int = 32
    """Paths a step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    truth: float = 1.0
    """Weight of the picture itself beside the teacher's, in the decoder's last call."""
    seed: int = 0
    """Seed of order and noise."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """A student, and what it took to make it."""

    path: Path
    """Where it lies."""
    part: Literal["decoder", "base"]
    steps: int
    """Calls of the student."""
    teacher_steps: int
    """Calls of its teacher."""
    samples: int
    """Paths seen in training."""
    seconds: float
    """Spent in the loop, over all parts of the training."""
    temperature: float
    """Standard deviation of the noise that it starts from."""
    guidance: float | None
    """Scale that a base model's calls contain; None of a decoder."""

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        tree = dataclasses.asdict(self)
        return {"fast": str(tree.pop("path")), **tree}


DEFAULTS = {
    "decoder": DistillConfig(),
    "base": DistillConfig(part="base", steps=4, teacher_steps=20, samples=4_000, truth=0.0),
}


def _check(config: DistillConfig) -> None:
    """:class:`UserError` for numbers that no student can have."""
    for name in ("steps", "teacher_steps", "samples"):
        at_least(1, getattr(config, name), name)
    if config.teacher_steps % config.steps:
        raise UserError(
            f"`teacher_steps` {config.teacher_steps} must be a multiple of `steps` {config.steps}: every call of the "
            "student stands for as many of the teacher's"
        )
    if not 0 <= config.truth < float("inf"):
        raise UserError(f"`truth` must be 0 or a positive number, not {config.truth}")
    if config.part == "base" and config.truth:
        raise UserError("`truth` is for the decoder: a base model's paths end at no picture of the data; leave it out")


def distill(
    folder: Path,
    config: DistillConfig,
    progress: OnStep = ignore,
    device: str = "auto",
    choices: Choices | None = None,
) -> Distilled:
    """Make the student that ``config`` describes.

    ``choices`` are the machine's (``training/fast.py``) for student and teacher; compiled only where they say so.
    Raises :class:`UserError` for a run without that network, steps that do not divide the teacher's, and what
    ``unilat train`` refuses.
    """
    _check(config)
    run = load(folder, device)
    writable(folder)
    teacher = _decoder(run, progress, config) if config.part == "decoder" else _base(run, config)
    name, every = f"distill-{config.part}-{config.steps}", config.teacher_steps // config.steps
    evaluation = run.config.evaluation
    temperature = evaluation.decoder_temperature if config.part == "decoder" else 1.0
    guidance = (evaluation.guidance if run.classes else 1.0) if config.part == "base" else None
    settings = {**dataclasses.asdict(config), "temperature": temperature, "guidance": guidance}
    settings |= {"decoder_range": list(evaluation.decoder_range)} if config.part == "decoder" else {}
    stage = distill_stage(name, teacher, every, config.truth, settings)
    files, how = RunFolder(run.folder), choices or Choices()
    place = _place(files, name, [settings, fingerprint(teacher.network)], progress)
    both = nn.ModuleList([stage.model, teacher.network])
    with lock(run.folder), applied(both, how, how.compile == "on", run.device):
        done = fit(
            stage,
            _schedule(config).saved_every(how.save_every),
            place,
            config.seed,
            log=Log(files.log, sealed, grown),
            progress=progress,
            device=device,
            noise=how.noise,
        )
    stage.model.load_state_dict(done.ema)
    path = files.few_steps(config.part)
    student = FewSteps(stage.model, coarse(teacher.grid, every), temperature, guidance)
    student.save(path, teacher.network, sealed, settings=json.dumps(settings))
    shutil.rmtree(place)  # the student is saved; a later call begins anew
    return Distilled(
        path=path,
        part=config.part,
        steps=config.steps,
        teacher_steps=config.teacher_steps,
        samples=done.samples,
        seconds=round(done.seconds, 2),
        temperature=temperature,
        guidance=guidance,
    )


def _place(files: RunFolder, name: str, settings: list[object], progress: OnStep) -> Path:
    """The folder of this way of distilling, which it goes on in; others that were stopped are told, and stay."""
    own = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    place = files.stage(f"{name}-{own}")
    for other in sorted(files.path.glob("distill-*")):
        if other != place:
            progress(Note(f"{other} was stopped: its settings again go on with it; delete it if nobody will"))
    return place


def _decoder(run: Run, progress: OnStep, config: DistillConfig) -> Teacher:
    if run.config.autoencoder.decoder_loss == "mse":
        raise UserError(f"the decoder of {run.folder} was trained to be called once: there is nothing to distil")
    progress(Note(f"reading {run.config.data.source}"))
    pictures, evaluation = own_pictures(run), run.config.evaluation
    images = part(pictures, run.split(pictures)[0])
    grid = uniform_grid(*evaluation.decoder_range, config.teacher_steps, to_clean=True)
    return decoder_teacher(run.autoencoder, images, grid, evaluation.decoder_temperature)


def _base(run: Run, config: DistillConfig) -> Teacher:
    if run.base is None:
        raise UserError(f"{run.folder} has no base model to distil: train stage 2 first")
    grid = uniform_grid(run.base.lambda_min, run.base.lambda_0, config.teacher_steps)
    labels = labels_of(run.data, LABELS, None)
    return base_teacher(run.base, labels, run.latent_shape, grid, run.config.evaluation.guidance)


def _schedule(config: DistillConfig) -> Schedule:
    """Half of the way at the full rate, half down to zero."""
    return Schedule(
        batch=config.batch,
        samples=config.samples,
        learning_rate=config.learning_rate,
        optimizer="muon",
        warmup=config.samples // 10,
        decay=0.5,
        ema_halflife=config.samples / 20,
        clip=1.0,
    )
