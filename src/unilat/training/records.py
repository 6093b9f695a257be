"""What the engine tells: of each step while it goes on, and of the whole when it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Step:
    """Numbers of one step of a stage."""

    stage: str
    """``stage1``, ``prior`` (stage 1's prior alone), ``stage2``, ``distill-decoder-1`` …"""
    step: int
    """Steps done, from 1 on."""
    steps: int
    """Steps of the whole stage."""
    samples: int
    """Examples seen."""
    loss: float
    """Mean over the batch, nats per dimension."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything that is logged of the step: ``bpp``, ``decoder``, ``loss_factor``, ``target``, ``learning_rate`` …"""
    samples_per_second: float
    """Speed of the last steps."""
    seconds_left: float
    """Until the stage is done, at that speed."""
    seconds: float
    """Spent in the stage's loop so far, over all parts of the run."""
    logged: bool = False
    """Whether ``log.jsonl`` has a line of it too: trackers keep these alone."""


Progress = Callable[[Step], object]
"""Called with each step's record; where it returns False the run stops as after a signal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a call of ``fit`` has come to."""

    stage: str
    step: int
    """Steps done."""
    steps: int
    """Steps of the whole stage."""
    samples: int
    """Examples seen."""
    seconds: float
    """Spent in the loop, over all parts of the run."""
    resumed: int
    """Step it went on from; 0 for a new run."""
    metrics: Mapping[str, float]
    """Of the last step made; empty where none was left to make."""
    ema: dict[str, Tensor]
    """Averaged weights and buffers of the whole model, by name."""

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.step >= self.steps
