"""The seal of a run: every command tells a file that is not what the run wrote, and no death of a writer breaks it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import unilat
import unilat.files
from measured import machine
from unilat.cli import main
from unilat.files import Damaged, read_json, read_safetensors, write_json, write_safetensors
from unilat.report import page
from unilat.report.folder import read
from unilat.run import claim, facts, seal
from unilat.run.folder import RunFolder
from unilat.run.train import _claim
from unilat.run.trained import read_config
from unilat.studies.compare import compare
from unilat.training.fast import Choices
from unilat.training.journal import Journal, Log
from unilat.types import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def flip(path: Path, place: int | None = None) -> None:
    """One bit of one byte, the middle one's by default."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def refused(capsys: Capture, *words: object) -> str:
    """The last line with which a command refuses."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_seals_all_that_belongs_to_it(tiny_run: Path) -> None:
    """Kills: a file that is written past the seal, and one that the seal is never asked about."""
    known = seal.read(tiny_run)
    assert known is not None and seal.wrong(tiny_run) == [] and seal.remark(tiny_run) == ""
    there = {path.name for path in tiny_run.iterdir() if path.is_file()}
    assert set(known) == there - {"seal.json", "report.html"} and set(known) <= set(seal.WAYS_OUT)
    assert all(len(states) == 1 for states in known.values())
    names = {value.name for value in vars(RunFolder).values() if hasattr(value, "name") and "." in value.name}
    few = {RunFolder(tiny_run).few_steps(part).name for part in ("decoder", "base")}
    assert set(seal.WAYS_OUT) == (names | few) - {"seal.json", "report.html"}


def test_every_file_tells_one_bit(folder: Path) -> None:
    """Kills: a file of which the size alone is looked at, or whose beginning or end is not."""
    for name in sorted(seal.read(folder) or ()):
        path = folder / name
        kept = path.read_bytes()
        for place in (0, None, -1):
            flip(path, place)
            assert seal.wrong(folder) == [path] and "has changed" in seal.problem(path), (name, place)
            path.write_bytes(kept)
        path.unlink()
        assert seal.problem(path) == "is gone, which the run's seal names"
        assert "delete it" not in seal.way_out(path)
        path.write_bytes(kept)
    assert seal.wrong(folder) == []
    (folder / "verify.json").write_text("{}")
    assert seal.problem(folder / "verify.json") == "is of no file that this run wrote"


def test_the_seal_seals_itself(folder: Path) -> None:
    """Kills: a digit of a hash, a name or a size flipped in the seal, which then finds fault with what is right."""
    path = folder / "seal.json"
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        flip(path, place)
        if path.read_bytes().split() != content.split():
            with pytest.raises(Damaged, match=r"seal\.json is damaged .*bring it back, or delete it"):
                assert seal.read(folder) == "never"
        path.write_bytes(content)


def test_a_digit_of_the_numbers_is_not_told(folder: Path, tiny_run: Path, tmp_path: Path, capsys: Capture) -> None:
    """Kills: 0.594 told as 0.494 by the report, the comparison or Python, in silence; and no way back."""
    digits = str(read_json(folder / "metrics.json")["bits"]["measured"]["value"])
    edit(folder / "metrics.json", digits, "0.123456")
    assert (
        main(["report", str(folder)]) == 0
        and main(["compare", str(folder), str(tiny_run), "--out", str(tmp_path / "c.html")]) == 0
    )
    told = capsys.readouterr()
    line = f"{folder / 'metrics.json'} has changed since it was written: measure again with `unilat evaluate {folder}`"
    assert told.err.splitlines().count(line) == 2 and "0.1235" not in told.out
    text = (folder / "report.html").read_text("utf-8")
    assert "0.1235" not in text and "metrics.json has changed since it was written" in text
    with pytest.raises(UserError, match=r"metrics\.json has changed"):
        assert unilat.load(folder).results
    assert main(["evaluate", str(folder)]) == 0 and seal.wrong(folder) == []
    assert str(read_json(folder / "metrics.json")["bits"]["measured"]["value"]) == digits


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.json", '"seed": 0', '"seed": 1'),
        ("config.json", '"lambda_0": 5.0', '"lambda_0": 6.0'),
        ("config.json", '"held_out": 0.1', '"held_out": 0.2'),
        ("data.json", "lying", "laying"),
    ],
)
def test_an_edit_by_hand_is_refused_with_the_way_out(
    folder: Path, tiny_run: Path, name: str, old: str, new: str, capsys: Capture
) -> None:
    """Kills: another seed, noise, split or class believed; and a file that cannot be made again by its own command."""
    kept = (folder / name).read_bytes()
    edit(folder / name, old, new)
    for words in (("sample", folder), ("evaluate", folder), ("bench", folder), ("verify", folder)):
        assert f"{name} has changed since it was written: bring it back, or delete it" in refused(capsys, *words)
    assert name in " ".join(read(folder).notes) and not getattr(read(folder), name.split(".")[0])
    with pytest.raises(UserError, match="has changed"):
        claim.ready(read_config(tiny_run), folder)
        read_config(folder)
    (folder / name).unlink()
    config = read_config(tiny_run)
    _claim(config, folder, machine(), Choices())
    known = facts.read(tiny_run / "data.json")
    claim.refuse_other(folder / "data.json", known)
    write_json(folder / "data.json", known.to_json(), seal.sealed)
    assert (folder / name).read_bytes() == kept and seal.wrong(folder) == []


def test_weights_of_another_run_are_refused(folder: Path, capsys: Capture) -> None:
    """Whole files with right checksums, of another run. Kills: swapped weights or pictures taken as its own."""
    for name in ("autoencoder.safetensors", "base.safetensors", "evaluation.safetensors"):
        kept = (folder / name).read_bytes()
        tensors, header = read_safetensors(folder / name)
        first = next(iter(tensors))
        write_safetensors(folder / name, tensors | {first: tensors[first] + 1}, header)
        assert seal.wrong(folder) == [folder / name]
        if name == "evaluation.safetensors":
            assert read(folder).arrays == {}
        else:
            assert f"{name} has changed" in refused(capsys, "sample", folder)
            assert f"{name} has changed since it was written" in page.page(read(folder))
        (folder / name).write_bytes(kept)


def test_what_is_gone_keeps_its_run(folder: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without its data.json or config.json. Kills: other bits, another seed or other pictures on old weights."""
    config = read_config(tiny_run)
    other = replace(config, seed=5), replace(config, stage1=replace(config.stage1, target_bpp=0.2))
    for name in ("data.json", "config.json"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        for one in other:
            with pytest.raises(UserError, match=r"another configuration|config\.json is gone"):
                _claim(one, folder, machine(), Choices())
        _claim(config, folder, machine(), Choices())
        (folder / name).write_bytes(kept)
    known = facts.read(tiny_run / "data.json")
    (folder / "data.json").unlink()
    for one in (replace(known, sha256="0" * 64), replace(known, test=known.test + 1)):
        with pytest.raises(UserError, match=r"data\.json is gone, and the pictures .* are not those"):
            claim.refuse_other(folder / "data.json", one)
    (folder / "seal.json").unlink()
    with pytest.raises(UserError, match=r"data\.json is gone, so nobody knows which pictures"):
        _claim(config, folder, machine(), Choices())


def test_what_is_made_again_leaves_the_seal(folder: Path, tiny_run: Path) -> None:
    """Kills: weights that were deleted to be made again and are asked for before they are; others struck out."""
    for name in ("base.safetensors", "log.jsonl", "phases.json", "data.json"):
        (folder / name).unlink()
    seal.forget_gone(folder)
    known = set(seal.read(folder) or ())
    assert known == set(seal.read(tiny_run) or ()) - {"base.safetensors", "log.jsonl", "phases.json"}
    for name in ("manifest.json", "autoencoder.safetensors"):
        flip(folder / name)
        with pytest.raises(Damaged, match=name):
            claim.ready(read_config(tiny_run), folder)
        flip(folder / name)
    assert claim.ready(read_config(tiny_run), folder)


def test_a_run_of_before_is_read_and_said_to_be_unsealed(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Kills: old runs refused, sealed by the way as whatever they are, or not told from sealed ones."""
    (folder / "seal.json").unlink()
    edit(folder / "manifest.json", '"python"', '"pyhton"')
    line = f"{folder} is not sealed"
    for words in (["report", folder], ["sample", folder, "-n", 2, "--out", tmp_path / "s.png"], ["evaluate", folder]):
        capsys.readouterr()
        assert main([*map(str, words)]) == 0
        assert sum(told.startswith(line) for told in capsys.readouterr().err.splitlines()) == 1
    assert not (folder / "seal.json").exists() and seal.problem(folder / "metrics.json") == ""
    assert "not sealed" in page.page(read(folder)) and seal.remark(tmp_path) == "" != seal.remark(folder)


def dying(steps: int, work: Callable[[], object]) -> int:
    """Do ``work`` in another process that is killed before its ``steps``-th rename; its exit status."""
    child = os.fork()
    if child == 0:
        left, rename = [steps], os.replace

        def replaced(old: Path, new: Path) -> None:
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            rename(old, new)

        unilat.files.os.replace = replaced
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("before", [None, {"is": "old"}])
def test_whenever_the_writer_dies_the_file_is_right(tmp_path: Path, before: object) -> None:
    """A file that is new and one that was there, killed before each rename. Kills: the file before its seal, a seal
    with the new state alone, a state that is kept for ever."""
    path, ends = tmp_path / "metrics.json", []
    for steps in range(4):
        seal.begin(tmp_path)
        if before is not None:
            write_json(path, before, seal.sealed)
        ends.append(dying(steps, lambda: write_json(path, {"is": "new"}, seal.sealed)))
        assert seal.problem(path) == "" and (read_json(path) if path.exists() else None) in (before, {"is": "new"})
        assert seal.wrong(tmp_path) == []
        write_json(path, {"is": "last"}, seal.sealed)
        assert len((seal.read(tmp_path) or {})[path.name]) == 1 and seal.problem(path) == ""
        write_json(path, {"is": "foreign"})
        assert seal.problem(path) == "has changed since it was written"
        dying(1, lambda: write_json(path, {"is": "new"}, seal.sealed))
        assert seal.problem(path) == "has changed since it was written"  # announced is not written
        for one in tmp_path.iterdir():
            one.unlink()
    assert ends == [9, 9, 9, 0]


def test_a_new_run_that_dies_at_once_is_begun_again(tmp_path: Path, tiny_run: Path) -> None:
    """Kills: a folder that holds a seal alone, which then is no run folder and not empty."""
    config = read_config(tiny_run)
    for steps in range(5):
        folder = tmp_path / str(steps)
        folder.mkdir()
        dying(steps, lambda folder=folder: _claim(config, folder, machine(), Choices()))
        _claim(config, folder, machine(), Choices())
        assert seal.wrong(folder) == [] and set(seal.read(folder) or ()) == {"config.json", "manifest.json"}


def test_the_log_is_sealed_as_it_grows(tmp_path: Path) -> None:
    """Kills: lines behind the seal held against the run, lines in it that change, a rewind that breaks the seal."""
    seal.begin(tmp_path)
    path = tmp_path / "log.jsonl"
    log = Log(path, seal.sealed, seal.grown)
    journal = Journal(log, "stage1", 0)
    for step in (1, 2, 3):
        journal.write({"stage": "stage1", "step": step})
        if step < 3:
            journal.sync()
    assert seal.problem(path) == "" and (seal.read(tmp_path) or {})["log.jsonl"][0] != seal._state(path)
    journal.close()
    flip(path, 5)
    assert "has changed" in seal.problem(path)
    flip(path, 5)
    Journal(log, "stage1", 1).close()
    assert path.read_text().count("\n") == 1 and seal.problem(path) == ""
    path.write_bytes(path.read_bytes()[:-3])
    assert "has changed" in seal.problem(path)


def test_a_run_that_dies_before_its_first_save_goes_on(tmp_path: Path) -> None:
    """Its log has lines that no seal counts yet. Kills: that log taken for another run's, a dead end, and one that is
    gone before it was sealed missed."""
    seal.begin(tmp_path)
    log = RunFolder(tmp_path).log
    assert seal.problem(log) == ""
    Journal(Log(log, seal.sealed, seal.grown), "stage1", 0).write({"stage": "stage1", "step": 1})
    assert log.stat().st_size and seal.problem(log) == ""
    seal.grown(log)
    edit(log, "stage1", "stage7")
    assert seal.problem(log) == "has changed since it was written"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_seal_that_cannot_be_held_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Kills: a traceback in the middle of training where the folder can no longer be written, a lock left behind."""
    seal.begin(tmp_path)
    log = RunFolder(tmp_path).log
    journal = Journal(Log(log, seal.sealed, seal.grown), "stage1", 0)
    journal.write({"stage": "stage1", "step": 1})
    real = os.open

    def refusing(path: object, *more: Any, **named: Any) -> int:
        if str(path).endswith(".seal.lock"):
            raise OSError(number, os.strerror(number))
        return real(path, *more, **named)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        for call in (journal.sync, lambda: seal.forget_gone(tmp_path)):
            with pytest.raises(UserError, match=r"\.seal\.lock cannot be held \(" + os.strerror(number)):
                call()
    log.unlink()
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written"):
        journal.sync()
    journal.close()
    assert not (tmp_path / ".seal.lock").exists() and seal.problem(log) == ""


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Kills: lines appended to a file of the user's that a foreign run's log.jsonl points to."""
    line = '{"stage": "mine", "step": 1}\n'
    (tmp_path / "mine.txt").write_text(line)
    (tmp_path / "log.jsonl").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written"):
        Journal(tmp_path / "log.jsonl", "stage1", 0)
    assert (tmp_path / "mine.txt").read_text() == line


def test_two_writers_seal_both_their_files(tmp_path: Path) -> None:
    """Kills: a seal read, changed and written while another does the same: one of the two files is then foreign."""
    seal.begin(tmp_path)
    children = []
    for name in ("metrics.json", "metrics-fast.json", "verify.json"):
        child = os.fork()
        if child == 0:
            for count in range(12):
                write_json(tmp_path / name, {"count": count}, seal.sealed)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert seal.wrong(tmp_path) == [] and len(seal.read(tmp_path) or ()) == 3
    assert sorted(json.loads(path.read_text()).get("count", 0) for path in tmp_path.glob("*.json")) == [0, 11, 11, 11]


def test_compare_leaves_out_what_is_another_runs(folder: Path, tiny_run: Path) -> None:
    """Kills: a column that holds the numbers of a file which the run did not write."""
    flip(folder / "metrics.json")
    table = compare([folder, tiny_run])
    bits = next(column for column in table.columns if column.key == "bits")
    assert bits.values[0] is None and bits.values[1] is not None
    assert "metrics.json has changed since it was written" in table.runs[0].missing


def test_what_keeps_its_name_alone_is_no_run_file(folder: Path) -> None:
    """Kills: a file of the user's beside those of the run, or a report, told as foreign."""
    (folder / "notes.json").write_text("{}")
    (folder / "report.html").write_text("mine")
    assert seal.problem(folder / "notes.json") == seal.problem(folder / "report.html") == ""
    assert seal.wrong(folder) == []
