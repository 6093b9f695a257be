"""The loop: batches, gradients, steps, checkpoints; one process, or several under ``torchrun``.

Everything random is a function of (seed, step, row of the global batch), everything counted is counted in samples, and
the state between two steps is exactly what a checkpoint holds. So a run that is stopped anywhere and resumed is bitwise
the run that was not, and several processes see the batches that one would see. The objective lives in the stage.

    indices = batch_indices(count, batch, seed, step)[rows of this process]
    loss [b], metrics = stage.losses(stage.batch(indices), draws)
    → gradients → Σ over micro-batches and processes → all finite? → clip → AdamW, Muon → EMA → the stage's own move

Exit codes after a signal, with the step finished and saved: SIGINT 130, SIGUSR1 138, SIGTERM 143 (128 + its number).
"""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unilat.maths.seeds import Draws, key
from unilat.training import checkpoint
from unilat.training.batches import placed, upcoming
from unilat.training.blame import blamed
from unilat.training.capture import Captured, NoRoom
from unilat.training.checks import agreed, check, joined
from unilat.training.fast import uncompiled
from unilat.training.flat import Whole
from unilat.training.guard import Diverged, Refused
from unilat.training.journal import Journal, Log
from unilat.training.machine import pick_device
from unilat.training.micro import MicroBatch, one_line_where_memory_ends
from unilat.training.order import batch_indices, epochs_of
from unilat.training.parallel import World
from unilat.training.plan import Batch, Losses, Schedule, Stage
from unilat.training.records import Fitted, Progress, Step
from unilat.training.saving import CLOCK, Saver
from unilat.training.state import State
from unilat.training.stopping import ASKED, Signals

Told = dict[str, float]
Warn = checkpoint.Warn


def _order_of(state: State, step: int) -> Tensor:
    """The examples of the global batch of a step, int64 ``[batch]``."""
    return batch_indices(state.stage.count, state.schedule.batch, state.seed, step, state.stage.blocks)


def _numbers_of(state: State, step: int) -> Tensor:
    """What ``stage.batch`` gets for the global batch of a step: the examples, by epoch where they differ by it."""
    indices, count = _order_of(state, step), state.stage.count
    return indices + count * epochs_of(count, len(indices), step) if state.stage.by_epoch else indices


def _losses(
    state: State, world: World, first: int, last: int, rows: Batch | None = None, losses: Losses | None = None
) -> tuple[Tensor, dict[str, Tensor], Batch]:
    """Forward pass of rows ``first..last`` of the next step; the same whenever it is called between two steps.

    ``rows``: these examples, where they have been made already. ``losses``: the stage's, but for a step of several
    processes.
    """
    stage, total = state.stage, state.schedule.batch
    if rows is None:
        rows = stage.batch(_numbers_of(state, state.step)[first:last])
    batch = tuple(tensor.to(state.device, non_blocking=True) for tensor in rows)
    apart = first - world.rows(total)[0]  # each micro-batch has masks of its own
    torch.manual_seed(key(state.seed, state.step, world.rank, "modules") + apart)  # dropout and the like
    draws = Draws.keyed(state.seed, state.step, first, total, state.noise)
    loss, metrics = (losses or stage.losses)(batch, draws)
    if loss.shape != (last - first,):
        raise ValueError(f"{stage.name}: losses are [{last - first}], one per example, not {list(loss.shape)}")
    return loss, metrics, batch


Passed = tuple[list[str], Tensor, dict[str, Tensor]]


