"""Pictures that cannot be read in the middle of training: replaced by the same others in every process, and told."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from unilat.signals.source import Source, open_source
from unilat.types import UserError

from .samples import COUNT, SIDE, TRAIN, split_folder
from .streams import order, sorted_folder
from .zoo import saved


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))


def opened(path: object, **options: object) -> Source:
    """Streamed, whatever its size."""
    return open_source(str(path), size=SIDE, memory_budget=0, **options)  # pyright: ignore[reportArgumentType]


def spoilt(folder: Path, *names: str) -> None:
    """Cut pictures, so that their headers are whole and their pixels are not."""
    for name in names:
        noise = np.random.default_rng(len(name)).integers(0, 256, (64, 64, 3), np.uint8)
        (folder / name).write_bytes(saved(Pillow.fromarray(noise), "PNG")[:3000])


def test_another_of_its_class_stands_in(tmp_path: Path):
    """The one that stands in has the label and is the same whatever was read before; it is named, counted and told why.
    Kills: a picture of another class, a choice that depends on what was read before, nothing noted."""
    folder = Path(sorted_folder(tmp_path / "set"))
    spoilt(folder, "a/00.png", "b/04.png")
    source, other = opened(folder), opened(folder)
    assert len(source) == COUNT and source.skipped == ()
    everything = source.rows(torch.arange(COUNT))
    names = source.names(torch.arange(COUNT))
    lost = [names.index("a/00.png"), names.index("b/04.png")]
    for index in reversed(lost):
        (row,) = other.rows(torch.tensor([index]))
        assert torch.equal(row, everything[index])
        alike = [k for k in range(COUNT) if k not in lost and torch.equal(everything[k], row)]
        assert alike and {int(source.labels[k]) for k in alike} == {int(source.labels[index])}
    assert [name for name, _ in source.skipped] == ["a/00.png", "b/04.png"] == [name for name, _ in other.skipped]
    assert all("truncated" in reason for _, reason in source.skipped) and len(source.json()["skipped"]) == 2  # pyright: ignore[reportArgumentType]


def test_different_ones_stand_in_for_different_ones(tmp_path: Path):
    """Kills: one picture that stands in for all."""
    folder = Path(sorted_folder(tmp_path / "set"))
    names = [f"a/{row:02}.png" for row in (0, 1, 2, 9, 10, 11)]
    spoilt(folder, *names)
    source = opened(folder, unreadable_share=0.5)
    rows = source.rows(torch.arange(6))
    assert source.names(torch.arange(6)) == names and len(rows.unique(dim=0)) > 2


def test_nothing_held_out_stands_in(tmp_path: Path):
    """Nor what is not among the rows named. Kills: a test picture that is trained on in place of another."""
    folder = Path(split_folder(tmp_path / "set"))
    spoilt(folder, *(f"train/a/{row:02}.png" for row in (0, 1, 2, 9)))
    source = opened(folder, unreadable_share=0.9)
    assert source.held_out is not None
    whole = order("split folder")
    lost = [index for index in range(COUNT) if whole[index] in (0, 1, 2, 9)]
    allowed = torch.tensor([index for index in range(COUNT) if whole[index] in (18, 60)])
    rows = source.rows(torch.tensor(lost))
    kept = [index for index in range(COUNT) if whole[index] < TRAIN and index not in lost]
    pool = {row.numpy().tobytes() for row in source.rows(torch.tensor(kept))}
    assert {row.numpy().tobytes() for row in rows} <= pool
    (one,) = source.rows(allowed[whole[allowed] == 18])
    assert all(torch.equal(row, one) for row in source.rows(torch.tensor(lost), among=allowed))


def test_too_many_stop_the_run(tmp_path: Path):
    """At a share of 5 %, 4 of 84 go on and the fifth stops, whichever processes met them. Kills: a share of what was
    read so far, a count of this process alone."""
    folder = Path(sorted_folder(tmp_path / "set"))
    names = [f"{'abc'[row // 3 % 3]}/{row:02}.png" for row in (0, 4, 6, 12, 16)]
    spoilt(folder, *names)
    source = opened(folder)
    every = source.names(torch.arange(COUNT))
    lost = [every.index(name) for name in names]
    child = os.fork()
    if child == 0:
        source.rows(torch.tensor(lost[:2]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [name for name, _ in source.skipped] == sorted(names[:2])
    source.rows(torch.tensor([*lost[2:4], *lost[2:4]]))
    with pytest.raises(
        UserError, match=r"5 of 84 pictures cannot be read, over a share of 0\.05 \(last c/16\.png: trunc"
    ):
        source.rows(torch.tensor(lost[4:]))


def test_a_class_that_vanishes(tmp_path: Path):
    """Its files are deleted between two epochs: told by name, not replaced by other classes. Kills: endless search."""
    folder = Path(sorted_folder(tmp_path / "set"))
    source = opened(folder, unreadable_share=1.0)
    for path in (folder / "b").iterdir():
        path.unlink()
    source.rows(torch.tensor([0, COUNT - 1]))
    with pytest.raises(UserError, match="no picture of 'b' can be read any more; put its files back"):
        source.rows(torch.tensor([int((source.labels == 1).nonzero()[0])]))
