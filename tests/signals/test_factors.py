"""Classes made of several labels: their names, their split, what of them is known, and how files hold them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unilat.recipe import presets
from unilat.run.parts import split_pictures
from unilat.signals import factors, load, split
from unilat.signals.look import headline
from unilat.signals.pictures import Pictures, pack
from unilat.types import UserError

NAMES, VALUES = ("letter", "face"), (tuple("abcdefgh"), ("thin", "bold", "slanted"))


def paired(skip: tuple[tuple[int, int], ...] = (), copies: int = 1) -> Pictures:
    """Every letter in every face but for those skipped, each pair ``copies`` times and no two pictures alike."""
    pairs = [(a, b) for a in range(8) for b in range(3) if (a, b) not in skip]
    rows = np.array(pairs).repeat(copies, 0)
    images = np.random.default_rng(5).integers(0, 256, (len(rows), 1, 8, 8), np.uint8)
    labels, classes, found = factors.combined(rows, NAMES, VALUES)
    return pack(images, labels, "paired", classes=classes, factors=found)


def test_combinations_are_classes_named_by_their_values() -> None:
    """Kills: columns exchanged, classes that do not occur, a table in another order than the names."""
    rows = np.array([[1, 0], [0, 2], [1, 0], [1, 1]])
    labels, classes, found = factors.combined(rows, NAMES, VALUES)
    assert classes == ("a slanted", "b thin", "b bold") and labels.tolist() == [1, 0, 1, 2]
    assert found.table.tolist() == [[0, 2], [1, 0], [1, 1]] and found.table[labels].tolist() == rows.tolist()
    assert found.rows().tolist() == [[0, 10], [1, 8], [1, 9]], "8 letters come before the faces"


def test_factors_are_read_back_and_nothing_else_is() -> None:
    """Kills: names for values, a value that the factor does not have, a table of another number of classes."""
    _, classes, found = factors.combined(np.array([[1, 0], [0, 2]]), NAMES, VALUES)
    tree = found.to_json()
    again = factors.from_json(tree, len(classes))
    assert again is not None and (again.names, again.values) == (NAMES, VALUES)
    assert torch.equal(again.table, found.table)
    broken = [
        None, {}, tree | {"names": []}, tree | {"names": ["letter"]}, tree | {"names": [1, 2]}, tree | {"values": "ab"},
        tree | {"values": [["a"], ["thin", "bold", "slanted"]]}, tree | {"table": [[1, 0]]},
        tree | {"table": [[1, 0], [0, 3]]}, tree | {"table": [[1, 0], [0, -1]]}, tree | {"table": [[1, 0], [0, True]]},
        tree | {"table": [[1, 0], [0]]}, tree | {"table": [[1, 0], 2]},
    ]  # fmt: skip
    assert [factors.from_json(one, 2) for one in broken] == [None] * len(broken)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_held_out_and_every_value_stays(seed: int) -> None:
    """A fifth of 24 pairs, none of them a letter's or a face's last, and of a letter with three pairs one at most.
    Kills: a split by class, which holds nothing out, one that takes a value away, shares of one factor only."""
    pictures = paired()
    train, test = split(pictures, fraction=0.2, seed=seed)
    table = pictures.factors.table  # pyright: ignore[reportOptionalMemberAccess]
    of_test, of_train = table[pictures.labels[test]], table[pictures.labels[train]]
    assert len(test) == 5 and len(train) == 19
    assert torch.bincount(of_test[:, 0], minlength=8).max() == 1 and torch.bincount(of_test[:, 1]).max() <= 2
    assert len(of_train[:, 0].unique()) == 8 and len(of_train[:, 1].unique()) == 3
    assert factors.untrained(pictures.labels[train], 24, pictures.factors) == [], "each of their parts is known"


def test_calibration_takes_no_value_away() -> None:
    """One face has two pictures only. Kills: calibration pictures chosen by class, or by the first factor alone."""
    pictures, config = paired(skip=tuple((a, 2) for a in range(2, 8))), presets.get("tiny")
    config = replace(config, data=replace(config.data, calibration=8, held_out=0.1))
    for seed in range(300):
        train, calibration, _ = split_pictures(replace(config, seed=seed), pictures)
        assert len(calibration) <= 2
        values = pictures.factors.table[pictures.labels[train]]  # pyright: ignore[reportOptionalMemberAccess]
        assert len(values[:, 0].unique()) == 8 and len(values[:, 1].unique()) == 3


def test_calibration_is_shared_out_as_what_is_held_out_is() -> None:
    """Nine pairs of 40 letters in 3 faces: no letter twice, each face its third. Kills: a choice by chance, whose
    letters are others than the held-out ones', shares of all that is not held out."""
    pairs = np.array([(a, b) for a in range(40) for b in range(3)])
    labels, classes, found = factors.combined(pairs, NAMES, ([f"letter {a}" for a in range(40)], VALUES[1]))
    images = np.random.default_rng(5).integers(0, 256, (120, 1, 8, 8), np.uint8)
    pictures = pack(images, labels, "paired", classes=classes, factors=found)
    config = presets.get("tiny")
    config = replace(config, data=replace(config.data, calibration=9, held_out=0.1))
    for seed in range(8):
        rows = split_pictures(replace(config, seed=seed), pictures)[1]
        assert len(rows) == 9
        assert torch.bincount(found.table[labels[rows], 0]).max() == 1
        assert torch.bincount(found.table[labels[rows], 1], minlength=3).max() <= 3


