"""Steps that must not happen: nothing moves, the log tells, and too many end the run at its last good state."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.maths.seeds import Draws
from unilat.training import checkpoint
from unilat.training.guard import FORGIVEN, KNOWN, LEAPS, SIGMAS, STRIKES, Guard, Refused
from unilat.training.micro import MicroBatch
from unilat.training.order import batch_indices
from unilat.training.plan import Stage, still
from unilat.types import UserError

from .toy import Toy, fit, schedule

SEED = 7
PLAN = schedule(samples=300, save_every=10)  # 50 steps
OWN = ("seen", "mean")  # buffers that a forward pass of the toy moves, refused or not; no model of ours has such


class Spoiled(Toy):
    """A toy whose losses are ``spoil(loss)`` at the steps ``at``, from 1 on; ``metric``: so is what is logged."""

    def __init__(self, at: set[int], spoil: Callable[[Tensor], Tensor], metric: bool = False):
        super().__init__(dropout=0.0)
        self.at, self.spoil, self.metric, self.count_spoiled = at, spoil, metric, 0

    def stage(self) -> Stage:
        return replace(super().stage(), hold=still)

    def losses(self, batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().losses(batch, draws)
        rows = next(rows for rows in reversed(self.batches) if len(rows) == 6)  # of the step, not of its part
        if any(rows == batch_indices(23, 6, SEED, step - 1).tolist() for step in self.at):
            self.count_spoiled += 1
            if self.metric:
                return loss, metrics | {"error": self.spoil(metrics["error"])}
            loss = self.spoil(loss)
        return loss, metrics


def marks(folder: Path) -> tuple[dict[str, Tensor], Any]:
    """Every tensor of the newest checkpoint but the toy's own buffers, and the stage's state."""
    found = checkpoint.load(folder)
    assert found
    tensors = {f"{group}/{name}": t for group, inner in found.tensors.items() for name, t in inner.items()}
    return {name: t for name, t in tensors.items() if name.split("/")[1] not in OWN}, found.state["stage"]


def same(a: tuple[dict[str, Tensor], Any], b: tuple[dict[str, Tensor], Any]) -> bool:
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(torch.equal(a[0][name], b[0][name]) for name in a[0])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def leap(folder: Path, sigmas: float) -> Callable[[Tensor], Tensor]:
    """Adds so many of the standard deviations that the loss of the run in ``folder`` has had."""
    found = checkpoint.load(folder)
    assert found
    known = found.part("guard")
    off = sigmas * math.sqrt(float(str(known["variance"])))
    return lambda loss: loss - loss.detach().mean() + float(str(known["mean"])) + off


WAYS: dict[str, dict[str, Any]] = {"plain": {}, "captured": {"capture": True}, "parts": {"micro": MicroBatch(2)}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["nan", "inf", "1e30", "10 sigma", "-10 sigma", "100 sigma", "metric"])
def test_a_refused_step_moves_nothing_and_is_logged(what: str, way: str, tmp_path: Path) -> None:
    """Kills: any weight, moment, average or state of the stage that moves, a leap let pass, a step that nobody is told.

    Also a run that goes on from there as another one: Adam counts the steps that were made.
    """
    run, at = {"device": "cpu", **WAYS[way]}, KNOWN + 8
    fit(Spoiled(set(), torch.clone), PLAN, tmp_path / "before", SEED, stop_at=at - 1, **run)
    values = {"nan": math.nan, "inf": math.inf, "1e30": 1e30, "metric": math.nan}
    spoil = leap(tmp_path / "before", float(what.split()[0])) if "sigma" in what else lambda loss: loss * values[what]
    made = lambda: Spoiled({at}, spoil, what == "metric")  # noqa: E731
    log, told = tmp_path / "log.jsonl", list[str]()
    fit(made(), PLAN, tmp_path / "run", SEED, stop_at=at, log=log, warn=told.append, **run)
    assert same(marks(tmp_path / "before"), marks(tmp_path / "run"))
    row = lines(log)[-1]
    assert (row["stage"], row["step"], row["samples"]) == ("toy", at, 6 * at) and row["skipped"]
    assert told == [f"toy, step {at}: {row['skipped']}; this step changed nothing"]
    if what == "metric":
        assert row["skipped"] == "error is not finite (nan)"
    last = fit(made(), PLAN, tmp_path / "run", SEED, log=log, warn=told.append, **run)
    fit(made(), PLAN, tmp_path / "whole", SEED, warn=told.append, **run)
    assert last.finished and same(marks(tmp_path / "run"), marks(tmp_path / "whole"))


def test_leaps_of_less_are_steps_like_any_other(tmp_path: Path) -> None:
    """Kills: a guard that refuses what batches are like."""
    at, told = KNOWN + 8, list[str]()
    fit(Spoiled(set(), torch.clone), PLAN, tmp_path / "before", SEED, stop_at=at - 1)
    fit(
        Spoiled({at}, leap(tmp_path / "before", SIGMAS - 1)), PLAN, tmp_path / "run", SEED, stop_at=at, warn=told.append
    )
    assert not told and not same(marks(tmp_path / "before"), marks(tmp_path / "run"))


class Passing(Spoiled):
    """Spoiled the first ``often`` times only: what was broken lay in memory."""

    def __init__(self, at: set[int], often: int):
        super().__init__(at, torch.clone)
        self.often = often
        self.spoil = lambda loss: loss * (math.nan if self.count_spoiled <= self.often else 1.0)


def test_what_was_broken_in_memory_is_mended_by_the_last_checkpoint(tmp_path: Path) -> None:
    """Steps 16 to 20 are refused once, with their samples looked for; then the run goes back and ends as the unspoiled.

    Kills: a run that stops at once, or goes on from where it is; a log with steps twice.
    """
    told = list[str]()
    fit(Spoiled(set(), torch.clone), PLAN, tmp_path / "good", SEED, log=tmp_path / "good.jsonl")
    stage = Passing({16, 17, 18, 19, 20}, 10)
    done = fit(stage, PLAN, tmp_path / "run", SEED, log=tmp_path / "log.jsonl", warn=told.append)
    assert done.finished and done.resumed == 0 and same(marks(tmp_path / "good"), marks(tmp_path / "run"))
    assert told[-1] == "toy, step 20: too many steps were refused, back to step 10" and len(told) == 6
    rows = lines(tmp_path / "log.jsonl")
    (back,) = [row for row in rows if "back" in row]
    assert back["step"] == 10 and "not finite" in back["back"]
    steps = [row["step"] for row in rows if "back" not in row]
    assert steps == [row["step"] for row in lines(tmp_path / "good.jsonl")]


@pytest.mark.parametrize("captured", [False, True])
def test_what_stays_broken_stops_the_run_at_its_last_good_state(captured: bool, tmp_path: Path) -> None:
    """Kills: going back for ever, a checkpoint written of refused steps, a traceback."""
    told, run = list[str](), {"device": "cpu", "capture": captured}
    stage = Spoiled({16, 17, 18, 19, 20}, lambda loss: loss * math.inf)
    with pytest.raises(
        UserError, match=r"^toy, step 20: samples .* inf\); too many steps were refused \(5 .*step 10 is s"
    ):
        fit(stage, PLAN, tmp_path, SEED, warn=told.append, **run)
    assert len(told) == 11
    found = checkpoint.load(tmp_path)
    assert found and found.step == 10


def test_no_checkpoint_no_way_back(tmp_path: Path) -> None:
    """Kills: a second try from weights that nobody knows to be good."""
    told = list[str]()
    with pytest.raises(UserError, match=r"step 7: .*nothing was saved yet"):
        fit(Spoiled({3, 4, 5, 6, 7}, lambda loss: loss * math.nan), PLAN, tmp_path, SEED, warn=told.append)
    assert len(told) == 5


def test_one_in_ten_is_too_many_and_one_in_forty_is_not() -> None:
    """Kills: strikes that are forgiven at once, or never."""

    def gives_up(every: int) -> bool:
        guard = Guard()
        for step in range(1, 2000):
            guard.refused() if step % every == 0 else guard.passed(1.0)
            if guard.given_up:
                return True
        return False

    assert gives_up(10) and not gives_up(40) and math.isclose(FORGIVEN, 1 / 20) and STRIKES == 5


def test_mean_and_variance_are_those_of_the_last_steps() -> None:
    """By hand: many steps of ±2 around 3, and none of what was long before. Kills: a sum, a standard deviation."""
    guard = Guard()
    for step in range(600):
        guard.passed(1e3 if step < 20 else 3.0 + 2 * (-1) ** step)
    assert guard.mean == pytest.approx(3, abs=0.1) and guard.variance == pytest.approx(4, abs=0.3)
    guard.judge(["loss"], [guard.mean + (SIGMAS - 0.1) * guard.variance**0.5], 1.0)
    for value in (guard.mean + (SIGMAS + 0.1) * guard.variance**0.5, guard.mean - (SIGMAS + 0.1) * guard.variance**0.5):
        with pytest.raises(Refused, match="leapt") as found:
            guard.judge(["loss"], [value], 1.0)
        assert "9.1 standard deviations" in found.value.why
    young = Guard()
    for _ in range(KNOWN - 1):
        young.passed(1.0)
    young.judge(["loss"], [50.0], 1.0)


def test_a_loss_that_stays_where_it_leapt_is_the_weights_and_training_goes_on() -> None:
    """Losses fall from 9 to 1, leap to 4 and stay there, then come back. Kills: training that ends by a moment's bad
    weights, leaps apart from one another taken for one, leaps that are never refused again, strikes that stay, a loss
    beyond all before, above or below, let pass."""
    guard = Guard()

    def steps(*losses: float) -> str:
        """What becomes of the steps: made or refused."""
        done = ""
        for loss in losses:
            try:
                guard.judge(["loss"], [loss], 1.0)
            except Refused:
                guard.refused()
                done += "r"
            else:
                guard.passed(loss)
                done += "m"
        return done

    def calm(count: int, level: float = 1.0) -> str:
        return steps(*(level + 0.1 * (-1) ** step for step in range(count)))

    assert steps(9.0) + calm(200) == "m" * 201 and guard.worst == 9.0 and LEAPS == 3
    assert steps(4.0, 4.0, 1.1, 4.0, 4.0) == "rrmrr", "between them the weights were good"
    assert calm(200) == "m" * 200 and guard.strikes == 0.0
    assert steps(4.0, 4.0, 4.0, 4.0, 4.0) == "rrrmm" and guard.strikes == 0.0
    assert calm(200) == "m" * 200
    assert steps(4.0, 4.0, 4.0, 9.1) == "rrrr", "it was never as bad as that"
    assert steps(-1e6) == "r" and guard.given_up and guard.best == 0.9, "nor ever so good"


def test_a_checkpoint_of_before_has_no_guard_and_one_that_is_damaged_is_refused() -> None:
    """Kills: old runs that cannot be gone on with, a state believed whatever it is."""
    guard, twin = Guard(), Guard()
    guard.passed(0.1)
    guard.refused()
    twin.load_state(guard.state())
    assert vars(twin) == vars(guard) and isinstance(twin.skipped, int)
    twin.load_state({})
    assert vars(twin) == vars(Guard())
    with pytest.raises(UserError, match="guard's mean is 'x'"):
        twin.load_state({"mean": "x"})
