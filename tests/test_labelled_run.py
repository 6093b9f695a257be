"""A run of several labels that were named, from the command line: by folders, and read as they are needed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unilat
from unilat.cli import main
from unilat.run import parts
from unilat.run.parts import read_pictures
from unilat.signals.pictures import Pictures

FACES, LETTERS = ("Mono", "Sans", "Serif"), "ABCDEFGH"
SMALL = ["--stage1.samples", "64", "--stage1.batch", "16", "--stage1.settle", "0", "--stage1.calibrate-every", "32"]
SMALL += ["--data.calibration", "0", "--stage2.samples", "64", "--stage2.batch", "16", "--evaluation.samples", "6"]
SMALL += ["--evaluation.classifier-samples", "128", "--evaluation.pictures", "6"]


def written(folder: Path) -> Path:
    """Every letter in every face, two pictures a pair."""
    random = np.random.default_rng(3)
    for face in FACES:
        for letter in LETTERS:
            place = folder / face / letter
            place.mkdir(parents=True)
            for copy in range(2):
                Image.fromarray(random.integers(0, 256, (16, 16), np.uint8)).save(place / f"{copy}.png")
    return folder


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_learns_pairs_from_two_levels_of_folders(
    tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: an option that does not reach the reader, networks that embed pairs by themselves, a class of the first
    folder alone, a label without its classifier, pictures given to the run that are read without their labels."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    if streamed:
        monkeypatch.setattr(parts, "BUDGETS", {None: 0, True: 0, False: 2**60})
    source, folder = written(tmp_path / "in"), tmp_path / "run"
    words = ["train", str(source), "--preset", "tiny", "--out", str(folder), "--data.labels", "face", "letter", *SMALL]
    assert main(words) == 0
    assert json.loads((folder / "config.json").read_text())["data"]["labels"] == ["face", "letter"]
    run = unilat.load(folder)
    assert run.data.factors is not None and run.data.factors.names == ("face", "letter")
    assert run.data.factors.values == (FACES, tuple(LETTERS)) and list(run.classes[:2]) == ["Mono A", "Mono B"]
    assert run.base is not None and run.base.classes == 24
    assert [judge.of for judge in run.results.judged] == ["face", "letter"]
    pictures = read_pictures(run.config.data, 1, run.data.streamed)
    assert isinstance(pictures, Pictures) != streamed and pictures.sha256 == run.data.sha256
    train, _, test = run.split(pictures)
    of_train = run.data.factors.table[pictures.labels[train]]
    assert len(test) > 1 and len(of_train[:, 0].unique()) == 3 and len(of_train[:, 1].unique()) == 8
    found = run.read(str(source))
    assert sorted(found.labels.tolist()) == sorted(2 * [*range(24)])
    assert found[0].label == "Mono A" and torch.equal(run.sample(1, label="Serif H").labels, torch.tensor([23]))
    capsys.readouterr()
    assert main([*words[: -len(SMALL) - 3], *SMALL]) == 2
    assert "data.labels" in capsys.readouterr().err, "another configuration"
