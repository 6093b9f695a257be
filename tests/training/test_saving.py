"""Saves by steps and by the clock, written beside the steps that follow."""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unilat.cli.naming import options_named
from unilat.training import checkpoint, engine, saving
from unilat.training.fast import Choices, resolved
from unilat.training.machine import pick_device
from unilat.training.parallel import ALONE
from unilat.training.plan import Schedule, interval
from unilat.training.records import Step
from unilat.training.saving import CLOCK
from unilat.training.state import State
from unilat.types import UserError

from .toy import Toy, fit, schedule, written

SEED = 7


@pytest.mark.parametrize(
    ("text", "read"),
    [("500", (500, 0)), ("1", (1, 0)), ("300s", (0, 300)), ("5m", (0, 300)), ("1h", (0, 3600)), ("0.5m", (0, 30))],
)
def test_how_often_is_read_as_steps_or_time(text: str, read: tuple[int, float]) -> None:
    """Kills: minutes for hours, seconds for steps, whole numbers alone."""
    assert interval(text) == read
    plan = schedule(save_every=4)
    assert plan.saved_every("") is plan
    assert (plan.saved_every(text).save_every, plan.saved_every(text).save_seconds) == (read[0] or 4, read[1])


@pytest.mark.parametrize("text", ["0", "-3", "5x", "m", "-5m", "0s", "infs", "nanm", "5 minutes", "1.5", ""])
def test_what_is_no_interval_is_refused_before_anything_is_read(text: str) -> None:
    """Kills: a run that never saves, a traceback."""
    with pytest.raises(
        UserError, match=r"^save_every .*: a number of steps, 500, or seconds, minutes or hours"
    ) as error:
        interval(text)
    assert options_named(str(error.value)).startswith("--save-every")
    if text:
        with pytest.raises(UserError, match="save_every"):
            resolved(Choices(save_every=text), pick_device("cpu"))


def saved_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of all saves from now on."""
    steps, real = list[int](), State.save

    def save(self: State, *given: Any) -> None:
        steps.append(self.step)
        real(self, *given)

    monkeypatch.setattr(State, "save", save)
    return steps


def test_saves_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 10 s, a save each 25 s: after 3, 6 and 9, and the last. Kills: saves by steps too, a clock that is not
    set back, one that counts from the due time on and saves twice."""
    steps, clock = saved_steps(monkeypatch), SimpleNamespace(now=0.0)
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def progress(told: Step) -> None:
        clock.now += 10

    fit(Toy(), schedule(save_seconds=25.0, save_every=2), tmp_path / "a", SEED, progress=progress)
    assert steps == [3, 6, 9, 10]
    steps.clear()
    fit(Toy(), schedule(save_every=4), tmp_path / "b", SEED, progress=progress)
    assert steps == [4, 8, 10]


def test_a_run_goes_on_with_another_interval(tmp_path: Path) -> None:
    """Kills: an interval that makes another run of it."""
    fit(Toy(), schedule(save_seconds=1e-9), tmp_path / "run", SEED, stop_at=5)
    fit(Toy(), schedule(save_every=3), tmp_path / "run", SEED)
    fit(Toy(), schedule(), tmp_path / "whole", SEED)
    a, b = checkpoint.load(tmp_path / "run"), checkpoint.load(tmp_path / "whole")
    assert a and b and a.fingerprint() == b.fingerprint()


def test_all_processes_hear_that_it_is_time() -> None:
    """Kills: a time that is taken for a signal, a signal that is lost beside it."""
    for number in (0, CLOCK, 15, CLOCK + 15):
        state = State(Toy().stage(), schedule(), SEED, pick_device("cpu"))
        assert engine._step(state, ALONE, number)[1] == number


