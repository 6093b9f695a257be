"""A long run: memory, descriptors, threads and disk stay what they are."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .command import start
from .ground import Ground, Outcome, bad, ok

LENGTHS = (2_000, 20_000)
"""Steps of trial 0 and 1."""
GROWTH_MIB = 16.0
"""What memory may grow by between a tenth of the run and its end."""


def _watching(run: Path, note: Path, steps: int) -> Callable[[], None]:
    """Writes down what the process holds after a tenth of the steps of stage 2 and a little before their end."""

    def plant() -> None:
        from unilat.training import engine

        inner = engine.Step

        def watched(**fields: Any) -> Any:
            if fields["stage"] == "stage2" and fields["step"] in (steps // 10, steps - 3):
                held = {
                    "MiB": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
                    "descriptors": len(os.listdir("/proc/self/fd")),
                    "threads": len(os.listdir("/proc/self/task")),
                    "files": sum(len(files) for _, _, files in os.walk(run / "stage2")),
                }
                with note.open("a") as file:
                    file.write(json.dumps(held) + "\n")
            return inner(**fields)

        engine.Step = watched  # pyright: ignore[reportAttributeAccessIssue]

    return plant


def flat(ground: Ground, seed: int, folder: Path) -> Outcome:
    """Thousands of steps of stage 2, saved every 51."""
    steps, note = LENGTHS[seed], folder.with_suffix(".held")
    words = ground.words(folder, "--stage2.samples", str(8 * steps), "--stage2.batch", "8")
    words[words.index("--save-every") + 1] = "51"
    ended = start(words, folder.with_suffix(".txt"), _watching(folder, note, steps)).wait(most=3600)
    if ended.bad or ended.code:
        return bad(f"{steps} steps: {ended.bad or ended.line}")
    early, late = map(json.loads, note.read_text().splitlines())
    seen = f"{steps} steps, after a tenth {early}, at the end {late}"
    same = all(early[name] == late[name] for name in ("descriptors", "threads", "files"))
    return ok(seen) if same and late["MiB"] < early["MiB"] + GROWTH_MIB else bad(seen)
