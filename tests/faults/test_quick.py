"""The quick form of the fault suite, in a process of its own: it forks, which other tests' threads do not survive."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import unilat

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults import __main__ as suite  # noqa: E402
from tests.faults import told  # noqa: E402
from tests.faults.command import Ended  # noqa: E402
from tests.faults.ground import leftovers  # noqa: E402
from tests.faults.rivals import RIVALS  # noqa: E402


@pytest.mark.timeout(600)
def test_no_fault_ends_badly_or_in_silence(tmp_path: Path) -> None:
    """Every kind of fault a few times. Kills: a save that is not whole or not told, damage that is believed, a process,
    a lock or a temporary file left behind."""
    log = tmp_path / "log.txt"
    words = [sys.executable, "-m", "tests.faults", "--quick", "--work", str(tmp_path / "work"), "--log", str(log)]
    paths = os.pathsep.join([str(Path(unilat.__file__).parents[1]), str(ROOT)])  # the library that is tested
    ended = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]
    lines = [line.split(", ", 3) for line in log.read_text(errors="replace").splitlines()]
    assert {line[2] for line in lines} == {"OK", "CLEAN"}
    assert Counter(line[0] for line in lines) == {name: kind.quick for name, kind in suite.KINDS.items() if kind.quick}


def test_a_budget_cuts_all_kinds_alike_and_a_row_counts_what_was_seen() -> None:
    """Kills: kinds one after the other, of which a budget leaves the last out; BAD or SILENT without a goal of 0."""
    trials = [*suite.order({"kill": 4, "stop": 2, "two": 8})]
    assert len({*trials}) == len(trials) == 14
    assert {name for name, _ in trials[:4]} == {"kill", "stop", "two"}
    counted = Counter({("kill", "OK"): 3, ("kill", "SILENT"): 1, ("two", "CLEAN"): 2})
    rows = suite.rows(counted)
    assert [(one["value"], one["n"], one["goal"], one["holds"]) for one in rows] == [(1, 4, 0, False), (0, 2, 0, True)]
    assert rows[0]["what"] == f"{suite.KINDS['kill'].row} (4 of 300 trials): 3 OK, 0 CLEAN, 0 BAD, 1 SILENT"
    assert rows[1]["what"] == f"{suite.KINDS['two'].row} (2 of 24 trials): 0 OK, 2 CLEAN, 0 BAD, 0 SILENT"


@pytest.mark.parametrize(
    ("ended", "seen"),
    [
        (Ended(2, "error: the disk is full", 3), ""),
        (Ended(0, "warning: x\nreport: y", 3), ""),
        (Ended(-9, "", 0, hung=True), "hung"),
        (Ended(0, "", 0, orphans=2), "2 orphans"),
        (Ended(1, "Traceback (most recent call last):\nKeyError: 'a'", 0), "traceback: KeyError: 'a'"),
        (Ended(1, "error: KeyError: a (UNILAT_TRACEBACK=1 shows where)", 0), "an error without a way out"),
    ],
)
def test_what_no_command_may_do(ended: Ended, seen: str) -> None:
    """Kills: a judge that lets one of them pass, or that takes an ordinary error for one."""
    assert ended.bad.startswith(seen) and bool(ended.bad) == bool(seen)


def test_temporary_files_and_locks_are_left_behind_and_nothing_else(tmp_path: Path) -> None:
    """Kills: one kind of them overlooked, ordinary files counted."""
    for name in (
        "a/.x.json.17.part",
        ".lock",
        "stage1/.tmp-3-9/model.safetensors",
        "stage1/step-1/model",
        "metrics.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert leftovers(tmp_path) == [
        ".lock", "a/.x.json.17.part", "stage1/.tmp-3-9", "stage1/.tmp-3-9/model.safetensors"
    ]  # fmt: skip


def test_rows_of_other_loops_are_counted_by_loop_and_fault(tmp_path: Path) -> None:
    """Kills: a comma in what was seen taken for a field, outcomes of one counted for another."""
    log = tmp_path / "log.txt"
    log.write_text("torch.save full, 0, BAD, a, b\ntorch.save full, 1, OK, c\nLightning full, 0, SILENT, d\n")
    rows = told.of_rivals(log)
    assert [(one["what"], one["value"], one["n"]) for one in rows] == [
        ("torch.save full: 1 OK, 0 CLEAN, 1 BAD, 0 SILENT", 1, 2),
        ("Lightning full: 0 OK, 0 CLEAN, 0 BAD, 1 SILENT", 1, 1),
    ]


def test_the_page_of_results_tells_what_was_measured() -> None:
    """Kills: counts of another measurement on the page, trials of other loops counted for ours."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text("utf-8"))["rows"]
    ours = [one for one in rows if one["goal"] == 0]
    theirs = {name: [one for one in rows if one["what"].startswith(name)] for name in RIVALS}
    failed = {name: f"{sum(one['value'] for one in some)}" for name, some in theirs.items()}
    text = (
        f"| {sum(one['value'] for one in ours)} of {sum(one['n'] for one in ours):,}, of "
        f"{sum(kind.full for kind in suite.KINDS.values()):,} that an hour makes; a torch.save loop, accelerate and "
        f"Lightning under four of the faults: {failed['torch.save']}, {failed['accelerate']} and {failed['Lightning']} "
        f"of {sum(one['n'] for one in theirs['Lightning'])} | [faults]"
    )
    assert text in (ROOT / "docs" / "results.md").read_text("utf-8")
