"""Disks that fail: errors at each call that writes, a disk that is really full, a folder that goes away."""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .ground import Ground, Outcome, bad, chance, leftovers, ok, silent, state_of
from .planted import CALLS, ERRORS, counted, failing


def _total(ground: Ground, call: str) -> int:
    """How often a run that goes on from step 3 makes a call that writes; counted once."""
    note = ground.work / f"writes-{call}"
    if not note.is_file():
        folder = ground.copy(ground.stopped(3), ground.work / f"writes-{call}-run")
        with note.open("ab", 0) as file:
            ground.train(folder, counted(folder, call, lambda: file.write(b".")))
        shutil.rmtree(folder)
    return note.stat().st_size


def disk(ground: Ground, seed: int, folder: Path) -> Outcome:
    """ENOSPC, EIO, EROFS or EACCES at one call that writes into the run folder, or at it and all after it."""
    places = [(call, turn) for call in CALLS for turn in range(1, _total(ground, call) + 1)]
    call, turn = places[(seed * 37) % len(places)]
    number, lasting = ERRORS[(seed + seed // len(places)) % 4], bool(seed // 2 % 2)
    ground.copy(ground.stopped(3), folder)
    ended = ground.train(folder, failing(folder, call, turn, number, lasting))
    found = ground.survives(folder, ended)
    where = f"{errno.errorcode[number]} at {call} {turn}{' and after' * lasting} of {len(places)} places"
    return Outcome(found.name, f"{where}: {found.seen}")


@contextlib.contextmanager
def _small_disk(place: Path, kib: int) -> Iterator[bool]:
    """A file system of so many KiB at ``place``; False where this user may not mount one."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def full(ground: Ground, seed: int, folder: Path) -> Outcome:
    """A disk with room for part of the run alone; then room is made and the run goes on."""
    need = sum(path.stat().st_blocks // 2 for path in ground.oracle.rglob("*"))
    kib = 4 * round(chance("full", seed).uniform(0.05, 1.2) * need / 4)
    with _small_disk(folder, kib) as mounted:
        if not mounted:
            return ok("no file system can be mounted here: nothing tried")
        run = folder / "run"
        ended = ground.train(run)
        seen = f"{kib} KiB: {ended.line}"
        if ended.bad:
            return bad(f"{kib} KiB: {ended.bad}")
        if ended.code == 0:
            return ok(seen) if state_of(run) == ground.state else silent(f"{seen}: exit 0, another state")
        if not ended.line.startswith("error:"):
            return bad(f"{seen}: exit {ended.code}")
        if left := leftovers(run):
            return bad(f"left behind: {left} after {seen}")
        subprocess.run(["mount", "-o", f"remount,size={16 * need}k", str(folder)], check=True)
        found = ground.goes_on(run, seen)
        return found


def gone(ground: Ground, seed: int, folder: Path) -> Outcome:
    """The run folder, or a stage's part of it, is removed or renamed while the run goes on."""
    inner = ("", "stage1")[seed % 2]
    place, away, steps = folder / inner, folder.with_suffix(".away"), 1 + seed % 8
    done = list[int]()

    def remove(child: object) -> bool:
        if not done and getattr(child, "steps", 0) >= steps:
            done.append(1)
            with contextlib.suppress(OSError):
                shutil.rmtree(place) if seed % 4 < 2 else os.rename(place, away)
        return False

    ended = ground.train(folder, when=remove)
    seen = f"{inner or 'the run folder'} {'removed' if seed % 4 < 2 else 'renamed'} after step {steps}"
    if ended.bad:
        return bad(f"{seen}: {ended.bad}")
    if ended.code == 0:
        return ok(seen) if state_of(folder) == ground.state else silent(f"{seen}: exit 0, another state")
    if not ended.line.startswith("error:"):
        return bad(f"{seen}: exit {ended.code}: {ended.line}")
    shutil.rmtree(folder, ignore_errors=True)
    if away.is_dir() and not inner:
        os.rename(away, folder)  # the user brings it back
    found = ground.goes_on(folder, ended.line)
    return Outcome(found.name, f"{seen}: {found.seen}")
