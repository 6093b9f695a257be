"""The arithmetic that every benchmark shares: goals, means, standard errors, lines, files; each with a case by hand."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmark_samples import finished, opener, says


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``benchmarks/common.py``, writing into the test's folder."""
    script = opener(monkeypatch, tmp_path)("common")
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(script, "machine", lambda *_: {"cpu": "one", "load": [0.5]})
    return script


@pytest.mark.parametrize(
    ("value", "goal", "at_least", "holds"),
    [
        (0.9, 1.0, False, True), (1.0, 1.0, False, True), (1.1, 1.0, False, False),
        (0.9, 1.0, True, False), (1.0, 1.0, True, True), (1.1, 1.0, True, True), (-5.0, 0.0, False, True),
        (0.5, (0.6, 0.9), False, False), (0.6, (0.6, 0.9), False, True), (0.9, (0.6, 0.9), False, True),
        (0.95, (0.6, 0.9), False, False), (0.95, (0.6, 0.9), True, False), (0.0, 0.0, True, True),
        (None, 1.0, False, False), (math.nan, 1.0, False, False), (-math.inf, 1.0, False, False),
        (math.inf, 1.0, True, False), (0.9, None, False, None), (math.nan, None, False, None),
    ],
)  # fmt: skip
def test_a_goal_is_held_or_not(common: ModuleType, value: Any, goal: Any, at_least: bool, holds: bool | None) -> None:
    """Kills: a goal read the other way round, an end that is outside, NaN or nothing that holds, an interval with one
    open end, a row without a goal that is said to hold."""
    row = common.row("what", value, "unit", goal=goal, at_least=at_least, stderr=0.5, n=7)
    assert row["holds"] is holds and (row["stderr"], row["n"], row["unit"]) == (0.5, 7, "unit")
    assert row["goal"] == (f">= {goal:g}" if at_least and isinstance(goal, float) else goal)


