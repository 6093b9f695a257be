"""The contact sheet and the counts."""

import importlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from unilat.cli import main
from unilat.signals import load, look
from unilat.types import UserError

from .samples import COUNT
from .streams import shards

look_module = importlib.import_module("unilat.signals.look")


def write(folder, name, colour, side=20):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


def test_look_counts_and_draws(tmp_path):
    """Kills: skipped pictures that are not told, a sheet without the pictures' colours."""
    for number in range(3):
        write(tmp_path / "in", f"red/{number}.png", (200 + number, 0, 0))
        write(tmp_path / "in", f"blue/{number}.png", (0, 0, 200 + number), side=33)
    write(tmp_path / "in", "one/x.png", (0, 200, 0))
    (tmp_path / "in" / "red" / "bad.png").write_text("no")
    seen = look(str(tmp_path / "in"), size=16, out=tmp_path / "out" / "sheet.png")
    told = json.loads(json.dumps(seen.json()))
    assert told["read"] == 7 and told["skipped_count"] == 1 and told["class_counts"] == {"blue": 3, "one": 1, "red": 3}
    assert told["converted"] == {"resized": 7} and len(told["sha256"]) == 64
    assert told["skipped"][0][0] == "red/bad.png" and sum(told["skipped_reasons"].values()) == 1
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
    assert {(201, 0, 0), (0, 0, 202), (0, 200, 0)} <= colours
    text = "\n".join(seen.lines())
    assert "7 pictures of 16 x 16, colour, 3 classes" in text and "red/bad.png: not a picture" in text
    assert "one picture" in text and [path.name for path in (tmp_path / "out").iterdir()] == ["sheet.png"]


def test_every_count_of_a_look(tmp_path, monkeypatch):
    """By hand: 25 classes, of which one has sixteen pictures and one two, and 13 files that are skipped. Kills: a class
    shown without its count, skipped files counted after the first ten, reasons added up wrongly, held-out for all."""
    for number in range(25):
        write(tmp_path / "in", f"train/c{number:02}/a.png", (10 * number, 0, 7))
    write(tmp_path / "in", "train/c03/b.png", (9, 9, 9), side=16)
    for number in range(15):
        write(tmp_path / "in", f"test/c00/{number}.png", (0, 90 + number, 0), side=16)
    for number in range(12):
        (tmp_path / "in" / "train" / f"bad{number:02}.png").write_text("no" if number < 7 else "")
    write(tmp_path / "in", "train/c01/small.png", (1, 1, 1), side=9)
    seen = look(str(tmp_path / "in"), size=16, out=tmp_path / "sheet.png")
    told = seen.json()
    assert (told["read"], told["skipped_count"], told["held_out"]) == (41, 13, 15)
    assert told["skipped_reasons"] == {"not a picture (PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM)": 7, "empty file": 5,
                                       "smaller than 16": 1}  # fmt: skip
    assert told["class_counts"] == {f"c{number:02}": {0: 16, 3: 2}.get(number, 1) for number in range(25)}
    lines = seen.lines()
    assert lines[0].endswith("in: 41 pictures of 16 x 16, colour, 25 classes")
    assert lines[1].startswith("classes: c00 16, c01 1, c02 1, c03 2, c04 1") and lines[1].endswith("c19 1, and 5 more")
    assert "held out by the source: 15" in lines and "converted: 25 resized" in lines
    assert "... and 3 more skipped (`json()` lists all)" in lines and sum(x.startswith("skipped ") for x in lines) == 10
    assert "13 of 54 skipped: 7 not a picture, 5 empty file, 1 smaller than 16" in lines
    shown = []
    monkeypatch.setattr(look_module.ImageDraw.ImageDraw, "text", lambda pen, at, text, **_: shown.append(text))
    look_module.contact_sheet(seen.pictures)
    assert "c00  16" in shown and "c03  2" in shown and "20 of 25 classes shown" in shown
    assert "skipped: 13 (7 not a picture, 5 empty file, 1 smaller than 16)" in shown


