"""The log by hand: what a resumed stage drops, and what numbers become."""

import json
import math
from pathlib import Path

from unilat.training.journal import Journal


def test_a_stage_is_rewound_and_others_are_left(tmp_path: Path) -> None:
    """Kills: the line of the checkpoint's own step lost, another stage's lines lost, a torn line kept."""
    path = tmp_path / "log.jsonl"
    rows = [{"stage": name, "step": step} for name in ("stage1", "stage2") for step in (3, 6, 9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "stage1", "step": 1}')
    journal = Journal(path, "stage2", 6)
    journal.write({"stage": "stage2", "step": 7})
    journal.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*rows[:5], {"stage": "stage2", "step": 7}]


def test_numbers_are_written_whole_and_what_is_none_is_null(tmp_path: Path) -> None:
    """Kills: digits lost on the way to the report, and a NaN that is told as nought."""
    journal = Journal(tmp_path / "log.jsonl", "stage1", 0)
    journal.write({"stage": "stage1", "step": 1, "bpp": 0.1234567891234, "loss": math.nan, "norm": math.inf})
    journal.close()
    told = json.loads((tmp_path / "log.jsonl").read_text())
    assert told == {"stage": "stage1", "step": 1, "bpp": 0.1234567891234, "loss": None, "norm": None}
