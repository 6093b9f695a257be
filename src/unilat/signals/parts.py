"""What a name says of a split: ``train`` is trained on, ``test``, ``val`` or ``dev`` beside it is held out.

A folder is a part if its name is one of the words, in any case, with ``set``, ``data``, ``images``, ``split`` or a
number behind it at most: ``Train``, ``val2017``, ``test_images``. Of a file or an array one word of its name is enough:
``imagenet-train-0001.tar``, ``x_test``.
"""

import re
from functools import lru_cache
from typing import Literal

Side = Literal["train", "test", ""]
"""Trained on, held out, or neither."""
TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "heldout")
_FOLDER = re.compile(rf"({'|'.join(TRAIN + HELD_OUT)})([-_. ]?(set|data|images|split))?[-_. ]?\d*")


@lru_cache(maxsize=4096)
def folder_side(name: str) -> Side:
    """The part of a split that a folder of this name is."""
    found = _FOLDER.fullmatch(name.casefold())
    return "" if found is None else _side(found[1])


def word_side(name: str) -> Side:
    """The part of a split that the first such word of the name of a file or an array says."""
    for word in re.split(r"[^a-z]+", name.casefold()):
        if side := _side(word):
            return side
    return ""


def _side(word: str) -> Side:
    return "train" if word in TRAIN else "test" if word in HELD_OUT else ""


class Splits:
    """Where in a folder a part to train on stands beside one that is held out; told of its files one by one."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], set[Side]] = {}
        self._last: tuple[str, ...] = ()

    def see(self, parts: tuple[str, ...]) -> None:
        """The path of a file, its name last."""
        if parts[:-1] == self._last:
            return
        self._last = parts[:-1]
        for depth, name in enumerate(self._last):
            if side := folder_side(name):
                self._seen.setdefault(parts[:depth], set()).add(side)

    def found(self) -> frozenset[tuple[str, ...]]:
        """The folders, each by the parts of its path, that hold both."""
        return frozenset(place for place, sides in self._seen.items() if len(sides) == 2)


def placed(parts: tuple[str, ...], splits: frozenset[tuple[str, ...]]) -> tuple[str, bool]:
    """(class, held out) of the file whose path has these parts.

    The class is the first folder of the path, the names of parts left out; below the only split it is the first folder
    within the part, wherever the split lies.
    """
    inner, held_out = within(parts, splits)
    return (inner[0] if len(inner) > 1 else "."), held_out


def within(parts: tuple[str, ...], splits: frozenset[tuple[str, ...]]) -> tuple[tuple[str, ...], bool]:
    """(path without what names the part, held out) of such a file."""
    inner, held_out = parts, False
    for depth in range(len(parts) - 1 if splits else 0):
        if parts[:depth] in splits and (side := folder_side(parts[depth])):
            held_out = side == "test"
            inner = parts[depth + 1 :] if len(splits) == 1 else parts[:depth] + parts[depth + 1 :]
            break
    return inner, held_out
