"""One process of one side of ``benchmarks/processes.py``: reads counts of steps on process 0, makes them with the
others, prints seconds a step, losses and the bytes of all tensors. At the end it writes weights and averages."""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from step_worker import stage_of

from unilat.training import engine, parallel
from unilat.training.state import State


def stored() -> int:
    """Bytes of all tensors there are."""
    gc.collect()
    kept = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter):
            kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(kept.values())


def main() -> None:
    """Build the side that the one argument, JSON, asks for, and serve."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    world = parallel.join(torch.device("cpu"))
    base = stored()
    stage, plan = stage_of({"stage": 1, **spec["stage"]})
    data = stored() - base - sum(p.nbytes for p in stage.model.parameters())  # what is no weight, moment or average
    state = State(stage, plan, 0, torch.device("cpu"), world, spec["shard"])
    while True:
        asked = torch.zeros(1, dtype=torch.int64)
        if world.rank == 0:
            asked += int(sys.stdin.readline() or 0)
        if not (count := int(world.sum(asked))):
            break
        losses, begun = [], time.perf_counter()
        for _ in range(count):
            told, _ = engine._step(state, world, 0)
            losses.append(engine._after(state, told)[0]["loss"])
        seconds = (time.perf_counter() - begun) / count
        if world.rank == 0:
            answer = {"seconds": seconds, "losses": losses, "bytes": stored() - base - data}
            print(json.dumps(answer), flush=True)
    folder = Path(spec["folder"])
    state.save(folder, lambda line: None)
    tensors = {f"weights/{name}": state.laid.whole(name, part).clone() for name, part in state.laid.parts.items()}
    average = state.average()
    tensors |= {f"average/{name}": average[name].clone() for name in state.laid.parts}
    if world.rank == 0:
        safetensors.torch.save_file(tensors, folder / "whole.safetensors")


if __name__ == "__main__":
    main()
