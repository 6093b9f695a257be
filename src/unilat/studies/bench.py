"""What a run of a configuration will cost on this machine, before it is started.

Stage by stage some real steps of the engine on random pictures are timed, the way that ``unilat train`` would take here
and the plain one, then each network alone, and a matrix product beside them:

    share = training FLOPs of a step / its seconds / (FLOPs a second of the matrix product)

A step's FLOPs are all that it does, three forward passes and Muon's products; a network alone takes no step.
Where a batch is split into k > 2 micro-batches, steps of one and of two are timed: t₁ + (k − 1)(t₂ − t₁).
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unilat.fields import at_least
from unilat.metrics.classifier import train_classifier
from unilat.metrics.features import feature_network, refuse_program
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.nets.condition import Condition
from unilat.recipe import config as configuration
from unilat.recipe.build import PartCost, build_autoencoder, build_base, describe
from unilat.recipe.config import RunConfig
from unilat.run.rate import BATCH
from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling
from unilat.studies import phases
from unilat.studies.timing import forget_peak, matrix_rate, once, peak, seconds, step_of
from unilat.training.capture import captures
from unilat.training.fast import Choices, applied, compiles, told
from unilat.training.machine import Manifest, manifest, pick_device
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

CLASSES = 10
PICTURES = 512
"""Random pictures and latents to draw batches from."""
LEARNT = 640
"""Pictures that the classifier is timed on."""
CHOSEN, PLAIN = Choices(), Choices(compile="off", precision="float32", capture="off")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PartTime:
    """One network's forward and backward pass, of one example."""

    ms: float
    gflops: float
    """As :func:`describe` counts them."""
    share: float
    """Of the matrix product's rate."""


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Real steps of the engine."""

    ms: float
    """Of a step."""
    examples_per_second: float
    minutes: float
    """Of the whole stage."""
    share: float
    """Of the matrix product's rate."""
    micro_batch: int
    """Examples computed at a time."""
    peak_mib: float
    """Of the device while this stage was timed; of the process where the device has no memory of its own."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to compute a run."""

    name: str
    """Of what is chosen: ``plain``, ``bf16, compiled`` …"""
    stages: Mapping[str, StageTime]
    """``stage1``, ``prior`` where the prior settles alone, ``stage2``."""
    encode_minutes: float
    evaluate_minutes: float
    """The networks', the features' and the classifier's; reading and writing come on top."""

    @property
    def minutes(self) -> float:
        """Of all phases but reading pictures."""
        return sum(stage.minutes for stage in self.stages.values()) + self.encode_minutes + self.evaluate_minutes


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a configuration costs on this machine."""

    machine: Manifest
    product: str
    """Precision of the matrix product: the fastest that networks use here."""
    matrix_gflops: float
    """GFLOPs a second of it."""
    parts: Mapping[str, PartTime]
    """Networks alone, as the chosen way computes them but for compiling."""
    trained: int
    """Training pictures that the minutes of encoding are for."""
    chosen: Way
    plain: Way | None
    """float32 and not compiled; None where that is what is chosen."""

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        found = asdict(self)
        for way in ("chosen", "plain"):
            if (timed := getattr(self, way)) is not None:
                found[way]["minutes"] = timed.minutes
        return found


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is timed: networks of a configuration, and random data for them."""

    config: RunConfig
    place: torch.device
    autoencoder: Autoencoder
    base: Base
    pictures: Tensor
    labels: Tensor
    data: phases.Data
    counted: Mapping[str, PartCost]
    rate: float
    """GFLOPs a second of the matrix product."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a latent."""
        return (self.config.autoencoder.latent_channels, *configuration.latent_grid(self.config))


def bench(
    config: RunConfig,
    channels: int = 3,
    say: Say = lambda line: None,
    device: str = "auto",
    pictures: int | phases.Data = 10_000,
) -> Timing:
    """Time ``config`` on pictures of ``channels`` channels, as many as said. Seconds are medians.

    Reading pictures is not in it. Raises :class:`UserError` for what ``unilat train`` would refuse.
    """
    configuration.check(config)
    if channels not in (1, 3):
        raise UserError(f"`channels` must be 1 (grey) or 3 (colour), not {channels}")
    if len(config.autoencoder.encoder.patch) != 2:
        raise UserError("this configuration is for video, and only pictures are trained so far: take another one")
    if isinstance(pictures, int):
        pictures = phases.Data.of(config, at_least(1, pictures, "pictures"), CLASSES)
    subject = _subject(config, channels, pick_device(device), pictures)
    chosen = _way(subject, CHOSEN, say)
    plain = None if chosen.name == "plain" else _way(subject, PLAIN, lambda line: say(f"{line}, the plain way"))
    say("timing the networks alone")
    parts: dict[str, PartTime] = {}
    with applied(nn.ModuleList([subject.autoencoder, subject.base]), CHOSEN, False, subject.place):
        passes = _parts(subject, {name: stage.micro_batch for name, stage in chosen.stages.items()})
    for name, ms in passes.items():
        gflops = subject.counted[name].forward_flops * 3 / 1e9
        parts[name] = PartTime(ms=ms, gflops=gflops, share=gflops / (ms / 1e3) / subject.rate)
    return Timing(
        machine=manifest(str(subject.place)),
        product="bf16" if subject.place.type == "cuda" else "float32",
        matrix_gflops=subject.rate,
        parts=parts,
        trained=pictures.trained,
        chosen=chosen,
        plain=plain,
    )