def test_means_and_standard_errors(common: ModuleType) -> None:
    """Of 1, 2 and 6: mean 3, variance (4 + 1 + 9) / 2 = 7, error √(7 / 3). Kills: a spread for an error, n for n − 1,
    an error of one seed."""
    assert common.mean([1.0, 2.0, 6.0]) == 3.0 and math.isnan(common.mean([]))
    assert common.error([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(7 / 3))
    assert common.error([2.0]) is None and common.error([]) is None and common.error([2.0, 2.0]) == 0.0


def test_a_difference_has_the_error_of_both(common: ModuleType) -> None:
    """Left 3, 5 (4 ± 1), right 1, 1.5, 2 (1.5 ± √(1 / 12)). Kills: the sides exchanged, errors added or of one side,
    n of the longer side, a smallest gain read as a largest."""
    (row,) = common.difference("what", [3.0, 5.0], [1.0, 1.5, 2.0], "dB", goal=2.0)
    assert says(row, 2.5, math.sqrt(1 + 1 / 12), 2, True) and row["unit"] == "dB" and row["goal"] == ">= 2"
    (row,) = common.difference("what", [1.0], [1.0, 2.0])
    assert says(row, -0.5, None, 1, False)
    assert common.difference("what", [], [1.0]) == common.difference("what", [1.0], []) == []


def test_lines_between_points(common: ModuleType) -> None:
    """Between (1, 10), (3, 20) and (7, 0), given in another order. Kills: the shares of both ends exchanged, a line
    that is continued beyond the points, points in the order they came."""
    points = [(7.0, 0.0), (1.0, 10.0), (3.0, 20.0)]
    found = [common.interpolated(x, points) for x in (1.0, 1.5, 3.0, 4.0, 7.0)]
    assert found == pytest.approx([10.0, 12.5, 20.0, 15.0, 0.0])
    assert math.isnan(common.interpolated(0.9, points)) and math.isnan(common.interpolated(7.1, points))
    assert math.isnan(common.interpolated(1.0, [])) and common.interpolated(2.0, [(2.0, 5.0), (2.0, 5.0)]) == 5.0


def test_each_measure_is_read_where_it_stands(common: ModuleType, tmp_path: Path) -> None:
    """Two seeds of three are done, one has no base model. Kills: base bits for bits, one distance for the other, a
    missing figure counted as a number or as a seed."""
    finished(tmp_path / "a-s0", bits=0.1, base_bits=0.2, psnr=20.0, distance=0.3, generation=0.4)
    finished(tmp_path / "a-s2", bits=0.3, psnr=26.0, distance=0.5)
    found = common.over_seeds(tmp_path, "a", (0, 1, 2))
    assert found == {"bits": [0.1, 0.3], "base bits": [0.2], "PSNR": [20.0, 26.0], "reconstruction": [0.3, 0.5],
                     "generation": [0.4]}  # fmt: skip
    rows = {row["what"]: row for row in common.lines("a", {**found, "generation": []})}
    assert list(rows) == ["a: bits", "a: base bits", "a: PSNR", "a: reconstruction"]
    assert says(rows["a: PSNR"], 23.0, 3.0, 2, None) and rows["a: PSNR"]["unit"] == "dB"
    assert says(rows["a: base bits"], 0.2, None, 1, None) and rows["a: reconstruction"]["unit"] == "kernel distance"


def test_the_page_shows_what_the_file_holds(common: ModuleType) -> None:
    """Kills: a row that is left out, a missed goal that is not seen, figures cut to nothing, another command."""
    rows = [
        common.row("a", 0.123456, "dB", goal=(0.1, 0.2), stderr=0.00012348, n=3),
        common.row("b", 123456.7, "s", goal=1.0),
        common.row("c", 2.5e12, "FLOP", goal=1.0, at_least=True),
        common.row("d", None, "ratio"),
    ]
    page = common.write("two_words", "How it was done.", rows).with_suffix(".md").read_text("utf-8")
    assert page.splitlines()[-4:] == [
        "| a | 0.1235 | dB | 0.0001235 | 3 | 0.1 to 0.2 | yes |",
        "| b | 123457 | s | – | – | 1 | **no** |",
        "| c | 2.5e+12 | FLOP | – | – | >= 1 | yes |",
        "| d | – | ratio | – | – | – | – |",
    ]
    told = json.loads((common.RESULTS / "two_words.json").read_text("utf-8"))
    assert told["rows"] == json.loads(json.dumps(rows)) and told["command"] == "make bench-two-words"
    assert told["protocol"] == "How it was done." and told["machine"] == {"cpu": "one", "load": [0.5]}


def test_rows_of_older_runs_say_so(common: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: rows made by a later commit than their runs that pass for one commit's, and a sentence where it is one."""
    monkeypatch.setattr(common.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="b" * 40 + "\n"))
    for commit, more in (
        ("a" * 40, f" The runs are of this commit; commit {'b' * 12} made rows of them."),
        ("b" * 40, ""),
    ):
        common.write("kept", "Done.", [], commit=commit)
        told = json.loads((common.RESULTS / "kept.json").read_text("utf-8"))
        assert (told["commit"], told["protocol"]) == (commit, f"Done.{more}")


def test_parts_are_gathered_in_their_order(common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that have no rows are run, or those that are named, anew; the report has all. Kills: a part measured twice,
    one that is forgotten, old rows under a new run."""
    ran: list[str] = []

    def part(name: str) -> Any:
        return lambda: (ran.append(name), [common.row(f"{name} {len(ran)}", 1.0, "")])[1]

    def called(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        common.gather("parts", "", tmp_path, {"b": part("b"), "a": part("a")})
        return [row["what"] for row in json.loads((common.RESULTS / "parts.json").read_text("utf-8"))["rows"]]

    assert called("a") == ["a 1"] and called() == ["b 2", "a 1"] and called() == ["b 2", "a 1"]
    assert called("b") == ["b 3", "a 1"] and called("report") == ["b 3", "a 1"] and ran == ["a", "b", "b"]


def test_two_runs_at_a_time(common: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a third process that spoils the times, a finished run trained again, a failure that passes."""
    alive, most, started = [0], [0], []

    class Process:
        """Ends when it is asked for the third time."""

        def __init__(self, returncode: int) -> None:
            self.left, self.returncode = 3, returncode

        def poll(self) -> int | None:
            self.left -= 1
            alive[0] -= self.left == 0
            return self.returncode if self.left <= 0 else None

    def start(*words: str, threads: int, log: Path) -> Process:
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        started.append((words, threads))
        return Process(int("bad" in words))

    monkeypatch.setattr(common, "unilat", start)
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "report.html").write_text("")
    common.train_two_at_a_time(tmp_path, {name: ("glyphs", name) for name in ("one", "done", "two", "three")})
    assert [words for words, _ in started] == [
        ("train", "glyphs", name, "--out", str(tmp_path / name)) for name in ("one", "two", "three")
    ]
    assert most[0] == 2 and {threads for _, threads in started} == {1}
    with pytest.raises(SystemExit, match="five ended with 1"):
        common.train_two_at_a_time(tmp_path, {"five": ("bad",)})
