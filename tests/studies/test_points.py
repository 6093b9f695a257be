"""Finished runs as points: every number is the one that its file holds, and FLOPs are those of their own stage."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from measured import distance, measured, written
from unilat.nets.cost import cost
from unilat.nets.encoder import Encoder
from unilat.nets.vit import ViTConfig
from unilat.recipe import config as configuration
from unilat.recipe import presets
from unilat.results import Making, Outcome, Results
from unilat.run.facts import Facts
from unilat.studies.points import of_base, read_point, read_points, runs_in
from unilat.types import UserError

MAKING = Making(decoder="full", decoder_steps=2, decoder_range=(-6.0, 3.0), decoder_temperature=0.2)
SIZE = (16, 24)


def finished(folder: Path, results: Results | None, seed: int = 3) -> Path:
    """A run folder of pictures of 16 × 24 in colour, 40 of them trained on; without results it is unfinished."""
    config = presets.get("tiny", size=f"{SIZE[0]}x{SIZE[1]}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configuration.to_json(replace(config, seed=seed)))
    facts = Facts(source="/there/letters", classes=("a",), channels=3, sha256="0123456789abcdef", train=40, test=7)
    (folder / "data.json").write_text(json.dumps(facts.to_json()))
    if results is not None:
        written(folder, results)
    return folder


def results(bits: float = 0.25) -> Results:
    """Numbers that differ, of a run with a base model."""
    found = measured(bits, target=0.3, base_bits=0.4, psnr=21.0, near=0.5, generation=0.75)
    features = replace(found, features="features: some", making=MAKING, pictures="held out of /there/letters")
    return replace(features, costs=replace(found.costs, parameters={"encoder": 2, "base": 7}))


def test_a_point_is_what_its_files_hold(tmp_path: Path) -> None:
    """Kills a number in the place of another, FLOPs of one stage in the other's, encoding left out or counted for the
    pictures of another part, and a path in what tells data and protocols from others."""
    found = replace(results(), outcome=Outcome(verdict="missed", reason="too few"))
    point = read_point(finished(tmp_path / "run", found))
    assert (point.folder, point.data) == (tmp_path / "run", "letters 0123456789ab")
    assert (point.pixels, point.grid, point.seed) == (16 * 24, (4, 4, 6), 3)
    assert (point.base, point.base_parameters) == ("16×2+32×1", 7)
    assert (point.target_bpp, point.bits.value, point.psnr.value) == (0.3, 0.25, 21.0)
    assert point.reconstruction is not None and point.reconstruction.value == 0.5
    assert point.generation is not None and point.generation.value == 0.75
    assert point.base_flops == 8e15
    encoder = presets.get("tiny").autoencoder.encoder
    one = cost(Encoder(encoder, 3, 4), torch.empty(1, 3, *SIZE)).forward_flops
    assert point.autoencoder_flops == 1e15 + 2e15 + 4e15 + 40 * one
    assert point.protocol == f"held out of letters; features: some; {MAKING.line}"
    assert point.outcome == Outcome(verdict="missed", reason="too few") and not point.diverged


def test_without_a_base_model_there_is_nothing_of_it(tmp_path: Path) -> None:
    """Kills FLOPs, parameters and a name of a base model that was not trained, and a distance that is none."""
    found = replace(results(), base_bits=None, generation=distance(float("nan")))
    point = read_point(finished(tmp_path / "run", found))
    assert (point.base, point.base_parameters, point.base_flops) == ("none", 0, 0.0)
    assert point.generation is None
    lost = replace(
        found,
        outcome=Outcome(verdict="diverged", reason="so"),
        reconstruction=replace(found.reconstruction, distance=None),
    )
    point = read_point(finished(tmp_path / "run", lost))
    assert point.reconstruction is None and point.diverged


def test_a_base_model_is_named_by_its_levels() -> None:
    """Kills widths and blocks the other way round, and levels that are left out."""
    assert of_base(ViTConfig(channels=(128,), blocks=(6,))) == "128×6"
    assert of_base(ViTConfig(channels=(512, 1024), blocks=(6, 16))) == "512×6+1024×16"


def test_runs_are_found_in_folders_and_each_once(tmp_path: Path) -> None:
    """Kills a folder of runs that is taken for a run, an order by chance, and a run that counts twice."""
    for number, name in enumerate(("b", "a", "c")):
        finished(tmp_path / "runs" / name, results(0.1 + number / 10))
    (tmp_path / "runs" / "other").mkdir()
    found = read_points([tmp_path / "runs" / "c", tmp_path / "runs"])
    assert [point.folder.name for point in found] == ["c", "a", "b"]
    assert [point.bits.value for point in found] == [0.1 + 2 / 10, 0.1 + 1 / 10, 0.1]
    assert [path.name for path in runs_in(tmp_path / "runs")] == ["a", "b", "c"]
    assert runs_in(tmp_path / "nowhere") == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Kills a run that is left out in silence, a message of several lines, and nothing that passes for a study."""
    whole, open_end = finished(tmp_path / "whole", results()), finished(tmp_path / "open", None)
    with pytest.raises(UserError, match=r"nowhere is no run folder.*; .*open/metrics.json is not") as told:
        read_points([whole, tmp_path / "nowhere", open_end])
    assert "\n" not in str(told.value)
    lines: list[str] = []
    found = read_points([tmp_path, tmp_path / "nowhere"], lines.append)
    assert [point.folder for point in found] == [whole] and len(lines) == 2
    with pytest.raises(UserError):
        read_points([open_end], lines.append)
    with pytest.raises(UserError, match="is no run folder"):
        read_point(tmp_path)


def test_a_changed_file_of_a_sealed_run_is_no_point(tmp_path: Path) -> None:
    """Kills numbers that nobody measured."""
    from unilat.run.seal import begin

    run = finished(tmp_path / "run", results())
    begin(run)
    with pytest.raises(UserError, match=r"config.json is of no file that this run wrote"):
        read_point(run)
