"""``benchmarks/step_before.py``: then over now, each by its own sources."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark_samples import found, opener, says


def test_a_step_of_then_stands_over_todays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: now over then, today's sources on both sides, one stage twice, losses of one side."""
    script = opener(monkeypatch, tmp_path)("step_before")
    asked: list[Any] = []

    def pair(left: Any, right: Any, blocks: int) -> Any:
        asked.append((left, right))
        losses = [[1.0, 2.0], [1.0, 2.0 if right["stage"] == 1 else 4.0]]
        return [0.9 + 0.1 * right["stage"]] * blocks, *(SimpleNamespace(warm={"losses": one}) for one in losses)

    monkeypatch.setattr(script, "pair", pair)
    rows = script.rows(tmp_path / "then", 3)
    assert [right for _, right in asked] == [{"side": "ours", "stage": 1}, {"side": "ours", "stage": 2}]
    for left, right in asked:
        assert left["worker"] == str(tmp_path / "then" / "benchmarks" / "step_worker.py")
        assert left["environment"] == {"PYTHONPATH": str(tmp_path / "then" / "src")} and left["stage"] == right["stage"]
    assert says(found(rows, "stage 1", "today's"), 1.0, None, 3, True)
    assert says(found(rows, "stage 2", "today's"), 1.1, None, 3, True)
    assert says(found(rows, "stage 1", "losses"), 0.0, None, None, None)
    assert says(found(rows, "stage 2", "losses"), 0.5, None, None, None)
