"""Plant faults, judge what comes of them, and write the results. See ``tests/faults/__init__.py``."""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

from . import command, crashes, damage, disks, flat, pairs, readers, told, wrong  # noqa: E402
from .ground import Ground, Outcome, bad  # noqa: E402

Trial = Callable[[Ground, int, Path], Outcome]
NAMES = told.OUTCOMES


@dataclass(frozen=True)
class Kind:
    """A kind of fault: the row of the table that it stands in, and how many trials of it are made."""

    row: str
    trial: Trial
    quick: int
    full: int


KINDS: dict[str, Kind] = {
    "kill": Kind("kill −9 at a random time", crashes.kill, 2, 300),
    "syscall": Kind("kill −9 at each system call of a save, of rotation, of overwriting", crashes.syscall, 1, 132),
    "stop": Kind("SIGTERM, SIGINT, SIGUSR1, a second signal", crashes.stop, 1, 36),
    "disk": Kind("ENOSPC, EIO, EROFS, EACCES at each call that writes", disks.disk, 1, 400),
    "full": Kind("a disk that is really full, at every size", disks.full, 1, 40),
    "gone": Kind("run folder gone", disks.gone, 1, 16),
    "truncated": Kind("checkpoint truncated", partial(damage.read, kind="truncated"), 64, 64),
    "flipped": Kind("bits of a checkpoint flipped", partial(damage.read, kind="flipped"), 40, 1000),
    "zeroed": Kind("page of a checkpoint zeroed", partial(damage.read, kind="zeroed"), 25, 100),
    "swapped": Kind("files of a checkpoint swapped", partial(damage.read, kind="swapped"), 20, 40),
    "missing": Kind("files of a checkpoint missing", partial(damage.read, kind="missing"), 5, 5),
    "damaged": Kind("the same five, trained on from", damage.train, 1, 70),
    "sealed": Kind("one bit of any other file of a finished run", damage.sealed, 1, 120),
    "mismatch": Kind("configuration that does not match", wrong.mismatch, 1, 48),
    "latents": Kind("latents that do not match", wrong.latents, 1, 40),
    "numbers": Kind("NaN, Inf, 1e30, leaps in the loss", wrong.numbers, 1, 30),
    "picture": Kind("NaN, Inf, 1e30 in one pixel", wrong.picture, 1, 12),
    "resume": Kind("resumed at each step, with 0, 1, 2, 4 workers", wrong.resume, 1, 40),
    "worker": Kind("loader worker killed or hung", wrong.worker, 1, 20),
    "pair": Kind("one of two processes killed or hung", pairs.pair, 0, 12),
    "odd": Kind("odd files against the reference table", readers.odd, 85, 85),
    "bomb": Kind("bombs of 30k × 30k", readers.bomb, 1, 8),
    "pickle": Kind("pickle payloads in every file that is read", readers.pickles, 2, 348),
    "flat": Kind("2,000 steps, then 20,000: memory, descriptors, threads, files flat", flat.flat, 0, 2),
    "two": Kind("two trainers on one folder, a stale lock", crashes.two, 1, 24),
}


