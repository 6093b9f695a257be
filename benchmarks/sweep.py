"""Does the advice hold on a budget it has not seen, and do cheap runs rank bits and grids as full ones do?

    make bench-sweep                           sweeps of two data sets (hours on two cores; goes on where it stopped)
    make bench-sweep ARGS=--quick              both side by side, shorter, no proxies (80 minutes): sweep_quick.md
    python benchmarks/sweep.py fashion-mnist   one data set alone: fashion-mnist or emoji
    python benchmarks/sweep.py report          rows of the sweeps that are there; nothing is run

`unilat sweep` makes the runs. The full sweep has three sizes of the base model, so three budgets; each is held out in
turn, a law fitted to the other two, and what it advises compared with the best run of the budget held out. Proxies are
sweeps with half and a quarter of stage 2, and with a quarter of stage 1 under the smallest base model; the quick form
has none, and fewer bits and samples.
"""

import argparse
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT, Rows, one_commit, row, unilat, write

from unilat.files import read_json
from unilat.studies import scaling
from unilat.studies.points import Point, read_points
from unilat.studies.regret import Choice, Regret, agreement, budgets, distances, halving, regret
from unilat.types import UserError

WORK = ROOT / "runs" / "bench-sweep"
DATA = {"fashion-mnist": (), "emoji": ("--data.channels", "3")}
BITS = {"fashion-mnist": "0.025,0.05,0.1,0.2,0.4", "emoji": "0.05,0.1,0.2,0.4,0.8"}
QUICK_BITS = {"fashion-mnist": "0.05,0.1,0.2", "emoji": "0.1,0.2,0.4"}
STAGE_1, STAGE_2 = 16_000, 24_000
"""Samples of the full runs."""
QUICK = ("--stage1.samples", "6000", "--stage1.settle", "12000", "--stage2.samples", "12000")
SCALE = (
    "--data.at-most 20000 --evaluation.classifier-samples 0 --evaluation.guidance 1 --evaluation.pictures 600 "
    "--evaluation.samples 600 --evaluation.step-counts 1 --grid 8x8x8,16x16x2"
).split()
ALL, SMALLEST = "tiny,small,medium", "tiny"
SWEEPS: Mapping[str, tuple[str, int, int, int]] = {
    "full": (ALL, 2, STAGE_1, STAGE_2),
    "half": (ALL, 1, STAGE_1, STAGE_2 // 2),
    "quarter": (ALL, 1, STAGE_1, STAGE_2 // 4),
    "small-autoencoder": (SMALLEST, 1, STAGE_1 // 4, STAGE_2 // 4),
}
"""Base models, seeds, samples of stage 1 and of stage 2, of each sweep."""
PROTOCOL = (
    "32×32, runs of `unilat sweep` on 20,000 pictures at most, kernel distances of as many samples as held-out "
    "pictures, 600 at most. Regret: distance of the run advised for a held-out budget less that of the best run there; "
    "its goal is the standard deviation between seeds."
)
PROXIES = "Kendall's tau: of a cheap number with the full runs' distances, among bits and grids of one base model."
SHORTER = "Stage 1 of 6,000 pictures, 12,000 of settling, stage 2 of 12,000 latents; one thread a data set."


def train(data: str) -> None:
    """Make the sweeps of a data set, or go on with them."""
    for name, (bases, seeds, first, second) in SWEEPS.items():
        folder = WORK / f"{data}-{name}"
        words = ["sweep", data, "--target-bpp", BITS[data], "--base", bases, "--seeds", f"{seeds}", *SCALE, *DATA[data]]
        words += ["--stage1.samples", f"{first}", "--stage2.samples", f"{second}", "--out", str(folder)]
        if unilat(*words, threads=2, log=WORK / f"{data}-{name}.log").wait():
            raise SystemExit(f"{folder} is not complete: see {folder}.log")


def train_quickly() -> None:
    """Make the quick sweeps or go on with them, one thread and one data set each."""
    begun: dict[Path, subprocess.Popen[bytes]] = {}
    for data in DATA:
        folder = WORK / f"{data}-quick"
        words = ["sweep", data, "--target-bpp", QUICK_BITS[data], "--base", ALL, "--seeds", "2", *SCALE, *DATA[data]]
        begun[folder] = unilat(*words, *QUICK, "--out", str(folder), threads=1, log=folder.with_suffix(".log"))
    if failed := [str(folder) for folder, one in begun.items() if one.wait()]:
        raise SystemExit(f"not complete: {', '.join(failed)}; see the log beside each")


def read(data: str, name: str) -> list[Point]:
    """The runs of a sweep that count; none where it is not there."""
    folder = WORK / f"{data}-{name}"
    return scaling.counted(read_points([folder], skip=print))[0] if folder.is_dir() else []


def regrets(data: str, points: list[Point]) -> Rows:
    """Each budget held out in turn; a budget that the others cannot tell of is a row without a value."""
    rows: Rows = []
    found: list[Regret] = []
    for budget in budgets(points):
        what = f"{data}: regret at {budget:.3g} FLOPs, held out"
        try:
            one = regret(points, budget)
        except UserError as problem:
            rows.append(row(f"{what} ({problem})", None, "kernel distance", goal=0.0))
            continue
        found.append(one)
        bits = f"{one.advised[0]:g} bits on {scaling.spelled(one.advised[1])}"
        best = f"best {one.best[0]:g} on {scaling.spelled(one.best[1])}"
        what = f"{what}: advised {bits}, {best}"
        rows.append(row(what, one.value, "kernel distance", goal=one.noise, stderr=one.stderr, n=len(points)))
        rows.append(row(f"{data}: noise between seeds at {budget:.3g} FLOPs", one.noise, "kernel distance"))
    if found and all(one.noise is not None for one in found):
        mean = sum(one.value for one in found) / len(found)
        noise = sum(one.noise or 0.0 for one in found) / len(found)
        error = math.hypot(*(one.stderr for one in found)) / len(found)
        what = f"{data}: mean regret over held-out budgets"
        rows.append(row(what, mean, "kernel distance", goal=noise, stderr=error, n=len(found)))
    return rows


def proxies(data: str, full: list[Point], cheap: Mapping[str, list[Point]]) -> Rows:
    """Rank agreement of each proxy, and what successive halving on the short runs comes to."""
    numbers: dict[str, Mapping[Choice, float]] = {}
    for name in ("half", "quarter"):
        numbers[f"{name} of stage 2"] = distances(cheap[name]) if cheap[name] else {}
    small = {point: point.reconstruction for point in cheap["small-autoencoder"]}
    for what, of in (
        ("distance of samples", {point: scaling.distance_of(point) for point in small}),
        ("distance of reconstructions", {point: one.value for point, one in small.items() if one is not None}),
    ):
        every = dict.fromkeys(point.base for point in full)
        spread = {((p.target_bpp or p.bits.value), p.grid, base): value for p, value in of.items() for base in every}
        numbers[f"a quarter of stage 1, {what}"] = spread
    rows: Rows = []
    for name, proxy in numbers.items():
        if proxy:
            tau, count = agreement(full, proxy)
            rows.append(row(f"{data}: Kendall's tau of {name} with the full runs", tau, "", n=count))
    rounds = [distances(cheap[name]) for name in ("quarter", "half") if cheap[name]]
    if len(rounds) == 2:
        truth = distances(full)
        for base in dict.fromkeys(point.base for point in full):
            own = [{choice: one for choice, one in each.items() if choice[2] == base} for each in (*rounds, truth)]
            lost = own[-1][halving(own)] - min(own[-1].values())
            noise = scaling.seed_noise(full)
            goal = None if noise is None else noise * min(own[-1].values())
            what = f"{data}: regret of halving at a quarter and a half of stage 2, base {base}"
            rows.append(row(what, lost, "kernel distance", goal=goal, n=len(own[-1])))
    return rows


def told(data: str, cells: Sequence[Mapping[str, Any]]) -> Rows:
    """What each cell of a sweep came to, as its page tells it; what the bases share is told once."""
    rows: Rows = []
    seen: set[tuple[float, str]] = set()
    for one in cells:
        label, shared = f"{data}: {one['target_bpp']:g} bits on {one['grid']}", (one["target_bpp"], one["grid"])
        for name, unit in (("psnr", "dB"), ("reconstruction", "kernel distance")):
            if shared not in seen:
                what = f"{label}: {'PSNR' if name == 'psnr' else name}"
                rows.append(row(what, one[name]["value"], unit, stderr=one[name]["stderr"], n=len(one["runs"])))
        if shared not in seen:
            rows.append(row(f"{label}: training FLOPs of stage 1", one["autoencoder_flops"], "FLOPs"))
        seen.add(shared)
        far = one["generation"]
        what = f"{label}, base {one['base']}: generation"
        rows.append(row(what, far["value"], "kernel distance", stderr=far["stderr"], n=len(one["runs"])))
    return rows


def report(quick: bool = False) -> Path:
    """Rows of all sweeps that are there, of the quick ones alone or of the others."""
    rows: Rows = []
    for data in DATA:
        found = read(data, "quick" if quick else "full")
        if found:
            rows += regrets(data, found)
        if found and quick:
            rows += told(data, read_json(WORK / f"{data}-quick" / "sweep.json")["cells"])
        elif found:
            rows += proxies(data, found, {name: read(data, name) for name in SWEEPS if name != "full"})
    if not rows:
        raise SystemExit(f"no sweep under {WORK}: make bench-sweep")
    if quick:
        command = "make bench-sweep ARGS=--quick"
        commit = one_commit(path.parent for path in WORK.glob("*-quick/*/manifest.json"))
        return write("sweep_quick", f"{PROTOCOL} {SHORTER}", rows, command=command, commit=commit)
    return write("sweep", f"{PROTOCOL} {PROXIES}", rows)


def main() -> None:
    """Train what was named, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*DATA, "report", []])
    parser.add_argument("--quick", action="store_true", help="80 minutes instead of many hours")
    asked = parser.parse_args()
    if asked.quick and "report" not in asked.part:
        train_quickly()
    for data in () if asked.quick else asked.part or DATA:
        if data in DATA:
            train(data)
    print(report(asked.quick).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
