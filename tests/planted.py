"""Planted cases with known answers: pictures that carry their number and whose class is their colour, a run whose every
part is known in closed form, features and a judge that are a few lines."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from measured import described
from unilat.files import write_json, write_safetensors
from unilat.maths.levels import rate_table
from unilat.maths.noise import alpha, diffuse, expand, sigma
from unilat.maths.rate import RateTerms
from unilat.models.latents import fingerprint
from unilat.models.posterior import Posterior
from unilat.nets.condition import Condition
from unilat.recipe import presets
from unilat.recipe.build import build_autoencoder, build_base
from unilat.recipe.config import RunConfig, to_dict
from unilat.results import Number, Results
from unilat.run import evaluate as evaluation
from unilat.run import reference as referring
from unilat.run.evaluate import evaluate
from unilat.run.facts import Facts
from unilat.run.given import PictureSet
from unilat.run.trained import Run
from unilat.signals import Image, Pictures
from unilat.signals.pictures import pack
from unilat.training.parallel import ALONE

CLASSES = ("red", "green", "blue")


def coloured(count: int, *, held_out: Tensor | None = None, copies: dict[int, int] | None = None) -> Pictures:
    """``count`` pictures 3 × 16 × 16; a picture's class is its brightest channel, three of seven are red, two blue.

    The number of a picture stands in two of its pixels (:func:`numbers`); ``copies``: number → the one it is equal to.
    """
    random = np.random.default_rng(count)
    labels = np.array([(0, 1, 2, 0, 1, 2, 0)[index % 7] for index in range(count)])
    images = random.integers(10, 60, (count, 3, 16, 16), dtype=np.uint8)
    for index, label in enumerate(labels):
        images[index, label] += random.integers(90, 130, dtype=np.uint8)
        images[index, 0, 0, :2] = index % 16 * 4 + 20, index // 16 * 4 + 20
    for index, other in (copies or {}).items():
        images[index], labels[index] = images[other], labels[other]
    marked = None if held_out is None else held_out.numpy()
    return pack(images, labels, "planted", classes=CLASSES, held_out=marked)


def numbers(images: Tensor) -> list[int]:
    """The numbers that uint8 pictures of :func:`coloured` carry."""
    low, high = (images[:, 0, 0, place].long() for place in (0, 1))
    assert not bool((low % 4).any()) and not bool((high % 4).any()), "pictures without a number"
    return ((low - 20) // 4 + 16 * ((high - 20) // 4)).tolist()


def planted_config(**evaluation: Any) -> RunConfig:
    """The preset tiny for pictures in colour with latents of 3 × 4 × 4 and other numbers than the defaults."""
    config = presets.get("tiny")
    data = replace(config.data, source="planted", calibration=9, held_out=0.2, held_out_at_most=40)
    wanted = {
        "pictures": 15,
        "samples": 14,
        "rate_levels": 3,
        "decoder_steps": 4,
        "step_counts": (1, 3),
        "base_steps": 5,
    }
    wanted |= {"guidance": 2.5, "decoder_temperature": 0.25, "decoder_range": (-5.0, 2.0), "classifier_samples": 640}
    return replace(
        config,
        data=data,
        autoencoder=replace(config.autoencoder, latent_channels=3, lambda_min=-9.0, lambda_0=4.0),
        stage1=replace(config.stage1, target_bpp=0.35),
        evaluation=replace(config.evaluation, **(wanted | evaluation)),
    )


@dataclass(frozen=True, eq=False)
class ExactPrior:
    """The exact denoiser of latents ``N(mean, std²)``; ``mean`` is [C] or, for a class of its own each, [K, C]."""

    mean: Tensor
    std: Tensor
    heard: list[Any]

    def __call__(self, z_t: Tensor, logsnr: Tensor, cond: Any = None) -> Tensor:
        self.heard.append(cond)
        mean = self.mean[cond.rows][..., None, None] if self.mean.dim() > 1 else self.mean[None, :, None, None]
        std = self.std[None, :, None, None]
        alpha_t, sigma_t = expand(alpha(logsnr), z_t), expand(sigma(logsnr), z_t)
        gain = std.square() * alpha_t / (alpha_t.square() * std.square() + sigma_t.square())
        return mean + gain * (z_t - alpha_t * mean)


class Blocks:
    """An autoencoder without training: ``z = 2 · (mean of 4 × 4 pixels) + 0.5``, drawn with a variance if one is given.

    Decoding makes blocks of the mean again, with a tenth of the noise that it starts from.
    """

    def __init__(self, config: RunConfig, log_variance: float | None = None):
        ae = config.autoencoder
        self.lambda_0, self.log_variance = ae.lambda_0, log_variance
        self.prior = ExactPrior(torch.tensor([0.3, -0.4, 0.1]), torch.tensor([0.5, 0.8, 1.2]), [])
        self.rate_levels = SimpleNamespace(table=rate_table(ae.lambda_min, ae.lambda_0))
        self.decoder = nn.Identity()
        self.encoder, self.decoded = nn.Linear(2, 3), []  # the calls of the decoder

    def posterior(self, x: Tensor) -> Posterior:
        mean = 2 * nn.functional.avg_pool2d(x, 4) + 0.5
        return Posterior(mean, None if self.log_variance is None else torch.full_like(mean, self.log_variance))

    def corrupt(self, z: Tensor, noise: Tensor) -> Tensor:
        return diffuse(z, noise, torch.full((len(z),), self.lambda_0))

    def condition(self, z_0: Tensor) -> Tensor:
        return z_0

    def decode(self, z_0: Tensor, x_1: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
        self.decoded.append((z_0, x_1, steps, span))
        means = (z_0 / math.sqrt(1 / (1 + math.exp(-self.lambda_0))) - 0.5) / 2
        return nn.functional.interpolate(means, scale_factor=4) + 0.1 * x_1


def untrained(folder: Path, config: RunConfig, pictures: Pictures) -> Path:
    """A run folder whose networks are at their start, in a tenth of a second; every weight away from zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        autoencoder = build_autoencoder(config, pictures.channels)
        base = build_base(config, list(pictures.classes))
        for parameter in (*autoencoder.parameters(), *base.parameters()):
            parameter.data += 0.02 * torch.randn_like(parameter)
        if autoencoder.encoder.scale is not None:
            autoencoder.rescale(1.7)
    encoder = fingerprint(autoencoder.encoder)
    facts = {"channels": pictures.channels, "classes": list(pictures.classes), "source": "planted"}
    write_json(folder / "config.json", to_dict(config))
    write_json(folder / "data.json", facts | {"sha256": pictures.sha256})
    write_safetensors(folder / "autoencoder.safetensors", autoencoder.state_dict(), {"encoder_sha256": encoder})
    write_safetensors(folder / "base.safetensors", base.state_dict(), {"encoder_sha256": encoder})
    return folder


