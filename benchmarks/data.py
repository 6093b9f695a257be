"""``make bench-data``: does reading from disk keep up with decoding, and does its memory stay flat?

Cheap pictures of 64 x 64 are made on the spot (``data_sets.py``), and every figure is taken in a process of its own
(``data_worker.py``). Each part leaves its rows in runs/bench-data/PART.json; name parts to measure those anew.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import ROOT, Rows, gather, row
from data_sets import WORK, made

LARGE, SMALL = 200_000, 20_000
SPEED = 20_000  # pictures of the comparison of sources
WORKERS = (0, 1, 4)
MEMORY = ("folder", "shards")
FORMATS = ("folder", "shards", "parquet", "saved", "npy")
GROWTH, FIRST_ROWS, STEP, NOTICED = 5.0, 2.0, 1.05, 30.0
PROTOCOL = (
    "Pictures of 64 x 64 in colour, PNG files of about 1.2 kB, no two alike, in ten classes; one thread a process;"
    " files lie in the page cache; other people's jobs ran on the machine, so that only what was measured"
    " side by side compares. Pictures a second: batches of 64 in training's order for 6 s through torch's DataLoader;"
    " decoding alone (`decode` on bytes in memory) is measured before and after each source, and the ratio is to the"
    " mean of both. Index and first rows: open_source without an index, and to 64 rows with one, no imports. Memory"
    " after reading: VmRSS when every picture was read once in training's order. Memory while training: the largest"
    " VmRSS between steps 11 and 40 of stage 1 of `small`, batches of 32 through one worker, and VmHWM from the"
    " process's start to its end, with opening, splitting and training in it; each the mean of two processes, measured"
    " A B C D E E D C B A over sets and sizes. Growth: from 20,000 to 200,000 pictures. A step: the median over steps"
    " 11 to 40, streamed by one worker and from memory, of the same processes. Resumed: 6 steps stopped after 3,"
    " against 6 steps at once without workers. Noticed: from SIGKILL or SIGSTOP to one of two workers to the line that"
    " says so."
)


def apart(what: str, path: Path, **options: object) -> dict[str, Any]:
    """``data_worker.MEASURES[what](path, **options)`` in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    environment["UNILAT_CACHE"] = str(WORK / "cache")
    words = [sys.executable, str(Path(__file__).with_name("data_worker.py")), what, str(path), json.dumps(options)]
    ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{what} of {path} ended with {ended.returncode}")
    return json.loads(ended.stdout.splitlines()[-1])


def anew() -> None:
    """Forget every index: the time to make one is measured."""
    shutil.rmtree(WORK / "cache", ignore_errors=True)


