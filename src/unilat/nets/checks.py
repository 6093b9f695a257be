"""What the lists that describe a network's levels must agree in; each network's configuration calls these."""

from collections.abc import Iterable, Sequence

from unilat.fields import FieldError

WIDEST, DEEPEST = 2**17, 2**12
"""Most channels and most blocks of a level: beyond what any machine holds."""


def check_levels(
    name: str, channels: Sequence[int], blocks: Sequence[int], strides: int | None = None, wanted: int | None = None
) -> None:
    """As many counts of blocks as levels, one at least, each one that can be; ``wanted`` strides, if any.

    Raises :class:`FieldError` that names the network, ``name``.
    """
    if not channels or len(blocks) != len(channels) or strides != wanted:
        more = "" if wanted is None else f" and {max(wanted, 0)} strides"
        raise FieldError(f"{name}: {len(channels)} levels of channels want as many counts of blocks{more}")
    if not all(1 <= width <= WIDEST for width in channels) or not all(0 <= count <= DEEPEST for count in blocks):
        raise FieldError(f"{name}: channels lie between 1 and {WIDEST:,}, counts of blocks between 0 and {DEEPEST:,}")


def check_cells(name: str, cells: Iterable[Sequence[int]]) -> None:
    """Patches and strides fold one sample or more along each of the same axes; raises :class:`FieldError`."""
    cells = list(cells)
    if len({len(cell) for cell in cells}) != 1 or not 1 <= len(cells[0]) <= 3:
        raise FieldError(f"patches and strides of {name} must have the same 1, 2 or 3 axes")
    if any(side < 1 for cell in cells for side in cell):
        raise FieldError(f"patches and strides of {name} must be 1 or more along each axis")


def check_heads(name: str, widths: Iterable[int], head_width: int) -> None:
    """Attention heads divide the width of their level; raises :class:`FieldError`."""
    for width in widths:
        if width % max(1, width // head_width):
            raise FieldError(f"{name}: attention heads of {head_width} channels do not divide {width}")
