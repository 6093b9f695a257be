"""A run's classes: labels go round by number and by name, and nothing is drawn of a class that was never trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unilat
from planted import coloured
from unilat.cli import main
from unilat.models.base import Base
from unilat.models.latents import LatentSet
from unilat.run import classes, train
from unilat.run.facts import Facts, read
from unilat.run.folder import RunFolder
from unilat.run.trained import Run
from unilat.signals.factors import Factors
from unilat.training.fast import Choices
from unilat.types import UserError


def facts(names: str, untrained: str = "") -> Facts:
    return Facts(source="x", classes=tuple(names.split()), untrained=tuple(untrained.split()), channels=1, sha256="")


def test_classes_with_pictures_take_turns() -> None:
    """Kills: a class without a training picture that is drawn, one with pictures left out, and a run that says nothing
    of it."""
    some = facts("a b c d e", "b e")
    assert classes.trained(some) == [0, 2, 3]
    assert classes.labels_of(some, 7, None).tolist() == [0, 2, 3, 0, 2, 3, 0]
    assert classes.labels_of(facts("a b"), 3, None).tolist() == [0, 1, 0]
    assert classes.labels_of(facts(""), 3, None).tolist() == [0, 0, 0]
    assert classes.told(some) == "3 of 5 classes have a training picture: samples are of these alone"
    assert not classes.told(facts("a b")) and not classes.told(facts(""))
    assert classes.known(some, torch.tensor([0, 1, 2, 4, -1, 3])).tolist() == [0, -1, 2, -1, -1, 3]
    assert classes.known(facts(""), torch.tensor([0, 0])).tolist() == [0, 0]
    with pytest.raises(UserError, match=r"^class b has no picture that the run was trained on: choose one of a, c, d$"):
        classes.number_of(some, "b")


@pytest.mark.parametrize(
    ("names", "label", "number"),
    [
        ("1 2 10 100", "1", 0),
        ("1 2 10 100", "100", 3),
        ("1 2 10 100", 3, 3),
        ("1 2 10 100", np.int64(2), 2),
        ("1 2 10 100", torch.tensor(1), 1),
        ("1 2 10 100", "3", "there is no class 3: choose one of 1, 2, 10, 100 by name"),
        ("1 2 10 100", "01", "there is no class 01"),
        ("1 2 10 100", 4, "there is no class 4: choose one of 1, 2, 10, 100 or 0 to 3"),
        ("1 2 10 100", -1, "there is no class -1"),
        ("cat dog", "1", 1),
        ("cat dog", "dog", 1),
        ("cat dog", "2", "there is no class 2: choose one of cat, dog or 0 to 1"),
        ("cat dog", "Dog", "there is no class Dog"),
        ("cat dog", 1.0, "there is no class 1.0"),
        ("cat dog", None, "there is no class None"),
        ("", "1", "have no classes: leave out `label`"),
    ],
)
def test_a_name_is_a_name_and_a_number_a_number(names: str, label: Any, number: int | str) -> None:
    """Kills: a place taken for a class that is named by numbers, names that lose to places, other kinds of whole
    numbers refused."""
    if isinstance(number, int):
        assert classes.number_of(facts(names), label) == number
    else:
        with pytest.raises(UserError, match=number):
            classes.number_of(facts(names), label)


def test_one_class_a_picture() -> None:
    """Kills: labels that encode wrote refused, repeated or taken for names; -1 taken for the last class."""
    known = facts("b a c")
    for label in (torch.tensor([2, -1, 0]), [2, -1, 0], np.array([2, -1, 0]), (2, -1, 0), ["c", -1, "b"]):
        assert classes.labels_of(known, 3, label).tolist() == [2, -1, 0]
    assert classes.labels_of(known, 2, "c").tolist() == classes.labels_of(known, 2, torch.tensor(2)).tolist() == [2, 2]
    assert classes.labels_of(facts(""), 2, torch.tensor([0, 0])).tolist() == [0, 0]
    for wrong, words in (
        ([0, 1], "`label` has 2 classes for 3 pictures"),
        ([0, 1, 3], "no class 3"),
        ([0, 1, -2], "-2"),
    ):
        with pytest.raises(UserError, match=words):
            classes.labels_of(known, 3, wrong)
    with pytest.raises(UserError, match="no classes"):
        classes.labels_of(facts(""), 2, [0, 1])


def test_labels_are_renumbered_by_name() -> None:
    """Kills: numbers of another set's classes taken over, -1 or a number of nothing turned into a class."""
    labels = torch.tensor([0, 1, 2, -1, 7])
    assert classes.renumbered(labels, ("x", "y", "z"), ("z", "x")).tolist() == [1, -1, 0, -1, -1]
    assert classes.renumbered(labels, ("x", "y"), ("x", "y")) is labels
    assert classes.renumbered(labels, (), ("x", "y")) is labels and classes.renumbered(labels, ("x",), ()) is labels


def test_a_run_remembers_classes_without_a_training_picture(tmp_path: Path) -> None:
    """.npz labels 0, 500, 1000 are 1,001 classes. Kills: classes of all pictures in place of the trained ones."""
    pictures = replace(coloured(12), classes=("red", "green", "blue", "mauve"))
    rows = torch.arange(12)
    blue = pictures.labels == 2
    how = train._How(lambda told: None, "cpu", Choices())
    train._remember(tmp_path, pictures, (rows[~blue], rows[:0], rows[blue]), how)
    known = read(RunFolder(tmp_path).data)
    assert known.untrained == ("blue", "mauve") and known.classes == pictures.classes
    assert classes.trained(known) == [0, 1]


@pytest.fixture
def run(tiny_run: Path) -> Run:
    return unilat.load(tiny_run)


