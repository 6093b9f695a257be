"""Advice for a budget: its numbers by hand from a law that the test planted, its notes, and its command line."""

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from studies.sweeps import Made, best, grid, law, sweep
from unilat.cli import main
from unilat.cli.advice import advice_text
from unilat.recipe.build import describe
from unilat.run.trained import read_config
from unilat.studies.advice import Advice
from unilat.studies.advise import advised
from unilat.studies.points import Point
from unilat.types import UserError

EXACT = {"stderr": 1e-5}
BUDGETS = (625, 10000)
"""Latents for 2.5e12 and 4e13 FLOPs of ``32×2``."""


def points(folder: Path, runs: Sequence[Made]) -> list[Point]:
    paths = sorted(sweep(folder, runs).iterdir())
    return [run.point(path) for run, path in zip(runs, paths, strict=True)]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    """Five levels of bits, two budgets, on the law but for 0.00001."""
    return points(tmp_path_factory.mktemp("exact") / "sweep", grid(samples=BUDGETS, **EXACT))


def test_every_number_by_hand(exact: list[Point]):
    """At a budget between the swept ones. Kills: FLOPs of a run for those of a sample, a difference turned round, the
    distance at other bits, and more for fewer."""
    found = advised(exact, 1e13)
    bits, low = best(1e13), law(best(1e13), 1e13)
    assert found.chosen.bits == pytest.approx(bits, rel=0.02) and found.chosen.grid == (4, 4, 4)
    assert found.chosen.best_bits.low < found.chosen.bits < found.chosen.best_bits.high
    assert found.chosen.distance.value == pytest.approx(low, rel=0.005)
    assert found.more.bits == pytest.approx(1.1 * bits, rel=0.02)
    assert found.fewer.bits == pytest.approx(bits / 1.1, rel=0.02)
    assert found.more.distance.value == pytest.approx(law(1.1 * bits, 1e13) - low, rel=0.2)
    assert found.fewer.distance.value == pytest.approx(law(bits / 1.1, 1e13) - low, rel=0.2)
    assert 0 < found.more.distance.low <= found.more.distance.value <= found.more.distance.high
    assert found.chosen.growth.value == pytest.approx(0.25, rel=0.1)
    assert (found.samples, found.base.base, found.base.parameters) == (2500, "32×2", 4000)
    assert (found.flops, found.size, found.seed_noise) == (1e13, (16, 16), None)
    assert found.notes == (
        "base 32×2 is the only one with runs near this budget",
        "no two runs differ in their seed alone: the noise between seeds is not in the intervals",
    )


def test_more_bits_cost_where_too_many_are_forced(exact: list[Point]):
    """Where the best bits lie beyond the runs' most, those are taken and told, and a tenth fewer is worse. Kills: bits
    that no run has seen, and the edge named after its opposite."""
    found = advised(exact, 1e17)
    assert found.chosen.best_bits.value > 1.0
    assert found.chosen.bits == pytest.approx(0.8) and found.fewer.distance.value > 0 > found.more.distance.value
    assert "0.8 are the most bits of these runs and more may be better: add such runs" in found.notes
    assert "1e+17 FLOPs lie 2.5e+03 times above the nearest budget of these runs, 4e+13" in "\n".join(found.notes)
    low = advised(exact, 1e9)
    assert low.chosen.bits == pytest.approx(0.05)
    assert "0.05 are the fewest bits of these runs and fewer may be better: add such runs" in low.notes
    assert "1e+09 FLOPs lie 2.5e+03 times below the nearest budget of these runs, 2.5e+12" in "\n".join(low.notes)
    assert not any("times above" in note for note in advised(exact, 1.5e14).notes)


def test_one_budget_tells_of_itself_alone(exact: list[Point]):
    """Kills: a law without a slope in FLOPs that is drawn out, and silence about it."""
    alone = [point for point in exact if point.base_flops == 4e13]
    near = advised(alone, 5e13)
    assert near.chosen.bits == pytest.approx(best(4e13), rel=0.1)
    assert "these runs have one budget, 4e+13 FLOPs: nothing is known of others" in near.notes
    assert "ten times the FLOPs" not in advice_text(near)
    with pytest.raises(UserError, match=r"4×4×4 has runs of one budget, 4e\+13 FLOPs, and they tell nothing of 1e\+15"):
        advised(alone, 1e15)


