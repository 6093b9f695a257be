"""What dropping tokens is worth to the base model; ``benchmarks/training.py`` calls :func:`train` and :func:`rows`.

Base models of one frozen autoencoder a seed. With half of the tokens dropped a step takes about 0.7 of its time, so
34,000 latents take as long as 24,000 without, and 16,500 without as long as 24,000 with. Distances to equal ``n``.
"""

from collections.abc import Sequence
from pathlib import Path

from common import MEASURES, Measures, Rows, difference, error, lines, mean, over_seeds, row, train_two_at_a_time

from unilat.results import Results

DROPPED = ("--base.token-dropping", "0.5")
ARMS = {
    "whole": ("all tokens, 24,000 latents", ("--stage2.samples", "24000")),
    "whole-less": ("all tokens, 16,500 latents", ("--stage2.samples", "16500")),
    "half": ("half dropped, 24,000 latents", ("--stage2.samples", "24000", *DROPPED)),
    "half-longer": ("half dropped, 34,000 latents", ("--stage2.samples", "34000", *DROPPED)),
}


def _minutes(found: Results) -> float:
    return sum(phase.seconds for phase in found.costs.phases if phase.name == "stage 2") / 60


SHOWN: Measures = {
    **{what: MEASURES[what] for what in ("base bits", "generation")},
    "stage 2": ("minutes", _minutes),
    "training": ("PFLOP", lambda found: found.costs.training_flops["base"] / 1e15),
}


def train(work: Path, seeds: Sequence[int], latents: str, scale: Sequence[str]) -> None:
    """Base models of the runs ``work/LATENTS-sSEED``, trained with ``scale``; what is finished stays as it is."""
    frozen = {s: ("--stage1.autoencoder", str(work / f"{latents}-s{s}"), "--seed", f"{s}") for s in seeds}
    jobs = {f"{arm}-s{s}": (*scale, *words, *frozen[s]) for s in seeds for arm, (_, words) in ARMS.items()}
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
