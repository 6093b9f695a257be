"""The headline comparison: what is chosen by what, errors, work to an equal distance and its bounds, whose commit."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from measured import measured, written
from unilat.results import Phase

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """``headline.py``, its arithmetic and its judge."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("headline", "headline_rows", "headline_cell", "headline_study")
    for name in (*names, "common"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: importlib.import_module(name) for name in names}


@pytest.fixture
def rows(scripts: dict[str, ModuleType]) -> ModuleType:
    """The arithmetic."""
    return scripts["headline_rows"]


def point(rows: ModuleType, value: float, *, flops: float = 1.0, validation: float = 0.0, stderr: float = 0.0,
          label: str = "one", stage1: float = 0.0) -> Any:  # fmt: skip
    """A point of three equal seeds."""
    told = (rows.Told(value, stderr),) * 3
    return rows.Point(label, flops, stage1, (validation,) * 3, told)


def test_a_distance_is_reached_between_budgets_on_a_line_in_log_flops(rows: ModuleType) -> None:
    """Halfway down between 1 and 100 is at 10. Kills: a line in FLOPs, and a last crossing in place of the first."""
    curve = [(1.0, 0.8), (100.0, 0.6), (1000.0, 0.65), (10_000.0, 0.6)]
    assert rows.reached(0.7, curve) == (pytest.approx(10.0), 0)
    assert rows.reached(0.9, curve) == (1.0, -1) and rows.reached(0.5, curve) == (10_000.0, 1)


@pytest.mark.parametrize(
    ("wanted", "value", "bound"),
    [(0.6, 10**1.5, ""), (0.5, 10.0, "at least"), (0.75, 10**1.25, "at least"), (0.35, 1.0, "not known")],
)
def test_a_ratio_says_what_it_bounds(rows: ModuleType, wanted: float, value: float, bound: str) -> None:
    """Where the other never comes down, and where ours begins below, the ratio is told as a bound. Kills: the two sides
    exchanged, a bound told as the truth."""
    found = rows.ratio(wanted, [(1.0, 0.7), (10.0, 0.5), (100.0, 0.4)], [(10.0, 0.8), (100.0, 0.6)])
    assert found.value == pytest.approx(value) and found.bound.split(",")[0] == bound


def test_stage_1_is_added_to_both_sides(rows: ModuleType) -> None:
    """(100 + 50) / (10 + 40) = 3. Kills: stage 1 added to one side, or to the curve before it is read."""
    ours, theirs = [(1.0, 0.7), (10.0, 0.5)], [(10.0, 0.8), (100.0, 0.5)]
    assert rows.ratio(0.5, ours, theirs, (40.0, 50.0)).value == pytest.approx(3.0)


def test_errors_of_seeds_and_pictures_are_combined(rows: ModuleType) -> None:
    """Seeds 0.4 and 0.6: 0.1; jackknives 0.03 and 0.01 in square mean: √0.0005, not smaller for two seeds. Kills: one
    alone, a jackknife divided by the seeds, and a mean of errors for one of squares."""
    told = (rows.Told(0.4, 0.03), rows.Told(0.6, 0.01))
    assert rows.combined(told) == pytest.approx(math.sqrt(0.1**2 + 0.0005))
    assert rows.combined(told[:1]) == pytest.approx(0.03)


def test_what_is_chosen_is_nearest_on_the_validation_part(rows: ModuleType) -> None:
    """Kills: a choice by the test part, which is what the old comparison did."""
    far, near = point(rows, 0.9, validation=0.1, label="far"), point(rows, 0.2, validation=0.3, label="near")
    assert rows.chosen([near, far]).label == "far"


def test_work_is_compared_where_both_methods_come(rows: ModuleType) -> None:
    """The other comes to 0.5 with 100; ours, which comes to 0.4, is there at 10: 10 times, (100 + 50) / (10 + 5) = 10
    with stage 1. Kills: a ratio turned round, the distance that only one reaches, a winner told by a bound."""
    ours = [point(rows, 0.7, flops=1.0, stage1=5.0), point(rows, 0.5, flops=10.0, stage1=5.0),
            point(rows, 0.4, flops=100.0, stage1=5.0)]  # fmt: skip
    theirs = [point(rows, 0.8, flops=10.0, stage1=50.0), point(rows, 0.5, flops=100.0, stage1=50.0)]
    base, whole = rows.work_rows("set", "KL-VAE", ours, theirs, (2.0, 12.0))
    assert (base["value"], base["holds"], base["n"]) == (pytest.approx(10.0), True, 3)
    assert (whole["value"], whole["holds"]) == (pytest.approx(10.0), False)
    assert "UL needs fewer" in base["what"] and "at least" not in base["what"] and "0.5;" in base["what"]
    back, _ = rows.work_rows("set", "KL-VAE", theirs, ours, (2.0, 1.2))
    assert back["value"] == pytest.approx(0.1) and "KL-VAE needs fewer" in back["what"] and not back["holds"]


