"""The arithmetic of ``benchmarks/defaults.py``: budgets, parts, halving and errors, by hand."""

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmark_samples import found, opener, says
from unilat.recipe import config as configuration
from unilat.recipe import presets
from unilat.recipe.build import describe
from unilat.results import Phase
from unilat.run.folder import RunFolder


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The study on an empty folder, with steps of 10, 2 and 4 ms."""
    script = opener(monkeypatch, tmp_path)("defaults")
    monkeypatch.setattr(script, "timed", script.steps, raising=False)
    monkeypatch.setattr(script, "steps", lambda where, candidate: script.Triple(0.01, 0.002, 0.004))
    return script


@pytest.fixture
def cells(study: Any) -> Any:
    """The module of its cells."""
    import defaults_cells

    return defaults_cells


def test_examples_of_each_part_cost_its_share_of_the_seconds(cells: Any) -> None:
    """60 s as 50:20:30 at 10, 2 and 4 ms: 30, 12 and 18 s. Kills: shares of examples, shares that are not divided by
    their sum, one part's cost for another's."""
    seen = cells.lengths(60.0, cells.Triple(0.01, 0.002, 0.004), cells.Triple(100, 40, 60))
    assert asdict(seen) == pytest.approx({"stage1": 3000, "settle": 6000, "stage2": 4500})


def test_steps_are_timed_in_turn_and_the_least_is_kept(study: Any, cells: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three candidates in three turns, each turn slower or faster by what else goes on; asked again, nothing is timed.
    Kills: one candidate's turns after another's, the last or the mean of them, another candidate's seconds."""
    calls: list[int] = []

    def seconds_of(config: Any, channels: int) -> Any:
        assert channels == 3
        calls.append(
            config.base.vit.tokens(configuration.latent_grid(config)) * 10 + config.autoencoder.latent_channels
        )
        turn = (len(calls) - 1) // 3
        return cells.Triple(calls[-1] + (5, 0, 7)[turn], calls[-1] + (0, 5, 7)[turn], calls[-1] + (7, 5, 0)[turn])

    monkeypatch.setattr(study, "seconds_of", seconds_of)
    assert asdict(study.timed("emoji-64", study.LARGER["grid"])) == {"stage1": 168, "settle": 168, "stage2": 168}
    assert calls == [192, 168, 648] * 3
    assert study.timed("emoji-64", study.LARGER["today"]).stage1 == 192 and len(calls) == 9


def test_equal_flops_keep_the_proportions_and_spend_the_budget(cells: Any) -> None:
    """50 + 20 + 60 FLOPs for 260 wanted: twice as long. Kills: a ratio the other way up, a part left out."""
    seen = cells.at_equal_flops(cells.Triple(10, 20, 30), cells.Triple(5, 1, 2), 260)
    assert asdict(seen) == pytest.approx({"stage1": 20, "settle": 40, "stage2": 60})


def test_flops_of_an_example_times_examples_are_those_of_the_training(cells: Any) -> None:
    """Kills: colour counted as grey, the prior missing from stage 1, Muon's products left out or shared out among
    batches of another stage."""
    config = presets.get("small")
    each = cells.flops_of(config, 3)
    seen = cells.Triple(config.stage1.samples, config.stage1.settle, config.stage2.samples)
    parts = describe(config, 3).parts
    assert seen.times(each).total == pytest.approx(sum(part.training_flops for part in parts.values()))
    assert each.settle == pytest.approx(parts["prior"].training(64, 64) / 64)


def test_lengths_are_whole_batches_and_averages_shrink_with_them(cells: Any) -> None:
    """A quarter of stage 1 and a tenth of stage 2. Kills: lengths that are not whole batches, a warm-up of the long
    run, the ratio of one stage for the other's."""
    config = presets.get("small")
    short = cells.with_lengths(config, cells.Triple(9_020, 7_000, 5_060))
    assert (short.stage1.samples, short.stage1.settle, short.stage2.samples) == (8_992, 6_976, 5_056)
    one, two = 8_992 / 36_000, 5_056 / config.stage2.samples
    assert (short.stage1.warmup, short.stage1.ema_halflife) == (round(2_000 * one), round(2_000 * one))
    assert short.stage1.calibrate_every == round(3_200 * one)
    assert (short.stage2.warmup, short.stage2.ema_halflife) == (round(4_000 * two), round(5_000 * two))


