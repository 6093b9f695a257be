"""What a run says while it goes on, and the exception that a stopped run ends with.

There is one stream of records: progress, trackers and pages hear the same ones, whoever they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unilat.recipe.config import RunConfig
from unilat.results import Results
from unilat.training.records import Step
from unilat.types import UserError


@dataclass(frozen=True)
class Note:
    """A line for people: what is done between the stages."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run begins, or goes on, in its folder."""

    config: RunConfig
    """The resolved configuration."""
    folder: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Pictures that the averaged weights make while they are trained; made for trackers alone."""

    stage: str
    step: int
    samples: int
    """Examples seen."""
    pictures: Mapping[str, Tensor]
    """``originals`` and ``reconstructions`` in stage 1, ``generated`` in stage 2: uint8 ``[N, C, H, W]``."""


Record = Begun | Step | Note | Shown
"""All that a run says."""
Tell = Callable[[Record], object]
"""Called with each record: a tracker, or who passes records on."""
OnStep = Callable[[Step | Note], object]
"""Called with each step and note; to return False stops the run, any other value lets it go on."""


def ignore(record: Record) -> None:
    """The :data:`Tell` of whoever wants to hear nothing."""


class Unkept(UserError):
    """Measured, but not all of what was asked for, or not written where it belongs."""

    def __init__(self, why: str, results: Results):
        super().__init__(why)
        self.results = results
        """What there is."""


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
    """Passes all records on to ``trackers``, steps and notes to ``on_step``, and remembers the one that was answered
    with False.

    A step answered with False returns False to the engine, which saves and ends as after a signal. Between stages there
    is nothing to save: a note answered with False raises :class:`Stopped` at once.
    """

    def __init__(self, on_step: OnStep | None, folder: Path, trackers: Sequence[Tell] = ()):
        self.on_step, self.folder, self.trackers = on_step, folder, trackers
        self.stopped_at: Step | Note | None = None

    def __call__(self, record: Record) -> bool:
        for tracker in self.trackers:
            tracker(record)
        if self.on_step is None or isinstance(record, Begun | Shown) or self.on_step(record) is not False:
            return True
        self.stopped_at = record
        if isinstance(record, Note):
            raise Stopped(self.folder, record)
        return False
