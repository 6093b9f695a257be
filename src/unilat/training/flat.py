"""Tensors in one storage: what an optimiser, an average or a norm does to two hundred weights is then one call."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

LINE = 16
"""Each tensor begins at a multiple of so many numbers: where a processor's cache line of float32 begins."""
ROW = 1024
"""The whole is as many numbers as some rows of this length."""


class Flat:
    """Named tensors laid one after the other in ``whole [n]``; the gaps between them are zero, and stay it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies of ``tensors``, all of one dtype and device, in their order."""
        kinds = {(tensor.dtype, tensor.device) for tensor in tensors.values()}
        if len(kinds) > 1:
            raise ValueError(f"weights that are trained together have one dtype and device, not {kinds}")
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, tensor in tensors.items():
            self._places[name] = (end, end + -(-tensor.numel() // LINE) * LINE)
            end = self._places[name][1]
        like = next(iter(tensors.values()), torch.zeros(0))
        self.whole = torch.zeros(-(-end // ROW) * ROW, dtype=like.dtype, device=like.device)
        self.parts = {
            name: self.whole[first : first + tensors[name].numel()].view(tensors[name].shape)
            for name, (first, _) in self._places.items()
        }
        for name, part in self.parts.items():
            part.copy_(tensors[name].detach())

    def run(self, names: Sequence[str]) -> Tensor:
        """The numbers of ``names``, which follow each other, with the gaps between them: ``[m]``."""
        return self.whole[self._places[names[0]][0] : self._places[names[-1]][1]]

    def stack(self, names: Sequence[str]) -> Tensor:
        """``names``, which follow each other and have one shape, as matrices ``[N, rows, columns]``."""
        shape, (first, end) = self.parts[names[0]].shape, self._places[names[0]]
        columns = math.prod(shape[1:])
        return self.whole.as_strided((len(names), shape[0], columns), (end - first, columns, 1), first)

    def norm(self) -> Tensor:
        """The square root of the sum of all squares, ``[]``; row by row, so that few are added one after the other."""
        return torch.linalg.vector_norm(torch.linalg.vector_norm(self.whole.view(-1, ROW), dim=1))


def zeros(weights: Flat, names: Iterable[str]) -> Flat:
    """Zeros in the shapes of ``names`` of ``weights``."""
    return Flat({name: torch.zeros_like(weights.parts[name]) for name in names})
