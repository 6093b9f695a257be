"""In which order examples are seen: a pure function of a seed."""

import functools

import torch
from torch import Tensor

from unilat.maths.seeds import seeded


@functools.lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The permutation of one epoch, kept because every step of the epoch reads it; callers must not write into it."""
    return torch.randperm(count, generator=seeded("order", seed, epoch))


def batch_indices(count: int, batch: int, seed: int, step: int) -> Tensor:
    """Positions of the pictures of batch ``step``: int64 ``[batch]`` in 0..count-1.

    The order is endless: epoch e is a permutation drawn from (seed, e) alone, and batch ``step`` is the part from
    ``step * batch``. Batches cross the borders of epochs, so nothing is dropped and a resumed run needs only its step.
    """
    if count < 1 or batch < 1 or step < 0:
        raise ValueError(f"count and batch must be at least 1 and step at least 0, not {count}, {batch}, {step}")
    first = step * batch
    epochs = range(first // count, (first + batch - 1) // count + 1)
    parts = []
    for epoch in epochs:
        begin, end = max(first - epoch * count, 0), min(first + batch - epoch * count, count)
        parts.append(_epoch_order(count, seed, epoch)[begin:end])
    return torch.cat(parts)  # a copy, also of a single part