def test_untrained_are_those_with_a_value_nobody_saw() -> None:
    """Kills: a class called known by one of its two values, held-out pairs called unknown, plain classes forgotten."""
    pictures = paired(skip=((0, 0),))
    train = torch.tensor([row for row, name in enumerate(pictures.classes) if name in ("a bold", "b thin", "c bold")])
    known = {pictures.classes[one] for one in range(23)} - {
        pictures.classes[one] for one in factors.untrained(train, 23, pictures.factors)
    }
    assert known == {"a bold", "b thin", "b bold", "c thin", "c bold"}
    assert factors.untrained(torch.tensor([0, 2]), 23, None) == [1, *range(3, 23)]


def test_an_archive_with_a_row_of_labels_each(tmp_path) -> None:
    """Kills: a column dropped, names of the columns unread, labels of the wrong shape taken."""
    images = np.random.default_rng(2).integers(0, 256, (6, 8, 8), np.uint8)
    rows = np.array([[0, 2], [1, 0], [1, 1], [0, 0], [1, 2], [0, 1]])
    np.savez(tmp_path / "a.npz", images=images, labels=rows, factors=np.array(["shape", "hue"]))
    found = load(str(tmp_path / "a.npz"), size=8)
    assert found.factors is not None and found.factors.names == ("shape", "hue")
    assert found.classes == tuple(f"shape={a} hue={b}" for a in range(2) for b in range(3))
    assert found.factors.table[found.labels].tolist() == rows.tolist() and found.notes == ()
    assert headline(found).endswith("6 pictures of 8 x 8, grey, labels: 2 of shape and 3 of hue")
    np.savez(tmp_path / "b.npz", images=images, labels=rows)
    assert load(str(tmp_path / "b.npz"), size=8).factors.names == ("label0", "label1")  # pyright: ignore
    np.savez(tmp_path / "c.npz", images=images, labels=rows, factors=np.array(["shape"]))
    with pytest.raises(UserError, match="2 labels a picture and 1 names in 'factors'"):
        load(str(tmp_path / "c.npz"), size=8)
    np.savez(tmp_path / "d.npz", images=images, labels=rows[:5])
    with pytest.raises(UserError, match="one label each is needed, or a row of labels each"):
        load(str(tmp_path / "d.npz"), size=8)
    parts = {"x_train": images, "y_train": rows, "x_test": images[:2], "y_test": rows[:2, 0]}
    np.savez(tmp_path / "e.npz", **parts)
    with pytest.raises(UserError, match="other numbers of labels a picture"):
        load(str(tmp_path / "e.npz"), size=8)
