"""One step seen from the side: whose rows, whose dropout, whose sums, and what is told of it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.training import engine
from unilat.training.order import batch_indices
from unilat.training.parallel import World
from unilat.training.records import Step
from unilat.training.state import State

from .toy import Toy, fit, schedule

SEED = 7


def state_of(stage: Toy, **changed: Any) -> State:
    return State(stage.stage(), schedule(**changed), SEED, torch.device("cpu"))


def test_dropout_is_drawn_anew_each_step_and_by_each_process(tmp_path: Path) -> None:
    """Kills: one mask for the whole training, one that two processes share, one that the seed does not move."""

    def masks(run: str, seed: int) -> list[Tensor]:
        stage, found = Toy(width=40, dropout=0.5), list[Tensor]()
        stage.model.dropout.register_forward_hook(lambda module, inputs, output: found.append(output.detach() == 0))
        fit(stage, schedule(), tmp_path / run, seed, stop_at=3)
        return found

    first, again, other = masks("a", SEED), masks("b", SEED), masks("c", SEED + 1)
    assert len(first) == 3 and all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(first[i], first[j]) for i in range(3) for j in range(i))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))

    stage, found = Toy(width=40, dropout=0.5), list[Tensor]()
    stage.model.dropout.register_forward_hook(lambda module, inputs, output: found.append(output.detach() == 0))
    for rank in (0, 1):
        engine._losses(state_of(stage), World(rank, 2), 3 * rank, 3 * rank + 3)
    assert not torch.equal(*found)


def test_rows_of_two_processes_are_the_rows_of_one() -> None:
    """Kills: the first rows' pictures or noise taken by every process."""
    stage = Toy(dropout=0.0, mixing=False)
    state = state_of(stage)
    stage.model.eval()  # its running mean stands still
    whole, _, (_, indices) = engine._losses(state, World(0, 1), 0, 6)
    parts = [engine._losses(state, World(rank, 2), 3 * rank, 3 * rank + 3) for rank in (0, 1)]
    assert torch.equal(torch.cat([part[2][1] for part in parts]), indices)
    assert torch.equal(indices, batch_indices(23, 6, SEED, 0))
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), whole)
    state.step = 2
    orders = [list(engine._order(state, World(rank, 2), 4)) for rank in (0, 1)]
    for step, rows in zip((2, 3), zip(*orders, strict=True), strict=True):
        assert torch.equal(torch.cat(rows), batch_indices(23, 6, SEED, step))


class Twins(World):
    """Two processes of which the other one always has what this one has."""

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor.mul_(2)

    def sum_all(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            tensor.mul_(2)


def test_a_process_among_equals_steps_by_the_mean_of_the_whole_batch() -> None:
    """Of 6 rows this process has 3 and its twin the same 3, so the mean over the batch is that over them.

    Kills: a mean of its own rows before the sum, a gradient of its own rows alone, means where sums are asked for.
    """
    stage, seen = Toy(dropout=0.0, mixing=False), list[Tensor]()
    stage.observe = lambda sums: seen.append(sums["profile"])  # type: ignore[method-assign]
    twin = Toy(dropout=0.0, mixing=False)
    loss, metrics, _ = engine._losses(state_of(twin, clip=1e9), World(0, 2), 0, 3)
    twin.model.zero_grad()
    loss.mean().backward()
    grads = [p.grad for p in twin.model.parameters() if p.grad is not None]
    told, _ = engine._step(state_of(stage, clip=1e9), Twins(0, 2), 0)
    assert told["loss"] == pytest.approx(float(loss.detach().mean()), rel=1e-6)
    assert told["error"] == pytest.approx(float(metrics["error"].mean()), rel=1e-6)
    assert told["gradient_norm"] == pytest.approx(float(torch.cat([g.flatten() for g in grads]).norm()), rel=1e-5)
    torch.testing.assert_close(seen[0], 2 * metrics["profile"].double().sum(0))


def test_the_norm_is_told_before_the_clip(tmp_path: Path) -> None:
    """Kills: a curve of gradient norms that ends at the clip, where a user looks for what was clipped."""
    found = [
        fit(Toy(), schedule(clip=clip), tmp_path / str(clip), SEED, stop_at=1).metrics["gradient_norm"]
        for clip in (1e9, 1e-3)
    ]
    assert found[0] == found[1] > 1e-3


def test_a_stage_is_told_its_samples_after_each_step(tmp_path: Path) -> None:
    """Kills: steps for samples, and samples before the step."""
    stage, seen = Toy(), list[int]()
    stage.after_step = lambda metrics, samples: seen.append(samples) or {}  # type: ignore[method-assign]
    fit(stage, schedule(), tmp_path, SEED)
    assert seen == [6 * step for step in range(1, 11)]


def clock(took: list[float]) -> Iterator[float]:
    """Seconds at the start and the end of each step."""
    now = 100.0
    for seconds in took:
        yield now
        now += seconds
        yield now
        now += 1000.0  # what lies between two steps is no step's


def test_pace_and_times_by_a_clock_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is the step's own twice, then 0.95 of the old and 0.05 of the new; a resume begins with its own.

    Kills: steps for samples in the speed, the time left of steps made, the new pace for the old, seconds that forget.
    """
    took = [0.5, 0.4, 0.8, 0.2, 0.6, 0.3, 0.7, 0.9, 0.1, 1.0]
    ticks = clock(took)
    fake = SimpleNamespace(perf_counter=lambda: next(ticks), monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(engine, "time", fake)
    shown: list[Step] = []
    fit(Toy(), schedule(), tmp_path / "run", SEED, progress=shown.append, stop_at=5)
    fit(Toy(), schedule(), tmp_path / "run", SEED, progress=shown.append)
    pace = 0.0
    for index, told in enumerate(shown):
        pace = took[index] if index in (0, 1, 5, 6) else 0.95 * pace + 0.05 * took[index]
        assert told.samples_per_second == pytest.approx(6 / pace)
        assert told.seconds_left == pytest.approx((9 - index) * pace)
        assert told.seconds == pytest.approx(sum(took[: index + 1]))


def test_lines_of_the_log_are_due_at_these_steps(tmp_path: Path) -> None:
    """The first, the last, every third and every calibrated one. Kills: lines by samples, a calibration not logged."""
    fit(Toy(), schedule(), tmp_path / "run", SEED, log=tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 3, 4, 6, 8, 9, 10]
    assert [row["samples"] for row in rows] == [6, 18, 24, 36, 48, 54, 60]
    assert [row["step"] for row in rows if "calibration" in row] == [4, 8]


def test_what_a_fit_returns(tmp_path: Path) -> None:
    """Kills: a run that was stopped told as finished, and the samples it was meant to see told as seen."""
    told = fit(Toy(), schedule(), tmp_path, SEED, stop_at=4)
    assert (told.step, told.steps, told.samples, told.finished) == (4, 10, 24, False)
    told = fit(Toy(), schedule(), tmp_path, SEED)
    assert (told.step, told.steps, told.samples, told.finished, told.resumed) == (10, 10, 60, True, 4)
