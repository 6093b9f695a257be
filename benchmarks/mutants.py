"""Which slips the tests see: every mutant of the lists, and a hundred by people who had not seen the tests.

The hundred (``benchmarks/slips``, ten a room) were made on 2026-11-26 from the sources alone, by two engineers who had
opened no test, and sealed before a test was run. They are run against the tests of their room, not against chosen ones.
"""

import json
import re
import subprocess
import sys
import time

from common import RESULTS, ROOT, Rows, row, write

PROTOCOL = (
    "each slip in a copy of src, its tests in a forked process, two workers; a slip is dead if a test fails; slips "
    "that change nothing are named with their reason and not counted"
)


def died(title: str, goal: float, *words: str) -> Rows:
    """One row a room, and the minutes all took."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "tests/mutants.py", *words], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout)
    rooms = re.findall(r"^  (\w+): (\d+) of (\d+) died$", done.stdout, re.MULTILINE)
    rows = [
        row(f"{title}: {name}", int(n) / int(of), "share", goal=goal, at_least=True, n=int(of)) for name, n, of in rooms
    ]
    return [*rows, row(f"{title}: time", (time.monotonic() - start) / 60, "minutes", goal=30.0, n=len(rooms))]


def kept(name: str, rows: Rows) -> Rows:
    """The rows, and those of the rooms of an earlier result that were not tried again."""
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []
    new = {one["what"]: one for one in rows}
    return [new.pop(one["what"], one) for one in old] + list(new.values())


def main() -> None:
    """``mutants`` (half an hour), ``slips`` (as long again), or both; further words pick files whose rooms are kept."""
    part, words = sys.argv[1:2], sys.argv[2:]
    if part != ["slips"]:
        rows = died("mutants that died", 1.0, *words)
        write("mutants", PROTOCOL, kept("mutants", rows[:-1]) if words else rows)
    if part != ["mutants"]:
        rows = died("slips of fresh eyes that died", 0.9, "--lists", "benchmarks/slips", *words)
        write("slips", PROTOCOL, kept("slips", rows[:-1]) if words else rows)


if __name__ == "__main__":
    main()