def test_validation_and_test_share_no_picture(cells: Any) -> None:
    """Kills: parts that overlap, of unequal size, or other ones in another cell."""
    parts = cells.parts_of(11)
    validation, test = (set(parts[name].tolist()) for name in cells.PARTS)
    assert len(validation) == len(test) == 5 and not validation & test and validation | test <= set(range(11))
    assert parts["test"].equal(cells.parts_of(11)["test"]) and validation != set(range(5))


def measured(
    cells: Any, generation: float, psnr: float = 20.0, reconstruction: float = 0.5, error: float = 0.03
) -> Any:
    """A cell's worth; no two errors are alike."""
    return cells.Measured(0.21, 0.2, psnr, 2 * error, reconstruction, 3 * error, generation, error)


def test_the_worse_half_goes_today_stays(cells: Any) -> None:
    """Over two sets a stands at √(0.2·0.8) = 0.4, b at 0.5, c at 0.45 with a decibel lost on one. Kills: a mean of
    distances (which would prefer c), the worse half, a control that goes, a loss that is not seen on one set."""
    of = lambda first, second, psnr=20.0: {"x": measured(cells, first), "y": measured(cells, second, psnr)}  # noqa: E731
    table = {"today": of(0.9, 0.9), "b": of(0.5, 0.5), "c": of(0.45, 0.45, 19.0), "a": of(0.2, 0.8)}
    assert cells.halved(table, "today") == ["a", "b", "today"]
    assert cells.halved({**table, "c": of(0.45, 0.45, 19.1)}, "today") == ["a", "c", "today"]
    assert cells.halved({"today": of(0.1, 0.1), "b": of(0.5, 0.5), "a": of(0.2, 0.8)}, "today") == ["today", "a"]
    assert cells.score({"x": measured(cells, -0.01), "y": measured(cells, 0.5)}) == -math.inf


def test_errors_of_seeds_and_of_pictures_are_combined(cells: Any) -> None:
    """Seeds 1, 2, 3 err by 1/√3, runs by √((0.3² + 0.4² + 0.5²) / 3), which more seeds of the same pictures leave.
    Kills: either left out, a jackknife divided by the seeds, a sum that is not of squares."""
    jackknife = math.sqrt((0.09 + 0.16 + 0.25) / 3)
    assert cells.combined([1.0, 2.0, 3.0], [0.3, 0.4, 0.5]) == pytest.approx(math.hypot(1 / math.sqrt(3), jackknife))
    assert cells.combined([1.0], [0.3]) == pytest.approx(0.3)


def test_candidates_cost_the_same_seconds_or_flops(study: Any, cells: Any) -> None:
    """Kills: a budget of the candidate's own FLOPs, examples in place of seconds, shares of another candidate."""
    today, grid = study.CANDIDATES["today"], study.CANDIDATES["grid"]
    cost, spent = cells.Triple(0.01, 0.002, 0.004), {}
    for name, candidate in (("today", today), ("grid", grid)):
        for rule in ("time", "flops"):
            config = study.planned("emoji", candidate, today, rule)
            seen = cells.Triple(config.stage1.samples, config.stage1.settle, config.stage2.samples)
            parts = describe(config, 3).parts.values()
            spent[name, rule] = (seen.times(cost), sum(part.training_flops for part in parts))
    ours = spent["grid", "time"][0]
    assert ours.total == pytest.approx(study.SECONDS["emoji"], rel=0.02) == spent["today", "time"][0].total
    assert ours.stage1 / ours.total == pytest.approx(0.4, rel=0.03)
    assert spent["grid", "flops"][1] == pytest.approx(spent["today", "time"][1], rel=0.02)
    before = spent["today", "time"][0]
    assert before.stage1 / before.settle == pytest.approx(36_000 * 0.01 / (160_000 * 0.002), rel=0.03)


