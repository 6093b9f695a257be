"""Batches by worker processes: the same bits as without, and one line when a worker dies, hangs or refuses."""

import math
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unilat.cli import main
from unilat.files import read_safetensors
from unilat.run import train as job
from unilat.training import batches, checkpoint, engine
from unilat.training.batches import ahead, placed, upcoming
from unilat.training.handover import Handover
from unilat.training.order import batch_indices
from unilat.training.plan import Batch, Stage
from unilat.training.records import Step
from unilat.types import UserError

from .toy import Toy, fit, schedule

SEED = 7
HERE = os.getpid()


def order(steps: int = 9) -> list[Tensor]:
    """Batches of four from 23, over the border of an epoch."""
    return [batch_indices(23, 4, SEED, step) for step in range(steps)]


def alive(pid: int) -> bool:
    """Whether a process runs, a dead child that nobody has asked for not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


class Marked:
    """Makes batches that say which process made them; ``trouble`` comes at the batch that holds index 5."""

    def __init__(self, folder: Path, trouble: Callable[[], object] = lambda: None):
        self.folder, self.trouble = folder, trouble

    def __call__(self, indices: Tensor) -> tuple[Tensor, ...]:
        (self.folder / str(os.getpid())).touch()
        if 5 in indices.tolist() and os.getpid() != HERE:
            self.trouble()
        return 3 * indices, torch.full((len(indices),), os.getpid())

    def workers(self) -> list[int]:
        """Process numbers of all that made a batch."""
        return [int(path.name) for path in self.folder.iterdir()]


def refuse() -> None:
    """What data have to say of themselves."""
    raise UserError("photos/7.png cannot be decoded: leave it out")


def test_the_next_batch_is_on_its_way_before_one_is_handed_out() -> None:
    """Kills: a copy that waits for the step, the last batch lost, batches in another order, all sent at once."""
    order: list[str] = []

    def send(batch: Batch) -> tuple[Batch, int]:
        order.append(f"send {int(batch[0])}")
        return batch, int(batch[0])

    def arrived(sent: tuple[Batch, int]) -> Batch:
        order.append(f"give {sent[1]}")
        return sent[0]

    rows = [(torch.tensor(index),) for index in range(3)]
    assert list(ahead(rows, send, arrived)) == rows and list(ahead([], send, arrived)) == []
    assert order == ["send 0", "send 1", "give 0", "send 2", "give 1", "give 2"]
    assert [int(batch[0]) for batch in placed(iter(rows), torch.device("cpu"))] == [0, 1, 2]


def test_any_number_of_workers_gives_the_batches_in_order(tmp_path: Path) -> None:
    """Kills: batches as they come, one left out at the end, all made by one worker, a worker that stays behind."""
    for workers in (0, 1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        make = Marked(folder)
        with upcoming(make, order(), workers) as given:
            found = list(given)
        assert len(found) == 9 and all(torch.equal(a, 3 * b) for (a, _), b in zip(found, order(), strict=True))
        made_by = {int(pids[0]) for _, pids in found}
        assert len(made_by) == max(1, workers) and (HERE in made_by) == (workers == 0)
        assert not any(alive(pid) for pid in made_by if pid != HERE)


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"reads batches has ended \(.*(killed by signal|exited)"),
        (lambda: os._exit(3), r"a worker that reads batches has ended \(.*exited unexpectedly"),
        (lambda: time.sleep(600), r"a worker that reads batches has not answered for 1 s"),
        (refuse, r"^photos/7.png cannot be decoded: leave it out$"),
    ],
    ids=["killed", "gone", "hung", "refuses"],
)
def test_a_worker_in_trouble_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[], object], line: str
) -> None:
    """Kills: a run that waits for ever, a traceback of another process, workers that outlive the run, a checkpoint lost
    or written half, and a run that does not go on from it to the same end."""
    monkeypatch.setattr(batches, "PATIENCE", 1.0)
    made, stage = tmp_path / "made", Toy()
    made.mkdir()
    marked, real = Marked(made, trouble), stage.batch
    stage.batch = lambda indices: marked(indices) and real(indices)  # type: ignore[method-assign]
    fit(Toy(), schedule(), tmp_path / "run", SEED, stop_at=1)
    assert all(5 not in batch_indices(23, 6, SEED, step) for step in (0, 1))
    begun = time.monotonic()
    with pytest.raises(UserError, match=line) as error:
        fit(stage, schedule(save_every=1), tmp_path / "run", SEED, workers=2)
    assert "\n" not in str(error.value) and time.monotonic() - begun < 20
    assert marked.workers() and not any(alive(pid) for pid in marked.workers())
    kept = checkpoint.load(tmp_path / "run")
    assert kept is not None and kept.step >= 1
    fit(Toy(), schedule(), tmp_path / "run", SEED, workers=2)
    fit(Toy(), schedule(), tmp_path / "whole", SEED)
    ends = [checkpoint.load(tmp_path / name) for name in ("run", "whole")]
    assert ends[0] and ends[1] and ends[0].fingerprint() == ends[1].fingerprint()


@pytest.mark.parametrize(
    ("number", "line"), [(signal.SIGSTOP, "has not answered for 1 s"), (signal.SIGKILL, "has ended")]
)
def test_batches_lie_ready_of_a_worker_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, line: str
) -> None:
    """Kills: a batch for which a worker must still be there once it has sent it: the run waits for ever on one that was
    stopped, and tells a broken connection of one that was killed."""
    monkeypatch.setattr(batches, "PATIENCE", 1.0)
    before = set(multiprocessing.active_children())

    def too_long(*_: object) -> None:
        raise AssertionError("waited for ever")

    old = signal.signal(signal.SIGALRM, too_long)
    try:
        with pytest.raises(UserError, match=line), upcoming(lambda rows: (3 * rows,), order(), 1) as given:
            assert torch.equal(next(given)[0], 3 * order()[0])
            time.sleep(0.5)  # the next ones are made
            (worker,) = set(multiprocessing.active_children()) - before
            signal.alarm(15)
            os.kill(worker.pid or 0, number)
            for (found,), rows in zip(given, order()[1:], strict=False):
                assert torch.equal(found, 3 * rows)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize("missing", ["", "preadv", "memfd_create"])
def test_a_batch_is_handed_over_bit_by_bit(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a system lacks what Linux has. Kills: numbers of another type or shape, a place that is filled again
    before its batch is taken."""
    if missing:
        monkeypatch.delattr(os, missing)
    generator = torch.Generator().manual_seed(1)
    made = [
        (
            torch.rand(count, 3, 5, generator=generator).transpose(1, 2),
            torch.randint(0, 255, (count, 2), dtype=torch.uint8, generator=generator),
            torch.rand(count, generator=generator).bfloat16(),
            torch.tensor(count),
        )
        for count in (4, 0, 7)
    ]
    handover = Handover.of(2, 3)
    try:
        placed = [handover.put(batch, 1) for batch in made]
        for batch, place in zip(made, placed, strict=True):
            taken = handover.take(place)
            assert len(taken) == 4 and all(one.dtype == other.dtype for one, other in zip(batch, taken, strict=True))
            assert all(torch.equal(one, other) for one, other in zip(batch, taken, strict=True))
    finally:
        handover.close()


