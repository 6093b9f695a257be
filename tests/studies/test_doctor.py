"""`unilat doctor`: what is whole, what is not, and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unilat.cli import main
from unilat.files import read_json, read_safetensors, write_json, write_safetensors
from unilat.studies.doctor import Diagnosis, Finding, examine
from unilat.training.checkpoint import lock

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def doctor(capsys: Capture, source: Path, exit_code: int, *words: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    capsys.readouterr()
    assert main(["doctor", str(source), "--json", *words]) == exit_code
    return json.loads(capsys.readouterr().out)


def found(folder: Path, state: str) -> dict[str, str]:
    """What is in that state, each with what was said and what is to be done."""
    diagnosis = examine(str(folder))
    assert diagnosis.kind == "run" and diagnosis.whole == all(one.state != "wrong" for one in diagnosis.findings)
    return {one.what: f"{one.said}: {one.todo}" for one in diagnosis.findings if one.state == state}


def test_a_whole_run_is_whole(tiny_run: Path, folder: Path, capsys: Capture) -> None:
    """Kills: fault found with what is right, a part that is not looked at, files that are changed by looking."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = doctor(capsys, folder, 0)
    assert told["whole"] and told["kind"] == "run" and {one["state"] for one in told["findings"]} == {"whole"}
    parts = {one["what"]: one["said"] for one in told["findings"]}
    assert parts.keys() >= {"seal.json", "latents", "stage1", "stage2"}
    assert all(name in parts["seal.json"] for name in ("metrics.json", "log.jsonl", "base.safetensors"))
    train = read_json(folder / "data.json")["train"]
    assert parts["latents"] == f"{train} latents, every shard as it was written" and "step-" in parts["stage1"]
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["doctor", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder} is whole"


def _other_encoder(folder: Path) -> None:
    tensors, header = read_safetensors(folder / "base.safetensors")
    write_safetensors(folder / "base.safetensors", tensors, header | {"encoder_sha256": "0" * 64})


def _newest_damaged(folder: Path) -> None:
    newest = next((folder / "stage1").glob("step-*"))
    shutil.copytree(newest, folder / "stage1" / f"{newest.name}.1")
    (folder / "stage1" / f"{newest.name}.1" / "state.json").write_text("{}")


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


SEALED = {
    "metrics.json": (_text("metrics.json", "{}"), "has changed since it was written: measure again with `unilat eval"),
    "base.safetensors": (_gone("base.safetensors"), "is gone, which the run's seal names: bring it back, or go on"),
    "verify.json": (_text("verify.json", "{}"), "is of no file that this run wrote: check again with `unilat verify"),
    "seal.json": (_text("seal.json", "{}"), "is damaged"),
    "latents": (_text("latents/index.json", "{}"), "is damaged"),
    "stage1/step-0000000008.1": (_newest_damaged, "training goes on from step-0000000008"),
}


