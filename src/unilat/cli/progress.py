"""Progress of a training run: bars on a terminal, a line now and then elsewhere."""

import math
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from unilat.cli.naming import arguments_named
from unilat.run.records import Note
from unilat.training.records import Step

_EVERY = 15.0  # seconds between two plain lines
_NAMES = {
    "stage1": "stage 1, autoencoder",
    "stage2": "stage 2, base model",
    "prior": "prior on frozen latents",
}


class TrainingProgress:
    """Called with the record of each step, and with notes of what is done between the stages: a line each."""

    def __init__(self, console: Console):
        self.console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> "TrainingProgress":
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<22}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[detail]}"),
            )
            self._bars = Progress(*columns, console=self.console)
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, record: Step | Note) -> None:
        """Show one step, or a note."""
        if isinstance(record, Note):
            self.console.print(arguments_named(record.text), markup=False)
            return
        stage, step, steps = record.stage, record.step, record.steps
        name = _NAMES.get(stage, stage)
        if self._bars is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(name, total=steps, detail="")
            self._bars.update(self._tasks[stage], completed=step, total=steps, detail=detail(record))
            return
        now = time.monotonic()
        if now - self._told.get(stage, -math.inf) >= _EVERY or step == steps:
            self._told[stage] = now
            self.console.print(f"{name}, {step / max(1, steps):.0%}: {detail(record)}", markup=False)


def detail(record: Step) -> str:
    """Step, speed, time left where there is any, the bits now against the bits wanted where it has them, the loss."""
    metrics = record.metrics
    parts = [f"step {record.step}/{record.steps}", f"{record.samples_per_second:.0f} samples/s"]
    if record.seconds_left:
        parts.append(f"{duration(record.seconds_left)} left")
    if "bpp" in metrics:
        target = metrics.get("target")
        wanted = f" of {target:.3g} wanted" if target and math.isfinite(target) else ""
        parts.append(f"bits {metrics['bpp']:.3f}{wanted}")
    return ", ".join([*parts, f"loss {record.loss:.4g}"])


def duration(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
