"""Where a command may write: the one rule for every ``--out``, asked before anything is computed.

Nothing is written over but what unilat wrote as the same kind of output, and nothing that a run folder keeps.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from unilat.metrics.reference import FORMAT as REFERENCE
from unilat.models.latents import FORMAT
from unilat.report.compare import TITLE
from unilat.run.folder import RunFolder
from unilat.signals.kind import SOFTWARE
from unilat.types import UserError

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def for_sheet(out: Path, *sources: str) -> Path:
    """``out`` for one picture made of ``sources``; :class:`UserError` where another than ours would be lost."""
    _among(out, sources)
    return _for_file(out, is_picture, "a picture")


def for_latents(out: Path) -> Path:
    """``out`` for a latent data set, by the same rule."""
    return _for_file(out, _is_latents, "a set of latents")


def for_reference(out: Path, data: str) -> Path:
    """``out`` for reference statistics of ``data``, by the same rule."""
    _among(out, [data])
    return _for_file(out, lambda path: _format(path) == REFERENCE, "reference statistics")


def for_page(out: Path) -> Path:
    """``out`` for a page of ``unilat compare``, by the same rule."""
    return _for_file(out, _is_page, "a page")


def for_pictures(out: Path, *sources: str) -> Path:
    """``out`` as a folder of pictures made of ``sources``: new, or without one that unilat did not write."""
    _among(out, sources)
    _for_folder(out)
    there = (path for path in (*out.glob("*"), *out.glob("*/*")) if path.suffix.lower() in _PICTURES)
    foreign = next((path for path in sorted(there) if path.parent != out or not is_picture(path)), None)
    if foreign is not None:
        raise UserError(f"{out} holds pictures of your own ({foreign.name}): choose another `out`")
    return out


def for_audit(out: Path) -> Path:
    """``out`` as the folder of an audit: new, empty, or begun by one."""
    _for_folder(out)
    seen = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if seen and not (out / "identity.json").is_file():
        raise UserError(f"{out} is not empty and no folder of an audit: choose another `out`")
    return out


def for_sweep(out: Path, data: str) -> Path:
    """``out`` as the folder of a sweep of ``data``: new, empty, or begun by one, which the sweep itself looks at."""
    _among(out, [data])
    _for_folder(out)
    return out


def left_of_before(folder: Path, names: list[str]) -> list[str]:
    """Pictures in ``folder`` that would stay among those that are written under ``names``."""
    return sorted({path.name for path in folder.glob("*") if path.suffix.lower() in _PICTURES} - set(names))


def _among(out: Path, sources: Sequence[str]) -> None:
    """Refuse a place in a folder of ``sources``: pictures made are none of the data."""
    for source in sources:
        folder = Path(source).resolve()
        if folder.is_dir() and out.resolve().is_relative_to(folder):
            raise UserError(f"{out} lies among the pictures of {source}: choose another `out`")


def _for_folder(out: Path) -> None:
    _reachable(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose another `out`")
    if RunFolder(out).config.is_file():
        raise UserError(f"{out} is a run folder: choose another `out`")


def _for_file(out: Path, ours: Callable[[Path], bool], what: str) -> Path:
    _reachable(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file in it with `out`")
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no file: choose another `out`")
    if out.exists() and out.stat().st_size and not ours(out):
        raise UserError(f"{out} is there and not {what} that unilat wrote: choose another `out`")
    return out


def _reachable(out: Path) -> None:
    """Refuse what lies among a run's own files, or under something that is no folder."""
    place = out.resolve()
    owner = next((folder for folder in place.parents if RunFolder(folder).owns(place)), None)
    if owner is not None:
        raise UserError(f"{out} belongs to the run {owner}: choose another `out`")
    above = next(folder for folder in place.parents if folder.exists())
    if not above.is_dir():
        raise UserError(f"{out} cannot be made, {above} is a file: choose another `out`")


def is_picture(path: Path) -> bool:
    """Whether unilat wrote this picture: its PNG says so."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False


def _is_latents(path: Path) -> bool:
    return _format(path) == FORMAT


def _format(path: Path) -> object:
    """What the header of a safetensors file says that it is, None where it says nothing; the tensors are not read."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return header["__metadata__"]["format"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def _is_page(path: Path) -> bool:
    """Whether the page's head says that ``unilat compare`` made it."""
    try:
        with open(path, "rb") as file:
            return f"{TITLE}</title>".encode() in file.read(1000)
    except OSError:
        return False
