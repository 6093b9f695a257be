"""How a worker's batches come to the process that trains: through memory that both have from before the fork.

What is sent is where the numbers lie, a few bytes. So nothing is asked of a worker after it has sent a batch (torch's
loader connects to it for each tensor, and waits for ever where it has stopped), and no message is ever half read.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import torch
from torch import Tensor

from unilat.training.plan import Batch


@dataclass(frozen=True)
class Placed:
    """A batch that lies in a place of a worker: shape and type of each tensor, one after the other."""

    worker: int
    place: int
    tensors: tuple[tuple[tuple[int, ...], torch.dtype], ...]


@dataclass(frozen=True)
class Handover:
    """``places`` of every worker, filled in turn; a worker may have so many batches made that nobody has taken."""

    files: list[list[BinaryIO]]
    turn: Iterator[int] = field(default_factory=itertools.count)  # each worker counts its own

    @classmethod
    def of(cls, workers: int, places: int) -> "Handover":
        """Empty places; made before the workers are forked."""
        return cls([[_memory() for _ in range(places)] for _ in range(workers)])

    def put(self, batch: Batch, worker: int) -> Placed:
        """In a worker: its next place holds the batch."""
        place, offset = next(self.turn) % len(self.files[worker]), 0
        for tensor in batch:
            offset = _write(self.files[worker][place], tensor, offset)
        return Placed(worker, place, tuple((tuple(tensor.shape), tensor.dtype) for tensor in batch))

    def take(self, placed: Placed) -> Batch:
        """In the process that trains: a copy of the batch, whatever has become of its worker."""
        batch, offset = [], 0
        for shape, dtype in placed.tensors:
            batch.append(tensor := torch.empty(shape, dtype=dtype))
            offset = _read(self.files[placed.worker][placed.place], tensor, offset)
        return tuple(batch)

    def close(self) -> None:
        """Give the memory back."""
        for file in itertools.chain(*self.files):
            file.close()


def _memory() -> BinaryIO:
    """A file that lies in memory where the system has such, and belongs to this process and those forked from it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("unilat-batch"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _bytes(tensor: Tensor) -> memoryview:
    """The numbers of a tensor in their order; not copied where they lie so."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _write(file: BinaryIO, tensor: Tensor, offset: int) -> int:
    """Where the next one begins."""
    left = _bytes(tensor)
    while len(left):
        done = os.pwrite(file.fileno(), left, offset)
        left, offset = left[done:], offset + done
    return offset


def _read(file: BinaryIO, tensor: Tensor, offset: int) -> int:
    """Where the next one begins."""
    left = _bytes(tensor)
    while len(left):
        if hasattr(os, "preadv"):
            done = os.preadv(file.fileno(), [left], offset)
        else:  # macOS before 11
            part = os.pread(file.fileno(), len(left), offset)
            left[: len(part)], done = part, len(part)
        if not done:
            raise EOFError("a batch is shorter than its worker said")
        left, offset = left[done:], offset + done
    return offset
