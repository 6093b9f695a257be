"""``log.jsonl``: one JSON object a line, rewound with the run so that no step is told twice."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unilat.files import BINARY, Place, durable, read_bytes
from unilat.types import UserError

LONGEST = 2**36
"""Bytes that a log may have."""


@dataclass(frozen=True)
class Log:
    """A file of lines, and who must know of what is written to it."""

    path: Path
    place: Place = durable
    """Where it is rewritten when a run goes back."""
    grown: Callable[[Path], object] = lambda path: None
    """Told when all lines so far are on the disk."""


class Journal:
    """Appends lines of one stage to a file that other stages may share; with ``path`` None it does nothing."""

    def __init__(self, log: Path | Log | None, stage: str, step: int) -> None:
        """Open the file after dropping torn lines and the lines of ``stage`` beyond ``step``."""
        self.log = Log(log) if isinstance(log, Path) else log
        self._descriptor = -1
        if self.log is None:
            return
        path = self.log.path
        plain = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # not through a link, nor into a pipe
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _rewind(self.log, stage, step)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | plain | BINARY, 0o666)
        except OSError as error:
            raise self._trouble(error) from error

    def write(self, record: Mapping[str, object]) -> None:
        """Append one object; numbers that are not finite become null, since JSON has none."""
        if self._descriptor < 0:
            return
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        rest = memoryview((json.dumps(plain, allow_nan=False) + "\n").encode())
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise self._trouble(error) from error

    def sync(self) -> None:
        """Make what was written durable; called before each checkpoint, so that the log is never behind it."""
        if self.log is not None and self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
                self.log.grown(self.log.path)
            except OSError as error:
                raise self._trouble(error) from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _trouble(self, error: OSError) -> UserError:
        assert self.log is not None
        return UserError(
            f"{self.log.path} cannot be written ({error.strerror or error}); make room there, then run again"
        )


def _rewind(log: Log, stage: str, step: int) -> None:
    """Rewrite the file without torn lines and without the lines of ``stage`` after ``step``; atomic."""
    if not log.path.exists():
        return
    old = read_bytes(log.path, LONGEST)
    new = b"".join(line for line in old.splitlines(keepends=True) if _stays(line, stage, step))
    if new == old:
        return
    with log.place(log.path) as part:
        part.write_bytes(new)


def _stays(line: bytes, stage: str, step: int) -> bool:
    try:
        record = json.loads(line)
        return line.endswith(b"\n") and (record["stage"] != stage or record["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
