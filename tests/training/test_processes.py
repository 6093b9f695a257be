"""Two processes are one: the same batches, the same losses, and a checkpoint that either can go on from."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .test_resume import lines
from .toy import Toy, fit, schedule, written


def torchrun(folder: Path) -> subprocess.CompletedProcess[str]:
    """Two gloo processes of ``worker.py``, one thread each."""
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).with_name("worker.py")), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_two_processes_see_the_batches_and_losses_of_one(tmp_path: Path) -> None:
    """Kills: a mean of means (rows do not divide), one process's sums, rows seen twice, weights that part."""
    run = torchrun(tmp_path)
    assert run.returncode == 0, run.stderr
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    stage, alone = Toy(dropout=0.0, mixing=False), tmp_path / "alone"
    plan = schedule(batch=7, samples=70)
    fit(stage, plan, alone / "run", 7, log=alone / "log.jsonl", stop_at=8)
    expected = lines(alone / "log.jsonl")

    ours, theirs = (rank["batches"] for rank in ranks)
    assert [a + b for a, b in zip(ours, theirs, strict=True)] == stage.batches
    assert {len(batch) for batch in ours} == {3}
    assert ranks[0]["losses"] == ranks[1]["losses"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["profile"] == ranks[1]["profile"]
    assert ranks[0]["profile"] == pytest.approx(stage.model.profile.tolist(), rel=1e-5)
    logged = lines(tmp_path / "log.jsonl")
    assert [record["step"] for record in logged] == [record["step"] for record in expected]
    for record, other in zip(logged, expected, strict=True):
        for name in ("loss", "error", "weight", "gradient_norm"):
            assert math.isclose(record[name], other[name], rel_tol=1e-5), (record["step"], name)
    for name, parameter in stage.model.named_parameters():
        assert torch.allclose(torch.tensor(ranks[0]["weights"][name]), parameter, atol=1e-5), name
    assert written(tmp_path / "run") == ["step-0000000005", "step-0000000008"]

    told: list[str] = []
    result = fit(Toy(dropout=0.0, mixing=False), plan, tmp_path / "run", 7, warn=told.append)
    assert (result.resumed, result.finished) == (8, True)
    assert "processes 2 → 1" in told[0]

    for rank in ranks:
        assert rank["error"] == ranks[0]["error"]
    first = next(step for step, batch in enumerate(stage.batches) if {2, 20} & set(batch))
    bad = [index for index in stage.batches[first] if index in (2, 20)]
    assert f"step {first + 1}: samples {', '.join(map(str, bad))}: their data are not finite" in ranks[0]["error"]


@pytest.mark.parametrize("size", ["8"])
def test_more_processes_than_rows_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str) -> None:
    """Kills: a process with no rows, whose empty means are NaN."""
    from unilat.training import engine
    from unilat.types import UserError

    monkeypatch.setattr(engine, "join", lambda device: engine.World(rank=0, size=int(size)))
    with pytest.raises(UserError, match="batch 6 is smaller than the 8 processes"):
        fit(Toy(), schedule(), tmp_path, 7)
