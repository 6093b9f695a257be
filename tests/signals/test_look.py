"""The contact sheet and the counts."""

import json

import pytest
from PIL import Image

from unilat.signals import look
from unilat.types import UserError


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


def test_look_without_classes_or_sheet(tmp_path):
    write(tmp_path, "a.png", (1, 1, 1))
    seen = look(str(tmp_path), size=16)
    assert seen.sheet is None and seen.json()["classes"] == [] and len(seen.lines()) == 2
    look(str(tmp_path), size=16, out=tmp_path / "sheet.png")


def test_sheet_that_cannot_be_written(tmp_path):
    write(tmp_path, "a.png", (1, 1, 1))
    with pytest.raises(UserError, match="cannot be written"):
        look(str(tmp_path), size=16, out=tmp_path / "a.png" / "sheet.png")
