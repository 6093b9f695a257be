"""What dropping tokens is worth to the base model: equal latents, equal time, and fewer latents in its place.

    python benchmarks/tokens.py              an autoencoder and four base models a seed, two at a time; goes on
    python benchmarks/tokens.py report       what the runs that are there say

Base models of one frozen autoencoder a seed (Fashion-MNIST at 0.2 bits per pixel), the `small` networks, three seeds (n
says how many are done), one thread a run. With half of the tokens dropped a step takes about 0.7 of its time, so
34,000 latents take as long as 24,000 without, and 16,500 without as long as 24,000 with. Distances to equal ``n`` of
600 pictures; minutes are of runs that go two at a time: they compare with each other only.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import MEASURES, ROOT, Measures, Rows, difference, error, lines, mean, over_seeds, row, train_two_at_a_time

WORK = ROOT / "runs" / "bench-tokens"
SEEDS = (0, 1, 2)
DROPPED = ("--base.token-dropping", "0.5")
ARMS = {
    "whole": ("all tokens, 24,000 latents", ("--stage2.samples", "24000")),
    "whole-less": ("all tokens, 16,500 latents", ("--stage2.samples", "16500")),
    "half": ("half dropped, 24,000 latents", ("--stage2.samples", "24000", *DROPPED)),
    "half-longer": ("half dropped, 34,000 latents", ("--stage2.samples", "34000", *DROPPED)),
}
SCALE = (
    "fashion-mnist --bpp 0.2 --data.at-most 20000 --stage1.samples 16000 --evaluation.classifier-samples 0 "
    "--evaluation.pictures 600 --evaluation.samples 600 --evaluation.step-counts 1"
).split()


def _minutes(found: dict[str, Any]) -> float:
    return sum(phase["seconds"] for phase in found["phases"] if phase["name"] == "stage 2") / 60


SHOWN: Measures = {
    **{what: MEASURES[what] for what in ("base bits", "generation")},
    "stage 2": ("minutes", _minutes),
    "training": ("PFLOP", lambda found: found["training_flops"]["base"] / 1e15),
}


def train(work: Path, seeds: Sequence[int]) -> None:
    """The autoencoder of each seed, then its base models; what is finished stays as it is."""
    train_two_at_a_time(work, {f"latents-s{s}": (*SCALE, "--stage2.samples", "0", "--seed", f"{s}") for s in seeds})
    frozen = {s: ("--stage1.autoencoder", str(work / f"latents-s{s}"), "--seed", f"{s}") for s in seeds}
    jobs = {f"{arm}-s{s}": (*SCALE, *words, *frozen[s]) for s in seeds for arm, (_, words) in ARMS.items()}
    train_two_at_a_time(work, jobs)


def rows(work: Path, seeds: Sequence[int]) -> Rows:
    """Means over the seeds of which all runs are done, and what dropping gains at equal time."""
    whole = [s for s in seeds if all((work / f"{arm}-s{s}" / "metrics.json").is_file() for arm in ARMS)]
    found = {arm: over_seeds(work, arm, whole, SHOWN) for arm in ARMS}
    told = [one for arm, (label, _) in ARMS.items() for one in lines(label, found[arm], SHOWN)]
    for time, plain, dropped in (("longer", "whole", "half-longer"), ("shorter", "whole-less", "half")):
        ratio = [b / a for a, b in zip(found[plain]["stage 2"], found[dropped]["stage 2"], strict=True)]
        if ratio:
            told.append(row(f"the {time} time, dropped / whole", mean(ratio), "", stderr=error(ratio), n=len(ratio)))
        nearer = (found[plain]["generation"], found[dropped]["generation"])
        told += difference(f"dropping, the {time} time: distance saved", *nearer, "kernel distance")
    return told


def main() -> None:
    """Train what is missing, then print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["report"])
    if parser.parse_args().part is None:
        train(WORK, SEEDS)
    for one in rows(WORK, SEEDS):
        spread = "" if one["stderr"] is None else f" ± {one['stderr']:.2g}"
        print(f"{one['what']}: {one['value']:.4g}{spread} {one['unit']} (n = {one['n']})")


if __name__ == "__main__":
    main()
