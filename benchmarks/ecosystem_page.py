"""The page of `unilat ui`: time until it is there, a slider's answer at 64×64, requests to other machines.

    PYTHONPATH=src python benchmarks/ecosystem_page.py

`rows` is what `make bench-ecosystem` takes. Needs Chromium and its driver for the count of requests
(``apt-get install chromium chromium-driver``); without them that row is left out.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from common import ROOT, Rows, row, unilat

WORK = ROOT / "runs" / "bench-page"
TRAIN = "train glyphs --preset small --size 64 --bpp 0.1 --stage1.samples 320 --stage1.settle 320 --stage2.samples 320"
TRAIN += (
    " --evaluation.pictures 16 --evaluation.samples 16 --evaluation.features none --evaluation.classifier-samples 0"
)
STARTS = 3
ANSWERS = 24
THREADS = 2


class Page:
    """A page that was opened by the command, and what it took."""

    def __init__(self, run: Path, log: Path):
        log.unlink(missing_ok=True)
        begun = time.perf_counter()
        self.process = unilat("ui", str(run), "--port", "0", threads=THREADS, log=log)
        while "the page is at" not in (text := log.read_text() if log.is_file() else ""):
            if self.process.poll() is not None:
                raise SystemExit(f"the page did not open: {text}")
            time.sleep(0.02)
        self.address = text.split("the page is at ")[1].split(" ")[0]
        page = urllib.request.urlopen(self.address, timeout=60).read().decode()
        self.opened, self.processor = time.perf_counter() - begun, _processor(self.process.pid)
        self.token = page.split('name="token" content="')[1].split('"')[0]
        while self.ask("runs")["runs"][0]["state"] != "ready":
            time.sleep(0.02)
        self.ready = time.perf_counter() - begun

    def ask(self, path: str, order: Any = None) -> Any:
        """What the page is told."""
        data = order if isinstance(order, bytes | None) else json.dumps(order).encode()
        request = urllib.request.Request(f"{self.address}api/{path}", data, {"X-Unilat-Token": self.token})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def close(self) -> None:
        """As Ctrl-C does."""
        self.process.terminate()
        self.process.wait()


def rows(work: Path = WORK) -> Rows:
    """The three claims, measured on this machine as it is."""
    run, log, picture = work / "run", work / "page.log", work / "picture.png"
    if not (run / "report.html").is_file():
        process = unilat(*TRAIN.split(), "--out", str(run), threads=THREADS, log=work / "train.log")
        if process.wait():
            raise SystemExit(f"training failed: {work / 'train.log'}")
    from unilat.signals import load
    from unilat.signals.kind import Image

    Image.save(load("glyphs", size=(64, 64), limit=4).images[3], picture)
    pages = []
    for _ in range(STARTS):
        pages.append(Page(run, log))
        if len(pages) < STARTS:
            pages[-1].close()
    page = pages[-1]
    try:
        dropped = page.ask("picture?run=0", picture.read_bytes())
        told = [("the slider's answer at 64×64, 1 decoder call", 1), ("the same with 8 decoder calls", 8)]
        found = [
            row(f"{what}, median", statistics.median(times), "s", goal=0.5, n=len(times))
            for what, calls in told
            for times in [_answers(page, dropped, calls)]
        ]
        outside = _outside(page.address, picture, work)
    finally:
        page.close()
    spent = [one.processor for one in pages if one.processor is not None]
    starts = [
        row(
            "from the command to the page, median",
            statistics.median(one.opened for one in pages),
            "s",
            goal=5,
            n=STARTS,
        ),
        row("processor time of it, median", statistics.median(spent) if spent else None, "s", n=len(spent)),
        row("from the command to an opened run, median", statistics.median(one.ready for one in pages), "s", n=STARTS),
    ]
    return starts + found + outside


def _processor(number: int) -> float | None:
    """Processor seconds of a process so far, where Linux tells: the clock's are others' too on a busy machine."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answers(page: Page, dropped: Any, calls: int) -> list[float]:
    """Seconds of a slider drawn over its whole length, by the clock of whoever asks."""
    times = []
    for index in range(ANSWERS):
        level = dropped["levels"][index % len(dropped["levels"])]
        begun = time.perf_counter()
        page.ask("reconstruct", {"picture": dropped["picture"], "level": level, "calls": calls, "seed": 0})
        times.append(time.perf_counter() - begun)
    return times


def _outside(address: str, picture: Path, work: Path) -> Rows:
    """Requests of a browser that looks, draws and compares, to any other address than the page's."""
    sys.path.insert(0, str(ROOT))
    from tests.app.browser import CHROMIUM, DRIVER, chromium

    if not (CHROMIUM and DRIVER):
        return []
    with chromium(work / "profile") as window:
        window.open(address)
        window.wait("return document.body.dataset.ready && !document.getElementById('drop').hidden", "the page")
        window.type("#files", str(picture))
        window.wait("return document.getElementById('numbers').textContent", "the numbers")
        window.click("#tab-make")
        window.click("#sample button.do")
        window.wait("return document.querySelectorAll('#samples img').length", "samples")
        window.click("#tab-train")
        window.wait("return document.querySelectorAll('#watched .stage').length", "curves")
        asked = window.asked()
    other = [url for url in asked if not url.startswith(address)]
    return [row("requests to other addresses, all tabs in Chromium", float(len(other)), "", goal=(0, 0), n=len(asked))]


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run(["uptime"], check=False)
    print(json.dumps(rows(), indent=2, ensure_ascii=False))
