"""Pictures that use few of their levels are told: what was seen, what was made of it, and the way out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilat.signals import load, look
from unilat.signals.arrays import from_memory
from unilat.signals.index import LOOKED_AT
from unilat.signals.levels import dark_told, levels_told
from unilat.signals.source import open_source

from . import zoo

CHOOSER = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are kept in a folder of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path_factory.mktemp("cache")))


def wide(bits: int, count: int = 6) -> np.ndarray:
    """uint16 ``[count, 8, 8]`` of as many bits, the largest value among them."""
    made = CHOOSER.integers(0, 1 << bits, (count, 8, 8), np.uint16)
    made[count // 2, 3, 3] = (1 << bits) - 1
    return made


def folder(path: Path, pictures: np.ndarray, ending: str = "png") -> str:
    """A file a picture."""
    path.mkdir()
    for number, one in enumerate(pictures):
        Image.fromarray(one).save(path / f"{number:02}.{ending}")
    return str(path)


TWELVE = (
    "6 picture(s) of 16 bits hold no value above 4,095: their high byte is read, which leaves 16 of 256 levels;"
    " multiply their values by 16, save them again"
)


@pytest.mark.parametrize("ending", ["png", "tif", "npy", "npz"])
def test_twelve_bits_in_sixteen_are_told(tmp_path: Path, ending: str) -> None:
    """And what is multiplied as the line says is read without it, by all 256 levels. Kills: 16 grey levels in silence,
    a way out that overflows or leaves the picture dark."""
    made = wide(12)

    def read(pictures: np.ndarray, name: str):
        if ending in ("png", "tif"):
            return look(folder(tmp_path / name, pictures, ending), size=8)
        save = np.save if ending == "npy" else lambda path, array: np.savez(path, images=array)
        save(tmp_path / f"{name}.{ending}", pictures)
        return look(str(tmp_path / f"{name}.{ending}"), size=8)

    before, after = read(made, "before"), read(made * np.uint16(16), "after")
    assert before.pictures.notes == (TWELVE,) and TWELVE in before.lines()
    assert np.array_equal(before.pictures.images[:, 0].numpy(), made >> 8) and before.pictures.images.max() == 15
    assert after.pictures.notes == () and np.array_equal(after.pictures.images[:, 0].numpy(), made >> 4)
    assert before.pictures.converted["16-bit"] == after.pictures.converted["16-bit"] == 6


@pytest.mark.parametrize(
    ("bits", "levels", "way"),
    [(14, 64, "by 4"), (10, 4, "by 64"), (9, 2, "by 128"), (8, 1, "as 8 bits"), (1, 1, "as 8 bits")],
)
def test_other_depths(tmp_path: Path, bits: int, levels: int, way: str) -> None:
    """Kills: a factor of another depth, levels counted one too few, 8 bits in 16 that should be multiplied."""
    np.save(tmp_path / "set.npy", wide(bits))
    note = load(str(tmp_path / "set.npy")).notes[0]
    assert f"above {(1 << bits) - 1:,}:" in note and f"leaves {levels} of 256" in note and way in note
    np.save(tmp_path / "set.npy", wide(15))
    assert load(str(tmp_path / "set.npy")).notes == ()


def test_colour_of_sixteen_bits(tmp_path: Path) -> None:
    """Pillow keeps the high byte, so that the line knows the largest value to a byte. Kills: silence for colour."""
    values = CHOOSER.integers(0, 4096, (8, 8, 3)).astype(">u2")
    values[0, 0] = 4095
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(zoo.png(8, 8, 16, 2, rows))
    found = load(str(tmp_path), size=8)
    assert found.notes == (TWELVE.replace("6", "1", 1),) and found.images.max() == 15


def test_a_bright_picture_of_eight_bits_hides_none_of_sixteen(tmp_path: Path) -> None:
    """Kills: a mixed set judged by its brightest picture."""
    source = folder(tmp_path / "set", wide(12))
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "set" / "white.png")
    assert load(source, size=8).notes == (TWELVE,)


@pytest.mark.parametrize(
    ("peak", "words"),
    [(0, "black; name other"), (1, "as bool or times 255"), (3, "by 64,"), (15, "by 16,"), (63, "by 4,"), (64, "")],
)
def test_bytes_that_are_dark(tmp_path: Path, peak: int, words: str) -> None:
    """Arrays, files and streams of them. Kills: black pictures in silence, a factor beyond 255, a line for a set
    that is as bright as sets are."""
    made = CHOOSER.integers(0, peak + 1, (6, 8, 8), np.uint8)
    made[2, 2, 2] = peak
    np.save(tmp_path / "set.npy", made)
    sources = (str(tmp_path / "set.npy"), folder(tmp_path / "set", made))
    for source in sources:
        notes = [note for note in load(source, size=8).notes if "copies" not in note]
        assert len(notes) == bool(words) and all(
            words in note and f"above {peak} of 255 in any" in note for note in notes
        )
        streamed = [note for note in open_source(source, size=8, memory_budget=0).notes if "copies" not in note]
        assert streamed == [note.replace("any picture", "6 pictures that were looked at") for note in notes]
    assert from_memory(made, "the array", size=(8, 8)).notes[:1] == dark_told(peak, "any picture")
    assert peak in (0, 64) or (256 >> peak.bit_length()) * peak <= 255


def test_a_stream_looks_at_some_pictures_evenly(tmp_path: Path) -> None:
    """Kills: the first ones alone, which may be another part's; all of them decoded; a count of others."""
    made = CHOOSER.integers(0, 16, (70, 8, 8), np.uint8)
    source = folder(tmp_path / "set", made)
    (note,) = open_source(source, size=8, memory_budget=0).notes
    assert note == dark_told(15, f"{LOOKED_AT} pictures that were looked at")[0]
    Image.fromarray(made[0] + np.uint8(99)).save(tmp_path / "set" / f"{(LOOKED_AT - 1) * 70 // LOOKED_AT:02}.png")
    assert open_source(source, size=8, memory_budget=0).notes == ()


def test_what_is_bright_is_not_told() -> None:
    """Kills: a line for every set; 16 bits judged by their bytes."""
    assert levels_told(np.array([200], np.uint8)) == levels_told(np.array([200], np.uint8), 3, 1 << 15) == ()
    assert levels_told(np.array([63], np.uint8), 3, 16383) != ()
