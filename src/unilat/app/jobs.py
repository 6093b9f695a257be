"""Trainings that the page starts: the command line in a process of its own, one at a time, stopped as by a signal."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import unilat
from unilat.signals import CATALOGUE
from unilat.types import UserError

SIZES = ("16", "32", "64")
LENGTHS = {"a try": 2_000, "short": 10_000, "longer": 40_000}
"""Pictures that each stage sees, by name."""
SAID = 40
"""Lines of the process that are kept."""
PATIENCE = 30.0
"""Seconds for a training to save itself before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be trained; every choice is one of the page's own."""

    data: str
    bpp: float
    size: str
    length: str
    seed: int


class Jobs:
    """The training of the page, and what it may be trained on."""

    def __init__(self, data: Sequence[str], out: Path):
        self.data, self.out = list(dict.fromkeys(data)), out
        self.folder: Path | None = None
        self.said: deque[str] = deque(maxlen=SAID)
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether a training goes on."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """How the last training ended: 0 done, 143 stopped; None while it goes on, and before there is one."""
        return None if self._process is None else self._process.poll()

    def words(self, order: Order, folder: Path) -> list[str]:
        """The command of an order, as somebody would type it after ``unilat``; UserError for what is no choice."""
        if order.data not in self.data:
            raise UserError("these pictures were not named when the page was opened: choose one of the list")
        if order.size not in SIZES or order.length not in LENGTHS:
            raise UserError("the size and the length are of the page's lists")
        samples = str(LENGTHS[order.length])
        words = ["train", order.data, "--bpp", f"{order.bpp:g}", "--size", order.size, "--seed", str(order.seed)]
        words += ["--preset", "tiny"] if order.size == "16" else []
        words += ["--stage1.samples", samples, "--stage2.samples", samples]
        words += ["--evaluation.pictures", "64", "--evaluation.samples", "64", "--evaluation.features", "none"]
        return [*words, "--evaluation.classifier-samples", "0", "--out", str(folder)]

    def start(self, order: Order) -> Path:
        """Train in a new folder and return it; UserError while another training goes on."""
        if self.running:
            raise UserError(f"{self.folder} is being trained: stop it first")
        taken = {path.name for path in self.out.iterdir()} if self.out.is_dir() else set[str]()
        folder = self.out / next(name for number in range(1, 10**6) if (name := f"page-{number}") not in taken)
        command = [sys.executable, "-m", "unilat", *self.words(order, folder)]
        source = str(Path(unilat.__file__).parents[1])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
        self.said.clear()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        self.folder = folder
        return folder

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.said.append(line.rstrip())

    def stop(self) -> None:
        """Ask the training to save and end, and wait until it has."""
        process = self._process
        if process is None or process.poll() is not None:
            raise UserError("nothing is being trained by this page")
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def choices(named: Sequence[str], of_runs: Sequence[str]) -> list[str]:
    """What the page may train on: what was named, the runs' pictures, and the set that needs no download."""
    return list(dict.fromkeys([*named, *(one for one in of_runs if one in CATALOGUE or Path(one).exists()), "glyphs"]))
