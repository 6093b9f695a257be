"""Which pictures a set holds out by the names of its parts, and which links lead to pictures."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilat.signals import Pictures, load, look, split
from unilat.signals.memory import InMemory
from unilat.signals.parts import folder_side, placed, word_side
from unilat.signals.source import open_source
from unilat.signals.stream import Streamed
from unilat.types import UserError

from .samples import png
from .streams import add

CHOOSER = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are kept in a folder of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(path: Path) -> None:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(CHOOSER.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def read(folder: Path) -> dict[str, tuple[str, bool]]:
    """name -> (class, held out): the same in memory and as a stream, or the test ends here."""
    found = []
    memory = load(str(folder), size=8)
    for source in (memory, open_source(str(folder), size=8, memory_budget=0)):
        names = (
            source.names or ()
            if isinstance(source, Pictures)
            else source.names(source.labels.new_tensor(range(len(source))))
        )
        held = [False] * len(source) if source.held_out is None else source.held_out.tolist()
        classes = [source.classes[label] if source.classes else "" for label in source.labels.tolist()]
        found.append(dict(zip(names, zip(classes, held, strict=True), strict=True)))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    "held_out",
    [
        "test",
        "Test",
        "TESTING",
        "val",
        "valid",
        "validation",
        "dev",
        "Eval",
        "holdout",
        "val2017",
        "test_images",
        "dev-set",
    ],
)
@pytest.mark.parametrize("trained", ["train", "Train", "training"])
def test_folders_that_are_parts_of_a_split(tmp_path: Path, trained: str, held_out: str) -> None:
    """Kills: a name, or a way to write it, whose pictures are trained on as a class of their own."""
    for part in (trained, held_out):
        for name in "ab":
            write(tmp_path / part / name / "1.png")
    expected = {f"{trained}/{name}/1.png": (name, False) for name in "ab"}
    assert read(tmp_path) == expected | {f"{held_out}/{name}/1.png": (name, True) for name in "ab"}


@pytest.mark.parametrize(
    "names",
    [("train", "tests of strength"), ("train", "valley"), ("trainer", "test"), ("test", "val"), ("devil", "training")],
)
def test_folders_that_are_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    """Kills: a word that only begins like a part's name; a test part that is held out beside nothing to train on."""
    for name in names:
        write(tmp_path / name / "1.png")
    assert read(tmp_path) == {f"{name}/1.png": (name, False) for name in names}
    told = load(str(tmp_path), size=8).notes
    parts = [name for name in sorted(names) if folder_side(name)]
    line = (
        f"{', '.join(map(repr, parts))}: trained on as a class, as no train and test (or val, dev) stand side by side"
    )
    assert (line in told) == bool(parts)


def test_a_split_that_lies_deeper(tmp_path: Path) -> None:
    """The only one: classes begin below it. Several, one in each class: it is the folder they lie in. Kills: validation
    trained on because its folder is not the first of the path."""
    for name in ("train/a/1.png", "val/b/2.png"):
        write(tmp_path / "one" / "photos" / name)
    assert read(tmp_path / "one") == {"photos/train/a/1.png": ("a", False), "photos/val/b/2.png": ("b", True)}
    for name in ("cup/train/good/1.png", "cup/test/bad/2.png", "nut/train/good/3.png", "nut/test/4.png", "top/5.png"):
        write(tmp_path / "many" / name)
    assert read(tmp_path / "many") == {
        "cup/train/good/1.png": ("cup", False),
        "cup/test/bad/2.png": ("cup", True),
        "nut/train/good/3.png": ("nut", False),
        "nut/test/4.png": ("nut", True),
        "top/5.png": ("top", False),
    }


def test_what_stands_beside_a_split_is_trained_on(tmp_path: Path) -> None:
    """Under its own name. Kills: other folders and single pictures held out, or lost."""
    for name in ("train/a/1.png", "test/a/2.png", "more/3.png", "4.png", "train/5.png"):
        write(tmp_path / name)
    assert read(tmp_path) == {
        "train/a/1.png": ("a", False),
        "test/a/2.png": ("a", True),
        "more/3.png": ("more", False),
        "4.png": (".", False),
        "train/5.png": (".", False),
    }


def test_words_of_files_and_arrays() -> None:
    """By hand. Kills: parts of words taken for words, the last word in place of the first."""
    sides = {
        "train-00000-of-00001.parquet": "train",
        "imagenet1k-validation-07.tar": "test",
        "Dev_0.tar": "test",
        "val2017.tar": "test",
        "cifar_train.test.tar": "train",
        "latest-00.tar": "",
        "trainer.tar": "",
        "00001.tar": "",
        "x_test": "test",
        "train_images": "train",
    }
    assert {name: word_side(name) for name in sides} == sides
    assert placed(("train", "a.png"), frozenset()) == ("train", False)


