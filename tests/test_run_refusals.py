"""What the main job, and whoever opens a run, refuse before anything is trained: in one line, nothing lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from measured import machine
from test_run import small, write_pictures
from unilat.files import read_json
from unilat.run import train as run
from unilat.training.fast import Choices
from unilat.types import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "boxes.npz")


def test_a_foreign_folder_is_left_alone(tmp_path: Path, source: Path) -> None:
    """Kills: a run written among somebody's files, or over a file."""
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and no run folder: choose another `out`"):
        run.train(small(source), tmp_path)
    with pytest.raises(UserError, match="is a file: choose another `out`"):
        run.train(small(source), tmp_path / "holiday.txt")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["GPT"]}')
    with pytest.raises(UserError, match="unknown key architectures"):
        run.train(small(source), tmp_path / "model")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "holiday.txt", "model"]


def test_a_mistake_before_the_first_picture_costs_no_folder(tmp_path: Path, source: Path) -> None:
    """Kills: a folder claimed by a command that failed, which then refuses the mended command."""
    folder, config = tmp_path / "run", small(source)
    wrong = replace(config, data=replace(config.data, source=str(tmp_path / "boxs.npz")))
    with pytest.raises(UserError, match="boxs"):
        run.train(wrong, folder)
    run._claim(config, folder, machine(), Choices())
    assert run.read_config(folder) == config


@pytest.mark.parametrize(("change", "says"), [({"size": 4}, "pictures of 4 pixels"), ({"size": 12}, "multiple of 8")])
def test_a_size_below_the_grid_is_refused_before_anything_is_made(
    tmp_path: Path, source: Path, change: dict[str, int], says: str
) -> None:
    """Kills: a folder, or a shape error, for pictures that the networks' grid does not divide."""
    config = small(source)
    with pytest.raises(UserError, match=says):
        run.train(replace(config, data=replace(config.data, **change)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_target_that_no_latent_carries_is_refused(tmp_path: Path, source: Path) -> None:
    """Kills: an hour of training towards bits that the noise λ₀ does not let through."""
    config = small(source)
    with pytest.raises(UserError, match="5 bits per pixel are more than a latent of 4×4×4 carries"):
        run.train(replace(config, stage1=replace(config.stage1, target_bpp=5.0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    """Kills: an empty held-out set that is found out when it is measured."""
    config = small(write_pictures(tmp_path / "one.npz", 1))
    with pytest.raises(UserError, match="leave nothing to hold out"):
        run.train(config, tmp_path / "run")


def test_an_unfinished_folder_is_no_run(tmp_path: Path, source: Path) -> None:
    """Kills: FileNotFoundError for a folder that is no run, or one that was stopped in stage 1."""
    with pytest.raises(UserError, match=r"is not a run folder .*make one with `unilat train"):
        run.load(tmp_path)
    (tmp_path / "run").mkdir()
    run._claim(small(source), tmp_path / "run", machine(), Choices())
    with pytest.raises(UserError, match=r"data\.json is not there|stage 1 is not finished"):
        run.load(tmp_path / "run")
    (tmp_path / "run" / "seal.json").unlink()
    (tmp_path / "run" / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not JSON"):
        run.load(tmp_path / "run")


def test_a_damaged_data_json_names_the_way_out(tiny_run: Path, tmp_path: Path) -> None:
    """Kills: a KeyError for a file that lost its keys, and a text that is taken for the number of channels."""
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_run, folder)
    (folder / "seal.json").unlink()
    facts = read_json(folder / "data.json")
    del facts["classes"]
    (folder / "data.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"data\.json is damaged \(classes missing\): bring it back"):
        run.load(folder)
    (folder / "data.json").write_text(json.dumps({**facts, "channels": "3"}))
    with pytest.raises(UserError, match=r"\(classes missing; channels of another kind\): bring it back"):
        run.load(folder)
