"""The split: a pure function of a seed, whole groups, every class trained on."""

import tracemalloc

import numpy as np
import pytest
import torch

from unilat.signals import split, to_bytes, to_unit
from unilat.signals.pictures import Pictures, pack
from unilat.types import UserError


def pictures(labels, groups=None, held_out=None, classes=None):
    images = np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 2)  # all differ
    names = classes or tuple(str(k) for k in range(max(labels) + 1))
    return pack(images, labels, "made", classes=names, groups=groups, held_out=held_out)


def test_split_is_a_partition_by_whole_groups_and_replays():
    """Kills: a split by picture (near-duplicates on both sides), a split from the global random state."""
    labels = [k % 3 for k in range(300)]
    groups = [k // 7 for k in range(300)]
    train, test = split(pictures(labels, groups), seed=3)
    assert sorted(train.tolist() + test.tolist()) == list(range(300))
    assert not {groups[i] for i in train.tolist()} & {groups[i] for i in test.tolist()}
    assert 15 <= len(test) <= 30
    torch.manual_seed(1)
    again = split(pictures(labels, groups), seed=3)
    assert torch.equal(train, again[0]) and torch.equal(test, again[1])
    assert not torch.equal(test, split(pictures(labels, groups), seed=4)[1])


def test_every_class_is_in_proportion_and_keeps_one_to_train_on():
    """Kills: a plain random tenth, which drops small classes or takes all of them."""
    labels = [0] * 500 + [1] * 40 + [2] * 2 + [3]
    train, test = split(pictures(labels), seed=0)
    held = torch.tensor(labels)[test].bincount(minlength=4).tolist()
    kept = torch.tensor(labels)[train].bincount(minlength=4).tolist()
    assert held[3] == 0 and kept[3] == 1 and min(kept) >= 1
    assert held[0] in range(45, 51) and held[1] in range(3, 5) and held[2] <= 1


def test_at_most_and_official_test_pictures():
    """Kills: more held out than asked for, an official test picture trained on, train and test exchanged."""
    assert len(split(pictures([0] * 400), fraction=0.5, at_most=30)[1]) == 30
    held_out = np.arange(100) >= 60
    train, test = split(pictures([0] * 100, held_out=held_out), at_most=10)
    assert train.tolist() == list(range(60)) and len(test) == 10 and test.min() >= 60


@pytest.mark.parametrize("labels", [[0], [0, 1, 2]])
def test_nothing_to_hold_out_is_told(labels):
    """Kills: an empty test set, or a class that loses its only picture."""
    with pytest.raises(UserError, match="nothing to hold out"):
        split(pictures(labels))


def test_one_group_of_all_is_told():
    """Kills: near-duplicates divided where there is nothing else."""
    with pytest.raises(UserError, match="nothing to hold out"):
        split(pictures([0] * 9, groups=[4] * 9))


def test_bytes_and_units_are_inverse():
    """Kills: a byte that comes back as its neighbour, values beyond the range that wrap around."""
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_bytes(to_unit(every)), every)
    assert to_unit(every).min() == -1 and to_unit(every).max() == 1
    assert to_bytes(torch.tensor([-9.0, 9.0, 0.0])).tolist() == [0, 255, 128]


def test_copies_share_a_group_and_a_side():
    """Kills: a copy of a training picture among those held out."""
    images = np.arange(50, dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 2)
    doubled = pack(np.concatenate([images, images]), None, "made")
    assert torch.equal(doubled.groups[:50], doubled.groups[50:])
    train, test = split(doubled)
    assert not {i % 50 for i in train.tolist()} & {i % 50 for i in test.tolist()} and len(test) == 10


def test_hash_sees_pixels_and_labels():
    """Kills: a run that goes on with other labels or another pixel."""
    first = pictures([0, 1, 1])
    assert first.sha256 == pictures([0, 1, 1]).sha256 != pictures([0, 1, 0]).sha256
    other = first.images.numpy().copy()
    other[2, 0, 1, 1] = 1
    assert pack(other, [0, 1, 1], "made", classes=("0", "1")).sha256 != first.sha256


def test_a_split_of_many_makes_no_object_a_picture():
    """Of 100,000 pictures. Kills: an object for each group at once, 600 bytes a picture."""
    count = 100_000
    images = torch.zeros(count, 1, 1, 1, dtype=torch.uint8)
    many = Pictures(images, torch.arange(count) % 10, (), torch.arange(count), None, None, "made")
    split(many)
    tracemalloc.start()
    try:
        _, test = split(many)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(test) == 2000 and peak < 10 * count
