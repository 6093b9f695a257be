"""What the fast path is worth: a step beside a plain one, FLOP rates, memory, growth with the picture, data, start.

    make bench-step                              everything, about ten minutes
    python benchmarks/step.py --blocks 2 steps   a quick look at one part

Each side is a process of its own with one thread, and only one of them works at a time: five steps warm up, then blocks
in the order A B B A, a matrix product timed before and after each block (blocks in which it moved by more than 10 % are
dropped), the median of the blocks' ratios and in brackets its bootstrap 95 % interval; n is the number of blocks kept.
Plain is what a user would write around the same networks: forward, backward, clip_grad_norm_, AdamW as it comes, an
average weight by weight. Stage 1 has --stage1.optimizer adamw and --stage1.levels fixed on both sides, for equal
losses. Random pictures.
"""

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import ROOT, Rows, row, write

WORK = ROOT / "runs" / "bench-step"
WARM = 5
OPERATORS = 6_350
"""Half of what a step of stage 1 took when each weight had its own."""
Spec = dict[str, Any]


class Side:
    """A worker process (``step_worker.py``): steps on request."""

    def __init__(self, **spec: Any) -> None:
        threads = str(spec.get("threads", 1))
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        environment |= {"PYTHONPATH": str(ROOT / "src"), **spec.get("environment", {})}
        worker = spec.get("worker", str(Path(__file__).with_name("step_worker.py")))
        command = [sys.executable, worker, json.dumps(spec)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.warm: Spec = self.run(WARM)

    def run(self, steps: int) -> Spec:
        """``seconds`` a step, ``losses``, ``growth`` of the peak memory in MiB since the imports."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended: see its message above")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def _product() -> float:
    import torch

    torch.set_num_threads(1)
    left = torch.randn(768, 768)
    found = []
    for _ in range(7):
        start = time.perf_counter()
        torch.mm(left, left)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def ratios(left: Callable[[], float], right: Callable[[], float], blocks: int) -> list[float]:
    """Seconds of ``left`` over seconds of ``right``, one number a kept block; at most three times as many are tried."""
    kept: list[float] = []
    for _ in range(3 * blocks):
        before = _product()
        a, b, c, d = left(), right(), right(), left()
        if abs(_product() / before - 1) <= 0.1:
            kept.append((a + d) / (b + c))
        if len(kept) == blocks:
            break
    return kept


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    rng = random.Random(0)
    drawn = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return drawn[50], drawn[1949]


def told(what: str, values: Sequence[float], **goal: Any) -> Rows:
    """The row of a ratio, with its interval in words."""
    if not values:
        return [row(f"{what}: no quiet block", None, "ratio", n=0, **goal)]
    low, high = interval(values)
    return [row(f"{what} [{low:.3f} to {high:.3f}]", statistics.median(values), "ratio", n=len(values), **goal)]


def pair(left: Spec, right: Spec, blocks: int, steps: int = 3) -> tuple[list[float], Side, Side]:
    """Ratios of two sides, which are closed."""
    one, other = Side(**left), Side(**right)
    found = ratios(lambda: one.run(steps)["seconds"], lambda: other.run(steps)["seconds"], blocks)
    for side in (one, other):
        side.close()
    return found, one, other


def steps(blocks: int) -> Rows:
    """Plain over ours, both stages; the losses side by side; what compiling and bf16 add."""
    rows: Rows = []
    for stage in (1, 2):
        plain, ours = Side(side="plain", stage=stage), Side(side="ours", stage=stage)
        losses = [side.warm["losses"] + side.run(20 - WARM)["losses"] for side in (plain, ours)]
        apart = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
        found = ratios(lambda p=plain: p.run(3)["seconds"], lambda o=ours: o.run(3)["seconds"], blocks)
        milliseconds = 1e3 * ours.run(3)["seconds"]
        for side in (plain, ours):
            side.close()
        rows += told(f"stage {stage} of `small`: plain step / ours", found, goal=1.3, at_least=True)
        rows += [row(f"stage {stage}: largest difference of the losses in 20 steps", apart, "of them", goal=1e-3)]
        rows += [row(f"stage {stage}: our step", milliseconds, "ms")]
        for name, choices in (("compiled", {"compile": "on"}), ("bf16", {"precision": "bf16"})):
            found, one, other = pair(
                {"side": "ours", "stage": stage}, {"side": "ours", "stage": stage, "choices": choices}, blocks
            )
            rows += told(f"stage {stage}: our step / ours {name}", found)
            if name == "compiled":
                spent = WARM * (other.warm["seconds"] - one.warm["seconds"])
                rows += [row(f"stage {stage}: compiling (cold or from the cache of this machine)", spent, "seconds")]
    muon = {"side": "ours", "stage": 1, "optimizer": "muon"}
    found, *_ = pair(muon, {"side": "ours", "stage": 1}, blocks)
    return rows + told("stage 1: our step with Muon (the default) / with AdamW", found)


def rates(blocks: int) -> Rows:
    """FLOP rate of each network's forward and backward pass over the faster matrix product's (`unilat bench`)."""
    import torch

    from unilat.nets.encoder import EncoderConfig
    from unilat.nets.uvit import UViTConfig
    from unilat.nets.vit import ViTConfig
    from unilat.recipe import presets
    from unilat.studies.bench import bench

    torch.set_num_threads(1)
    small = presets.get("small")
    wide = replace(
        small,
        autoencoder=replace(
            small.autoencoder,
            encoder=EncoderConfig(channels=(128,), blocks=(2,), strides=(), patch=(4, 4)),
            prior=ViTConfig(channels=(256,), blocks=(4,)),
            decoder=UViTConfig(channels=(128,), blocks=(2,), patch=(4, 4), width=256, depth=2),
        ),
        base=replace(small.base, vit=ViTConfig(channels=(256,), blocks=(6,))),
    )
    rows: Rows = []
    for name, config in (("small", small), ("twice as wide, patch 1", wide)):
        found = [bench(config, device="cpu") for _ in range(max(1, min(3, blocks // 3)))]
        for part, goal in (("encoder", 0.5), ("prior", 0.6), ("decoder", 0.5), ("base", 0.6)):
            share = statistics.median(one.parts[part].share for one in found)
            rows += [row(f"{name}: {part}'s FLOP rate", share, "of the product's", goal=goal, at_least=True)]
        rows += [row(f"{name}: matrix product", max(one.matrix_gflops for one in found), "GFLOP/s")]
    return rows


def memory(blocks: int) -> Rows:
    """Peak of stage 1 over a plain one's, and its time, with checkpointing: 64 pictures of 128 pixels."""
    one = {"stage": 1, "size": 128, "batch": 64}
    again = {**one, "side": "ours", "choices": {"checkpointing": True}}
    plain = {**one, "side": "plain"}
    few = max(2, blocks // 2)
    found, left, right = pair(again, plain, few, steps=1)
    kept, _, ours = pair(again, {**one, "side": "ours"}, few, steps=1)
    what = "stage 1 at 128²: ours with checkpointing"
    return [
        row(f"{what} / plain: peak memory", left.warm["growth"] / right.warm["growth"], "ratio", goal=0.6),
        *told(f"{what} / plain: time", found, goal=1.25),
        row(f"{what} / without: peak memory", left.warm["growth"] / ours.warm["growth"], "ratio"),
        *told(f"{what} / without: time", kept),
    ]


def pixels(blocks: int) -> Rows:
    """Slope of ln seconds over ln pixels of our stage 1 step, 16 pictures, 32² to 256²."""
    sizes = (32, 64, 128, 256)
    sides = [Side(side="ours", stage=1, size=size, batch=16) for size in sizes]
    rounds = [[side.run(1)["seconds"] for side in sides] for _ in range(max(3, blocks // 2))]
    for side in sides:
        side.close()
    seconds = [statistics.median(one[index] for one in rounds) for index in range(len(sizes))]
    xs, ys = [2 * math.log(size) for size in sizes], [math.log(one) for one in seconds]
    slope = statistics.linear_regression(xs, ys).slope
    rows = [row("stage 1: exponent of time in pixels, 32² to 256²", slope, "", goal=1.10)]
    return rows + [
        row(f"stage 1 at {size}²: a picture", 1e3 * one / 16, "ms") for size, one in zip(sizes, seconds, strict=True)
    ]


def data(blocks: int) -> Rows:
    """Batches picked from uint8 pictures and brought to [-1, 1], over one batch that lies there already."""
    found, *_ = pair({"side": "ours", "stage": 1}, {"side": "ours", "stage": 1, "resident": True}, blocks)
    return told("stage 1: step with data / with a resident batch", found, goal=1.02)


def operators(blocks: int) -> Rows:
    """Calls of torch's operators in one warm step with everything on, as its profiler counts them; one thread."""
    import torch
    from step_worker import events

    torch.set_num_threads(1)
    rows: Rows = []
    for stage, spec in ((1, {"optimizer": "muon", "levels": "learned"}), (2, {})):
        goal: Spec = {"goal": OPERATORS} if stage == 1 else {}
        what = f"stage {stage} of `small`: operator calls a step"
        rows += [row(what, events({"side": "ours", "stage": stage, **spec}), "calls", **goal)]
    return rows


def shared(blocks: int) -> Rows:
    """Two threads with the waiting that `unilat` chooses beside the one that torch comes with, alone on the machine and
    beside two processes that are always busy; A B B A, and no block dropped beside them."""
    from unilat.cli.waiting import chosen

    one = {"side": "ours", "stage": 1, "optimizer": "muon", "levels": "learned", "threads": 2}
    before, ours = Side(**one), Side(**one, environment=chosen())
    quiet = ratios(lambda: before.run(3)["seconds"], lambda: ours.run(3)["seconds"], blocks)
    ours.close()
    rows = told("two threads, alone: waiting as torch does / as chosen", quiet, goal=0.98, at_least=True)
    with busy(2):
        ours = Side(**one, environment=chosen())
        times = [(before.run(1)["seconds"], ours.run(3)["seconds"]) for _ in range(blocks)]
    for side in (before, ours):
        side.close()
    slow, fast = (32 / statistics.median(each) for each in zip(*times, strict=True))
    found = [a / b for a, b in times]
    rows += told(
        "two threads beside two busy processes: waiting as torch does / as chosen", found, goal=4.0, at_least=True
    )
    return [
        *rows,
        row("as torch does, beside them", slow, "pictures/s"),
        row("as chosen, beside them", fast, "pictures/s"),
    ]


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end, while the context lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start(blocks: int) -> Rows:
    """Seconds of a new process, over one that imports torch."""

    def seconds(*words: str) -> float:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    seconds("-c", "import unilat, torch")
    rows: Rows = []
    for what, words in (("import unilat", ("-c", "import unilat")), ("unilat --help", ("-m", "unilat", "--help"))):
        found = ratios(lambda w=words: seconds(*w), lambda: seconds("-c", "import torch"), blocks)
        rows += told(f"`{what}` / `import torch`", found, goal=1.2)
    return rows


PARTS: dict[str, Callable[[int], Rows]] = {
    "steps": steps, "operators": operators, "rates": rates, "memory": memory, "pixels": pixels, "data": data,
    "shared": shared, "start": start,
}  # fmt: skip


def main() -> None:
    """Measure the parts that are named, all by default, and write what there is of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--blocks", type=int, default=10)
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    for part in options.part or PARTS:
        begun = time.perf_counter()
        found = PARTS[part](options.blocks)
        print(f"{part}: {time.perf_counter() - begun:.0f} s", flush=True)
        for one in found:
            print("  ", one["what"], one["value"], one["unit"], one["goal"] or "", one["holds"], flush=True)
        (WORK / f"{part}.json").write_text(json.dumps(found), "utf-8")
    paths = [WORK / f"{part}.json" for part in PARTS]
    rows = [one for path in paths if path.is_file() for one in json.loads(path.read_text("utf-8"))]
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    print(write("step", protocol, rows).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
