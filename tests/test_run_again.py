"""A run folder that is gone on with: longer, from another folder, with pictures that have moved."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import unilat
import unilat.run.begin
from unilat.cli import main
from unilat.files import read_safetensors, write_json
from unilat.recipe.config import RunConfig, to_dict
from unilat.run.records import Note, Stopped
from unilat.run.trained import read_config
from unilat.training.records import Step
from unilat.types import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run, in a folder of this test's own."""
    return shutil.copytree(tiny_run, tmp_path / "runs" / "copy")


def _longer(config: RunConfig, stage1: int | None = None, stage2: int | None = None) -> RunConfig:
    """``config`` with other lengths."""
    first = replace(config.stage1, samples=config.stage1.samples if stage1 is None else stage1)
    return replace(config, stage1=first, stage2=replace(config.stage2, samples=stage2 or config.stage2.samples))


def test_stage_2_is_added_to_a_run_without(tiny_run: Path, tiny_source: Path, tmp_path: Path, capsys: Capture) -> None:
    """As docs/bits.md says: bits first, by stage 1 alone, then the base model in the same folder. Kills: a refusal, a
    base model other than that of a run with both, settings of stage 2 that are kept from when there was none."""
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--stage1.samples", "256"]
    words += ["--out", str(tmp_path / "run"), "--stage2.samples"]
    assert main([*words, "0", "--stage2.batch", "16"]) == 0
    before = (tmp_path / "run" / "autoencoder.safetensors").read_bytes()
    assert main([*words, "128"]) == 0
    assert (tmp_path / "run" / "autoencoder.safetensors").read_bytes() == before
    assert (tmp_path / "run" / "base.safetensors").read_bytes() == (tiny_run / "base.safetensors").read_bytes()
    assert read_config(tmp_path / "run") == read_config(tiny_run)
    assert unilat.load(tmp_path / "run").results.base_bits is not None
    capsys.readouterr()
    assert main([*words, "128", "--stage2.batch", "16"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "(stage2.batch: 32 and 16)" in line
    assert f"delete {tmp_path}/run/stage2 and {tmp_path}/run/base.safetensors to train stage 2 anew" in line


def test_stage_2_goes_on_longer(copy: Path, capsys: Capture) -> None:
    """Kills: a finished base model that takes no longer training, one begun anew, a configuration that speaks of more
    samples than the base model has seen, a base model that is lost while the longer one is trained."""
    old, base = read_config(copy), (copy / "base.safetensors").read_bytes()
    (copy / "metrics-fast.json").write_text("{}")
    (copy / "fast-base.safetensors").write_bytes(b"kept")
    longer, steps = _longer(old, stage2=256), list[int]()

    def stop(record: Step | Note) -> bool:
        if isinstance(record, Step):
            steps.append(record.step)
        return not isinstance(record, Step) or len(steps) != 2

    with pytest.raises(Stopped):
        unilat.train(longer, out=copy, on_step=stop)
    assert read_config(copy) == old and (copy / "base.safetensors").read_bytes() == base
    assert "stage2 was planned for 128 samples and trained on to 256" in capsys.readouterr().err
    run = unilat.train(longer, out=copy, on_step=stop)
    assert steps == [5, 6, 7, 8]
    assert read_config(copy) == run.config == longer
    assert read_safetensors(copy / "base.safetensors")[1]["samples"] == "256"
    assert not (copy / "metrics-fast.json").exists() and (copy / "fast-base.safetensors").exists()
    with pytest.raises(UserError, match=r"stage2\.samples: 256 and 128"):
        unilat.train(old, out=copy)


def test_a_base_model_without_checkpoints_is_not_begun_anew_in_silence(copy: Path) -> None:
    """Kills: hours of stage 2 thrown away for a run whose checkpoints were deleted to make room."""
    longer = _longer(read_config(copy), stage2=256)
    shutil.rmtree(copy / "stage2")
    with pytest.raises(UserError, match=r"has seen 128 samples, and its checkpoints are gone.*stage2\.samples 256"):
        unilat.train(longer, out=copy)
    assert (copy / "base.safetensors").is_file()


def test_a_longer_stage_1_has_a_folder_of_its_own(copy: Path, tiny_source: Path, capsys: Capture) -> None:
    """Kills: latents and a base model that rest on another encoder, and a refusal that names no way out."""
    words = ["train", str(tiny_source), "--preset", "tiny", "--bpp", "0.4", "--out", str(copy)]
    assert main([*words, "--stage1.samples", "512", "--stage2.samples", "128"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "rest on it" in line and f"train --stage1.samples 512 in a folder of its own, --out {copy}-512" in line


def test_an_unfinished_stage_1_may_be_longer(tiny_source: Path, tmp_path: Path) -> None:
    """Kills: a refusal while nothing rests on stage 1 yet; a shorter one that is taken; a prior that has begun on
    what stage 1 is no longer."""
    config = unilat.run.begin.configured(tiny_source, preset="tiny", stage1__samples=96, stage2__samples=0)
    with pytest.raises(Stopped):
        unilat.train(config, out=tmp_path, on_step=lambda record: not isinstance(record, Step))
    with pytest.raises(UserError, match=r"stage1\.samples: 96 and 64"):
        unilat.train(_longer(config, 64), out=tmp_path)
    (tmp_path / "prior" / "step-0000000001").mkdir(parents=True)
    with pytest.raises(UserError, match="a folder of its own"):
        unilat.train(_longer(config, 128), out=tmp_path)
    shutil.rmtree(tmp_path / "prior")
    assert unilat.train(_longer(config, 128), out=tmp_path).config.stage1.samples == 128
    assert read_safetensors(tmp_path / "autoencoder.safetensors")[1]["samples"] == "128"


def test_pictures_that_have_moved(copy: Path, tiny_source: Path, tmp_path: Path, capsys: Capture) -> None:
    """Named again they are taken where their content is the same. Kills: a run that is lost with the old place; other
    pictures taken for the run's, or written down as such."""
    moved, before = shutil.copytree(tiny_source, tmp_path / "moved"), (copy / "config.json").read_bytes()
    (moved / "lying" / "00.png").unlink()
    config = read_config(copy)
    elsewhere = replace(config, data=replace(config.data, source=str(moved)))
    with pytest.raises(UserError, match="has changed since"):
        unilat.train(elsewhere, out=copy)
    assert (copy / "config.json").read_bytes() == before
    shutil.copy(tiny_source / "lying" / "00.png", moved / "lying" / "00.png")
    told = list[str]()
    unilat.train(
        elsewhere, out=copy, on_step=lambda record: told.append(record.text) if isinstance(record, Note) else None
    )
    assert f"the pictures lie in {moved} now, no longer in {tiny_source}; their content is the same" in told
    assert unilat.load(copy).config == elsewhere and json.loads((copy / "data.json").read_text())["source"] == str(
        moved
    )
    shutil.rmtree(moved)
    capsys.readouterr()
    assert main(["evaluate", str(copy)]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"{moved} is no longer there" in line and f"--out {copy} and the configuration {copy}/config.json" in line


def test_a_run_is_found_from_every_folder(
    copy: Path, tiny_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Kills: pictures looked for where the user stands now: a name kept as it was typed is looked for beside the run
    too, and what lies there under the name is believed by its content alone. A new run keeps the whole path."""
    shutil.copytree(tiny_source, tmp_path / "two")
    config = read_config(copy)
    (copy / "seal.json").unlink()
    write_json(copy / "config.json", to_dict(replace(config, data=replace(config.data, source="two"))))
    (tmp_path / "runs" / "two").mkdir()
    (tmp_path / "runs" / "two" / "junk.png").write_text("none")
    monkeypatch.chdir(tmp_path / "runs")
    assert main(["evaluate", "copy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits"]["measured"]["n"] == unilat.load(copy).results.bits.n
    (tmp_path / "two" / "lying" / "00.png").unlink()
    with pytest.raises(UserError, match="two has changed since this run was trained"):
        unilat.evaluate(unilat.load(copy))
    monkeypatch.chdir(tmp_path)
    assert unilat.run.begin.configured("two/", preset="tiny").data.source == str(tmp_path / "two")
    monkeypatch.chdir(tmp_path / "runs")
    (tmp_path / "runs" / "glyphs").mkdir()
    assert unilat.run.begin.configured("glyphs", preset="tiny").data.source == "glyphs"
    assert unilat.run.begin.configured("./glyphs", preset="tiny").data.source == str(tmp_path / "runs" / "glyphs")
