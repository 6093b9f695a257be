"""What a run will cost: every figure follows from the others, and nothing is left behind."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from unilat.cli import main
from unilat.recipe import presets
from unilat.recipe.build import describe
from unilat.run.stages import schedule, settling
from unilat.studies.bench import bench
from unilat.types import UserError

TINY = presets.get("tiny")


def test_figures_follow_from_one_another() -> None:
    """Kills: forward FLOPs told as training's, a batch told as an example, minutes of one step or of one stage."""
    config = replace(TINY, stage1=replace(TINY.stage1, settle=640))
    found = bench(config, channels=1)
    counted = describe(config, 1, 10)["parts"]
    assert set(found["parts"]) == set(counted) == {"encoder", "prior", "decoder", "base"}
    for name, part in found["parts"].items():
        assert part["gflops"] == pytest.approx(3e-9 * counted[name]["forward_flops"])
        assert part["share"] == pytest.approx(part["gflops"] / part["ms"] * 1e3 / found["matrix_gflops"])
        assert part["ms"] > 0
    plans = {"stage1": schedule(TINY.stage1), "prior": settling(config.stage1), "stage2": schedule(TINY.stage2)}
    assert set(found["stages"]) == set(plans)
    for name, plan in plans.items():
        stage = found["stages"][name]
        assert stage["minutes"] == pytest.approx(stage["ms"] / 6e4 * math.ceil(plan.samples / plan.batch))
        assert stage["examples_per_second"] == pytest.approx(plan.batch / stage["ms"] * 1e3)
    assert found["minutes"] == pytest.approx(sum(stage["minutes"] for stage in found["stages"].values()))
    assert found["peak_mib"] > 50


def test_parts_that_are_not_trained_are_not_timed() -> None:
    """Kills: a base model in a run without stage 2, a prior where a normal one is not trained."""
    config = replace(
        TINY,
        autoencoder=replace(TINY.autoencoder, price="normal", learned_variance=True),
        stage1=replace(TINY.stage1, settle=640),
        stage2=replace(TINY.stage2, samples=0),
    )
    found = bench(config)
    assert set(found["parts"]) == {"encoder", "decoder"} and set(found["stages"]) == {"stage1"}


def test_what_cannot_be_trained_is_refused() -> None:
    """Kills: minutes told for a run that would not start."""
    with pytest.raises(UserError, match="--channels must be 1"):
        bench(TINY, channels=2)
    with pytest.raises(UserError, match="for video"):
        bench(presets.get("kinetics-600"))


def test_the_command_takes_presets_files_and_runs(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a run's channels forgotten, a size that is silently ignored, JSON beside text."""
    before = sorted(path.name for path in tiny_run.iterdir())
    assert main(["bench", str(tiny_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counted = describe(presets.get("tiny"), 1, 10)["parts"]
    assert found["parts"]["decoder"]["gflops"] == pytest.approx(3e-9 * counted["decoder"]["forward_flops"])
    assert sorted(path.name for path in tiny_run.iterdir()) == before
    assert main(["bench", "tiny", "--channels", "1"]) == 0
    assert "minutes here; matrix rate" in capsys.readouterr().out
    assert main(["bench", str(tiny_run / "config.json"), "--size", "32"]) == 2
    assert "--size goes with a preset" in capsys.readouterr().err
