"""The processes of a run: one, or several under ``torchrun``. This is the only file that imports torch.distributed."""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from unilat.types import UserError

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives the run up."""


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

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            text = " ".join(str(error).split())
            raise UserError(f"process {self.rank} lost the others ({text:.80}); run again to go on") from error


def join(device: torch.device) -> World:
    """The world that ``torchrun`` describes in the environment, or this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise UserError(
                f"the {size} processes did not find each other ({text:.80}); start with torchrun"
            ) from error
        atexit.register(_leave)
    return World(rank=int(os.environ.get("RANK", "0")) if size > 1 else 0, size=size)


def _leave() -> None:
    """End the group while Python is whole, and after its threads have let go of the last tensors: one that still holds
    some when Python is gone aborts the process (torch 2.13, gloo; pytorch pull request 179291)."""
    time.sleep(0.1)
    dist.destroy_process_group()