def tried(ground: Ground, name: str, seed: int) -> tuple[Outcome, Path]:
    """One trial, and the folder that it left, which is gone but for BAD and SILENT ones."""
    folder = ground.work / "trials" / f"{name}-{seed}"
    folder.parent.mkdir(exist_ok=True)
    try:
        outcome = KINDS[name].trial(ground, seed, folder)
    except Exception as error:
        traceback.print_exc()
        outcome = bad(f"the trial itself failed: {type(error).__name__}: {error}")
    if outcome.name in ("OK", "CLEAN"):
        for path in folder.parent.glob(f"{name}-{seed}*"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    return outcome, folder


def order(counts: dict[str, int]) -> Iterator[tuple[str, int]]:
    """All trials, kinds side by side, so that a budget cuts each kind in the same place of its own."""
    places = [((seed + 0.5) / count, name, seed) for name, count in counts.items() for seed in range(count)]
    yield from ((name, seed) for _, name, seed in sorted(places))


def rows(counted: Counter[tuple[str, str]]) -> list[dict[str, object]]:
    """Rows of the table for ``benchmarks/common.py``, of the kinds that were tried."""
    found = list[dict[str, object]]()
    for name, kind in KINDS.items():
        counts = [counted[name, one] for one in NAMES]
        if sum(counts):
            found.append(told.of(f"{kind.row} ({sum(counts)} of {kind.full} trials)", counts, goal=0))
    return found


def logged(log: Path) -> dict[tuple[str, int], str]:
    """Outcome of each trial of a log."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    fields = [line.split(", ", 3) for line in lines]
    return {(kind, int(seed)): outcome for kind, seed, outcome, _ in fields if kind in KINDS}


def work_through(trials: Sequence[tuple[str, int]], work: Path, log: Path, until: float, loud: bool) -> None:
    """Make the trials, a line of the log each, until the clock says so."""
    ground = Ground(work)
    with log.open("a", encoding="utf-8", errors="replace") as file:
        for name, seed in trials:
            if time.monotonic() > until:
                break
            outcome, folder = tried(ground, name, seed)
            line = f"{name}, {seed}, {outcome.name}, {' '.join(outcome.seen.split())}"
            print(line, file=file, flush=True)
            if loud or outcome.name in NAMES[2:]:
                print(f"{line} ({folder})", flush=True)


def shared(trials: Sequence[tuple[str, int]], jobs: int, work: Path, log: Path, until: float, loud: bool) -> None:
    """:func:`work_through` in so many processes, of which each has every ``jobs``-th trial."""
    children = list[int]()
    for job in range(1, jobs):
        if not (child := os.fork()):
            work_through(trials[job::jobs], work / str(job), log, until, loud)
            os._exit(0)
        children.append(child)
    work_through(trials[::jobs], work / "0", log, until, loud)
    for child in children:
        os.waitpid(child, 0)


def main() -> int:
    """Run trials; exit 1 where one was BAD or SILENT."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the few trials of `make test`")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no trial after so many minutes")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the trials")
    parser.add_argument("--only", nargs="*", choices=[*KINDS], default=[*KINDS], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, help="this one trial of each kind")
    parser.add_argument("--work", type=Path, help="folder to work in; by default one that is removed")
    parser.add_argument("--log", type=Path, help="one line a trial; those that stand there are not made again")
    parser.add_argument("--rivals", type=Path, help="log of tests.faults.rivals, whose rows are written, too")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/faults.json and .md")
    options = parser.parse_args()
    begun = time.monotonic()
    work = (options.work or Path(tempfile.mkdtemp(prefix="unilat-faults-"))).resolve()
    work.mkdir(parents=True, exist_ok=True)
    log = (options.log or work / "trials.txt").resolve()
    os.environ |= {"HOME": str(work / "home"), "UNILAT_CACHE": str(work / "cache")}
    os.chdir(work)
    command.prepare()
    counts = {name: KINDS[name].quick if options.quick else KINDS[name].full for name in options.only}
    trials = [*order(counts)] if options.seed is None else [(name, options.seed) for name in options.only]
    done = logged(log) if options.seed is None else {}
    rest = [trial for trial in trials if trial not in done]
    shared(rest, options.jobs, work, log, begun + 60 * options.minutes, options.seed is not None)
    found = {trial: outcome for trial, outcome in logged(log).items() if trial in trials}
    total = Counter(found.values())
    print(", ".join(f"{total[one]} {one}" for one in NAMES), f"in {time.monotonic() - begun:.0f} s", flush=True)
    if options.write:
        told.write(rows(Counter((name, outcome) for (name, _), outcome in found.items())), options.rivals)
    failed = bool(total["BAD"] or total["SILENT"])
    if options.work is None and not failed:
        shutil.rmtree(work, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
