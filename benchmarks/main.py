"""The claims of the main job: bits wanted and bits measured, and their truth.

    make bench-main                     everything: less than an hour on two cores, goes on where it stopped
    python benchmarks/main.py oracle    one part alone: oracle, mutants, bits; or report

Each part leaves its rows in runs/bench-main/PART.json; the last step gathers them in benchmarks/results/main.{json,md}.
Runs have one thread each and go two at a time.
"""

import math
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from common import ROOT, gather, kernel, row, train_two_at_a_time

from unilat.results import Results, read

WORK = ROOT / "runs" / "bench-main"
SETS = ("glyphs", "fashion-mnist", "emoji")
TARGETS = (0.05, 0.8)
SHORT = ("--stage2.samples", "0", "--stage1.samples", "32000")
Rows = list[dict[str, Any]]


def metrics(name: str) -> Results:
    """The results of a finished run."""
    return read(WORK / name / "metrics.json")


def bits() -> Rows:
    """The fewest and the most bits that one asks for, on three data sets, stage 1 alone."""
    names = {(data, bpp): f"{data}-{bpp:g}" for data in SETS for bpp in TARGETS}
    train_two_at_a_time(WORK, {name: (data, "--bpp", f"{bpp:g}", *SHORT) for (data, bpp), name in names.items()})
    rows: Rows = []
    for data in SETS:
        found = [metrics(names[data, bpp]) for bpp in TARGETS]
        for bpp, one in zip(TARGETS, found, strict=True):
            measured = one.bits
            what = f"{data}, wanted {bpp:g}: held-out bits per pixel {measured.value:.4f}, off by"
            off, error = abs(measured.value / bpp - 1), None if measured.stderr is None else measured.stderr / bpp
            rows.append(row(what, off, "of wanted", goal=0.03, stderr=error, n=measured.n))
        for name, unit, sign in (("psnr", "dB", 1), ("reconstruction", "kernel distance", -1)):
            made = [one.reconstruction for one in found]
            values = [one.psnr.value if name == "psnr" else kernel(one.distance) or math.nan for one in made]
            gain = min(sign * (more - less) for less, more in zip(values, values[1:], strict=False))
            shown = ", ".join(f"{value:.4g}" for value in values)
            what = f"{data}: {name} at {', '.join(f'{bpp:g}' for bpp in TARGETS)} bits per pixel: {shown}; least gain"
            rows.append(row(what, gain, unit, goal=1e-9, at_least=True, n=made[0].psnr.n))
    return rows


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


PARTS: dict[str, Callable[[], Rows]] = {part.__name__: part for part in (oracle, mutants, bits)}
PROTOCOL = (
    "Bits: held-out pictures never trained on, 8 low-discrepancy noise levels each, averaged weights; the data set's "
    "preset, with stage 1 of 32,000 pictures and its own settling; one seed, one thread."
)


if __name__ == "__main__":
    gather("main", PROTOCOL, WORK, PARTS)
