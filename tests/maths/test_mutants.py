"""The list of mutants and the tests stay together. ``make mutants`` runs it; here it is only read."""

import ast
import importlib.util
from pathlib import Path

HERE = Path(__file__).resolve().parent


def runner():
    specification = importlib.util.spec_from_file_location("unilat_mutants", HERE.parent / "mutants.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def theorems():
    """(file, test, docstring) of every test of the mathematics."""
    for path in sorted(HERE.glob("test_*.py")):
        if path.name in ("test_mutants.py", "test_annotations.py"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.name, node.name, ast.get_docstring(node) or ""


def test_every_mutant_applies():
    """Each old text stands once in its file and each change is a change."""
    mutants = runner().mutants()
    assert len(mutants) >= 40
    for mutant in mutants:
        assert not mutant.problem((runner().SOURCE / "unilat" / mutant.file).read_text(encoding="utf-8")), mutant
        assert mutant.old != mutant.new, mutant


def test_every_theorem_names_and_has_its_mutant():
    """``Kills:`` in its docstring, its name in the list; and the list names tests that exist."""
    named = {tuple(test.split("::")) for mutant in runner().mutants() for test in mutant.tests}
    present = {(file, test) for file, test, _ in theorems()}
    assert present - named == set()
    assert named - present == set()
    assert [test for _, test, text in theorems() if "Kills: " not in text] == []
