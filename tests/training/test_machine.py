"""What a run is told of its machine."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unilat.training.machine import _commit, manifest, peak_memory


def test_peak_memory_is_this_process_own() -> None:
    """Kills: getrusage, which counts the peak of the parent that started this process, too."""
    held = np.ones(80 << 20, dtype=np.uint8)  # 80 MiB that the child never had
    words = "import sys; from unilat.training.machine import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert peak_memory() > held.nbytes / 2**20
    more = np.ones(3 * held.nbytes, dtype=np.uint8)
    again = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert abs(float(again.stdout) - float(child.stdout)) < 20
    words += "; import numpy; more = numpy.ones(240 << 20, numpy.uint8); print(peak_memory())"
    grown = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    before, after = map(float, grown.stdout.split())
    assert after - before > 0.9 * more.nbytes / 2**20


def test_peak_memory_in_mebibytes_of_a_known_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 MiB are 3,072 kB, and where there is no /proc, 3,072 KiB or on a Mac 3,145,728 bytes of getrusage.

    Kills: megabytes, what is resident now for what was at most, the children's memory, a Mac's bytes taken for KiB.
    """
    status = "Name:\tpython\nVmHWM:\t    3072 kB\nVmRSS:\t    2048 kB\n"
    usage = {resource.RUSAGE_SELF: 3072, resource.RUSAGE_CHILDREN: 7}
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: status)
    assert peak_memory() == 3.0
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=usage[who]))
    assert peak_memory() == 3.0
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=1024 * usage[who]))
    assert peak_memory() == 3.0


def test_a_manifest_says_how_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a setting that changes a run's speed tenfold and stands nowhere."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert manifest().waiting == "default"
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    assert manifest().waiting == "GOMP_SPINCOUNT=1000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert manifest().waiting == "OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT=1000"


def test_the_commit_is_that_of_the_code_and_says_when_files_differ(tmp_path: Path) -> None:
    """Kills: a tree's hash for the commit's, changed files passed over, a commit told of code that is in none."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    code = tmp_path / "machine.py"
    code.write_text("1\n")
    assert _commit(tmp_path) is None
    git("add", "machine.py")
    git("commit", "-q", "-m", "one")
    wanted = git("log", "-1", "--format=%H")
    assert _commit(tmp_path) == wanted
    code.write_text("2\n")
    assert _commit(tmp_path) == f"{wanted}+"
