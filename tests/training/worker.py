"""One process of ``torchrun``: plays ``sys.argv[1]`` in the folder ``sys.argv[2]`` and writes what it saw there."""

import gc
import json
import math
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import blocks
import safetensors.torch
import torch
from toy import Toy, fit, schedule

from unilat.maths.seeds import Draws
from unilat.training import engine, parallel
from unilat.training.micro import MicroBatch
from unilat.training.records import Step
from unilat.types import UserError


def toy(folder: Path) -> dict[str, Any]:
    """The toy by replicas, stopped and resumed, and one whose data are not finite."""
    losses = list[float]()
    stage = Toy(dropout=0.0, mixing=False)
    stage.model.into.weight.data += float(os.environ["RANK"])  # process 0 has the say

    def after_step(metrics: dict[str, float], samples: int) -> dict[str, float]:
        losses.append(metrics["loss"])
        return Toy.after_step(stage, metrics, samples)

    stage.after_step = after_step  # type: ignore[method-assign]
    plan = schedule(batch=7, samples=70)
    fit(stage, plan, folder / "run", 7, log=folder / "log.jsonl", stop_at=5)
    result = fit(stage, plan, folder / "run", 7, log=folder / "log.jsonl", stop_at=8)
    weights = {name: tensor.tolist() for name, tensor in stage.model.named_parameters()}
    seen = {
        "losses": losses,
        "batches": stage.batches,
        "weights": weights,
        "calibrated": stage.calibrated,
        "profile": stage.model.profile.tolist(),
        "step": result.step,
    }
    for shard in (False, True):
        broken = Toy(dropout=0.0, mixing=False)
        broken.data[[2, 20]] = math.inf
        told = seen[f"told-{shard}"] = list[str]()
        try:
            fit(broken, plan, folder / f"broken-{shard}", 7, shard=shard, warn=told.append)
            seen[f"error-{shard}"] = "none"
        except UserError as error:
            seen[f"error-{shard}"] = str(error)
    return seen


def stored() -> int:
    """Bytes of all tensors there are."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter) and one.device.type == "cpu":
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def replicated_and_sharded(folder: Path) -> dict[str, Any]:
    """Fifty steps by replicas and sharded; then on from the latter's twentieth, and from one process's twenty-fifth."""
    held = dict[str, int]()
    for name, shard in (("ddp", False), ("sharded", True)):
        before = stored()

        def note(record: Step, name: str = name, before: int = before) -> None:
            if record.step == 5:
                held[name] = stored() - before

        result, model = blocks.fit(folder / name, shard=shard, progress=note)
        _keep(folder / name, model, result.ema)
    if os.environ["RANK"] == "0":
        shutil.copytree(folder / "sharded" / "run" / "step-0000000020", folder / "parts" / "run" / "step-0000000020")
    torch.distributed.barrier()
    blocks.fit(folder / "parts", shard=True, stop_at=40)
    blocks.fit(folder / "alone", shard=True, stop_at=40)
    return held | {f"micro-{shard}": micro(folder / f"micro-{shard}", shard) for shard in (False, True)}


def micro(folder: Path, shard: bool) -> int:
    """Ten steps of eight in micro-batches: for replicas what fits, where process 1 has room for two rows at a time,
    sharded of three and one. The size in the end."""
    stage, rank = blocks.stage(), os.environ["RANK"]
    losses, size = stage.losses, MicroBatch(3) if shard else MicroBatch(search=True)

    def cramped(batch: tuple[torch.Tensor, ...], draws: Draws) -> Any:
        if rank == "1" and len(batch[0]) > 2 and not shard:
            raise MemoryError
        return losses(batch, draws)

    blocks.fit(folder, replace(stage, losses=cramped), blocks.plan(batch=8, samples=80), shard=shard, micro=size)
    return size.size


def further(folder: Path) -> dict[str, Any]:
    """Goes on with whatever is in the folder, sharded."""
    result, model = blocks.fit(folder, shard=True)
    _keep(folder, model, result.ema)
    return {"resumed": result.resumed}


def lost(folder: Path) -> dict[str, Any]:
    """Process 1 is killed or stopped in the seventh step; process 0 tells of it as the command line does."""
    number, shard = getattr(signal, os.environ["FAULT"]), bool(os.environ.get("SHARD"))
    parallel.TIMEOUT = timedelta(seconds=3)
    stage = blocks.stage()
    batch = stage.batch

    def make(indices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made.append(1)
        if len(made) == 7 and os.environ["RANK"] == "1":
            (folder / "fault").write_text(str(time.time()))
            os.kill(os.getpid(), number)
        return batch(indices)

    made = list[int]()
    try:
        engine.fit(replace(stage, batch=make), blocks.plan(save_every=5), folder / "run", blocks.SEED, shard=shard)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None
    return {}


def _keep(folder: Path, model: dict[str, torch.Tensor], ema: dict[str, torch.Tensor]) -> None:
    """Write this process's model and its average."""
    tensors = {f"model.{name}": t for name, t in model.items()} | {f"ema.{name}": t for name, t in ema.items()}
    safetensors.torch.save_file(tensors, folder / f"rank-{os.environ['RANK']}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    plays = {play.__name__: play for play in (toy, replicated_and_sharded, further, lost)}
    place = Path(sys.argv[2])
    found = plays[sys.argv[1]](place)
    (place / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
