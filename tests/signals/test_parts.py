"""WHO MAY SEE WHAT: no picture is on two sides, by its content, whatever the format and the options.

Training, calibration and held-out pictures of one configuration, as `unilat train` takes them. The sources hold planted
copies (``samples.py``): within training, within test, and across an official split.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unilat.recipe import presets
from unilat.recipe.config import RunConfig
from unilat.run.parts import read_pictures, split_pictures
from unilat.signals import Pictures, catalogue, glyphs, load, split
from unilat.signals.pictures import pack
from unilat.types import UserError

from . import samples
from .samples import OFFICIAL, PLAIN, SIDE, TEST, TRAIN

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "at most 50": {"at_most": 50},
    "a third held out": {"held_out": 0.34},
    "held out at most 5": {"held_out_at_most": 5},
    "all of these": {"at_most": 50, "held_out": 0.34, "held_out_at_most": 5},
    "in grey": {"channels": 1},
}


def configured(source: str, size: int = SIDE, **values: Any) -> RunConfig:
    """The smallest preset for a source, with options of its data."""
    tiny = presets.get("tiny")
    return replace(tiny, data=replace(tiny.data, source=source, size=size, **values))


def parts(config: RunConfig) -> tuple[Pictures, list[Tensor]]:
    """The pictures and the indices of training, calibration and test."""
    pictures = read_pictures(config.data, config.data.channels)
    return pictures, list(split_pictures(config, pictures))


def contents(pictures: Pictures, indices: Tensor) -> set[bytes]:
    """The pictures' own bytes."""
    return {pictures.images[index].numpy().tobytes() for index in indices.tolist()}


def held_apart(config: RunConfig) -> tuple[Pictures, list[Tensor]]:
    """:func:`parts`, after what holds of every source: three parts, none empty, no index or content in two."""
    pictures, found = parts(config)
    train, calibration, test = found
    assert min(map(len, found)) > 0 and len(test) <= config.data.held_out_at_most
    assert len(torch.cat(found).unique()) == sum(map(len, found)), "an index in two parts"
    for one, other in ((train, test), (calibration, test), (train, calibration)):
        assert not contents(pictures, one) & contents(pictures, other), "a picture on two sides"
    assert len(pictures) <= (config.data.at_most or len(pictures))
    return pictures, found


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_source_without_a_split_of_its_own(tmp_path: Path, name: str, options: str) -> None:
    """All pictures are used, copies stay together, the share is the one asked for. Kills: a split by index, copies told
    apart by their file, class or colour, an option that reaches one part alone."""
    config = configured(PLAIN[name](tmp_path / "set"), **OPTIONS[options])
    pictures, found = held_apart(config)
    assert sum(map(len, found)) == len(pictures) == (config.data.at_most or samples.COUNT)
    wanted = min(round(config.data.held_out * len(pictures)), config.data.held_out_at_most)
    assert wanted - 2 <= len(found[2]) <= wanted, "groups of two may not fill the last place of every class"


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_source_with_an_official_split(tmp_path: Path, name: str, options: str) -> None:
    """Its test pictures are the test, none is trained on, and what is trained on has no copy among them. Kills: an
    official split that is forgotten under --data.at-most, copies of test pictures in training, a share taken of it."""
    config = configured(OFFICIAL[name](tmp_path / "set"), **OPTIONS[options])
    pictures, (train, calibration, test) = held_apart(config)
    official = pictures.held_out
    assert official is not None and official[test].all() and not official[torch.cat([train, calibration])].any()
    assert len(test) == min(int(official.sum()), config.data.held_out_at_most)
    tests = contents(pictures, official.nonzero().flatten())
    left = [index for index in (~official).nonzero().flatten().tolist()
            if pictures.images[index].numpy().tobytes() not in tests]  # fmt: skip
    assert sorted(torch.cat([train, calibration]).tolist()) == left
    if not config.data.at_most:
        copies = 9 if config.data.channels == 1 else 8
        assert int(official.sum()) == TEST and len(left) == TRAIN - copies
        assert [note for note in pictures.notes if note.startswith(f"{copies} training picture(s) have a copy")]