def test_the_grid_of_the_lowest_distance_is_advised(tmp_path: Path):
    """And it is told where intervals overlap. Kills: the first grid, the highest distance, and a verdict by noise."""
    given = {"samples": BUDGETS, "bits": (0.1, 0.2, 0.4, 0.8)}
    runs = [*grid(times=1.5, **given, **EXACT), *grid(channels=8, **given, **EXACT)]
    found = advised(points(tmp_path / "apart", runs), 1e13)
    assert [one.grid for one in found.grids] == [(8, 4, 4), (4, 4, 4)] and found.chosen == found.grids[0]
    assert found.grids[1].distance.value == pytest.approx(1.5 * found.chosen.distance.value, rel=0.01)
    assert not any("told apart" in note for note in found.notes)
    runs = [*grid(times=1.01, stderr=0.01, **given), *grid(channels=8, stderr=0.01, **given)]
    found = advised(points(tmp_path / "alike", runs), 1e13)
    assert "4×4×8 cannot be told apart from 4×4×4: intervals overlap" in found.notes


def smaller(runs: Sequence[Made], times: float = 1.0) -> list[Made]:
    """The same runs of another base model at equal FLOPs."""
    return [replace(one, base="16×2", samples=4 * one.samples, times=times, stderr=times * one.stderr) for one in runs]


def test_the_better_base_model_at_equal_flops_is_advised(tmp_path: Path):
    """Kills: the larger one always, samples of the other one's cost, and a sign."""
    runs = grid(bits=(0.1, 0.2, 0.4, 0.8), samples=BUDGETS, stderr=1e-3)
    found = advised(points(tmp_path / "sweep", [*runs, *smaller(runs, 0.7)]), 1e13)
    assert (found.base.base, found.base.parameters, found.samples) == ("16×2", 1000, 10000)
    assert found.base.off == pytest.approx(math.log(0.7) / 2, rel=0.05)
    assert found.bases[1].base == "32×2" and found.bases[1].off == pytest.approx(-math.log(0.7) / 2, rel=0.05)
    assert not any("told apart" in note for note in found.notes)


@pytest.mark.parametrize(
    ("flops", "base", "other", "samples"), [(1e13, "32×2", "16×2", 2500), (6e12, "16×2", "32×2", 6000)]
)
def test_of_base_models_alike_the_one_trained_nearest_to_the_budget_is_advised(
    tmp_path: Path, flops: float, base: str, other: str, samples: int
):
    """Kills: the lowest by chance, and silence about it."""
    given = {"bits": (0.1, 0.2, 0.4, 0.8), "stderr": 1e-3}
    runs = [*grid(samples=(5000,), **given), *smaller(grid(samples=(625,), **given))]
    found = advised(points(tmp_path / "sweep", runs), flops)
    assert (found.base.base, found.samples) == (base, samples)
    assert f"base {base} cannot be told apart from {other} at equal bits and FLOPs" in found.notes


def test_other_sizes_take_bits_and_flops_a_pixel(exact: list[Point]):
    """Four times the pixels for four times the FLOPs: the same bits. Kills: bits for the whole budget, samples counted
    at the runs' own size, and silence about what is taken."""
    found = advised(exact, 4e13, (32, 32))
    assert found.chosen.bits == advised(exact, 1e13).chosen.bits
    config = read_config(exact[0].folder)
    large = replace(config, data=replace(config.data, size=(32, 32)))
    times = describe(large).parts["base"].forward_flops / describe(config).parts["base"].forward_flops
    assert found.samples == pytest.approx(4e13 / (4e9 * times), abs=1)
    assert "these runs are of 16 pixels and tell nothing of 32" in found.notes[-1]
    assert "4 times the pixels need as many times the FLOPs" in found.notes[-1]
    assert "--size 32" in found.command
    with pytest.raises(UserError, match="`pixels` 16 or 20"):
        advised(exact, 4e13, (17, 17))


