"""Processes that die: kill −9 at random times and at each system call of a save, signals, two trainers on a folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command import Child, Ended, run, start
from .ground import SAVE_EVERY, STEPS, Ground, Outcome, bad, chance, clean, leftovers, ok, silent, state_of, stopping


def _saved(folder: Path) -> int:
    """Steps that the checkpoints of both stages hold; a finished stage 1 counts whole."""
    from unilat.training import checkpoint

    first, second = (checkpoint.load(folder / stage) for stage in ("stage1", "stage2"))
    return (first.step if first else 0) + (second.step if second else 0)


def _lost_little(folder: Path, ended: Ended, begun: int = 0) -> Outcome | None:
    done, saved = begun + ended.steps, _saved(folder) if folder.is_dir() else 0
    return bad(f"{done} steps done, {saved} saved") if done - saved > SAVE_EVERY + 1 else None


def kill(ground: Ground, seed: int, folder: Path) -> Outcome:
    """kill −9 after a random part of the run's work; every third trial a second time while it goes on."""
    random, moments = chance("kill", seed), []
    for _ in range(1 + (seed % 3 == 2)):
        moment = random.uniform(0.05, 1.0) * ground.seconds
        moments.append(round(moment, 3))
        before = _saved(folder) if folder.is_dir() else 0
        ended = ground.train(folder, when=lambda child, moment=moment: child.work() > moment)
        if ended.bad:
            return bad(ended.bad)
        if outcome := _lost_little(folder, ended, before):
            return outcome
    found = ground.goes_on(folder)
    return Outcome(found.name, f"killed after {moments} s of work: {found.seen}")


TRACED = "openat,write,fsync,rename,renameat,mkdir,mkdirat,unlink,unlinkat,rmdir"
"""System calls of a save that change anything: at each of them, one after the other, the process is killed."""
ENDED = "/the-save-has-ended"


def _at_save(turn: int, tell: int, go: int) -> Any:
    """Tells, at the ``turn``-th save, and waits until the tracer is there."""

    def plant() -> None:
        from unilat.training import checkpoint

        inner, seen = checkpoint.save, [0]

        def save(*words: Any, **named: Any) -> Any:
            seen[0] += 1
            if seen[0] == turn:
                os.write(tell, b".")
                os.read(go, 1)
            try:
                return inner(*words, **named)
            finally:
                with contextlib.suppress(OSError):
                    os.rmdir(ENDED)  # a call that the tracer sees

        checkpoint.save = save

    return plant


def place_of(calls: Sequence[str], place: int) -> str:
    """The ``place``-th of these system calls as strace counts: each name by itself."""
    return f"{calls[place]}:signal=KILL:when={calls[: place + 1].count(calls[place])}"


def traced(ground: Ground, folder: Path, turn: int, inject: str) -> tuple[Ended, list[str]]:
    """Go on in ``folder``, killed by ``inject`` after the ``turn``-th save began; the calls that the save made."""
    (told, tell), (wait, go), log = os.pipe(), os.pipe(), folder.with_suffix(".strace")
    child = start(ground.words(folder), folder.with_suffix(".txt"), _at_save(turn, tell, wait))
    os.close(tell)  # so that its end is heard
    tracer = None
    if os.read(told, 1):
        how = ["-e", f"inject={inject}"] if inject else []
        words = ["strace", "-f", "-q", "-e", f"trace={TRACED}", *how, "-o", str(log), "-p", str(child.pid)]
        tracer = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2000):
            tasks = Path(f"/proc/{child.pid}/task").iterdir()
            if all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks):
                break
            time.sleep(0.005)
        os.write(go, b".")
    ended = child.wait()
    if tracer is not None:
        tracer.wait(10)
    for descriptor in (told, wait, go):
        os.close(descriptor)
    lines = [line.split(maxsplit=1) for line in log.read_text(errors="replace").splitlines()] if tracer else []
    last = next((k for k, (_, line) in enumerate(lines) if ENDED in line), None)
    thread = lines[last][0] if last is not None else ""
    return ended, [line.split("(")[0] for number, line in lines[:last] if number == thread and line[0].isalpha()]


