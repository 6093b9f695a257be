"""What each stage will need of one large GPU, predicted: none of the presets has been trained on one.

    GiB = 26 bytes · parameters trained + workspaces + KEPT · counted bytes of an example · micro-batch
    minutes = training FLOPs / RATE / 60

Calibrated on what was measured on one H200 (torch 2.11, bf16 networks, not compiled): stage 1 of ``imagenet-512`` took
34.9 GiB for 8 pictures and 58.8 for 16, at 147 and 168 TFLOP/s; its stage 2 34.6 GiB for 64 latents, at 162.
"""

from dataclasses import dataclass

from unilat.recipe.build import PartCost, describe
from unilat.recipe.config import RunConfig

RATE = 160e12
"""FLOPs a second of training: networks narrower than the paper's will reach less, compiled ones more."""
ROOM = 70.0
"""GiB that a stage may take of a card of 80 GB."""
STATE = 26
"""Bytes a trained parameter: weight, gradient, two moments, average (4 each), calibration's copy (4), bf16 (2)."""
WORKSPACES = 4.1
"""GiB beside them where convolutions are trained."""
KEPT = 0.71
"""Share of the bytes that float32 networks are counted to keep for the backward pass which bf16 ones did keep."""
GIB = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of one stage, on one GPU."""

    micro_batch: int
    """Of the batch, its half, its quarter …: the largest that fits."""
    gib: float
    """Peak memory of the GPU."""
    minutes: float
    """Of the stage's training alone."""


def predicted(config: RunConfig, channels: int | None = None, room: float = ROOM) -> dict[str, Prediction]:
    """``stage1``, ``prior`` where it settles, ``stage2``: what they will need where ``room`` GiB can be had."""
    parts, plan = describe(config, channels).parts, config.stage1
    networks = [name for name in ("encoder", "prior", "decoder") if name in parts]
    stages = {"stage1": (networks, plan.batch, plan.samples)}
    if plan.settle and "prior" in parts:
        stages["prior"] = (["prior"], plan.settle_batch, plan.settle)
    if config.stage2.samples and "base" in parts:
        stages["stage2"] = (["base"], config.stage2.batch, config.stage2.samples)
    found = {}
    for stage, (names, batch, samples) in stages.items():
        work = sum(parts[name].training(samples, batch) for name in names)
        trained = sum(parts[name].parameters for name in names if parts[name].trained)
        fixed = STATE * trained / GIB + (WORKSPACES if "encoder" in names else 0.0)
        each = KEPT * sum(_kept(config, name, parts[name]) for name in names) / GIB
        micro = batch
        while micro > 1 and fixed + each * micro > room:
            micro = -(-micro // 2)
        found[stage] = Prediction(micro_batch=micro, gib=fixed + each * micro, minutes=work / RATE / 60)
    return found


def _kept(config: RunConfig, name: str, part: PartCost) -> float:
    """Bytes that a network keeps for the backward pass of one example, as :func:`describe` counts those of a batch."""
    batch = config.stage2.batch if name == "base" else config.stage1.batch
    return (part.memory_mib * 2**20 - 20 * part.parameters) / batch
