"""Checkpoints that survive: whole or absent, checked by content, and without pickle.

A checkpoint is the folder ``step-0000000042`` with one safetensors file per group of tensors, ``state.json``, and
``manifest.json``, which holds the size and SHA-256 of the others and of itself. It is written under another name,
synced, and renamed: whatever kills the process, a name that starts with ``step-`` stands for a complete checkpoint.
Reading hashes every byte before it is believed, and goes back to an older checkpoint when the newest fails.

Of a sharded run each process writes its rows of every tensor into a file of its own (``training/sharded.py``); read,
they are whole tensors like any others, for whatever number of processes.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unilat.files import BINARY, read_bytes
from unilat.types import UserError

FORMAT = 1
ROWS_FORMAT = 2
"""Of checkpoints that several processes wrote together."""
ROWS = "shard-{}-model-00001-of-00001.safetensors"
"""The file of a process, counted from 00001, as torch's writer names it."""
_FILE = re.compile(rf"[a-z0-9_]+\.safetensors|state\.json|{ROWS.format('[0-9]{5}')}")
_NAME = re.compile(r"step-(\d{10})(?:\.(\d+))?")
_TEMPORARY = ".tmp-"
_LONGEST = 2**26
"""Bytes that a manifest may have."""
_MANIFEST = "manifest.json"
_STATE = "state.json"

Warn = Callable[[str], None]