def bare_run(config: RunConfig, autoencoder: Any, base: Any = None, folder: Path = Path("none")) -> Run:
    """A :class:`Run` around given networks, without a folder; its methods are the library's."""
    run = Run.__new__(Run)
    run.folder, run.device, run.config = folder, torch.device("cpu"), config
    run.data = Facts(channels=3, classes=tuple(CLASSES), sha256="", source="planted")
    run.autoencoder, run.encoder_sha256, run.base = autoencoder, "f" * 64, base
    run.few_decoder = run.few_base = None
    return run


class Means:
    """The features of a picture are the means of its channels: an identity, but for size."""

    name, sha256, protocol = "means", "0" * 64, "features: means of channels"
    label, published = "means, uint8", False

    def __call__(self, pictures: Tensor) -> Tensor:
        return pictures.float().mean((2, 3)) / 255


class Judge:
    """Names the brightest channel; what it was trained on lies in ``seen``."""

    protocol = "the brightest channel"

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, int, int]] = []
        self.asked: list[tuple[Tensor, Tensor]] = []
        self.places: list[Any] = []

    def instead(self, monkeypatch: pytest.MonkeyPatch) -> "Judge":
        """This judge and features whose answers are known, in place of the networks."""
        monkeypatch.setattr(referring, "feature_network", lambda spec, device: self.places.append(device) or Means())
        monkeypatch.setattr(evaluation, "train_classifier", self.train)
        monkeypatch.setattr(evaluation, "OTHER_COUNTS", 7)
        monkeypatch.setattr(evaluation, "describe", lambda *given: described({}))  # a second; it has its own test
        return self

    def train(self, pictures: Tensor, labels: Tensor, classes: int, *, samples: int, device: Any) -> "Judge":
        self.seen.append((pictures, labels, classes, samples))
        self.places.append(device)
        return self

    def accuracy(self, pictures: Tensor, labels: Tensor) -> Number:
        self.asked.append((pictures, labels))
        right = (pictures.float().mean((2, 3)).argmax(1) == labels).double()
        stderr = float(right.std(correction=0) / math.sqrt(len(right)))
        return Number(value=float(right.mean()), stderr=stderr, n=len(right), protocol=self.protocol)


def given(images: Tensor, labels: Tensor, source: str = "") -> PictureSet:
    """Pictures in the planted classes."""
    return PictureSet(images=images, labels=labels, classes=tuple(CLASSES), source=source)


