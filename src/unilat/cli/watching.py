"""`unilat watch` and `unilat ui`: a run in the terminal, and runs in the browser."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from rich.console import RenderableType

    from unilat.run.watching import StageSeen, Watched

Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]
BLOCKS = "▁▂▃▄▅▆▇█"
WIDE = 32  # columns of a curve in the terminal
LINE = 15.0  # seconds between two lines where there is no terminal
STAGES = {"stage1": "stage 1, autoencoder", "prior": "prior alone", "stage2": "stage 2, base model"}
SHOWN = {
    "bpp": ("bits per pixel", "of the last batch, by the training weights"),
    "calibration_bpp": ("bits, averaged", "per pixel, by the averaged weights on pictures set aside"),
    "decoder": ("decoder loss", "nats per picture, before the loss factor"),
    "loss": ("loss", "nats per dimension, as minimised"),
    "loss_factor": ("loss factor", "weight of the decoder's loss"),
}
"""What is shown of a stage: its name, and what it is."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Follow a run in the terminal: bits, losses, time left.

        unilat watch runs/photos
        unilat watch runs/photos --once --json

    It reads the run folder alone, which another process may be training in, and ends when that
    does."""

    run: Positional[Annotated[Path, arg(metavar="RUN", help="Run folder that `unilat train` writes.")]]
    every: Annotated[float, arg(metavar="SECONDS")] = 2.0
    """How often to look."""
    once: bool = False
    """Look once, print, and stop."""
    json: Json = False

    def execute(self) -> None:
        """Look, print, and look again until nobody trains it."""
        from unilat.cli.output import Output
        from unilat.run.watching import watch
        from unilat.types import UserError

        if not 0.1 <= self.every <= 3600:
            raise UserError(f"--every {self.every:g}: a number of seconds from 0.1 to 3600")
        with Output(self.json) as output:
            seen = watch(self.run)
            if not (self.once or self.json):
                seen = _followed(self, seen)
            output.result(seen.to_json(), "\n".join(lines(seen)))


def _followed(command: Watch, seen: "Watched") -> "Watched":
    """Show the run until nobody trains it: in place on a terminal, else a line now and then; as it ended."""
    import time

    from rich.console import Console
    from rich.live import Live

    from unilat.run.watching import watch

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if console.is_terminal:
        with Live(_drawn(seen), console=console, transient=True, auto_refresh=False) as live:
            while seen.state == "training":
                time.sleep(command.every)
                seen = watch(command.run)
                live.update(_drawn(seen), refresh=True)
        return seen
    told = -LINE
    while seen.state == "training":
        if time.monotonic() - told >= LINE:
            told = time.monotonic()
            console.print(brief(seen), markup=False)
        time.sleep(command.every)
        seen = watch(command.run)
    return seen


def _drawn(seen: "Watched") -> "RenderableType":
    from rich.text import Text

    return Text("\n".join(lines(seen)))


def lines(seen: "Watched") -> list[str]:
    """All that is shown of a run, a line each."""
    from unilat.report.text import plus_minus, pretty

    who = f" by process {seen.process}" if seen.process else ""
    found = [f"{seen.folder}: {seen.state}{who}"]
    if not seen.stages:
        found.append("no step is logged yet")
    for stage in seen.stages:
        found += ["", progress(stage), *_numbers(stage, seen.target_bpp)]
    begun = {stage.name for stage in seen.stages}
    ahead = [STAGES[name] for name in seen.planned if name not in begun]
    if ahead and seen.state == "training":
        found += ["", f"then: {'; '.join(ahead)}; then it is measured"]
    if seen.results is not None:
        bits, psnr = seen.results.bits, seen.results.reconstruction.psnr
        wanted = f", {bits.target:g} wanted" if bits.target else ""
        measured = f"held-out bits per pixel {plus_minus(bits.value, bits.stderr)}{wanted}"
        found += ["", f"{measured}; PSNR {pretty(psnr.value)} dB"]
    return [*found, "", seen.way_out] if seen.way_out else found


def progress(stage: "StageSeen") -> str:
    """``stage 1, autoencoder   ███████░░░  70 %  step 7/10, 900 samples/s, 0:12 left``."""
    from unilat.cli.progress import duration

    share = min(1.0, stage.step / max(1, stage.steps))
    full = round(20 * share)
    parts = [f"step {stage.step}/{stage.steps}"]
    if stage.samples_per_second:
        parts.append(f"{stage.samples_per_second:.0f} samples/s")
    if stage.seconds_left:
        parts.append(f"{duration(stage.seconds_left)} left")
    return f"{STAGES.get(stage.name, stage.name):<21} {'█' * full}{'░' * (20 - full)} {share:>4.0%}  {', '.join(parts)}"


def _numbers(stage: "StageSeen", wanted: float | None) -> list[str]:
    """A line for each number of a stage: now, where it was to be, its curve, and what it is."""
    from unilat.report.text import pretty

    found = []
    for key, (name, what) in SHOWN.items():
        if key not in stage.latest:
            continue
        told = pretty(stage.latest[key], 4)
        if key == "bpp" and "target" in stage.latest:
            told += f" of {pretty(stage.latest['target'], 4)} held"
        if key == "calibration_bpp" and wanted is not None:
            told += f" of {wanted:g} wanted"
        curve = spark([value for _, value in stage.curves.get(key, ())])
        found.append(f"  {name:<15} {told:<24} {curve:<{WIDE}}  {what}".rstrip())
    return found


def brief(seen: "Watched") -> str:
    """The last stage in one line."""
    if not seen.stages:
        return f"{seen.folder}: {seen.state}, no step is logged yet"
    stage = seen.stages[-1]
    bits = f", bits {stage.latest['bpp']:.3f}" if "bpp" in stage.latest else ""
    return f"{progress(stage)}{bits}, loss {stage.latest.get('loss', float('nan')):.4g}"


def spark(values: list[float]) -> str:
    """A curve of block characters, the lowest value the lowest block; means of neighbours where there are too many."""
    if len(values) < 2:
        return ""
    size = -(-len(values) // WIDE)
    means = [sum(part) / len(part) for part in (values[at : at + size] for at in range(0, len(values), size))]
    low, high = min(means), max(means)
    spread = high - low or 1.0
    return "".join(BLOCKS[min(7, int(8 * (value - low) / spread))] for value in means)


@dataclass(frozen=True, kw_only=True)
class Ui:
    """Open a page in the browser: bits of your pictures, samples, runs side by side.

        unilat ui runs/photos
        unilat ui runs/a runs/b --port 8000
        unilat ui --data photos/

    Drop pictures on it and see what they cost, where the bits sit and what fewer bits would keep;
    every number has its protocol. A page of this machine alone, that asks nothing of any other. With
    --host others may open it who have its whole address, and with it may start and stop trainings."""

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="[RUN ...]")]] = ()
    """Run folders, also such as are being trained. The page opens these and no others."""
    data: Annotated[tuple[str, ...], arg(metavar="DATA ...")] = ()
    """Pictures that the page may train on, as for `unilat train`; `glyphs` and those of the runs it may anyway."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("runs")
    """Where runs that the page starts are written, each in a new folder."""
    port: Annotated[int, arg(metavar="PORT")] = 7860
    """Port to listen on; 0 takes a free one."""
    host: Annotated[str, arg(metavar="HOST")] = "127.0.0.1"
    """Address to listen on; another one than this machine's own opens the page to whoever reaches it."""

    def execute(self) -> None:
        """Open the page and keep it until Ctrl-C."""
        from unilat.app.server import serve
        from unilat.cli.output import Output

        with Output(False) as output:
            serve(self.runs, data=self.data, out=self.out, host=self.host, port=self.port, say=output.say)