def test_the_run_is_the_same_to_the_last_bit_with_any_workers_and_when_it_goes_on(tmp_path: Path) -> None:
    """Kills: workers that begin an epoch, or the run, anew; randomness of the step that workers draw from."""
    fit(Toy(), schedule(), tmp_path / "whole", SEED)
    whole = checkpoint.load(tmp_path / "whole")
    for workers, then in ((1, 4), (4, 0)):
        folder = tmp_path / str(workers)
        fit(Toy(), schedule(), folder, SEED, stop_at=5, workers=workers)
        fit(Toy(), schedule(), folder, SEED, workers=then)
        found = checkpoint.load(folder)
        assert whole and found and found.fingerprint() == whole.fingerprint()


def test_the_real_command_trains_the_same_with_workers(
    tiny_run: Path, tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights bit for bit, over a stop in the middle of an epoch. Kills: an option that goes nowhere, a stage that
    reads its model or draws numbers while it makes a batch."""
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(tmp_path / "run")]
    words += ["--stage1.samples", "256", "--stage2.samples", "128", "--evaluation.samples", "8"]
    real, asked = job.fit, list[tuple[str, int]]()

    def watched(stage: Stage, *rest: Any, **named: Any) -> dict[str, Any]:
        asked.append((stage.name, named["workers"]))
        if len(asked) > 1:
            return real(stage, *rest, **named)
        real(stage, *rest, **named, stop_at=3)
        raise UserError("stopped")

    monkeypatch.setattr(job, "fit", watched)
    assert main([*words, "--workers", "4"]) == 2 and main([*words, "--workers", "1"]) == 0
    assert asked == [("stage1", 4), ("stage1", 1), ("stage2", 1)]
    for name in ("autoencoder.safetensors", "base.safetensors"):
        (found, header), (wanted, other) = (read_safetensors(run / name) for run in (tmp_path / "run", tiny_run))
        assert header == other and found.keys() == wanted.keys()
        assert all(torch.equal(found[one], wanted[one]) for one in wanted)


def test_a_signal_to_all_stops_the_run_between_two_steps(tmp_path: Path) -> None:
    """A terminal's Ctrl-C and a queue's SIGTERM reach the workers too. Kills: workers that end by it, and with them the
    run in the middle of a step."""
    made, stage = tmp_path / "made", Toy()
    made.mkdir()
    marked, real = Marked(made), stage.batch
    stage.batch = lambda indices: marked(indices) and real(indices)  # type: ignore[method-assign]

    def progress(told: Step) -> None:
        if told.step == 3:
            pids = " ".join(map(str, marked.workers()))
            subprocess.run(["sh", "-c", f"kill -TERM {pids}"], check=True)  # a parent's own would be another matter
            time.sleep(0.3)  # their ends would be told by now
            os.kill(HERE, signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        fit(stage, schedule(), tmp_path / "run", SEED, workers=2, progress=progress)
    kept = checkpoint.load(tmp_path / "run")
    assert stopped.value.code == 143 and kept is not None and kept.step == 3
    assert len(marked.workers()) == 2 and not any(alive(pid) for pid in marked.workers())


@pytest.mark.usefixtures("on_cpu")
def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    """Kills: workers that hang when their parent is gone, and hold its memory for ever."""
    made = tmp_path / "made"
    made.mkdir()
    marked = Marked(made, lambda: time.sleep(600))
    child = os.fork()
    if not child:
        stage = Toy()
        stage.batch = lambda indices: marked(indices)  # type: ignore[method-assign]
        try:
            fit(stage, schedule(), tmp_path / "run", SEED, workers=2)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 30
    while len(marked.workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while any(alive(pid) for pid in marked.workers()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(marked.workers()) == 2 and not any(alive(pid) for pid in marked.workers())


def test_samples_that_are_not_finite_are_named_with_workers_too(tmp_path: Path) -> None:
    """Kills: a refusal that looks for the bad rows in the batch of another step."""
    stage = Toy()
    rows = batch_indices(23, 6, SEED, 3).tolist()
    stage.data[rows[1], 1] = math.nan
    first = next(step for step in range(4) if rows[1] in batch_indices(23, 6, SEED, step))
    lines = list[str]()
    with pytest.raises(UserError, match="too many steps were refused"):  # the toy's running mean keeps the NaN
        fit(stage, schedule(), tmp_path, SEED, workers=2, warn=lines.append)
    assert lines[0].startswith(f"toy, step {first + 1}: samples {rows[1]}: their data are not finite")


def test_a_number_that_no_run_can_have_is_refused() -> None:
    """Kills: torch's own words for it."""
    with pytest.raises(UserError, match="workers -1: 0, for batches made in this process"), upcoming(len, [], -1):  # type: ignore[arg-type]
        pass


def test_another_failure_in_the_loop_is_left_as_it_is() -> None:
    """Kills: any RuntimeError of a step told as a worker's."""
    with pytest.raises(RuntimeError, match="out of memory"), upcoming(lambda i: (i,), order(), 1):
        raise RuntimeError("out of memory")


def test_a_stage_may_ask_for_epochs(tmp_path: Path) -> None:
    """Its numbers are ``index + count · epoch``, over the border of an epoch, from a checkpoint on, and in what a step
    is computed from again. Kills: epochs that begin anew on resuming, indices without one, epochs for all stages."""
    wanted = torch.cat([batch_indices(23, 6, SEED, step) for step in range(10)]) + 23 * (torch.arange(60) // 23)
    toy, seen = Toy(), list[int]()

    def batch(numbers: Tensor) -> tuple[Tensor, ...]:
        seen.extend(numbers.tolist())
        return toy.batch(numbers % 23)

    stage = replace(toy.stage(), by_epoch=True, batch=batch)
    for stop_at in (5, 10):
        engine.fit(stage, schedule(), tmp_path, SEED, stop_at=stop_at)
    assert seen == wanted.tolist() and max(seen) >= 46
    state = engine.State(stage, schedule(), SEED, torch.device("cpu"))
    state.step = 4
    assert engine._numbers_of(state, 4).tolist() == wanted[24:30].tolist()
    plain = replace(stage, by_epoch=False)
    assert max(engine._numbers_of(engine.State(plain, schedule(), SEED, torch.device("cpu")), 9).tolist()) < 23
