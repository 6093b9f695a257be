"""What one GPU makes of it: steps of the presets, plain and as chosen, glyphs by phase, bits in bf16, resuming.

    make bench-gpu                     everything, at most eight minutes on one H100 or H200; needs no network
    make bench-gpu ARGS="small bits"   some parts anew; the others' rows are kept
    make bench-gpu ARGS=--rehearse     the same calls on a CPU, on tiny networks: its rows are complete and unmeasured

Every part is a process of its own that ends at its limit; what it has not measured by then is told as not measured.
Steps are the engine's own (`fit`) on random pictures in memory: six warm up, the next are timed together, without
waiting between them beyond what the engine waits for. FLOPs as `describe` counts them, three times a forward pass;
their rate is told over that of a bf16 matrix product of 8192 x 8192, measured in the same process. Plain is
`--precision float32 --no-compile --capture off`; chosen is what `unilat train` takes by itself for the preset's
whole length. Where memory ends, half the batch is tried. Without a GPU it says so and writes nothing.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import ROOT, Rows, row, write

WORK = ROOT / "runs" / "bench-gpu"
BUDGET = 465.0
"""Seconds of all parts."""
LIMITS = {
    "small": 60.0, "imagenet-512": 150.0, "glyphs": 100.0, "bits": 40.0, "resume": 40.0, "photo-256": 70.0,
    "photo-128": 50.0, "photo-64": 40.0,
}  # fmt: skip
"""Seconds of each part, in the order in which they are worth having."""
STAGES = ("stage 1", "settling", "stage 2")
BATCHES = {"imagenet-512": {"stage 1": (8, 16), "stage 2": (32, 64)}}
"""Batches, plain and chosen, where the preset's own is more than a GPU holds at once; rates do not depend on it."""
WARM, LEAST, MOST, SECONDS = 6, 3, 100, 2.0
"""Steps that warm up; steps timed, at least and at most, and after how many seconds no more are begun."""
PICTURES, CLASSES = 512, 10
SIDE = 8192
GOALS: dict[str, dict[str, Any]] = {
    "small, stage 1: a step, chosen": {"goal": 6.0},
    "small, settling: an example, plain / chosen": {"goal": 8.0, "at_least": True},
    "small, stage 2: an example, plain / chosen": {"goal": 8.0, "at_least": True},
    "imagenet-512, stage 1: share of the bf16 product's rate, chosen": {"goal": 0.40, "at_least": True},
    "imagenet-512, stage 2: share of the bf16 product's rate, chosen": {"goal": 0.50, "at_least": True},
    "imagenet-512, stage 1 at its own batch: peak memory": {"goal": 70.0},
    "`unilat train glyphs`: all": {"goal": 45.0},
    "bits in bf16 networks / in float32 - 1": {"goal": (-0.005, 0.005)},
    "resumed, deterministic: share of weights that are not bitwise the unbroken run's": {"goal": 0.0},
    "resumed, as chosen: loss / the unbroken run's - 1": {"goal": (-1e-3, 1e-3)},
}


@dataclass(frozen=True)
class Place:
    """Where a part is measured, and at which size: the presets as they are, or ``tiny`` in their place."""

    device: str
    tiny: bool

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


def stages(config: Any, place: Place) -> Iterator[tuple[str, Any, Any, float, float]]:
    """``(name, stage, schedule, FLOPs an example, FLOPs of all)`` of each stage of a configuration."""
    import torch

    from unilat.recipe import config as configuration
    from unilat.recipe.build import build_autoencoder, build_base, describe
    from unilat.run.stages import AutoencoderStage, base_stage, schedule, settling

    torch.manual_seed(0)
    parts = describe(config, 3, CLASSES).parts
    flops = {name: 3.0 * part.forward_flops for name, part in parts.items()}
    pictures = torch.randint(0, 256, (PICTURES, 3, *config.data.size), dtype=torch.uint8)
    autoencoder = build_autoencoder(config, 3).to(place.device)
    autoencoder.start_at_unit_scale(pictures[:16].to(place.device).float() / 127.5 - 1)
    steady = replace(config.stage1, calibrate_every=10**9)
    stage = AutoencoderStage(autoencoder, pictures, pictures[:0], steady)
    one = sum(flops[name] for name in ("encoder", "prior", "decoder"))
    yield "stage 1", stage.stage(), schedule(config.stage1), one, one * config.stage1.samples
    if config.stage1.settle:
        plan = settling(config.stage1)
        yield "settling", stage.settled(), plan, flops["prior"], flops["prior"] * plan.samples
    base = build_base(config, [str(index) for index in range(CLASSES)])
    z = torch.randn(PICTURES, config.autoencoder.latent_channels, *configuration.latent_grid(config))
    frozen = base_stage(base, z, torch.arange(PICTURES) % CLASSES, config.stage2.levels)
    yield "stage 2", frozen, schedule(config.stage2), flops["base"], flops["base"] * config.stage2.samples


