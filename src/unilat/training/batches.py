"""Batches of a stage, made as they are needed, or ahead of that by worker processes.

Which examples a batch holds is said by the process that trains, and a worker only fetches them: so any number of
workers, and a run that went on, train on the same batches to the last bit. Workers are forked, see the data as they lie
in memory, and end with the process that started them, however it ends.
"""

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from unilat.training.handover import Handover, Placed
from unilat.training.plan import Batch
from unilat.types import UserError

PATIENCE = 15.0
"""Seconds that the next batch may keep the engine waiting before its worker counts as hung."""
AHEAD = 2
"""Batches that each worker makes ahead."""
Sent = tuple[Batch, Any]
"""A batch on its way to a device, and what tells when it is there."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def upcoming(make: Callable[[Tensor], Batch], order: Iterable[Tensor], workers: int) -> Iterator[Iterator[Batch]]:
    """``make(indices)`` for each of ``order``, int64 ``[b]``, one after the other; by ``workers`` processes, or here.

    Raises in the context, at once or at the next batch: UserError for a worker that was killed or has not answered for
    :data:`PATIENCE` seconds, and what ``make`` says in a UserError of its own, as it says it.
    """
    if workers < 0:
        raise UserError(f"workers {workers}: 0, for batches made in this process, or more")
    if not workers:
        yield (make(indices) for indices in order)
        return
    if "fork" not in multiprocessing.get_all_start_methods():
        raise UserError(f"workers {workers}: this system cannot fork processes: leave workers at 0")
    before = set(multiprocessing.active_children())
    handover = Handover.of(workers, AHEAD + 1)  # one is taken while the next is asked for
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than processors: as asked
        batches = iter(_loader(_Examples(make, handover), order, workers))
    children = [child for child in multiprocessing.active_children() if child not in before]
    whole = False
    try:
        yield _checked(batches, handover)
        whole = True
    except RuntimeError as error:
        trouble = _trouble(error)
        if trouble is None:
            raise
        raise UserError(trouble) from error
    finally:
        _end(batches, children, whole)
        handover.close()


def placed(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on ``device``. To a GPU each is copied from pinned memory while the step before it computes."""
    if device.type != "cuda":
        return (tuple(tensor.to(device) for tensor in batch) for batch in batches)
    copies = torch.cuda.Stream(device)

    def send(batch: Batch) -> Sent:
        with torch.cuda.stream(copies):
            moved = tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in batch)
            return moved, copies.record_event()

    def arrived(sent: Sent) -> Batch:
        now = torch.cuda.current_stream(device)
        now.wait_event(sent[1])
        for tensor in sent[0]:
            tensor.record_stream(now)  # its memory is not given away before the step has read it
        return sent[0]

    return ahead(batches, send, arrived)


def ahead(batches: Iterable[Batch], send: Callable[[Batch], Sent], arrived: Callable[[Sent], Batch]) -> Iterator[Batch]:
    """``arrived(send(batch))`` of each, the next one sent before one is handed out."""
    waiting: list[Sent] = []
    for batch in batches:
        waiting.append(send(batch))
        if len(waiting) > 1:
            yield arrived(waiting.pop(0))
    for sent in waiting:
        yield arrived(sent)


def _end(batches: Any, children: Sequence[BaseProcess], whole: bool) -> None:
    """Leave no worker behind: not ``whole``, they may be at work or hang, and nobody waits for what they make."""
    for child in [] if whole else children:
        with contextlib.suppress(RuntimeError):  # torch tells of each death where it may be
            child.kill()
            child.join()
    with contextlib.suppress(RuntimeError):
        batches._shutdown_workers()  # pyright: ignore[reportPrivateUsage]
    for child in children:
        child.kill()
        child.join()


@dataclass(frozen=True)
class _Refused:
    """The one line that ``make`` had to say, on its way to the process that trains."""

    line: str


@dataclass(frozen=True)
class _Examples:
    """A data set as torch's loader wants it: the place in it is a whole batch's indices, an array."""

    make: Callable[[Tensor], Batch]
    handover: Handover

    def __getitem__(self, indices: Any) -> Placed | _Refused:
        worker = get_worker_info()
        assert worker is not None
        try:
            return self.handover.put(self.make(torch.from_numpy(indices)), worker.id)
        except UserError as error:
            return _Refused(str(error))


@dataclass(frozen=True)
class _Order:
    """The batches' indices as arrays: those travel by value, where each tensor would take a descriptor."""

    order: Iterable[Tensor]

    def __iter__(self) -> Iterator[Any]:
        return (indices.numpy() for indices in self.order)


def _loader(examples: _Examples, order: Iterable[Tensor], workers: int) -> Any:
    return DataLoader(
        examples,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        sampler=_Order(order),
        num_workers=workers,
        prefetch_factor=AHEAD,
        timeout=PATIENCE,
        multiprocessing_context="fork",
        worker_init_fn=_begin,
        generator=torch.Generator(),  # torch draws a seed for its workers, which must not come from ours
    )


def _begin(worker: int) -> None:
    """What a worker does first: leave the signals that stop a run to its parent, and end with it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _checked(batches: Iterator[Any], handover: Handover) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, _Refused):
            raise UserError(batch.line)
        yield handover.take(batch)


def _trouble(error: RuntimeError) -> str | None:
    """What to say of a loader's error; None for another's."""
    text = " ".join(str(error).split())
    if not text.startswith("DataLoader"):
        return None
    what = f"has not answered for {PATIENCE:g} s" if "timed out" in text else f"has ended ({text:.120})"
    return f"a worker that reads batches {what}; the last checkpoint is intact: run again to go on, with fewer workers"
