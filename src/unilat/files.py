"""Files written whole or not at all, all of the library's by :func:`whole`; safetensors and JSON read without trust."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unilat.types import UserError

MOST = 2**28
"""Bytes of the largest file that is read whole where nobody says how many."""
BINARY = getattr(os, "O_BINARY", 0)
"""A flag for ``os.open``: bytes as they are, where the system would write a line's end in its own way (Windows)."""
Place = Callable[[Path], AbstractContextManager[Path]]
"""Gives for a file a place to write it to, as :func:`whole` does."""


@contextlib.contextmanager
def whole(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A place beside ``path`` to write one file to; it becomes ``path`` when the block ends, and only then.

    The folder is made where there is none. Whatever goes wrong is raised as it is, mostly an ``OSError``: nothing
    stays of what was written, and an older file as it was. ``sync``: the bytes are on the disk before the name is.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        if sync:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def durable(path: Path) -> AbstractContextManager[Path]:
    """:func:`whole`, with the bytes on the disk before the name is."""
    return whole(path, sync=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` to write into; when the block ends it takes the place of ``path`` and all in it.

    Whatever goes wrong is raised as it is: nothing stays of what was written, and an older folder as it was.
    """
    path = path.resolve()
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(part, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in ``folder`` and below; what another live process writes stays.

    Processes of other machines count as dead: whoever sweeps holds the folder.
    """
    for part in folder.rglob(".*.part"):
        process = part.name.split(".")[-2]
        if not (process.isdecimal() and int(process) != os.getpid() and alive(int(process))):
            with contextlib.suppress(OSError):
                part.unlink()


def alive(process: int) -> bool:
    """Whether a process of this number runs here; where asking would end it, nobody asks."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def writable(folder: Path) -> None:
    """Raise :class:`UserError` where nothing can be written into ``folder``: better before hours of work than after."""
    part = folder / f".probe.{os.getpid()}.part"
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): take a copy of it") from None


def write_safetensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str], place: Place = whole) -> None:
    """Write a safetensors file atomically; a failing disk leaves what was there and raises :class:`UserError`.

    Equal tensors and an equal header make equal bytes, which safetensors' own writer does not: it shuffles the header.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = save(plain)
    end = 8 + int.from_bytes(data[:8], "little")
    told = dict(sorted((header | {"sha256": digest(plain)}).items()))
    text = json.dumps({"__metadata__": told, **json.loads(data[8:end])}).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers lie where they can be mapped

    def write(part: Path) -> None:
        with open(part, "wb") as file:  # made by Python, whose files have the rights that the umask leaves
            for piece in (len(text).to_bytes(8, "little"), text, memoryview(data)[end:]):
                file.write(piece)

    _replace(path, write, place)


def write_json(path: Path, value: Any, place: Place = whole) -> None:
    """Write readable JSON atomically, by the same rule; NaN and infinity become null, as JSON knows neither."""
    content = json_bytes(value)
    _replace(path, lambda part: part.write_bytes(content), place)


def json_bytes(value: Any) -> bytes:
    """What :func:`write_json` writes."""
    return (json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n").encode()


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """All bytes of a regular file; ``OSError`` for a pipe or a device, which may have no end, and beyond ``most``."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, where {most:,} are the most")
        return file.read()


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes; ``OSError`` for anything else, and without waiting for it."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises :class:`UserError` where it is missing or damaged."""
    try:
        return json.loads(read_bytes(path).decode())
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no whole JSON file ({error})") from None


class Damaged(UserError):
    """A file that is not what was written; in one line, with the way out."""


class Unfit(Exception):
    """A key, and what is wrong with it."""


def built(kind: Any, tree: object, key: str) -> Any:
    """``tree``, as JSON has it, as an object of the annotation ``kind``; raises :class:`Unfit` with the first ``key``
    that is not one."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(tree, dict):
            raise Unfit(f"{key or 'the file'} must be an object")
        inside = f"{key}." if key else ""
        hints = get_type_hints(kind)
        for name in (*hints, *tree):
            if name not in tree or name not in hints:
                raise Unfit(f"{inside}{name} is {'missing' if name in hints else 'not known'}")
        return kind(**{name: built(hint, tree[name], f"{inside}{name}") for name, hint in hints.items()})  # pyright: ignore[reportCallIssue]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return None if tree is None else built(inner[0], tree, key)
    if origin is tuple and isinstance(tree, list):
        return tuple(built(inner[0], value, f"{key}[{index}]") for index, value in enumerate(tree))
    if origin is dict and isinstance(tree, dict):
        return {str(name): built(inner[1], value, f"{key}.{name}") for name, value in tree.items()}
    if kind is float and tree is None:
        return math.nan
    if isinstance(tree, int) and tree.bit_length() > 1000:
        raise Unfit(f"{key} is larger than any number")
    fits = int | float if kind is float else origin or kind
    if isinstance(tree, bool) or not isinstance(tree, fits):
        word = {float: "a number", int: "a whole number", str: "a text", tuple: "a list"}.get(
            origin or kind, "an object"
        )
        raise Unfit(f"{key} must be {word}")
    return tree


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _replace(path: Path, write: Callable[[Path], Any], place: Place = whole) -> None:
    try:
        with place(path) as part:
            write(part)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error}): free some space or choose another place") from None


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file; raises :class:`UserError` where there is none or it is damaged."""
    if not path.is_file():
        raise UserError(f"{path} is not there")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error})") from None
    if header.get("sha256") not in (None, digest(tensors)):
        raise UserError(f"{path} is damaged (its content does not match its checksum): make it again")
    return tensors, header


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes, in the order of the names; readers do not see flipped bits."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