def test_labels_are_told_one_by_one(tmp_path, monkeypatch):
    """By hand: 25 shapes in 2 hues, of 50 pairs 27 occur, one of them 5 times and one 4 times. Kills: pairs listed as
    classes, one label's counts for another's, values that have no picture left out or counted as pairs, pictures
    counted for pairs."""
    rows = [(0, 0)] * 5 + [(0, 1)] * 4 + [(shape, 0) for shape in range(1, 24)] + [(24, 1)] * 9 + [(3, 1)]
    images = np.random.default_rng(4).integers(0, 256, (len(rows), 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(rows), factors=np.array(["shape", "hue"]))
    seen = look(str(tmp_path / "a.npz"), size=8)
    lines, told = seen.lines(), seen.json()
    assert lines[0].endswith("a.npz: 42 pictures of 8 x 8, grey, labels: 25 of shape and 2 of hue")
    assert lines[1].startswith("shape: shape=0 9, shape=1 1, shape=2 1, shape=3 2, shape=4 1")
    assert lines[1].endswith("shape=19 1, and 5 more") and lines[2] == "hue: hue=0 28, hue=1 14"
    assert lines[3] == "combinations: 27 of 50 that are possible, 25 of them with fewer than 5 pictures"
    assert not any(line.startswith("classes") for line in lines)
    assert told["labels"]["hue"] == {"hue=0": 28, "hue=1": 14} and told["labels"]["shape"]["shape=24"] == 9
    assert told["combinations"] == {"count": 27, "possible": 50, "few": 25} and len(told["class_counts"]) == 27
    shown = []
    monkeypatch.setattr(look_module.ImageDraw.ImageDraw, "text", lambda pen, at, text, **_: shown.append(text))
    look_module.contact_sheet(seen.pictures)
    assert "hue=0  28" in shown and "hue=1  14" in shown
    part = look(str(tmp_path / "a.npz"), size=8, limit=12).json()
    assert part["labels"]["hue"] == {"hue=0": 9, "hue=1": 3}
    assert part["combinations"] == {"count": 10, "possible": 50, "few": 10}
    write(tmp_path, "plain/a/1.png", (1, 2, 3))
    assert "labels" not in look(str(tmp_path / "plain"), size=8).json()


def test_a_limit_reaches_the_reader(tmp_path):
    """Kills: --at-most of `data look` that reads everything."""
    for number in range(9):
        write(tmp_path, f"{number}.png", (number, 0, 0), side=16)
    assert look(str(tmp_path), size=16, limit=4).json()["read"] == 4


def test_a_row_holds_its_class(tmp_path):
    """Kills: pictures of other classes in a row of the sheet."""
    for name, colour in (("a", (200, 0, 0)), ("b", (0, 200, 0)), ("c", (0, 0, 200))):
        for number in range(2):
            write(tmp_path, f"{name}/{number}.png", colour, side=16)
    sheet = np.asarray(look_module.contact_sheet(look(str(tmp_path), size=16).pictures))
    rows = [np.flatnonzero((sheet == np.eye(3, dtype=np.uint8)[k] * 200).all(-1).any(1)) for k in range(3)]
    assert [len(one) for one in rows] == [64] * 3, "16 pixels drawn 4 times as large"
    assert rows[0].max() < rows[1].min() and rows[1].max() < rows[2].min()


def test_look_without_classes_or_sheet(tmp_path):
    """Kills: classes or a sheet that nobody asked for, a sheet that needs classes."""
    write(tmp_path, "a.png", (200, 200, 200))
    seen = look(str(tmp_path), size=16)
    assert seen.sheet is None and seen.json()["classes"] == [] and len(seen.lines()) == 3
    look(str(tmp_path), size=16, out=tmp_path / "sheet.png")


def test_sheet_that_cannot_be_written(tmp_path):
    """Kills: NotADirectoryError for a sheet below a file."""
    write(tmp_path, "a.png", (1, 1, 1))
    with pytest.raises(UserError, match="cannot be written"):
        look(str(tmp_path), size=16, out=tmp_path / "a.png" / "sheet.png")


def test_shards_are_looked_at(tmp_path, monkeypatch):
    """Kills: a folder of shards taken for one without pictures; a limit that reads all."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    source = shards(tmp_path / "set")
    found = look(source, size=8, out=tmp_path / "sheet.png").json()
    assert (found["read"], found["skipped_count"], found["classes"]) == (COUNT, 0, ["a", "b", "c"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 100
    assert look(source, size=8, limit=10).json()["read"] == 10
    alone = load(str(tmp_path / "set" / "00000.tar"), size=8)
    assert len(alone) == 30 and alone.names is not None and alone.names[0].endswith(".png")


@pytest.mark.parametrize("fit", ["crop", "pad", "random-crop"])
def test_a_set_too_large_for_a_look_is_known_by_its_headers(tmp_path, monkeypatch, fit):
    """The same counts, lines and sheet as of pictures in memory; that the rest is not known is told. Kills: a look that
    needs the memory of all pictures, counts of headers that differ, tiles of other pictures."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    for number in range(40):
        part, side = ("test" if number < 5 else "train"), (20, 16)[number % 3 == 0]
        write(tmp_path / "in", f"{part}/{'ab'[number % 2]}/{number}.png", (200 + number, 0, 9), side=side)
    write(tmp_path / "in", "train/a/copy.png", (210, 0, 9))
    Image.new("RGB", (40, 20), (1, 2, 203)).save(tmp_path / "in" / "train" / "b" / "wide.png")
    (tmp_path / "in" / "train" / "bad.png").write_text("no")
    source = str(tmp_path / "in")
    whole = look(source, size=16, fit=fit, out=tmp_path / "whole.png")
    monkeypatch.setattr(look_module, "MOST_BYTES", 0)
    headers = look(source, size=16, fit=fit, out=tmp_path / "headers.png")
    told = "42 pictures are known by their headers; what is damaged behind them is told when it is read"
    assert [line for line in headers.lines()[:-1] if line != told] == whole.lines()[:-1]
    assert told in headers.lines() and told not in whole.lines()
    found, expected = headers.json(), whole.json()
    assert found["shapes"] == expected["shapes"] and found["converted"] == expected["converted"] != {}
    for key in ("read", "skipped", "class_counts", "held_out", "skipped_reasons", "classes", "count"):
        assert found[key] == expected[key], key
    with Image.open(tmp_path / "whole.png") as one, Image.open(tmp_path / "headers.png") as other:
        assert one.width == other.width and one.crop((0, 0, one.width, 120)) == other.crop((0, 0, one.width, 120))
    assert not whole.pictures.names or len(headers.pictures) == len(whole.pictures)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"labels": ("a", "a")}, "`labels` must be names, no two of them alike, not a, a"),
        ({"size": 64}, "choose `size` 32 or less"),
    ],
)
def test_what_a_look_cannot_do_is_told_by_its_own_arguments(tmp_path, capsys, asked, told):
    """Kills: fields of a configuration in a message to somebody who has none, an option that the command lacks."""
    write(tmp_path / "in", "a.png", (1, 1, 1), side=32)
    with pytest.raises(UserError, match=re.escape(told)):
        look(str(tmp_path / "in"), **asked)
    words = [word for name, value in asked.items() for word in (f"--{name}", *(value if name == "labels" else ("64",)))]
    assert main(["data", "look", str(tmp_path / "in"), *words, "--out", str(tmp_path / "s.png")]) == 2
    assert told.replace("`labels`", "--labels").replace("`size`", "--size") in capsys.readouterr().err
