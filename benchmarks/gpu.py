"""What one GPU makes of it: steps of the presets, plain and as chosen, glyphs by phase, bits in bf16, resuming.

    make bench-gpu                     everything, at most eight minutes on one H100 or H200; needs no network
    make bench-gpu ARGS="small bits"   some parts anew; the others' rows are kept
    make bench-gpu ARGS=--rehearse     the same calls on a CPU, on tiny networks: its rows are complete and unmeasured

Every part is a process of its own that ends at its limit; what it has not measured by then is told as not measured.
Steps are the engine's own (`fit`) on random pictures in memory: six warm up, the next are timed together, without
waiting between them beyond what the engine waits for. FLOPs as `describe` counts them, three times a forward pass and
Muon's products; their rate is told over that of a bf16 matrix product of 8192 x 8192, measured in the same process.
Plain is `--precision float32 --no-compile --capture off`; chosen is what `unilat train` takes by itself for the
preset's whole length. Where memory ends, half the batch is tried. What is compiled has been compiled before, by three
processes side by side, into a cache on disk. A step at a preset's own batch follows from steps of one and of two
micro-batches.
Without a GPU it says so and writes nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import ROOT, Rows, row, write
from gpu_steps import BATCHES, Place, ahead, own_batch, product_rate, stages, steps, torch_device

WORK = ROOT / "runs" / "bench-gpu"
BUDGET = 465.0
"""Seconds of all parts."""
LIMITS = {
    "small": 60.0, "glyphs": 100.0, "bits": 40.0, "resume": 40.0, "imagenet-512": 150.0, "photo-256": 70.0,
    "photo-128": 60.0, "photo-64": 60.0,
}  # fmt: skip
"""Seconds of each part, in the order in which they are measured."""
STAGES = ("stage 1", "settling", "stage 2")
AHEAD = (
    (("imagenet-512", "stage 1"), *(("photo-128", stage) for stage in STAGES)),
    (("imagenet-512", "stage 2"), *(("photo-64", stage) for stage in STAGES)),
    tuple(("photo-256", stage) for stage in STAGES),
)
"""What three processes compile side by side before the first of these is measured: together they fit into 75 GiB."""
TIMED = ("small", "glyphs")
"""What nothing may be compiled beside; bits and resuming are as they are beside others."""
AHEAD_LIMIT, COMPILERS = 140.0, 5
"""Seconds that this may take, and processes that compile in each."""
GOALS: dict[str, dict[str, Any]] = {
    "small, stage 1: a step, chosen": {"goal": 6.0},
    "small, settling: an example, plain / chosen": {"goal": 8.0, "at_least": True},
    "small, stage 2: an example, plain / chosen": {"goal": 8.0, "at_least": True},
    "imagenet-512, stage 1 at its own batch: share of the bf16 product's rate": {"goal": 0.40, "at_least": True},
    "imagenet-512, stage 2 at its own batch: share of the bf16 product's rate": {"goal": 0.50, "at_least": True},
    "imagenet-512, stage 1 at its own batch: peak memory": {"goal": 70.0},
    "`unilat train glyphs`: all": {"goal": 45.0},
    "bits in bf16 networks / in float32 - 1": {"goal": (-0.005, 0.005)},
    "resumed, deterministic: share of weights that are not bitwise the unbroken run's": {"goal": 0.0},
    "resumed, as chosen: loss / the unbroken run's - 1": {"goal": (-1e-3, 1e-3)},
}


Work = Callable[[int, int], float]
Keep = Callable[[Rows], object]
"""What is told all rows of a part whenever there are more, so that a part which ends at its limit has those."""


def measure_preset(name: str, place: Place, keep: Keep) -> Rows:
    """All rows of one preset."""
    from unilat.training.fast import Choices

    rate, rows = product_rate(place), Rows()
    rows.append(told(f"{name}: bf16 matrix product", rate / 1e12, "TFLOP/s"))
    plain = Choices(precision="float32", compile="off", capture="off")
    for stage_name, stage, plan, work, whole in stages(place.config(name), place):
        batches = BATCHES.get(name, {}).get(stage_name, (plan.batch, plan.batch))
        batches = (plan.batch, plan.batch) if place.tiny else batches
        sides = {}
        for side, choices, batch in zip(("plain", "chosen"), (plain, Choices()), batches, strict=True):
            sides[side] = steps(stage, replace(plan, batch=batch), whole, choices, place)
        what = f"{name}, {stage_name}"
        rows += preset_rows(what, sides, work, rate)
        keep(rows)
        if name == "imagenet-512" and (place.tiny or stage_name != "settling"):
            size, double = sides["chosen"]["batch"], replace(plan, batch=2 * sides["chosen"]["batch"])
            two = steps(stage, double, whole, Choices(), place, micro=size)
            rows += own_rows(what, sides["chosen"], two["step"], plan.batch, work, rate)
            keep(rows)
    if (place.work / f"first-{name}.json").is_file():
        for what, seconds in json.loads((place.work / f"first-{name}.json").read_text("utf-8")).items():
            rows.append(
                told(f"{what}: until the first step is done, nothing compiled, three at it", seconds, "seconds")
            )
    keep(rows)
    if name == "imagenet-512":
        rows.append(told(f"{name}, stage 1 at its own batch: peak memory", own_batch(place), "GiB"))
    return rows


def own_rows(what: str, one: dict[str, Any], two: float, batch: int, work: Work, rate: float) -> Rows:
    """Rows of a step of ``batch`` examples in micro-batches as ``one``'s, given the seconds of one and of two."""
    seconds = one["step"] + (batch / one["batch"] - 1) * (two - one["step"])
    share = work(batch, batch) / seconds / rate
    return [
        told(f"{what} at its own batch: a step in micro-batches of {one['batch']}, by steps of 1 and 2", seconds, "s"),
        told(f"{what} at its own batch: share of the bf16 product's rate", share, "of it"),
    ]


