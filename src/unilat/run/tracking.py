"""Trackers: who keeps a run's records beside its own log, by name or a function of the user's; all of them offline.

What is kept: the numbers of each step that ``log.jsonl`` has, under ``stage/name`` over the samples seen; pictures; the
resolved configuration. The packages are imported when the first record comes, and whatever a named tracker meets with
later ends the tracking and not the training. A run that goes on goes on in its tracker's same run.
"""

import contextlib
import importlib.util
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from unilat.files import read_bytes, whole
from unilat.recipe.config import to_dict, to_json
from unilat.run.folder import RunFolder
from unilat.run.records import Begun, Record, Shown, Tell
from unilat.training.records import Step
from unilat.types import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NAMES = ("tensorboard", "trackio", "wandb")
Track = str | Tell | Sequence[str | Tell]
"""A name of :data:`NAMES`, a function that gets every record, or several of them."""
PROJECT = "unilat"
"""What runs are filed under where a tracker has projects."""


class Keeper(Protocol):
    """What keeps records somewhere."""

    def __call__(self, record: Record) -> object: ...

    def close(self) -> None:
        """Write what is left; nothing comes after it."""
        ...


class Tracker:
    """One tracker of a run: a name's, opened when the run begins, or a function."""

    def __init__(self, name: str, say: Callable[[str], object], keep: Tell | None = None):
        self.name = name
        self._say, self._keep = say, keep
        self._keeper: Keeper | None = None
        self._lost = False

    def __call__(self, record: Record) -> None:
        """Keep the record. A function's own error goes through; a named tracker's ends it, and is told once."""
        if self._keep is not None:
            self._keep(record)
            return
        if self._lost or (self._keeper is None and not isinstance(record, Begun)):
            return
        self._guarded(lambda: self._kept(record))

    def close(self) -> None:
        """Write what is left."""
        if self._keeper is not None and not self._lost:
            self._guarded(self._keeper.close)
        self._keeper = None

    def _kept(self, record: Record) -> None:
        if isinstance(record, Begun) and self._keeper is None:
            self._keeper = _opened(self.name, record.folder)
        if self._keeper is not None:
            self._keeper(record)

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever another's package does: hours of training do not end with it
            self._lost = True
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self._say(f"{self.name} keeps nothing from here on, and the training goes on ({why})")


def tracked(track: Track, say: Callable[[str], object]) -> list[Tracker]:
    """The trackers that were named; UserError for an unknown one, and for a package that is not installed.

    ``say``: told where one of them fails.
    """
    named = [track] if isinstance(track, str) or callable(track) else list(track)
    found: list[Tracker] = []
    for one in named:
        if callable(one):
            found.append(Tracker("", say, one))
        elif one not in NAMES:
            raise UserError(f"there is no tracker {one!r}: `track` is {', '.join(NAMES[:-1])} or {NAMES[-1]}")
        elif importlib.util.find_spec(one) is None:
            raise UserError(f"{one} is not installed: pip install 'unilat[track]', or `pip install {one}` alone")
        elif one not in [other.name for other in found]:
            found.append(Tracker(one, say))
    return found


@contextlib.contextmanager
def closed(trackers: Sequence[Tracker]) -> Iterator[None]:
    """However the context ends, the trackers have written what was left."""
    try:
        yield
    finally:
        for tracker in trackers:
            tracker.close()


def _opened(name: str, folder: Path) -> Keeper:
    where = RunFolder(folder).track / name
    if name == "tensorboard":
        return TensorBoard(where)
    return Logged(name, folder.resolve().name, where)


