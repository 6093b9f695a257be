"""The catalogue's readers on small folders that look like the packages: which label belongs to which picture."""

import numpy as np
import pytest
import torch

from unilat.signals import CATALOGUE, catalogue, glyphs, load
from unilat.signals.cache import cached_arrays

from . import samples


@pytest.fixture
def laid(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """A function that makes a folder the one of every name; the cache is the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))

    def lay(folder) -> None:
        monkeypatch.setattr(catalogue, "need", lambda name: folder)

    return lay


def test_unicode_categories_are_the_classes(tmp_path, laid) -> None:
    """Every name's picture and class, though emoji.json lists them in another order; a skin tone in the class and group
    of its emoji. Kills: labels in the order of emoji.json, classes unsorted, tones left out or apart."""
    laid(samples.datasource(tmp_path / "set", "google"))
    pictures = load("emoji-google", size=16)
    assert pictures.classes == ("Animals", "Travel") and len(pictures) == samples.COUNT + 1
    place = {name: index for index, name in enumerate(pictures.names)}
    assert [f"{name}.png" for name in place] == sorted(f"{name}.png" for name in place)
    for number in (0, 1, 9, 70):
        index = place[f"1f6{number:02x}"]
        assert np.array_equal(pictures.images[index].numpy().transpose(1, 2, 0), samples.pictures()[number])
        assert pictures.classes[pictures.labels[index]] == ("Travel", "Animals")[number % 2]
    tone = place["1f600-1f3fb"]
    assert np.array_equal(pictures.images[tone].numpy().transpose(1, 2, 0), 255 - samples.pictures()[0])
    assert pictures.classes[pictures.labels[tone]] == "Travel"
    assert pictures.groups[tone] == pictures.groups[place["1f600"]] != pictures.groups[place["1f601"]]
    assert pictures.class_counts() == {"Animals": 42, "Travel": 43}


def test_fluent_emoji_have_groups_and_no_classes(tmp_path, laid) -> None:
    """Kills: a tone in a group of its own, files in another order than their names."""
    laid(samples.fluent(tmp_path / "set"))
    pictures = load("emoji", size=16)
    assert pictures.classes == () and pictures.labels.unique().tolist() == [0]
    plain, tone = (pictures.names.index(stem) for stem in ("1f603", "1f603-1f3fd"))
    assert pictures.groups[plain] == pictures.groups[tone]
    assert np.array_equal(pictures.images[tone].numpy().transpose(1, 2, 0), samples.pictures()[45])


def test_cells_are_told_by_kind_and_odds(tmp_path, laid) -> None:
    """Kills: odds that are cut and not rounded, kinds and odds exchanged, classes in the order they are met."""
    laid(samples.solar(tmp_path / "set"))
    pictures = load("solar", size=8)
    assert pictures.classes == ("mono, defect 67%", "poly, defect 0%", "poly, defect 100%")
    assert pictures.labels[:6].tolist() == [2, 0, 1, 2, 0, 1] and pictures.channels == 1
    assert pictures.names[5] == "cell0005" and pictures.converted == {"resized": samples.COUNT}


def test_sizes_and_sets_do_not_share_a_place_in_the_cache(tmp_path, laid, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a key of the cache without the size or the set: pictures of an earlier call under another name."""
    for vendor in ("google", "twitter"):
        folder = samples.datasource(tmp_path / f"{vendor}-1", vendor)
        if vendor == "twitter":
            for file in (folder / "package" / "img" / vendor / "64").glob("1f602.png"):
                file.write_bytes(samples.png(np.full((16, 16, 3), (1, 2, 3), np.uint8)))
        laid(folder)
        for size in (16, 8):
            pictures = load(f"emoji-{vendor}", size=size)
            same = pictures.images[pictures.names.index("1f602"), :, 0, 0].tolist() == [1, 2, 3]
            assert pictures.size == (size, size) and same == (vendor == "twitter")
    monkeypatch.setattr(glyphs, "faces", lambda: (("Sans", "DejaVuSans.ttf"),))
    assert [load("glyphs", size=size).size for size in (16, 24, (16, 24), 16)] == [
        (16, 16),
        (24, 24),
        (16, 24),
        (16, 16),
    ]


def test_the_cache_keeps_what_was_made(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each array under its name, made once a key, and no temporary file on a disk that is full. Kills: one array for
    all names, a cache that is never read, or one that is read for every key."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(len(made))
        return {"a": np.arange(3) + len(made), "b": np.arange(2)}

    for key, first in (("one", 1), ("one", 1), ("two", 2)):
        arrays = cached_arrays(key, make)
        assert arrays["a"].tolist() == [first, first + 1, first + 2] and arrays["b"].tolist() == [0, 1]
    assert len(made) == 2

    def full(*names: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert cached_arrays("three", make)["a"].tolist() == [3, 4, 5]
    assert sorted(path.name for path in (tmp_path / "cache" / "arrays").iterdir()) == ["one.npz", "two.npz"]


def test_fewer_and_in_grey_the_rest_stays_true(tmp_path, laid) -> None:
    """Every field of what is left is that of the picture it belongs to. Kills: names, labels or groups of the first,
    counts of conversions of pictures that are not there any more."""
    laid(samples.datasource(tmp_path / "set", "google"))
    whole, some = load("emoji-google", size=8), load("emoji-google", size=8, limit=20)
    places = [whole.names.index(name) for name in some.names]
    assert places == [position * 85 // 20 for position in range(20)]
    assert torch.equal(some.images, whole.images[places]) and torch.equal(some.labels, whole.labels[places])
    together = whole.groups[places][:, None] == whole.groups[places]
    assert torch.equal(some.groups[:, None] == some.groups, together)
    assert whole.converted == {"resized": 85} and some.converted == {"resized": 20}
    grey = load("emoji-google", size=8, channels=1, limit=20)
    assert grey.converted == {"colour to grey": 20, "resized": 20} and grey.names == some.names
    odd = samples.png(np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "set" / "package" / "img" / "google" / "64" / "1f605.png").write_bytes(odd)
    (tmp_path / "cache" / "arrays" / "set-v2-8.npz").unlink()
    assert load("emoji-google", size=8, limit=20).converted == {"resized (before the limit)": 84}


@pytest.mark.parametrize("asked", [{"limit": 80}, {"channels": 1}])
def test_a_thinner_set_still_knows_its_tones(tmp_path, laid, asked: dict[str, int]) -> None:
    """A tone that is kept beside its emoji stays in that one's group, though no byte of theirs is equal. Kills: groups
    made anew from the pixels where a set is cut or made grey, so that one emoji may stand on both sides of a split."""
    laid(samples.datasource(tmp_path / "set", "google"))
    pictures = load("emoji-google", size=16, **asked)
    assert pictures.names is not None and len(pictures) == asked.get("limit", 85)
    plain, tone, other = (pictures.names.index(stem) for stem in ("1f600", "1f600-1f3fb", "1f601"))
    assert pictures.groups[plain] == pictures.groups[tone] != pictures.groups[other]


def test_digits_are_sixteenths() -> None:
    """scikit-learn's 0 to 16 become 0 to 255, to the nearest; its order and labels stay. Kills: 256 levels, a floor, a
    border on one side."""
    sklearn = pytest.importorskip("sklearn.datasets")
    values, labels = sklearn.load_digits(return_X_y=True)
    pictures = load("digits")
    assert np.abs(pictures.images.numpy().reshape(-1, 64) - values * 255 / 16).max() <= 0.5
    assert pictures.labels.tolist() == labels.tolist() and pictures.classes == tuple("0123456789")
    larger = load("digits", size=13)
    assert torch.equal(larger.images[:, :, 2:10, 2:10], pictures.images) and larger.converted == {"padded from 8": 1797}


@pytest.mark.parametrize("name", ["glyphs", "digits"])
def test_the_catalogue_counts_rightly(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number in a set's line is the number of pictures. Kills: a count that an older package had, letters that are
    let in or left out, an older drawing that lies in the cache."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    if name == "digits":
        pytest.importorskip("sklearn")
    pictures = load(name, size=8)
    assert CATALOGUE[name].what.startswith(f"{len(pictures):,} ") and pictures.channels == 1
