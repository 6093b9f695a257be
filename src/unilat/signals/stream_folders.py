"""Folders of picture files of any number: the classes and the split are those of ``folders.py``."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unilat.fields import Fit, Size
from unilat.signals.decode import Unreadable, printable, read_file
from unilat.signals.factors import USUAL, Labels
from unilat.signals.folders import labelled, walk
from unilat.signals.index import Entry, Index, Listing, checked, described, listing, sized
from unilat.signals.parts import Splits


class FolderFormat:
    """A file is a picture: ``Format`` for folders."""

    word = "folder"
    classes = None
    has_blocks = False
    said = ""
    rows = None
    side = None

    def __init__(self, path: Path, labels: Labels = USUAL) -> None:
        self.path, self.labels = path, labels
        self.source = printable(str(path))
        self._splits: frozenset[tuple[str, ...]] = frozenset()
        self._problems: dict[str, str] = {}

    def listing(self, *, keep: bool = True) -> Listing:
        """Every file below, by the parts of its path."""
        splits = Splits()
        self._problems.clear()
        root = str(self.path)

        def files() -> Iterator[tuple[str, str]]:
            for parts, problem in walk(self.path):
                name = "/".join(parts)
                if problem:
                    self._problems[name] = problem
                splits.see(parts)
                yield name, f"{root}/{name}"

        now = listing(files(), lambda: json.dumps(sorted(splits.found())) + self.labels.said, keep=keep)
        self._splits = splits.found()
        return now

    def scan(self, file: str) -> Iterator[Entry]:
        """The one picture of a file, or why it is none."""
        label, held_out, wrong = labelled(tuple(file.split("/")), self._splits, self.labels)
        if problem := self._problems.get(file, wrong):
            yield Entry(problem=problem)
            return
        entry = Entry(label=label, held_out=held_out)
        try:
            yield described(entry, read_file(self.path / file))
        except Unreadable as reason:
            yield entry._replace(problem=str(reason))

    def name(self, file: str, entry: str) -> str:
        """The path below the folder."""
        return file

    def pixels(self, index: Index, row: int, size: Size, fit: Fit = "crop") -> np.ndarray:
        """uint8 ``[1 or 3, H, W]`` of the file; Unreadable where it is gone or damaged."""
        data = read_file(self.path / index.files[int(index.file[row])])
        checked(index, row, data, self.source)
        return sized(data, size, fit)
