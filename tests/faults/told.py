"""The results of the suite: benchmarks/results/faults.json and .md."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import common

OUTCOMES = ("OK", "CLEAN", "BAD", "SILENT")

PROTOCOL = (
    "`unilat` on its `tiny` preset (8 steps of stage 1, 3 of stage 2, a save every 2), each trial the command line in a"
    " process forked from one that has imported it. Oracle: SHA-256 of the whole state, the log and the results of an"
    " uninterrupted run. OK: the oracle's state, or what should be read; CLEAN: told in one line, exit code not 0 or"
    " the file named, nothing lost; BAD: a hang, a traceback, an orphan, a temporary file, work lost; SILENT: something"
    " wrong told as right. n trials without a failure bound its rate at 3/n. Rows of checkpoints truncated, flipped,"
    " zeroed, swapped, missing and of odd files call the reader that the commands call; the others go through the"
    " command line."
)


RIVALS = (
    " Rows of torch.save, accelerate and Lightning: the same faults against loops of 12 steps that save every 2, as"
    " their documentation shows (`python -m tests.faults.rivals`); any error counts as CLEAN where the next run ends in"
    " the oracle's state, and for a damaged file as soon as it is told, though the run cannot go on."
)


def of(what: str, counts: Sequence[int], goal: float | None = None) -> dict[str, Any]:
    """One row: how many trials ended in each outcome, and how many of them badly or in silence."""
    each = ", ".join(f"{count} {name}" for count, name in zip(counts, OUTCOMES, strict=True))
    return common.row(f"{what}: {each}", sum(counts[2:]), "BAD or SILENT", goal=goal, n=sum(counts))


def of_rivals(log: Path) -> list[dict[str, Any]]:
    """Rows of what other loops came to, of the log that ``tests.faults.rivals`` wrote."""
    lines = [line.split(", ", 3) for line in log.read_text("utf-8", "replace").splitlines()]
    counted = Counter((line[0], line[2]) for line in lines if len(line) == 4)
    names = dict.fromkeys(name for name, _ in counted)
    return [of(name, [counted[name, one] for one in OUTCOMES]) for name in names]


def write(rows: list[dict[str, Any]], rivals: Path | None) -> None:
    """Write both files."""
    more = of_rivals(rivals) if rivals else []
    common.write("faults", PROTOCOL + (RIVALS if more else ""), rows + more, command="make test-faults")
