"""The processes of a run: one, or several under ``torchrun``. This file and ``sharded.py`` alone know
torch.distributed."""

import atexit
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from unilat.maths.seeds import Draws
from unilat.training.plan import Batch, Losses, Stage
from unilat.types import UserError

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives the run up."""
GRACE = 2.0
"""Seconds after that in which gloo says so itself."""
LATER = timedelta(minutes=1)
"""How much later NCCL, which would abort the process, does than :meth:`World.watched`."""
MEETING = timedelta(minutes=2)
"""How long the processes may take to find each other."""


@dataclass(frozen=True)
class World:
    """The processes of this run."""

    rank: int
    size: int

    def rows(self, total: int) -> tuple[int, int]:
        """First and one past the last row of the global batch that this process computes."""
        return total * self.rank // self.size, total * (self.rank + 1) // self.size

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            with self._together():
                dist.all_reduce(tensor)
        return tensor

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.sum(torch.zeros(1))

    def sum_all(self, tensors: list[Tensor]) -> None:
        """Sum each tensor over all processes, in place, in one exchange."""
        if self.size > 1:
            flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
            parts = flat.split([tensor.numel() for tensor in tensors])
            shaped = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
            torch._foreach_copy_(tensors, shaped)  # pyright: ignore[reportPrivateImportUsage]

    def copy(self, tensors: list[Tensor]) -> None:
        """Give every process the values of process 0, in place."""
        if self.size > 1:
            with self._together():
                for tensor in tensors:
                    dist.broadcast(tensor.data, 0)

    def gather(self, tensor: Tensor) -> Tensor:
        """Each process's ``tensor``, all of one shape: ``[size, *]``."""
        if self.size == 1:
            return tensor[None]
        every = tensor.new_empty(self.size, *tensor.shape)
        with self._together():
            dist.all_gather([*every.unbind()], tensor.contiguous())
        return every

    def swap(self, parts: Sequence[Tensor], lengths: Sequence[int]) -> tuple[Tensor, ...]:
        """Give process r ``parts[r]``, each ``[*]``; returns what each process had for this one, ``lengths`` long."""
        given = parts[0].new_empty(sum(lengths))
        with self._together():
            dist.all_to_all_single(given, torch.cat([*parts]), [*lengths], [len(part) for part in parts])
        return given.split([*lengths])

    def by_rows(self, count: int, make: Callable[[int, int], Sequence[Tensor]]) -> tuple[Tensor, ...]:
        """``make(0, count)``, tensors of ``count`` rows on the CPU, of which each process makes its part, for all.

        ``make(first, last)`` makes those rows; what a row is must not depend on where the parts end.
        """
        if self.size == 1 or count == 0:
            return tuple(make(0, count))
        first, last = self.rows(count)
        most = -(-count // self.size)
        mine, whole = make(first, max(last, first + 1)), []  # a process without rows makes one for its shape
        for part in mine:
            padded = part.new_zeros(most, *part.shape[1:])
            padded[: last - first] = part[: last - first]
            every = self.gather(padded)
            ends = (World(rank, self.size).rows(count) for rank in range(self.size))
            whole.append(torch.cat([rows[: end - begin] for rows, (begin, end) in zip(every, ends, strict=True)]))
        return tuple(whole)

    @contextmanager
    def watched(self) -> Iterator[Callable[[], None]]:
        """For a loop that calls what this yields once a round: a round that outlasts :data:`TIMEOUT`, because another
        process hangs or has ended, ends this one with a line, whatever it waits in."""
        if self.size == 1:
            yield lambda: None
            return
        begun, over = [time.monotonic()], threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                waited = time.monotonic() - begun[0]
                if waited > TIMEOUT.total_seconds() + GRACE:
                    sys.stderr.write(f"error: {self._lost(f'nothing for {waited:.0f} s')}\n")
                    sys.stderr.flush()
                    os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
        try:
            with self._together():
                yield lambda: begun.__setitem__(0, time.monotonic())
        finally:
            over.set()

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if not (isinstance(error, dist.DistError) or any(name in text for name in ("gloo", "Gloo", "NCCL"))):
                raise
            raise UserError(self._lost(f"{text:.80}")) from error

    def _lost(self, what: str) -> str:
        return (
            f"process {self.rank} has lost the others ({what}): one has ended or hangs; the last checkpoint is intact, "
            "run again to go on"
        )


def cuts(rows: int, size: int) -> list[int]:
    """First row of each of ``size`` processes, and the end, where a weight's rows are shared out (as FSDP2 does)."""
    return [min(rank * -(-rows // size), rows) for rank in range(size + 1)]


ALONE = World(rank=0, size=1)


class _Module(nn.Module):
    """A stage's losses as a module's forward pass, which is what torch's engines take."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.model, self.losses = stage.model, stage.losses

    def forward(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        return self.losses(batch, draws)


def replicas(stage: Stage, world: World, in_parts: bool) -> Losses:
    """``stage.losses``; of several processes by torch's DDP, so that a backward pass leaves the *mean* of their
    gradients, exchanged while it still goes on. ``in_parts``: it may follow others that left theirs unexchanged."""
    if world.size == 1:
        return stage.losses
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers")  # torch 2.13 has a word that torch 2.9 does not know
        # weights that take no part are found once, or where passes of others count among DDP's, in each pass; buffers
        # are the stage's own affair
        return DistributedDataParallel(
            _Module(stage), broadcast_buffers=False, find_unused_parameters=in_parts, static_graph=not in_parts
        )


def join(device: torch.device) -> World:
    """The world that ``torchrun`` describes in the environment, or this process alone."""
    size = os.environ.get("WORLD_SIZE", "1")
    if dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    if size == "1":
        return ALONE
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing or not size.isdecimal():
        lack = f"{', '.join(missing)} not" if missing else "no number"
        raise UserError(
            f"WORLD_SIZE is {size}, and {lack} set: start with torchrun, or unset WORLD_SIZE for one process"
        )
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun has started the others itself
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        sys.stderr.write(f"waiting at {where} for {size} processes, as WORLD_SIZE says; unset it for one alone\n")
    backend, timeout = ("cpu:gloo,cuda:nccl", TIMEOUT + LATER) if device.type == "cuda" else ("gloo", TIMEOUT)
    try:
        store, rank, count = next(rendezvous("env://", timeout=MEETING))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(
            f"the {size} processes did not find each other ({text:.80}): start all with torchrun"
        ) from error
    atexit.register(_leave)
    return World(rank, count)


def _leave() -> None:
    """End the group while Python is whole, and after its threads have let go of the last tensors: one that still holds
    some when Python is gone aborts the process (torch 2.13, gloo; pytorch pull request 179291)."""
    time.sleep(0.1)
    dist.destroy_process_group()
