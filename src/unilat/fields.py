"""Fields of a configuration: sizes of pictures as they are written, and numbers that must lie where they can."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from unilat.types import UserError


class FieldError(UserError):
    """A field of a configuration that cannot be what it is, named as Python has it: ``stage1.samples``.

    The command line tells the option in its place, ``--stage1.samples`` (``cli/naming.py``).
    """


def check_fields(
    config: object,
    name: str,
    *,
    least: Mapping[str, int] | None = None,
    positive: Sequence[str] = (),
    shares: Sequence[str] = (),
    finite: Sequence[str] = (),
) -> None:
    """Numbers of a dataclass that stands under ``name``: each count's least, what is above 0, in 0..1, or no infinity.

    What is None is left out. Raises :class:`FieldError` that names the first field.
    """
    rules: list[tuple[str, Callable[[float], bool], str]] = [
        *((field, lambda value, low=low: value >= low, f"{low} or more") for field, low in (least or {}).items()),
        *((field, lambda value: 0 < value < math.inf, "a positive number") for field in positive),
        *((field, lambda value: 0 <= value <= 1, "") for field in shares),
        *((field, math.isfinite, "a number") for field in finite),
    ]
    for field, holds, what in rules:
        value = getattr(config, field)
        if value is not None and not holds(value):
            must = f"must be {what}" if what else "must lie between 0 and 1"
            raise FieldError(f"{name}.{field} {must}, not {value}")


def at_least(least: int, number: int, name: str) -> int:
    """``number``, which is the argument ``name``; raises :class:`UserError` where it is below ``least``."""
    if number < least:
        raise UserError(f"`{name}` must be {least} or more, not {number}")
    return number


Size = tuple[int, int]
"""``(height, width)`` of a picture in pixels."""
Fit = Literal["crop", "pad", "random-crop"]
"""What is done to pictures of another shape: cut out the centre, fit and pad, or cut out another part each epoch."""


def as_size(value: int | str | Sequence[int]) -> Size:
    """``64`` and ``"64"`` are a square, ``(96, 128)`` and ``"96x128"`` height × width; raises :class:`UserError`."""
    if isinstance(value, str):
        sides = [int(side) for side in value.split("x")] if re.fullmatch(r"\d{1,9}(x\d{1,9})?", value) else []
    else:
        sides = list(value) if isinstance(value, Sequence) else [value]
    if len(sides) not in (1, 2) or not all(type(side) is int for side in sides):
        raise UserError(f"a size is 64, or 96x128 for height x width, not {value!r}")
    return sides[0], sides[-1]


def spelled(size: Size) -> str:
    """A size as :func:`as_size` reads it: ``64``, ``96x128``."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
