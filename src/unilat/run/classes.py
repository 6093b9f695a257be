"""The classes of a run: which of them it was trained on, and which one a user means."""

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from unilat.maths.seeds import seeded
from unilat.run.facts import Facts
from unilat.signals.collect import even_positions
from unilat.signals.factors import Factors
from unilat.types import UserError

Label = int | str | Tensor | Sequence[int] | Sequence[str]
"""One class by name or number, or one a picture as ``encode`` writes them: -1 is none."""
_SHOWN = 20


def trained(facts: Facts) -> list[int]:
    """Numbers of the classes that have a training picture; empty where there are no classes."""
    untrained = set(facts.untrained)
    return [number for number, name in enumerate(facts.classes) if name not in untrained]


def told(facts: Facts) -> str:
    """In one line that some classes have no training picture; empty where all have."""
    there, all_ = len(trained(facts)), len(facts.classes)
    return "" if there == all_ else f"{there:,} of {all_:,} classes have a training picture: samples are of these alone"


def known(facts: Facts, labels: Tensor) -> Tensor:
    """``labels`` int64 ``[N]`` with -1 for those of no class that the run was trained on, of which it knows nothing."""
    if not facts.classes:
        return labels
    return torch.where(torch.isin(labels, torch.tensor(trained(facts)).to(labels)), labels, -1)


def renumbered(labels: Tensor, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """``labels`` int64 ``[N]``, numbers of ``names``, as those of ``classes`` by name: -1 for no such one."""
    if tuple(names) == tuple(classes) or not names or not classes:
        return labels
    number = torch.tensor([*(classes.index(name) if name in classes else -1 for name in names), -1])
    return number[torch.where((labels >= 0) & (labels < len(names)), labels, len(names))]


def labels_of(facts: Facts, count: int, label: Label | None) -> Tensor:
    """Classes of ``count`` pictures, int64 ``[count]``: ``label``, or those that have training pictures in turn.

    Of a factor's value all its combinations take turns. Combinations of factors, of which there are many alike, take
    turns in a drawn order that is always the same.
    """
    if label is None:
        turns = torch.tensor(trained(facts) or [0])
        if facts.factors is not None:
            turns = turns[torch.randperm(len(turns), generator=seeded(0, "classes in turn"))]
        return turns[torch.arange(count) % len(turns)]
    if isinstance(label, str) and (of_value := _with_value(facts, label)):
        return torch.tensor(of_value)[torch.arange(count) % len(of_value)]
    if isinstance(label, str) or not hasattr(label, "__len__") or (isinstance(label, Tensor) and label.ndim == 0):
        return torch.full((count,), number_of(facts, label))
    each = label.tolist() if isinstance(label, Tensor) else list(label)  # pyright: ignore[reportArgumentType]
    if len(each) != count:
        raise UserError(f"`label` has {len(each)} classes for {count} pictures: give one, or one a picture")
    if not facts.classes and not any(each):
        return torch.zeros(count, dtype=torch.int64)  # as encode writes them where there are no classes
    there = trained(facts)
    numbers = {one: -1 if not isinstance(one, str) and one == -1 else number_of(facts, one, there) for one in set(each)}
    return torch.tensor([numbers[one] for one in each])


def page(facts: Facts) -> Tensor | None:
    """Classes of a page, int64 ``[R, C]``: values of the second factor down, at most 12, those of the first across.

    Only values of which something is known with all that stand down; None where classes are not made of two factors.
    """
    factors = facts.factors
    if factors is None or len(factors.names) != 2:
        return None
    known = set(trained(facts))
    number = {tuple(pair): index for index, pair in enumerate(factors.table.tolist()) if index in known}
    down = even_positions(len(factors.values[1]), 12)
    shown = [factors.values[0].index(value) for value in factors.shown if value in factors.values[0]]
    whole = [
        value for value in shown or range(len(factors.values[0])) if all((value, other) in number for other in down)
    ]
    across = [whole[place] for place in even_positions(len(whole), 16)]
    return torch.tensor([[number[value, other] for value in across] for other in down]) if across else None


def number_of(facts: Facts, label: object, there: Sequence[int] | None = None) -> int:
    """Number of a class. A text is a name; where no class is named by a number it may be one too. A number is one.

    ``there``: what :func:`trained` gives, where it is at hand. Raises :class:`UserError` for what is no class of the
    run, and for one without a training picture.
    """
    names = facts.classes
    if not names:
        raise UserError("this run's pictures have no classes: leave out `label`")
    number = _number(names, label)
    if number is None:
        numbered = isinstance(label, str) and any(name.isdecimal() for name in names)
        others = "by name" if numbered else f"or 0 to {len(names) - 1}"
        raise UserError(f"there is no class {label}: choose one of {_shown(names)} {others}")
    there = trained(facts) if there is None else there
    if number not in there:
        others = _shown([names[one] for one in there])
        raise UserError(f"class {names[number]} has no picture that the run was trained on: choose one of {others}")
    return number


def _with_value(facts: Facts, value: str) -> list[int]:
    """Known classes that have this value of a factor; none where it is the name of a class, or no value."""
    if facts.factors is None or value in facts.classes:
        return []
    has = [number for number, pair in enumerate(facts.factors.table.tolist()) if value in _named(facts.factors, pair)]
    return sorted(set(has) & set(trained(facts)))


def _named(factors: Factors, pair: Sequence[int]) -> list[str]:
    return [of[one] for one, of in zip(pair, factors.values, strict=True)]


def _number(names: Sequence[str], label: object) -> int | None:
    if isinstance(label, str):
        if label in names:
            return names.index(label)
        position = label.isdecimal() and not any(name.isdecimal() for name in names)
        number = int(label) if position else -1
    else:
        try:
            number = operator.index(label)  # pyright: ignore[reportArgumentType]
        except TypeError:
            return None
    return number if 0 <= number < len(names) else None


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