def test_every_candidate_can_be_built_and_sets_are_not_mixed(study: Any) -> None:
    """Kills: a field that is none, a grid that does not fit, more bits than a latent holds, another size."""
    for where, table in study.SETS.items():
        configs = {name: study.configured(where, one.fields) for name, one in table.items()}
        for config in configs.values():
            configuration.check(config)
        large = where.startswith("emoji-64")
        shapes = {
            name: (one.autoencoder.latent_channels, *configuration.latent_grid(one)) for name, one in configs.items()
        }
        assert shapes["today"] == ((32, 8, 8) if large else (8, 8, 8))
        assert shapes["grid"] == ((8, 16, 16) if large else (2, 16, 16))
        assert configs["grid"].data.size == ((64, 64) if large else (32, 32))
        assert (configs["grid"].data.source == "emoji") == (study.CHANNELS[where] == 3)
        tokens = {name: one.base.vit.tokens(configuration.latent_grid(one)) for name, one in configs.items()}
        assert tokens["today"] == tokens["grid"] == 16 and tokens.get("grid-tokens", 64) == 64


def lay(
    study: Any, where: str, name: str, seed: int, validation: Any, test: Any, stage1: float, rule: str = "time"
) -> Any:
    """A finished cell."""
    cell = study.Cell(where, name, seed, rule)
    folder: Path = cell.folder
    folder.mkdir(parents=True)
    for part, worth in (("validation", validation), ("test", test)):
        folder.with_name(f"{folder.name}.{part}.json").write_text(json.dumps(asdict(worth)))
    config = {"stage1": {"samples": 96 + seed, "settle": 640}, "stage2": {"samples": 192}}
    (folder / "config.json").write_text(json.dumps(config))
    phase = asdict(Phase(name="stage 1", seconds=stage1, peak_memory_mib=1.0))
    RunFolder(folder).phases.write_text(json.dumps([phase]))
    (folder / "report.html").write_text("")
    return cell


def test_rows_tell_each_part_and_pair_the_seeds(study: Any, cells: Any) -> None:
    """Today's seeds 0 and 1, the grid's 1 and 0: paired, distances fall by 0.2 and 0.3. Kills: validation told as test,
    differences of the wrong sign or between unlike seeds, bits as a ratio."""
    worth = [measured(cells, 0.5, 20.0, 0.40), measured(cells, 0.7, 21.0, 0.44)]
    better = [measured(cells, 0.3, 22.0, 0.30), measured(cells, 0.4, 23.5, 0.30)]
    today = [lay(study, "emoji", "today", s, measured(cells, 0.9), worth[s], 30.0 + s) for s in (0, 1)]
    grid = [lay(study, "emoji", "grid", s, measured(cells, 0.8), better[s], 40.0) for s in (1, 0)]
    rows = study.told("L", today, "test")
    assert says(found(rows, "L, test: generation"), 0.6, math.hypot(0.1, 0.03), 2, None)
    assert says(found(rows, "bits measured over wanted"), 5.0, 0.0, 2, None)
    rows = study.gained("L", grid, today)
    jackknife = math.hypot(0.03, 0.03)
    assert says(found(rows, "generation distance saved"), 0.25, math.hypot(0.05, jackknife), 2, True)
    assert says(found(rows, "PSNR gained"), 2.25, math.hypot(0.25, 2 * jackknife), 2, True)
    assert says(found(rows, "reconstruction distance saved"), 0.12, math.hypot(0.02, 3 * jackknife), 2, True)
    rows = study.costs("L", today)
    assert says(found(rows, "L: stage 1"), 30.5, 0.5, 2, None)
    assert says(found(rows, "examples of settling"), 640, None, 2, None)