def steps(stage: Any, plan: Any, whole: float, choices: Any, place: Place) -> dict[str, Any]:
    """Steps of a stage as ``choices`` say: batch, seconds of one and to the end of the first, memory, the choice."""
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
                machine = {"device": place.device, "capture": capture, "micro": MicroBatch()}
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


def measure_preset(name: str, place: Place) -> Rows:
    """All rows of one preset."""
    from unilat.training.fast import Choices

    rate, rows = product_rate(place), Rows()
    rows.append(told(f"{name}: bf16 matrix product", rate / 1e12, "TFLOP/s"))
    plain = Choices(precision="float32", compile="off", capture="off")
    for stage_name, stage, plan, flops, whole in stages(place.config(name), place):
        batches = BATCHES.get(name, {}).get(stage_name, (plan.batch, plan.batch))
        batches = (plan.batch, plan.batch) if place.tiny else batches
        sides = {}
        for side, choices, batch in zip(("plain", "chosen"), (plain, Choices()), batches, strict=True):
            sides[side] = steps(stage, replace(plan, batch=batch), whole, choices, place)
        rows += preset_rows(f"{name}, {stage_name}", sides, flops, rate)
    if name == "imagenet-512":
        rows.append(told(f"{name}, stage 1 at its own batch: peak memory", own_batch(place), "GiB"))
    return rows


def own_batch(place: Place) -> float:
    """GiB that a step of stage 1 takes at the preset's own batch, in micro-batches that are found to fit."""
    from unilat.training.engine import fit
    from unilat.training.fast import Choices, applied
    from unilat.training.micro import MicroBatch

    _, stage, plan, _, _ = next(stages(place.config("imagenet-512"), place))
    micro, count = MicroBatch(search=True, found=lambda size: print(f"  micro-batches of {size}", flush=True)), [0]

    def progress(told: object) -> None:
        count[0] += 1
        place.wait()
        if count[0] == 2:
            raise Done
        place.forget()  # of the first step, which has tried what fits

    chosen, device = Choices(), torch_device(place)
    with (
        contextlib.suppress(Done),
        applied(stage.model, chosen, False, device),
        tempfile.TemporaryDirectory() as folder,
    ):
        fit(stage, plan, Path(folder), 0, progress=progress, device=place.device, micro=micro)
    return place.peak()


def preset_rows(what: str, sides: dict[str, dict[str, Any]], flops: float, rate: float) -> Rows:
    """Rows of one stage: ``flops`` an example, ``rate`` of the bf16 product."""
    rows, each = Rows(), {side: found["step"] / found["batch"] for side, found in sides.items()}
    for side, found in sides.items():
        rows.append(told(f"{what}: a step, {side}", 1e3 * found["step"], "ms"))
        rows.append(told(f"{what}: batch of it, {side}", found["batch"], "examples"))
        rows.append(told(f"{what}: rate, {side}", flops / each[side] / 1e12, "TFLOP/s"))
        rows.append(told(f"{what}: share of the bf16 product's rate, {side}", flops / each[side] / rate, "of it"))
        rows.append(told(f"{what}: peak memory, {side}", found["gib"], "GiB"))
    rows.append(told(f"{what}: an example, plain / chosen", each["plain"] / each["chosen"], "ratio"))
    rows.append(told(f"{what}: until the first step is done, chosen", sides["chosen"]["first"], "seconds"))
    return rows


def told(what: str, value: float | None, unit: str) -> dict[str, Any]:
    """A row with the goal that it has."""
    return row(what, value, unit, **GOALS.get(what, {}))


