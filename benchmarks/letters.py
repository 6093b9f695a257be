"""What `make run` makes: letters of twelve faces, of which pairs of letter and face were never trained on.

    make bench-letters                        one run (10 minutes with its slack)
    make bench-letters ARGS="--seeds 3"       several
    python benchmarks/letters.py --run runs/glyphs   rows of a finished run

`unilat train glyphs` as it is, alone on the machine. Samples are of the letter and face of each held-out picture,
which no training picture has together. Two classifiers learn the letters and faces of the training pictures; what they
name rightly of the samples is told over what they name of the held-out pictures themselves. The goals of the distance
and of the PSNR are half of and not less than what the default run had before 27 November 2026 (0.65 and 31.6 dB), when
samples were of faces alone and other pictures were held out. Minutes are of all phases of `unilat train` on the clock.
The slack is what the run's prior pays on held-out pictures over a larger one, refitted by `unilat verify`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ROOT, Rows, error, make_command, mean, one_commit, row, write

from unilat.results import Results, read

WORK = ROOT / "runs" / "bench-letters"
GOALS = {"PSNR": 31.6, "generation": 0.325, "character": 0.85, "face": 0.85, "minutes": 8.0, "slack": 0.02}
NAMES = {"character": "samples named rightly over real ones, character", "face": "the same, face"}


def figures(found: Results, slack: dict[str, Any]) -> dict[str, float]:
    """What is told of one run; ``slack`` is that of its ``verify.json``."""
    assert found.generation is not None and found.reconstruction.distance is not None
    judged = {one.of: one.ratio for one in found.judged}
    return {
        "bits": found.bits.value,
        "PSNR": found.reconstruction.psnr.value,
        "reconstruction": found.reconstruction.distance.kernel.value,
        "generation": found.generation.kernel.value,
        "character": judged["character"],
        "face": judged["face"],
        "minutes": sum(phase.seconds for phase in found.costs.phases) / 60,
        "slack": slack["value"],
    }


def rows(runs: list[Results], slacks: list[dict[str, Any]]) -> Rows:
    """Means over the runs; of a single one the errors over its pictures."""
    found = [figures(one, slack) for one, slack in zip(runs, slacks, strict=True)]
    one = runs[0]
    assert one.generation is not None and one.reconstruction.distance is not None
    alone = {
        "bits": one.bits.stderr,
        "PSNR": one.reconstruction.psnr.stderr,
        "reconstruction": one.reconstruction.distance.kernel.stderr,
        "generation": one.generation.kernel.stderr,
        "slack": slacks[0]["stderr"],
    }

    def line(what: str, unit: str, at_least: bool = False) -> Rows:
        values = [each[what] for each in found]
        spread = error(values) if len(values) > 1 else alone.get(what)
        name = NAMES.get(what, what)
        return [row(name, mean(values), unit, goal=GOALS.get(what), at_least=at_least, stderr=spread, n=len(values))]

    return [
        *line("bits", "bits per pixel, 0.2 wanted"),
        *line("PSNR", "dB", at_least=True),
        *line("reconstruction", "kernel distance"),
        *line("generation", "kernel distance"),
        *line("character", "share", at_least=True),
        *line("face", "share", at_least=True),
        *line("minutes", "minutes, two threads"),
        *line("slack", "of the bits under a larger, refitted prior"),
    ]


def main() -> None:
    """Train what is missing, then write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--run", type=Path, help="rows of this finished run alone, by the commit in its manifest")
    asked = parser.parse_args()
    folders = [asked.run] if asked.run else [WORK / f"s{seed}" for seed in range(asked.seeds)]
    for seed, folder in enumerate(folders):
        if not (folder / "metrics.json").is_file():
            words = ("train", "glyphs", "--seed", str(seed), "--out", str(folder))
            subprocess.run([sys.executable, "-m", "unilat", *words], check=True)
    for folder in folders:
        if not (folder / "verify.json").is_file():
            subprocess.run([sys.executable, "-m", "unilat", "verify", str(folder)], check=False)  # 1: beyond a limit
    slacks = [json.loads((folder / "verify.json").read_text("utf-8"))["slack"] for folder in folders]
    commit = one_commit(folders)
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    made = rows([read(folder / "metrics.json") for folder in folders], slacks)
    path = write("letters", protocol, made, command=make_command("letters", sys.argv[1:]), commit=commit)
    print(path.with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
