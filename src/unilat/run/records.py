"""What a run says while it goes on, as typed records, and the exception that a stopped run ends with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class Note:
    """A line for people: what is done between the stages."""

    text: str


OnStep = Callable[[Step | Note], object]
"""Called with each record; to return False stops the run, any other value lets it go on."""


class Stopped(Exception):
    """``on_step`` returned False: the run is saved as after a signal; trained again, it goes on from there."""

    def __init__(self, folder: Path, at: Step | Note | None):
        where = f" in {at.stage}, step {at.step} of {at.steps}" if isinstance(at, Step) else ""
        super().__init__(f"the run was stopped{where}; train with out={str(folder)!r} again to go on")
        self.folder = folder
        """The unfinished run's folder. One that ``train`` made itself lives as long as this exception."""
        self.at = at
        """The record that was answered with False."""


class Listener:
    """What the inner loops call with dictionaries; ``on_step`` gets typed records and may stop them.

    A step answered with False returns False to the engine, which saves and ends as after a signal. Between stages there
    is nothing to save: a note answered with False raises :class:`Stopped` at once.
    """

    def __init__(self, on_step: OnStep | None, folder: Path):
        self.on_step, self.folder = on_step, folder
        self.stopped_at: Step | Note | None = None

    def __call__(self, numbers: Mapping[str, Any]) -> bool:
        if self.on_step is None:
            return True
        record = typed(numbers)
        if self.on_step(record) is not False:
            return True
        self.stopped_at = record
        if isinstance(record, Note):
            raise Stopped(self.folder, record)
        return False


def typed(numbers: Mapping[str, Any]) -> Step | Note:
    """The record of what the inner loops say as a dictionary."""
    if "note" in numbers:
        return Note(str(numbers["note"]))
    return Step(
        stage=numbers["stage"],
        step=numbers["step"],
        steps=numbers["steps"],
        samples=numbers["samples"],
        loss=numbers["loss"],
        metrics=dict(numbers["metrics"]),
        samples_per_second=numbers["samples_per_second"],
        seconds_left=numbers["seconds_left"],
    )
