"""A stage that is trained longer than it was planned: what is kept, and what the learning rate does."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from unilat.training import checkpoint
from unilat.training.plan import Schedule
from unilat.types import UserError

from .toy import Toy, fit, schedule

SEED = 7


def _kept(folder: Path) -> checkpoint.Checkpoint:
    found = checkpoint.load(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("step", [1, 6])
def test_before_the_rate_falls_nothing_tells_the_longer_run_from_one_planned_so(tmp_path: Path, step: int) -> None:
    """Kills: a rate that rises again where it had not fallen, a plan that stays the shorter one."""
    fit(Toy(), schedule(), tmp_path / "a", SEED, stop_at=step)
    said = list[str]()
    fit(Toy(), schedule(samples=120, may_grow=True), tmp_path / "a", SEED, warn=said.append)
    fit(Toy(), schedule(samples=120), tmp_path / "b", SEED)
    assert _kept(tmp_path / "a").fingerprint() == _kept(tmp_path / "b").fingerprint()
    assert said == []


@pytest.mark.parametrize("step", [7, 10])
def test_after_the_rate_fell_it_rises_again_and_all_else_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A run that goes on, stopped once more as the rate rises, has the weights, moments and averages of one that went
    through with the rate of the shorter plan and then of the longer. Kills: moments or averages begun anew, a leap to
    the full rate, a rise that is forgotten when the run is stopped, a line that is not said or said twice."""
    plan, seen, said = schedule(samples=120, may_grow=True), 6 * step, list[str]()
    fit(Toy(), schedule(), tmp_path / "a", SEED, stop_at=step)
    fit(Toy(), plan, tmp_path / "a", SEED, stop_at=step + 1, warn=said.append)
    fit(Toy(), plan, tmp_path / "a", SEED, warn=said.append, log=tmp_path / "log.jsonl")
    assert said == [
        "toy was planned for 60 samples and trained on to 120: the learning rate, which had fallen, rises again over 12"
        " samples; weights, moments and averages are kept"
    ]
    last = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][-1]
    assert (last["samples"], last["learning_rate"]) == (120, pytest.approx(1e-2 * 6 / 60))
    rate, longer = Schedule.rate, dataclasses.replace(plan, again=seen)
    assert [rate(longer, seen + more) for more in (6, 12)] == pytest.approx(
        [0.5e-2, min(1.0, (114 - seen) / 60) * 1e-2]
    )
    monkeypatch.setattr(Schedule, "rate", lambda own, at: rate(schedule() if at <= seen else longer, at))
    fit(Toy(), schedule(samples=120), tmp_path / "b", SEED)
    one, other = _kept(tmp_path / "a").tensors, _kept(tmp_path / "b").tensors
    assert one.keys() == other.keys()
    for group, tensors in other.items():
        for name, tensor in tensors.items():
            assert torch.equal(one[group][name], tensor), name


@pytest.mark.parametrize(
    "changed", [{"samples": 120}, {"samples": 54, "may_grow": True}, {"warmup": 6, "may_grow": True}]
)
def test_other_plans_are_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    """Kills: a longer run that nobody asked for, one that is cut short, and one of other settings."""
    fit(Toy(), schedule(), tmp_path, SEED, stop_at=8)
    with pytest.raises(UserError, match="belongs to another run, its settings differ"):
        fit(Toy(), schedule(**changed), tmp_path, SEED)
