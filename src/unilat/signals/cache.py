"""The cache folder: ``$UNILAT_CACHE``, else ``~/.cache/unilat``. What it holds can always be made again."""

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unilat.files import whole
from unilat.types import UserError

Arrays = dict[str, np.ndarray]


def cache_folder() -> Path:
    """The folder's path; nothing is created by asking. Raises :class:`UserError` for a user who has no home."""
    named = os.environ.get("UNILAT_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "unilat"
    except RuntimeError:
        raise UserError("there is no home folder to keep files in: name a folder in UNILAT_CACHE") from None


def cached_arrays(key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays kept under ``key``, or those that ``make`` returns, then kept.

    The key names everything that shapes the arrays. A damaged file is made anew, and a cache that cannot be written
    (full disk, read-only home) costs time only: the arrays are returned all the same.
    """
    path = cache_folder() / "arrays" / f"{key}.npz"
    if path.is_file():
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError):
            pass  # damaged: zip's own CRC or the .npy header says so
    arrays = make()
    with contextlib.suppress(OSError), whole(path) as part, open(part, "wb") as out:
        np.savez(out, allow_pickle=False, **arrays)
    return arrays
