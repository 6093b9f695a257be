"""docs/data.md says what the code does: names, numbers and examples of the page, each against the code."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from unilat.fields import Fit
from unilat.signals import load
from unilat.signals.crops import strip_size
from unilat.signals.decode import FORMATS, MAX_BYTES, MAX_PIXELS, decode
from unilat.signals.index import LOOKED_AT
from unilat.signals.levels import dark_told, levels_told
from unilat.signals.load import FOLDER_SIZE
from unilat.signals.look import FEW, MOST_BYTES
from unilat.signals.npz import LABEL_WORDS, PACKED_MOST, PICTURE_WORDS, UNPACKED_LEAST
from unilat.signals.parts import HELD_OUT, TRAIN, folder_side, placed, word_side
from unilat.signals.tables import IMAGE_COLUMNS, LABEL_COLUMNS

from .zoo import readable, saved

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
FLAT = " ".join(PAGE.split())
RULES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("| counted as | for example |\n|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
]


def quoted(text: str) -> tuple[str, ...]:
    """What stands in backticks."""
    return tuple(re.findall(r"`([^`]+)`", text))


def between(begin: str, end: str) -> str:
    """The text of the page from one phrase to the next, lines folded."""
    assert FLAT.count(begin) == 1
    return FLAT.split(begin)[1].split(end)[0]


def test_names_of_columns_and_arrays() -> None:
    """All of them, in their order of preference. Kills: a name that is read and not told, or the other way round."""
    assert quoted(between("of several the first of", "|")) == IMAGE_COLUMNS
    assert quoted(between("whole numbers among", "|")) == LABEL_COLUMNS
    assert (
        tuple(name.replace("_", "") for name in quoted(between("the array called", ", or the only"))) == PICTURE_WORDS
    )
    labels = quoted(between("whole numbers called", "beside `arr_0`"))
    assert tuple(name.replace("_", "") for name in labels) == LABEL_WORDS


def test_words_of_splits() -> None:
    """All words, and every example. Kills: a word that the page lacks, an example that is read otherwise."""
    assert quoted(between("in any case:", "to be trained on")) == TRAIN
    assert quoted(between("to be trained on;", "to be held out.")) == HELD_OUT
    assert [folder_side(name) for name in ("Train", "val2017", "test_images")] == ["train", "test", "test"]
    assert quoted(between("at most (", ");")) == ("Train", "val2017", "test_images")
    for word in quoted(between("whole name, with", "or a number")):
        assert folder_side(f"test-{word}") == "test"
    assert [word_side(name) for name in quoted(between("its name is enough (", ")"))] == ["train", "test"]
    one, many = frozenset([("photos",)]), frozenset([("cup",), ("nut",)])
    (path, name), (other, label) = quoted(between("within its parts (", ")")), quoted(between("they lie in (", ")"))
    assert placed(tuple(path.split("/")), one) == (name, False) and placed(tuple(other.split("/")), many)[0] == label


def test_limits_and_formats() -> None:
    """Kills: a number of the page that is another in the code."""
    names = between("## What becomes of a picture file", "are read, by").replace(" and ", ", ")
    assert tuple(name.strip().upper() for name in names.split(",")) == FORMATS
    assert f"Files over {MAX_BYTES >> 20} MiB, pictures over {MAX_PIXELS >> 20} megapixels" in FLAT
    assert f"more than {PACKED_MOST} times smaller, and has over {UNPACKED_LEAST >> 20} MiB" in FLAT
    assert f"By default {FOLDER_SIZE}, of arrays" in FLAT and f"{LOOKED_AT} are looked at" in FLAT
    assert f"keeps at most {MOST_BYTES >> 30} GiB" in FLAT and f"have fewer than {FEW} pictures" in FLAT
    assert set(re.findall(r"`--data\.fit ([\w-]+)`", PAGE)) == set(get_args(Fit))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0])
def test_rules_of_conversion(rule: list[str]) -> None:
    """Each example is counted as its row says; what its pixels are, `test_decode.py` holds. Kills: a row whose rule
    has no file, a conversion that is counted under another name."""
    files = quoted(rule[3])
    assert files and all(rule[2] in (*decode(readable()[name][0], 16).converted, "") for name in files)
    assert rule[2] or not any(decode(readable()[name][0], 16).converted for name in files)


def test_every_conversion_stands_in_the_page() -> None:
    """Kills: a conversion that people are told of in a word that no page explains."""
    every = {name for data, _ in readable().values() for name in decode(data, 16).converted}
    assert every == {rule[2] for rule in RULES if rule[2]}


def test_lines_about_few_levels() -> None:
    """Kills: a line of the page that the program does not say."""
    lines = PAGE.split("**Few levels.**")[1].split("```\n")[1].splitlines()
    assert lines == [*levels_told(np.array([15], np.uint8), 6, 4095), *dark_told(1, "any picture")]


def test_examples_of_sizes() -> None:
    """480 x 640 at 64, cut and padded. Kills: another part, other bars."""
    columns = np.arange(640) % 640 // 2.6
    array = np.repeat(columns[None], 480, 0).astype(np.uint8)
    data = saved(Image.fromarray(array), "PNG")
    middle = saved(Image.fromarray(array[:, 80:560].copy()), "PNG")
    assert "480 x 640 at 64: the middle 480 x 480" in FLAT
    assert np.array_equal(decode(data, 64).pixels[..., 3:61], decode(middle, 64).pixels[..., 3:61])
    assert "48 x 64 with two bars of 8 rows" in FLAT
    padded = decode(data, 64, "pad").pixels[0].astype(int)
    assert [len(set(row)) == 1 for row in padded] == [True] * 8 + [False] * 48 + [True] * 8
    assert strip_size((480, 640), (64, 64)) == (64, 85)


def test_rules_of_arrays(tmp_path: Path) -> None:
    """Kills: a type that is read otherwise than the page says."""
    text = between("**Arrays** are", "Arrays that are not read")
    assert all(name in text for name in ("`uint8`", "`uint16`", "`bool`", "high byte", "NaN"))
    made = np.stack([np.arange(256), np.arange(256)[::-1]]).reshape(2, 16, 16)
    for array, wanted in (
        (made.astype(np.uint8), made),
        (made.astype(np.uint16) * 256 + 7, made),
        (made > 99, np.where(made > 99, 255, 0)),
        (made, made),
        (made / 255, made),
        (made / 127.5 - 1, made),
        (made.astype(np.float32), made),
    ):
        np.save(tmp_path / "set.npy", array)
        assert np.array_equal(load(str(tmp_path / "set.npy")).images[:, 0].numpy(), wanted)
