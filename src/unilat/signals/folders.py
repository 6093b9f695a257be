"""A folder of pictures, its sub-folders the classes -> :class:`Pictures`.

``folder/cats/1.png`` has the class ``cats``, deeper folders belong to the first; pictures beside class folders have the
class ``.`` . ``folder/train/...`` with ``folder/test/...`` (or ``val``, ``validation``) is the split: classes start one
level below.
Links to files are followed, links to folders are not. Hidden files are skipped. Order: sorted by path.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from unilat.fields import Fit, Size
from unilat.signals.collect import Item, collect, even_positions
from unilat.signals.decode import printable
from unilat.signals.pictures import Pictures, Progress
from unilat.types import UserError

HELD_OUT_FOLDERS = ("test", "val", "validation")


def walk(folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every file below: (parts of its relative path, problem known without opening it), sorted by parts."""
    pending: list[tuple[str, ...]] = [()]
    while pending:
        parts = pending.pop()
        try:
            with os.scandir(folder.joinpath(*parts)) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not parts:
                raise UserError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from None
            yield parts, f"folder cannot be listed ({error.strerror})"
            continue
        deeper = []
        for entry in listing:
            inner = (*parts, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    deeper.append(inner)
            elif entry.name.startswith("."):
                yield inner, "hidden"
            elif entry.is_symlink() and os.path.isdir(entry.path):
                yield inner, "link to a folder, not followed"
            else:
                yield inner, ""
        pending += reversed(deeper)


def is_split(tops: set[str]) -> bool:
    """Whether the sub-folders of these names are parts of an official split."""
    return "train" in tops and any(name in tops for name in HELD_OUT_FOLDERS)


def placed(parts: tuple[str, ...], split: bool) -> tuple[str, bool]:
    """(class, held out) of the file whose relative path has these parts."""
    inner = parts
    held_out = False
    if split and len(parts) > 1 and parts[0] in ("train", *HELD_OUT_FOLDERS):
        held_out, inner = parts[0] != "train", parts[1:]
    return (inner[0] if len(inner) > 1 else "."), held_out


def items(folder: Path) -> list[Item]:
    """What stands in the folder, as :class:`Item`, each with its class and side of the split."""
    found = list(walk(folder))
    split = is_split({parts[0] for parts, problem in found if len(parts) > 1})
    listed = []
    for parts, problem in found:
        label, held_out = placed(parts, split)
        listed.append(Item("/".join(parts), folder.joinpath(*parts), label, held_out, problem))
    return listed


def load_folder(
    folder: Path,
    *,
    size: Size,
    channels: int | None = None,
    fit: Fit = "crop",
    progress: Progress | None = None,
    limit: int | None = None,
) -> Pictures:
    """Every readable picture below ``folder``; ``limit`` takes that many files evenly from the sorted list."""
    listed = items(folder)
    usable = [item for item in listed if not item.problem]
    chosen = [usable[position] for position in even_positions(len(usable), limit, [item.held_out for item in usable])]
    if limit is None:
        chosen = listed
    source = printable(str(folder))
    if not chosen:
        raise UserError(f"{source}: the folder is empty; name a folder that holds pictures")
    one_class = all(item.label == "." for item in usable)
    pictures = collect(
        chosen, len(chosen), source, size=size, channels=channels, fit=fit, progress=progress, one_class=one_class
    )
    return pictures
