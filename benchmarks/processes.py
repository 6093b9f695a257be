"""What several processes are worth, and how near they stay to one: two of gloo on this machine's two cores.

    make bench-processes              everything, about ten minutes
    python benchmarks/processes.py --blocks 2

Stage 1 of `small`, random pictures of 32², batch 32. Agreement: 50 steps of one process with one thread beside 50 of
two, by replicas (DDP) and sharded (FSDP2), with AdamW; Muon, the default, makes rounding grow a thousandfold in 50
steps, so that its rows stand beside one process of two threads instead. Speed, with Muon: blocks of three steps in the
order A B B A, one process of two threads beside two of one thread, a matrix product timed before and after
each block (those in which it moved by more than 10 % are dropped), the median of the blocks' ratios and in brackets its
bootstrap 95 % interval. Memory: bytes of all tensors of a process between two steps, less its pictures.
"""

import argparse
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from common import ROOT, Rows, row, write
from step import ratios, told
from torch import Tensor

from unilat.training import checkpoint

WORK = ROOT / "runs" / "bench-processes"
STEPS = 50
MUON = {"optimizer": "muon"}


class Side:
    """One process or two (``processes_worker.py``): steps on request."""

    def __init__(self, name: str, processes: int, threads: int, shard: bool = False, **stage: Any) -> None:
        self.folder = WORK / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT / "src")}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
        spec = json.dumps({"threads": threads, "shard": shard, "folder": str(self.folder), "stage": stage})
        command = [sys.executable, str(Path(__file__).with_name("processes_worker.py")), spec]
        pipes = [{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}] + [{"stdin": subprocess.DEVNULL}] * processes
        self.processes = [
            subprocess.Popen(command, text=True, env=environment | {"RANK": str(rank)}, **pipes[rank])
            for rank in range(processes)
        ]

    def run(self, steps: int) -> dict[str, Any]:
        """``seconds`` a step, ``losses``, ``bytes`` of all tensors of process 0."""
        first = self.processes[0]
        assert first.stdin is not None and first.stdout is not None
        first.stdin.write(f"{steps}\n")
        first.stdin.flush()
        line = first.stdout.readline()
        if not line:
            raise SystemExit("a worker ended: see its message above")
        return json.loads(line)

    def close(self) -> dict[str, Tensor]:
        """All weights and averages in the end."""
        assert self.processes[0].stdin is not None
        self.processes[0].stdin.close()
        for process in self.processes:
            if process.wait():
                raise SystemExit("a worker ended: see its message above")
        return safetensors.torch.load_file(self.folder / "whole.safetensors")


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest difference of two numbers in the same place."""
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


def agreement() -> Rows:
    """Losses and weights of two processes beside one; what each holds; a checkpoint of two read by one."""
    rows: Rows = []
    ways = {"DDP": Side("ddp", 2, 1), "FSDP2": Side("fsdp2", 2, 1, shard=True), "one": Side("one", 1, 1)}
    found, ends = _fifty(ways)
    for name, what in (("DDP", "two replicas (DDP)"), ("FSDP2", "two sharded (FSDP2)")):
        losses, weights = _apart(found, ends, name)
        rows += [row(f"AdamW, {what} beside one: losses apart at most", losses, "nats", goal=1e-5, n=STEPS)]
        rows += [row(f"AdamW, {what} beside one: weights and averages apart at most", weights, "", goal=1e-4, n=STEPS)]
    read = checkpoint.load(ways["FSDP2"].folder)
    assert read is not None
    model = {f"weights/{name}": tensor for name, tensor in read.tensors["model"].items()}
    shown = {name: ends["FSDP2"][name] for name in model if name in ends["FSDP2"]}
    rows += [row("a checkpoint of two sharded, read by one: numbers apart at most", apart(shown, model), "", goal=0.0)]
    share = found["FSDP2"]["bytes"] / found["DDP"]["bytes"]
    rows += [row("weights, gradients, moments, averages of a process: sharded / replicas", share, "ratio", goal=0.6)]
    rows += [row("the same of replicas", found["DDP"]["bytes"] / 2**20, "MiB")]
    muon = {"DDP": Side("ddp", 2, 1, **MUON), "threads": Side("two", 1, 2, **MUON), "one": Side("one", 1, 1, **MUON)}
    found, ends = _fifty(muon)
    for name, what in (("DDP", "two replicas (DDP)"), ("threads", "one process of two threads, rounding alone,")):
        losses, weights = _apart(found, ends, name)
        rows += [row(f"Muon (the default), {what} beside one of one: losses apart at most", losses, "nats", n=STEPS)]
        rows += [row(f"Muon, {what} beside one of one: weights and averages apart at most", weights, "", n=STEPS)]
    return rows


def _fifty(sides: Mapping[str, Side]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Tensor]]]:
    found = {name: side.run(STEPS) for name, side in sides.items()}
    return found, {name: side.close() for name, side in sides.items()}


def _apart(
    found: Mapping[str, Mapping[str, Any]], ends: Mapping[str, Mapping[str, Tensor]], name: str
) -> tuple[float, float]:
    """Largest difference from "one" of a loss in all steps, and of a number in the end."""
    pairs = zip(found[name]["losses"], found["one"]["losses"], strict=True)
    return max(abs(ours - alone) for ours, alone in pairs), apart(ends[name], ends["one"])


def speed(blocks: int) -> Rows:
    """Pictures a second of two processes over those of one."""
    rows: Rows = []
    alone = Side("alone", 1, 2, **MUON)
    for name, shard in (("replicas", False), ("sharded", True)):
        both = Side(name, 2, 1, shard, **MUON)
        for side in (alone, both):
            side.run(5)
        one, two = alone.run(3)["seconds"], both.run(3)["seconds"]
        found = ratios(lambda: alone.run(3)["seconds"], lambda both=both: both.run(3)["seconds"], blocks)
        both.close()
        goal = {} if shard else {"goal": 0.95, "at_least": True}
        rows += told(f"two {name} × 1 thread / one process × 2 threads: pictures a second", found, **goal)
        rows += [row(f"a step of two {name} × 1 thread", 1e3 * two, "ms"), row("of one × 2 threads", 1e3 * one, "ms")]
    alone.close()
    return rows


def main() -> None:
    """Measure and write benchmarks/results/processes.json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15)
    blocks = parser.parse_args().blocks
    rows = agreement() + speed(blocks)
    assert all(one["value"] is None or math.isfinite(one["value"]) for one in rows)
    protocol = " ".join(str(__doc__).split("\n\n")[2].split())
    print(write("processes", protocol, rows).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
