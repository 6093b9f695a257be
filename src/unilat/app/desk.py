"""What the page computes: bits of dropped pictures, what fewer bits keep, samples; with the protocol of every number.

Runs are the folders that were named, and those that the page began. A picture is the bytes that a browser sent, read by
our own reader: its formats, its cap of pixels from the header. Nothing of a request is ever opened as a path.
"""

import base64
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unilat.app.jobs import Jobs
from unilat.report.sheets import HEAT, laid_over
from unilat.report.text import plus_minus, pretty
from unilat.run.fewer import CALLS, ERROR, LEVELS, Spent, kept, spent
from unilat.run.folder import RunFolder
from unilat.run.trained import Run, load
from unilat.run.watching import watch
from unilat.signals.decode import Unreadable, decode
from unilat.signals.pictures import with_channels
from unilat.types import UserError

REMEMBERED = 64
"""Pictures whose latents are kept; older ones are dropped again by the page."""
MOST_SAMPLES = 16
MOST_NAMED = 2000
"""Classes that the page proposes; others can be typed."""
MOST_CALLS = 64
"""Network calls that one request may ask for."""


@dataclass
class Entry:
    """A run on the page."""

    folder: Path
    run: Run | None = None
    state: Literal["loading", "ready", "training", "stopped", "damaged"] = "loading"
    why: str = ""
    """Where it is not ready: what is the matter, and the way out."""
    jobs: Jobs | None = None
    """Who began it, where the page did."""


@dataclass(frozen=True, eq=False)
class Dropped:
    """A picture that was dropped on a run."""

    run: int
    spent: Spent


@dataclass(frozen=True, kw_only=True)
class About:
    """What the page must know of a run; from ``size`` on only of one that is ready."""

    number: int
    name: str
    folder: str
    state: str
    why: str
    size: str = ""
    pixels: int = 0
    """Of one picture."""
    source: str = ""
    """What it was trained on."""
    wanted: float | None = None
    """Bits per pixel; None where a loss factor was fixed."""
    calls: tuple[int, ...] = ()
    """Numbers of decoder calls that the slider goes over."""
    decoder_steps: int = 0
    samples: bool = False
    """Whether it has a base model."""
    base_steps: int = 0
    guidance: float | None = None
    """None where there are no classes."""
    classes: tuple[str, ...] = ()
    heat: tuple[str, ...] = ()
    """Colours of the bit map, from no bits to most."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What is shown of a dropped picture; pictures are PNGs as an ``<img>`` takes them."""

    picture: int
    """Its number."""
    original: str
    map: str
    top: float
    """Bits of the dearest latent position."""
    grid: tuple[int, ...]
    converted: tuple[str, ...]
    shape: tuple[int, ...]
    """Height and width of the file."""
    bits: float
    stderr: float | None
    """Of the bits; None where they are in closed form."""
    amount: tuple[str, str]
    """Bits and bits per pixel with their standard errors, as they are read."""
    protocol: str
    levels: tuple[float, ...]
    """Log-SNR of the slider's places."""
    up_to: tuple[float, ...]
    """Bits up to each."""
    errors: tuple[float, ...]
    """Standard errors of these."""
    amounts: tuple[tuple[str, str], ...]
    """As ``amount``, of each."""
    rungs: str
    """Protocol of these."""


@dataclass(frozen=True, kw_only=True)
class Remade:
    """A dropped picture by some of its bits."""

    image: str
    psnr: float
    ssim: float
    protocol: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """New pictures."""

    images: tuple[str, ...]
    labels: tuple[str, ...]
    protocol: str
    seconds: float


