"""Results made by hand, for the tests of what reads them."""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from unilat import results
from unilat.recipe.build import Description, PartCost
from unilat.results import Bits, Classifier, Costs, Distance, Number, Phase, Reconstruction, Results
from unilat.training.machine import Manifest
from unilat.training.records import Fitted, Step


def number(value: float, stderr: float | None = None, n: int | None = None, protocol: str = "") -> Number:
    """A number without a unit."""
    return Number(value=value, stderr=stderr, n=n, protocol=protocol)


def distance(kernel: float, frechet64: float = math.nan) -> Distance:
    """Both distances, without errors."""
    return Distance(kernel=number(kernel), frechet64=number(frechet64))


def shares(samples: float, real: float = 1.0, *, stderr: float | None = None, n: int | None = None) -> Classifier:
    """What a classifier names; ``stderr`` and ``n`` are those of the samples."""
    return Classifier(samples=number(samples, stderr, n), real=number(real))


def measured(
    bits: float = 0.2,
    *,
    target: float | None = 0.3,
    base_bits: float | None = None,
    psnr: Number | float = 20.0,
    near: Distance | float | None = 0.5,
    generation: Distance | float | None = None,
    classifier: Classifier | None = None,
    flops: float = 0.0,
    phases: tuple[Phase, ...] = (),
    stderr: float | None = None,
    n: int | None = None,
) -> Results:
    """What a benchmark reads of a run; ``near`` is the reconstructions' distance. Decoder and base take ``flops``
    more."""
    near, generation = (distance(one) if isinstance(one, float | int) else one for one in (near, generation))
    parts = ("encoder", "prior", "decoder", "base")
    work = {"encoder": 1e15, "prior": 2e15, "decoder": 4e15 + flops, "base": 8e15 + flops}
    decibels = psnr if isinstance(psnr, Number) else number(psnr)
    return Results(
        pictures="held out",
        features=None,
        bits=Bits(target=target, measured=number(bits, stderr, n)),
        base_bits=None if base_bits is None else number(base_bits),
        reconstruction=Reconstruction(steps=2, psnr=decibels, ssim=number(0.5), distance=near),
        generation=generation,
        classifier=classifier,
        costs=Costs(parameters=dict.fromkeys(parts, 5), training_flops=work, phases=phases),
    )


def written(folder: Path, found: Results) -> None:
    """``metrics.json`` of a run that holds nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "metrics.json", found)


def step(stage: str, done: int, steps: int, **given: Any) -> Step:
    """The record of a step of 10 samples, one a second but for what is ``given``."""
    usual: dict[str, Any] = {"samples": 10 * done, "loss": 0.5, "samples_per_second": 10.0, "seconds": float(done)}
    usual["seconds_left"] = float(steps - done)
    return Step(stage=stage, step=done, steps=steps, **usual | given)


def fitted(ema: dict[str, Tensor], samples: int = 0, seconds: float = 0.0) -> Fitted:
    """What a fit that made no step returns, with these averaged weights."""
    return Fitted(stage="", step=0, steps=0, samples=samples, seconds=seconds, resumed=0, metrics={}, ema=ema)


def machine(threads: int = 1, device: str = "cpu") -> Manifest:
    """A machine that is none."""
    nothing = {"unilat": "1", "torch": "2", "python": "3", "cpu": "a processor", "flags": "0" * 16, "capability": ""}
    nothing["waiting"] = "default"
    return Manifest(**nothing, threads=threads, device=device, date="2026-11-26T12:00:00+00:00", commit=None)


def cost_of(
    parameters: int = 1,
    forward_flops: int = 2,
    training_flops: int = 3,
    memory_mib: float = 4.0,
    example_flops: int = 5,
    step_flops: int = 6,
    muon_flops: int = 0,
) -> PartCost:
    """What a network that is none costs."""
    return PartCost(
        parameters=parameters,
        forward_flops=forward_flops,
        training_flops=training_flops,
        memory_mib=memory_mib,
        example_flops=example_flops,
        step_flops=step_flops,
        muon_flops=muon_flops,
    )


def described(parts: dict[str, PartCost]) -> Description:
    """These parts, and shapes of other numbers each."""
    return Description(latent=(4, 7, 8), picture=(3, 31, 32), capacity_bpp=1.8125, parts=parts)
