"""What ``benchmarks/processes.py`` makes of its sides, by hand."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark_samples import Opener, opener, says
from unilat.training import checkpoint


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Opener:
    """Scripts on the test's own folder."""
    return opener(monkeypatch, tmp_path)


class Planted:
    """A side whose losses, bytes, weights and seconds are made up: sharded ones differ by 0.25, replicas by 0.5."""

    def __init__(self, name: str, processes: int, threads: int, shard: bool = False, **stage: Any):
        self.folder, self.alone, self.shard, self.muon = Path(name), processes == 1, shard, bool(stage)
        self.off = 0.0 if threads == processes == 1 else 0.125 if processes == 1 else 0.25 if shard else 0.5

    def run(self, steps: int) -> dict[str, Any]:
        seconds = 0.2 if self.alone else 0.25 if self.shard else 0.16
        losses = [1.0] * (steps - 1) + [1.0 - self.off]
        return {"seconds": seconds, "losses": losses, "bytes": 2**20 * (5 if self.shard else 8)}

    def close(self) -> dict[str, Tensor]:
        return {"weights/a": torch.tensor([1.0, 2.0 - 2 * self.off]), "average/a": torch.zeros(2)}


def test_rows_of_processes_by_hand(script: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: the largest difference with its sign, of the first loss alone; bytes of replicas over sharded; seconds of
    two over those of one where pictures a second are told; Muon's rows held to AdamW's goal."""
    made: ModuleType = script("processes")
    monkeypatch.setattr(made, "Side", Planted)
    stored = checkpoint.Checkpoint(
        path=Path("x"), step=50, tensors={"model": {"a": torch.tensor([1.0, 1.5])}}, state={}
    )
    monkeypatch.setattr(made.checkpoint, "load", lambda folder: stored)
    rows = {row["what"]: row for row in made.agreement()}
    for what, off in (("two replicas (DDP)", 0.5), ("two sharded (FSDP2)", 0.25)):
        assert says(rows[f"AdamW, {what} beside one: losses apart at most"], off, None, 50, False)
        assert says(rows[f"AdamW, {what} beside one: weights and averages apart at most"], 2 * off, None, 50, False)
    assert says(rows["a checkpoint of two sharded, read by one: numbers apart at most"], 0.0, None, None, True)
    share = rows["weights, gradients, moments, averages of a process: sharded / replicas"]
    assert share["value"] == 0.625 and share["holds"] is False
    assert rows["the same of replicas"]["value"] == 8
    for what, off in (("two replicas (DDP)", 0.5), ("one process of two threads, rounding alone,", 0.125)):
        assert says(rows[f"Muon (the default), {what} beside one of one: losses apart at most"], off, None, 50, None)
    monkeypatch.setattr(made.sys.modules["step"], "_product", lambda: 1.0)
    fast, step, alone, slow, *_ = made.speed(3)
    assert fast["value"] == pytest.approx(0.2 / 0.16) and fast["holds"] is True
    assert (step["value"], alone["value"]) == pytest.approx((160.0, 200.0))
    assert slow["value"] == pytest.approx(0.2 / 0.25) and slow["holds"] is None
