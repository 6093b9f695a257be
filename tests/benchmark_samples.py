"""What the tests of ``benchmarks/`` share: a script as a module on an empty folder, and finished runs made by hand."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from measured import measured, written
from unilat.results import Phase

FOLDER = Path(__file__).parents[1] / "benchmarks"
Opener = Callable[[str], ModuleType]
Row = dict[str, Any]


def opener(monkeypatch: pytest.MonkeyPatch, work: Path) -> Opener:
    """A function that gives ``benchmarks/NAME.py``, whose runs are looked for in ``work``.

    Under a name of its own: ``tests/training`` is called as one of the scripts is.
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("common", "levels", "tokens", "oracle", "step", "data_sets", "defaults_candidates", "defaults_cells"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def open_script(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"benchmark_{name}", script)
        spec.loader.exec_module(script)
        if hasattr(script, "WORK"):
            monkeypatch.setattr(script, "WORK", work)
        return script

    return open_script


def finished(folder: Path, bits: float = 0.2, *, distance: float = 0.5, stage1: float = 60.0, stage2: float = 30.0,
             **more: Any) -> None:  # fmt: skip
    """What a benchmark reads of a run; no two figures are alike. ``more`` is :func:`measured`'s."""
    times = (("stage 1", stage1 / 2), ("stage 1", stage1 / 2), ("stage 2", stage2), ("evaluate", 1e4))
    phases = tuple(Phase(name=name, seconds=seconds, peak_memory_mib=1.0) for name, seconds in times)
    written(folder, measured(bits, near=distance, phases=phases, **more))


def found(rows: list[Row], *words: str) -> Row:
    """The one row whose name holds all of these words."""
    (one,) = [row for row in rows if all(word in row["what"] for word in words)]
    return one


def says(row: Row, value: float, stderr: float | None, n: int | None, holds: bool | None) -> bool:
    """Whether a row has these figures; the comparisons fail where they stand."""
    assert row["value"] == pytest.approx(value, rel=1e-9), row
    assert row["stderr"] == (None if stderr is None else pytest.approx(stderr, rel=1e-9)), row
    assert (row["n"], row["holds"]) == (n, holds), row
    return True
