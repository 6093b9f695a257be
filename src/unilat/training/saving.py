"""Checkpoints while a run goes on: when one is due, by steps or by the clock, and the thread that writes it.

The step waits for a copy of the state alone; hashing, writing and syncing it happen beside the steps that follow, for a
tenth of the interval at most (a step at least); then they wait. So a kill loses an interval and a tenth of work. What
fails there ends the run at the next step. At the end, and after a signal, everything is waited for.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from unilat.training.checkpoint import Warn
from unilat.training.state import State

LAG = 10
"""How many times longer than a save may be written beside the steps the interval between saves is."""
CLOCK = 1 << 20
"""What process 0 adds to the number of its signal to tell the others that a save is due by its clock."""


class Saver:
    """The saves of one fit; all processes have one, and must save at the same steps."""

    def __init__(self, state: State, folder: Path, tell: Warn):
        self.state, self.folder, self.tell = state, folder, tell
        self._begun, self._at = time.monotonic(), state.step
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def by_clock(self) -> bool:
        """Whether this process's clock says that one is due."""
        seconds = self.state.schedule.save_seconds
        return seconds > 0 and time.monotonic() - self._begun >= seconds

    def by_steps(self) -> bool:
        """Whether the step just made is one of those that are saved."""
        plan = self.state.schedule
        return plan.save_seconds == 0 and self.state.step % plan.save_every == 0

    def save(self, wait: bool) -> None:
        """Save the state as it is; ``wait`` until it is on the disk. Raises what an earlier save has failed with."""
        self.wait()
        self._begun, self._at = time.monotonic(), self.state.step
        self.state.save(self.folder, self.tell, None if wait else self._later)

    def _later(self, write: Callable[[], object]) -> None:
        def run() -> None:
            try:
                write()
            except Exception as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="unilat-save")
        self._thread.start()

    def check(self) -> None:
        """Raise what a save has failed with; wait for one that has been written for longer than it may."""
        plan, thread = self.state.schedule, self._thread
        lag = time.monotonic() - self._begun if plan.save_seconds else self.state.step - self._at
        if thread is not None and lag >= max(1, (plan.save_seconds or plan.save_every) / LAG):
            thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Until nothing is being written; then :meth:`check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def left(self, kind: type[BaseException] | None, *_: object) -> None:
        """The fit is left: wait, and raise what a save has failed with, unless something else has ended the fit."""
        if kind is None:
            self.wait()
        elif self._thread is not None:
            self._thread.join()