def test_different_autoencoders_are_told(exact: list[Point]):
    """Kills: runs of a short stage 1 among others without a word."""
    told = "autoencoders of this grid were trained at different cost, which the law takes for the same"
    other = [replace(exact[0], autoencoder_flops=2e15), *exact[1:]]
    assert told in advised(other, 1e13).notes and told not in advised(exact, 1e13).notes


def test_the_text_says_what_the_object_holds(exact: list[Point]):
    """Kills: a number of another field, an interval turned round, a sign that is lost."""
    found: Advice = replace(advised(exact, 1e13), left_out=("runs/a is left out: so",))
    first = found.chosen
    text = advice_text(found)

    def span(one: object) -> str:
        return "{value:.3g} ({low:.3g} to {high:.3g})".format(**vars(one))

    for line in (
        "for 1e+13 FLOPs of training the base model on letters of 16 pixels:",
        f"take {first.bits:.3g} bits per pixel, latents of 4×4×4 and base 32×2 of 4,000 parameters, trained on 2,500 l",
        f"expect a generation distance of {span(first.distance)}",
        f"a tenth more bits ({found.more.bits:.3g}) change it by +{found.more.distance.value:.2g} (+",
        f"a tenth fewer ({found.fewer.bits:.3g}) change it by +{found.fewer.distance.value:.2g} (+",
        f"ten times the FLOPs take {10**first.growth.value:.3g} ({10**first.growth.low:.3g} to",
        "note: base 32×2 is the only one",
        "runs/a is left out: so",
    ):
        assert line in text, line
    row = " ".join(next(line for line in text.splitlines() if line.startswith("4×4×4 ")).split())
    assert row == f"4×4×4 {span(first.best_bits)} {span(first.distance)} 10 0.05 to 0.8 2.5e+12 to 4e+13"
    assert text.splitlines()[-1] == found.command


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Text and JSON of runs in a folder, and the advised command line does what was advised. Kills: a command that
    `unilat train` refuses, bits or samples of another run, and paths that a shell takes apart."""
    monkeypatch.chdir(tmp_path)
    runs = grid(bits=(0.1, 0.2, 0.4), samples=BUDGETS, source="/there/my letters", **EXACT)
    sweep(Path("a sweep"), [*runs, Made(verdict="diverged")])
    assert main(["advise", "a sweep", "--flops", "1e13", "--pixels", "32", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["left_out"] == ["a sweep/run-006 is left out: it has diverged"]
    assert tree["size"] == [32, 32] and tree["chosen"]["grid"] == [4, 4, 4]
    words = shlex.split(tree["command"])
    assert words[:2] == ["unilat", "train"]
    assert main([*words[1:], "--dry-run", "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["stage1"]["target_bpp"] == float(f"{tree['chosen']['bits']:.3g}")
    assert config["stage2"]["samples"] == tree["samples"] and config["data"]["size"] == [32, 32]
    assert config["data"]["source"] == "/there/my letters" and config["base"]["vit"]["channels"] == [32]
    assert main(["advise", "a sweep/run-000", "a sweep/run-002", "a sweep/run-004", "--flops", "2.5e12"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("unilat train '/there/my letters' --config 'a sweep/run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "--flops", "-1"], "--flops must be a positive number of FLOPs, 1e15 for example, not -1"),
        (["sweep", "--flops", "nan"], "--flops must be a positive number"),
        (["sweep", "--flops", "1e13", "--pixels", "big"], "big"),
        (["nowhere", "--flops", "1e13"], "nowhere is no run folder, and no folder of runs"),
        (["sweep", "--flops", "1e13"], "has runs of 1 level of bits (0.2), and a law needs 3"),
    ],
)
def test_nonsense_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
):
    """Kills: a traceback, and exit code 0 of nothing."""
    monkeypatch.chdir(tmp_path)
    sweep(Path("sweep"), [Made()])
    assert main(["advise", *words]) == 2
    out, error = capsys.readouterr()
    assert not out and said in error and len(error.splitlines()) == 1


def test_errors_of_a_size_are_those_of_its_runs(exact: list[Point]):
    """Root of the sum of squares over runs, divided by their number. Kills: the error of one run."""
    found = advised(exact, 1e13).base
    shares = [1e-5 / law(point.bits.value, point.base_flops) for point in exact]
    assert found.runs == 10 and found.stderr == pytest.approx(math.hypot(*shares) / 10)