def test_a_ratio_has_the_error_of_its_curves(rows: ModuleType) -> None:
    """Distances of error 0.1 on slopes of 1 a factor e: ln of the ratio has about 0.14, so its 68 % are ± 14 % or so.
    Kills: an error without the distances', a winner where nothing is known."""

    def line(shift: float, stderr: float) -> list[Any]:
        return [point(rows, 5.0 - i, flops=math.exp(i + shift), stderr=stderr) for i in range(5)]

    base, _ = rows.work_rows("set", "KL-VAE", line(0.0, 0.1), line(1.0, 0.1), (2.0, 1.2))
    assert 0.1 < base["stderr"] / base["value"] < 0.25 and "UL needs fewer" in base["what"]
    base, _ = rows.work_rows("set", "KL-VAE", line(0.0, 0.1), line(0.1, 0.1), (2.0, 1.2))
    assert "within the error of each other" in base["what"]


def test_the_gap_of_two_points_says_who_is_nearer(rows: ModuleType) -> None:
    """Kills: a sign, one point's error alone, and a verdict within twice the error."""
    ours, theirs = point(rows, 0.4, stderr=0.03, label="a"), point(rows, 0.6, stderr=0.04, label="b")
    (row,) = rows.farther("here", ours, theirs, 0.0)
    assert (row["value"], row["stderr"], row["holds"]) == (pytest.approx(0.2), pytest.approx(0.05), True)
    assert row["what"] == "here, b less a: ours nearer"
    (row,) = rows.farther("here", theirs, ours, 0.0)
    assert row["what"].endswith("the other nearer") and not row["holds"]
    (row,) = rows.farther("here", ours, point(rows, 0.45, stderr=0.04))
    assert row["what"].endswith("within the error") and row["holds"] is None


def test_validation_and_test_part_are_apart_and_always_alike(scripts: dict[str, ModuleType]) -> None:
    """Kills: pictures that are in both, another deal for another count, and a part of another size."""
    validation, test = scripts["headline_cell"].parts(100, 30)
    assert len(validation) == len(test) == 30 and not set(validation.tolist()) & set(test.tolist())
    assert torch.equal(validation, scripts["headline_cell"].parts(100, 30)[0])
    assert [len(part) for part in scripts["headline_cell"].parts(21, 30)] == [10, 10]


def study(scripts: dict[str, ModuleType], work: Path) -> Any:
    """A study of two settings a method, on an empty folder."""
    bench = scripts["headline_study"]
    scale = bench.dataclasses.replace(bench.REHEARSAL, bits=("0.1", "0.2"), factors=("1", "9"), bias=("0",))
    return bench.Study(scale, "emoji", 3, work)


def judged(one: Any, method: str, setting: Any, budget: int, seed: int, validation: float, test: float) -> None:
    """A finished run with its autoencoder, and its cell."""
    for name in (one.autoencoder(method, setting, seed), one.base(method, setting, budget, seed)):
        written(one.work / name, measured(0.2, base_bits=0.2))
    first, second = ({"kernel": test + more, "stderr": 0.01, "precision": 0.5, "recall": 0.5} for more in (0.0, 0.25))
    told = {
        network: {"generation": numbers, "reconstruction": {**numbers, "kernel": 7.0}}
        for network, numbers in zip(one.scale.networks, (first, second), strict=True)
    }
    validated = {"1x8": {"kernel": validation, "stderr": 0.01}}
    cell = {"pictures": 9, "chosen": "1x8", "validation": validated, "test": told, "psnr": 20.0}
    (one.work / f"{one.base(method, setting, budget, seed)}.cell.json").write_text(json.dumps(cell))


