"""What is trained, and how long and how fast: the two things that ``fit`` is given."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from unilat.maths.seeds import Draws


class Stage(Protocol):
    """What is trained. Optional besides: ``eval_every: int`` and ``calibrate(ema, step) -> dict[str, float]``, called
    without gradients on every process after each ``eval_every`` steps; it must be a function of its arguments alone.
    And ``observe(sums)``: each step told the sums over the global batch of what ``losses`` returned as [b, k]."""

    name: str
    count: int

    @property
    def model(self) -> nn.Module:
        """What is trained and averaged."""
        ...

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """The examples at ``indices`` [b] int64; the engine moves them to the device."""
        ...

    def losses(self, batch: tuple[Tensor, ...], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss [b] to be minimised, what is logged beside it, each [b], and what ``observe`` is told, each [b, k]."""
        ...

    def after_step(self, metrics: dict[str, float], samples: int) -> dict[str, float]:
        """Told means over the global batch (``"loss"`` among them): a controller moves here. Returns more to log."""
        ...

    def state(self) -> dict[str, Any]:
        """What ``after_step`` and ``calibrate`` have changed, as JSON."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast. All lengths but ``log_every`` and ``save_every`` (steps) are in samples."""

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
    keep: int = 2
    """Checkpoints kept."""

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch)

    def rate(self, samples: int) -> float:
        """Learning rate of the step that ends with ``samples`` seen."""
        left = self.samples + self.batch - samples  # so that the last step still moves
        share = min(1.0, samples / self.warmup if self.warmup > 0 else 1.0)
        if self.decay > 0:
            fall = min(1.0, max(0.0, left / (self.decay * self.samples)))
            share *= fall if self.decay_shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * fall)
        return self.learning_rate * share