def run_glyphs(place: Place) -> Path:
    """The finished run of ``unilat train glyphs``, by the command line, and beside it ``wall.txt``, its seconds."""
    folder = WORK / ("glyphs-rehearsed" if place.tiny else "glyphs")
    if not (folder / "report.html").is_file():
        words = ["train", "glyphs", "--out", str(folder)]
        if place.tiny:
            words += (
                "--preset tiny --data.at-most 120 --stage1.samples 320 --stage1.settle 64 --stage2.samples 64".split()
            )
        begun = time.perf_counter()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        }
        subprocess.run([sys.executable, "-m", "unilat", *words], env=environment, check=True, stdout=sys.stderr)
        (folder / "wall.txt").write_text(str(time.perf_counter() - begun))
    return folder


def measure_glyphs(place: Place) -> Rows:
    """Seconds of `unilat train glyphs` with its defaults, by phase and in all."""
    import shutil

    shutil.rmtree(WORK / ("glyphs-rehearsed" if place.tiny else "glyphs"), ignore_errors=True)
    folder = run_glyphs(place)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    loops = {line["stage"]: line["seconds"] for line in lines}
    phases = {one["name"]: one["seconds"] for one in json.loads((folder / "phases.json").read_text("utf-8"))}
    return glyphs_rows(phases, loops, float((folder / "wall.txt").read_text()))


def glyphs_rows(phases: dict[str, float], loops: dict[str, float], wall: float) -> Rows:
    """Rows of a run whose phases and loops took so many seconds; `all` is the command, imports among it."""
    rows = [told(f"`unilat train glyphs`: {name}", seconds, "seconds") for name, seconds in phases.items()]
    rows += [told(f"`unilat train glyphs`: loop of {name}", seconds, "seconds") for name, seconds in loops.items()]
    return [*rows, told("`unilat train glyphs`: all", wall, "seconds")]


def measure_bits(place: Place) -> Rows:
    """Bits of held-out glyphs through one trained run's networks, computed in bf16 and in float32."""
    import unilat

    run = unilat.load(run_glyphs(place), device=place.device)
    return bits_rows(*bits_of(run))


def bits_of(run: Any, levels: int = 8) -> tuple[float, float]:
    """Mean bits per pixel of a run's held-out pictures, with its networks in bf16 and in float32; the same noise."""
    import torch

    from unilat.maths.rate import LN2
    from unilat.run.evaluate import held_out
    from unilat.training.fast import set_parts

    test, _ = held_out(run)
    found = []
    for precision in (torch.bfloat16, torch.float32):
        set_parts(run.autoencoder, precision, False)
        z, entropy = run.encoded(test)
        nats = torch.stack([terms.nats() for terms in run.rate(z, levels, entropy=entropy)])
        found.append(float(nats.double().mean()) / run.pixels / LN2)
    return found[0], found[1]


def bits_rows(low: float, full: float) -> Rows:
    """Rows of bits per pixel in bf16 and in float32."""
    return [
        told("bits in float32 networks", full, "bits per pixel"),
        told("bits in bf16 networks", low, "bits per pixel"),
        told("bits in bf16 networks / in float32 - 1", low / full - 1, "of them"),
    ]


def measure_resume(place: Place) -> Rows:
    """Stage 1 of `small`, 40 steps, unbroken and stopped after 20: bits under deterministic, the loss as chosen."""
    from unilat.training.fast import Choices

    found = []
    for choices in (Choices(deterministic=True), Choices()):
        ends = [resumed(place, choices, stops) for stops in ([None], [0.5, None])]
        differ = sum(int((ends[0].ema[name] != value).sum()) for name, value in ends[1].ema.items())
        count = sum(value.numel() for value in ends[1].ema.values())
        found.append((differ / count, ends[1].metrics["loss"] / ends[0].metrics["loss"] - 1))
    return resume_rows(found[0][0], found[1][1])


def resumed(place: Place, choices: Any, stops: list[float | None]) -> Any:
    """The last of some fits on one folder, each up to a share of the steps."""
    from unilat.training.capture import captures
    from unilat.training.engine import fit
    from unilat.training.fast import applied, resolved

    device, count = torch_device(place), 6 if place.tiny else 40
    choices, done = resolved(choices, device), None
    with tempfile.TemporaryDirectory() as folder:
        for stop in stops:
            _, stage, plan, flops, _ = next(stages(place.config("small"), place))
            plan = replace(plan, samples=plan.batch * count)
            capture, _ = captures(choices, stage, plan, flops * plan.samples, device)
            with applied(stage.model, choices, False, device):
                end = None if stop is None else round(stop * count)
                done = fit(stage, plan, Path(folder), 0, stop_at=end, device=place.device, capture=capture)
    return done