def preset_rows(what: str, sides: dict[str, dict[str, Any]], work: Work, rate: float) -> Rows:
    """Rows of one stage: ``work`` as :func:`stages` gives it, ``rate`` of the bf16 product."""
    rows, each = Rows(), {side: found["step"] / found["batch"] for side, found in sides.items()}
    for side, found in sides.items():
        rows.append(told(f"{what}: a step, {side}", 1e3 * found["step"], "ms"))
        rows.append(told(f"{what}: batch of it, {side}", found["batch"], "examples"))
        speed = work(found["batch"], found["batch"]) / found["step"]
        rows.append(told(f"{what}: rate, {side}", speed / 1e12, "TFLOP/s"))
        rows.append(told(f"{what}: share of the bf16 product's rate, {side}", speed / rate, "of it"))
        rows.append(told(f"{what}: peak memory, {side}", found["gib"], "GiB"))
    rows.append(told(f"{what}: an example, plain / chosen", each["plain"] / each["chosen"], "ratio"))
    rows.append(
        told(f"{what}: until the first step is done, chosen, compiled before", sides["chosen"]["first"], "seconds")
    )
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
        subprocess.run([sys.executable, "-m", "unilat", *words], env=environment(), check=True, stdout=sys.stderr)
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
        z, posterior = run.encoded(test)
        nats = torch.stack([terms.nats() for terms in run.rate(z, levels, posterior=posterior)])
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
            _, stage, plan, work, _ = next(stages(place.config("small"), place))
            plan = replace(plan, samples=plan.batch * count)
            capture, _ = captures(choices, stage, plan, work(plan.samples, plan.batch), device)
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


def measure(part: str, place: Place, keep: Keep = len) -> Rows:
    """The rows of one part."""
    others: dict[str, Callable[[Place], Rows]] = {
        "glyphs": measure_glyphs, "bits": measure_bits, "resume": measure_resume,
    }  # fmt: skip
    return others[part](place) if part in others else measure_preset(part, place, keep)


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
    code, why = 0, f"not done in {limit:.0f} s"
    try:
        code = subprocess.run([*WORKER, part], env=environment(), timeout=limit).returncode
        why = f"its process ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        pass
    made = json.loads(path.read_text("utf-8")) if path.is_file() else []
    if why or not made:
        names = {one["what"] for one in made}
        missing = [one for one in unmeasured(part, why) if one["what"].split(": not measured")[0] not in names]
        path.write_text(json.dumps(made + missing), "utf-8")
    return json.loads(path.read_text("utf-8"))