def _subject(config: RunConfig, channels: int, place: torch.device, data: phases.Data) -> _Subject:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (PICTURES, channels, *config.data.size), dtype=torch.uint8)
    autoencoder = build_autoencoder(config, channels).to(place)
    autoencoder.start_at_unit_scale(pictures[:64].to(place).float() / 127.5 - 1)
    base = build_base(config, [str(index) for index in range(CLASSES)]).to(place)
    counted, labels = describe(config, channels, CLASSES).parts, torch.arange(PICTURES) % CLASSES
    rate = max(matrix_rate(place), matrix_rate(place))
    return _Subject(config, place, autoencoder, base, pictures, labels, data, counted, rate)


def _way(subject: _Subject, choices: Choices, say: Say) -> Way:
    """All phases as ``choices`` say."""
    config, one = subject.config, subject.config.stage1
    timed = functools.partial(_stage, subject, choices)
    say("timing stage 1")
    steady = replace(one, calibrate_every=10**9)  # a calibration in a few steps would weigh too much
    stage = AutoencoderStage(subject.autoencoder, subject.pictures, subject.pictures[:0], steady)
    names = [name for name in ("encoder", "prior", "decoder") if name in subject.counted]
    stages, ways = dict[str, StageTime](), dict[str, str]()
    stages["stage1"], ways["stage1"] = timed(stage.stage(), schedule(one), names)
    if one.settle and config.autoencoder.price != "normal":
        say("timing the prior alone")
        stages["prior"], ways["prior"] = timed(stage.settled(), settling(one), ["prior"])
    if config.stage2.samples and "base" in subject.counted:
        say("timing stage 2")
        latents = torch.randn(PICTURES, *subject.shape)
        frozen = base_stage(subject.base, latents, subject.labels, config.stage2.levels)
        stages["stage2"], ways["stage2"] = timed(frozen, schedule(config.stage2), ["base"])
    say("timing the evaluation")
    spent = _passing(subject, max(1, min(BATCH, stages["stage1"].micro_batch)))
    encode, evaluate = phases.encoding(config, subject.data), phases.evaluation(config, subject.data)
    return Way(
        name=ways["stage1"] if len({*ways.values()}) == 1 else "; ".join(f"{one} {way}" for one, way in ways.items()),
        stages=stages,
        encode_minutes=sum(spent[name] * calls for name, calls in encode.items()) / 60,
        evaluate_minutes=(sum(spent[name] * calls for name, calls in evaluate.items()) + _judging(subject)) / 60,
    )


def _stage(
    subject: _Subject, choices: Choices, stage: Stage, plan: Schedule, networks: list[str]
) -> tuple[StageTime, str]:
    """A stage's steps where ``networks`` train in it, and the way they are computed."""
    place, counted = subject.place, [subject.counted[name] for name in networks]
    flops = sum(part.training(plan.samples, plan.batch) for part in counted)
    compiled, _ = compiles(choices, flops, place)
    capture, _ = captures(choices, stage, plan, flops, place)
    forget_peak(place)
    with applied(stage.model, choices, compiled, place):
        ways = [way for way in told(stage.model).split(", ") if way != "products by oneDNN"]
        ways += ["captured"] if capture else []
        step, micro = step_of(stage, plan, place, capture)
    return StageTime(
        ms=1e3 * step,
        examples_per_second=plan.batch / step,
        minutes=math.ceil(plan.samples / plan.batch) * step / 60,
        share=sum(part.training(plan.batch, plan.batch) for part in counted) / 1e9 / step / subject.rate,
        micro_batch=micro,
        peak_mib=peak(place),
    ), ", ".join(ways) or "plain"


def _inputs(subject: _Subject, size: int) -> Mapping[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Each network, and ``size`` examples for it."""
    config, place = subject.config, subject.place
    x = torch.randn(size, *subject.pictures.shape[1:], device=place)
    z, level = torch.randn(size, *subject.shape, device=place), torch.zeros(size, device=place)
    cond = Condition(torch.zeros(size, dtype=torch.int64, device=place))
    calls: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "encoder": (subject.autoencoder.encoder, (x,)),
        "prior": (subject.autoencoder.prior, (z, level)),
        "decoder": (subject.autoencoder.decoder, (x, level, subject.autoencoder.condition(z))),
    }
    if config.stage2.samples:
        calls["base"] = (subject.base.denoise, (z, level, cond))
    return calls


def _parts(subject: _Subject, micro: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds an example of each network's forward and backward pass, as many at a time as they are trained."""
    found = {}
    for name in subject.counted:
        stage = "stage2" if name == "base" else "stage1"
        if stage in micro:
            net, inputs = _inputs(subject, micro[stage])[name]
            found[name] = 1e3 * seconds(_pass(net, inputs), subject.place) / len(inputs[0])
    return found


def _passing(subject: _Subject, size: int) -> dict[str, float]:
    """Seconds an example of each network's forward pass alone, ``size`` at a time, in float32 as it is evaluated."""
    found = {"base": 0.0}
    for name, (net, inputs) in _inputs(subject, size).items():
        with torch.no_grad():
            found[name] = seconds(functools.partial(net, *inputs), subject.place) / size
    return found


def _judging(subject: _Subject) -> float:
    """Seconds of the feature network and of the classifier in an evaluation."""
    spent, named = 0.0, subject.config.evaluation.features
    refuse_program(named)
    features = feature_network(named)
    if features is not None:
        some = subject.pictures[:64]
        spent += once(lambda: features(some)) / len(some) * phases.judged(subject.config, subject.data)
    learnt = phases.named(subject.config, subject.data)
    if learnt:
        few = min(learnt, LEARNT)
        learn = functools.partial(train_classifier, subject.pictures, subject.labels, CLASSES, samples=few)
        spent += once(learn) / few * learnt
    return spent


def _pass(net: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], None]:
    def passed() -> None:
        net.zero_grad(set_to_none=True)
        net(*inputs).square().mean().backward()

    return passed
