"""The lists of mutants and the tests stay together. ``make mutants`` runs them; here they are read, and a few run."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import mutants

HERE = Path(__file__).resolve().parent
ALL = mutants.mutants()
ROOMS = {"maths": 215, "nets": 182, "models": 130, "training": 110, "run": 233, "recipe": 41, "signals": 188}
ROOMS |= {"metrics": 90, "studies": 237, "report": 157, "interop": 8, "cli": 44}
"""Where numbers are made, and how many mutants stand there at the least."""


def theorems():
    """(file, test, docstring) of every test of the mathematics."""
    for path in sorted((HERE / "maths").glob("test_*.py")):
        if path.name == "test_annotations.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"maths/{path.name}", node.name, ast.get_docstring(node) or ""


def test_every_mutant_applies():
    """Each old text stands once in its file, each change is a change, and none stands twice."""
    for mutant in ALL:
        assert not mutant.problem((mutants.SOURCE / "unilat" / mutant.file).read_text(encoding="utf-8")), mutant
        assert mutant.old != mutant.new, mutant
    assert len(set(ALL)) == len(ALL)


def test_slips_of_fresh_eyes_apply():
    """The hundred of ``benchmarks/slips`` still stand in their files. Kills: a rebuild that leaves them behind."""
    slips = mutants.mutants(HERE.parent / "benchmarks" / "slips")
    assert len(slips) == 100
    for slip in slips:
        assert not slip.problem((mutants.SOURCE / "unilat" / slip.file).read_text(encoding="utf-8")), slip


def test_every_room_has_its_mutants():
    """Kills: a room that makes numbers and is left out, or a list that shrinks."""
    found = Counter(mutant.room for mutant in {(one.file, one.old, one.new): one for one in ALL}.values())
    assert {room: found[room] for room in ROOMS if found[room] < ROOMS[room]} == {}


def test_every_named_test_exists():
    """Kills: a list that names a test which was renamed; pytest would end with an error, not with a death."""
    for file, test in sorted({tuple(test.split("::")[:2]) for mutant in ALL for test in mutant.tests}):
        assert f"def {test.split('[')[0]}(" in (HERE / file).read_text(encoding="utf-8"), (file, test)


def test_every_theorem_names_and_has_its_mutant():
    """``Kills:`` in its docstring, its name in the list."""
    named = {tuple(test.split("::")) for mutant in ALL for test in mutant.tests}
    assert {(file, test) for file, test, _ in theorems()} - named == set()
    assert [test for _, test, text in theorems() if "Kills: " not in text] == []


@pytest.mark.parametrize("reason", ["", "a square root is none"])
def test_the_runner_tells_death_from_life(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A text that is there twice is an error, a test that fails a death, unless it was said to change nothing. Kills: a
    runner that calls everything dead."""
    home = tmp_path / "src" / "unilat"
    home.mkdir(parents=True)
    (home / "one.py").write_text("a = 1\nb = 2\nb = 2\n")
    (home / "x").write_text("why")
    for code in (0, 1, 5):
        monkeypatch.setattr(mutants, "run_forked", lambda *rest, code=code: code)
        told = mutants.outcome(mutants.Mutant("one.py", ("t",), "a = 1", "a = 2", reason), tmp_path / "src", home / "x")
        if code < 2:
            assert bool(told) == ((code == 0) == (not reason)), told
        else:
            assert told.startswith("error") and "why" in told
    assert "stands 2 times" in mutants.outcome(mutants.Mutant("one.py", ("t",), "b = 2", "b"), tmp_path / "src", home)
    assert (home / "one.py").read_text() == "a = 1\nb = 2\nb = 2\n"
