"""Looks at a stage while it trains: when, at what, and that nothing of it is moved."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilat.training import engine
from unilat.training.records import Step

from .toy import Toy, schedule

SEED = 7


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_looks_see_the_average_and_move_nothing(tmp_path: Path) -> None:
    """After every third step and the last, without gradients; a look that draws and writes changes no bit of the run.

    Kills: live weights for averaged ones, looks at other steps, none at the last, steps told as samples, gradients
    kept, a stage that goes on in evaluation.
    """
    plain, looked, seen = Toy(), Toy(), list[tuple[Any, ...]]()

    def show(average: dict[str, Tensor], step: int, samples: int) -> None:
        seen.append((step, samples, torch.is_grad_enabled(), looked.model.training, copy.deepcopy(average)))
        torch.rand(7)

    stage = replace(looked.stage(), show=show, show_every=3)
    first = engine.fit(plain.stage(), schedule(), tmp_path / "a", SEED, log=tmp_path / "a.jsonl")
    second = engine.fit(stage, schedule(), tmp_path / "b", SEED, log=tmp_path / "b.jsonl")
    assert [entry[:4] for entry in seen] == [(step, 6 * step, False, True) for step in (3, 6, 9, 10)]
    assert same(seen[-1][4], second.ema) and not same(seen[0][4], second.ema)
    assert same(first.ema, second.ema) and same({**plain.model.state_dict()}, {**looked.model.state_dict()})
    rows = [[json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()] for name in "ab"]
    assert [{**row, "seconds": 0} for row in rows[0]] == [{**row, "seconds": 0} for row in rows[1]]


def test_records_say_which_of_them_are_logged(tmp_path: Path) -> None:
    """The steps that ``log.jsonl`` has. Kills: every step told as logged, or one beside the lines."""
    told: list[Step] = []
    engine.fit(Toy().stage(), schedule(), tmp_path / "run", SEED, log=tmp_path / "log.jsonl", progress=told.append)
    rows = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [one.step for one in told if one.logged] == rows == [1, 3, 4, 6, 8, 9, 10]
