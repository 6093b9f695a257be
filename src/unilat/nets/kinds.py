"""The kinds of an encoder or a decoder: convolutions, a transformer, or convolutions around one, of like cost."""

import math
from typing import Literal, get_args

from unilat.fields import FieldError

Kind = Literal["conv", "vit", "uvit"]
"""Convolutions alone; a transformer on patches; convolutions outside and a transformer inside."""


def check_kind(name: str, kind: str) -> None:
    """Raise :class:`FieldError` for a kind that is none."""
    if kind not in get_args(Kind):
        raise FieldError(f"{name}.kind must be one of {', '.join(get_args(Kind))}, not {kind}")


def residual(axes: int, width: int) -> int:
    """FLOPs of a residual block at one place of its grid: two 3-wide convolutions, ``4 · 3^axes · width²``."""
    return 4 * 3**axes * width**2


def transformer(width: int) -> int:
    """The same of a transformer block, ``24 width²``; attention, which grows with the tokens, comes on top."""
    return 24 * width**2


def blocks_for(cost: float, each: int) -> int:
    """As many blocks of ``each`` FLOPs as ``cost`` buys, rounded down; one where that is none of something."""
    return max(int(cost // each), int(cost > 0))


def places(strides: tuple[tuple[int, ...], ...]) -> int:
    """Places of a grid that fold into one over ``strides``."""
    return math.prod(math.prod(stride) for stride in strides)
