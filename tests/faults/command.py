"""`unilat WORDS` in a process of its own, forked from one that has imported everything: in a second, not in six."""

import contextlib
import functools
import importlib
import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 30.0
"""Seconds without any work done after which a command counts as hung."""
MOST = 120.0
"""Seconds of work after which it does, too."""

COMMANDS = ("cli.configure", "cli.output", "cli.pictures", "cli.progress", "report.page", "run.begin")
"""What commands import when they begin."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; minus the signal that killed it."""
    said: str
    """Standard output and error together."""
    steps: int
    """Training steps done."""
    hung: bool = False
    orphans: int = 0
    """Processes that it left behind."""
    work: float = 0.0
    """Seconds of processor time."""

    @property
    def line(self) -> str:
        """The line that tells the error, else the last one."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")

    @property
    def bad(self) -> str:
        """What no command may do, whatever the fault; nothing: it did none of it."""
        if self.hung:
            return "hung"
        if self.orphans:
            return f"{self.orphans} orphans"
        if "Traceback (most recent call last)" in self.said:
            return "traceback: " + self.said.splitlines()[-1]
        if "UNILAT_TRACEBACK" in self.said:
            return "an error without a way out: " + self.line
        return ""


def prepare() -> None:
    """Import what commands import, so that children need not; describing a configuration is remembered."""
    import torch
    from PIL import Image

    import unilat.recipe.build as build
    import unilat.run.evaluate as evaluation
    import unilat.run.train as job

    for name in ("matplotlib.pyplot", "torch._dynamo", "torch.utils.data", *(f"unilat.{one}" for one in COMMANDS)):
        importlib.import_module(name)
    Image.init()
    torch.set_num_threads(1)
    job.describe = evaluation.describe = build.describe = functools.cache(build.describe)


def describe_once(words: Sequence[str]) -> None:
    """Count the operations of a configuration here, once for all children."""
    from unilat.cli.configure import parse_train
    from unilat.run import train as job

    settings = parse_train([*words, "--out", "nowhere"]).settings
    for counts in ((1,), (1, 2), (3,), (3, 2)):
        job.describe(settings, *counts)


@dataclass
class Child:
    """A command that runs."""

    pid: int
    out: Path
    counter: mmap.mmap

    def work(self) -> float:
        """Seconds of processor time so far, of its main thread to the microsecond."""
        try:
            main = int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            return 0.0
        return max(main, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))

    @property
    def steps(self) -> int:
        return struct.unpack("q", self.counter[:8])[0]

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(
        self, when: Callable[["Child"], bool] | None = None, number: int = signal.SIGKILL, most: float = MOST
    ) -> Ended:
        """Its end; ``number`` is sent as soon as ``when`` holds. ``most``: seconds of work that it may take."""
        moved, worked, hung, work = time.monotonic(), 0.0, False, 0.0
        while True:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                work = used.ru_utime + used.ru_stime
                break
            now = self.work()
            if now > worked + 0.005:
                moved, worked = time.monotonic(), now
            if when is not None and when(self):
                self.send(number)
                when = None
            if time.monotonic() - moved > PATIENCE or worked > most:
                hung = True
                self.send(signal.SIGKILL)
            time.sleep(0.002)
        orphans = self._orphans()
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, self.out.read_text(errors="replace"), self.steps, hung, orphans, work)

    def _orphans(self) -> int:
        """Processes of its session that are still there after two seconds; they are ended."""
        for _ in range(100):
            left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.pid]
            if not left:
                return 0
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(left)


def _session(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return -1
    return int(fields[3]) if fields[0] != "Z" else -1


def start(words: Sequence[str], out: Path, plant: Callable[[], Any] | None = None) -> Child:
    """Begin ``unilat WORDS``; ``plant`` is called in the process first. ``out``: the file of what it says."""
    return forked(lambda counter: _main(words, counter, plant), out)


def forked(body: Callable[[mmap.mmap], int], out: Path) -> Child:
    """A process of its own session that runs ``body`` and exits with its code."""
    counter = mmap.mmap(-1, 8)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, out, counter)
    code = 1
    try:
        os.setsid()
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = body(counter)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(words: Sequence[str], counter: mmap.mmap, plant: Callable[[], Any] | None) -> int:
    from unilat.cli import main
    from unilat.training import engine

    record = engine.Step

    def counted(**fields: Any) -> Any:
        counter[:8] = struct.pack("q", struct.unpack("q", counter[:8])[0] + 1)
        return record(**fields)

    engine.Step = counted  # pyright: ignore[reportAttributeAccessIssue]
    if plant is not None:
        plant()
    code = main(list(words))
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    return code


def run(
    words: Sequence[str],
    out: Path,
    plant: Callable[[], Any] | None = None,
    when: Callable[[Child], bool] | None = None,
    number: int = signal.SIGKILL,
) -> Ended:
    """:func:`start` and wait."""
    return start(words, out, plant).wait(when, number)
