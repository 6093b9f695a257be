"""Two processes that train one run: one of them is killed or stopped in the middle."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from .command import Ended, start
from .ground import Ground, Outcome, bad, clean, leftovers, silent, state_of

TIMEOUT = 3.0
"""Seconds that one process waits for the other."""


def _member(rank: int, port: int, step: int, number: int) -> Callable[[], None]:
    """Process ``rank`` of two; process 1 gets a signal in so many steps of stage 1 (0: never)."""

    def plant() -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
        from unilat.run.stages import AutoencoderStage
        from unilat.training import parallel

        parallel.TIMEOUT = timedelta(seconds=TIMEOUT if step else 60)
        inner, seen = AutoencoderStage.losses, [0]

        def losses(self: Any, batch: Any, draws: Any) -> Any:
            seen[0] += 1
            if rank == 1 and seen[0] == step:
                os.kill(os.getpid(), number)
            return inner(self, batch, draws)

        AutoencoderStage.losses = losses

    return plant


def _both(ground: Ground, folder: Path, step: int = 0, number: int = signal.SIGKILL) -> tuple[Ended, float]:
    """How process 0 ended, and the seconds that it took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    begun = time.monotonic()
    children = [
        start(ground.words(folder), folder.with_suffix(f".{rank}.txt"), _member(rank, port, step, number))
        for rank in (0, 1)
    ]
    ended, took = children[0].wait(), time.monotonic() - begun
    if step:
        children[1].send(signal.SIGKILL)
    other = children[1].wait()
    return (ended if step or not (other.bad or other.code) else other), took


def pair(ground: Ground, seed: int, folder: Path) -> Outcome:
    """Noticed and told by process 0; then two go on to the state of two undisturbed ones, or one goes on alone."""
    whole = ground.work / "pair"
    note = ground.work / "pair.state"
    if not note.is_file():
        ended, took = _both(ground, whole)
        assert ended.code == 0, ended.said
        note.write_text(f"{state_of(whole)} {took}")
    state, usual = note.read_text().split()
    number, step = (signal.SIGKILL, signal.SIGSTOP)[seed % 2], 2 + seed % 5
    ended, took = _both(ground, folder, step, number)
    seen = f"process 1 got {signal.Signals(number).name} in step {step}"
    if ended.bad or ended.code == 0 or not ended.line.startswith("error:"):
        return bad(f"{seen}: {ended.bad or ended.line or ended.code}")
    if took > 2 * float(usual) + TIMEOUT + 5:
        return bad(f"{seen}: told after {took:.0f} s")
    seen = f"{seen}: {ended.line}"
    if seed // 2 % 2:
        alone = ground.train(folder)
        if alone.bad or alone.code or leftovers(folder):
            return bad(f"{seen}; alone: {alone.bad or alone.line}, left {leftovers(folder)}")
        return clean(f"{seen}; one went on")
    again, _ = _both(ground, folder)
    if again.bad or again.code or leftovers(folder):
        return bad(f"{seen}; again: {again.bad or again.line}, left {leftovers(folder)}")
    if state_of(folder) != state:
        return silent(f"{seen}; another state than two undisturbed ones'")
    shutil.rmtree(folder)
    return clean(f"{seen}; two went on to the same state")
