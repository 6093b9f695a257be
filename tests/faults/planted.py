"""Faults of the file system and of numbers, planted in the process before the command begins."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
CALLS = ("open", "write", "fsync", "mkdir", "replace", "opened")
"""Functions of ``os`` that write, and ``io.open`` for writing."""


def _under(folder: Path, argument: Any) -> bool:
    if isinstance(argument, int):
        try:
            argument = os.readlink(f"/proc/self/fd/{argument}")
        except OSError:
            return False
    return str(argument).startswith(str(folder))


def failing(folder: Path, call: str, turn: int, number: int, lasting: bool) -> Callable[[], None]:
    """The ``turn``-th ``call`` below ``folder`` fails with errno ``number``; ``lasting``: all after it, too."""

    def plant() -> None:
        seen = [0]

        def check(path: Any) -> None:
            seen[0] += 1
            if seen[0] == turn or (lasting and seen[0] > turn):
                raise OSError(number, os.strerror(number), str(path))

        _wrap(folder, call, check)

    return plant


def counted(folder: Path, call: str, note: Callable[[], Any]) -> Callable[[], None]:
    """Calls ``note`` at each ``call`` below ``folder``."""
    return lambda: _wrap(folder, call, lambda path: note())


def _wrap(folder: Path, call: str, check: Callable[[Any], Any]) -> None:
    if call == "opened":
        real = io.open

        def opened(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            if any(letter in mode for letter in "wax+") and _under(folder, file):
                check(file)
            return real(file, mode, *more, **named)

        io.open = opened
        __builtins__["open"] = opened  # pyright: ignore[reportIndexIssue]
        return
    inner = getattr(os, call)

    def wrapped(first: Any, *more: Any, **named: Any) -> Any:
        reads = call == "open" and not int(more[0] if more else named["flags"]) & os.O_CREAT
        if not reads and _under(folder, first):
            check(first)
        return inner(first, *more, **named)

    setattr(os, call, wrapped)


def spoiling(first: int, last: int, value: float) -> Callable[[], None]:
    """The loss of one example of stage 1 is ``value`` times what it is, in steps ``first`` to ``last``."""

    def plant() -> None:
        from unilat.run.stages import AutoencoderStage

        inner, seen = AutoencoderStage.losses, [0]

        def losses(self: Any, batch: Any, draws: Any) -> Any:
            import torch

            loss, metrics = inner(self, batch, draws)
            seen[0] += torch.is_grad_enabled()
            if first <= seen[0] <= last:
                factor = torch.ones_like(loss)
                factor[1:2] = value  # of examples computed one by one none
                loss = loss * factor
            return loss, metrics

        AutoencoderStage.losses = losses

    return plant


def losing_a_worker(step: int, number: int, patience: float) -> Callable[[], None]:
    """One worker gets a signal at a step; the next batch may take so many seconds."""

    def plant() -> None:
        import multiprocessing
        import time

        from unilat.training import batches, engine

        batches.PATIENCE = patience
        inner, seen = engine.Step, [0]
        make = batches._Examples.__getitem__

        def slow(self: Any, indices: Any) -> Any:
            time.sleep(0.1)  # so that not all is made before the fault
            return make(self, indices)

        def counted(**fields: Any) -> Any:
            seen[0] += 1
            if seen[0] == step and (children := multiprocessing.active_children()):
                os.kill(children[0].pid or 0, number)
            return inner(**fields)

        batches._Examples.__getitem__ = slow
        engine.Step = counted  # pyright: ignore[reportAttributeAccessIssue]

    return plant
