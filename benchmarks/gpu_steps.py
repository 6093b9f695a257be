"""Steps of a preset's stages on one device, as ``gpu.py`` times them, and the memory of a whole batch."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

BATCHES = {
    "imagenet-512": {"stage 1": (8, 16), "stage 2": (32, 64)},
    "photo-256": {"stage 1": (16, 16), "settling": (128, 128), "stage 2": (128, 128)},
    "photo-128": {"stage 1": (32, 32), "settling": (128, 128), "stage 2": (128, 128)},
    "photo-64": {"stage 1": (64, 64), "settling": (128, 128), "stage 2": (128, 128)},
}
"""Batches, plain and chosen, where the preset's own is more than a GPU holds at once, or would make eight minutes ten:
the rate of large networks hardly depends on it."""
WARM, LEAST, MOST, SECONDS = 6, 3, 100, 2.0
"""Steps that warm up; steps timed, at least and at most, and after how many seconds no more are begun."""
PICTURES, CLASSES = 512, 10
SIDE = 8192


@dataclass(frozen=True)
class Place:
    """Where a part is measured, and at which size: the presets as they are, or ``tiny`` in their place."""

    device: str
    tiny: bool
    work: Path
    """Where the parts leave their rows."""

    def config(self, name: str) -> Any:
        """A preset's configuration."""
        from unilat.recipe import presets

        small = replace(presets.get("tiny"), stage1=replace(presets.get("tiny").stage1, settle=640))
        return small if self.tiny else presets.get(name)

    def wait(self) -> None:
        """Until the device has done what was asked of it."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """Largest memory since the last :meth:`forget`, GiB."""
        import torch

        return torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0.0

    def forget(self) -> None:
        """Give back what is free."""
        import torch

        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def torch_device(place: Place) -> Any:
    """The same as torch has it."""
    import torch

    return torch.device(place.device)


class Done(Exception):
    """Enough steps: ends a fit before it saves."""


class Clock:
    """Counts steps: ``first`` seconds to the end of the first, ``step`` seconds of one after the warm ones."""

    def __init__(self, place: Place, most: int):
        self.place, self.most, self.count = place, most, 0
        self.begun = self.start = time.perf_counter()
        self.first = self.step = 0.0

    def __call__(self, told: object) -> None:
        self.count += 1
        timed = self.count - WARM
        enough = timed >= self.most or (timed >= LEAST and time.perf_counter() - self.start > SECONDS)
        if self.count in (1, WARM) or enough:
            self.place.wait()
        now = time.perf_counter()
        if self.count == 1:
            self.first = now - self.begun
        if self.count == WARM:
            self.start = now
        if enough:
            self.step = (now - self.start) / timed
            raise Done


def product_rate(place: Place) -> float:
    """FLOPs a second of a matrix product in bf16."""
    import torch

    side = 256 if place.tiny else SIDE
    left = torch.randn(side, side, device=place.device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(12):
        place.wait()
        start = time.perf_counter()
        torch.mm(left, left)
        place.wait()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[2:])


def stages(config: Any, place: Place) -> Iterator[tuple[str, Any, Any, Callable[[int, int], float], float]]:
    """``(name, stage, schedule, work, FLOPs of all)`` of each stage of a configuration; ``work(examples, batch)`` are
    the FLOPs of so many examples in steps of so many, Muon's products among them."""
    import torch

    from unilat.recipe import config as configuration
    from unilat.recipe.build import build_autoencoder, build_base, describe
    from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling

    torch.manual_seed(0)
    parts = describe(config, 3, CLASSES).parts

    def work(*names: str) -> Callable[[int, int], float]:
        return lambda examples, batch: float(sum(parts[name].training(examples, batch) for name in names))

    pictures = torch.randint(0, 256, (PICTURES, 3, *config.data.size), dtype=torch.uint8)
    autoencoder = build_autoencoder(config, 3).to(place.device)
    autoencoder.start_at_unit_scale(pictures[:16].to(place.device).float() / 127.5 - 1)
    steady = replace(config.stage1, calibrate_every=10**9)
    stage = AutoencoderStage(autoencoder, pictures, pictures[:0], steady)
    one, plan = work("encoder", "prior", "decoder"), schedule(config.stage1)
    yield "stage 1", stage.stage(), plan, one, one(plan.samples, plan.batch)
    if config.stage1.settle:
        plan, one = settling(config.stage1), work("prior")
        yield "settling", stage.settled(), plan, one, one(plan.samples, plan.batch)
    base = build_base(config, [str(index) for index in range(CLASSES)])
    z = torch.randn(PICTURES, config.autoencoder.latent_channels, *configuration.latent_grid(config))
    frozen = base_stage(base, z, torch.arange(PICTURES) % CLASSES, config.stage2.levels)
    plan, one = schedule(config.stage2), work("base")
    yield "stage 2", frozen, plan, one, one(plan.samples, plan.batch)


