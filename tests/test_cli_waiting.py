"""How threads wait at barriers: as torch does alone, asleep where others compute, as told where somebody has told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unilat.cli import waiting


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, running: int, processors: int, own: int) -> None:
    """One on which so many tasks run, this one among them, and this process may use ``own`` of the processors."""
    (folder / "loadavg").write_text(f"0.10 0.20 0.30 {running}/345 6789\n")
    monkeypatch.setattr(waiting, "LOAD", folder / "loadavg")
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(own)), raising=False)


@pytest.mark.parametrize(
    ("running", "processors", "own", "shared"),
    [(1, 2, 2, False), (2, 2, 2, True), (3, 2, 2, True), (2, 2, 1, False), (3, 2, 1, True), (31, 64, 2, False)],
)
def test_a_machine_is_shared_where_others_leave_too_few_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: int, processors: int, own: int, shared: bool
) -> None:
    """Kills: this process counted among the others, all processors taken for its own, and the reverse choice."""
    machine(monkeypatch, tmp_path, running, processors, own)
    assert waiting.shared() is shared
    assert waiting.chosen() == ({"GOMP_SPINCOUNT": "1000"} if shared else {})


def test_a_system_that_does_not_say_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: a traceback where there is no /proc, or another one."""
    monkeypatch.setattr(waiting, "LOAD", tmp_path / "none")
    assert waiting.chosen() == {}
    (tmp_path / "none").write_text("odd")
    assert waiting.chosen() == {}


@pytest.mark.parametrize(
    ("told", "before", "after"),
    [
        ({}, "", "None 1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "", "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "", "None 7"),
        ({}, "import torch;", "None None"),
    ],
)
def test_a_choice_comes_before_torch_and_after_the_users(told: dict[str, str], before: str, after: str) -> None:
    """Kills: a choice that comes when torch's threads have begun, or that wins over the user's."""
    code = (
        f"{before}import os; from unilat.cli import main, waiting; waiting.shared = lambda: True; main(['nothing']); "
    )
    code += "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    clean = {name: value for name, value in os.environ.items() if name not in waiting.WAITING}
    run = subprocess.run([sys.executable, "-c", code], env=clean | told, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == after