def warn_stderr(line: str) -> None:
    """Where warnings go when nobody asked for them elsewhere."""
    sys.stderr.write(f"warning: {line}\n")
    sys.stderr.flush()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One checkpoint, read and verified. ``tensors``: group → name → tensor (CPU)."""

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: Mapping[str, object]
    """As :func:`save` was given it."""

    def part(self, name: str) -> Mapping[str, object]:
        """One object of the state; ``UserError`` where it has none."""
        inner = self.state.get(name)
        if not isinstance(inner, dict):
            raise UserError(f"{self.path} is of another unilat (its state has no {name}); choose another folder")
        return inner

    def fingerprint(self) -> str:
        """SHA-256 over the step, all tensors and the state but its ``"clock"`` entry (wall time, machine)."""
        state = {key: value for key, value in self.state.items() if key != "clock"}
        sha = hashlib.sha256(_json([self.step, state]))
        for group, tensors in sorted(self.tensors.items()):
            sha.update(group.encode() + hashlib.sha256(_pack(tensors)).digest())
        return sha.hexdigest()


class _Invalid(Exception):
    """Why a checkpoint cannot be believed."""


class _Newer(Exception):
    """The format of a checkpoint that is whole, and that this version cannot read."""


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, object],
    *,
    keep: int = 2,
    warn: Warn = warn_stderr,
    rows: Callable[[], Mapping[str, Mapping[str, int | str]]] | None = None,
) -> Path:
    """Write a checkpoint and return its path; afterwards the ``keep`` newest up to ``step`` remain.

    ``rows`` writes the processes' files into :func:`temporary` and returns what :func:`entry` says of each.
    Checkpoints beyond ``step`` are what a rewound run left behind and go too. Any failure of the file system becomes a
    ``UserError``, with the older checkpoints untouched and nothing temporary left.
    """
    if any(not re.fullmatch(r"[a-z0-9_]+", group) for group in tensors):
        raise ValueError(f"names of groups are file names, a-z, 0-9 and _ only: {sorted(tensors)}")
    place = temporary(folder, step, os.getpid())
    try:
        plain = _json(state)
    except ValueError as error:  # JSON has neither NaN nor infinity
        raise UserError(f"{folder}: step {step} is not saved, a number in its state is not finite ({error})") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        os.mkdir(place)
        files: dict[str, Mapping[str, int | str]] = {}
        for group in sorted(tensors):
            files[f"{group}.safetensors"] = _write(place / f"{group}.safetensors", _pack(tensors[group]))
        files |= rows() if rows else {}
        files[_STATE] = _write(place / _STATE, plain)
        manifest = {"format": ROWS_FORMAT if rows else FORMAT, "step": step, "files": files}
        manifest["sha256"] = hashlib.sha256(_json(manifest)).hexdigest()
        _write(place / _MANIFEST, _json(manifest))
        _sync(place)
        final = _free_name(folder, step)
        os.replace(place, final)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise UserError(trouble(folder, step, error)) from error
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    _rotate(folder, final, keep, warn)
    return final


def temporary(folder: Path, step: int, process: int) -> Path:
    """Where the checkpoint of a step lies until it is whole; ``process`` is the number of the one that seals it."""
    return folder / f"{_TEMPORARY}{step}-{process}"


def load(folder: Path, *, warn: Warn = warn_stderr) -> Checkpoint | None:
    """The newest checkpoint of ``folder`` that passes every check; None when there is none at all.

    Each one that fails is named, with the reason, through ``warn``. When all fail: ``UserError``, because to start from
    nothing without being asked would throw the run away.
    """
    found = _list(folder)
    for path in found:
        try:
            checkpoint = _read(path)
        except _Newer as error:
            raise UserError(
                f"{path} was written by a newer unilat (format {error}, this one reads up to {ROWS_FORMAT}): update it"
            ) from error
        except Exception as error:  # whatever a made-up file makes of its readers
            warn(f"{path} is damaged ({error}); trying an older checkpoint")
            continue
        return checkpoint
    if found:
        raise UserError(f"{folder}: no checkpoint can be read; restore one, or delete the folder to start over")
    return None


def looked_at(folder: Path) -> list[tuple[Path, str]]:
    """The checkpoints of ``folder``, newest first, each with what is wrong with it; empty where nothing is."""
    found = []
    for path in _list(folder):
        try:
            _read(path)
            found.append((path, ""))
        except _Newer as error:
            found.append((path, f"is of a newer unilat (format {error})"))
        except Exception as error:  # whatever a made-up file makes of its readers
            found.append((path, f"is damaged ({error})"))
    return found


def held(folder: Path) -> bool:
    """Whether a live process holds the lock of ``folder``."""
    path = folder / ".lock"
    try:
        if path.exists():
            with filelock.FileLock(path, blocking=False):
                return False
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be written is nobody's
        pass
    return False


def sweep(folder: Path) -> None:
    """Remove what an interrupted save or rotation left behind."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(_TEMPORARY):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone; ``UserError`` when another live process holds it.

    The system drops the lock with the process, however it dies, so a dead trainer's folder is free at once.
    """
    path = folder / ".lock"
    held, before = filelock.FileLock(path), path.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire(blocking=False)
    except filelock.Timeout as error:
        owner = ""
        with contextlib.suppress(OSError):
            owner = path.read_text(errors="replace").strip()
        raise UserError(
            f"{folder} is being trained by another process{f' (pid {owner})' if owner else ''}; "
            "wait for it or choose another folder"
        ) from error
    except OSError as error:
        with contextlib.suppress(OSError):  # made, and not locked; what stood there may be another's
            path.unlink() if not before and not path.stat().st_size else None
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
    try:
        with contextlib.suppress(OSError):  # a system that locks the file's bytes too: the others are not told a pid
            path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        with contextlib.suppress(OSError):  # before it is released: whoever opened it by now sees that it has no name
            path.unlink()
        held.release()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors as one safetensors file; the same tensors give the same bytes."""
    plain: dict[str, Tensor] = {}
    storages = set()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        storage = flat.untyped_storage()
        alone = storage.nbytes() == flat.numel() * flat.element_size() and storage.data_ptr() not in storages
        storages.add(storage.data_ptr())
        plain[name] = flat if alone else flat.clone()  # safetensors refuses tensors that share memory
    return safetensors.torch.save(plain)


def _write(path: Path, content: bytes) -> dict[str, int | str]:
    """Write and sync one new file; returns what the manifest says of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sync(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows, where a folder cannot be opened
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_name(folder: Path, step: int) -> Path:
    """``step-N``, or ``step-N.k`` when a (damaged) checkpoint of that step stands there: nothing is overwritten."""
    name = f"step-{step:010d}"
    taken = [_key(path)[1] for path in _list(folder) if _key(path)[0] == step]
    return folder / (f"{name}.{max(taken) + 1}" if taken else name)


def _key(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2] or 0)


def _list(folder: Path) -> list[Path]:
    """Checkpoints by name, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_key, reverse=True)


