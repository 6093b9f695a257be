"""What is told of a set: its counts, its hash, its grey and its groups, each by another way."""

import numpy as np
import pytest
import torch
from PIL import Image

from unilat.signals import split, to_bytes, to_unit
from unilat.signals.collect import even_positions, nothing_left, reasons
from unilat.signals.pictures import digests, equal_groups, is_grey, joined, pack, with_channels


def colours(count: int, side: int = 2) -> np.ndarray:
    """uint8 ``[count, 3, side, side]``, drawn."""
    return np.random.default_rng(1).integers(0, 256, (count, 3, side, side), np.uint8)


def test_luma_is_the_weighted_mean_rounded() -> None:
    """``0.299 R + 0.587 G + 0.114 B`` to the nearest byte, in every part of 1,024. Kills: red and blue exchanged, a
    mean of the three, a floor, a part that is read or written in another's place."""
    images = colours(2050)
    exact = np.tensordot(np.array([0.299, 0.587, 0.114]), images.astype(np.float64), ([0], [1]))
    grey = with_channels(images, 1)
    assert grey.shape == (2050, 1, 2, 2) and np.abs(grey[:, 0] - exact).max() < 0.501
    assert np.array_equal(with_channels(grey, 3), np.repeat(grey, 3, 1))
    picture = Image.fromarray(images[7].transpose(1, 2, 0))
    assert np.array_equal(grey[7, 0], np.asarray(picture.convert("L")))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_pixel_of_one_channel_makes_a_set_coloured(channel: int) -> None:
    """Kills: two channels compared of three, pictures that are grey on the whole."""
    images = np.repeat(colours(5)[:, :1], 3, 1)
    assert is_grey(images)
    images[3, channel, 1, 0] ^= 1
    assert not is_grey(images)


def test_the_hash_is_of_shape_pixels_and_labels() -> None:
    """Kills: one picture of 4 × 4 that has the hash of one of 2 × 2 in four channels, a hash of the first pictures."""
    flat = np.arange(16, dtype=np.uint8)
    assert pack(flat.reshape(1, 4, 2, 2), None, "a").sha256 != pack(flat.reshape(1, 1, 4, 4), None, "a").sha256
    images = colours(3)
    again = pack(images.copy(), [0, 1, 0], "another name", classes=("x", "y"))
    assert pack(images, [0, 1, 0], "a", classes=("a", "b")).sha256 == again.sha256
    other = images.copy()
    other[2, 2, 1, 1] ^= 1
    assert pack(other, [0, 1, 0], "a", classes=("a", "b")).sha256 != again.sha256


def test_digests_are_equal_where_all_pixels_are() -> None:
    """Kills: a digest of a picture's first channel or row, one that is the place's."""
    images = colours(4)
    images[3] = images[0]
    images[2] = images[1]
    images[2, 2, 1, 1] ^= 1
    made = digests(images)
    assert [len(one) for one in made] == [16] * 4 and made[0] == made[3] and len(set(made)) == 3
    assert digests(np.flip(images, 0)) == made[::-1] and equal_groups(images).tolist() == [0, 1, 2, 0]


def test_json_counts_what_there_is() -> None:
    """Kills: counts of classes in another order or without the empty one, held out for not held out, groups counted by
    their largest number."""
    images = colours(7)
    images[5] = images[2]
    held_out = np.array([False, False, False, False, False, True, True])
    told = pack(images, [2, 2, 0, 2, 0, 0, 2], "made", classes=("a", "b", "c"), held_out=held_out).json()
    assert told["class_counts"] == {"a": 3, "b": 0, "c": 4}
    assert (told["count"], told["size"], told["channels"]) == (7, [2, 2], 3)
    assert told["groups"] == 6 and told["held_out"] == 2
    assert pack(images, None, "made").json()["held_out"] is None


def test_groups_are_joined_by_name_and_by_look() -> None:
    """Joined by hand: 0–2 by name, 2–5 by look, 5–1 by name; 3 and 4 alone. Kills: the numbering of one side only, a
    chain that is cut, numbers that are not the first index."""
    names, looks = np.array([10, 7, 10, 8, 9, 7]), np.array([0, 1, 2, 3, 4, 2])
    assert joined(names, looks).tolist() == [0, 0, 0, 3, 4, 0]
    assert joined(np.arange(6), looks).tolist() == [0, 1, 2, 3, 4, 2]
    assert joined(names, np.arange(6)).tolist() == [0, 1, 0, 3, 4, 1]


def test_the_unit_is_minus_one_to_one() -> None:
    """By hand: 0, 51, 204 and 255 are −1, −0.6, 0.6 and 1. Kills: 128 for 127.5, bytes that are cut and not rounded."""
    told = to_unit(torch.tensor([0, 51, 204, 255], dtype=torch.uint8))
    torch.testing.assert_close(told, torch.tensor([-1.0, -0.6, 0.6, 1.0]), rtol=0, atol=1e-6)
    assert to_bytes(torch.tensor([-1.01, -0.999, 0.0196, 0.9999, 1.5])).tolist() == [0, 0, 130, 255, 255]


