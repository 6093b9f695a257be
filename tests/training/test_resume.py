"""The run that was stopped, killed or damaged anywhere ends with the same bits as the run that was not."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from unilat.training import checkpoint
from unilat.training.order import batch_indices
from unilat.training.records import Step
from unilat.types import UserError

from .toy import Toy, fit, schedule, written

SEED = 7


def fingerprint(folder: Path) -> str:
    found = checkpoint.load(folder)
    assert found is not None
    return found.fingerprint()


def lines(path: Path) -> list[dict[str, Any]]:
    """The log without its wall times."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run: ``run`` and ``log.jsonl``."""
    folder = tmp_path_factory.mktemp("oracle")
    fit(Toy(), schedule(), folder / "run", SEED, log=folder / "log.jsonl")
    return folder


def test_resumed_at_every_step_the_bits_and_the_log_are_the_same(oracle: Path, tmp_path: Path) -> None:
    """Kills: a moment, the EMA, the stage, a buffer, Adam's step or the seed of a step left out of the state."""
    for step in range(1, 10):
        run, log = tmp_path / f"run{step}", tmp_path / f"log{step}.jsonl"
        first = fit(Toy(), schedule(), run, SEED, log=log, stop_at=step)
        assert (first.step, first.finished, first.samples) == (step, False, 6 * step)
        second = fit(Toy(), schedule(), run, SEED, log=log)
        assert (second.resumed, second.step, second.finished) == (step, 10, True)
        assert fingerprint(run) == fingerprint(oracle / "run")
        assert lines(log) == lines(oracle / "log.jsonl")


def test_stopped_after_each_step_in_turn(oracle: Path, tmp_path: Path) -> None:
    """Kills: what only shows when resumed state is saved again, as a rounded number in JSON would."""
    for step in range(1, 11):
        stage = Toy()
        result = fit(stage, schedule(save_every=1, log_every=1), tmp_path, SEED, stop_at=step)
        assert stage.batches == [batch_indices(23, 6, SEED, step - 1).tolist()]
    assert fingerprint(tmp_path) == fingerprint(oracle / "run")
    again = fit(Toy(), schedule(), tmp_path, SEED)
    assert (again.resumed, again.step, again.metrics) == (10, 10, {})
    for name, tensor in again.ema.items():
        assert torch.equal(tensor, result.ema[name])


def test_another_seed_is_another_run(oracle: Path, tmp_path: Path) -> None:
    """Kills: a constant in place of the seed, which would make every equality above empty."""
    fit(Toy(), schedule(), tmp_path, SEED + 1)
    assert fingerprint(tmp_path) != fingerprint(oracle / "run")


def test_the_newest_checkpoint_damaged_the_run_goes_back_and_ends_the_same(oracle: Path, tmp_path: Path) -> None:
    """Kills: a log that keeps the lines of the lost steps; rotation that prefers the damaged future."""
    run, log, told = tmp_path / "run", tmp_path / "log.jsonl", list[str]()
    fit(Toy(), schedule(), run, SEED, log=log, stop_at=9)
    assert written(run) == ["step-0000000008", "step-0000000009"]
    model = run / "step-0000000009" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    log.write_bytes(log.read_bytes() + b'{"stage": "other", "step": 99}\n{"stage": "toy", "st')
    result = fit(Toy(), schedule(), run, SEED, log=log, warn=told.append)
    assert result.resumed == 8
    assert len(told) == 1
    assert "step-0000000009 is damaged (model.safetensors has" in told[0]
    assert fingerprint(run) == fingerprint(oracle / "run")
    kept = lines(log)
    assert {"stage": "other", "step": 99} in kept
    assert [record for record in kept if record["stage"] == "toy"] == lines(oracle / "log.jsonl")


def killed(folder: Path, log: Path, after: int, moment: str) -> int:
    """Train in a child that dies at the ``after``-th step, or at that call of ``moment`` in a save; its exit code."""
    child = os.fork()
    if not child:
        seen = list[int]()

        def die(*_: object) -> None:
            seen.append(1)
            if len(seen) == after:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            if moment != "step":
                real = getattr(os, moment)
                setattr(os, moment, lambda *a, **k: (die(), real(*a, **k))[1])
            progress = die if moment == "step" else None
            fit(Toy(), schedule(save_every=2), folder, SEED, log=log, progress=progress)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.usefixtures("in_a_child")
def test_killed_again_and_again_the_run_ends_the_same(tmp_path: Path) -> None:
    """Kills: work lost beyond an interval and what was being written; a dead trainer's lock; temporaries; lines of the
    log told twice."""
    chance, deaths, oracle = random.Random(1), 0, tmp_path / "oracle"
    fit(Toy(), schedule(), oracle / "run", SEED, log=oracle / "log.jsonl")
    for trial in range(4):
        run, log = tmp_path / str(trial), tmp_path / f"{trial}.jsonl"
        for moment in ("step", "write", "replace", "step", "fsync"):
            before = checkpoint.load(run)
            after = chance.randint(1, 4)
            deaths += killed(run, log, after, moment) == -signal.SIGKILL
            now = checkpoint.load(run)
            if moment == "step":
                assert (now.step if now else 0) >= (before.step if before else 0) + after - 2 - 2
        result = fit(Toy(), schedule(save_every=2), run, SEED, log=log)
        assert result.finished
        assert fingerprint(run) == fingerprint(oracle / "run")
        assert lines(log) == lines(oracle / "log.jsonl")
        assert all(name.startswith("step-") for name in written(run))
    assert deaths > 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_step_saves_and_exits_with_its_code(oracle: Path, tmp_path: Path, number: int) -> None:
    """Kills: a step lost or done twice, KeyboardInterrupt let through, handlers left behind, exit code 0."""
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]

    def progress(told: Step) -> None:
        if told.step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as stopped:
        fit(Toy(), schedule(), tmp_path, SEED, progress=progress)
    assert stopped.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}[signal.Signals(number)]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    assert fit(Toy(), schedule(), tmp_path, SEED).resumed == 5
    assert fingerprint(tmp_path) == fingerprint(oracle / "run")


