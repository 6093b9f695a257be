"""`make run` today beside `make run` as it was before the fast path: time and quality.

    make bench-before        four runs of three to six minutes, two at a time; goes on where it stopped

Glyphs at 0.3 bits per pixel under a prior that does not settle, as the default was; two seeds, one thread a run, the
two seeds of a side at a time. Before: commit BEFORE, checked out into runs/bench-before/tree, its defaults (36,000
pictures, 50,000 latents). Today: 17,600 pictures and 36,000 latents, half of whose tokens are dropped, so that time is
about half. Both measure by their own defaults: 908 held-out pictures, one decoder call, kernel distances of the same
features, the same classifier; today two step counts are shown in the report where it was four. Time is from start to
report, evaluation included.
"""

import os
import subprocess
import sys
import time

from common import MEASURES, ROOT, Measures, Rows, checked_out, difference, error, lines, mean, row, write

from unilat.results import read

WORK = ROOT / "runs" / "bench-before"
BEFORE = "e61797a0cefd9d351a40bbd418b68aafc04439d2"
SEEDS = (0, 1)
TODAY = "--bpp 0.3 --stage1.settle 0 --stage1.samples 17600 --stage2.samples 36000 --base.token-dropping 0.5".split()
SHOWN: Measures = {
    **{what: MEASURES[what] for what in ("bits", "PSNR", "reconstruction", "generation")},
    "named rightly": ("share", lambda found: found.classifier.samples.value if found.classifier else None),
}
TIMED: Measures = {**SHOWN, "time": ("seconds", lambda found: None)}
"""Seconds from start to report lie beside a run and not in its results."""


def start(side: str, seed: int) -> subprocess.Popen[bytes] | None:
    """The run of one side, unless it is done."""
    folder = WORK / f"{side}-s{seed}"
    if (folder / "report.html").is_file():
        return None
    source, words = (checked_out(WORK / "tree", BEFORE), []) if side == "before" else (ROOT, TODAY)
    command = [sys.executable, "-m", "unilat", "train", "glyphs", *words, "--seed", f"{seed}", "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source / "src")}
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=source, stdout=log, stderr=subprocess.STDOUT, env=environment)


def together(side: str) -> None:
    """The runs of a side, both seeds at a time; the seconds of each lie beside it."""
    begun = time.perf_counter()
    running = {seed: process for seed in SEEDS if (process := start(side, seed))}
    while running:
        time.sleep(0.5)
        for seed, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[seed]
            if process.returncode:
                raise SystemExit(f"{side}, seed {seed}, ended with {process.returncode}: see its log in {WORK}")
            (WORK / f"{side}-s{seed}.seconds").write_text(f"{time.perf_counter() - begun:.1f}")


def measured(side: str) -> dict[str, list[float]]:
    """Each measure, one number a seed."""
    found: dict[str, list[float]] = {what: [] for what in TIMED}
    for seed in SEEDS:
        folder = WORK / f"{side}-s{seed}"
        told = read(folder / "metrics.json")
        found["time"].append(float(folder.with_suffix(".seconds").read_text()))
        for what, (_, get) in SHOWN.items():
            value = get(told)
            assert value is not None
            found[what].append(value)
    return found


def rows() -> Rows:
    """Both sides, the ratio of their times, and what today's gains."""
    sides = {side: measured(side) for side in ("before", "today")}
    told = [one for side, found in sides.items() for one in lines(f"`make run`, {side}", found, TIMED)]
    before, today = sides["before"], sides["today"]
    share = [b / a for a, b in zip(before["time"], today["time"], strict=True)]
    told.append(row("time, today / before", mean(share), "ratio", goal=0.5, stderr=error(share), n=len(share)))
    for what in ("PSNR", "named rightly"):
        told += difference(f"{what}, today less before", today[what], before[what], SHOWN[what][0])
    for what in ("reconstruction", "generation"):
        told += difference(f"{what}, before less today", before[what], today[what], SHOWN[what][0])
    return told


def main() -> None:
    """Run what is missing and write the result."""
    WORK.mkdir(parents=True, exist_ok=True)
    for side in ("before", "today"):
        together(side)
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split()).replace("BEFORE", BEFORE[:12])
    print(write("before", protocol, rows()).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
