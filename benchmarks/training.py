"""What the training recipe is worth: optimiser, noise levels, starts and token dropping, to equal loss and distance.

    make bench-training                      36 runs of one to three minutes, two at a time; goes on where it stopped
    python benchmarks/training.py report     what the runs that are there say

Fashion-MNIST (20,000 pictures read) at 0.2 bits per pixel, the `small` networks, three seeds (n says how many are
done), one thread a run, two at a time: minutes compare with each other only. Stage 1 of 12,000 pictures, a prior that
builds on the latents' covariance (as was the default) and does not settle, 600 held-out pictures measured. Every arm
takes one thing out of this recipe, the last adds the settling. What a part is worth is told at equal pictures, and as
training FLOPs and minutes: those of the arm over those that the recipe needs to the arm's PSNR, and to its distance, on
the line through its own runs of 4,000, 8,000 and 12,000 pictures (logarithm of the cost; no seed is continued beyond
them, so n may fall). AdamW is also given the pictures that take as long as Muon's. Token dropping: base models of the
recipe's autoencoders; with half of the tokens dropped a step takes about 0.7 of its time, so 34,000 latents take as
long as 24,000, and 24,000 as long as 16,500.
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import levels
import tokens
from common import (
    MEASURES,
    ROOT,
    Measures,
    Rows,
    difference,
    error,
    interpolated,
    lines,
    mean,
    over_seeds,
    row,
    train_two_at_a_time,
    write,
)

from unilat.results import Results

WORK = ROOT / "runs" / "bench-training"
SEEDS = (0, 1, 2)
CURVE = {"recipe-4000": 4_000, "recipe-8000": 8_000, "recipe": 12_000}
LESS = {
    "fixed": ("fixed noise levels", ("--stage1.levels", "fixed")),
    "adamw": ("AdamW", ("--stage1.optimizer", "adamw")),
    "adamw-longer": ("AdamW, as long as Muon", ("--stage1.optimizer", "adamw", "--stage1.samples", "15600")),
    "no-covariance": ("prior without the covariance", ("--autoencoder.covariance-up-to", "0")),
    "no-gaussian": ("decoder starts from the data's Gaussian", ("--autoencoder.decoder-start", "data")),
    "no-starts": (
        "neither, nor latents of unit scale",
        ("--autoencoder.covariance-up-to", "0", "--autoencoder.decoder-start", "data", "--stage1.no-unit-scale"),
    ),
}
MORE = {"settle": ("the prior settles on 50,000 latents", ("--stage1.settle", "50000"))}
SCALE = (
    "fashion-mnist --bpp 0.2 --stage1.settle 0 --autoencoder.covariance-up-to 1024 --data.at-most 20000 "
    "--evaluation.classifier-samples 0 --evaluation.pictures 600 --evaluation.samples 600 --evaluation.step-counts 1"
).split()


def _minutes(found: Results) -> float:
    return sum(phase.seconds for phase in found.costs.phases if phase.name == "stage 1") / 60


def _pflops(found: Results) -> float:
    return sum(found.costs.training_flops[part] for part in ("encoder", "prior", "decoder")) / 1e15


SHOWN: Measures = {
    **{what: MEASURES[what] for what in ("bits", "PSNR", "reconstruction")},
    "stage 1": ("minutes", _minutes),
    "training": ("PFLOP", _pflops),
}


def whole() -> Sequence[int]:
    """Seeds of which all runs are done; where none is, all seeds."""
    arms = (*CURVE, *LESS, *MORE)
    return [s for s in SEEDS if all((WORK / f"{arm}-s{s}" / "metrics.json").is_file() for arm in arms)] or SEEDS


def rows() -> Rows:
    """Means over seeds, and what each part of the recipe saves."""
    seeds = whole()
    found = {arm: over_seeds(WORK, arm, seeds, SHOWN) for arm in (*CURVE, *LESS, *MORE)}
    told: Rows = []
    for arm, samples in CURVE.items():
        told += lines(f"the recipe, {samples:,} pictures", found[arm], SHOWN)
    for arm, (label, _) in LESS.items():
        told += lines(label, found[arm], SHOWN)
        told += difference(f"recipe over {label}: PSNR", found["recipe"]["PSNR"], found[arm]["PSNR"], "dB")
        nearer = (found[arm]["reconstruction"], found["recipe"]["reconstruction"])
        told += difference(f"recipe over {label}: distance saved", *nearer, "kernel distance")
        for measure in ("PSNR", "reconstruction"):
            for cost in ("training", "stage 1"):
                told.append(_saved(label, found, arm, measure, cost))
    for arm, (label, _) in MORE.items():
        told += lines(label, found[arm], SHOWN)
        told += difference(f"{label}: PSNR gained", found[arm]["PSNR"], found["recipe"]["PSNR"], "dB")
        nearer = (found["recipe"]["reconstruction"], found[arm]["reconstruction"])
        told += difference(f"{label}: distance saved", *nearer, "kernel distance")
    first = WORK / f"recipe-s{SEEDS[0]}"
    told += levels.rows(first) if (first / "metrics.json").is_file() else []
    return told + tokens.rows(WORK, SEEDS)


def _saved(label: str, found: dict[str, dict[str, list[float]]], arm: str, measure: str, cost: str) -> dict[str, Any]:
    """Cost of an arm over the recipe's to equal ``measure``, seed by seed."""
    ratios = []
    for index, (reached, paid) in enumerate(zip(found[arm][measure], found[arm][cost], strict=True)):
        curve = [(found[one][measure][index], math.log(found[one][cost][index])) for one in CURVE]
        ratios.append(paid / math.exp(interpolated(reached, curve)))
    ratios = [one for one in ratios if math.isfinite(one)]
    what = {"PSNR": "PSNR", "reconstruction": "distance"}[measure]
    unit = {"training": "FLOPs", "stage 1": "minutes"}[cost]
    value = mean(ratios) if ratios else None
    return row(
        f"{label}: {unit} over the recipe's to equal {what}", value, "ratio", stderr=error(ratios), n=len(ratios)
    )


def main() -> None:
    """Train what is missing, then compare over the seeds that every arm has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["report"])
    if parser.parse_args().part is None:
        for s in SEEDS:
            runs = {arm: ("--stage1.samples", f"{samples}") for arm, samples in CURVE.items()}
            runs |= {arm: ("--stage1.samples", "12000", *words) for arm, (_, words) in (LESS | MORE).items()}
            alone = (*SCALE, "--stage2.samples", "0", "--seed", f"{s}")
            jobs = {f"{arm}-s{s}": (*alone, *words) for arm, words in runs.items()}
            train_two_at_a_time(WORK, jobs)
            tokens.train(WORK, (s,), "recipe", (*SCALE, "--stage1.samples", "12000"))
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    print(write("training", protocol, rows()).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