def test_labels_of_encode_draw_the_same_classes(run: Run, tiny_source: Path) -> None:
    """Kills: labels that do not go round, and -1 as a class of the base model."""
    latents = run.encode([tiny_source / "standing" / "01.png", tiny_source / "lying" / "00.png"])
    made = run.sample(2, label=latents.labels)
    assert made.labels.tolist() == latents.labels.tolist() == [1, 0]
    assert torch.equal(made.images[:1], run.sample(1, label="standing").images)
    none = run.sample(2, label=[-1, 0])
    assert [one.label for one in none] == [None, "lying"] and torch.equal(none.images[1], made.images[1])
    assert run.base is not None
    told = run.base.condition(torch.tensor([-1, 1]))
    assert told is not None and told.dropped is not None and told.dropped.tolist() == [True, False]
    assert not torch.equal(none.images[0], run.sample(1, label=1).images[0])


def test_a_class_without_pictures_is_not_drawn(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Kills: the turn of a run that goes round all its classes, and a command line that keeps it to itself."""
    run.data = replace(run.data, untrained=("lying",))
    assert run.sample(3).labels.tolist() == [1, 1, 1]
    monkeypatch.setattr(unilat, "load", lambda *given, **named: run)
    words = ["sample", "x", "-n", "2", "--out", str(tmp_path / "a.png")]
    assert main(words) == 0
    assert "1 of 2 classes have a training picture" in capsys.readouterr().err
    assert main([*words, "--class", "lying"]) == 2
    assert "class lying has no picture that the run was trained on" in capsys.readouterr().err
    run.data = replace(run.data, untrained=())
    assert main([*words, "--class", "1"]) == 0
    assert "--class 1: class number 1, named standing" in capsys.readouterr().err


def test_decode_takes_plain_latents(run: Run, tiny_source: Path) -> None:
    """Kills: a tensor refused or taken for noisy, and pictures of it that are others than those of the set."""
    latents = run.encode([tiny_source / "standing" / "01.png", tiny_source / "lying" / "00.png"])
    wanted = run.decode(latents, seed=3).images
    for z in (latents.z, latents.z.double(), latents.z.numpy(), latents.z.requires_grad_(True)):
        made = run.decode(z, seed=3)
        assert torch.equal(made.images, wanted) and made.labels.tolist() == [-1, -1] and made.names is None
    for wrong, words in (
        (latents.z[0], r"float \[N, 4, 4, 4\], not float32 \[4, 4, 4\]"),
        (torch.zeros(0, 4, 4, 4), r"not float32 \[0, 4, 4, 4\]"),
        (torch.zeros(2, 4, 4, 4).long(), r"not int64 \[2, 4, 4, 4\]"),
        (torch.zeros(()), "or numbers of that shape; not Tensor"),
        (np.array(["a"]), "latents are what"),
        ([1, 2], "latents are what `run.encode` gives, or numbers of that shape; not list"),
        (None, "not NoneType"),
    ):
        with pytest.raises(UserError, match=words):
            run.decode(wrong)  # type: ignore[arg-type]


def test_latents_that_are_no_numbers_are_named(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: pictures made of NaN, and rows that are told by another number or without their names."""
    latents = run.encode(torch.zeros(8, 1, 16, 16, dtype=torch.uint8))
    latents.z[2, 1, 0, 3], latents.z[7] = torch.nan, -torch.inf
    with pytest.raises(UserError, match=r"^2 of 8 latents hold NaN or infinity, rows 2, 7: leave them out"):
        run.decode(latents)
    latents.z[:] = torch.nan
    named = replace(latents, names=tuple(f"{name}.png" for name in "abcdefgh"))
    path = tmp_path / "z.safetensors"
    named.save(path)
    assert main(["decode", str(run.folder), str(path), "--out", str(tmp_path / "made")]) == 2
    said = capsys.readouterr().err
    assert "8 of 8 latents hold NaN or infinity, rows 0 (a.png), 1 (b.png)" in said and "4 (e.png) and 3 more" in said
    assert not (tmp_path / "made").exists()


def test_latents_of_a_run_with_other_classes_keep_their_names(run: Run) -> None:
    """Two runs may share an encoder (stage1.autoencoder). Kills: the other run's numbers read as this one's names."""
    images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    other = replace(run.encode(images), labels=torch.tensor([0, 1, 2]), classes=("standing", "flying", "lying"))
    assert [one.label for one in run.decode(other)] == ["standing", None, "lying"]
    old = replace(other, classes=())
    assert isinstance(old, LatentSet) and [one.label for one in run.decode(old)] == ["lying", "standing", None]


def test_no_class_is_no_condition() -> None:
    """Kills: labels that a model without classes is told."""
    made = Base.__new__(Base)
    object.__setattr__(made, "classes", 0)
    assert made.condition(torch.tensor([-1, 0])) is None


def test_a_value_of_a_factor_stands_for_its_classes_in_turn() -> None:
    """Kills: one class for a value of several, unknown classes among them, a class's own name taken for a value."""
    factors = Factors(("letter", "face"), (("a", "b"), ("thin", "a thin")), torch.tensor([[0, 0], [0, 1], [1, 0]]))
    names = ("a thin", "a a thin", "b thin")
    facts = Facts(channels=1, classes=names, sha256="", source="", factors=factors)
    assert classes.labels_of(facts, 3, "thin").tolist() == [0, 2, 0]
    assert classes.labels_of(facts, 3, "a").tolist() == [0, 1, 0]
    assert classes.labels_of(facts, 2, "a thin").tolist() == [0, 0]
    assert classes.labels_of(replace(facts, untrained=("a thin",)), 2, "thin").tolist() == [2, 2]
    with pytest.raises(UserError, match="there is no class bold"):
        classes.labels_of(facts, 2, "bold")
