"""What an evaluation reads and writes, and what it tells of costs and of whose pictures were measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from measured import cost_of, described
from planted import BASE, CLASSES, Judge, Means, PlantedRun, measured, mislabelled, numbers, planted_config, recorded
from unilat import results
from unilat.files import read_json, write_json
from unilat.results import Phase
from unilat.run import evaluate as evaluation
from unilat.run import reference as referring
from unilat.run.evaluate import evaluate
from unilat.signals import Pictures
from unilat.types import UserError


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return mislabelled()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    return Judge().instead(monkeypatch)


def test_costs_and_protocol_are_the_runs(
    pictures: Pictures, judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: costs without the run's channels or classes, a part left out, parameters told as FLOPs, phases forgotten,
    an earlier evaluation's seconds for this one's, and a protocol that calls another source's pictures held out."""
    asked: list[Any] = []
    parts = {"decoder": cost_of(5, training_flops=70, muon_flops=9), "base": cost_of(11, training_flops=13)}
    monkeypatch.setattr(evaluation, "describe", recorded(lambda *given: described(parts), asked))
    rows = [{"name": name, "seconds": 3.5, "peak_memory_mib": 7} for name in ("stage 1", "evaluate")]
    write_json(tmp_path / "phases.json", rows)
    run = PlantedRun(planted_config(), pictures, tmp_path)
    metrics, _ = measured(run, pictures)
    assert asked[0][0] == (run.config, 3, len(CLASSES), None)
    assert metrics.costs.parameters == {"decoder": 5, "base": 11}
    assert metrics.costs.training_flops == {"decoder": 70, "base": 13} and metrics.costs.muon_flops == {"decoder": 9}
    first, last = metrics.costs.phases
    assert first == Phase(name="stage 1", seconds=3.5, peak_memory_mib=7)
    assert last.name == "evaluate" and 0 <= last.seconds < 60 and last.peak_memory_mib > 50
    assert metrics.pictures == "held out of planted, never trained on" and metrics.features == Means.protocol
    own = "elsewhere, whether the run was trained on them is not known: planted is not what it was"
    assert evaluate(run, "elsewhere").pictures == own  # type: ignore[arg-type]
    write_json(tmp_path / "phases.json", [{"name": "stage 1", "minutes": 3.5}])
    with pytest.raises(UserError, match=r"phases.json is damaged \(\[0\].seconds is missing\): delete it"):
        evaluate(run, "elsewhere")  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ["own", "distilled", "elsewhere"])
def test_which_files_the_numbers_go_to(pictures: Pictures, judge: Judge, tmp_path: Path, case: str) -> None:
    """Kills: a report's numbers overwritten by those of fast networks or of other pictures, and returned numbers that
    are not the written ones."""
    run = PlantedRun(planted_config(), pictures, tmp_path, base=BASE)
    run.distilled = case == "distilled"
    metrics, _ = measured(run, pictures, "elsewhere" if case == "elsewhere" else None)
    files = {"own": ["evaluation.safetensors", "metrics.json"], "distilled": ["metrics-fast.json"], "elsewhere": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == files[case]
    for path in tmp_path.glob("*.json"):
        assert read_json(path) == metrics.to_json() and results.read(path) == metrics


def test_without_features_no_distance_is_told(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a distance of zero, or a reconstruction row, where no network could tell one."""
    monkeypatch.setattr(referring, "feature_network", lambda spec, device: None)
    run = PlantedRun(planted_config(classifier_samples=0), pictures, tmp_path, base=BASE)
    metrics, _ = measured(run, pictures)
    assert metrics.generation is None and metrics.features is None
    assert [row.distance for row in metrics.by_steps] == [None] * 3


def test_own_pictures_are_read_as_they_were_trained_on(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: grey pictures of a run that was trained in colour, and a changed source of the same count."""
    asked: list[Any] = []
    monkeypatch.setattr(evaluation, "read_pictures", recorded(lambda *given: pictures, asked))
    run: Any = PlantedRun(planted_config(), pictures, tmp_path)
    run.data = replace(run.data, count=200)
    assert evaluation.own_pictures(run) is pictures and asked[0][0] == (run.config.data, 3, False)
    images, labels = evaluation.held_out(run)
    assert numbers(images) == list(range(0, 200, 4)) and torch.equal(labels, pictures.labels[::4])
    run.data = replace(run.data, sha256="0" * 64)
    with pytest.raises(UserError, match="planted has changed since this run was trained"):
        evaluation.own_pictures(run)
