"""What is trained, and how long and how fast: the two things that ``fit`` is given."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from unilat.maths.seeds import Draws
from unilat.types import UserError

Batch = tuple[Tensor, ...]
"""Examples, row i of each tensor of one and the same example."""
Losses = Callable[[Batch, Draws], tuple[Tensor, dict[str, Tensor]]]
"""The loss ``[b]`` to be minimised, what is logged beside it, each ``[b]``, and what ``observe`` gets, each
``[b, k]``."""
Saved = dict[str, object]
"""What a stage keeps in a checkpoint beside its tensors, as JSON."""


def _unmoved(metrics: dict[str, float], samples: int) -> dict[str, float]:
    return {}


def _unread(state: Saved) -> None:
    pass


def _ready() -> None:
    pass


@contextmanager
def still(device: torch.device) -> Iterator[Callable[[], object]]:
    """``hold`` of a stage in which nothing moves but weights."""
    yield lambda: None


def _unobserved(sums: dict[str, Tensor]) -> None:
    raise ValueError(f"losses returned {', '.join(sums)} as [b, k], and this stage has no observe")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """What is trained: a model, its examples, its loss, and what moves between two steps."""

    name: str
    """Of its folder, its lines in the log and its messages."""
    model: nn.Module
    """What is trained and averaged."""
    count: int
    """Examples there are."""
    batch: Callable[[Tensor], Batch]
    """``indices [b]`` int64 -> the examples there, in memory; the engine moves them to the device. It touches data
    alone, since it may run in another process."""
    losses: Losses
    """What is minimised."""
    prepare: Callable[[], None] = _ready
    """Called before ``batch`` is, with the weights that training goes on from on their device; and once more where it
    has gone back."""
    after_step: Callable[[dict[str, float], int], dict[str, float]] = _unmoved
    """``(means over the global batch, samples seen)``, ``"loss"`` among the means: a controller moves here. Returns
    more to log."""
    reads_model: bool = False
    """Whether ``after_step`` calls the model: where its weights are shared out they are whole for it."""
    observe: Callable[[dict[str, Tensor]], None] = _unobserved
    """Gets each step's sums over the global batch of what ``losses`` returned as ``[b, k]``."""
    state: Callable[[], Saved] = dict
    """What ``after_step`` and ``calibrate`` have changed."""
    load_state: Callable[[Saved], None] = _unread
    """Goes on from ``state``; UserError for the state of another stage."""
    calibrate: Callable[[dict[str, Tensor], int], dict[str, float]] | None = None
    """``(averaged tensors, step)``, called without gradients on every process after each ``eval_every`` steps; a
    function of its arguments alone. Returns more to log."""
    eval_every: int = 0
    """Steps between two calibrations."""
    by_epoch: bool = False
    """Whether an example looks another way in each epoch: ``batch`` then gets ``index + count · epoch``."""
    hold: Callable[[torch.device], AbstractContextManager[Callable[[], object]]] | None = None
    """For captured steps: while the context lasts ``losses`` and ``observe`` read and write tensors on the device that
    stay where they are; what it gives is called before each step and writes there what the host has moved."""
    uncaptured: str = ""
    """Why its steps cannot be captured; nothing: they can."""
    blocks: Tensor | None = None
    """Number of the block that each example is read in, int64 ``[count]``: an epoch's order keeps blocks together."""
    show: Callable[[dict[str, Tensor], int, int], object] | None = None
    """``(averaged tensors, step, samples seen)``, called on process 0 without gradients after each ``show_every`` steps
    and the last one: for whoever looks on. It draws from generators of its own and moves nothing."""
    show_every: int = 0
    """Steps between two such looks."""
    names: Callable[[Tensor], Sequence[str] | None] | None = None
    """What the examples ``[n]`` are called where they come from; None: they have numbers alone."""


def interval(text: str) -> tuple[int, float]:
    """How often to save, as ``(steps, seconds)``, one of them 0: ``500`` steps, or ``300s``, ``5m``, ``1.5h``.

    Raises :class:`UserError` for anything else.
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        steps, seconds = (0, float(text[:-1]) * unit) if unit else (int(text), 0.0)
    except ValueError:
        steps, seconds = 0, 0.0
    if steps < 1 and not 0 < seconds < math.inf:
        raise UserError(f"save_every {text!r}: a number of steps, 500, or seconds, minutes or hours, 300s, 5m or 1h")
    return steps, seconds


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast. Lengths are in samples, but ``log_every`` and ``save_every`` in steps."""

    batch: int
    """Examples per step, over all processes."""
    samples: int
    """Length of the run; the last step may go beyond it by less than a batch."""
    learning_rate: float
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``muon``: Muon for the inner matrices (``training/muon.py``), AdamW for the rest, at one learning rate."""
    warmup: int = 0
    """Samples over which the learning rate rises linearly from 0."""
    decay: float = 0.0
    """Share of the run, at its end, over which the learning rate falls to 0."""
    decay_shape: Literal["linear", "cosine"] = "linear"
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled; for tensors of two or more axes only (no biases, no norms' gains)."""
    ema_halflife: float = 0.0
    clip: float = math.inf
    """Largest global norm of the gradient (of the mean loss)."""
    log_every: int = 10
    save_every: int = 500
    save_seconds: float = 0.0
    """Save each time that so many seconds have passed, and not by steps; 0: by steps."""
    keep: int = 2
    """Checkpoints kept."""
    may_grow: bool = False
    """Whether checkpoints of fewer ``samples`` are gone on with (``training/longer.py``)."""
    again: int = 0
    """Samples after which the rate, which had fallen by a shorter plan, began to rise from 0 again; 0: it never did."""

    def saved_every(self, text: str) -> "Schedule":
        """The same, saved as often as :func:`interval` reads; as it is for an empty ``text``."""
        if not text:
            return self
        steps, seconds = interval(text)
        return replace(self, save_every=steps or self.save_every, save_seconds=seconds)

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch)

    def rate(self, samples: int) -> float:
        """Learning rate of the step that ends with ``samples`` seen."""
        left = self.samples + self.batch - samples  # so that the last step still moves
        share = min(1.0, (samples - self.again) / self.warmup if self.warmup > 0 else 1.0)
        if self.decay > 0:
            fall = min(1.0, max(0.0, left / (self.decay * self.samples)))
            share *= fall if self.decay_shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * fall)
        return self.learning_rate * share
