"""A run from pictures to report, and a finished run in the user's hands.

>>> import unilat
>>> run = unilat.load("runs/glyphs")
>>> latents = run.encode("glyphs")
>>> latents.bits.mean()
>>> pictures = run.decode(latents)
>>> made = run.sample(64, guidance=2.0, seed=7)
>>> made.images, made.labels, made[0].label
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from unilat.fields import FieldError, at_least
from unilat.files import read_bytes, read_safetensors
from unilat.maths.rate import LN2, RateTerms
from unilat.models.base import Base, prior_as_base
from unilat.models.few_steps import FewSteps
from unilat.models.latents import LatentSet, fingerprint
from unilat.models.posterior import Posterior
from unilat.recipe import config as configuration
from unilat.recipe.build import build_autoencoder, build_base
from unilat.recipe.config import RunConfig
from unilat.results import Results
from unilat.results import read as read_results
from unilat.run import classes, facts, given, seal
from unilat.run.classes import Label
from unilat.run.folder import RunFolder
from unilat.run.given import PictureSet, read
from unilat.run.parts import split_pictures
from unilat.run.rate import encode_images, generators, in_batches, latent_nats, measure_rate, noise_of
from unilat.signals import Image, Pictures, held_out_fit
from unilat.signals.stream import Streamed
from unilat.training.machine import pick_device
from unilat.training.parallel import ALONE
from unilat.types import UserError

Source = str | Path | Tensor | np.ndarray | Sequence[Any] | PictureSet
"""Whatever :meth:`Run.read` takes."""
Model = TypeVar("Model", bound=torch.nn.Module)
Speed = Literal["full", "fast"]
LONGEST = 2**20
"""Bytes that a configuration may have."""


class Run:
    """A trained autoencoder and, where stage 2 is done, its base model. Pictures are uint8 ``[N, C, H, W]``.

    ``decoder`` and ``base``: the networks as they were trained, or those that `unilat distill` made of them. Where
    ``world`` has several processes, all call the same, and each encodes, measures or makes its part.
    """

    world = ALONE

    def __init__(self, folder: Path, device: str = "auto", decoder: Speed = "full", base: Speed = "full"):
        self.folder, self.device = Path(folder), pick_device(device)
        self.config, files = read_config(self.folder), self.files
        configuration.check(self.config)
        seal.check(files.autoencoder, files.base)
        self.data = facts.read(files.data)
        tensors, self.header = read_safetensors(finished(files.autoencoder, "stage 1"))
        build = functools.partial(build_autoencoder, self.config, self.data.channels)
        self.autoencoder = _filled(build, tensors, files.autoencoder)
        self.autoencoder.eval().requires_grad_(False).to(self.device)
        self.encoder_sha256 = fingerprint(self.autoencoder.encoder)
        self.base: Base | None = None
        if os.path.lexists(files.base):  # else one that cannot be read would pass for none
            tensors, header = read_safetensors(files.base)
            if header.get("encoder_sha256") != self.encoder_sha256:
                raise UserError(
                    f"{folder}: {files.base.name} was trained on another encoder's latents; train stage 2 again"
                )
            made = functools.partial(build_base, self.config, self.classes, factors=self.data.table)
            self.base = _filled(made, tensors, files.base)
            self.base.eval().requires_grad_(False).to(self.device)
        elif self.config.evaluation.sample_from == "prior":
            self.base = prior_as_base(self.autoencoder).eval()
        self.few_decoder = self._few("decoder", self.autoencoder.decoder) if decoder == "fast" else None
        if base == "fast" and self.base is None:
            raise UserError(
                f"{self.folder} has no base model, so there is no fast one: train stage 2, or leave out `base`"
            )
        self.few_base = self._few("base", self.base.denoise) if base == "fast" and self.base else None

    def _few(self, part: str, teacher: torch.nn.Module) -> FewSteps:
        path = self.files.few_steps(part)
        seal.check(path)
        return FewSteps.load(path, teacher)

    @property
    def files(self) -> RunFolder:
        """Where the parts of the run folder lie."""
        return RunFolder(self.folder)

    @property
    def distilled(self) -> bool:
        """Whether any network is one that `unilat distill` made."""
        return self.few_decoder is not None or self.few_base is not None

    @property
    def decoder_steps(self) -> int:
        """Calls of the decoder for a picture, where nobody asks for another number."""
        once = self.config.autoencoder.decoder_loss == "mse"
        return self.few_decoder.calls if self.few_decoder else 1 if once else self.config.evaluation.decoder_steps

    @property
    def base_steps(self) -> int:
        """Calls of the base model for a latent, by the same rule."""
        return self.few_base.calls if self.few_base else self.config.evaluation.base_steps

    @property
    def classes(self) -> list[str]:
        """Names of the classes, empty where there are none."""
        return list(self.data.classes)

    @property
    def results(self) -> Results:
        """What the run was measured to be worth, from ``metrics.json``; UserError where it was not measured yet."""
        seal.check(self.files.metrics)
        return read_results(self.files.metrics)

    @functools.cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """``(C, *grid)`` of one latent."""
        return (self.config.autoencoder.latent_channels, *configuration.latent_grid(self.config))

    @functools.cached_property
    def kind(self) -> Image:
        """What this run encodes and makes: its shape, its unit and its range."""
        height, width = self.config.data.size
        return Image(height=height, width=width, channels=self.data.channels)

    @property
    def pixels(self) -> int:
        """Pixels of one picture."""
        return self.kind.units

    def read(self, source: Source) -> PictureSet:
        """Pictures with their names, in this run's size, channels and classes; ``run/given.py`` says what it takes."""
        data, fit = self.config.data, held_out_fit(self.config.data.fit)
        kept = {"size": data.size, "channels": self.kind.channels, "labels": data.labels}
        return read(source, **kept, classes=self.classes, fit=fit)

    def pictures(self, source: Source) -> tuple[Tensor, Tensor]:
        """Images and labels of :meth:`read`."""
        found = self.read(source)
        return found.images, found.labels

    def split(self, pictures: Pictures | Streamed) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of training, calibration and held-out pictures, as they were in training."""
        return split_pictures(self.config, pictures)

    def latents(self, images: Tensor) -> Tensor:
        """Clean latents of uint8 pictures, on the CPU: ``E(x)``, or a draw where the encoder learned a variance."""
        return self.encoded(images)[0]

    def encoded(self, images: Tensor, seed: int = 0, start: int = 0) -> tuple[Tensor, Posterior | None]:
        """:meth:`latents`, and what they were drawn from where the encoder learned a variance, or None.

        ``start``: number of the first picture in its set, on which draws depend.
        """
        return encode_images(self.autoencoder, images, device=self.device, seed=seed, start=start, world=self.world)

    def rate(self, z: Tensor, levels: int, seed: int = 0, posterior: Posterior | None = None) -> list[RateTerms]:
        """``levels`` independent estimates of the rate of all of ``z``, noise levels spread evenly over the set.

        ``posterior``: of latents with a learned variance, as :meth:`encoded` returns it; the entropy of their draws is
        taken off.
        """
        table, lambda_min = self.autoencoder.rate_levels.table, self.config.autoencoder.lambda_min
        prior, device, world = self.autoencoder.prior, self.device, self.world
        given = functools.partial(measure_rate, device=device, posterior=posterior, world=world)
        return given(z, prior, table, lambda_min, levels=levels, seed=seed)

    def encode(self, source: Source, seed: int = 0) -> LatentSet:
        """Latents with the bits, the name and the class of each picture; :meth:`read` takes the source."""
        found = self.read(source)
        z, posterior = self.encoded(found.images, seed)
        estimates = self.rate(z, self.config.evaluation.rate_levels, seed, posterior)
        nats = latent_nats(self.config.autoencoder, z, estimates, posterior)
        return self._latents(z, nats / LN2, found)

    def _latents(self, z: Tensor, bits: Tensor, found: PictureSet) -> LatentSet:
        """The set of ``z`` and ``bits``, of this encoder and of these pictures."""
        return LatentSet(
            z=z,
            bits=bits,
            labels=found.labels,
            lambda_0=self.config.autoencoder.lambda_0,
            encoder_sha256=self.encoder_sha256,
            pixels=self.pixels,
            names=found.names,
            classes=found.classes,
            skipped=found.skipped,
            converted=found.converted,
        )

    @torch.no_grad()
    def decode(self, latents: LatentSet | Tensor | np.ndarray, steps: int | None = None, seed: int = 0) -> PictureSet:
        """Pictures of latents, with names. Picture i depends on (seed, i) only.

        An array or tensor ``[N, C, *grid]`` is taken for clean latents of this encoder. Refuses latents of another one,
        of another shape, and numbers that are none, by their rows.
        """
        latents = self._given(latents)
        evaluation, steps = self.config.evaluation, at_least(1, self.decoder_steps if steps is None else steps, "steps")
        if self.few_decoder and steps != self.few_decoder.calls:
            raise UserError(f"the fast decoder was distilled for `steps` {self.few_decoder.calls}, not {steps}")

        def some(first: int, last: int) -> list[Tensor]:
            z = latents.z[first:last]
            makers = generators(seed, "decode", first, len(z))
            if not latents.noisy:
                z = self.autoencoder.corrupt(z, noise_of(makers, z.shape[1:]))
            x_1 = noise_of(makers, self.kind.shape)
            z_0, x_1 = z.to(self.device), x_1.to(self.device)
            if self.few_decoder:
                x = self.few_decoder.sample(x_1, self.autoencoder.condition(z_0))
            else:
                x_1 = evaluation.decoder_temperature * x_1
                x = self.autoencoder.decode(z_0, x_1, steps, evaluation.decoder_range)
            return [self.kind.from_unit(x.cpu())]

        (images,) = self.world.by_rows(len(latents), lambda first, last: in_batches(first, last, some))
        return PictureSet(images=images, labels=latents.labels, classes=tuple(self.classes), names=latents.names)

    def _given(self, latents: LatentSet | Tensor | np.ndarray) -> LatentSet:
        """What :meth:`decode` takes, checked, its labels among this run's classes."""
        if not isinstance(latents, LatentSet):
            numbers = isinstance(latents, Tensor) or (isinstance(latents, np.ndarray) and latents.dtype.kind in "iuf")
            if not numbers or latents.ndim == 0:
                what = type(latents).__name__
                raise UserError(f"latents are what `run.encode` gives, or numbers of that shape; not {what}")
            z = torch.as_tensor(latents).cpu()
            blank = PictureSet(images=z, labels=given.unknown(len(z), self.classes), classes=tuple(self.classes))
            latents = self._latents(z, _unmeasured(len(z)), blank)
        latents.refuse_other(self.encoder_sha256, self.config.autoencoder.lambda_0)
        latents.refuse_damaged(self.latent_shape)
        labels = classes.renumbered(latents.labels, latents.classes or self.classes, self.classes)
        return replace(latents, z=latents.z.float(), labels=labels)

    def reconstruct(self, source: Source, steps: int | None = None, seed: int = 0) -> PictureSet:
        """Pictures through the latent and back; :meth:`read` takes the source."""
        found = self.read(source)
        return self.decode(self._latents(self.latents(found.images), _unmeasured(len(found)), found), steps, seed)

    @torch.no_grad()
    def sample_latents(
        self,
        count: int,
        label: Label | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> LatentSet:
        """``count`` latents z_0; latent i is a function of (seed, i).

        ``label``: a class by name or number, or one a latent as :meth:`encode` writes them, where -1 is none. Without
        it the classes that have training pictures take turns, as do those with one label of several (``"Serif"``).
        """
        if self.base is None:
            raise FieldError(
                f"{self.folder} has no base model: train stage 2 (stage2.samples above 0), or draw from stage 1's "
                "prior: evaluation.sample_from prior"
            )
        labels = classes.labels_of(self.data, at_least(1, count, "count"), label)
        evaluation = self.config.evaluation
        if guidance is not None and not self.classes:
            raise UserError("this run's pictures have no classes to be guided by: leave out `guidance`")
        if self.few_base and (guidance, steps) != (None, None):
            raise UserError("the fast base model was distilled for its own steps and guidance: leave both out")
        guidance = evaluation.guidance if guidance is None else guidance
        if not math.isfinite(guidance):
            raise UserError(f"`guidance` must be a number, not {guidance}")
        steps = at_least(1, self.base_steps if steps is None else steps, "steps")
        base = self.base

        def some(first: int, last: int) -> list[Tensor]:
            here = labels[first:last].to(self.device)
            z_1 = noise_of(generators(seed, "sample", first, last - first), self.latent_shape).to(self.device)
            if self.few_base:
                return [self.few_base.sample(z_1, base.condition(here)).cpu()]
            return [base.sample(z_1, here, steps, guidance).cpu()]

        (z_0,) = self.world.by_rows(count, lambda first, last: in_batches(first, last, some))
        blank = PictureSet(images=labels, labels=labels, classes=tuple(self.classes))
        return replace(self._latents(z_0, _unmeasured(count), blank), noisy=True)

    def sample(
        self,
        count: int,
        label: Label | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        decoder_steps: int | None = None,
    ) -> PictureSet:
        """New pictures and their classes; :meth:`sample_latents` says what ``label`` may be."""
        return self.decode(self.sample_latents(count, label, guidance, steps, seed), decoder_steps, seed)

    def class_number(self, label: int | str) -> int:
        """Number of a class: a text is a name, or a number where no class is named by one; a whole number is one."""
        return classes.number_of(self.data, label)


def _unmeasured(count: int) -> Tensor:
    """Bits that nobody has measured: NaN ``[N]``."""
    return torch.full((count,), torch.nan)


def load(folder: str | Path, device: str = "auto", decoder: Speed = "full", base: Speed = "full") -> Run:
    """Open a finished run folder; ``fast`` takes the network that `unilat distill` made."""
    return Run(Path(folder), device, decoder, base)


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder; raises :class:`UserError` where it is none."""
    path = RunFolder(folder).config
    seal.check(path)
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder (no {path.name} in it): make one with `unilat train`")
    return read_config_file(path)


def read_config_file(path: Path) -> RunConfig:
    """The configuration in a file; of a run's own only if it is what the run wrote. Raises :class:`UserError`."""
    if path.name == RunFolder(path.parent).config.name:
        seal.check(path)
    try:
        text = read_bytes(path, LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    return configuration.from_json(text)


def _filled(build: Callable[[], Model], tensors: dict[str, Tensor], path: Path) -> Model:
    """The model with these weights, all of them and no others; raises :class:`UserError` where they are another's.

    Whether they are is seen before memory is taken for what a configuration asks for.
    """
    try:
        with torch.device("meta"):
            outline = build().state_dict()
        if any(name not in outline or outline[name].shape != tensor.shape for name, tensor in tensors.items()):
            raise RuntimeError("other names or shapes")
        model = build()
        model.load_state_dict(tensors)
        return model
    except RuntimeError:
        raise UserError(
            f"{path} does not hold this configuration's weights: delete it and run `unilat train` again"
        ) from None


def finished(path: Path, stage: str) -> Path:
    """``path``, which ``stage`` ends with writing; raises :class:`UserError` where it has not."""
    if not path.is_file():
        raise UserError(f"{path.parent}: {stage} is not finished (no {path.name}): go on with `unilat train`")
    return path
