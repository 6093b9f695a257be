"""The claims of the main job: bits wanted and bits measured, their truth, and what the pictures are worth.

    make bench-main                     everything: about two hours on two cores, goes on where it stopped
    python benchmarks/main.py oracle    one part alone: oracle, bits, starts, recognised, default, mutants; or report

Each part leaves its rows in runs/bench-main/PART.json; the last step gathers them in benchmarks/results/main.{json,md}.
Runs have one thread each and go two at a time; ``default``, which is timed, has both threads and the machine to itself.
"""

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from common import ROOT, gather, kernel, row, train_two_at_a_time, unilat

from unilat.results import Results, read

WORK = ROOT / "runs" / "bench-main"
SETS = ("glyphs", "fashion-mnist", "emoji")
TARGETS = (0.1, 0.3, 0.8)
SHORT = ("--stage2.samples", "0", "--stage1.samples", "32000")
Rows = list[dict[str, Any]]


def metrics(name: str) -> Results:
    """The results of a finished run."""
    return read(WORK / name / "metrics.json")


def bits() -> Rows:
    """Three targets on three data sets, stage 1 alone."""
    names = {(data, bpp): f"{data}-{bpp:g}" for data in SETS for bpp in TARGETS}
    train_two_at_a_time(WORK, {name: (data, "--bpp", f"{bpp:g}", *SHORT) for (data, bpp), name in names.items()})
    rows: Rows = []
    for data in SETS:
        found = [metrics(names[data, bpp]) for bpp in TARGETS]
        for bpp, one in zip(TARGETS, found, strict=True):
            measured = one.bits
            what = f"{data}, wanted {bpp:g}: held-out bits per pixel {measured.value:.4f}, off by"
            off, error = abs(measured.value / bpp - 1), None if measured.stderr is None else measured.stderr / bpp
            rows.append(row(what, off, "of wanted", goal=0.05, stderr=error, n=measured.n))
        for name, unit, sign in (("psnr", "dB", 1), ("reconstruction", "kernel distance", -1)):
            made = [one.reconstruction for one in found]
            values = [one.psnr.value if name == "psnr" else kernel(one.distance) or math.nan for one in made]
            gain = min(sign * (more - less) for less, more in zip(values, values[1:], strict=False))
            shown = ", ".join(f"{value:.4g}" for value in values)
            what = f"{data}: {name} at {', '.join(f'{bpp:g}' for bpp in TARGETS)} bits per pixel: {shown}; least gain"
            rows.append(row(what, gain, unit, goal=1e-9, at_least=True, n=made[0].psnr.n))
    return rows


def starts() -> Rows:
    """Ways to start: what becomes of the rate at a fixed factor and under the controller, from none to all."""
    plain = ("--stage1.control.proportional", "0", "--stage1.control.gain", "0.3")
    fixed = ("--loss-factor", "1.5")
    variants = {
        "fixed factor 1.5, no unit scale": (*fixed, "--stage1.no-unit-scale"),
        "fixed factor 1.5, unit scale, prior warmed": (*fixed, "--stage1.prior-warmup", "8000"),
        "integral control": plain,
        "PI control, no unit scale": ("--stage1.no-unit-scale",),
        "PI control, unit scale (default)": (),
        "PI control, unit scale, prior warmed": ("--stage1.prior-warmup", "8000"),
    }
    jobs = {re.sub(r"\W+", "-", f"start {name}"): words for name, words in variants.items()}
    short = ("--stage2.samples", "0", "--stage1.samples", "12000", "--evaluation.pictures", "500")
    train_two_at_a_time(
        WORK, {name: ("fashion-mnist", *short, "--evaluation.features", "none", *words) for name, words in jobs.items()}
    )
    rows: Rows = []
    for name, job in zip(variants, jobs, strict=True):
        lines = [json.loads(line) for line in (WORK / job / "log.jsonl").read_text("utf-8").splitlines()]
        rates = [line["bpp"] for line in lines if line["stage"] == "stage1"]
        rows.append(row(f"start: {name}: lowest rate while training", min(rates), "bits per pixel"))
        one = metrics(job)
        rows.append(
            row(
                f"start: {name}: held-out rate after 12,000 pictures",
                one.bits.value,
                "bits per pixel",
                stderr=one.bits.stderr,
                n=one.bits.n,
            )
        )
        psnr = one.reconstruction.psnr
        rows.append(row(f"start: {name}: PSNR then", psnr.value, "dB", stderr=psnr.stderr, n=psnr.n))
    return rows


