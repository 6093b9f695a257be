"""Which networks, grid of latents and shares of time the `small` preset should have: Fashion-MNIST and emoji in colour.

    make bench-defaults ARGS="--jobs 4"        everything that is not there yet, so many cells side by side
    python benchmarks/defaults.py report       what the cells that are there say
    python benchmarks/defaults.py first        one round alone: first final larger flops
    python benchmarks/defaults.py own report   three candidates at `small`'s own length: defaults_own.md
    python benchmarks/defaults.py own-64 report   two at 64²: defaults_64_own.md
    python benchmarks/defaults.py larger report   pictures of 64² alone: defaults_64.md
    python benchmarks/defaults.py --only grid  two candidates instead of all

A cell is a candidate (a change of `small`), a data set, a rule and a seed, and an ordinary run folder. Equal time: the
fastest CPU seconds of a step are measured, and each candidate sees as many examples as fit into the same seconds, by
its shares of autoencoder, settling and base model; no shares are those of today's lengths. Equal FLOPs: as many as fit
into the training FLOPs of today's cell. What counts examples (warm-up, averages) shrinks in proportion to a length.
First round: one seed of every candidate; the worse half by the mean logarithm of the generation distance on the
validation half of the held-out pictures is dropped, and who lost a decibel. The others get three seeds and are told on
the test half too, on which nothing is chosen. Own length: three candidates, as long as `small` itself took until 28
November 2026, one to three seeds, as n says, and today's autoencoders with a base model of 140,000 latents, which took
longer. As many samples as pictures. Errors: over seeds and one run's jackknife over pictures, root of the sum of
squares. 0.2 bits per pixel wanted everywhere, one thread a cell.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import ROOT, Rows, error, make_command, mean, one_commit, row, write
from defaults_candidates import CANDIDATES, LARGER, OWN, OWN_64, Candidate
from defaults_cells import (
    PARTS,
    Measured,
    Triple,
    at_equal_flops,
    combined,
    flops_of,
    halved,
    least,
    lengths,
    measure,
    phases_of,
    seconds_of,
    trained,
    with_lengths,
)

from unilat.recipe import presets
from unilat.recipe.config import RunConfig
from unilat.run.begin import changed

WORK = ROOT / "runs" / "bench-defaults"
SEEDS = (0, 1, 2)
SECONDS = {"fashion": 60.0, "emoji": 60.0, "emoji-64": 90.0}
"""CPU seconds of training that a cell of each data set has; of sets that are not named, what `small` took."""
PASSES = 3
"""Times that steps are timed."""
RULES = ("time", "flops", "base")
LONGER = 140_000
"""Latents of a base model by the rule ``base``: about as many as 45 hundredths of the time hold."""
SETS = {
    "fashion": CANDIDATES, "emoji": CANDIDATES, "emoji-64": LARGER, "fashion-own": OWN, "emoji-own": OWN,
    "emoji-64-own": OWN_64,
}  # fmt: skip
SMALL_SETS, OWN_SETS = ("emoji", "fashion"), ("emoji-own", "fashion-own")
SHORT_SETS = tuple(where for where in SETS if not where.endswith("-own"))
CHANNELS = {where: 1 if where.startswith("fashion") else 3 for where in SETS}
LIGHT: dict[str, object] = {
    "evaluation__pictures": 64,
    "evaluation__samples": 16,
    "evaluation__rate_levels": 1,
    "evaluation__step_counts": (1,),
    "evaluation__features": "none",
    "evaluation__classifier_samples": 0,
}
"""What a cell's own evaluation does: little, for it is measured part by part afterwards."""
EARLIER = {"stage2__samples": 50_000}
"""What `small` had when this was measured, and until 28 November 2026."""
DATA: dict[str, dict[str, object]] = {
    "fashion": {"data__source": "fashion-mnist", "data__at_most": 8_400, "data__held_out_at_most": 700},
    "emoji": {"data__source": "emoji", "data__held_out": 0.2},
    "emoji-64": {"data__source": "emoji", "data__held_out": 0.2},
    "fashion-own": {"data__source": "fashion-mnist", "data__held_out_at_most": 2_000},
    "emoji-own": {"data__source": "emoji", "data__held_out": 0.2},
    "emoji-64-own": {"data__source": "emoji", "data__held_out": 0.2},
}


def configured(where: str, fields: Mapping[str, object]) -> RunConfig:
    """`small` on a data set, with a candidate's fields."""
    small = presets.get("small", size=64 if where.startswith("emoji-64") else 32)
    return changed(small, {**LIGHT, **EARLIER, **DATA[where], **fields})


