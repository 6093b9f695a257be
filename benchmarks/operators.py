"""Where a step's time goes: torch.profiler's table of operators, plain and ours, both stages of `small`, one thread.

    make bench-profile     writes benchmarks/profiles/stage1-plain.txt and so on, a minute

(Not called profile.py: beside scripts that start torch's compiler that name would hide a module of Python's own.)
"""

import platform
from pathlib import Path

import torch
from step_worker import ours, plain, stage_of
from torch.profiler import ProfilerActivity, profile

from unilat.training.fast import Choices, applied
from unilat.training.machine import manifest

FOLDER = Path(__file__).parent / "profiles"
WARM, STEPS = 6, 6


def table(stage_number: int, side: str) -> str:
    """The thirty operators that cost most, over ``STEPS`` steps."""
    stage, plan = stage_of({"stage": stage_number})
    with applied(stage.model, Choices(), False):
        if side == "plain":
            step = plain(stage, plan)
        else:
            moves = ours(stage, plan)

            def step() -> float:
                return next(moves)

        for _ in range(WARM):
            step()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(STEPS):
                step()
    averages = seen.key_averages()
    total = sum(one.self_cpu_time_total for one in averages) / STEPS / 1e3
    listed = averages.table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=50)
    facts = manifest()
    where = f"{facts.cpu}, torch {facts.torch}, Python {platform.python_version()}, commit {facts.commit}"
    head = f"stage {stage_number} of `small`, {side}: {total:.1f} ms a step in operators, {STEPS} steps, one thread\n"
    return f"{head}{where}\n\n{listed}"


def main() -> None:
    """Write all four."""
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for stage in (1, 2):
        for side in ("plain", "ours"):
            path = FOLDER / f"stage{stage}-{side}.txt"
            lines = [line.rstrip() for line in table(stage, side).splitlines()]
            path.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
            print(f"{path}: {lines[0]}")


if __name__ == "__main__":
    main()
