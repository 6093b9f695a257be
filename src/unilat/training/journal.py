"""``log.jsonl``: one JSON object a line, rewound with the run so that no step is told twice."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from unilat.files import whole
from unilat.types import UserError


class Journal:
    """Appends lines of one stage to a file that other stages may share; with ``path`` None it does nothing."""

    def __init__(self, path: Path | None, stage: str, step: int) -> None:
        """Open ``path`` after dropping torn lines and the lines of ``stage`` beyond ``step``."""
        self.path = path
        self._descriptor = -1
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _rewind(path, stage, step)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
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
        if self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise self._trouble(error) from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _trouble(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be written ({error.strerror or error}); make room there, then run again")


def _rewind(path: Path, stage: str, step: int) -> None:
    """Rewrite ``path`` without torn lines and without the lines of ``stage`` after ``step``; atomic."""
    if not path.exists():
        return
    old = path.read_bytes()
    new = b"".join(line for line in old.splitlines(keepends=True) if _stays(line, stage, step))
    if new == old:
        return
    with whole(path, sync=True) as part:
        part.write_bytes(new)


def _stays(line: bytes, stage: str, step: int) -> bool:
    try:
        record = json.loads(line)
        return line.endswith(b"\n") and (record["stage"] != stage or record["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
