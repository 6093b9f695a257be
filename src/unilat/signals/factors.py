"""Classes made of several labels: a character and a face, a make and a colour.

A class is then one combination of values, and a network adds up what it has learned of each: so combinations that were
never trained on can be made, and be held out to see how well.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unilat.signals.decode import printable
from unilat.types import UserError


@dataclass(frozen=True)
class Labels:
    """Which labels of a picture are read from columns of a table, keys of a shard's JSON, or levels of folders."""

    names: tuple[str, ...] = ()
    """None: the one that the format knows."""
    unlabelled: bool = False
    """Pictures without a label are kept, in a class named by the empty text, and classes are told by name alone."""

    @property
    def several(self) -> tuple[str, ...]:
        """The names, where each picture has more than one label that is told by itself."""
        return self.names if len(self.names) > 1 and not self.unlabelled else ()

    @property
    def said(self) -> str:
        """What an index of pictures depends on, beside their files; empty where nothing is asked for."""
        return json.dumps([*self.names, self.unlabelled]) if self.names else ""

    def text(self, values: Sequence[str]) -> str:
        """A picture's labels as the one text that readers hand on; :func:`told_apart` reads it where they are several.

        ``values`` are one for each name, or at most one without names.
        """
        if len(values) < 2:
            return values[0] if values else ""
        text = json.dumps(list(values))
        return text if self.several else class_name(text, self.names)


USUAL = Labels()


@dataclass(frozen=True, eq=False)
class Factors:
    """What each class of a set is made of."""

    names: tuple[str, ...]
    """Of the factors: ``("character", "face")``."""
    values: tuple[tuple[str, ...], ...]
    """The names of each factor's values."""
    table: Tensor
    """Which value of each factor a class has, int64 ``[classes, F]``."""
    shown: tuple[str, ...] = ()
    """Values of the first factor that a page of samples shows; none given: some, evenly spread."""

    def rows(self) -> Tensor:
        """:attr:`table` with the values of all factors numbered on, int64 ``[classes, F]``."""
        sizes = torch.tensor([len(of) for of in self.values])
        return self.table + sizes.cumsum(0) - sizes

    def to_json(self) -> dict[str, object]:
        """As a run's ``data.json`` holds them; :func:`from_json` reads it back."""
        values = [list(row) for row in self.values]
        return {"names": list(self.names), "values": values, "table": self.table.tolist(), "shown": list(self.shown)}


def from_json(tree: object, classes: int) -> Factors | None:
    """What :meth:`Factors.to_json` made for that many classes; None for anything that does not fit together."""
    if not isinstance(tree, dict):
        return None
    names, values, table, shown = (tree.get(name, []) for name in ("names", "values", "table", "shown"))
    if not (isinstance(names, list) and isinstance(values, list) and isinstance(table, list)):
        return None
    texts = all(isinstance(row, list) and all(isinstance(one, str) for one in row) for row in [names, shown, *values])
    rows = all(isinstance(row, list) and len(row) == len(names) for row in table)
    if not texts or not names or len(values) != len(names) or not rows or len(table) != classes:
        return None
    if any(
        type(one) is not int or not 0 <= one < len(of) for row in table for one, of in zip(row, values, strict=True)
    ):
        return None
    return Factors(tuple(names), tuple(tuple(row) for row in values), torch.tensor(table), tuple(shown))


def combined(
    labels: np.ndarray, names: Sequence[str], values: Sequence[Sequence[str]], shown: Sequence[str] = ()
) -> tuple[np.ndarray, tuple[str, ...], Factors]:
    """Labels ``[N, F]``, one of each factor, as class numbers ``[N]``, the classes' names and their factors.

    Classes are the combinations that occur, in the order of their values; a class is named by its values' names.
    """
    table, numbers = np.unique(labels.astype(np.int64), axis=0, return_inverse=True)
    named = [[str(of[one]) for one, of in zip(row, values, strict=True)] for row in table.tolist()]
    classes = tuple(" ".join(row) for row in named)
    factors = Factors(tuple(names), tuple(tuple(row) for row in values), torch.from_numpy(table), tuple(shown))
    return numbers.reshape(-1), classes, factors


def told_apart(texts: Sequence[str], names: Sequence[str], source: str) -> tuple[np.ndarray, tuple[str, ...], Factors]:
    """:func:`combined` of what :meth:`Labels.text` made of several labels; values are sorted, as classes are."""
    columns = list(zip(*(map(printable, json.loads(text)) for text in texts), strict=True))
    values = [in_order(set(column)) for column in columns]
    places = [{value: place for place, value in enumerate(of)} for of in values]
    rows = [[place[value] for value in column] for place, column in zip(places, columns, strict=True)]
    shown = [[_named(name, value) for value in of] for name, of in zip(names, values, strict=True)]
    numbers, classes, factors = combined(np.array(rows).T, [printable(name) for name in names], shown)
    classes = tuple(map(printable, classes))
    if len(set(classes)) < len(classes):
        (twice, _), *_ = Counter(classes).most_common(1)
        raise UserError(f"{source}: two combinations of labels are both called {twice!r}; rename their values")
    return numbers, classes, factors


def class_name(text: str, names: Sequence[str]) -> str:
    """What the class of such a text is called; the text itself where there are no ``names``."""
    return " ".join(map(_named, names, map(printable, json.loads(text)))) if names else text


def _named(name: str, value: str) -> str:
    """``hue=3``: a number says of which label it is."""
    return f"{printable(name)}={value}" if value.isdecimal() else value


def in_order(names: set[str]) -> tuple[str, ...]:
    """Sorted; by number where all are numbers (2 before 10)."""
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))


def strata(labels: Tensor, factors: Factors | None) -> Tensor:
    """What a split keeps in training, int64 ``[N, F]`` of class numbers ``[N]``: each factor's value, or the class.

    No two columns have a number in common.
    """
    return labels[:, None] if factors is None else factors.rows()[labels]


def untrained(trained: Tensor, classes: int, factors: Factors | None) -> list[int]:
    """Which of so many classes have a value that no label of ``trained [N]`` has: nothing was learned of those."""
    seen, table = strata(trained, factors), strata(torch.arange(classes), factors)
    known = [torch.isin(row, of) for row, of in zip(table.T, seen.T, strict=True)]
    return (~torch.stack(known).all(0)).nonzero().flatten().tolist()