def _rotate(folder: Path, newest: Path, keep: int, warn: Warn) -> None:
    """Drop others of ``newest``'s step or beyond, and all older than the ``keep`` newest: renamed, then removed."""
    others = [path for path in _list(folder) if path != newest]
    older = [path for path in others if _key(path)[0] < _key(newest)[0]]
    for path in [path for path in others if path not in older] + older[max(keep, 1) - 1 :]:
        doomed = folder / f"{_TEMPORARY}old-{path.name}"
        try:
            os.replace(path, doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            warn(f"{path} could not be removed ({error.strerror})")


def _read(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, every byte of it hashed before it is parsed."""
    content = read_bytes(path / _MANIFEST, _LONGEST)
    manifest = _parse(content, _MANIFEST)
    sealed = {key: value for key, value in manifest.items() if key != "sha256"}
    if content != _json(sealed | {"sha256": hashlib.sha256(_json(sealed)).hexdigest()}):
        raise _Invalid(f"{_MANIFEST} has changed")
    if manifest.get("format") not in (FORMAT, ROWS_FORMAT):
        raise _Newer(manifest.get("format"))
    if manifest["step"] != _key(path)[0]:
        raise _Invalid(f"it holds step {manifest['step']}")
    tensors, state, pieces = {}, None, dict[str, list[tuple[int, Tensor]]]()
    for name, said in manifest["files"].items():
        if not _FILE.fullmatch(name):
            raise _Invalid(f"unexpected file {name!r}")
        content = _verified(path / name, said)
        if name == _STATE:
            state = _parse(content, name)
        elif manifest["format"] == ROWS_FORMAT:
            for key, first, rows in _rows(content):
                pieces.setdefault(key, []).append((first, rows))
        else:
            tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(content)
    if state is None:
        raise _Invalid(f"{_STATE} is not listed")
    for key in [*pieces]:
        group, _, name = key.partition("/")
        tensors.setdefault(group, {})[name] = _joined(key, pieces.pop(key))
    return Checkpoint(path=path, step=manifest["step"], tensors=tensors, state=state)


def _rows(content: bytes) -> Iterator[tuple[str, int, Tensor]]:
    """Name, first row and rows of each tensor in one process's file, as torch's writer makes it."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    places = json.loads(header["DCP_SHARDING_INFO"])
    for key, rows in safetensors.torch.load(content).items():
        yield key, (places[key]["saved_offsets"] or [0])[0], rows


def _joined(key: str, pieces: list[tuple[int, Tensor]]) -> Tensor:
    """The tensor of these rows; those of a number are the number."""
    pieces.sort(key=lambda piece: piece[0])
    ends = [first + (len(rows) if rows.dim() else 0) for first, rows in pieces]
    if [first for first, _ in pieces] != [0, *ends[:-1]]:
        raise _Invalid(f"rows of {key} are missing")
    return torch.cat([rows for _, rows in pieces]) if len(pieces) > 1 else pieces[0][1]


def entry(path: Path) -> dict[str, int | str]:
    """What the manifest says of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def _verified(path: Path, said: Mapping[str, Any]) -> bytes:
    if not path.is_file():
        raise _Invalid(f"{path.name} is missing")
    if path.stat().st_size != said["bytes"]:
        raise _Invalid(f"{path.name} has {path.stat().st_size} bytes instead of {said['bytes']}")
    content = read_bytes(path, path.stat().st_size)
    if hashlib.sha256(content).hexdigest() != said["sha256"]:
        raise _Invalid(f"{path.name} has changed")
    return content


def _parse(content: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _Invalid(f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise _Invalid(f"{name} is not an object")
    return value


def trouble(folder: Path, step: int, error: OSError) -> str:
    """Why a step could not be saved, and what to do."""
    way_out = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk and its rights"
    try:
        older = _list(folder)
    except OSError:
        older = []
    kept = f"; {older[0].name} is intact" if older else ""
    return f"{folder}: step {step} could not be saved ({error.strerror or error}){kept}; {way_out}, then run again"