def steps(where: str, candidate: Candidate) -> Triple:
    """CPU seconds of an example of each part, measured once on this machine and kept.

    All candidates of the data set are timed in turn, :data:`PASSES` times over, and the least of each part is taken:
    what else the machine does then weighs on none of them alone.
    """
    path, size = WORK / "steps.json", configured(where, {}).data.size[0]
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def name(one: Candidate) -> str:
        return f"{CHANNELS[where]}×{size} {json.dumps(dict(one.fields), sort_keys=True)}"

    if name(candidate) not in known:
        asked = {name(one): configured(where, one.fields) for one in SETS[where].values()}
        turns = [[seconds_of(config, CHANNELS[where]) for config in asked.values()] for _ in range(PASSES)]
        known |= {one: asdict(least(found)) for one, found in zip(asked, zip(*turns, strict=True), strict=True)}
        path.write_text(json.dumps(known, indent=2, ensure_ascii=False), "utf-8")
    return Triple(**known[name(candidate)])


def planned(where: str, candidate: Candidate, control: Candidate, rule: str) -> RunConfig:
    """The candidate as long as the rule says: ``time`` or ``flops``."""
    ours, theirs = configured(where, candidate.fields), configured(where, control.fields)
    cost, small = steps(where, candidate), theirs
    today = Triple(small.stage1.samples, small.stage1.settle, small.stage2.samples).times(steps(where, control))
    seconds = SECONDS.get(where, today.total)
    seen = lengths(seconds, cost, candidate.shares or today)
    if rule == "flops":
        spent = lengths(seconds, steps(where, control), control.shares or today)
        budget = spent.times(flops_of(theirs, CHANNELS[where])).total
        seen = at_equal_flops(seen, flops_of(ours, CHANNELS[where]), budget)
    return with_lengths(ours, seen)


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    where: str
    name: str
    seed: int
    rule: str = "time"

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return WORK / self.where / f"{self.name}-{self.rule}-s{self.seed}"

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return (self.folder / "report.html").is_file()

    def config(self) -> RunConfig:
        """What it trains; by the rule ``base`` a longer second stage alone, on the equal-time autoencoder."""
        table, longer = SETS[self.where], self.rule == "base"
        made = planned(self.where, table[self.name], table["today"], "time" if longer else self.rule)
        kept = {"stage1__autoencoder": str(replace(self, rule="time").folder), "stage2__samples": LONGER}
        return replace(changed(made, kept) if longer else made, seed=self.seed)

    def worth(self, part: str) -> Measured:
        """What it is worth once it is done."""
        return measure(self.folder, self.where, part)


def make(task: tuple[Cell, RunConfig]) -> str:
    """Train a cell and measure it on validation; the line that tells it."""
    one, config = task
    torch.set_num_threads(1)
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    trained(config, one.folder)
    return f"{time.strftime('%H:%M:%S')} {one}: {one.worth(PARTS[0])}"


def run(cells: Sequence[Cell], jobs: int) -> None:
    """Make those that are not done, ``jobs`` side by side; steps are timed before, alone."""
    tasks = [(one, one.config()) for one in cells if not one.done]
    with ProcessPoolExecutor(max(1, jobs), mp_context=multiprocessing.get_context("spawn")) as pool:
        for line in pool.map(make, tasks):
            print(line, flush=True)


def first() -> list[Cell]:
    """One seed of everything."""
    return [Cell(where, name, 0) for name in CANDIDATES for where in SMALL_SETS]


def survivors() -> list[str]:
    """Names of the first round's better half, best first, and today's; nothing until all of it is there."""
    if not all(one.done for one in first()):
        return []
    worth = {name: {where: Cell(where, name, 0).worth(PARTS[0]) for where in SMALL_SETS} for name in CANDIDATES}
    return halved(worth, "today")


def final() -> list[Cell]:
    """The other seeds of today's and of who survived, best first."""
    names = survivors()
    order = dict.fromkeys([*names[:1], "today", *names[1:]]) if names else {}
    return [Cell(where, name, seed) for seed in SEEDS[1:] for name in order for where in SMALL_SETS]


def flops() -> list[Cell]:
    """The best of the first round at the FLOPs of today's."""
    best = [name for name in survivors()[:1] if name != "today"]
    return [Cell(where, name, seed, "flops") for seed in SEEDS for name in best for where in SMALL_SETS]


def larger() -> list[Cell]:
    """64² in colour."""
    return [Cell("emoji-64", name, seed) for seed in SEEDS for name in LARGER]


def own() -> list[Cell]:
    """`small`'s own length, a candidate after the other, for not all may be there before a report. The last: a
    longer base model on the autoencoders of today's, so in more time than the others."""
    equal = [Cell(where, name, seed) for name in OWN for seed in SEEDS for where in OWN_SETS]
    return [*equal, *(Cell(where, "today", seed, "base") for seed in SEEDS for where in OWN_SETS)]


def own_64() -> list[Cell]:
    """The same of 64²."""
    return [Cell("emoji-64-own", name, seed) for seed in SEEDS for name in OWN_64]