class PlantedRun:
    """What ``evaluate`` asks of a run, with answers made by hand: each estimate of the rate, picture and sample."""

    few_decoder = few_base = None
    world = ALONE
    distilled, device, kind = False, torch.device("cpu"), Image(height=16, width=16, channels=3)

    def __init__(self, config: RunConfig, pictures: Pictures, folder: Path, *, learned: bool = False, base: Any = None):
        if base is None:  # and none was asked for
            config = replace(config, stage2=replace(config.stage2, samples=0))
        self.config, self.source, self.folder, self.base, self.learned = config, pictures, folder, base, learned
        self.data = Facts(channels=3, classes=tuple(CLASSES), sha256=pictures.sha256, source="planted")
        self.classes = list(CLASSES)
        self.autoencoder: Any = Blocks(config, -1.0 if learned else None)
        self.decoder_steps, self.base_steps = config.evaluation.decoder_steps, config.evaluation.base_steps
        self.wrong = 3
        self.header: dict[str, str] = {}
        self.shown: list[Any] = []
        self.labels: list[Tensor] = []

    def split(self, pictures: Pictures) -> tuple[Tensor, Tensor, Tensor]:
        everything = torch.arange(len(pictures))
        return everything[everything % 4 > 1], everything[everything % 4 == 1], everything[everything % 4 == 0]

    def read(self, source: str) -> PictureSet:
        assert source == "elsewhere"
        return given(self.source.images[-20:], 2 - self.source.labels[-20:], source)

    def encoded(self, images: Tensor) -> tuple[Tensor, Posterior | None]:
        z = self.autoencoder.posterior(images.float() / 127.5 - 1).mean
        return z, Posterior(z, 0.25 + z.abs()) if self.learned else None

    def rate(self, z: Tensor, levels: int, seed: int = 0, posterior: Posterior | None = None) -> list[RateTerms]:
        """Estimate k has ``(1 + k) (z + 3)²`` nats of diffusion and ``z²`` of KL a number, at levels spread evenly."""
        lambda_t = torch.linspace(-9.0, 4.0, len(z))
        found = [RateTerms((1 + k) * (z + 3).square(), z.square(), lambda_t.roll(k)) for k in range(levels)]
        return [terms.less(posterior and posterior.log_variance) for terms in found]

    def reconstruct(self, images: Tensor, steps: int) -> PictureSet:
        """Brighter by ``steps`` or, every third picture, by three times as much."""
        more = steps * torch.tensor([1, 1, 3], dtype=torch.uint8)[torch.arange(len(images)) % 3]
        return given(images + more[:, None, None, None], torch.zeros(len(images)).long())

    def sample(self, count: int, label: Tensor | None = None) -> PictureSet:
        """Pictures of the colour of their label, the first ``wrong`` of another; ``label`` is kept in ``labels``."""
        labels = torch.arange(count) % 3 if label is None else label
        self.labels += [] if label is None else [label]
        made = (30 + torch.arange(count, dtype=torch.uint8)[:, None, None, None]).repeat(1, 3, 16, 16)
        for index in range(count):
            made[index, (labels[index] + (index < self.wrong)) % 3] += 150
        return given(made, labels)


def closed_form_bits(z: Tensor, mean: Tensor, std: Tensor, lambda_min: float, lambda_0: float) -> Tensor:
    """The bound of each latent under the exact denoiser of N(mean, std²): a KL at λ₀, less the one at λ_min, plus the
    terminal KL; float64, bits of each number."""

    def divergence(level: float) -> Tensor:
        noise = 1 / (1 + math.exp(level))
        variance = (1 - noise) * std.square() + noise
        return 0.5 * (((1 - noise) * (z - mean).square() + noise) / variance - 1 + (variance / noise).log())

    noise = 1 / (1 + math.exp(lambda_min))
    last = 0.5 * ((1 - noise) * z.square() + noise - 1 - math.log(noise))
    return (divergence(lambda_0) - divergence(lambda_min) + last) / math.log(2)


def recorded(call: Callable[..., Any], into: list[Any]) -> Callable[..., Any]:
    """``call``, with its arguments appended to ``into``."""

    def watched(*given: Any, **named: Any) -> Any:
        into.append((given, named))
        return call(*given, **named)

    return watched


def mislabelled() -> Pictures:
    """200 pictures, every fifth of those that the planted split holds out labelled as what it is not."""
    made = coloured(200)
    labels = made.labels.clone()
    labels[::20] = (labels[::20] + 1) % 3
    return replace(made, labels=labels)


MEANS = [[0.9, -0.8, -0.9], [-0.8, 0.8, -0.7], [-0.9, -0.7, 0.6], [0.0, 0.0, 0.0]]
BASE = SimpleNamespace(
    denoise=ExactPrior(torch.tensor(MEANS), torch.tensor([0.4, 0.6, 0.8]), []),
    classes=3,
    lambda_min=-9.0,
    lambda_0=4.0,
    condition=Condition,
    unlabelled=lambda count: Condition(torch.zeros(count).long()).null(),
)
"""A base model that is the exact denoiser of a Gaussian for each class, and of another for none."""


def measured(run: PlantedRun, pictures: Pictures | None, source: str | None = None) -> tuple[Results, list[int]]:
    """What ``evaluate`` returns, and the numbers of the pictures that it measured, in their order."""
    seen: list[Any] = []
    run.encoded = recorded(run.encoded, seen)  # type: ignore[method-assign]
    return evaluate(run, source, pictures=pictures), numbers(seen[0][0][0])  # type: ignore[arg-type]
