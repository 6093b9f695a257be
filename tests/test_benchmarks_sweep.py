"""Rows of `make bench-sweep`: regrets held against the noise between seeds, and rank agreements."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from studies.sweeps import Made, grid
from unilat.cli import main


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``benchmarks/sweep.py`` on an empty folder."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for name in ("sweep", "common"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("sweep")
    monkeypatch.setattr(module, "WORK", tmp_path)
    return module


def test_each_budget_is_held_out_and_held_against_the_noise(bench: ModuleType):
    """On a law there is no regret, and the goal is the noise between seeds. Kills: a goal of 0, a budget left out."""
    made = [
        Made(bits=bits, samples=samples, seed=seed, times=math.exp(0.001 * (1 if seed else -1)), stderr=1e-4)
        for bits in (0.1, 0.2, 0.4)
        for samples in (625, 2500, 10000)
        for seed in (0, 1)
    ]
    rows = bench.regrets("letters", [one.point() for one in made])
    assert [row["what"].split(":")[1].strip().split(" at ")[0] for row in rows] == [
        *["regret", "noise between seeds"] * 3,
        "mean regret over held-out budgets",
    ]
    assert [row["value"] for row in rows[::2]] == [0.0] * 4 and all(row["holds"] for row in rows[::2])
    for row, noise in zip(rows[:6:2], rows[1:6:2], strict=True):
        assert row["goal"] == noise["value"] > 0
    assert rows[-1]["goal"] == pytest.approx(sum(row["value"] for row in rows[1:6:2]) / 3)


def test_a_budget_that_cannot_be_told_is_a_row_that_misses(bench: ModuleType):
    """Kills: a held-out budget that is left out because nothing could be advised."""
    rows = bench.regrets("letters", [one.point() for one in grid(bits=(0.1, 0.2, 0.4), samples=(625, 2500))])
    assert [(row["value"], row["holds"]) for row in rows] == [(None, False)] * 2


def test_proxies_are_ranked_with_the_full_runs(bench: ModuleType):
    """A proxy of the same order has tau 1, of the reverse -1; halving that goes wrong tells what it lost. Kills: the
    halves exchanged, and distances of samples for those of reconstructions."""
    full = [one.point() for one in grid(bits=(0.1, 0.2, 0.4), samples=(2500,))]
    wrong = [Made(bits=bits, times=times).point() for bits, times in ((0.1, 1.0), (0.2, 2.0), (0.4, 9.0))]
    rows = bench.proxies("letters", full, {"half": full, "quarter": wrong, "small-autoencoder": []})
    told = {row["what"]: row for row in rows}
    assert told["letters: Kendall's tau of half of stage 2 with the full runs"]["value"] == 1.0
    assert told["letters: Kendall's tau of quarter of stage 2 with the full runs"]["value"] == -1.0
    lost = told["letters: regret of halving at a quarter and a half of stage 2, base 32×2"]
    best, second = sorted(point.generation.value for point in full)[:2]
    assert lost["value"] == pytest.approx(second - best) and lost["n"] == 3


@pytest.mark.skipif("sweep" not in importlib.import_module("unilat.cli.commands").COMMANDS, reason="no unilat sweep")
@pytest.mark.parametrize("data", ["fashion-mnist", "emoji"])
def test_its_sweeps_are_accepted(bench: ModuleType, data: str, monkeypatch: pytest.MonkeyPatch):
    """Kills: an option that `unilat sweep` does not know, an hour before it is found."""
    from unilat.cli.parse import parse

    seen = []

    def parsed(*words: str, threads: int, log: Path):
        seen.append(parse(list(words)))
        return type("Done", (), {"wait": lambda self: 0})()

    monkeypatch.setattr(bench, "unilat", parsed)
    bench.train(data)
    assert len(seen) == len(bench.SWEEPS)
    bench.train_quickly()
    assert len(seen) == len(bench.SWEEPS) + len(bench.DATA)


def test_quick_sweeps_have_a_file_of_their_own_and_no_proxies(bench: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """Kills: quick runs told as whole ones and whole ones as quick, a night's file overwritten, proxies of nothing."""
    points = {"quick": [one.point() for one in grid()], "full": []}
    monkeypatch.setattr(bench, "read", lambda data, name: points[name])
    for data in bench.DATA:
        run = bench.WORK / f"{data}-quick" / "a"
        run.mkdir(parents=True)
        (run / "manifest.json").write_text('{"commit": "0123456789abcdef"}')
        (run.parent / "sweep.json").write_text('{"cells": []}')
    monkeypatch.setattr(sys.modules["common"], "RESULTS", bench.WORK)
    path = bench.report(quick=True)
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert path.name == "sweep_quick.json" and {row["what"].split(":")[0] for row in rows} == {*bench.DATA}
    text = path.with_suffix(".md").read_text("utf-8")
    assert "commit 0123456789ab, `make bench-sweep ARGS=--quick`" in text
    with pytest.raises(SystemExit, match="no sweep under"):
        bench.report()


def test_cells_are_told_and_what_their_bases_share_once(bench: ModuleType):
    """Kills: one figure for another, an error left out, reconstructions of each base, bases of other bits."""

    def cell(bits: float, base: str, far: float):
        figures = {"psnr": 20 * bits, "reconstruction": bits, "generation": far}
        whole = {name: {"value": value, "stderr": value / 10} for name, value in figures.items()}
        return {
            "target_bpp": bits,
            "grid": "8x8x8",
            "base": base,
            "runs": ["a", "b"],
            "autoencoder_flops": 7e9,
            **whole,
        }

    rows = bench.told("letters", [cell(0.1, "tiny", 3.0), cell(0.1, "small", 2.0), cell(0.2, "tiny", 4.0)])
    told = [(row["what"].removeprefix("letters: "), row["value"], row["stderr"], row["n"]) for row in rows]
    assert told == [
        ("0.1 bits on 8x8x8: PSNR", 2.0, 0.2, 2),
        ("0.1 bits on 8x8x8: reconstruction", 0.1, 0.01, 2),
        ("0.1 bits on 8x8x8: training FLOPs of stage 1", 7e9, None, None),
        ("0.1 bits on 8x8x8, base tiny: generation", 3.0, 0.3, 2),
        ("0.1 bits on 8x8x8, base small: generation", 2.0, 0.2, 2),
        ("0.2 bits on 8x8x8: PSNR", 4.0, 0.4, 2),
        ("0.2 bits on 8x8x8: reconstruction", 0.2, 0.02, 2),
        ("0.2 bits on 8x8x8: training FLOPs of stage 1", 7e9, None, None),
        ("0.2 bits on 8x8x8, base tiny: generation", 4.0, 0.4, 2),
    ]


def test_runs_of_two_commits_are_no_one_result(bench: ModuleType):
    """Kills: a report that mixes commits, one that tells today's for the runs'."""
    for number, commit in enumerate(("aa", "aa", "bb")):
        run = bench.WORK / f"x{number}-quick" / "run"
        run.mkdir(parents=True)
        (run / "manifest.json").write_text(json.dumps({"commit": commit}))
        if commit == "aa":
            assert bench.one_commit(bench.WORK.glob("*/run")) == "aa"
    with pytest.raises(SystemExit, match="several commits"):
        bench.one_commit(bench.WORK.glob("*/run"))


def test_nothing_there_is_said(bench: ModuleType):
    """Kills: a results file of no rows."""
    with pytest.raises(SystemExit, match="no sweep under"):
        bench.report()
    assert main(["advise", str(bench.WORK), "--flops", "1e13"]) == 2