def resume_rows(differ: float, loss: float) -> Rows:
    """Rows of the share of weights that differ under deterministic, and of the last loss as chosen."""
    return [
        told("resumed, deterministic: share of weights that are not bitwise the unbroken run's", differ, "of them"),
        told("resumed, as chosen: loss / the unbroken run's - 1", loss, "of it"),
    ]


def apart() -> Rows:
    """What the issue asks for and eight minutes without pictures cannot show."""
    what = "photo-256 trained for minutes on colour pictures, a report that one would show"
    return [row(f"{what}: not measured (it needs pictures, and minutes beside these)", None, "")]


def measure(part: str, place: Place) -> Rows:
    """The rows of one part."""
    others: dict[str, Callable[[Place], Rows]] = {
        "glyphs": measure_glyphs, "bits": measure_bits, "resume": measure_resume,
    }  # fmt: skip
    return others[part](place) if part in others else measure_preset(part, place)


def unmeasured(part: str, why: str) -> Rows:
    """What stands in the file for a part that was not measured: its goals, without values."""
    names = [name for name in GOALS if name.startswith(PREFIXES.get(part, f"{part},"))]
    rows = [told(name, None, "") for name in names] or [row(f"{part}: all its rows", None, "")]
    return [{**one, "what": f"{one['what']}: not measured ({why})"} for one in rows]


PREFIXES = {"glyphs": "`unilat train glyphs`", "bits": "bits in bf16", "resume": "resumed"}


def run_part(part: str, limit: float) -> Rows:
    """One part in a process of its own, which ends at its limit."""
    path = WORK / f"{part}.json"
    path.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(Path(__file__)), "--worker", part]
    try:
        code = subprocess.run(command, env=environment, timeout=limit).returncode
        why = f"its process ended with {code}"
    except subprocess.TimeoutExpired:
        why = f"not done in {limit:.0f} s"
    if not path.is_file():
        path.write_text(json.dumps(unmeasured(part, why)), "utf-8")
    return json.loads(path.read_text("utf-8"))


def rehearse() -> Rows:
    """Every call of every part on a CPU, on tiny networks; what it took there is not told."""
    place, rows = Place("cpu", tiny=True), Rows()
    for part in LIMITS:
        again = part.startswith("photo-")  # the same calls as for the first preset
        made = [one for one in rows if one["what"].startswith("small")] if again else measure(part, place)
        rows += [{**one, "what": one["what"].replace("small", part)} for one in made] if again else made
    nothing = {"value": None, "n": None, "holds": None}
    return [*({**one, "what": f"{one['what']}: not measured", **nothing} for one in rows), *apart()]


def main() -> None:
    """Measure the parts that are named, all by default, and write what there is of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*LIMITS, []])
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, on tiny networks; writes nothing")
    parser.add_argument("--worker", choices=[*LIMITS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if options.worker:
        rows = measure(options.worker, Place("cuda", tiny=False))
        (WORK / f"{options.worker}.json").write_text(json.dumps(rows), "utf-8")
        return
    if options.rehearse:
        print(json.dumps(rehearse(), ensure_ascii=False))
        return
    import torch

    if not torch.cuda.is_available():
        print("there is no GPU here, or this torch cannot use it: nothing was measured, nothing is written")
        return
    begun = time.perf_counter()
    for part in options.part or LIMITS:
        left = BUDGET - (time.perf_counter() - begun)
        print(f"{part}: at most {min(LIMITS[part], left):.0f} s", flush=True)
        for one in run_part(part, min(LIMITS[part], max(1.0, left))):
            print("  ", one["what"], one["value"], one["unit"], one["goal"] or "", one["holds"], flush=True)
    paths = [WORK / f"{part}.json" for part in LIMITS]
    rows = [one for path in paths if path.is_file() for one in json.loads(path.read_text("utf-8"))] + apart()
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    print(write("gpu", protocol, rows, "cuda:0").with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
