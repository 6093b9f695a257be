"""Micro-batches: a process's rows of a batch in parts that fit its memory, whose gradients add up to the batch's.

    g = Σ over micro-batches of ∇ Σ over rows of loss / batch

What a row draws depends on the row alone, so each part takes its own rows' draws, and what a step computes is the
unsplit step's but for rounding; dropout alone draws other masks, and a model whose passes move its buffers (none of
ours) moves them once a part. A part that does not fit is found out by trying: the step begins again with half of it,
before anything has moved.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import torch

from unilat.training import fast
from unilat.training.plan import Stage
from unilat.types import UserError

Result = TypeVar("Result")
ROOM = 0.9
"""The share of a GPU's memory that a micro-batch which is found may take: the rest is for fragments, for what compiled
blocks take more than plain ones, and for evaluation."""


def _unheard(size: int) -> None:
    pass


@dataclass
class MicroBatch:
    """How many rows are computed at a time, and what happens where they do not fit."""

    size: int = 0
    """Rows; 0: all of the process's."""
    search: bool = False
    """Where they do not fit: go on with what does, instead of telling it and stopping."""
    found: Callable[[int], object] = _unheard
    """Is told each size that the search ends with, to be remembered: another one changes last bits."""
    tried: bool = field(default=False, init=False)
    """Whether a step has been made, so that what fits is known."""

    @property
    def seeking(self) -> bool:
        """Whether the next step has yet to find what fits."""
        return self.search and not self.tried and not self.size

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UserError(f"micro_batch {self.size}: examples that are computed at a time, or 0 for what fits")

    def parts(self, first: int, last: int, most: int = 0) -> Iterator[tuple[int, int]]:
        """``first..last`` in micro-batches of nearly one size, none empty.

        ``most``: rows of the process that has most of them, so that all make as many parts.
        """
        rows, most = last - first, max(most, last - first)
        count = -(-most // (self.size or max(1, most)))
        edges = [first + rows * part // count for part in range(count + 1)] if count else []
        return ((begin, end) for begin, end in pairwise(edges) if begin < end)

    def fitted(self, what: str, rows: int, attempt: Callable[[], Result]) -> Result:
        """``attempt()``, which computes ``rows`` in :meth:`parts`, with the largest size that fits of this, half, ….

        Raises :class:`UserError` where it is a smaller one and nobody asked to search, or where not one row fits.
        """
        asked, given = min(self.size or rows, rows), self.size
        while (done := _within_memory(attempt, ROOM if self.seeking else 1.0)) is None:
            tried = min(self.size or rows, rows)
            if tried == 1:
                raise UserError(
                    f"{what}: not even a micro-batch of 1 of a batch of {rows} fits into memory: turn on "
                    "checkpointing, or take smaller networks or pictures"
                )
            self.size = -(-tried // 2)
        if self.size != given:
            if not self.search:
                raise UserError(
                    f"{what}: a batch of {rows} in micro-batches of {asked} does not fit into memory; micro-batches of "
                    f"{self.size} do: set micro_batch to {self.size}, or turn on checkpointing"
                )
            self.found(self.size)
        self.tried = True
        return done[0]


def _within_memory(attempt: Callable[[], Result], room: float = 1.0) -> tuple[Result] | None:
    """What ``attempt`` returns, or None where memory ran out, with all that it held given back.

    ``room``: the share of a GPU's memory that it may take.
    """
    limited = room < 1.0 and torch.cuda.is_available()
    try:
        if limited:
            torch.cuda.reset_peak_memory_stats()
        done = attempt()
        if not limited or torch.cuda.max_memory_allocated() <= room * torch.cuda.mem_get_info()[1]:
            return (done,)
        del done
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    gc.collect()  # the error's frames held the tensors; they are gone with it
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says so, of a GPU or of the CPU's allocator."""
    said = ("can't allocate memory", "not enough memory", "annot allocate memory", "bad_alloc", "out of memory")
    said = (*said, "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


@contextlib.contextmanager
def one_line_where_memory_ends(stage: Stage, batch: int, micro: MicroBatch) -> Iterator[None]:
    """Memory that ends outside of the passes (in the optimiser, or before the first step), told as a UserError."""
    checkpointing = "checkpointing" in fast.told(stage.model)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"{stage.name}: out of memory with batch {batch}, micro-batch {micro.size or batch} and checkpointing "
            f"{'on' if checkpointing else 'off'}; the last checkpoint is intact: run again with a smaller micro-batch"
            f"{'' if checkpointing else ', or with checkpointing'}"
        ) from error
