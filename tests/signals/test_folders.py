"""Folders: classes, order, split folders, limits, and the one line for each thing that is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from unilat.signals import load, split
from unilat.signals import pictures as pictures_module
from unilat.types import UserError


def write(folder, name, value=0, size=(16, 16), mode="L"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_subfolders_are_classes_sorted_by_number(tmp_path):
    """Kills: order of the file system, text order of numbers, deeper folders as classes of their own."""
    for name in ("10/a.png", "2/b.png", "2/deep/c.png", "1/z.png", "1/a.png"):
        write(tmp_path, name, value=len(name))
    pictures = load(str(tmp_path), size=16)
    assert pictures.classes == ("1", "2", "10")
    assert pictures.names == ("1/a.png", "1/z.png", "10/a.png", "2/b.png", "2/deep/c.png")
    assert pictures.labels.tolist() == [0, 0, 2, 1, 1]
    assert pictures.class_counts() == {"1": 2, "2": 2, "10": 1}
    assert any("one picture" in note and "'10'" in note for note in pictures.notes)


def test_flat_folder_has_no_classes_and_mixed_one_has_a_dot(tmp_path):
    """Kills: one class invented for a flat folder, pictures beside class folders that are lost."""
    write(tmp_path / "flat", "a.png")
    write(tmp_path / "flat", "b.png", 9)
    assert load(str(tmp_path / "flat"), size=16).classes == ()
    write(tmp_path / "flat", "cats/c.png")
    mixed = load(str(tmp_path / "flat"), size=16)
    assert mixed.classes == (".", "cats") and mixed.labels.tolist() == [0, 0, 1]


def test_train_and_test_folders_are_the_split(tmp_path):
    """Kills: 'train' and 'test' read as two classes."""
    for number in range(4):
        write(tmp_path, f"train/cat/{number}.png", number)
        write(tmp_path, f"train/dog/{number}.png", 50 + number)
    write(tmp_path, "test/dog/9.png", 99)
    pictures = load(str(tmp_path), size=16)
    train, test = split(pictures)
    assert pictures.classes == ("cat", "dog") and len(train) == 8
    assert [pictures.names[i] for i in test] == ["test/dog/9.png"]


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_other_names_of_the_test_folder(tmp_path, name):
    """Kills: a held-out folder whose pictures are trained on as a class of their own."""
    for number in range(3):
        write(tmp_path, f"train/cat/{number}.png", number)
        write(tmp_path, f"{name}/cat/{number}.png", 50 + number)
    pictures = load(str(tmp_path), size=16)
    assert pictures.classes == ("cat",)
    assert [pictures.names[index].split("/")[0] for index in split(pictures)[1]] == [name] * 3
    assert {pictures.names[index].split("/")[0] for index in split(pictures)[0]} == {"train"}


def test_class_without_a_readable_picture_is_told(tmp_path):
    """Kills: a class of no pictures, or one that goes without a word."""
    write(tmp_path, "good/a.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_text("no picture")
    pictures = load(str(tmp_path), size=16)
    assert pictures.classes == ("good",) and any("bad" in note for note in pictures.notes)
    assert pictures.skipped[0][0] == "bad/x.png"


def test_grey_stays_one_channel_and_colour_wins(tmp_path):
    """Kills: three channels for grey pictures, colour lost where some are grey, another luma, counts of the other
    files."""
    write(tmp_path, "a.png", 7)
    write(tmp_path, "b.png", (9, 9, 9), mode="RGB")
    assert load(str(tmp_path), size=16).images.shape == (2, 1, 16, 16)
    assert load(str(tmp_path), size=16, channels=3).images.shape == (2, 3, 16, 16)
    write(tmp_path, "c.png", (10, 100, 200), mode="RGB")
    mixed = load(str(tmp_path), size=16)
    assert mixed.channels == 3 and mixed.converted["grey to colour"] == 1
    assert mixed.images[0].unique().tolist() == [7]
    grey = load(str(tmp_path), size=16, channels=1)
    luma = Image.new("RGB", (1, 1), (10, 100, 200)).convert("L").getpixel((0, 0))
    assert grey.images[2].unique().tolist() == [luma] and grey.converted["colour to grey"] == 2


def test_limit_is_spread_over_the_sorted_list(tmp_path):
    """Kills: the first files, all of one class."""
    for number in range(20):
        write(tmp_path, f"{'ab'[number // 10]}/{number:02}.png", number)
    assert load(str(tmp_path), size=16, limit=4).class_counts() == {"a": 2, "b": 2}


def test_some_smaller_are_skipped_all_smaller_is_an_error(tmp_path):
    """Kills: pictures that are enlarged, advice that does not fit."""
    write(tmp_path, "small.png", size=(20, 9))
    with pytest.raises(UserError) as error:
        load(str(tmp_path), size=16)
    one_line(error, str(tmp_path), "smaller than 16", "data.size 9")
    write(tmp_path, "large.png", size=(40, 30))
    assert load(str(tmp_path), size=16).skipped == (("small.png", "smaller than 16: 9 x 20"),)


def test_empty_and_unreadable_folders_say_so(tmp_path):
    """Kills: a run without pictures, a traceback, a count of what could not be read that is off."""
    with pytest.raises(UserError) as error:
        load(str(tmp_path), size=16)
    one_line(error, str(tmp_path), "empty")
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("no picture")
    with pytest.raises(UserError) as error:
        load(str(tmp_path), size=16)
    one_line(error, "none of 3", "3 not a picture")
    (tmp_path / "only-hidden").mkdir()
    (tmp_path / "only-hidden" / ".x").write_text("")
    with pytest.raises(UserError) as error:
        load(str(tmp_path / "only-hidden"), size=16)
    one_line(error, "only-hidden")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("glyfs", ["perhaps you meant glyphs"]),
        ("/no/such/place", ["no such file", "glyphs"]),
        ("/dev/null", ["neither a folder nor a regular file"]),
        (__file__, ["a file of this kind is not read"]),
    ],
)
def test_sources_that_are_none(source, words):
    """Kills: a misspelt name taken for a path without a hint, a device that is opened."""
    with pytest.raises(UserError) as error:
        load(source, size=16)
    one_line(error, *words)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 99_999}, {"size": 8, "channels": 2}])
def test_impossible_sizes_are_refused(options):
    """Kills: a picture of no pixels, or of two channels."""
    with pytest.raises(UserError):
        load("glyphs", **options)


def test_sets_larger_than_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    """Kills: a MemoryError, or the kernel's killer, in the place of a line."""
    write(tmp_path, "a.png", size=(64, 64))
    monkeypatch.setattr(pictures_module, "available_bytes", lambda: 1000)
    with pytest.raises(UserError) as error:
        load(str(tmp_path), size=64)
    one_line(error, "GiB are free", "data.size")


def test_one_process_many_files_in_order(tmp_path):
    """Kills: results taken as the threads finish."""
    chooser = np.random.default_rng(0)
    values = chooser.integers(0, 256, 150)
    for number, value in enumerate(values):
        side = int(chooser.integers(16, 200))
        write(tmp_path, f"{number:03}.png", int(value), size=(side, side))
    seen = []
    pictures = load(str(tmp_path), size=16, progress=lambda done, total, what: seen.append((done, total)))
    assert pictures.images[:, 0, 0, 0].tolist() == values.tolist()
    assert seen == [(64, 150), (128, 150)]
