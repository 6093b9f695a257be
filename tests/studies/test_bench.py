"""What a run will cost: every figure follows from the others, and nothing is left behind."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unilat.cli import main
from unilat.recipe import presets
from unilat.recipe.build import build_autoencoder, build_base, describe
from unilat.recipe.config import latent_grid
from unilat.run.stages import schedule, settling
from unilat.studies import bench as study
from unilat.studies.bench import bench
from unilat.training.machine import peak_memory
from unilat.types import UserError

TINY = presets.get("tiny")


def test_figures_follow_from_one_another() -> None:
    """Kills: forward FLOPs told as training's, a batch told as an example, minutes of one step or of one stage."""
    config = replace(TINY, stage1=replace(TINY.stage1, settle=640))
    found = bench(config, channels=1)
    counted = describe(config, 1, 10).parts
    assert set(found.parts) == set(counted) == {"encoder", "prior", "decoder", "base"}
    for name, part in found.parts.items():
        assert part.gflops == pytest.approx(3e-9 * counted[name].forward_flops)
        assert part.share == pytest.approx(part.gflops / part.ms * 1e3 / found.matrix_gflops)
        assert part.ms > 0
    plans = {"stage1": schedule(TINY.stage1), "prior": settling(config.stage1), "stage2": schedule(TINY.stage2)}
    assert set(found.stages) == set(plans)
    for name, plan in plans.items():
        stage = found.stages[name]
        assert stage.minutes == pytest.approx(stage.ms / 6e4 * math.ceil(plan.samples / plan.batch))
        assert stage.examples_per_second == pytest.approx(plan.batch / stage.ms * 1e3)
    assert found.minutes == pytest.approx(sum(stage.minutes for stage in found.stages.values()))
    assert found.peak_mib > 50


def test_parts_that_are_not_trained_are_not_timed() -> None:
    """Kills: a base model in a run without stage 2, a prior where a normal one is not trained."""
    config = replace(
        TINY,
        autoencoder=replace(TINY.autoencoder, price="normal", learned_variance=True),
        stage1=replace(TINY.stage1, settle=640),
        stage2=replace(TINY.stage2, samples=0),
    )
    found = bench(config)
    assert set(found.parts) == {"encoder", "decoder"} and set(found.stages) == {"stage1"}


def test_what_cannot_be_trained_is_refused() -> None:
    """Kills: minutes told for a run that would not start."""
    with pytest.raises(UserError, match="`channels` must be 1"):
        bench(TINY, channels=2)
    with pytest.raises(UserError, match="for video"):
        bench(presets.get("kinetics-600"))


def test_the_command_takes_presets_files_and_runs(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: a run's channels forgotten, a size that is silently ignored, JSON beside text."""
    before = sorted(path.name for path in tiny_run.iterdir())
    assert main(["bench", str(tiny_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counted = describe(presets.get("tiny"), 1, 10).parts
    assert found["parts"]["decoder"]["gflops"] == pytest.approx(3e-9 * counted["decoder"].forward_flops)
    assert sorted(path.name for path in tiny_run.iterdir()) == before
    assert main(["bench", "tiny", "--channels", "1"]) == 0
    assert "minutes here; matrix rate" in capsys.readouterr().out
    assert main(["bench", str(tiny_run / "config.json"), "--size", "32"]) == 2
    assert "--size goes with a preset" in capsys.readouterr().err


class Clock:
    """Stands for ``time``: each reading is so much later than the one before."""

    def __init__(self, steps: list[float]):
        self.steps, self.now = iter(steps), 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        self.now += next(self.steps)
        return self.now


def test_seconds_are_the_median_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slow calls, then eight of which one stalls. Kills: a mean, warm-up steps that count, and the pause between
    two calls told as one."""
    waits = [30.0, 20.0, 10.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 90.0]
    monkeypatch.setattr(study, "time", Clock([part for wait in waits for part in (0.5, wait)]))
    assert study._seconds(lambda: None, torch.device("cpu")) == pytest.approx(3.5)


def test_a_stages_steps_are_timed_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven steps end at these times; 1,000 samples in batches of 48 are 21 of them. Kills: warm-up steps that count,
    the mean, minutes of all samples as if each were a step, part of a batch left out, and milliseconds."""
    waits = [9.0, 8.0, 7.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 90.0]
    monkeypatch.setattr(study, "time", Clock(waits))
    asked: list[Any] = []

    def fit(stage: Any, plan: Any, *rest: Any, progress: Any, stop_at: int, **options: Any) -> None:
        asked.append((stop_at, plan.samples))
        for _ in range(stop_at):
            progress(None)

    monkeypatch.setattr(study, "fit", fit)
    plan = replace(schedule(TINY.stage1), batch=48, samples=1000)
    found = study._steps(None, plan, torch.device("cpu"))  # type: ignore[arg-type]
    assert asdict(found) == pytest.approx({"ms": 3500.0, "examples_per_second": 48 / 3.5, "minutes": 21 * 3.5 / 60})
    assert asked == [(11, 48 * 12)]


def test_rates_and_parts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes half a second, a matrix product a quarter. Kills: a product counted as additions or as one of
    three, ms of a batch told as of an example, and the batch of one stage for the other's."""
    config = replace(TINY, stage1=replace(TINY.stage1, batch=20), stage2=replace(TINY.stage2, batch=50))
    channels, place = 3, torch.device("cpu")
    monkeypatch.setattr(study, "_seconds", lambda call, place: 0.25)
    assert study._matrix_rate(place, side=64) == pytest.approx(2 * 64**3 / 1e9 / 0.25)
    monkeypatch.setattr(study, "_seconds", lambda call, place: call() or 0.5)
    ae, base = build_autoencoder(config, channels), build_base(config, ["a", "b"])
    shape = (config.autoencoder.latent_channels, *latent_grid(config))
    parts = study._parts(config, ae, base, shape, channels, place)
    assert parts == pytest.approx({"encoder": 25.0, "prior": 25.0, "decoder": 25.0, "base": 10.0})
    assert all(parameter.grad is not None for name, parameter in ae.encoder.named_parameters())


def test_the_faster_of_two_matrix_rates_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a share above what the machine can do because the product was timed while it was busy, and a stage that
    trains on pictures of another colour or size."""
    rates, stages = iter((3.0, 7.0)), []
    monkeypatch.setattr(study, "_matrix_rate", lambda place: next(rates))
    monkeypatch.setattr(study, "_parts", lambda *rest: {"encoder": 2.0})

    def steps(stage: Any, plan: Any, place: Any) -> study.StageTime:
        stages.append((stage, plan))
        return study.StageTime(ms=1.0, examples_per_second=1.0, minutes=1.5 * len(stages))

    monkeypatch.setattr(study, "_steps", steps)
    found = bench(replace(TINY, stage1=replace(TINY.stage1, settle=640)), channels=3)
    flops = 3 * describe(TINY, 3, 10).parts["encoder"].forward_flops / 1e9
    assert found.matrix_gflops == 7.0
    assert asdict(found.parts["encoder"]) == pytest.approx({"ms": 2.0, "gflops": flops, "share": flops / 2e-3 / 7.0})
    assert found.minutes == pytest.approx(1.5 + 3.0 + 4.5)
    assert [plan.samples for _, plan in stages] == [TINY.stage1.samples, 640, TINY.stage2.samples]
    assert tuple(stages[0][0].batch.__self__.pictures.shape[1:]) == (3, *TINY.data.size)
    assert found.peak_mib == pytest.approx(peak_memory(), rel=0.05)
