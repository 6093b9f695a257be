"""A run from pictures to report, and a finished run in the user's hands.

>>> import unilat
>>> run = unilat.load("runs/glyphs")
>>> latents = run.encode("glyphs")
>>> latents.bits.mean()
>>> pictures = run.decode(latents)
>>> made, labels = run.sample(64, guidance=2.0, seed=7)
"""

import functools
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unilat.files import read_json, read_safetensors
from unilat.maths.levels import Table
from unilat.maths.noise import diffuse
from unilat.maths.rate import LN2, RateTerms, rate_terms
from unilat.maths.seeds import Draws, key, seeded
from unilat.models.base import Base, prior_as_base
from unilat.models.few_steps import FewSteps
from unilat.models.latents import LatentSet, fingerprint
from unilat.recipe import config as configuration
from unilat.recipe.build import build_autoencoder, build_base
from unilat.recipe.config import DataConfig, RunConfig
from unilat.signals import Pictures, held_out_fit, split, to_bytes, to_unit
from unilat.signals import load as load_pictures
from unilat.training.machine import pick_device
from unilat.types import Denoiser, UserError

Speed = Literal["full", "fast"]
BATCH = 250
"""Pictures through a network at once outside training."""


class Run:
    """A trained autoencoder and, where stage 2 is done, its base model. Pictures are uint8 ``[N, C, H, W]``.

    ``decoder`` and ``base``: the networks as they were trained, or those that `unilat distill` made of them.
    """

    def __init__(self, folder: Path, device: str = "auto", decoder: Speed = "full", base: Speed = "full"):
        self.folder, self.device = Path(folder), pick_device(device)
        self.config = read_config(self.folder)
        self.data: dict[str, Any] = read_json(self.folder / "data.json")
        missing = {"channels", "classes", "sha256", "source"} - set(self.data if isinstance(self.data, dict) else ())
        if missing:
            raise UserError(
                f"{self.folder / 'data.json'} is damaged ({', '.join(sorted(missing))} missing): delete it and go on "
                "with `unilat train`, which writes it again"
            )
        tensors, _ = read_safetensors(_finished(self.folder, "autoencoder.safetensors", "stage 1"))
        self.autoencoder = build_autoencoder(self.config, self.data["channels"])
        _fill(self.autoencoder, tensors, self.folder / "autoencoder.safetensors")
        self.autoencoder.eval().requires_grad_(False).to(self.device)
        self.encoder_sha256 = fingerprint(self.autoencoder.encoder)
        self.base: Base | None = None
        if (self.folder / "base.safetensors").is_file():
            tensors, header = read_safetensors(self.folder / "base.safetensors")
            if header.get("encoder_sha256") != self.encoder_sha256:
                raise UserError(
                    f"{folder}: base.safetensors was trained on another encoder's latents; train stage 2 again"
                )
            self.base = build_base(self.config, self.classes)
            _fill(self.base, tensors, self.folder / "base.safetensors")
            self.base.eval().requires_grad_(False).to(self.device)
        elif self.config.evaluation.sample_from == "prior":
            self.base = prior_as_base(self.autoencoder).eval()
        self.few_decoder = self._few("decoder", self.autoencoder.decoder) if decoder == "fast" else None
        if base == "fast" and self.base is None:
            raise UserError(
                f"{self.folder} has no base model, so there is no fast one: train stage 2, or leave out --base"
            )
        self.few_base = self._few("base", self.base.denoise) if base == "fast" and self.base else None

    def _few(self, part: str, teacher: torch.nn.Module) -> FewSteps:
        return FewSteps.load(few_steps_path(self.folder, part), teacher)

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
        return self.data["classes"]

    @functools.cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """``(C, *grid)`` of one latent."""
        return (self.config.autoencoder.latent_channels, *configuration.latent_grid(self.config))

    @property
    def pixels(self) -> int:
        """Pixels of one picture."""
        return math.prod(self.config.data.size)

    def pictures(self, source: str | Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pictures and labels of a source, or of a tensor as it is, brought to this run's size and channels."""
        size, channels = self.config.data.size, self.data["channels"]
        if isinstance(source, Tensor):
            if source.dtype != torch.uint8 or tuple(source.shape[1:]) != (channels, *size):
                wanted = f"[N, {channels}, {size[0]}, {size[1]}]"
                raise UserError(f"pictures must be uint8 {wanted}, not {source.dtype} {list(source.shape)}")
            return source, torch.zeros(len(source), dtype=torch.int64)
        loaded = load_pictures(source, size=size, channels=channels, fit=held_out_fit(self.config.data.fit))
        return loaded.images, loaded.labels

    def split(self, pictures: Pictures) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of training, calibration and held-out pictures, as they were in training."""
        return split_pictures(self.config, pictures)

    def latents(self, images: Tensor) -> Tensor:
        """Clean latents of uint8 pictures, on the CPU: ``E(x)``, or a draw where the encoder learned a variance."""
        return self.encoded(images)[0]

    @torch.no_grad()
    def encoded(self, images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor | None]:
        """:meth:`latents`, and the entropy in nats that a learned variance adds to each of their numbers, or None."""
        drawn, added = [], []
        for first in range(0, len(images), BATCH):
            posterior = self.autoencoder.posterior(to_unit(images[first : first + BATCH]).to(self.device))
            makers = generators(seed, "posterior", first, len(posterior.mean))
            z = posterior.draw(lambda mean, makers=makers: noise_of(makers, mean.shape[1:]).to(mean))
            entropy = posterior.entropy(self.config.autoencoder.lambda_0)
            drawn.append(z.cpu())
            added.append(None if entropy is None else entropy.cpu())
        return torch.cat(drawn), torch.cat(added) if added[0] is not None else None

    def rate(self, z: Tensor, levels: int, seed: int = 0, entropy: Tensor | None = None) -> list[RateTerms]:
        """``levels`` independent estimates of the rate of all of ``z``, noise levels spread evenly over the set.

        ``entropy``: of latents with a learned variance, as :meth:`encoded` returns it.
        """
        table, lambda_min = self.autoencoder.rate_levels.table, self.config.autoencoder.lambda_min
        found = measure_rate(z, self.autoencoder.prior, table, lambda_min, levels=levels, seed=seed, device=self.device)
        return [terms.less(entropy) for terms in found]

    def encode(self, source: str | Tensor, seed: int = 0) -> LatentSet:
        """Latents of a data set (anything ``unilat train`` takes) or of uint8 pictures, with the bits of each."""
        images, labels = self.pictures(source)
        z, entropy = self.encoded(images, seed)
        estimates = self.rate(z, self.config.evaluation.rate_levels, seed, entropy)
        nats = torch.stack([terms.nats() for terms in estimates]).mean(0)
        lambda_0 = self.config.autoencoder.lambda_0
        return LatentSet(z, nats / LN2, labels, lambda_0, self.encoder_sha256, self.pixels)

    @torch.no_grad()
    def decode(self, latents: LatentSet, steps: int | None = None, seed: int = 0) -> Tensor:
        """Pictures of latents; refuses latents of another encoder. Picture i depends on (seed, i) only."""
        latents.refuse_other(self.encoder_sha256, self.config.autoencoder.lambda_0)
        if tuple(latents.z.shape[1:]) != self.latent_shape:
            raise UserError(f"latents must be {list(self.latent_shape)} each, not {list(latents.z.shape[1:])}")
        evaluation, steps = self.config.evaluation, _positive(self.decoder_steps if steps is None else steps, "--steps")
        if self.few_decoder and steps != self.few_decoder.calls:
            raise UserError(f"the fast decoder was distilled for --steps {self.few_decoder.calls}, not {steps}")
        made = []
        for first in range(0, len(latents), BATCH):
            z = latents.z[first : first + BATCH]
            makers = generators(seed, "decode", first, len(z))
            if not latents.noisy:
                z = self.autoencoder.corrupt(z, noise_of(makers, z.shape[1:]))
            x_1 = noise_of(makers, (self.data["channels"], *self.config.data.size))
            z_0, x_1 = z.to(self.device), x_1.to(self.device)
            if self.few_decoder:
                x = self.few_decoder.sample(x_1, self.autoencoder.condition(z_0))
            else:
                x_1 = evaluation.decoder_temperature * x_1
                x = self.autoencoder.decode(z_0, x_1, steps, evaluation.decoder_range)
            made.append(to_bytes(x.cpu()))
        return torch.cat(made)

    def reconstruct(self, source: str | Tensor, steps: int | None = None, seed: int = 0) -> Tensor:
        """Pictures through the latent and back, uint8."""
        images, labels = self.pictures(source)
        z, bits = self.latents(images), torch.full((len(images),), torch.nan)
        lambda_0 = self.config.autoencoder.lambda_0
        return self.decode(LatentSet(z, bits, labels, lambda_0, self.encoder_sha256, self.pixels), steps, seed)

    @torch.no_grad()
    def sample_latents(
        self,
        count: int,
        label: int | str | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> LatentSet:
        """``count`` latents z_0; without a label classes take turns. Latent i is a function of (seed, i)."""
        if self.base is None:
            raise UserError(
                f"{self.folder} has no base model: train stage 2 (`unilat train` without --stage2.samples 0), or draw "
                "from stage 1's prior: --evaluation.sample-from prior"
            )
        labels = self._labels(_positive(count, "-n"), label)
        evaluation = self.config.evaluation
        if guidance is not None and not self.classes:
            raise UserError("this run's pictures have no classes to be guided by: leave out --guidance")
        if self.few_base and (guidance, steps) != (None, None):
            raise UserError("the fast base model was distilled for its own steps and guidance: leave both out")
        guidance = evaluation.guidance if guidance is None else guidance
        if not math.isfinite(guidance):
            raise UserError(f"--guidance must be a number, not {guidance}")
        steps = _positive(self.base_steps if steps is None else steps, "--steps")
        made = []
        for first in range(0, count, BATCH):
            here = labels[first : first + BATCH]
            makers = generators(seed, "sample", first, len(here))
            z_1 = noise_of(makers, self.latent_shape).to(self.device)
            here = here.to(self.device)
            if self.few_base:
                z_0 = self.few_base.sample(z_1, self.base.condition(here))
            else:
                z_0 = self.base.sample(z_1, here, steps, guidance)
            made.append(z_0.cpu())
        lambda_0, unknown = self.config.autoencoder.lambda_0, torch.full((count,), torch.nan)
        return LatentSet(torch.cat(made), unknown, labels, lambda_0, self.encoder_sha256, self.pixels, noisy=True)

    def sample(
        self,
        count: int,
        label: int | str | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        decoder_steps: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """New pictures uint8 ``[N, C, H, W]`` and their labels ``[N]``."""
        latents = self.sample_latents(count, label, guidance, steps, seed)
        return self.decode(latents, decoder_steps, seed), latents.labels

    def _labels(self, count: int, label: int | str | None) -> Tensor:
        if label is None:
            return torch.arange(count) % max(1, len(self.classes))
        if not self.classes:
            raise UserError("this run's pictures have no classes: leave out --class")
        if str(label) in self.classes:
            return torch.full((count,), self.classes.index(str(label)))
        if str(label).isdecimal() and int(label) < len(self.classes):
            return torch.full((count,), int(label))
        raise UserError(
            f"there is no class {label}: choose one of {', '.join(self.classes[:20])} or 0 to {len(self.classes) - 1}"
        )


@torch.no_grad()
def measure_rate(
    z: Tensor,
    denoise: Denoiser,
    table: Table,
    lambda_min: float,
    *,
    levels: int,
    seed: int,
    device: torch.device,
    cond: Tensor | None = None,
) -> list[RateTerms]:
    """``levels`` independent estimates of the rate of all of ``z [N, ...]`` under ``denoise``, batch by batch.

    Noise levels fall as ``table`` says, spread evenly over the set; everything random is a function of ``seed``.
    ``cond [N]``: what the denoiser is told of each latent, its class for example.
    """
    found = []
    for index in range(levels):
        draws = Draws.keyed(key(seed, "rate"), index, 0, len(z))
        strata, noise, parts = draws.strata(len(z)), draws.normal(z), []
        for first in range(0, len(z), BATCH):
            rows = slice(first, first + BATCH)
            here, at = z[rows].to(device), table.sample(strata[rows].to(device))
            told = None if cond is None else cond[rows].to(device)
            z_hat = denoise(diffuse(here, noise[rows].to(device), at.lambda_t), at.lambda_t, told)
            parts.append(rate_terms(here, z_hat, at, lambda_min))
        names = ("diffusion", "terminal", "lambda_t")
        found.append(RateTerms(*(torch.cat([getattr(part, name).cpu() for part in parts]) for name in names)))
    return found


def load(folder: str | Path, device: str = "auto", decoder: Speed = "full", base: Speed = "full") -> Run:
    """Open a finished run folder; ``fast`` takes the network that `unilat distill` made."""
    return Run(Path(folder), device, decoder, base)


def few_steps_path(folder: Path, part: str) -> Path:
    """Where the distilled ``decoder`` or ``base`` of a run lies."""
    return folder / f"fast-{part}.safetensors"


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder; raises :class:`UserError` where it is none."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a run folder (no config.json in it): make one with `unilat train DATA --out {folder}`"
        )
    return configuration.from_json((folder / "config.json").read_text("utf-8", "replace"))


def read_pictures(config: DataConfig, channels: int | None) -> Pictures:
    """The pictures that a configuration names, in its size."""
    return load_pictures(config.source, size=config.size, channels=channels, fit=config.fit, limit=config.at_most)


def split_pictures(config: RunConfig, pictures: Pictures) -> tuple[Tensor, Tensor, Tensor]:
    """Indices ``(train, calibration, test)``: a function of the configuration's seed; at most an eighth calibrates.

    Calibration pictures are whole groups too: a near-duplicate in training would make them cheaper than held-out ones.
    """
    train, test = split(pictures, fraction=config.data.held_out, at_most=config.data.held_out_at_most, seed=config.seed)
    groups = pictures.groups[train]
    names = groups.unique()
    order = torch.randperm(len(names), generator=seeded(config.seed, "calibration"))
    rank = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))[torch.searchsorted(names, groups)]
    room = min(config.data.calibration, len(train) // 8)
    sizes = torch.bincount(rank, minlength=len(names)).cumsum(0)
    chosen = sizes[rank] <= room
    labels = pictures.labels[train]
    left = torch.bincount(labels[~chosen], minlength=int(labels.max()) + 1)
    chosen &= ~torch.isin(groups, groups[left[labels] == 0])  # no class may lose all its pictures
    return train[~chosen], train[chosen], test


def generators(seed: int, purpose: str, first: int, count: int) -> list[torch.Generator]:
    """One CPU generator for each of ``count`` samples from number ``first`` on: sample i depends on (seed, i) only."""
    return [seeded(seed, purpose, first + index) for index in range(count)]


def noise_of(makers: list[torch.Generator], shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Standard normal noise, row i from generator i."""
    return torch.stack([torch.randn(tuple(shape), generator=maker) for maker in makers])


def _fill(model: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load weights, all of them and no others; raises :class:`UserError` where they are not this model's."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(
            f"{path} does not hold this configuration's weights: delete it and run `unilat train` again"
        ) from None


def _positive(number: int, name: str) -> int:
    if number < 1:
        raise UserError(f"{name} must be 1 or more, not {number}")
    return number


def _finished(folder: Path, name: str, stage: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"{folder}: {stage} is not finished (no {name}): go on with `unilat train`")
    return folder / name