def calls_of_a_save(ground: Ground, turn: int) -> list[str]:
    """System calls of the ``turn``-th save of a run that goes on from step 3; listed once."""
    note = ground.work / f"calls-{turn}"
    if not note.is_file():
        folder = ground.copy(ground.stopped(3), ground.work / f"count-{turn}")
        note.write_text(" ".join(traced(ground, folder, turn, "")[1]))
        shutil.rmtree(folder)
    return note.read_text().split()


def syscall(ground: Ground, seed: int, folder: Path) -> Outcome:
    """kill −9 at system call ``seed`` of a save that rotates (the second), or of one over a damaged one of its step."""
    if shutil.which("strace") is None:
        return ok("no strace here: nothing tried")
    ground.copy(ground.stopped(3), folder)
    overwrites = seed % 4 == 3
    if overwrites:  # the step of the next save stands there already, damaged
        shutil.copytree(folder / "stage1" / "step-0000000003", folder / "stage1" / "step-0000000004")
    calls = calls_of_a_save(ground, 2)
    place = seed % len(calls)
    ended, _ = traced(ground, folder, 1 if overwrites else 2, place_of(calls, place))
    seen = f"{calls[place]}, call {place + 1} of {len(calls)}{', overwriting' * overwrites}"
    if ended.code != -signal.SIGKILL:
        return bad(f"not killed at {seen}: {ended.code} {ended.line}")
    found = ground.goes_on(folder)
    return Outcome(found.name, f"killed at {seen}: {found.seen}")


def stop(ground: Ground, seed: int, folder: Path) -> Outcome:
    """SIGTERM, SIGINT or SIGUSR1 after each step in turn; every fourth trial a second one at once."""
    number = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[seed % 3]
    steps, twice = 1 + (seed * 7) % (STEPS - 1), seed % 4 == 3
    ended = ground.train(folder, stopping(steps, number, twice))
    expected = 128 + (signal.SIGTERM if twice else number)
    if ended.bad or ended.code != expected:
        return bad(ended.bad or f"{signal.Signals(number).name} after step {steps}: exit {ended.code}, not {expected}")
    if not twice:
        if (saved := _saved(folder)) != steps:
            return bad(f"stopped after step {steps}, saved {saved}")
        if left := leftovers(folder):
            return bad(f"left behind: {left}")
    found = ground.goes_on(folder)
    return Outcome(found.name, f"{signal.Signals(number).name}{' twice' * twice} after step {steps}: {found.seen}")


def two(ground: Ground, seed: int, folder: Path) -> Outcome:
    """A second trainer on the folder of a living one is refused; a dead one's lock is not in the way."""
    if seed % 2:
        ground.copy(ground.stopped(3), folder)
        for place in (folder, folder / "stage1"):
            (place / ".lock").write_text("1\n" if seed % 4 == 1 else f"{os.getpid()}\n")
        return ground.goes_on(folder)
    after, seen = 1 + seed % 8, list[Ended]()

    def second(child: Child) -> bool:
        if child.steps >= after and not seen:
            child.send(signal.SIGSTOP)
            seen.append(run(ground.words(folder), folder.with_suffix(".second.txt")))
            child.send(signal.SIGCONT)
        return False

    first = ground.train(folder, when=second)
    if first.bad or first.code:
        return bad(f"the first: {first.bad or first.line}")
    if state_of(folder) != ground.state:
        return silent("the first ended in another state")
    if not seen:
        return ok("the first was done before the second began")
    if seen[0].bad or seen[0].code != 2 or "being trained by another process" not in seen[0].line:
        return bad(f"the second: {seen[0].bad or seen[0].line}")
    return clean(f"the second: {seen[0].line}")