def test_settings_are_searched_by_the_validation_part_one_after_another(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    """Bits 0.2 are nearer in validation and farther in test; bias 0 on top is nearer still. Kills: a search by test, a
    later choice on an earlier setting that lost, a lost first choice, bits under the last perceptual weight, bits for
    a KL weight."""
    bench = scripts["headline_study"]
    one = study(scripts, tmp_path)
    one = bench.dataclasses.replace(one, scale=bench.dataclasses.replace(one.scale, perceptual=("100", "10")))
    first, second = ((("bpp", bits), ("perceptual", "100")) for bits in ("0.1", "0.2"))
    for setting, validation, test in ((first, 0.5, 0.1), (second, 0.4, 0.9), ((*second, ("bias", "0")), 0.3, 0.95),
                                      ((*first, ("bias", "0")), 0.2, 0.95)):  # fmt: skip
        judged(one, "UL", setting, one.scale.middle, 0, validation, test)
    assert scripts["headline"].search(one, "UL", False) == (*second, ("bias", "0"))
    assert scripts["headline"].search(one, "KL-VAE", False) is None
    judged(one, "KL-VAE", weight := (("weight", "9"), ("perceptual", "100")), one.scale.middle, 0, 0.5, 0.5)
    assert scripts["headline"].search(one, "KL-VAE", False) == weight


def test_rivals_of_a_setting_are_more_bits_and_the_other_rate(scripts: dict[str, ModuleType]) -> None:
    """Kills: fewer bits for more, a stronger KL weight for a weaker, a rate that stays, a length that is lost."""
    bench = scripts["headline"]
    ours, theirs = (("bpp", "0.1"), ("lr", "1")), (("weight", "3"), ("baselr", "0.004"), ("n", "7"))
    assert bench.rivals(bench.FULL, ours) == [(("bpp", "0.2"), ("lr", "1")), (*ours, ("baselr", "0.004"))]
    weaker = (("weight", "10"), ("baselr", "0.004"), ("n", "7"))
    assert bench.rivals(bench.FULL, theirs) == [weaker, (("weight", "3"), ("n", "7"))]
    assert bench.rivals(bench.QUICK, (("bpp", "0.2"),)) == []


def test_each_budget_takes_its_own_setting(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """At the larger budget more bits are nearer in validation and farther in test. Kills: one setting for all budgets,
    a choice by the test part, a budget lost where a rival was not trained."""
    one = study(scripts, tmp_path)
    first, more = ((("bpp", bits), ("perceptual", "100")) for bits in ("0.1", "0.2"))
    for budget, setting, validation, test in ((64, first, 0.5, 0.6), (64, more, 0.6, 0.1), (192, first, 0.4, 0.3),
                                              (192, more, 0.3, 0.35)):  # fmt: skip
        for seed in one.scale.seeds:
            judged(one, "UL", setting, budget, seed, validation, test)
    found = scripts["headline"].curves(one, False)["UL"]
    assert [(point.label, point.value) for point in found] == [
        ("UL (bpp 0.1, perceptual 100)", 0.6),
        ("UL (bpp 0.2, perceptual 100)", 0.35),
    ]
    lost = scripts["headline"].missing(one)
    assert lost.startswith(" Not run: without a perceptual term; without") and "with settling" in lost
    assert "bpp 0.2" not in lost
    (tmp_path / f"{one.base('UL', more, 64, 1)}.cell.json").unlink()
    assert " Not run: UL with bpp 0.2, perceptual 100 after 64 latents; without" in scripts["headline"].missing(one)


def test_a_point_has_every_part_of_stage_1_and_the_base_apart(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Encoder 1, prior 2, decoder 4, base 8, in 1e15. Kills: the base counted with stage 1, a part left out, a point of
    some of the seeds."""
    one = study(scripts, tmp_path)
    judged(one, "KL-VAE", (("weight", "9"),), 64, 0, 0.5, 0.6)
    assert one.point("KL-VAE", (("weight", "9"),), 64, (0, 1)) is None
    found = one.point("KL-VAE", (("weight", "9"),), 64, (0,))
    assert (found.base_flops, found.stage1_flops, found.value) == (8e15, 7e15, 0.6)
    assert found.validation == (0.5,) and found.label == "KL-VAE (weight 1/9)"
    assert found.second == (scripts["headline_rows"].Told(0.85, 0.01),) and found.psnr == (20.0,)


def test_runs_are_given_what_their_names_say(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Kills: a setting that is in the name alone, a base model on another's autoencoder, a warmup longer than a run."""
    one = study(scripts, tmp_path)
    setting = (("weight", "9"), ("perceptual", "100"), ("bias", "0"))
    name = one.base("KL-VAE", setting, 600, 1)
    assert name == "emoji-kl-vae-weight9-perceptual100-s1-base600-bias0"
    words = " ".join(one._stage2("KL-VAE", setting, 600, 1))
    for part in ("--preset kl-vae --loss-factor 9 --autoencoder.perceptual 100", "--base.bias 0", "--seed 1",
                 "--stage2.samples 600 --stage2.warmup 100 --stage2.ema-halflife 60",
                 f"--stage1.autoencoder {tmp_path}/emoji-kl-vae-weight9-perceptual100-s1"):  # fmt: skip
        assert part in words
    assert "--base.bias" not in " ".join(one._stage1("KL-VAE", setting, 1))
    assert "--stage1.settle 0" in " ".join(one._stage1("UL", (("bpp", "0.1"),), 1))


def test_a_whole_study_of_invented_runs(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder to rows, every run trained once. Kills: a row without its runs, a part that is not removed,
    a long run as long as the first, a setting of one method under another's name."""
    bench, trained = scripts["headline"], list[str]()
    one = study(scripts, tmp_path)

    def train(work: Path, jobs: dict[str, Any], processes: int) -> None:
        for name, words in jobs.items():
            assert words[words.index("--data.held-out") + 1] == "0.2"  # of emoji
            if not (work / name / "metrics.json").is_file():
                trained.append(name)
                flops = 1e15 if words[words.index("--stage2.samples") + 1] == "192" else 0.0
                seconds = 30.0 if "-ul-" in name else 10.0
                phases = (Phase(name="stage 1", seconds=seconds, peak_memory_mib=1.0),)
                written(work / name, measured(0.2, base_bits=0.2, flops=flops, phases=phases))

    def judge(self: Any, name: str) -> None:
        near = 0.5 * ("-ul-" not in name) + 0.1 * ("base192" not in name) + 0.01 * ("bias0" not in name)
        near += 0.3 * ("decodermse" in name) + 0.02 * ("perceptual" in name) + 0.01 * ("settle" in name)
        numbers = {"kernel": near, "stderr": 0.001, "precision": 0.5, "recall": 0.5}
        beside = {**numbers, "kernel": 2 * near}
        told = {
            network: {"generation": one, "reconstruction": one}
            for network, one in zip(self.scale.networks, (numbers, beside), strict=True)
        }
        cell = {"pictures": 9, "chosen": "1x8", "validation": {"1x8": numbers}, "test": told, "psnr": 20.0}
        (self.work / f"{name}.cell.json").write_text(json.dumps(cell))

    monkeypatch.setattr(scripts["headline_study"], "train_at_once", train)
    monkeypatch.setattr(bench.Study, "_judge", judge)
    rows = bench.report(one, True)
    assert bench.missing(one) == ""
    assert len(trained) == len(set(trained)) and rows == bench.report(one, False)
    assert any("n288-s1-base192" in name for name in trained)  # three times 96, by seconds
    what = [row["what"] for row in rows]
    for part in ("KL-VAE, stage 1 of equal seconds", "KL-VAE, stage 1 of equal FLOPs", "equal decoders, stage 1 of"):
        assert any("FLOPs to equal distance" in text and part in text for text in what), part
    for part, gap in (("without a perceptual term", -0.02), ("without the trained prior", 0.5), ("with settling", 0.01),
                      ("without the diffusion decoder", 0.3), ("without the controller", 0.0)):  # fmt: skip
        (row,) = [row for row in rows if part in row["what"]]
        assert row["value"] == pytest.approx(gap) and row["n"] == 2, part
    assert any("alexnet-st@32, recall" in text for text in what)
    gaps = [
        row for row in rows if "equal base FLOPs" in row["what"] and "KL-VAE, stage 1 of equal FLOPs" not in row["what"]
    ]
    first, second = (
        [row["value"] for row in gaps if ("alexnet-st@32" in row["what"]) is beside] for beside in (False, True)
    )
    assert second == pytest.approx([2 * gap for gap in first]) and len(first) == 6
    points = [row for row in rows if ", UL, base model of" in row["what"]]
    assert [row["value"] for row in points if row["what"].endswith("PSNR, test part")] == [20.0, 20.0]
    ours, beside = ([row["value"] for row in points if row["what"].endswith(end)] for end in ("generation", "st@32"))
    assert beside == pytest.approx([2 * one for one in ours]) and len(ours) == 2


CHANGED = {"codelength", "decoder", "headline", "paper_tables", "saving", "step", "verify"}
"""Results of November 2026 of a changed tree (``+``), or of runs by another commit than the one that wrote them; their
pages say so. A name leaves this list when its results are made again, and none is added."""


def test_results_are_of_one_commit_and_of_an_unchanged_tree() -> None:
    """Kills: a result that nobody can make again. Those of before the rule are listed, and their pages say it."""
    wrong = set()
    for path in sorted((FOLDER / "results").glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        assert len(result["commit"]) == 40
        known = result["machine"].get("commit", result["commit"])
        if known != result["commit"]:
            wrong.add(path.stem)
            assert "tree was changed" in result["protocol"], path
            assert "tree was changed" in path.with_suffix(".md").read_text("utf-8"), path
    assert wrong <= CHANGED, "make these again from a committed tree, or take them out of the list"


def test_a_mixed_folder_is_not_written(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Kills: runs of two commits, or of a changed tree, that pass for one."""
    for name, commit in (("a", "1" * 40), ("b", "1" * 40), ("c", "2" * 40 + "+")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"commit": commit}))
    assert scripts["headline"].commits(tmp_path) == {"1" * 40, "2" * 40 + "+"}
