"""What examples are conditioned on: one row an example, with a null; networks see an embedding of it.

    e_BE = embedder(condition)        rows dropped for classifier-free guidance are embedded as the null

Today a row is a class number; a class may be made of factors, a character and a face. Text would be ``[B, L, D]`` with
a mask of its tokens and an embedder beside this one; what samples, guides, trains and measures passes a condition on
unread and would stay as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Condition:
    """One row an example; frozen, and taken apart along its rows as a tensor is."""

    rows: Tensor
    """Class numbers, int64 ``[B]``."""
    dropped: Tensor | None = None
    """Which rows stand for "no condition", bool ``[B]``; None: none of them."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> "Condition":
        return Condition(self.rows[which], None if self.dropped is None else self.dropped[which])

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return Condition(self.rows.to(device), None if self.dropped is None else self.dropped.to(device))

    def drop(self, which: Tensor) -> "Condition":
        """The same without the rows that ``which``, bool ``[B]``, names; what was dropped before stays so."""
        return Condition(self.rows, which if self.dropped is None else self.dropped | which)

    def null(self) -> "Condition":
        """As many rows, none of which says anything."""
        return self.drop(torch.ones_like(self.rows, dtype=torch.bool))


class ClassRows(nn.Module):
    """Which rows of a table a condition reads, ``[B, F]``: its class's, or the last one, the null's, where it dropped.

    ``factors``, int64 ``[classes, F]``: what each class is made of, values from 0 along each column. Then each factor's
    value has a row, and a class reads those of its own; else each class has one.
    """

    parts: Tensor | None

    def __init__(self, classes: int, factors: Tensor | None = None):
        super().__init__()
        sizes = torch.tensor([classes], device="cpu") if factors is None else factors.amax(0) + 1
        self.each, self.null = len(sizes), int(sizes.sum())
        parts = None if factors is None else factors + sizes.cumsum(0) - sizes
        self.register_buffer("parts", parts, persistent=False)

    def forward(self, condition: Condition) -> Tensor:
        rows_BF = condition.rows[:, None] if self.parts is None else self.parts[condition.rows]
        if condition.dropped is None:
            return rows_BF
        return torch.where(condition.dropped[:, None], self.null, rows_BF)


class ClassEmbedder(nn.Embedding):
    """``[B]`` class numbers to ``e_BE``, a learned row each and one for the null; of ``factors`` the sum of theirs:

        e(k) = Σ_f row(f, factors[k, f])

    So a pair that was never trained on is known by its parts.
    """

    def __init__(self, classes: int, width: int, factors: Tensor | None = None):
        rows = ClassRows(classes, factors)
        super().__init__(rows.null + 1, width)
        self.rows = rows
        nn.init.normal_(self.weight, std=0.5 / rows.each**0.5)

    def forward(self, condition: Condition) -> Tensor:
        return super().forward(self.rows(condition)).sum(1)
