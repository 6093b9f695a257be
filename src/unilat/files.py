"""Files written whole or not at all, all of the library's by :func:`whole`; safetensors and JSON read without trust."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unilat.types import UserError


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


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in ``folder`` and below; what another live process writes stays.

    Processes of other machines count as dead: whoever sweeps holds the folder.
    """
    for part in folder.rglob(".*.part"):
        process = part.name.split(".")[-2]
        if not (process.isdecimal() and int(process) != os.getpid() and _alive(int(process))):
            with contextlib.suppress(OSError):
                part.unlink()


def _alive(process: int) -> bool:
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


def write_safetensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
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

    _replace(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically, by the same rule; NaN and infinity become null, as JSON knows neither."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n"
    _replace(path, lambda part: part.write_text(text, "utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file; raises :class:`UserError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no whole JSON file ({error})") from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    try:
        with whole(path) as part:
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