class TensorBoard:
    """Event files ``track/tensorboard/STAGE``: one run of TensorBoard's a stage, since each counts its own samples."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def __call__(self, record: Record) -> None:
        """Write scalars, pictures, the configuration; a stage that went back loses what it had told beyond."""
        if isinstance(record, Step) and record.logged:
            writer = self._writer(record.stage, record.samples)
            for name, value in scalars(record).items():
                writer.add_scalar(name, value, record.samples)
        elif isinstance(record, Shown):
            writer = self._writer(record.stage, record.samples)
            for name, pictures in record.pictures.items():
                writer.add_image(f"{record.stage}/{name}", row(pictures), record.samples)
        elif isinstance(record, Begun):
            text = "\n".join(f"    {line}" for line in to_json(record.config).splitlines())
            self._writer("run", 0).add_text("configuration", text, 0)

    def _writer(self, stage: str, samples: int) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        if stage not in self._writers:
            self._writers[stage] = SummaryWriter(str(self.folder / stage), purge_step=samples, flush_secs=10)
        return self._writers[stage]

    def close(self) -> None:
        """Flush and close the files."""
        for writer in self._writers.values():
            writer.close()


class Logged:
    """trackio and wandb, which are called alike: one run, a dictionary a step, samples seen as an axis of its own."""

    def __init__(self, name: str, run: str, folder: Path):
        self.name, self.run, self.folder = name, run, folder
        self._module: Any = None

    def __call__(self, record: Record) -> None:
        """Log a dictionary; the first record, of the run's beginning, opens the run."""
        if isinstance(record, Begun):
            self._begin(record)
        elif isinstance(record, Step) and record.logged:
            self._module.log({f"{record.stage}/samples": record.samples, **scalars(record)})
        elif isinstance(record, Shown):
            seen = {f"{record.stage}/samples": record.samples}
            for name, pictures in record.pictures.items():
                seen[f"{record.stage}/{name}"] = self._module.Image(row(pictures).permute(1, 2, 0).numpy())
            self._module.log(seen)

    def _begin(self, begun: Begun) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = _flat(to_dict(begun.config))
        if self.name == "trackio":
            import trackio  # pyright: ignore[reportMissingImports]

            self._module = trackio
            trackio.init(project=PROJECT, name=f"{self.run}-{_identity(self.folder)}", config=plain, resume="allow")
            return
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb  # pyright: ignore[reportMissingImports]

        self._module = wandb
        settings = {"mode": "offline", "resume": "allow", "dir": str(self.folder), "id": _identity(self.folder)}
        wandb.init(project=PROJECT, name=self.run, config=plain, **settings)
        for stage in ("stage1", "prior", "stage2"):
            wandb.define_metric(f"{stage}/samples")
            wandb.define_metric(f"{stage}/*", step_metric=f"{stage}/samples")

    def close(self) -> None:
        """End the tracker's run."""
        if self._module is not None:
            self._module.finish()


def scalars(record: Step) -> dict[str, float]:
    """Finite numbers of a step by ``stage/name``: losses, bits, loss factor, learning rate, speed in samples/s."""
    numbers = {**record.metrics, "loss": record.loss, "samples_per_second": record.samples_per_second}
    return {f"{record.stage}/{name}": float(value) for name, value in numbers.items() if math.isfinite(value)}


def row(pictures: Tensor) -> Tensor:
    """uint8 ``[N, C, H, W]`` side by side as ``[3, H, N·(W + 1) - 1]``, one white column between two."""
    rgb = pictures.expand(-1, 3, -1, -1)
    spaced = torch.nn.functional.pad(rgb, (0, 1), value=255)
    return torch.cat([*spaced], dim=2)[..., :-1].contiguous()


def _flat(tree: Mapping[str, object], place: str = "") -> Mapping[str, object]:
    """The configuration as ``stage1.samples``: value."""
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    return flat


def _identity(folder: Path) -> str:
    """The name that a tracker knows this run by: made once and kept, so that what goes on is the same run."""
    path = folder / "id.txt"
    with contextlib.suppress(OSError):
        return read_bytes(path, 64).decode("ascii", "replace").strip()
    made = uuid.uuid4().hex[:8]
    with whole(path) as part:
        part.write_text(made + "\n")
    return made
