"""Which networks, grid of latents and shares of time the `small` preset should have: Fashion-MNIST and emoji in colour.

    make bench-defaults                        everything that is not there yet (an hour of one core)
    python benchmarks/defaults.py report       what the cells that are there say
    python benchmarks/defaults.py first        one round alone: steps first final flops larger longer

A cell is a candidate (a change of `small`), a data set, a rule and a seed, and an ordinary run folder. Equal time: the
fastest CPU seconds of a step are measured, and each candidate sees as many examples as fit into the same seconds, by
its shares of autoencoder, settling and base model; no shares are those of today's lengths. Equal FLOPs: as many as fit
into the training FLOPs of today's cell. What counts examples (warm-up, averages) shrinks in proportion to a length.
First round: one seed of every candidate; the worse half by the mean logarithm of the generation distance on the
validation half of the held-out pictures is dropped, and who lost a decibel. The others get three seeds and are told on
the test half too, on which nothing is chosen. As many samples as pictures. Errors: over seeds and one run's jackknife
over pictures, root of the sum of squares. 0.2 bits per pixel wanted everywhere, one thread.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import ROOT, Rows, error, mean, row, write
from defaults_cells import (
    PARTS,
    Measured,
    Triple,
    at_equal_flops,
    combined,
    flops_of,
    halved,
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
"""CPU seconds of training that a cell of each data set has."""


@dataclass(frozen=True)
class Candidate:
    """A change of `small`, and the shares of time of autoencoder, settling and base."""

    what: str
    fields: Mapping[str, object]
    shares: Triple | None = None


BASE_LONGER = Triple(40, 15, 45)
GRID_16 = {
    "autoencoder__latent_channels": 2,
    "autoencoder__encoder__channels": (32,),
    "autoencoder__encoder__patch": (2, 2),
    "autoencoder__prior__patch": 4,
    "base__vit__patch": 4,
}
"""Latents of 16×16×2 in 16 tokens, and an encoder of 32 channels at that grid: no more FLOPs than 64 at 8×8."""
CANDIDATES = {
    "today": Candidate("today's: 8×8×8, 16 tokens", {}),
    "shares": Candidate("time 40:15:45", {}, BASE_LONGER),
    "grid": Candidate("16×16×2, encoder of 32 channels, time 40:15:45", GRID_16, BASE_LONGER),
    "grid-4": Candidate(
        "16×16×4, encoder of 32 channels, time 40:15:45", {**GRID_16, "autoencoder__latent_channels": 4}, BASE_LONGER
    ),
    "grid-base": Candidate("16×16×2, encoder of 32 channels, time 30:10:60", GRID_16, Triple(30, 10, 60)),
}
"""Of 32² pictures; the first is the control."""
COARSE_START = {
    "autoencoder__encoder__channels": (32,),
    "autoencoder__encoder__blocks": (2,),
    "autoencoder__encoder__strides": (),
    "autoencoder__latent_channels": 8,
    "autoencoder__prior__patch": 4,
    "base__vit__patch": 4,
}
LARGER = {
    "today": Candidate("today's: 8×8×32, 16 tokens, time 40:15:45", {}, BASE_LONGER),
    "grid": Candidate("16×16×8, encoder of 32 channels, 16 tokens, time 40:15:45", COARSE_START, BASE_LONGER),
    "grid-64": Candidate(
        "16×16×8, encoder of 32 channels, 64 tokens, time 40:15:45",
        {**COARSE_START, "autoencoder__prior__patch": 2, "base__vit__patch": 2},
        BASE_LONGER,
    ),
}
"""Of 64² pictures in colour."""
CHANNELS = {"fashion": 1, "emoji": 3, "emoji-64": 3}
LIGHT: dict[str, object] = {
    "evaluation__pictures": 64,
    "evaluation__samples": 16,
    "evaluation__rate_levels": 1,
    "evaluation__step_counts": (1,),
    "evaluation__features": "none",
    "evaluation__classifier_samples": 0,
}
"""What a cell's own evaluation does: little, for it is measured part by part afterwards."""
DATA: dict[str, dict[str, object]] = {
    "fashion": {"data__source": "fashion-mnist", "data__at_most": 8_400, "data__held_out_at_most": 700},
    "emoji": {"data__source": "emoji", "data__held_out": 0.2},
    "emoji-64": {"data__source": "emoji", "data__held_out": 0.2},
}


def configured(where: str, fields: Mapping[str, object]) -> RunConfig:
    """`small` on a data set, with a candidate's fields."""
    small = presets.get("small", size=64 if where == "emoji-64" else 32)
    return changed(small, {**LIGHT, **DATA[where], **fields})


def steps(where: str, candidate: Candidate) -> Triple:
    """CPU seconds of an example of each part, measured once on this machine and kept."""
    path = WORK / "steps.json"
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    config = configured(where, candidate.fields)
    name = f"{CHANNELS[where]}×{config.data.size[0]} {json.dumps(dict(candidate.fields), sort_keys=True)}"
    if name not in known:
        known[name] = asdict(seconds_of(config, CHANNELS[where]))
        path.write_text(json.dumps(known, indent=2, ensure_ascii=False), "utf-8")
    return Triple(**known[name])


def planned(where: str, candidate: Candidate, control: Candidate, rule: str) -> RunConfig:
    """The candidate as long as the rule says: ``time`` or ``flops``."""
    ours, theirs = configured(where, candidate.fields), configured(where, control.fields)
    cost, small = steps(where, candidate), theirs
    today = Triple(small.stage1.samples, small.stage1.settle, small.stage2.samples).times(steps(where, control))
    seen = lengths(SECONDS[where], cost, candidate.shares or today)
    if rule == "flops":
        spent = lengths(SECONDS[where], steps(where, control), control.shares or today)
        budget = spent.times(flops_of(theirs, CHANNELS[where])).total
        seen = at_equal_flops(seen, flops_of(ours, CHANNELS[where]), budget)
    return with_lengths(ours, seen)


