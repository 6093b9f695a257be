"""The SLURM example, played by two gloo processes: a signal before the time is over, the queue, the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import unilat
from unilat.run.folder import RunFolder

EXAMPLE = Path(__file__).parents[1] / "examples" / "train.slurm"
SRUN = """#!{python}
import os, signal, subprocess, sys, time
from pathlib import Path
command = sys.argv[2:]
tasks = [subprocess.Popen(command, env=os.environ | {{"SLURM_PROCID": i, "SLURM_LOCALID": i}}) for i in "01"]
log, first = Path({log!r}), not Path({again!r}).exists()
while first and any(task.poll() is None for task in tasks):
    if log.is_file() and log.read_text():  # the first step is done: SLURM warns every task
        for task in tasks:
            task.send_signal(signal.SIGUSR1)
        break
    time.sleep(0.02)
sys.exit(max(task.wait() % 256 for task in tasks))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = requeue ]; then echo "$2" >> {again}; else echo 127.0.0.1; fi
"""


@pytest.mark.slow
def test_the_slurm_example_queues_itself_and_goes_on(tiny_source: Path, tmp_path: Path) -> None:
    """Kills: tasks that do not find each other, a signal that ends a run unsaved, a job that is not queued again, one
    that is queued again when it has finished."""
    run, again = tmp_path / "run", tmp_path / "again"
    files = RunFolder(run)
    python = '#!/bin/bash\nexec {python} "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", python)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(python=sys.executable, log=str(files.log), again=str(again)))
        path.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(unilat.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NTASKS": "2",
    }
    words = [str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(run)]
    command = ["bash", str(EXAMPLE), *words, "--stage1.samples", "6400", "--stage2.samples", "64"]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert first.returncode in (138, 143), first.stderr
    assert again.read_text() == f"{os.getpid()}\n" and list(files.stage("stage1").glob("step-*"))
    last = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert last.returncode == 0, last.stderr
    assert files.report.is_file() and again.read_text() == f"{os.getpid()}\n"