@pytest.mark.parametrize("names", [("train-0", "valid-0"), ("Train-0", "Test-0"), ("set-train-0", "set-dev-0")])
def test_files_that_are_parts_of_a_split(tmp_path: Path, names: tuple[str, str]) -> None:
    """Tar shards and Parquet. Kills: the file's name looked at in small letters or at its beginning alone."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    for number, name in enumerate(names):
        content = [png(CHOOSER.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(2 + number)]
        for place in ("shards", "tables"):
            (tmp_path / place).mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pa.table({"image": content}), tmp_path / "tables" / f"{name}.parquet")
        with tarfile.open(tmp_path / "shards" / f"{name}.tar", "w") as out:
            for row, one in enumerate(content):
                add(out, f"{row}.png", one)
    for place in ("shards", "tables"):
        train, test = split(load(str(tmp_path / place), size=8))
        assert (len(train), len(test)) == (2, 3)


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    """Class folders that lie elsewhere, a part of a split, and what lies below a link. Kills: links left out."""
    for name in ("cats/1.png", "cats/old/2.png", "dogs/3.png"):
        write(tmp_path / "elsewhere" / name)
    (tmp_path / "set" / "train").mkdir(parents=True)
    write(tmp_path / "held" / "cats" / "4.png")
    for name in ("cats", "dogs"):
        (tmp_path / "set" / "train" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "set" / "test").symlink_to(os.path.relpath(tmp_path / "held", tmp_path / "set"))
    assert read(tmp_path / "set") == {
        "train/cats/1.png": ("cats", False),
        "train/cats/old/2.png": ("cats", False),
        "train/dogs/3.png": ("dogs", False),
        "test/cats/4.png": ("cats", True),
    }


def test_no_link_leads_round_in_a_circle(tmp_path: Path) -> None:
    """Each folder is read once, and a link that is not followed is told. Kills: an endless walk, pictures read twice,
    links that double what is read at each of thirty steps."""
    write(tmp_path / "set" / "a" / "1.png")
    write(tmp_path / "out" / "2.png")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "set" / "a" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "above").symlink_to(tmp_path)
    (tmp_path / "set" / "b").symlink_to(tmp_path / "out")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "set" / "a")
    (tmp_path / "out" / "self").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "chain").symlink_to(tmp_path / "chain0")
    for number in range(30):
        (tmp_path / f"chain{number}").mkdir()
        for name in "xy":
            (tmp_path / f"chain{number}" / name).symlink_to(tmp_path / f"chain{number + 1}")
    write(tmp_path / "chain30" / "3.png")
    deep = "b/chain/" + "x/" * 30 + "3.png"
    assert read(tmp_path / "set") == {"a/1.png": ("a", False), "b/2.png": ("b", False), deep: ("b", False)}
    told = dict(load(str(tmp_path / "set"), size=8).skipped)
    assert told["again"] == told["a/round"] == told["b/back"] == "link to a folder of this set, which is read there"
    assert told["above"] == "link to a folder that holds this set, not followed"
    assert told["c"] == told["b/self"] == "link to a folder that another link has led to, not followed"
    assert len(told) == 6 + 30
    assert json.loads(json.dumps(told)) == told


def alike(folder: Path, count: int, ending: str = "png") -> Path:
    """``train/`` of six pictures, ``test/`` of four: the first ``count`` of them copies of the first trained on."""
    pictures = CHOOSER.integers(0, 256, (10, 8, 8, 3), np.uint8)
    pictures[6 : 6 + count] = pictures[:count]
    for number, one in enumerate(pictures):
        name = f"train/a/{number}.png" if number < 6 else f"test/a/{number}.{ending}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / name)
    return folder


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_no_copy_of_what_is_held_out_is_trained_on(tmp_path: Path, budget: int) -> None:
    """In memory and as a stream. Kills: a test part that was trained on in copies and is told as held out, numbers of
    the other part."""
    folder = alike(tmp_path / "set", 3)
    source = open_source(str(folder), size=8, memory_budget=budget)
    pictures = source.pictures if isinstance(source, InMemory) else source
    train, test = split(pictures)
    assert source.names(train) == [f"train/a/{number}.png" for number in (3, 4, 5)]
    assert source.names(test) == [f"test/a/{number}.png" for number in (6, 7, 8, 9)]
    assert source.notes == (
        "3 of 10 pictures are exact copies of another; no split parts them",
        "3 training picture(s) have a copy among the source's test pictures: not trained on",
    )


def test_a_train_part_of_copies_alone(tmp_path: Path) -> None:
    """`data look` says it before a run is refused. Kills: two parts alike told as trained on and held out."""
    folder = alike(tmp_path / "set", 3)
    for number in (3, 4, 5):
        (folder / "train" / "a" / f"{number}.png").unlink()
    told = "training picture(s) have a copy among the source's test pictures: not trained on, and none is left"
    lines = look(str(folder), size=8).lines()
    assert (
        f"3 {told}: take the copies out" in lines
        and "3 of 7 pictures are exact copies of another; no split parts them" in lines
    )
    with pytest.raises(UserError, match="every training picture has a copy"):
        split(load(str(folder), size=8))


def test_copies_in_other_files_are_seen_in_memory_alone(tmp_path: Path) -> None:
    """A stream compares bytes of files, as docs/data.md says. Kills: a page that promises what costs decoding all."""
    folder = alike(tmp_path / "set", 3, "bmp")
    assert len(load(str(folder), size=8).notes) == 2 and len(split(load(str(folder), size=8))[0]) == 3
    streamed = open_source(str(folder), size=8, memory_budget=0)
    assert streamed.notes == () and isinstance(streamed, Streamed) and len(split(streamed)[0]) == 6