def test_positions_are_even_and_keep_both_sides() -> None:
    """By hand. Kills: the first ones, one too many, a step that is rounded first, a side that is lost."""
    assert even_positions(10, 4) == [0, 2, 5, 7] and even_positions(3, None) == even_positions(3, 9) == [0, 1, 2]
    assert even_positions(7, 7) == list(range(7))
    last = [False] * 9 + [True]
    assert even_positions(10, 4, last) == [0, 2, 5, 9] and even_positions(10, 1, last) == [0]
    assert even_positions(10, 4, [not one for one in last]) == [0, 2, 5, 9]
    assert even_positions(10, 4, [False] * 7 + [True] * 3) == [0, 2, 5, 7]


def test_reasons_are_counted_by_kind() -> None:
    """Kills: reasons told apart by their numbers, rare ones dropped without a count, a smallest size for a largest."""
    skipped = [("a", "smaller than 16: 9 x 20"), ("b", "smaller than 16: 12 x 14"), ("c", "truncated")]
    assert reasons(skipped) == "2 smaller than 16, 1 truncated"
    many = [(f"{k}", kind) for k, kind in enumerate("aaaabbbccdef")]
    assert reasons(many) == "4 a, 3 b, 2 c, 1 d, 2 other"
    assert nothing_left("x", skipped, (16, 16)).endswith("choose data.size 12 or less")


def test_held_out_are_drawn_and_not_the_first() -> None:
    """Of an official test and of an unsplit source: a seeded choice over the whole range. Kills: the first ``at_most``,
    one choice for every seed, one fewer than asked for."""
    images = np.arange(400, dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 2)
    for held_out in (None, np.arange(400) >= 200):
        pictures = pack(images, None, "made", held_out=held_out)
        chosen = [split(pictures, at_most=30, seed=seed)[1] for seed in (0, 1)]
        assert [len(one) for one in chosen] == [30, 30] and not torch.equal(*chosen)
        low, high = (0, 400) if held_out is None else (200, 400)
        middle = (low + high) / 2
        assert all(abs(float(one.float().mean()) - middle) < (high - low) / 6 for one in chosen)
        assert all(
            int(one.min()) < low + (high - low) / 5 and int(one.max()) > high - (high - low) / 5 for one in chosen
        )


def test_the_share_is_of_each_class() -> None:
    """100, 50 and 10 at a tenth are 10, 5 and 1; together at most 12 where so few are asked for. Kills: a share of all
    that one class pays, a share that is not used up."""
    labels = [0] * 100 + [1] * 50 + [2] * 10
    images = np.arange(160, dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 2)
    pictures = pack(images, labels, "made", classes=("a", "b", "c"))
    for seed in range(3):
        train, test = split(pictures, seed=seed)
        assert pictures.labels[test].bincount().tolist() == [10, 5, 1] and len(train) == 144
        assert len(split(pictures, at_most=12, seed=seed)[1]) == 12
        assert pictures.labels[split(pictures, fraction=0.5, seed=seed)[1]].bincount().tolist() == [50, 25, 5]


def test_no_class_loses_all_and_no_group_is_too_large_for_its_class() -> None:
    """Ten classes of one picture are trained on; a class of four groups of five, whose share is two, gives none. Kills:
    a class that is only tested, a group counted as one picture."""
    images = np.arange(200, dtype=np.uint32).view(np.uint8).reshape(-1, 1, 2, 2)
    singles = pack(images[:40], [0] * 30 + list(range(1, 11)), "made", classes=tuple("abcdefghijk"))
    groups = [min(index // 5, 4) if index < 20 else index for index in range(200)]
    crowded = pack(images, [0] * 20 + [1] * 180, "made", classes=("a", "b"), groups=groups)
    for seed in range(4):
        assert singles.labels[split(singles, seed=seed)[1]].tolist() == [0, 0, 0]
        assert crowded.labels[split(crowded, seed=seed)[1]].tolist() == [1] * 18


def test_the_note_counts_all_that_is_not_trained_on() -> None:
    """Of a group that a source gives as of equal bytes, as many as the split leaves out. Kills: a note that counts
    equal bytes only."""
    images = colours(10)
    images[1] = images[8]
    groups = [0, 1, 2, 3, 4, 5, 6, 7, 8, 2]  # the source says 2 and 9 are one, the bytes that 1 and 8 are
    official = pack(images, None, "made", groups=groups, held_out=np.arange(10) >= 8)
    train, test = split(official)
    assert (train.tolist(), test.tolist()) == ([0, 3, 4, 5, 6, 7], [8, 9])
    assert official.notes == (
        "1 of 10 pictures are exact copies of another; no split parts them",
        "2 training picture(s) have a copy among the source's test pictures: not trained on",
    )
