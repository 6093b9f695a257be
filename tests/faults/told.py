"""The results of the suite: benchmarks/results/faults.json and .md."""

from typing import Any

from benchmarks import common

PROTOCOL = (
    "`unilat` on its `tiny` preset (8 steps of stage 1, 3 of stage 2, a save every 2), each trial the command line in a"
    " process forked from one that has imported it. Oracle: SHA-256 of the whole state, the log and the results of an"
    " uninterrupted run. OK: the oracle's state, or what should be read; CLEAN: told in one line, exit code not 0 or"
    " the file named, nothing lost; BAD: a hang, a traceback, an orphan, a temporary file, work lost; SILENT: something"
    " wrong told as right. n trials without a failure bound its rate at 3/n. Rows of checkpoints truncated, flipped,"
    " zeroed, swapped, missing and of odd files call the reader that the commands call; the others go through the"
    " command line."
)


def write(rows: list[dict[str, Any]], more: str = "") -> None:
    """Write both files."""
    common.write("faults", PROTOCOL + more, rows, command="make test-faults")