WORKER = [sys.executable, str(Path(__file__)), "--worker"]


def environment(**more: str) -> dict[str, str]:
    """Of a process of this script."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])} | more


def compile_ahead(parts: Sequence[str]) -> "list[subprocess.Popen[bytes]]":
    """Processes that compile what the ``parts`` need, side by side."""
    running: list[subprocess.Popen[bytes]] = []
    for name in BATCHES:
        (WORK / f"first-{name}.json").unlink(missing_ok=True)
    for place, group in enumerate(AHEAD):
        if any(part in parts for part, _ in group):
            words = [*WORKER, "ahead", "--ahead", str(place), *parts]
            running.append(subprocess.Popen(words, env=environment(TORCHINDUCTOR_COMPILE_THREADS=str(COMPILERS))))
    return running


def ended(running: "Sequence[subprocess.Popen[bytes]]", limit: float) -> None:
    """Wait for them, for so many seconds at the most."""
    begun = time.perf_counter()
    for process in running:
        try:
            process.wait(max(1.0, limit - (time.perf_counter() - begun)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compile_group(group: int, parts: Sequence[str], place: Place) -> None:
    """One of those processes: stage after stage, each one's seconds in ``first-PRESET.json``."""
    for name, stage in AHEAD[group]:
        if name in parts and not (name == "imagenet-512" and stage == "settling"):
            seconds, path = ahead(name, stage, place), WORK / f"first-{name}.json"
            known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            path.write_text(json.dumps(known | {f"{name}, {stage}": seconds}), "utf-8")
            print(f"  compiled ahead: {name}, {stage}: {seconds:.0f} s", flush=True)


def rehearse() -> Rows:
    """Every call of every part on a CPU, on tiny networks; what it took there is not told."""
    place, rows = Place("cpu", tiny=True, work=WORK), Rows()
    ahead("photo-64", "settling", place)
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
    parser.add_argument("--worker", choices=[*LIMITS, "ahead"], help=argparse.SUPPRESS)
    parser.add_argument("--ahead", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=BUDGET, help="of all parts")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if options.worker == "ahead":
        compile_group(options.ahead, options.part, Place("cuda", tiny=False, work=WORK))
        return
    if options.worker:
        path = WORK / f"{options.worker}.json"
        place = Place("cuda", tiny=False, work=WORK)
        path.write_text(json.dumps(measure(options.worker, place, lambda rows: path.write_text(json.dumps(rows)))))
        return
    if options.rehearse:
        print(json.dumps(rehearse(), ensure_ascii=False))
        return
    import torch

    if not torch.cuda.is_available():
        print("there is no GPU here, or this torch cannot use it: nothing was measured, nothing is written")
        return
    begun, parts, compiling = time.perf_counter(), options.part or [*LIMITS], None
    for part in parts:
        left = options.seconds - (time.perf_counter() - begun)
        if compiling is None and part not in TIMED:
            compiling = compile_ahead(parts)
        if compiling and part in BATCHES:
            print(f"compiling: at most {min(AHEAD_LIMIT, 0.5 * left):.0f} s more", flush=True)
            ended(compiling, min(AHEAD_LIMIT, 0.5 * left))
            left, compiling = options.seconds - (time.perf_counter() - begun), []
        print(f"{part}: at most {min(LIMITS[part], left):.0f} s", flush=True)
        for one in run_part(part, min(LIMITS[part], max(1.0, left))):
            print("  ", one["what"], one["value"], one["unit"], one["goal"] or "", one["holds"], flush=True)
        write("gpu", " ".join((__doc__ or "").split("\n\n")[-1].split()), every_row(), "cuda:0")


def every_row() -> Rows:
    """What there is of all parts, also those of an earlier call."""
    paths = [WORK / f"{part}.json" for part in LIMITS]
    return [one for path in paths if path.is_file() for one in json.loads(path.read_text("utf-8"))] + apart()


if __name__ == "__main__":
    main()