def test_a_signal_during_the_last_save_is_not_forgotten(oracle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Kills: a SIGTERM swallowed at the end of a stage, after which the next stage would begin."""
    real = os.replace

    def replace(*names: Path) -> None:
        real(*names)
        os.kill(os.getpid(), signal.SIGTERM)

    fit(Toy(), schedule(), tmp_path, SEED, stop_at=9)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(SystemExit) as stopped:
        fit(Toy(), schedule(keep=9), tmp_path, SEED)
    assert stopped.value.code == 143
    assert fingerprint(tmp_path) == fingerprint(oracle / "run")


@pytest.mark.usefixtures("in_a_child")
def test_a_second_signal_forces_the_exit(tmp_path: Path) -> None:
    """Kills: a step that hangs and cannot be interrupted."""
    child = os.fork()
    if not child:
        stage = Toy()
        pair = [signal.SIGINT, signal.SIGTERM]
        stage.after_step = lambda metrics, samples: [os.kill(os.getpid(), n) for n in pair] and {}  # type: ignore
        try:
            fit(stage, schedule(), tmp_path, SEED)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
    assert checkpoint.load(tmp_path) is None


def test_settings_that_differ_are_all_named_before_anything_moves(tmp_path: Path) -> None:
    """Kills: a check that stops at the first difference, or that comes after the weights were read."""
    fit(Toy(), schedule(), tmp_path, SEED, stop_at=5)
    stage = Toy(count=31)
    weights = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
    with pytest.raises(UserError, match=r"another run.*count 23 → 31, learning_rate 0.01 → 0.02, seed 7 → 8") as error:
        fit(stage, schedule(learning_rate=0.02, save_every=1), tmp_path, SEED + 1)
    assert "save_every" not in str(error.value)
    for name, tensor in stage.model.state_dict().items():
        assert torch.equal(tensor.cpu(), weights[name])
    with pytest.raises(UserError, match=r"its model differ.*into.weight \[5, 3\] float32 → \[9, 3\] float32"):
        fit(Toy(width=9), schedule(), tmp_path, SEED)
    assert fit(Toy(), schedule(), tmp_path, SEED).resumed == 5


def test_another_machine_is_told_not_refused(tmp_path: Path) -> None:
    """Kills: silence about threads, which change the last bits."""
    fit(Toy(), schedule(), tmp_path, SEED, stop_at=5)
    threads, told = torch.get_num_threads(), list[str]()
    try:
        torch.set_num_threads(threads + 1)
        fit(Toy(), schedule(), tmp_path, SEED, warn=told.append)
    finally:
        torch.set_num_threads(threads)
    assert len(told) == 1
    assert f"threads {threads} → {threads + 1}" in told[0]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """Kills: two trainers in one folder."""
    with checkpoint.lock(tmp_path / "run"), pytest.raises(UserError, match="being trained by another process"):
        fit(Toy(), schedule(), tmp_path / "run", SEED)
    assert fit(Toy(), schedule(), tmp_path / "run", SEED).finished


def test_a_full_disk_ends_the_run_with_the_old_checkpoint(oracle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Kills: a full disk passed over, in the checkpoint or in the log."""
    run, log = tmp_path / "run", tmp_path / "log.jsonl"
    real, full, place = os.write, list[str](), ""

    def write(descriptor: int, content: bytes) -> int:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if full and full[0] in name:
            raise OSError(28, os.strerror(28))
        return real(descriptor, content)

    def progress(told: Step) -> None:
        if told.step == 5:
            full.append(place)

    monkeypatch.setattr(os, "write", write)
    fit(Toy(), schedule(), run, SEED, log=log, stop_at=4)
    for place in ("ema.safetensors", "log.jsonl"):
        full.clear()
        line = "step 8 could not be saved" if place == "ema.safetensors" else "cannot be written"
        with pytest.raises(UserError, match=line) as error:
            fit(Toy(), schedule(), run, SEED, log=log, progress=progress)
        assert "No space left on device" in str(error.value)
        assert written(run) == ["step-0000000004"]
    full.clear()
    assert fit(Toy(), schedule(), run, SEED, log=log).resumed == 4
    assert fingerprint(run) == fingerprint(oracle / "run")
    assert lines(log) == lines(oracle / "log.jsonl")


def test_a_long_run_leaves_disk_descriptors_and_threads_flat(tmp_path: Path) -> None:
    """Kills: a descriptor or a file left behind by each save."""

    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    fit(Toy(), schedule(samples=240, save_every=1), tmp_path / "a", SEED, stop_at=2)
    before = count()
    fit(Toy(), schedule(samples=240, save_every=1), tmp_path / "a", SEED, log=tmp_path / "log.jsonl")
    assert count() == before
    assert written(tmp_path / "a") == ["step-0000000039", "step-0000000040"]