def test_the_first_round_is_judged_when_all_of_it_is_there(study: Any, cells: Any) -> None:
    """Eleven candidates, of which five and a half go on and today's. Kills: survivors of half a round, of the test
    part, of other seeds; rows of a test for whom it was not kept."""
    order = ["grid", "shares", *(name for name in study.CANDIDATES if name not in ("today", "grid", "shares")), "today"]
    for place, name in enumerate(order):
        for where in ("fashion", "emoji"):
            assert study.survivors() == [] and study.final() == [] and study.flops() == []
            lay(study, where, name, 0, measured(cells, 0.3 + place / 10), measured(cells, 2.9 - place / 10), 30.0)
    half = math.ceil(len(order) / 2)
    assert study.survivors() == [*order[:half], "today"]
    assert [one.name for one in study.final()[:4]] == ["grid", "grid", "today", "today"]
    assert len(study.final()) == 2 * 2 * (half + 1) and {one.seed for one in study.final()} == {1, 2}
    assert {(one.name, one.rule) for one in study.flops()} == {("grid", "flops")} and len(study.flops()) == 6
    lines = [row["what"] for row in study.rows(("fashion", "emoji"))]
    last = study.CANDIDATES[order[-2]].what
    assert any(f"{last}, validation: generation" in line for line in lines)
    assert not any(f"{last}, test" in line for line in lines)
    assert any(f"{study.CANDIDATES['grid'].what}, test: generation" in line for line in lines)


def test_at_its_own_length_the_control_is_small_itself_and_all_are_told(study: Any, cells: Any) -> None:
    """Kills: another length than the preset's, a cell of other sets among them, a candidate that is not told on the
    test part, a label that says the budget of another round."""
    for where in (*study.OWN_SETS, "emoji-64-own"):
        small = presets.get("small", size=64 if where == "emoji-64-own" else 32)
        config = study.Cell(where, "today", 2).config()
        assert config.seed == 2 and config.data.size == small.data.size
        assert config.autoencoder == small.autoencoder and config.base == small.base
        for ours, theirs in (
            (config.stage1.samples, small.stage1.samples),
            (config.stage1.settle, small.stage1.settle),
        ):
            assert ours == pytest.approx(theirs, rel=0.002)
        assert config.stage2.samples == pytest.approx(50_000, rel=0.002)
        longer = study.Cell(where, "grid", 0).config()
        spent = [10 * one.stage1.samples + 2 * one.stage1.settle + 4 * one.stage2.samples for one in (config, longer)]
        assert spent[1] == pytest.approx(spent[0], rel=0.002)
    assert len({*study.own()}) == 24 and {one.where for one in study.own()} == {*study.OWN_SETS}
    assert {one.where for one in study.own_64()} == {"emoji-64-own"} and len(study.own_64()) == 6
    assert configuration.latent_grid(study.Cell("emoji-64-own", "grid", 0).config()) == (16, 16)
    for name in ("today", "grid"):
        lay(study, "emoji-own", name, 0, measured(cells, 0.3), measured(cells, 0.4), 30.0)
    lines = [row["what"] for row in study.rows(study.OWN_SETS)]
    assert any(line.startswith(f"emoji, own length, equal time, {study.OWN['grid'].what}, test: ") for line in lines)
    assert study.rows(("fashion", "emoji")) == []


