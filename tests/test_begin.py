"""A run from Python: keywords, typed records, stopping, and a run that goes when nobody holds it."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unilat
from unilat.files import read_safetensors
from unilat.recipe import presets
from unilat.run.begin import changed, configured
from unilat.run.records import Note, Stopped
from unilat.training.records import Step
from unilat.types import UserError

SHORT: dict[str, Any] = {
    "preset": "tiny",
    "target_bpp": 0.4,
    "stage1__samples": 64,
    "stage1__settle": 0,
    "stage2__samples": 64,
    "data__calibration": 8,
    "evaluation__pictures": 4,
    "evaluation__samples": 4,
}


def test_keywords_are_fields_of_the_configuration() -> None:
    """Kills: a keyword that goes nowhere or to another section, a preset or a size that is not taken, tuples made
    lists."""
    config = configured(
        "digits", target_bpp=0.3, size=64, seed=4, bias=1.5, stage1__samples=1000, base__vit__channels=(128, 256),
        base__vit__blocks=(2, 2), stage1__control__gain=0.5,
    )  # fmt: skip
    start = presets.get("small", size=64)
    assert (config.data.source, config.data.size, config.seed) == ("digits", (64, 64), 4)
    assert (config.stage1.target_bpp, config.stage1.samples, config.stage1.control.gain) == (0.3, 1000, 0.5)
    assert config.base.vit.channels == (128, 256) and config.autoencoder.bias == 1.5
    assert config.autoencoder == replace(start.autoencoder, bias=1.5) and config.stage2 == start.stage2
    free = configured(config, loss_factor=1.5)
    assert (free.stage1.loss_factor, free.stage1.target_bpp, free.seed) == (1.5, None, 4)
    assert configured("photos").data.source == "photos" and configured("x", preset="tiny").data.size == (16, 16)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stage1__sample": 3}, "no field stage1__sample .* perhaps you meant stage1__samples"),
        ({"samples": 3}, "no field samples .* perhaps you meant stage1__samples"),
        ({"taget_bpp": 0.3}, "perhaps you meant target_bpp"),
        ({"qqqqqq": 0.3}, "RunConfig has them all"),
        ({"stage1__samples": "many"}, "stage1.samples"),
        ({"stage1__samples": torch.tensor(3)}, "numbers, texts and tuples"),
    ],
)
def test_a_field_that_is_none_is_told(fields: dict[str, Any], words: str) -> None:
    """Kills: a misspelt field passed over, a way out that names nothing, a value of another kind let through."""
    with pytest.raises(UserError, match=words):
        changed(presets.get("tiny"), fields)


def test_contradictions_are_told_by_their_names() -> None:
    """Kills: bits and a factor together, a preset beside a configuration, bits that are none; and options in a line."""
    for words, given in (
        ("give one of them", {"data": "glyphs", "target_bpp": 0.2, "loss_factor": 1.5}),
        ("give one of them", {"data": presets.get("tiny"), "preset": "tiny"}),
        ("target_bpp is a positive", {"data": "glyphs", "target_bpp": float("nan")}),
    ):
        with pytest.raises(UserError, match=words) as error:
            configured(**given)
        assert "--" not in str(error.value)


def test_a_stopped_run_goes_on_to_the_same_bits(tiny_source: Path, tmp_path: Path) -> None:
    """Stopped in either stage and at a note, the run ends as the one that nobody stopped. Kills: a stop that is not
    saved, that loses its step, or that comes as an exit of the process; a record that says nothing of its stage."""
    seen: list[Any] = []
    whole = unilat.train(str(tiny_source), out=tmp_path / "whole", on_step=seen.append, **SHORT)
    steps = [(one.stage, one.step) for one in seen if isinstance(one, Step)]
    assert steps == [("stage1", 1), ("stage1", 2), ("stage2", 1), ("stage2", 2)]
    at: list[Any] = [("stage1", 1), ("stage2", 1), "encoding"]

    def stop(record: Step | Note) -> bool:
        place = (record.stage, record.step) if isinstance(record, Step) else record.text.split()[0]
        if place in at:
            at.remove(place)
            return False
        return True

    stops, told = [], []

    def noted(record: Step | Note) -> bool:
        told.append(record)
        return stop(record)

    for _ in range(3):
        with pytest.raises(Stopped) as stopped:
            unilat.train(str(tiny_source), out=tmp_path / "parts", on_step=noted, **SHORT)
        assert stopped.value.folder == tmp_path / "parts"
        record = stopped.value.at
        stops.append((record.stage, record.step) if isinstance(record, Step) else "note")
    assert stops == [("stage1", 1), "note", ("stage2", 1)]
    parts = unilat.train(str(tiny_source), out=tmp_path / "parts", on_step=told.append, **SHORT)
    assert [(one.stage, one.step) for one in told if isinstance(one, Step)] == steps  # none was made twice
    for one, other in ((whole.files.autoencoder, parts.files.autoencoder), (whole.files.base, parts.files.base)):
        ours, theirs = read_safetensors(one)[0], read_safetensors(other)[0]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.results.bits == parts.results.bits


def test_another_runs_latents_are_taken_where_they_are_the_same(tiny_source: Path, tmp_path: Path) -> None:
    """A second base model on one autoencoder. Kills: the same pictures encoded again, latents of another choice of
    pictures taken, and nothing said of it."""
    first = unilat.train(str(tiny_source), out=tmp_path / "first", **SHORT)
    for name, more, taken in (("same", {}, True), ("other", {"seed": 1}, False)):
        said: list[Any] = []
        wanted = {**SHORT, **more, "stage1__autoencoder": first.folder}
        run = unilat.train(str(tiny_source), out=tmp_path / name, on_step=said.append, **wanted)
        notes = [record.text for record in said if isinstance(record, Note)]
        assert any("taken from there" in note for note in notes) == taken
        assert any(note.startswith("encoding") for note in notes) != taken
        ours, theirs = read_safetensors(run.files.base)[0], read_safetensors(first.files.base)[0]
        assert all(torch.equal(ours[part], theirs[part]) for part in ours) == taken


def test_a_run_without_a_folder_lives_as_long_as_it_is_held(tmp_path: Path) -> None:
    """Kills: a temporary folder that stays behind, or that goes while the run or the exception is still held."""
    np.save(tmp_path / "p.npy", np.random.default_rng(0).integers(0, 255, (48, 16, 16), dtype=np.uint8))
    wanted = {**SHORT, "stage2__samples": 0}
    with pytest.raises(Stopped) as stopped:
        unilat.train(tmp_path / "p.npy", on_step=lambda record: isinstance(record, Note), **wanted)
    place = stopped.value.folder
    assert place.is_dir()
    run = unilat.train(tmp_path / "p.npy", out=place, **wanted)
    assert run.folder == place and run.encode(str(tmp_path / "p.npy")).z.shape == (48, 4, 4, 4)
    kept = unilat.train(tmp_path / "p.npy", **wanted)
    home = kept.folder
    assert home.is_dir() and kept.decode(kept.encode(str(tmp_path / "p.npy"))) is not None
    del kept, stopped
    gc.collect()
    assert not home.exists() and not place.exists()
    with pytest.raises(UserError, match="no such file"):
        unilat.train(str(tmp_path / "none"), **wanted)