@pytest.mark.parametrize("what", SEALED)
def test_what_is_wrong_with_a_sealed_run_is_told_with_the_way_out(what: str, folder: Path, capsys: Capture) -> None:
    """Kills: a fault without a name, with another's way out, or with exit code 0."""
    damage, told = SEALED[what]
    damage(folder)
    wrong = found(folder, "wrong")
    assert list(wrong) == [what] and told in wrong[what]
    assert not doctor(capsys, folder, 1)["whole"]
    assert main(["doctor", str(folder)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder} is not whole: 1 thing is wrong"


UNSEALED = {
    "config.json": (_gone("config.json"), "is gone: bring it back"),
    "data.json": (_gone("data.json"), "is gone, and the weights are of its pictures"),
    "metrics.json": (_text("metrics.json", '{"format": "x"}'), "measure again with `unilat evaluate"),
    "phases.json": (_text("phases.json", "[1]"), "is damaged ([0] must be an object)"),
    "manifest.json": (_text("manifest.json", "[]"), "no object of named values: delete it"),
    "autoencoder.safetensors": (_text("autoencoder.safetensors", "x"), "no whole safetensors file"),
    "base.safetensors": (_other_encoder, "was trained on the latents of another encoder"),
    "evaluation.safetensors": (_text("evaluation.safetensors", "x"), "measure again with `unilat evaluate"),
    "fast-base.safetensors": (_text("fast-base.safetensors", "x"), "make it again with `unilat distill"),
}


@pytest.mark.parametrize("what", UNSEALED)
def test_what_is_wrong_with_a_run_of_before_is_told(what: str, folder: Path) -> None:
    """Kills: a run of which only the seal is looked at."""
    (folder / "seal.json").unlink()
    assert "not sealed" in found(folder, "note")["seal.json"] and found(folder, "wrong") == {}
    damage, told = UNSEALED[what]
    damage(folder)
    wrong = found(folder, "wrong")
    assert what in wrong and told in wrong[what]


def test_what_is_no_fault_is_a_note(folder: Path) -> None:
    """Kills: a run that is not finished, a torn line or what a killed process left told as damage, or not at all."""
    (folder / "seal.json").unlink()
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"unilat": "0.0.9"})
    with open(folder / "log.jsonl", "ab") as file:
        file.write(b'{"stage": "stage2", "st')
    for name in (".metrics.json.71.part", ".lock", "stage1/.tmp-3-71"):
        (folder / name).write_text("")
    (folder / "report.html").unlink()
    notes = found(folder, "note")
    assert found(folder, "wrong") == {}
    assert "begun with unilat 0.0.9" in notes["manifest.json"] and "1 of its lines" in notes["log.jsonl"]
    assert all("left by a process" in notes[name] for name in (".metrics.json.71.part", ".lock", "stage1/.tmp-3-71"))
    assert "unilat report" in notes["report.html"]
    (folder / "base.safetensors").unlink()
    assert "stage 2 is not finished: go on with `unilat train`" in found(folder, "note")["base.safetensors"]
    (folder / "autoencoder.safetensors").unlink()
    assert "stage 1 is not finished" in found(folder, "note")["autoencoder.safetensors"]


def test_a_run_in_training_is_said_to_be(folder: Path) -> None:
    """Kills: the lock and the files of a living process told as left behind."""
    with lock(folder):
        (folder / ".metrics.json.71.part").write_text("")
        notes = found(folder, "note")
        assert "a process trains here" in notes[".lock"] and ".metrics.json.71.part" not in notes


def test_pictures_are_looked_at(tiny_source: Path, tmp_path: Path, capsys: Capture) -> None:
    """Kills: an unreadable picture told as whole, or not by its name; no pictures at all told as a traceback."""
    pictures = Path(shutil.copytree(tiny_source, tmp_path / "pictures"))
    told = doctor(capsys, pictures, 0, "--size", "16")
    assert told["kind"] == "data" and any("96 pictures of 16 x 16" in one["said"] for one in told["findings"])
    for number in range(22):
        (pictures / "lying" / f"bad{number:02}.png").write_bytes(b"no picture")
    told = doctor(capsys, pictures, 1, "--size", "16")
    wrong = [one for one in told["findings"] if one["state"] == "wrong"]
    assert len(wrong) == 21 and "lying/bad00.png" in wrong[0]["what"] and "2 more" in wrong[-1]["said"]
    assert not any(one["said"].startswith("skipped ") for one in told["findings"])
    assert main(["doctor", str(pictures)]) == 1 and "smaller than 64 x 64; choose --size 16" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert "empty" in doctor(capsys, tmp_path / "empty", 1)["findings"][0]["said"]
    assert "nowhere" in doctor(capsys, tmp_path / "nowhere", 1)["findings"][0]["said"]


def test_a_diagnosis_is_whole_where_nothing_is_wrong() -> None:
    """Kills: notes that count as faults, and faults that do not."""
    for state, whole in (("whole", True), ("note", True), ("wrong", False)):
        finding = Finding(what="a", state=state, said="b")  # type: ignore[arg-type]
        assert Diagnosis(source="x", kind="run", findings=(finding,)).whole is whole