def test_a_longer_base_model_stands_on_the_autoencoder_of_the_shorter(study: Any, cells: Any) -> None:
    """Kills: another seed's autoencoder, one that is trained again, today's length of stage 2, a row that says equal
    time, no row of what it gains."""
    for where in study.OWN_SETS:
        kept, today = study.Cell(where, "today", 2, "base").config(), study.Cell(where, "today", 2).config()
        assert kept.stage1.autoencoder == str(study.WORK / where / "today-time-s2") and kept.seed == 2
        assert replace(kept.stage1, autoencoder=None) == today.stage1 and kept.autoencoder == today.autoencoder
        assert kept.stage2 == replace(today.stage2, samples=140_000)
    assert sum(one.rule == "base" for one in study.own()) == 6
    for rule, worth in (("time", 0.4), ("base", 0.3)):
        lay(study, "emoji-own", "today", 0, measured(cells, worth), measured(cells, worth), 30.0, rule)
    rows = [row for row in study.rows(study.OWN_SETS) if "base model of 140,000 latents instead" in row["what"]]
    assert not any("equal time" in row["what"] for row in rows)
    saved = found(rows, "over today's, test: generation distance saved")
    assert saved["value"] == pytest.approx(0.1) and saved["holds"]


def test_a_result_tells_the_commit_of_its_cells_and_mixes_none(study: Any, cells: Any) -> None:
    """Kills: today's commit for the cells', cells of another rule or seed left out, those of other sets among them."""
    assert study.commit_of(study.OWN_SETS) is None
    for where, seed, rule, commit in (("emoji", 0, "time", "cc"), ("emoji-own", 0, "time", "aa"),
                                      ("fashion-own", 2, "base", "bb")):  # fmt: skip
        one = lay(study, where, "today", seed, measured(cells, 0.3), measured(cells, 0.4), 30.0, rule)
        (one.folder / "manifest.json").write_text(json.dumps({"commit": commit}))
    assert study.commit_of(("emoji-own",)) == "aa" and study.commit_of(("fashion-own",)) == "bb"
    with pytest.raises(SystemExit, match="several commits: aa, bb"):
        study.commit_of(study.OWN_SETS)


def test_a_candidate_keeps_its_own_evaluation_small(study: Any) -> None:
    """Kills: a cell that measures what is measured again, and a class guidance that is not the preset's."""
    config = study.configured("fashion", {})
    assert (
        config.evaluation.features == "none" and config.evaluation.guidance == presets.get("small").evaluation.guidance
    )
    assert replace(config, seed=1).autoencoder == presets.get("small").autoencoder


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], "make bench-defaults"),
        (["report"], "make bench-defaults ARGS=report"),
        (["first", "report"], 'make bench-defaults ARGS="first report"'),
        (["--only", "grid,shares", "--jobs", "2"], 'make bench-defaults ARGS="--only grid,shares --jobs 2"'),
        (["own", "report"], 'make bench-defaults ARGS="own report"'),
        (["larger", "report"], 'make bench-defaults ARGS="larger report"'),
        (["own-64", "report"], 'make bench-defaults ARGS="own-64 report"'),
    ],
)
def test_the_result_names_the_command_that_made_it(
    study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], command: str
) -> None:
    """Kills: one word left out, all of them where none was given, words that make does not hand on."""
    common = sys.modules["common"]
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common, "machine", lambda *_: {"cpu": "one"})
    monkeypatch.setattr(study, "CANDIDATES", dict(study.CANDIDATES))
    made: list[Any] = []
    monkeypatch.setattr(study, "run", lambda cells, jobs: made.extend(cells))
    monkeypatch.setattr(study, "rows", lambda sets: [common.row(where, 1, "") for where in sets])
    monkeypatch.setattr(sys, "argv", ["defaults.py", *words])
    study.main()
    name, told = {
        "own": ("defaults_own", {"fashion-own", "emoji-own"}),
        "larger": ("defaults_64", {"emoji-64"}),
        "own-64": ("defaults_64_own", {"emoji-64-own"}),
    }.get(words[0] if words else "", ("defaults", {"fashion", "emoji", "emoji-64"}))
    result = json.loads((tmp_path / "results" / f"{name}.json").read_text("utf-8"))
    assert result["command"] == command
    assert f"`{command}`" in (tmp_path / "results" / f"{name}.md").read_text("utf-8")
    assert {row["what"] for row in result["rows"]} == told
    assert {one.where for one in made} <= told
