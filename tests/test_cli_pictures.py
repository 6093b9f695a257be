"""Pictures on disk: whole or not at all, and none of an earlier call among them."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from unilat.cli.pictures import write_each, write_sheet
from unilat.run.given import PictureSet
from unilat.types import UserError

PICTURES = torch.arange(3 * 16, dtype=torch.uint8).view(3, 1, 4, 4)


def numbered(images: torch.Tensor, names: tuple[str, ...] | None = None) -> PictureSet:
    return PictureSet(images=images, labels=torch.zeros(len(images)).long(), classes=(), names=names)


def test_each_picture_is_a_file_of_its_number(tmp_path: Path) -> None:
    """Kills: another order, another size, a file of half-written bytes left behind, fewer refused than were there."""
    write_each(numbered(PICTURES), tmp_path / "out")
    write_each(numbered(PICTURES), tmp_path / "out")  # the same again is no mistake
    assert sorted(os.listdir(tmp_path / "out")) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(tmp_path / "out" / "00002.png") as made:
        assert list(made.tobytes()) == PICTURES[2].flatten().tolist()
    with pytest.raises(UserError, match="holds 1 more pictures of an earlier call"):
        write_each(numbered(PICTURES[:2]), tmp_path / "out")


def test_a_run_folder_is_no_place_for_pictures(tmp_path: Path) -> None:
    """Kills: samples among checkpoints."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is a run folder"):
        write_each(numbered(PICTURES), tmp_path)
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_full_disk_leaves_no_empty_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a file of 0 bytes that looks like a picture."""

    def full(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"sheet\.png cannot be written: No space left"):
        write_sheet(PICTURES, tmp_path / "sheet.png")
    assert os.listdir(tmp_path) == []