def _fitted(state: State, world: World, micro: MicroBatch, rows: Batch | None) -> Passed:
    """:func:`_passes` in micro-batches that fit. Several processes try them before they exchange anything, and go by
    the one that has least room."""
    name, most = state.stage.name, -(-state.schedule.batch // world.size)
    if world.size == 1:
        return micro.fitted(name, most, lambda: _passes(state, world, micro, rows))
    if micro.search and isinstance(state.laid, Whole):
        micro.fitted(name, most, lambda: _passes(state, world, micro, rows, alone=True))
        least, own = int(world.gather(torch.tensor([micro.size or most])).min()), micro.size
        micro.size, micro.search = least if least < most else 0, False
        if micro.size != own:
            micro.found(micro.size)
    return _passes(state, world, micro, rows)


def _passes(state: State, world: World, micro: MicroBatch, rows: Batch | None, alone: bool = False) -> Passed:
    """Forward and backward passes of this process's rows, one micro-batch after the other.

    Leaves their gradients in ``state``; returns the names and sums over the rows of the loss and of what is logged
    ``[k]``, and the sums of what ``observe`` gets.
    """
    total = state.schedule.batch
    (first, last), most = world.rows(total), -(-total // world.size)
    state.forget_gradients()
    names, totals, sums = ["loss"], torch.zeros(()), {}
    for begin, end in micro.parts(first, last, most):
        some = rows if rows is None else tuple(part[begin - first : end - first] for part in rows)
        losses = state.laid.exchanged(micro.size > 0) if end == last and not alone else state.laid.part_losses
        loss, metrics, _ = _losses(state, world, begin, end, some, losses)
        (loss.sum() / (total / world.size)).backward()  # of several, the mean over the processes is taken as it goes
        vectors = {name: metrics.pop(name) for name in [*metrics] if metrics[name].dim() > 1}
        names = ["loss", *metrics]
        own = torch.stack([one.detach() for one in (loss, *metrics.values())]).sum(1, dtype=torch.float64)
        seen = {name: one.detach().sum(0, dtype=torch.float64) for name, one in vectors.items()}
        totals = own if begin == first else totals + own
        sums = seen if begin == first else {name: sums[name] + one for name, one in seen.items()}
    return names, totals, sums


def _step(
    state: State, world: World, number: int, rows: Batch | None = None, micro: MicroBatch | None = None
) -> tuple[dict[str, float], int]:
    """One step, on this process's ``rows`` of its batch. Returns the means over the global batch, and the signal to
    stop for: this process's or another's. ``number`` and it are :data:`CLOCK` more where process 0 finds that a save is
    due."""
    schedule, total, micro = state.schedule, state.schedule.batch, micro or MicroBatch()
    with uncompiled(state.stage.model) if micro.seeking else nullcontext():  # each size tried would be compiled anew
        names, totals, sums = _fitted(state, world, micro, rows)
    world.sum_all([totals, *sums.values(), signals := totals.new_full((1,), number)])
    gradient = state.gradient()
    # the one time in a step that anything is fetched from the device
    *means, norm, heard = torch.cat([totals / total, gradient.norm().double()[None], signals]).tolist()
    state.guard.judge(names, means, norm)
    if norm > schedule.clip:
        gradient.scale(schedule.clip / norm)
    rate = schedule.rate(state.samples + total)
    state.move(rate)
    state.step += 1
    if sums:
        state.stage.observe(sums)
    state.ema.update(total, state.samples)
    state.guard.passed(means[0])
    told = dict(zip(names, means, strict=True)) | {"gradient_norm": norm, "learning_rate": rate}
    caught = number % CLOCK or (int(signal.SIGTERM) if heard % CLOCK else 0)
    return told, caught + (CLOCK if heard >= CLOCK else 0)


def _after(state: State, told: dict[str, float]) -> tuple[dict[str, float], bool]:
    """Let the stage move; returns all numbers of the step, and whether a calibration is among them."""
    told |= state.between(state.stage.after_step, dict(told), state.samples)
    calibrate, every = state.stage.calibrate, state.stage.eval_every
    if calibrate is None or not every or state.step % every:
        return told, False
    torch.manual_seed(key(state.seed, state.step, "calibrate"))
    state.stage.model.eval()
    with torch.no_grad():
        told |= calibrate(state.average(), state.step)
    state.stage.model.train()
    return told, True


def _loop(run: "_Run", batches: Iterator[Batch], journal: Journal, captured: Captured | None) -> Told:
    """Steps up to ``run.last``, each logged, shown and saved when due; :class:`_Lost` after too many refused ones."""
    state, world, schedule, progress = run.state, run.world, run.state.schedule, run.progress
    pace, told, begun = 0.0, {}, state.step
    signals = Signals(1.0 if world.size > 1 else 0.0)
    with signals.caught(), world.watched() as beat:
        while state.step < run.last:
            beat()
            run.saver.check()
            start, refused, caught = time.perf_counter(), "", 0
            rows = next(batches)
            try:
                if captured is not None:
                    try:
                        means = captured.step(rows)
                    except NoRoom:
                        captured.end()
                        captured = None
                if captured is None:
                    timed = CLOCK if world.rank == 0 and run.saver.by_clock() else 0
                    means, caught = _step(state, world, signals.number + timed, rows, run.micro)
                told, calibrated = _after(state, means)
            except Refused as found:
                refused, calibrated = _refused(run, found), False
            took = time.perf_counter() - start
            state.seconds += took
            pace = took if state.step <= begun + 2 else 0.95 * pace + 0.05 * took  # the first step warms up
            count = {"stage": state.stage.name, "step": state.step, "samples": state.samples}
            logged = calibrated or state.step in (1, schedule.steps) or state.step % schedule.log_every == 0
            if refused:
                journal.write({**count, "seconds": round(state.seconds, 3), "skipped": refused})
                if state.guard.given_up:
                    raise _Lost(refused)
            elif logged:
                journal.write({**count, "seconds": round(state.seconds, 3), **told})
            shown = world.rank == 0 and not refused
            if shown and progress and progress(_record(state, told, pace, logged)) is False:  # as a signal would
                signals.number = signals.number or ASKED
            if not refused:
                _show(state, world)
            due, caught = caught >= CLOCK, caught % CLOCK
            if world.size == 1:  # several must save and stop at the same step
                due, caught = run.saver.by_clock(), signals.number
            end = bool(caught) or state.step == run.last
            if end or ((due or run.saver.by_steps()) and not refused):
                journal.sync()
                run.saver.save(wait=end)
            if caught:
                raise SystemExit(128 + caught)
        if signals.number:  # it came while the last step was saved
            raise SystemExit(128 + signals.number)
    return told


class _Lost(Exception):
    """Too many of the last steps were refused; why the last one was."""


def _refused(run: "_Run", found: Refused) -> str:
    """Count a step that did not happen, tell it, and return why it did not."""
    state, world = run.state, run.world

    def forward(first: int, last: int, losses: Losses | None) -> tuple[Tensor, Batch]:
        loss, _, batch = _losses(state, world, first, last, losses=losses)
        return loss, batch

    why = blamed(state, world, found, run.micro, _order_of(state, state.step), forward)
    state.step += 1
    state.guard.refused()
    if world.rank == 0:
        run.tell(f"{state.stage.name}, step {state.step}: {why}; this step changed nothing")
    return why


def _show(state: State, world: World) -> None:
    """Let whoever looks on see the averaged model, where a look is due; what is trained stays as it is."""
    stage = state.stage
    if stage.show is None or not stage.show_every:
        return
    if state.step % stage.show_every == 0 or state.step == state.schedule.steps:
        with torch.no_grad():
            average = state.average()  # where the state is shared out all processes gather it
            if world.rank == 0:
                stage.show(average, state.step, state.samples)


def _record(state: State, told: Told, pace: float, logged: bool) -> Step:
    """The record of the step just made; ``pace``: seconds a step."""
    steps = state.schedule.steps
    return Step(
        stage=state.stage.name,
        step=state.step,
        steps=steps,
        samples=state.samples,
        loss=told["loss"],
        metrics=told,
        samples_per_second=state.schedule.batch / pace,
        seconds_left=(steps - state.step) * pace,
        seconds=state.seconds,
        logged=logged,
    )


def fit(
    stage: Stage,
    schedule: Schedule,
    folder: Path,
    seed: int,
    *,
    log: Path | Log | None = None,
    progress: Progress | None = None,
    stop_at: int | None = None,
    device: str = "auto",
    workers: int = 0,
    micro: MicroBatch | None = None,
    shard: bool = False,
    warn: Warn = checkpoint.warn_stderr,
    capture: bool = False,
    noise: Literal["device", "cpu"] = "device",
) -> Fitted:
    """Train ``stage.model`` in place, from the newest checkpoint in ``folder`` if there is one.

    ``log``: lines are appended here. ``progress``: told each step's numbers, on process 0; where it returns False the
    run stops as after SIGUSR1. ``stop_at``: save and return after this many steps. ``workers``: processes that make
    batches ahead. ``micro``: rows computed at a time, by default all, on a GPU what fits. ``shard``: each process has
    its rows of the state. ``capture``: steps through buffers, on a GPU as CUDA graphs. ``noise``: drawn where.

    Raises ``UserError`` where step after step is refused (``guard.py``), for a folder that is in use, damaged or of
    another run, a disk that fails and a worker that has ended or hangs; ``SystemExit`` 128 + n after signal n.
    """
    check(schedule, stage)
    place = pick_device(device)
    micro = micro or MicroBatch(search=place.type == "cuda")
    world = joined(stage, schedule, place, shard and micro.size > 0)
    with ExitStack() as stack, one_line_where_memory_ends(stage, schedule.batch, micro):
        stack.enter_context(torch.random.fork_rng([place] if place.type == "cuda" else []))
        if world.rank == 0:
            stack.enter_context(checkpoint.lock(folder))
            checkpoint.sweep(folder)
        world.meet()  # the others read only after the lock is held
        world.copy([*stage.model.state_dict().values()])  # process 0 has the say
        state = State(stage, schedule, seed, place, world, shard, "cpu" if noise == "cpu" else str(place))
        stack.push(lambda kind, *_: state.release(kind is None))
        tell: Warn = warn if world.rank == 0 else lambda line: None
        last = min(schedule.steps, schedule.steps if stop_at is None else stop_at)
        saver = Saver(state, folder, tell)
        stack.push(saver.left)
        run = _Run(state, world, saver, log, progress, tell, micro, last, workers, capture)
        told, resumed = _tried_twice(run)
        return Fitted(
            stage=stage.name,
            step=state.step,
            steps=schedule.steps,
            samples=state.samples,
            seconds=state.seconds,
            resumed=resumed,
            metrics=told,
            ema={name: tensor.clone() for name, tensor in state.average().items()},
        )


@dataclass(frozen=True)
class _Run:
    """What a fit goes on with, from whichever checkpoint."""

    state: State
    world: World
    saver: Saver
    log: Path | Log | None
    progress: Progress | None
    tell: Warn
    micro: MicroBatch
    last: int
    workers: int
    capture: bool


def _tried_twice(run: _Run) -> tuple[Told, int]:
    """The last step's numbers, and the step that the fit began at. Where step after step is refused it goes back to the
    newest checkpoint once, since what is broken may be in memory alone; where that does not help it stops."""
    state, name = run.state, run.state.stage.name
    resumed = begun = _restored(run)
    for again in (False, True):
        try:
            return _from_here(run, begun, lost if again else ""), resumed
        except _Lost as found:
            lost = str(found)
            run.saver.wait()
            if again or state.saved <= 0:
                good = f"step {state.saved} is saved and good" if state.saved > 0 else "nothing was saved yet"
                raise Diverged(
                    f"{name}, step {state.step}: {lost}; too many steps were refused ({state.guard.skipped} changed "
                    f"nothing, {good}): leave those samples out, or lower the learning rate"
                ) from None
            run.tell(f"{name}, step {state.step}: too many steps were refused, back to step {state.saved}")
            begun = _restored(run)
    raise AssertionError


def _restored(run: _Run) -> int:
    """Become the newest checkpoint, where there is one; the step that all processes go on from."""
    if found := checkpoint.load(run.saver.folder, warn=run.tell):
        run.state.restore(found, run.tell)
    return agreed(run.world, run.state.device, run.state.step, run.saver.folder)


def _from_here(run: _Run, begun: int, lost: str) -> Told:
    """All steps that are left; ``lost``: why the run has gone back to here, if it has."""
    state, stage = run.state, run.state.stage
    with ExitStack() as stack:
        journal = Journal(run.log if run.world.rank == 0 else None, stage.name, begun)
        stack.callback(journal.close)
        if lost:
            journal.write({"stage": stage.name, "step": begun, "samples": state.samples, "back": lost})
        stage.prepare()
        order = _order(state, run.world, run.last)
        batches = placed(stack.enter_context(upcoming(stage.batch, order, run.workers)), state.device)
        captured = stack.enter_context(Captured.holding(state, run.tell)) if run.capture else None
        return _loop(run, batches, journal, captured)


def _order(state: State, world: World, last: int) -> Iterator[Tensor]:
    """The indices of this process's rows in each step from the next one up to ``last``."""
    first, end = world.rows(state.schedule.batch)
    for step in range(state.step, last):
        yield _numbers_of(state, step)[first:end]