def cell(table: Mapping[str, Candidate], where: str, name: str, seed: int, rule: str = "time") -> Path:
    """The folder of a finished cell, trained where it is not there."""
    folder = WORK / where / f"{name}-{rule}-s{seed}"
    if not (folder / "report.html").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        print(f"{time.strftime('%H:%M:%S')} {where} {name} {rule} seed {seed}", flush=True)
        config = replace(planned(where, table[name], table["today"], rule), seed=seed)
        trained(config, folder)
        print(f"  {measure(folder, where, PARTS[0])}", flush=True)
    return folder


def survivors() -> list[str]:
    """Names of the first round's better half, and today's; nothing until all of it is there."""
    found: dict[str, dict[str, Measured]] = {}
    for name in CANDIDATES:
        for where in ("fashion", "emoji"):
            folder = WORK / where / f"{name}-time-s0"
            if not (folder / "report.html").is_file():
                return []
            found.setdefault(name, {})[where] = measure(folder, where, PARTS[0])
    return halved(found, "today")


def first() -> None:
    """One seed of everything."""
    for name in CANDIDATES:
        for where in ("fashion", "emoji"):
            cell(CANDIDATES, where, name, 0)


def final() -> None:
    """The other seeds of today's and of who survived, best first."""
    names = survivors()
    for seed in SEEDS[1:]:
        for name in [*names[:1], "today", *names[1:]]:
            for where in ("fashion", "emoji"):
                cell(CANDIDATES, where, name, seed)


def flops() -> None:
    """The best on validation at the FLOPs of today's."""
    for seed in SEEDS:
        for where in ("fashion", "emoji"):
            for name in survivors()[:1]:
                if name != "today":
                    cell(CANDIDATES, where, name, seed, "flops")


def larger() -> None:
    """64² in colour."""
    for seed in SEEDS[:2]:
        for name in LARGER:
            cell(LARGER, "emoji-64", name, seed)


def told(label: str, folders: Sequence[Path], where: str, part: str) -> Rows:
    """What one candidate's cells are worth on one part."""
    found = [measure(folder, where, part) for folder in folders]
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


def costs(label: str, folders: Sequence[Path]) -> Rows:
    """Examples and seconds of a candidate's cells, by phase."""
    rows: Rows = []
    spent = [phases_of(folder) for folder in folders]
    for phase in ("stage 1", "encode", "stage 2"):
        seconds = [one[phase] for one in spent if phase in one]
        rows.append(row(f"{label}: {phase}", mean(seconds), "s on the clock", stderr=error(seconds), n=len(seconds)))
    configs = [json.loads((folder / "config.json").read_text("utf-8")) for folder in folders]
    one, two = configs[0]["stage1"], configs[0]["stage2"]
    for what, count in (("stage 1", one["samples"]), ("settling", one["settle"]), ("stage 2", two["samples"])):
        rows.append(row(f"{label}: examples of {what}", count, "examples", n=len(folders)))
    return rows


def gained(label: str, ours: Sequence[Path], theirs: Sequence[Path], where: str) -> Rows:
    """Paired differences to today's on the test part, seeds that both have."""
    pairs = [(a, b) for a in ours for b in theirs if a.name[-2:] == b.name[-2:]]
    both = [(measure(a, where, PARTS[1]), measure(b, where, PARTS[1])) for a, b in pairs]
    rows: Rows = []
    for what, unit, sign, jackknife in (
        ("psnr", "dB", 1, "psnr_error"),
        ("reconstruction", "kernel distance", -1, "reconstruction_error"),
        ("generation", "kernel distance", -1, "generation_error"),
    ):
        values = [sign * (getattr(a, what) - getattr(b, what)) for a, b in both]
        errors = [(getattr(a, jackknife) ** 2 + getattr(b, jackknife) ** 2) ** 0.5 for a, b in both]
        text = "PSNR gained" if what == "psnr" else f"{what} distance saved"
        spread = combined(values, errors)
        rows.append(
            row(
                f"{label} over today's, test: {text}",
                mean(values),
                unit,
                goal=0.0,
                at_least=True,
                stderr=spread,
                n=len(values),
            )
        )
    return rows


def rows() -> Rows:
    """All that is there."""
    names, lines = survivors(), list[dict[str, object]]()
    for where, table in (("fashion", CANDIDATES), ("emoji", CANDIDATES), ("emoji-64", LARGER)):
        today: list[Path] = []
        for name, candidate in table.items():
            for rule in ("time", "flops"):
                there = [WORK / where / f"{name}-{rule}-s{seed}" for seed in SEEDS]
                there = [folder for folder in there if (folder / "report.html").is_file()]
                if not there:
                    continue
                today = there if name == "today" else today
                label = f"{where}, equal {rule}, {candidate.what}"
                lines += told(label, there, where, PARTS[0])
                if name in [*names, "today"] or table is LARGER:
                    lines += told(label, there, where, PARTS[1])
                    lines += gained(label, there, today, where) if name != "today" else []
                lines += costs(label, there)
    return lines


ROUNDS = {"first": first, "final": final, "larger": larger, "flops": flops}


def main() -> None:
    """Train what is missing, then tell what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*ROUNDS, "report", []])
    chosen = parser.parse_args().part
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    for part in chosen or ROUNDS:
        if part != "report":
            ROUNDS[part]()
    if not chosen or "report" in chosen:
        protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
        print(write("defaults", protocol, rows()).with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
