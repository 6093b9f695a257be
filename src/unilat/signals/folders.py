"""A folder of pictures, its sub-folders the classes -> :class:`Pictures`.

``folder/cats/1.png`` has the class ``cats``, deeper folders belong to the first; pictures beside class folders have the
class ``.`` . ``folder/train/...`` with ``folder/test/...`` (or ``val``, ``dev``; ``parts.py`` has all names) is the
split: classes start one level below.
Where labels are named, each is a level: ``folder/Serif/A/1.png`` has the face ``Serif`` and the character ``A``.
Links are followed, each folder once: not those into the set itself, or to a folder that holds it. Hidden files are
skipped. Order: sorted by path.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from unilat.fields import Fit, Size
from unilat.signals.collect import Item, collect, even_positions
from unilat.signals.decode import printable
from unilat.signals.factors import USUAL, Labels
from unilat.signals.parts import Splits, placed, within
from unilat.signals.pictures import Pictures, Progress
from unilat.types import UserError


def walk(folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every file below: (parts of its relative path, problem known without opening it), sorted by parts."""
    pending: list[tuple[str, ...]] = [()]
    links = _Links(folder)
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
                if problem := links.problem(entry.path):
                    yield inner, problem
                else:
                    deeper.append(inner)
            else:
                yield inner, ""
        pending += reversed(deeper)


class _Links:
    """The folders that links of a set have led to: none is read twice, so that no link leads round in a circle."""

    def __init__(self, folder: Path) -> None:
        self._root = os.path.realpath(folder)
        self._followed = set[str]()

    def problem(self, path: str) -> str:
        """Why the link at ``path`` is not followed; empty where it is, from now on."""
        target = os.path.realpath(path)
        shared = os.path.commonpath([self._root, target])
        if shared == self._root:
            return "link to a folder of this set, which is read there"
        if shared == target:
            return "link to a folder that holds this set, not followed"
        if target in self._followed:
            return "link to a folder that another link has led to, not followed"
        self._followed.add(target)
        return ""


def labelled(parts: tuple[str, ...], splits: frozenset[tuple[str, ...]], labels: Labels) -> tuple[str, bool, str]:
    """(label, held out, why it has none) of the file whose path has these parts."""
    if not labels.names:
        return *placed(parts, splits), ""
    inner, held_out = within(parts, splits)
    if len(inner) == len(labels.names) + 1:
        return labels.text(inner[:-1]), held_out, ""
    return "", held_out, "" if labels.unlabelled else f"not in folders {'/'.join(labels.names)}"


def items(folder: Path, labels: Labels) -> list[Item]:
    """What stands in the folder, as :class:`Item`, each with its class and side of the split."""
    found, splits = list(walk(folder)), Splits()
    for parts, _ in found:
        splits.see(parts)
    halves, listed = splits.found(), []
    for parts, problem in found:
        label, held_out, wrong = labelled(parts, halves, labels)
        listed.append(Item("/".join(parts), folder.joinpath(*parts), label, held_out, problem or wrong))
    return listed


def load_folder(
    folder: Path,
    *,
    size: Size,
    channels: int | None = None,
    fit: Fit = "crop",
    progress: Progress | None = None,
    limit: int | None = None,
    labels: Labels = USUAL,
) -> Pictures:
    """Every readable picture below ``folder``; ``limit`` takes that many files evenly from the sorted list."""
    listed = items(folder, labels)
    usable = [item for item in listed if not item.problem]
    chosen = [usable[position] for position in even_positions(len(usable), limit, [item.held_out for item in usable])]
    if limit is None:
        chosen = listed
    source = printable(str(folder))
    if not chosen:
        raise UserError(f"{source}: the folder is empty; name a folder that holds pictures")
    one_class = all(item.label == "." for item in usable)
    return collect(
        chosen,
        len(chosen),
        source,
        size=size,
        channels=channels,
        fit=fit,
        progress=progress,
        one_class=one_class,
        labels=labels.several,
    )