@pytest.mark.parametrize("name", ["split_npz", "split_folder", "split_parquet", "split_saved"])
@pytest.mark.parametrize("limit", [2, 3, 5])
def test_few_pictures_still_have_both_sides(tmp_path: Path, name: str, limit: int, monkeypatch) -> None:
    """Kills: --data.at-most that reads training pictures alone, so that the official split is forgotten in silence."""
    monkeypatch.setattr(samples, "TRAIN", samples.COUNT - 1)  # one test picture, the last
    pictures = load(OFFICIAL[name](tmp_path / "set"), size=SIDE, limit=limit)
    assert pictures.held_out is not None and int(pictures.held_out.sum()) == 1 and len(pictures) == limit


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A function that lays a folder under a name of the catalogue; the cache is the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    return lambda folder: monkeypatch.setattr(catalogue, "need", lambda name: folder)


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("options", [{}, {"at_most": 60}, {"held_out": 0.34, "held_out_at_most": 9}])
@pytest.mark.parametrize("name", ["emoji", "emoji-google", "emoji-twitter", "solar"])
def test_sets_of_the_catalogue(tmp_path: Path, named, name: str, options: dict, channels: int | None) -> None:
    """Kills: groups of the catalogue's readers that forget copies, also those that are copies in grey alone."""
    made = {"emoji": samples.fluent, "solar": samples.solar}.get(name)
    named(made(tmp_path / "set") if made else samples.datasource(tmp_path / "set", name.removeprefix("emoji-")))
    pictures, _ = held_apart(configured(name, channels=channels, **options))
    if channels == 1 and name == "emoji-google" and not options:
        red, green = (pictures.names.index(stem) for stem in ("1f608", "1f64c"))
        assert torch.equal(pictures.images[red], pictures.images[green])
        assert pictures.groups[red] == pictures.groups[green]


def test_glyphs(named, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: Latin A in training or calibration and Greek Alpha in test."""
    monkeypatch.setattr(glyphs, "faces", lambda: (("Sans", "DejaVuSans.ttf"), ("Serif", "DejaVuSerif.ttf")))
    monkeypatch.setattr(catalogue, "need", lambda name: None)
    for options in ({}, {"at_most": 700}, {"held_out": 0.3, "held_out_at_most": 90}, {"channels": 3}):
        pictures, found = held_apart(configured("glyphs", **options))
        assert sum(map(len, found)) == len(pictures)


def test_files_as_fashion_mnists(tmp_path: Path, named) -> None:
    """The last 10,000 are the test, in the files' order, padded by two black pixels. Kills: test read first, labels of
    the other file, copies of test pictures trained on, a border on one side."""
    named(samples.fashion(tmp_path / "set"))
    pictures = load("fashion-mnist")
    assert pictures.images.shape == (70_000, 1, 32, 32) and pictures.converted == {"padded from 28": 70_000}
    values = pictures.images[[12_345, 60_100], 0, 5:10, 11]
    assert values.tolist() == [[110, 90, 70, 50, 30], [10, 10, 30, 10, 130]]
    assert pictures.images[12_345].sum() == values[0].sum()
    assert pictures.labels[[1, 9, 59_999, 60_000, 60_001]].tolist() == [1, 9, 9, 0, 9]
    assert pictures.classes[0] == "T-shirt/top" and pictures.classes[9] == "ankle boot"
    train, test = split(pictures)
    assert len(test) == 2_000 and int(test.min()) >= 60_000
    assert train.tolist() == [index for index in range(60_000) if not 100 <= index < 200]
    thin, found = held_apart(configured("fashion-mnist", size=28, at_most=7_000, held_out_at_most=300))
    assert int(thin.held_out.sum()) == 1_000 and len(found[2]) == 300
    assert len(found[0]) + len(found[1]) == 6_000 - 10


def test_nothing_but_copies_to_train_on_is_told() -> None:
    """Kills: an empty training set, or one of test pictures, where every training picture has a copy in test."""
    images = np.arange(8, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3)
    twice = pack(np.concatenate([images, images]), None, "made", held_out=np.arange(16) >= 8)
    with pytest.raises(UserError, match="made: every training picture has a copy among the test pictures"):
        split(twice)


def test_a_class_that_is_tested_and_not_trained_on_is_told() -> None:
    """Kills: the line that says of a class's only picture that it is trained on, where it is held out."""
    images = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3)
    made = pack(images, [0, 0, 0, 1, 0, 0], "made", classes=("a", "b"), held_out=np.arange(6) == 3)
    assert made.notes == ("1 class(es) without a picture to train on: 'b'",)
    alone = pack(images, [0, 0, 0, 1, 0, 0], "made", classes=("a", "b"), held_out=np.arange(6) > 3)
    assert alone.notes == ()