class Desk:
    """The runs of the page and the pictures dropped on them; one request computes at a time."""

    def __init__(self, folders: Sequence[Path]):
        self.entries = [Entry(folder) for folder in folders]
        self._pictures: OrderedDict[int, Dropped] = OrderedDict()
        self._next, self._lock = 0, threading.Lock()

    def add(self, folder: Path, jobs: Jobs) -> int:
        """A run that the page has begun; its number."""
        self.entries.append(Entry(folder, state="training", jobs=jobs))
        return len(self.entries) - 1

    def refresh(self, index: int) -> Entry:
        """A run as it is now: opened once it can be."""
        entry = self.entry(index)
        if entry.run is None:
            with self._lock:
                if entry.run is None:
                    _open(entry)
        return entry

    def entry(self, index: int) -> Entry:
        """The run of this number; UserError for one that the page does not have."""
        if not 0 <= index < len(self.entries):
            raise UserError(f"the page has no run number {index}: load it again")
        return self.entries[index]

    def ready(self, index: int) -> Run:
        """The run of this number; UserError, with what there is and the way out, where it cannot compute yet."""
        entry = self.refresh(index)
        if entry.run is None:
            raise UserError(entry.why or f"{entry.folder} is still being opened: wait a moment")
        return entry.run

    def about(self) -> list[About]:
        """What the page must know of each run."""
        return [_about(number, self.refresh(number)) for number in range(len(self.entries))]

    def drop(self, index: int, data: bytes) -> Looked:
        """Read a picture, measure its bits and remember it."""
        run = self.ready(index)
        try:
            read = decode(data, run.config.data.size)
        except Unreadable as reason:
            raise UserError(f"this picture cannot be read: {reason}") from None
        image = torch.from_numpy(with_channels(read.pixels[None], run.kind.channels).copy())
        with self._lock:
            found = spent(run, image)
            self._next += 1
            number = self._next
            self._pictures[number] = Dropped(index, found)
            while len(self._pictures) > REMEMBERED:
                self._pictures.popitem(last=False)
        top, rungs = float(found.map.max()), zip(found.up_to.tolist(), found.errors.tolist(), strict=True)
        return Looked(
            picture=number,
            original=_png(run, image),
            map=_png(run, laid_over(image, found.map[None].clamp_min(0), top)),
            top=top,
            grid=tuple(found.map.shape),
            converted=read.converted,
            shape=tuple(read.shape),
            bits=found.bits.value,
            stderr=found.bits.stderr,
            amount=_amount(found.bits.value, found.bits.stderr, run.pixels),
            protocol=found.bits.protocol,
            levels=tuple(found.levels.tolist()),
            up_to=tuple(found.up_to.tolist()),
            errors=tuple(found.errors.tolist()),
            amounts=tuple(_amount(*one, run.pixels) for one in rungs),
            rungs=f"those up to this noise level, by {LEVELS} noise levels, seed 0; {ERROR}",
        )

    def reconstruct(self, picture: int, level: float, calls: int, seed: int) -> Remade:
        """A dropped picture by the bits up to a noise level."""
        dropped = self._pictures.get(picture)
        if dropped is None:
            raise UserError("the page has forgotten this picture: drop it again")
        run, begun = self.ready(dropped.run), time.perf_counter()
        with self._lock:
            found = kept(run, dropped.spent, level, calls, seed)
        whole = level >= run.config.autoencoder.lambda_0
        lift = "" if whole else f"; lifted from λ = {level:.2f} by {CALLS} calls of the prior"
        quality = f"PSNR {found.psnr.protocol}. SSIM {found.ssim.protocol}"
        return Remade(
            image=_png(run, found.image),
            psnr=found.psnr.value,
            ssim=found.ssim.value,
            protocol=f"{calls} decoder call{'s' * (calls != 1)}, seed {seed}{lift}. {quality}",
            seconds=time.perf_counter() - begun,
        )

    def sample(self, index: int, count: int, label: str, guidance: float | None, steps: int, seed: int) -> Drawn:
        """New pictures of a run."""
        run, begun = self.ready(index), time.perf_counter()
        with self._lock:
            made = run.sample(count, label or None, guidance, steps, seed)
        told = "" if guidance is None else f"guidance {guidance:g}, "
        return Drawn(
            images=tuple(_png(run, one.image[None]) for one in made),
            labels=tuple(one.label or "" for one in made),
            protocol=f"{told}{steps} calls of the base model and {run.decoder_steps} of the decoder, seed {seed}; "
            "picture i depends on this seed and on i alone; none was picked",
            seconds=time.perf_counter() - begun,
        )


def _open(entry: Entry) -> None:
    """Load a run, or say why it cannot be."""
    if entry.jobs is not None and not RunFolder(entry.folder).config.is_file():  # before its first file
        goes, last = entry.jobs.running, entry.jobs.said[-1] if entry.jobs.said else "it said nothing"
        entry.state = "training" if goes else "stopped"
        entry.why = f"{entry.folder} is being started" if goes else f"{entry.folder} was not begun: {last}"
        return
    try:
        seen = watch(entry.folder)
        if seen.state == "training":
            last = seen.stages[-1] if seen.stages else None
            at = f" ({last.name}, step {last.step} of {last.steps})" if last else ""
            entry.state = "training"
            entry.why = f"{entry.folder} is being trained{at}: its curves are below; the rest comes when it is done"
            return
        if RunFolder(entry.folder).autoencoder.is_file():
            entry.run = load(entry.folder)
            entry.state, entry.why = "ready", "" if seen.state == "finished" else f"{entry.folder}: {seen.way_out}"
        else:
            entry.state, entry.why = "stopped", f"{entry.folder}: {seen.way_out}"
    except UserError as error:
        entry.state, entry.why = "damaged", str(error)


def _about(number: int, entry: Entry) -> About:
    name, folder = entry.folder.resolve().name, str(entry.folder)
    found = About(number=number, name=name, folder=folder, state=entry.state, why=entry.why)
    if (run := entry.run) is None:
        return found
    how, config = run.config.evaluation, run.config
    height, width = config.data.size
    once = config.autoencoder.decoder_loss == "mse"
    return replace(
        found,
        size=f"{height} × {width}, {'grey' if run.kind.channels == 1 else 'colour'}",
        pixels=run.pixels,
        source=run.data.source,
        wanted=config.stage1.target_bpp,
        calls=(1,) if once else tuple(sorted({1, 2, 4, 8, run.decoder_steps, *how.step_counts})),
        decoder_steps=run.decoder_steps,
        samples=run.base is not None,
        base_steps=run.base_steps,
        guidance=how.guidance if run.classes else None,
        classes=tuple(name for name in run.classes if name not in run.data.untrained)[:MOST_NAMED],
        heat=tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in HEAT),
    )


def _amount(bits: float, stderr: float | None, pixels: int) -> tuple[str, str]:
    """Bits of a picture and bits per pixel, each with its standard error where there is one."""
    if stderr is None:
        return pretty(bits), pretty(bits / pixels)
    return plus_minus(bits, stderr), plus_minus(bits / pixels, stderr / pixels)


def _png(run: Run, image: Tensor) -> str:
    """One picture ``[1, C, H, W]`` for an ``<img>``."""
    return "data:image/png;base64," + base64.b64encode(run.kind.png(image[0])).decode()
