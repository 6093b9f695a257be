"""Random crops: where they lie, what they are cut from, and that only training sees them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unilat.cli import main
from unilat.fields import FieldError, Fit, Size
from unilat.signals import load, look
from unilat.signals.crops import crop_place, cut, held_out_fit, strip_size
from unilat.signals.source import open_source
from unilat.signals.stream import Part, Streamed
from unilat.types import UserError

COUNT, SHAPE, SIZE = 9, (20, 52), (10, 16)
"""Brought down by two it is 10 x 26: room for eleven places across."""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are kept in a folder of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path_factory.mktemp("cache")))


def made() -> np.ndarray:
    """uint8 ``[N, H, W, 3]``, no two pixels' neighbourhoods alike."""
    return np.random.default_rng(4).integers(0, 256, (COUNT, *SHAPE, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for index, one in enumerate(made()):
        Image.fromarray(one).save(tmp_path / "in" / f"{index}.png")
    return tmp_path / "in"


def opened(source: Path, size: Size = SIZE, fit: Fit = "random-crop", budget: int = 0) -> Streamed:
    found = open_source(str(source), size=size, fit=fit, memory_budget=budget)
    assert isinstance(found, Streamed)
    return found


@pytest.mark.parametrize(
    ("shape", "size", "strip"),
    [
        ((20, 52), (10, 16), (10, 26)),
        ((40, 48), (16, 24), (20, 24)),
        ((100, 33), (10, 10), (30, 10)),
        ((32, 48), (16, 24), (16, 24)),
        ((17, 24), (16, 24), (17, 24)),
    ],
)
def test_a_strip_only_just_covers(shape: Size, size: Size, strip: Size) -> None:
    """By hand. Kills: the longer side fitted, axes exchanged, a strip that is wider than its picture."""
    assert strip_size(shape, size) == strip
    turned = ((shape[1], shape[0]), (size[1], size[0]))
    assert strip_size(*turned) == (strip[1], strip[0])


def test_a_crop_can_lie_anywhere_in_whole_pixels() -> None:
    """12 x 9 of 12 x 20: twelve places, each for a twelfth of the numbers, first and last too. Kills: a place that is
    never reached, a room along the wrong axis, rounding that favours the middle."""
    strip = np.tile(np.arange(20, dtype=np.uint8), (1, 12, 1))
    places = [int(cut(strip, (12, 9), (0.99, (k + 0.5) / 240))[0, 0, 0]) for k in range(240)]
    assert places == [place for place in range(12) for _ in range(20)]
    upright = strip.transpose(0, 2, 1)
    assert cut(upright, (9, 12), (0.99, 0.0))[0, 0, 0] == 11 and cut(upright, (9, 12), (0.0, 0.99)).shape == (1, 9, 12)


def test_where_a_picture_is_cut_is_a_function_of_seed_epoch_and_index() -> None:
    """Even over the square, the same when asked again. Kills: one place for all epochs, for all pictures or for all
    seeds, both axes by one number; a held-out picture that is cut at random."""
    places = np.array([crop_place(seed, epoch, index) for seed in (0, 1) for epoch in range(9) for index in range(50)])
    assert crop_place(1, 8, 49) == tuple(places[-1]) and len(np.unique(places, axis=0)) == 900
    assert places.min() >= 0 and places.max() < 1 and np.abs(places.mean(0) - 0.5).max() < 0.05
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.1 and np.abs(places.std(0) - 12**-0.5).max() < 0.02
    assert [held_out_fit(fit) for fit in ("crop", "pad", "random-crop")] == ["crop", "pad", "crop"]


def test_training_sees_cuts_of_the_whole_picture_brought_down(folder: Path) -> None:
    """Each pixel is the rounded mean of four, at the place that seed, epoch and the picture's own number say. Kills: a
    cut of the source's pixels, the place of the row in its batch, one epoch for a batch, one seed for all runs."""
    indices, epochs = torch.tensor([7, 2, 2, 5]), torch.tensor([0, 0, 1, 3])
    found = opened(folder).crops(indices, epochs, 11)
    for row, index, epoch in zip(found, indices.tolist(), epochs.tolist(), strict=True):
        small = np.asarray(Image.fromarray(made()[index]).reduce(2)).transpose(2, 0, 1)
        left = int(crop_place(11, epoch, index)[1] * 11)
        np.testing.assert_array_equal(row.numpy(), small[:, :, left : left + 16])
    part = Part(opened(folder), torch.tensor([1, 7, 2]), 11)
    assert part.random and torch.equal(part.seen(torch.tensor([1, 2, 5])), found[:3])
    assert not Part(opened(folder, fit="crop"), torch.tensor([1])).random


def test_memory_files_and_arrays_give_the_same_cuts(folder: Path, tmp_path: Path) -> None:
    """What is cut from lies in memory where it fits to the last byte, and stays when the files go. Kills: a rule of
    arrays that is another, a budget of the cut pictures, a set that is called resident and is not."""
    np.save(tmp_path / "a.npy", made())
    every, epochs, bytes_ = torch.arange(COUNT), torch.arange(COUNT) % 4, COUNT * 3 * 10 * 26
    wanted = opened(folder).crops(every, epochs, 0)
    assert torch.equal(opened(tmp_path / "a.npy").crops(every, epochs, 0), wanted)
    small, large = opened(folder, budget=bytes_ - 1), opened(folder, budget=bytes_)
    assert (small.resident, large.resident) == (False, True)
    for source in (small, large):
        source.keep(every)
    shutil.rmtree(folder)
    assert torch.equal(large.crops(every, epochs, 0), wanted)
    assert large.sha256 == small.sha256


def test_what_is_not_trained_on_is_the_centre(folder: Path) -> None:
    """Rows without an epoch are those of ``crop`` to the last bit. Kills: a held-out picture cut at random, a centre of
    the strip that is another than the picture's."""
    every, odd = torch.arange(COUNT), (9, 11)
    for size in (SIZE, odd):
        one, other = opened(folder, size), opened(folder, size, fit="crop")
        assert torch.equal(one.rows(every), other.rows(every)) and one.sha256 == other.sha256
    torch.testing.assert_close(one.rows(every), load(str(folder), size=odd).images)


def test_a_picture_that_cannot_be_read_is_stood_in_for(folder: Path) -> None:
    """Kills: a strip that is missing, a stand-in of another part, a picture that is read again and again."""
    (folder / "3.png").unlink()
    source = open_source(str(folder), size=SIZE, fit="random-crop", memory_budget=1 << 30, unreadable_share=0.5)
    assert isinstance(source, Streamed) and len(source) == COUNT - 1 and source.resident
    (folder / "5.png").unlink()
    source.keep(torch.arange(8))
    assert [name for name, _ in source.skipped] == ["5.png"]
    seen = Part(source, torch.tensor([0, 4])).seen(torch.tensor([1]))[0]
    np.testing.assert_array_equal(seen.numpy(), cut(source._strips[0], SIZE, crop_place(0, 0, 4)))


def test_random_crops_are_refused_where_pictures_are_read_once(tmp_path: Path) -> None:
    """Kills: a centre crop that is called random."""
    np.savez(tmp_path / "a.npz", images=made())
    for ask, name in ((load, r"data\.fit"), (open_source, r"data\.fit"), (look, "`fit`")):
        for source in (str(tmp_path / "a.npz"), "digits"):
            with pytest.raises(UserError, match=f"read once: set {name} to crop or pad") as raised:
                ask(source, size=8, fit="random-crop")
            assert isinstance(raised.value, FieldError) == (ask is not look)


def test_how_many_are_cut_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the source, for config/data.json, and by `data look`. Kills: all of them counted, those without room too."""
    for wide in (32, 33):  # of one shape with the size, and with no room for a whole pixel
        Image.fromarray(made()[0, :, :wide]).save(folder / f"wide-{wide}.png")
    told = "9 of 11 pictures leave room for random crops: training sees another part of them each epoch"
    source = opened(folder)
    assert told in source.notes and source.json()["converted"] == source.converted == {"cropped at random": 9}
    assert opened(folder, fit="crop").converted == {} and not any(
        "each epoch" in one for one in opened(folder, fit="crop").notes
    )
    out = str(tmp_path / "sheet.png")
    words = ["data", "look", str(folder), "--size", "10x16", "--fit", "random-crop", "--out", out]
    assert main(words) == 0 and told in capsys.readouterr().out
    assert main([*words, "--json"]) == 0 and told in json.loads(capsys.readouterr().out)["notes"]
    assert main([*words[:5], "--fit", "crop", "--out", out]) == 0 and "each epoch" not in capsys.readouterr().out
