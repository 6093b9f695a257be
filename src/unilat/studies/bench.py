"""What a run of a configuration will cost on this machine, before it is started.

Stage by stage some real steps of the engine on random pictures are timed, then each network's own forward and backward
pass, and a matrix product beside them: ``share = training FLOPs / seconds / (FLOPs a second of the matrix product)``.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unilat.nets.condition import Condition
from unilat.nets.products import times_transposed
from unilat.recipe import config as configuration
from unilat.recipe.build import build_autoencoder, build_base, describe
from unilat.recipe.config import RunConfig
from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling
from unilat.training.engine import fit
from unilat.training.machine import Manifest, manifest, peak_memory, pick_device
from unilat.training.plan import Schedule, Stage
from unilat.types import UserError

WARM, TIMED = 3, 8
"""Steps that are not counted, and steps whose median is told."""
CLASSES = 10
PICTURES = 512
"""Random pictures and latents to draw batches from."""
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


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a configuration costs on this machine."""

    machine: Manifest
    matrix_gflops: float
    """GFLOPs a second of a float32 matrix product."""
    parts: Mapping[str, PartTime]
    stages: Mapping[str, StageTime]
    """``stage1``, ``stage2``, and ``prior`` where the prior settles alone."""
    peak_mib: float
    """Of this process, or of the device where it has memory of its own."""

    @property
    def minutes(self) -> float:
        """Of all stages."""
        return sum(stage.minutes for stage in self.stages.values())

    def to_json(self) -> dict[str, object]:
        """As ``--json`` prints it."""
        return {**asdict(self), "minutes": self.minutes}


def bench(config: RunConfig, channels: int = 3, say: Say = lambda line: None, device: str = "auto") -> Timing:
    """Time ``config`` on pictures of ``channels`` channels. Seconds are medians.

    Reading pictures and the evaluation at the end are not in it. Raises :class:`UserError` for what ``unilat train``
    would refuse.
    """
    configuration.check(config)
    if channels not in (1, 3):
        raise UserError(f"`channels` must be 1 (grey) or 3 (colour), not {channels}")
    if len(config.autoencoder.encoder.patch) != 2:
        raise UserError("this configuration is for video, and only pictures are trained so far: take another one")
    place = pick_device(device)
    counted = describe(config, channels, CLASSES).parts
    torch.manual_seed(0)
    shape = (config.autoencoder.latent_channels, *configuration.latent_grid(config))
    pictures = torch.randint(0, 256, (PICTURES, channels, *config.data.size), dtype=torch.uint8)
    labels = torch.arange(PICTURES) % CLASSES
    autoencoder = build_autoencoder(config, channels).to(place)
    autoencoder.start_at_unit_scale(pictures[:64].to(place).float() / 127.5 - 1)
    base = build_base(config, [str(index) for index in range(CLASSES)]).to(place)
    say("timing the parts")
    before = _matrix_rate(place)
    passes = _parts(config, autoencoder, base, shape, channels, place)
    rate = max(before, _matrix_rate(place))
    parts: dict[str, PartTime] = {}
    for name, ms in passes.items():
        gflops = counted[name].forward_flops * 3 / 1e9
        parts[name] = PartTime(ms=ms, gflops=gflops, share=gflops / (ms / 1e3) / rate)
    stages: dict[str, StageTime] = {}
    say("timing stage 1")
    steady = replace(config.stage1, calibrate_every=10**9)  # a calibration in a few steps would weigh too much
    stage = AutoencoderStage(autoencoder, pictures, pictures[:0], steady)
    stages["stage1"] = _steps(stage.stage(), schedule(config.stage1), place)
    if config.stage1.settle and config.autoencoder.price != "normal":
        say("timing the prior alone")
        stages["prior"] = _steps(stage.settled(), settling(config.stage1), place)
    if config.stage2.samples:
        say("timing stage 2")
        frozen = base_stage(base, torch.randn(PICTURES, *shape), labels, config.stage2.levels)
        stages["stage2"] = _steps(frozen, schedule(config.stage2), place)
    machine = manifest(str(place))
    return Timing(machine=machine, matrix_gflops=rate, parts=parts, stages=stages, peak_mib=_peak(place))


def _parts(
    config: RunConfig, autoencoder: Any, base: Any, shape: tuple[int, ...], channels: int, place: torch.device
) -> dict[str, float]:
    """Milliseconds an example of each network's forward and backward pass, in batches as they are trained."""
    one, two = config.stage1.batch, config.stage2.batch
    x, z = torch.randn(one, channels, *config.data.size, device=place), torch.randn(one, *shape, device=place)
    level, latents = torch.zeros(one, device=place), torch.randn(two, *shape, device=place)
    cond = Condition(torch.zeros(two, dtype=torch.int64, device=place))
    calls: dict[str, tuple[nn.Module, tuple[Tensor | Condition, ...]]] = {"encoder": (autoencoder.encoder, (x,))}
    if config.autoencoder.price != "normal":
        calls["prior"] = (autoencoder.prior, (z, level))
    calls["decoder"] = (autoencoder.decoder, (x, level, autoencoder.condition(z)))
    if config.stage2.samples:
        calls["base"] = (base.denoise, (latents, torch.zeros(two, device=place), cond))
    return {name: 1e3 * _seconds(_pass(*call), place) / len(call[1][0]) for name, call in calls.items()}


def _pass(net: nn.Module, inputs: tuple[Tensor | Condition, ...]) -> Callable[[], None]:
    def once() -> None:
        net.zero_grad(set_to_none=True)
        net(*inputs).square().mean().backward()

    return once


def _matrix_rate(place: torch.device, side: int = 1024) -> float:
    """GFLOPs a second of a float32 matrix product, by the library that is the faster one here."""
    left, right = torch.randn(1, side, side, device=place), torch.randn(1, side, side, device=place)
    return 2 * side**3 / 1e9 / _seconds(lambda: times_transposed(left, right), place)


def _seconds(call: Callable[[], Any], place: torch.device) -> float:
    """Median seconds of a call, after some that warm up."""
    found = []
    for _ in range(WARM + TIMED):
        _wait(place)
        start = time.perf_counter()
        call()
        _wait(place)
        found.append(time.perf_counter() - start)
    return statistics.median(found[WARM:])


def _steps(stage: Stage, plan: Schedule, place: torch.device) -> StageTime:
    """Some real steps of the engine: gradients, clipping, optimiser, averaging and the log, but no checkpoint."""
    times: list[float] = []

    def note(_: object) -> None:
        _wait(place)
        times.append(time.perf_counter())

    count = WARM + TIMED
    timed = replace(plan, samples=plan.batch * (count + 1))
    with tempfile.TemporaryDirectory() as folder:
        fit(stage, timed, Path(folder), 0, progress=note, stop_at=count, device=place.type)
    step = statistics.median(after - before for before, after in zip(times[WARM - 1 :], times[WARM:], strict=False))
    minutes = math.ceil(plan.samples / plan.batch) * step / 60
    return StageTime(ms=1e3 * step, examples_per_second=plan.batch / step, minutes=minutes)


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def _peak(place: torch.device) -> float:
    """Largest memory so far in MiB: of the device where it has its own, else of the process."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place) / 2**20
    return peak_memory()
