"""What the training recipe is worth in stage 1: Muon against AdamW at equal pictures and time; learned noise levels.

    make bench-training                      twelve runs of about three minutes, two at a time; goes on where it stopped
    python benchmarks/training.py report     what the runs that are there say

Fashion-MNIST at 0.2 bits per pixel, the `small` networks, three seeds (n says how many are done), one thread a run.
Muon's products make a step dearer, so AdamW is also given the pictures that take as long. All but one arm learn where
their noise levels fall; what that is worth to one batch's estimate is measured on Muon's first run. Minutes are of runs
that go two at a time: they compare with each other only.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import levels
from common import MEASURES, ROOT, Measures, Rows, difference, lines, over_seeds, train_two_at_a_time, write

WORK = ROOT / "runs" / "bench-training"
SEEDS = (0, 1, 2)
ARMS = {
    "muon": ("Muon, 16,000 pictures", ("--stage1.samples", "16000")),
    "fixed": ("Muon, fixed noise levels", ("--stage1.samples", "16000", "--stage1.levels", "fixed")),
    "adamw": ("AdamW, 16,000 pictures", ("--stage1.samples", "16000", "--stage1.optimizer", "adamw")),
    "adamw-longer": ("AdamW, 21,000 pictures", ("--stage1.samples", "21000", "--stage1.optimizer", "adamw")),
}
SCALE = (
    "fashion-mnist --bpp 0.2 --data.at-most 20000 --stage2.samples 0 --evaluation.classifier-samples 0 "
    "--evaluation.pictures 600 --evaluation.samples 600 --evaluation.step-counts 1"
).split()


def _minutes(found: dict[str, Any]) -> float:
    return sum(phase["seconds"] for phase in found["phases"] if phase["name"] == "stage 1") / 60


def _eflops(found: dict[str, Any]) -> float:
    return sum(found["training_flops"][part] for part in ("encoder", "prior", "decoder")) / 1e18


SHOWN: Measures = {
    **{what: MEASURES[what] for what in ("bits", "PSNR", "reconstruction")},
    "stage 1": ("minutes", _minutes),
    "training": ("EFLOP", _eflops),
}


def whole() -> Sequence[int]:
    """Seeds of which all runs are done; where none is, all seeds."""
    return [s for s in SEEDS if all((WORK / f"{arm}-s{s}" / "metrics.json").is_file() for arm in ARMS)] or SEEDS


def rows() -> Rows:
    """Means over seeds, and what Muon gains on AdamW."""
    found = {arm: over_seeds(WORK, arm, whole(), SHOWN) for arm in ARMS}
    told = [one for arm, (label, _) in ARMS.items() for one in lines(label, found[arm], SHOWN)]
    for arm, gain in (
        ("adamw", "Muon over AdamW at equal pictures"),
        ("adamw-longer", "Muon over AdamW at equal time"),
        ("fixed", "learned over fixed noise levels"),
    ):
        told += difference(f"{gain}: PSNR", found["muon"]["PSNR"], found[arm]["PSNR"], "dB")
        nearer = (found[arm]["reconstruction"], found["muon"]["reconstruction"])
        told += difference(f"{gain}: distance saved", *nearer, "kernel distance")
    first = WORK / f"muon-s{SEEDS[0]}"
    return told + (levels.rows(first) if (first / "metrics.json").is_file() else [])


def main() -> None:
    """Train what is missing, then compare over the seeds that every arm has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["report"])
    if parser.parse_args().part is None:
        jobs = {f"{arm}-s{s}": (*SCALE, *words, "--seed", f"{s}") for s in SEEDS for arm, (_, words) in ARMS.items()}
        train_two_at_a_time(WORK, jobs)
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    print(write("training", protocol, rows()).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