def recognised() -> Rows:
    """Class-conditional Fashion-MNIST: does a classifier of real pictures name the samples?"""
    words = "fashion-mnist --bpp 0.15 --stage1.samples 48000 --stage2.samples 120000 --evaluation.guidance 2"
    train_two_at_a_time(WORK, {"recognised": tuple(words.split())})
    found = metrics("recognised")
    judge = found.classifier
    assert judge is not None
    minutes = sum(phase.seconds for phase in found.costs.phases if phase.name != "evaluate") / 60
    share, real = judge.samples, judge.real.value
    rows = [
        row(
            f"Fashion-MNIST: samples named rightly ({share.value:.1%}) over real ones ({real:.1%})",
            judge.ratio,
            "ratio",
            goal=0.8,
            at_least=True,
            stderr=None if share.stderr is None else share.stderr / real,
            n=share.n,
        ),
        row("the same run: minutes from pictures to base model, one thread", minutes, "min", goal=40.0),
    ]
    return rows + quality("Fashion-MNIST", found)


def default() -> Rows:
    """``make run`` as it stands: time and memory by phase, and its own figures."""
    if not (WORK / "default" / "report.html").is_file():
        print(f"{time.strftime('%H:%M')} default", flush=True)
        if code := unilat(
            "train", "glyphs", "--out", str(WORK / "default"), threads=2, log=WORK / "default.log"
        ).wait():
            raise SystemExit(f"default ended with {code}: see {WORK / 'default.log'}")
    found = metrics("default")
    phases, judge = found.costs.phases, found.classifier
    rows = [row(f"make run: {phase.name}", phase.seconds / 60, "min") for phase in phases]
    rows += [
        row(f"make run: peak memory up to the end of {phase.name}", phase.peak_memory_mib, "MiB") for phase in phases
    ]
    rows.append(row("make run: total", found.costs.seconds / 60, "min", goal=12.0))
    what = "make run: samples named rightly (12 faces) over held-out real ones"
    rows.append(row(what, judge.ratio if judge else None, "ratio"))
    return rows + quality("make run", found)


def quality(name: str, found: Results) -> Rows:
    """The table that a run ends with, as rows that inform."""
    bits, made = found.bits, found.reconstruction
    assert bits.target is not None
    what, goal = f"{name}: held-out bits per pixel, wanted {bits.target:g}", (bits.target * 0.95, bits.target * 1.05)
    rows = [row(what, bits.value, "bits per pixel", goal=goal, stderr=bits.stderr, n=bits.n)]
    what = f"{name}: PSNR, {made.steps} decoder calls"
    rows.append(row(what, made.psnr.value, "dB", stderr=made.psnr.stderr, n=made.psnr.n))
    for kind, distance in (("reconstruction", made.distance), ("generation", found.generation)):
        if distance is not None:
            one = distance.kernel
            what = f"{name}: {kind} distance ({one.protocol})"
            rows.append(row(what, one.value, "kernel", stderr=one.stderr, n=one.n))
    rows += [row(f"{name}: parameters, {part}", count, "") for part, count in found.costs.parameters.items()]
    flops = found.costs.training_flops
    return rows + [row(f"{name}: training FLOPs, {part}", float(count), "FLOP") for part, count in flops.items()]


def mutants() -> Rows:
    """Every mutant of maths/ must die."""
    done = subprocess.run([sys.executable, "tests/mutants.py", "maths/"], cwd=ROOT, capture_output=True, text=True)
    counted = re.search(r"(\d+) of (\d+) mutants died", done.stdout)
    died, of = (int(counted[1]), int(counted[2])) if counted else (0, 1)
    return [row(f"mutants of maths/ that died, of {of}", died / of, "share", goal=1.0, at_least=True, n=of)]


def oracle() -> Rows:
    """Truth of the bits against closed forms, and the variance of their estimate."""
    from oracle import correlated_gaussian, exact_denoiser, variance_ratio

    return [*exact_denoiser(), *correlated_gaussian(), *variance_ratio()]


PARTS: dict[str, Callable[[], Rows]] = {
    part.__name__: part for part in (oracle, mutants, default, recognised, bits, starts)
}
PROTOCOL = (
    "Bits: held-out pictures never trained on, 8 low-discrepancy noise levels each, averaged weights; "
    "stage 1 of 32,000 pictures, one thread. Quality: see each row's protocol. Times: whole phases on this machine."
)


if __name__ == "__main__":
    gather("main", PROTOCOL, WORK, PARTS)