def mean(values: list[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def speed_rows() -> Rows:
    """Pictures a second by source and workers, beside decoding alone before and after."""
    plain = made("folder", SPEED)
    before = apart("decoding", plain)
    rows = [row("mean size of a picture's file", before["bytes"], "bytes")]
    rows.append(row("in memory, 0 workers", apart("speed", plain, workers=0, budget=1 << 34)["rate"], "pictures/s"))
    alone = [before["rate"]]
    for name in FORMATS:
        path = made(name, SPEED)
        apart("first_rows", path)  # there is an index from here on
        for workers in WORKERS:
            rate = apart("speed", path, workers=workers)["rate"]
            rows.append(row(f"{name}, {workers} workers", rate, "pictures/s"))
            if workers == 0:
                alone.append(apart("decoding", plain)["rate"])
                if name != "npy":  # an array needs no decoding
                    ratio = rate / mean(alone[-2:])
                    rows.append(row(f"{name}, 0 workers / decoding alone", ratio, "ratio"))
    return [row("decoding alone, one process", mean(alone), "pictures/s", n=len(alone)), *rows]


def _opened(name: str, count: int) -> Rows:
    """Index and first rows of one set."""
    path = made(name, count)
    took = apart("index", path)
    assert took["count"] == count
    first = apart("first_rows", path)["seconds"]
    return [
        row(f"{name}, {count:,}: index made", took["seconds"], "s", n=count),
        row(f"{name}, {count:,}: first rows of an indexed set", first, "s", n=count, goal=FIRST_ROWS),
    ]


def memory_rows() -> Rows:
    """Index time, first rows, and memory of reading through both sizes, by source."""
    anew()
    rows: Rows = []
    for name in MEMORY:
        read: dict[int, float] = {}
        for count in (SMALL, LARGE):
            rows += _opened(name, count)
            found = apart("memory", made(name, count))
            read[count] = found["read"]["VmRSS"]
            opened = found["opened"]["VmRSS"]
            rows.append(row(f"{name}, {count:,}: resident memory after opening", opened, "MiB", n=count))
            rows.append(row(f"{name}, {count:,}: resident memory after reading all", read[count], "MiB", n=count))
            anonymous = found["read"]["RssAnon"]
            rows.append(row(f"{name}, {count:,}: of it no file's", anonymous, "MiB", n=count))
        growth = 100.0 * (read[LARGE] / read[SMALL] - 1.0)
        rows.append(row(f"{name}: growth of memory with ten times the pictures", growth, "%", goal=GROWTH))
    return rows


def training_rows() -> Rows:
    """Memory of the training process through both sizes, and a step on streams beside one in memory."""
    cases = [("memory", SMALL), *((name, count) for count in (SMALL, LARGE) for name in MEMORY)]
    for name, count in cases[1:]:
        apart("first_rows", made(name, count))  # there is an index from here on
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    for name, count in [*cases, *reversed(cases)]:
        options = {"workers": 0, "budget": 1 << 40} if name == "memory" else {}
        found[name, count].append(apart("training", made("folder" if name == "memory" else name, count), **options))
    value = {
        (name, count, what): mean([one[what] for one in runs])
        for (name, count), runs in found.items()
        for what in ("between", "peak", "step")
    }
    rows: Rows = []
    for name in MEMORY:
        for what, words in (("between", "memory while training"), ("peak", "peak memory from start to end")):
            for count in (SMALL, LARGE):
                rows.append(row(f"{name}, {count:,}: {words}", value[name, count, what], "MiB", n=count))
            growth = 100.0 * (value[name, LARGE, what] / value[name, SMALL, what] - 1.0)
            rows.append(row(f"{name}: growth of {words}", growth, "%", goal=GROWTH))
    resident = value["memory", SMALL, "step"]
    rows.append(row("step from memory", resident, "s"))
    for name in MEMORY:
        ratio = value[name, SMALL, "step"] / resident
        rows.append(row(f"{name}: step streamed by one worker / from memory", ratio, "ratio", goal=STEP))
    return rows


def safety_rows() -> Rows:
    """A run that is stopped and goes on, and workers that die or hang."""
    rows: Rows = []
    for name in MEMORY:
        for workers, differ in apart("resumed", made(name, SMALL))["differ"].items():
            what = f"{name}, {workers} workers: weights that differ after a stop in the middle of an epoch"
            rows.append(row(what, differ, "numbers", goal=(0.0, 0.0)))
    for what, words in (("killed", "worker killed: told after"), ("hung", "worker hung: told after")):
        found = apart(what, made("folder", SMALL))
        print(found["line"])
        rows.append(row(words, found["seconds"], "s", goal=NOTICED))
    return rows


def large_rows() -> Rows:
    """What a user waits for with 200,000 files in one folder, in ten and in a thousand."""
    anew()
    rows: Rows = []
    for name in ("flat", "classes"):
        rows += _opened(name, LARGE)
    for name in ("flat", "folder", "classes"):
        found = apart("looked", made(name, LARGE))
        rows.append(row(f"{name}, {LARGE:,}: data look", found["seconds"], "s", n=LARGE))
        rows.append(row(f"{name}, {LARGE:,}: data look, peak memory", found["peak"], "MiB", n=LARGE))
    return rows


PARTS = {
    "speed": speed_rows,
    "memory": memory_rows,
    "training": training_rows,
    "safety": safety_rows,
    "large": large_rows,
}


if __name__ == "__main__":
    gather("data", PROTOCOL, WORK, PARTS)
