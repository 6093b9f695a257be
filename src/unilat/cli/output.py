"""Where a command's words go: its result to standard output, everything else to standard error."""

import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from unilat.cli import streams
from unilat.cli.naming import arguments_named

_EVERY = 2.0  # seconds between two lines of `note`


class Output:
    """Used as ``with Output(as_json) as output: ...; output.result(values, text)``.

    While it is open, standard output belongs to the result alone: what libraries and package clients print there goes
    to standard error, whether or not JSON was asked for.
    """

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._noted = 0.0
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> "Output":
        self._stdout = sys.stdout
        self._exit.enter_context(contextlib.redirect_stdout(sys.stderr))
        self._exit.enter_context(_descriptor_redirected(self._stdout))
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def note(self, done: int, total: int, what: str) -> None:
        """Progress of a slow reader: a line now and then; ``total`` 0 where it is not known."""
        now = time.monotonic()
        if now - self._noted < _EVERY and done != total:
            return
        self._noted = now
        self.console.print(f"{what}: {done}/{total}" if total else f"{what}: {done}", markup=False)

    def say(self, line: str) -> None:
        """A line for people, on standard error."""
        self.console.print(arguments_named(line), markup=False)

    def unsealed(self, *folders: Path) -> None:
        """A line for each run whose files nothing checks."""
        from unilat.run import seal

        for folder in folders:
            if folder.is_dir() and (line := seal.remark(folder)):
                self.say(line)

    def changed(self, *folders: Path) -> None:
        """:meth:`unsealed`, and a line for each file that is not what its run wrote, where one is left out for that."""
        from unilat.run import seal

        self.unsealed(*folders)
        for path in (path for folder in folders if folder.is_dir() for path in seal.wrong(folder)):
            self.say(f"{path} {seal.problem(path)}: {seal.way_out(path)}")

    def result(self, values: Mapping[str, object], text: str) -> None:
        """The command's one answer: ``values`` as JSON, or ``text``. Closes the output."""
        self._exit.close()
        if self.as_json:
            text = json.dumps(plain(values), indent=2, ensure_ascii=False, allow_nan=False)
            escaped = json.dumps(plain(values), indent=2, allow_nan=False)  # a name must stay what it is
            streams.told(text if streams.encodable(text) else escaped)
        else:
            streams.told(arguments_named(text))


def plain(value: Any) -> Any:
    """``value`` as JSON has it: paths as strings, numbers that are not finite as null, 0-d tensors as numbers."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


@contextlib.contextmanager
def _descriptor_redirected(stdout: Any):
    """Send the process's descriptor 1 to standard error, for child processes; do nothing where stdout is not it."""
    try:
        real = stdout.fileno() == 1
    except (AttributeError, OSError, io.UnsupportedOperation):
        real = False
    if not real:
        yield
        return
    stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
