"""What was measured and could not be kept, or not wholly measured, is told all the same and ends as an error."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

import unilat
from unilat.cli import main
from unilat.run.records import Unkept
from unilat.types import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def _evaluated(folder: Path, capsys: Capture) -> tuple[dict, list[str]]:
    """What `unilat evaluate` prints, and its lines, where it ends as a mistake."""
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 2
    out, err = capsys.readouterr()
    return json.loads(out), err.splitlines()


def test_a_read_only_run_is_measured_and_told(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Kills: an hour's figures lost with the disk that cannot keep them, exit code 0 for figures that are not kept, a
    user who hears of it afterwards only."""
    known = json.loads((copy / "metrics.json").read_text("utf-8"))

    def refuse(*names: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    told, lines = _evaluated(copy, capsys)
    assert told["bits"] == known["bits"] and told["base_bits"] == known["base_bits"]
    measuring = next(index for index, line in enumerate(lines) if line.startswith("measuring "))
    foretold = f"what is measured will be told and not kept: {copy} cannot be written (Read-only"
    assert foretold in " ".join(lines[:measuring])
    assert lines[-1].startswith(f"error: what was measured is not kept: {copy}/seal.json could not be written")
    with pytest.raises(Unkept) as caught:
        unilat.evaluate(unilat.load(copy))
    assert caught.value.results.bits.value == known["bits"]["measured"]["value"]


def test_a_base_model_that_is_gone_is_told(copy: Path, capsys: Capture) -> None:
    """Kills: exit code 0, and no word, for a run that is measured without its base model; figures of that base model
    written over; a file that cannot be read taken for none."""
    before = {name: (copy / name).read_bytes() for name in ("metrics.json", "evaluation.safetensors")}
    (copy / "base.safetensors").unlink()
    with pytest.raises(UserError, match=r"base\.safetensors is gone"):
        unilat.load(copy)
    (copy / "seal.json").unlink()  # of a run that is not sealed nobody knows what there was
    told, lines = _evaluated(copy, capsys)
    assert told["bits"] == json.loads(before["metrics.json"])["bits"] and told["base_bits"] is None
    why = f"{copy}/base.safetensors is not there, so nothing is sampled: bring it back, or go on with `unilat train`"
    assert why in lines[:2] and lines[-1] == f"error: not all was measured: {why}"
    assert before == {name: (copy / name).read_bytes() for name in before}
    (copy / "metrics.json").unlink()
    _evaluated(copy, capsys)
    assert unilat.load(copy).results.base_bits is None
    (copy / "base.safetensors").symlink_to(copy / "nowhere")
    with pytest.raises(UserError, match=r"base\.safetensors is not there"):
        unilat.load(copy)
