"""unilat on Windows and macOS, simulated: no such machine is at hand, so what they lack is taken away from it here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import unilat

HERE, SOURCE = Path(__file__).parent, Path(unilat.__file__).parents[1]


@pytest.mark.parametrize("system", ["windows", "macos"])
def test_every_module_imports_and_a_run_is_trained_elsewhere(system: str, tiny_source: Path, tmp_path: Path):
    """All modules, and a run that stops, goes on, is encoded, decoded, reported and found whole. Kills: a name of
    ``os``, ``signal`` or ``mmap`` that only Linux has, a file of /proc that is taken for granted, bytes that Windows
    would write otherwise, a file removed or renamed while it is open, a file name that Windows does not take."""
    script = HERE / "elsewhere.py"
    done = subprocess.run(
        [sys.executable, script, system, tiny_source, tmp_path],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"UNILAT_TRACEBACK": "1", "UNILAT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    there = [path for path in (SOURCE / "unilat").rglob("*.py") if path.name != "__main__.py"]
    count, lines, spoilt = (int(word) for word in done.stdout.splitlines()[-1].split() if word.isdecimal())
    assert count == len(there) - 1 and lines >= 4 and spoilt == 0