def steps(stage: Any, plan: Any, whole: float, choices: Any, place: Place, micro: int = 0) -> dict[str, Any]:
    """Steps of a stage as ``choices`` say: batch, seconds of one and to the end of the first, memory, the choice.

    ``micro``: examples computed at a time, all by default.
    """
    from unilat.training.capture import captures
    from unilat.training.engine import fit
    from unilat.training.fast import applied, compiles, line, resolved
    from unilat.training.micro import MicroBatch
    from unilat.types import UserError

    device = torch_device(place)
    choices = resolved(choices, device)
    compiled, why = compiles(choices, whole, device)
    capture, of_capture = captures(choices, stage, plan, whole, device)
    batch, count = plan.batch, 3 if place.tiny else MOST
    while True:
        timed = replace(plan, batch=batch, samples=batch * (WARM + count + 1), warmup=0)
        place.forget()
        clock = Clock(place, count)
        try:
            with applied(stage.model, choices, compiled, device), tempfile.TemporaryDirectory() as folder:
                machine = {"device": place.device, "capture": capture, "micro": MicroBatch(micro)}
                fit(stage, timed, Path(folder), 0, progress=clock, **machine)
        except Done:
            said = line(choices, compiled, f"{of_capture}, {why}" if of_capture else why, device)
            found = {"batch": batch, "step": clock.step, "first": clock.first, "gib": place.peak(), "line": said}
            print(f"  {stage.name}: {1e3 * clock.step:.1f} ms, {said}", flush=True)
            return found
        except UserError as error:  # memory ends
            print(f"  {stage.name}: {error}", flush=True)
            if batch == 1:
                raise
            batch //= 2


def ahead(name: str, stage_name: str, place: Place) -> float:
    """Compile the blocks of a stage as it will be timed, into the cache on disk; seconds to the end of a first step."""
    from unilat.training.engine import fit
    from unilat.training.fast import Choices, applied, compiles, resolved
    from unilat.training.micro import MicroBatch

    def ended(told: object) -> None:
        place.wait()
        raise Done

    device = torch_device(place)
    for found, stage, plan, _, whole in stages(place.config(name), place):
        if found != stage_name:
            continue
        choices, begun = resolved(Choices(), device), time.perf_counter()
        batch = plan.batch if place.tiny else BATCHES[name][found][1]
        plan = replace(plan, batch=batch, samples=2 * batch, warmup=0)
        with (
            contextlib.suppress(Done),
            applied(stage.model, choices, compiles(choices, whole, device)[0], device),
            tempfile.TemporaryDirectory() as folder,
        ):
            fit(stage, plan, Path(folder), 0, progress=ended, device=place.device, micro=MicroBatch())
        return time.perf_counter() - begun
    raise ValueError(f"{name} has no {stage_name}")


def own_batch(place: Place) -> float:
    """GiB that a step of stage 1 takes at the preset's own batch, in micro-batches that are found to fit."""
    from unilat.training.engine import fit
    from unilat.training.fast import Choices, applied
    from unilat.training.micro import MicroBatch

    _, stage, plan, _, _ = next(stages(place.config("imagenet-512"), place))
    micro = MicroBatch(search=True, found=lambda size: print(f"  micro-batches of {size}", flush=True))

    def progress(told: object) -> None:
        place.wait()  # sizes that did not fit were forgotten when the next was tried
        raise Done

    chosen, device = Choices(), torch_device(place)
    with (
        contextlib.suppress(Done),
        applied(stage.model, chosen, False, device),
        tempfile.TemporaryDirectory() as folder,
    ):
        fit(stage, plan, Path(folder), 0, progress=progress, device=place.device, micro=micro)
    return place.peak()