def test_steps_go_on_while_a_copy_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save of step 4 is held until step 8 is made, and calibrated. Kills: a step that waits, weights or a stage's
    state of later steps in the file, a save that begins beside another."""
    made, real, open_at = list[int](), checkpoint.save, threading.Event()
    inside = list[int]()

    def save(folder: Path, step: int, *given: Any, **named: Any) -> Path:
        inside.append(step)
        assert len(inside) == 1
        if step == 4:
            assert open_at.wait(20) and made[-1] >= 8
        done = real(folder, step, *given, **named)
        inside.remove(step)
        return done

    def progress(told: Step) -> None:
        made.append(told.step)
        if told.step == 8:
            open_at.set()

    fit(Toy(), schedule(), tmp_path / "plain", SEED, stop_at=4)
    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(saving, "LAG", 1)
    fit(Toy(), schedule(keep=9), tmp_path / "run", SEED, progress=progress)
    assert written(tmp_path / "run") == [f"step-{step:010}" for step in (4, 8, 10)]
    for step in (8, 10):
        os.rename(tmp_path / "run" / f"step-{step:010}", tmp_path / f"later-{step}")
    a, b = checkpoint.load(tmp_path / "run"), checkpoint.load(tmp_path / "plain")
    assert a and b and a.fingerprint() == b.fingerprint()


def test_steps_wait_for_a_save_that_takes_longer_than_a_tenth_of_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a save every 4 steps one step, of every 30 three; by the clock a tenth of its seconds. Kills: work that a kill
    would lose without end, a step that waits at once, steps counted where the clock decides."""
    made, real, most = list[int](), checkpoint.save, list[int]()

    def save(folder: Path, step: int, *given: Any, **named: Any) -> Path:
        if step in (4, 30):
            time.sleep(0.5)
            most.append(made[-1])
        return real(folder, step, *given, **named)

    monkeypatch.setattr(checkpoint, "save", save)
    for every, steps, last in ((4, 10, 5), (30, 40, 33)):
        fit(
            Toy(),
            schedule(save_every=every, samples=6 * steps),
            tmp_path / str(every),
            SEED,
            progress=lambda told: made.append(told.step),
        )
        assert most.pop() == last
    plan = SimpleNamespace(save_seconds=20.0, save_every=1)
    saver = saving.Saver(SimpleNamespace(step=9, schedule=plan), tmp_path, lambda line: None)  # pyright: ignore
    joined: list[float] = []
    saver._thread = SimpleNamespace(join=lambda: joined.append(1))  # pyright: ignore[reportAttributeAccessIssue]
    for ago, times in ((1.9, 0), (2.1, 1)):
        saver._begun = time.monotonic() - ago
        saver.check()
        assert len(joined) == times


def test_a_save_that_fails_ends_the_run_at_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a failure that is told at the end of a long run, or never; an older checkpoint that goes with it."""
    real, made = checkpoint.save, list[int]()

    def save(folder: Path, step: int, *given: Any, **named: Any) -> Path:
        if step == 8:
            raise UserError("the disk is full")
        return real(folder, step, *given, **named)

    def progress(told: Step) -> None:
        made.append(told.step)
        for thread in threading.enumerate():
            if thread.name == "unilat-save":
                thread.join()

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(UserError, match="the disk is full"):
        fit(Toy(), schedule(samples=300), tmp_path, SEED, progress=progress)
    assert made[-1] in (8, 9) and written(tmp_path) == ["step-0000000004"]


def test_killed_while_a_save_is_written_the_older_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL after the first file of step 8. Kills: a name that stands for half a checkpoint, a rotation before it is
    whole."""
    child = os.fork()
    if child == 0:
        real = checkpoint._write

        def write(path: Path, content: bytes) -> Any:
            done = real(path, content)
            if "tmp-8-" in str(path):
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        checkpoint._write = write
        fit(Toy(), schedule(keep=1), tmp_path / "run", SEED, progress=lambda told: time.sleep(0.05))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = checkpoint.load(tmp_path / "run")
    assert found and found.step == 4
    assert fit(Toy(), schedule(), tmp_path / "run", SEED).resumed == 4
    fit(Toy(), schedule(), tmp_path / "whole", SEED)
    a, b = checkpoint.load(tmp_path / "run"), checkpoint.load(tmp_path / "whole")
    assert a and b and a.fingerprint() == b.fingerprint()
    assert not [name for name in written(tmp_path / "run") if name.startswith(".tmp")]


def test_the_schedule_knows_both() -> None:
    """Kills: a default that is not the one of before."""
    plan = Schedule(batch=1, samples=1, learning_rate=1.0)
    assert (plan.save_every, plan.save_seconds) == (500, 0.0)