def told(label: str, cells: Sequence[Cell], part: str) -> Rows:
    """What one candidate's cells are worth on one part."""
    found = [one.worth(part) for one in cells]
    n = len(found)

    def line(what: str, unit: str, values: Sequence[float], errors: Sequence[float] | None = None) -> Rows:
        spread = combined(values, errors) if errors else error(values)
        return [row(f"{label}, {part}: {what}", mean(values), unit, stderr=spread, n=n)]

    bits = [100 * (one.bits / one.wanted - 1) for one in found]
    return [
        *line("PSNR", "dB", [one.psnr for one in found], [one.psnr_error for one in found]),
        *line(
            "reconstruction",
            "kernel distance",
            [one.reconstruction for one in found],
            [one.reconstruction_error for one in found],
        ),
        *line(
            "generation", "kernel distance", [one.generation for one in found], [one.generation_error for one in found]
        ),
        *line("bits measured over wanted", "% more", bits),
    ]


def costs(label: str, cells: Sequence[Cell]) -> Rows:
    """Examples and seconds of a candidate's cells, by phase."""
    rows: Rows = []
    spent = [phases_of(one.folder) for one in cells]
    for phase in ("stage 1", "encode", "stage 2"):
        seconds = [one[phase] for one in spent if phase in one]
        rows.append(row(f"{label}: {phase}", mean(seconds), "s on the clock", stderr=error(seconds), n=len(seconds)))
    config = json.loads((cells[0].folder / "config.json").read_text("utf-8"))
    one, two = config["stage1"], config["stage2"]
    for what, count in (("stage 1", one["samples"]), ("settling", one["settle"]), ("stage 2", two["samples"])):
        rows.append(row(f"{label}: examples of {what}", count, "examples", n=len(cells)))
    return rows


def gained(label: str, ours: Sequence[Cell], theirs: Sequence[Cell]) -> Rows:
    """Differences to today's on the test part, seed by seed of those that both have."""
    pairs = [(a.worth(PARTS[1]), b.worth(PARTS[1])) for a in ours for b in theirs if a.seed == b.seed]
    rows: Rows = []
    for what, unit, sign in (
        ("psnr", "dB", 1),
        ("reconstruction", "kernel distance", -1),
        ("generation", "kernel distance", -1),
    ):
        values = [sign * (getattr(a, what) - getattr(b, what)) for a, b in pairs]
        errors = [math.hypot(getattr(a, f"{what}_error"), getattr(b, f"{what}_error")) for a, b in pairs]
        text = "PSNR gained" if what == "psnr" else f"{what} distance saved"
        spread, name = combined(values, errors), f"{label} over today's, test: {text}"
        rows.append(row(name, mean(values), unit, goal=0.0, at_least=True, stderr=spread, n=len(values)))
    return rows


def rows(sets: Sequence[str]) -> Rows:
    """All that is there of these data sets."""
    kept, lines = {*survivors(), "today"}, list[dict[str, object]]()
    for where in sets:
        table = SETS[where]
        today = [one for seed in SEEDS if (one := Cell(where, "today", seed)).done]
        for name, candidate in table.items():
            for rule in RULES:
                there = [one for seed in SEEDS if (one := Cell(where, name, seed, rule)).done]
                if not there:
                    continue
                by = f"equal {rule}" if rule != "base" else f"base model of {LONGER:,} latents instead"
                label = f"{where.replace('-own', ', own length')}, {by}, {candidate.what}"
                lines += told(label, there, PARTS[0])
                if name in kept or table is not CANDIDATES:
                    lines += told(label, there, PARTS[1])
                    lines += gained(label, there, today) if there != today and today else []
                lines += costs(label, there)
    return lines


def commit_of(sets: Sequence[str]) -> str | None:
    """The one commit of the cells that are there; None where there are none."""
    cells = (Cell(where, *one) for where in sets for one in itertools.product(SETS[where], SEEDS, RULES))
    done = [one.folder for one in cells if one.done]
    return one_commit(done) if done else None


ALONE = {
    "own": ("defaults_own", OWN_SETS),
    "larger": ("defaults_64", ("emoji-64",)),
    "own-64": ("defaults_64_own", ("emoji-64-own",)),
}
"""Rounds that have a result file of their own where they are named, and the sets it tells of."""
ROUNDS = {"first": first, "final": final, "larger": larger, "flops": flops, "own": own, "own-64": own_64}


def main() -> None:
    """Train what is missing, then tell what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*ROUNDS, "report", []])
    parser.add_argument("--jobs", type=int, default=1, help="cells trained side by side, one thread each")
    parser.add_argument("--only", default="", help="candidates of 32² to compare with today's, by name: grid,shares")
    asked = parser.parse_args()
    if unknown := {*asked.only.split(",")} - {*CANDIDATES, ""}:
        parser.error(f"no candidate {', '.join(unknown)}: there are {', '.join(CANDIDATES)}")
    for name in [name for name in CANDIDATES if asked.only and name not in ("today", *asked.only.split(","))]:
        del CANDIDATES[name]
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    for part in asked.part or [name for name in ROUNDS if not name.startswith("own")]:
        if part != "report":
            run(ROUNDS[part](), asked.jobs)
    if not asked.part or "report" in asked.part:
        protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
        name, sets = next((ALONE[part] for part in asked.part if part in ALONE), ("defaults", SHORT_SETS))
        command = make_command("defaults", sys.argv[1:])
        path = write(name, protocol, rows(sets), command=command, commit=commit_of(sets))
        print(path.with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
