"""The seal of a run: size and SHA-256 of every file that belongs to it, so that no other file is taken for one of them.

    seal.json    {"format": …, "files": {name: [[bytes, sha256] or null for no file, …]}, "sha256": of the rest}

Whoever writes a file of a sealed run goes three steps: the seal with the file's old state and the new one side by side,
the file, the seal with the new state alone. Whenever the process dies, the file is as the seal says. The log grows: the
bytes that its seal counts are sealed, those behind them are not yet, and before the first save that is all of them. A
run is sealed from its first file on, or never: one of before November 2026 is not, and is read as it stands. What keeps
a checksum of its own stands in no seal: the checkpoints and the latents, which name the weights and the pictures they
are of. Nor does the report, which is made from the other files. Knows names of files and nothing of what is in them.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock

from unilat.files import Damaged, durable, open_regular, read_bytes, write_json
from unilat.run.folder import RunFolder
from unilat.types import UserError

FORMAT = "unilat seal 1"
State = tuple[int, str] | None
"""Bytes and SHA-256 of a file; None where there is none."""
Files = Mapping[str, tuple[State, ...]]
"""The states that each file may be in, by its name: one, or two while it is written."""

_NAMES = RunFolder(Path())
_AGAIN = "bring it back, or {delete}give the `unilat train` command that began the run, which writes it as it was"
_MADE = "bring it back, or {delete}go on with `unilat train`, which makes it again"
_LOST = "bring it back, or {delete}go on without what it held"
_MEASURED = "measure again with `unilat evaluate {folder}`"
WAYS_OUT = {
    _NAMES.config.name: _AGAIN,
    _NAMES.data.name: _AGAIN,
    _NAMES.manifest.name: _LOST,
    _NAMES.log.name: _LOST,
    _NAMES.phases.name: _LOST,
    _NAMES.autoencoder.name: _MADE,
    _NAMES.base.name: _MADE,
    _NAMES.metrics.name: _MEASURED,
    _NAMES.metrics_fast.name: _MEASURED,
    _NAMES.evaluation.name: _MEASURED,
    _NAMES.verified.name: "check again with `unilat verify {folder}`",
    _NAMES.few_steps("decoder").name: "make it again with `unilat distill {folder}`",
    _NAMES.few_steps("base").name: "make it again with `unilat distill {folder}`",
}
"""Names of the files that are sealed, each with what to do where it is not what it was."""

_EMPTY = (0, hashlib.sha256().hexdigest())
"""State of a log of which nothing is sealed yet."""


def begin(folder: Path) -> None:
    """Seal a new run, which has no file yet."""
    if not RunFolder(folder).seal.is_file():
        _write(folder, {})


def read(folder: Path) -> Files | None:
    """The seal of a run folder, or None where it has none; raises :class:`~unilat.files.Damaged` for a bad one."""
    path = RunFolder(folder).seal
    try:
        tree = json.loads(read_bytes(path))
        body = {name: value for name, value in tree.items() if name != "sha256"}
        if (body["format"], tree["sha256"]) != (FORMAT, _checksum(body)):
            raise ValueError("its content does not match its checksum")
        return {
            str(name): tuple(None if state is None else (_size(state[0]), str(state[1])) for state in states)
            for name, states in body["files"].items()
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise Damaged(
            f"{path} is damaged ({error}), so nothing of the run can be checked: bring it back, or delete it and the "
            "run is read unsealed"
        ) from None


def remark(folder: Path) -> str:
    """The line to tell of a run that is not sealed; empty for one that is."""
    if RunFolder(folder).seal.exists() or not RunFolder(folder).config.exists():
        return ""
    return f"{folder} is not sealed (begun by an older unilat, or seal.json is gone): its files are read as they stand"


def problem(path: Path) -> str:
    """What the seal says against a file of a run, a few words; empty where it is right or the run is not sealed."""
    return _problem(path) and _problem(path)  # whoever writes it may have been between the seal and the file


def check(*paths: Path) -> None:
    """Raise :class:`~unilat.files.Damaged`, with the way out, for the first file that is not what the run wrote."""
    for path in paths:
        if found := problem(path):
            raise Damaged(f"{path} {found}: {way_out(path)}")


def wrong(folder: Path) -> list[Path]:
    """The files of a sealed run that are not what the run wrote."""
    return [path for name in WAYS_OUT if problem(path := folder / name)]


def way_out(path: Path) -> str:
    """What to do where a file of a run is not what it was."""
    return WAYS_OUT[path.name].format(folder=path.parent, delete="delete it and " if path.exists() else "")


@contextlib.contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """:func:`unilat.files.durable` for a file of a run, which is sealed before it takes its place."""
    with contextlib.ExitStack() as stack:
        files, new = None, None
        with durable(path) as part:
            yield part
            if RunFolder(path.parent).seal.is_file():
                stack.enter_context(_turn(path.parent))
                files, new = dict(read(path.parent) or {}), _state(part)
                _write(path.parent, files | {path.name: (*files.get(path.name, (None,)), new)})
        if files is not None:
            _write(path.parent, files | {path.name: (new,)})


def grown(path: Path) -> None:
    """Seal all that a log holds by now, after lines were added to it."""
    if RunFolder(path.parent).seal.is_file():
        with _turn(path.parent):
            _write(path.parent, {**(read(path.parent) or {}), path.name: (_state(path),)})


def forget_gone(folder: Path) -> None:
    """Take out of the seal what is not there any more and will be made anew; what is written as it was stays in it."""
    if RunFolder(folder).seal.is_file():
        with _turn(folder):
            files = read(folder) or {}
            there = {
                name: states
                for name, states in files.items()
                if (folder / name).exists() or WAYS_OUT.get(name) == _AGAIN
            }
            if there != files:
                _write(folder, there)


def holds(path: Path, content: bytes) -> bool:
    """Whether the seal names ``content`` as that of a file which may be gone."""
    files = read(path.parent) or {}
    return (len(content), hashlib.sha256(content).hexdigest()) in files.get(path.name, ())


def _problem(path: Path) -> str:
    files = read(path.parent)
    if files is None or path.name not in WAYS_OUT:
        return ""
    states = files.get(path.name, (None, _EMPTY) if path.name == _NAMES.log.name else (None,))
    try:
        if any(_stands(path, state) for state in states):
            return ""
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if not path.exists():
        return "is gone, which the run's seal names"
    return "has changed since it was written" if path.name in files else "is of no file that this run wrote"


def _stands(path: Path, state: State) -> bool:
    """Whether the file is in this state; of a log its first bytes."""
    if state is None or not path.exists():
        return state is None and not path.exists()
    size = state[0]
    with open_regular(path) as file:
        there = file.seek(0, 2)
        if there < size or (there > size and path.name != _NAMES.log.name):
            return False
    return _state(path, size) == state


def _state(path: Path, size: int | None = None) -> tuple[int, str]:
    """Of the first ``size`` bytes of a file, by default of all of them."""
    found, count = hashlib.sha256(), 0
    with open_regular(path) as file:
        while part := file.read(2**20 if size is None else min(2**20, size - count)):
            found.update(part)
            count += len(part)
    return count, found.hexdigest()


def _size(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value} is no number of bytes")
    return value


def _write(folder: Path, files: Files) -> None:
    body = {"format": FORMAT, "files": {name: list(states) for name, states in sorted(files.items())}}
    write_json(RunFolder(folder).seal, body | {"sha256": _checksum(body)}, durable)


def _checksum(tree: object) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One writer of the seal at a time: a run may be measured by two commands at once."""
    held = filelock.FileLock(folder / ".seal.lock", timeout=60)
    try:
        held.acquire()
    except OSError as error:  # filelock's Timeout among them
        why = error.strerror or error
        raise UserError(f"{held.lock_file} cannot be held ({why}); make room and check the rights there") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # before it is released, as ``checkpoint.lock`` does
            Path(held.lock_file).unlink()
        held.release()
