"""In which order examples are seen: a pure function of a seed."""

import functools

import torch
from torch import Tensor

from unilat.maths.seeds import seeded

WINDOW = 8
"""Blocks that are shuffled together: what a source of blocks must keep at hand to read each block about once."""


@functools.lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int, blocks: Tensor | None = None) -> Tensor:
    """The permutation of one epoch, kept because every step of the epoch reads it; callers must not write into it.

    Two are kept, because a batch may cross a border; each takes 4 bytes a picture where those suffice.
    """
    generator = seeded("order", seed, epoch)
    order = _permutation(count, generator, blocks)
    return order.int() if count < 2**31 else order


def _permutation(count: int, generator: torch.Generator, blocks: Tensor | None) -> Tensor:
    """int64 ``[count]``: by chance, or window by window of blocks."""
    order = torch.randperm(count, generator=generator)
    if blocks is None:
        return order
    names, block = blocks.unique(return_inverse=True)
    window = torch.randperm(len(names), generator=generator) // WINDOW  # of each block, by its place in the epoch
    return order[window[block[order]].argsort(stable=True)]


def batch_indices(count: int, batch: int, seed: int, step: int, blocks: Tensor | None = None) -> Tensor:
    """Positions of the pictures of batch ``step``: int64 ``[batch]`` in 0..count-1.

    The order is endless: epoch e is a permutation drawn from (seed, e) alone, and batch ``step`` is the part from
    ``step * batch``. Batches cross the borders of epochs, so nothing is dropped and a resumed run needs only its step.

    ``blocks``, int64 ``[count]``, names the block that each picture is stored in (a source's ``blocks``, of the
    pictures trained on). The order then shuffles whole blocks, and the rows of :data:`WINDOW` blocks at a time among
    themselves, so that each block is read about once an epoch. Give the same tensor at every step and leave it as it
    is: the order of an epoch is kept by it.
    """
    if count < 1 or batch < 1 or step < 0:
        raise ValueError(f"count and batch must be at least 1 and step at least 0, not {count}, {batch}, {step}")
    if blocks is not None and blocks.shape != (count,):
        raise ValueError(f"{count} pictures but blocks of shape {list(blocks.shape)}; one block each is needed")
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    parts = []
    for epoch in epochs:
        begin, end = max(first - epoch * count, 0), min(first + batch - epoch * count, count)
        parts.append(_epoch_order(count, seed, epoch, blocks)[begin:end])
    return torch.cat(parts).long()  # a copy, also of a single part


def epochs_of(count: int, batch: int, step: int) -> Tensor:
    """The epoch in which each row of batch ``step`` is seen: int64 ``[batch]``, from 0."""
    return (step * batch + torch.arange(batch)) // count
