"""Signals that stop a run between two steps."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKED = int(getattr(signal, "SIGUSR1", 10))
"""The signal that asks a run to stop and to go on later: SIGUSR1, or its usual number on a system without (Windows)."""


class Signals:
    """SIGTERM, SIGINT and SIGUSR1 wait for the end of the step; a second one ends the process at once.

    ``grace``: seconds in which a second one counts as the same: ``torchrun`` repeats to its processes what they heard.
    """

    def __init__(self, grace: float) -> None:
        self.number, self.grace, self._since = 0, grace, 0.0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number and time.monotonic() - self._since >= self.grace:
            os._exit(128 + number)
        if not self.number:
            self.number, self._since = number, time.monotonic()

    @contextmanager
    def caught(self) -> Iterator[None]:
        caught = [signal.SIGTERM, signal.SIGINT, *([ASKED] if hasattr(signal, "SIGUSR1") else [])]
        old = {}
        if threading.current_thread() is threading.main_thread():
            old = {number: signal.signal(number, self._note) for number in caught}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
