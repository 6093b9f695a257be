"""A step today beside the same step of 25 November 2026, when `make bench-step` was first kept.

    python benchmarks/step_before.py     two minutes of a quiet core; needs git's history

As in `benchmarks/step.py`: one thread, one process a side, five steps warm up, then blocks of three steps in the order
A B B A between matrix products that may move by 10 %. Then: commit BEFORE, its own sources and its own worker. Both
take random pictures and the settings of `small`, in stage 1 with AdamW and fixed noise levels.
"""

from pathlib import Path

from common import ROOT, Rows, checked_out, row, write
from step import pair, told

WORK = ROOT / "runs" / "bench-step-before"
BEFORE = "8b013ae68686012af49785444c37647b1e30bcd2"
BLOCKS = 20


def rows(place: Path, blocks: int) -> Rows:
    """Then over now, both stages, and the seconds of both."""
    old = {"worker": str(place / "benchmarks" / "step_worker.py"), "environment": {"PYTHONPATH": str(place / "src")}}
    found: Rows = []
    for stage in (1, 2):
        spec = {"side": "ours", "stage": stage}
        ratios, then, now = pair({**spec, **old}, spec, blocks)
        found += told(f"stage {stage} of `small`: a step of 25 November / today's", ratios, goal=0.98, at_least=True)
        apart = max(abs(a / b - 1) for a, b in zip(then.warm["losses"], now.warm["losses"], strict=True))
        found += [row(f"stage {stage}: largest difference of the losses in 5 steps", apart, "of them")]
    return found


def main() -> None:
    """Measure and write."""
    WORK.mkdir(parents=True, exist_ok=True)
    protocol = " ".join((__doc__ or "").split("\n\n")[-1].split())
    path = write(
        "step_before",
        protocol,
        rows(checked_out(WORK / "tree", BEFORE), BLOCKS),
        command="python benchmarks/step_before.py",
    )
    print(path.with_suffix(".md").read_text("utf-8"))


if __name__ == "__main__":
    main()
