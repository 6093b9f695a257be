"""Checkpoints: whole or absent, verified by content, whatever fails and whenever the process dies."""

import errno
import json
import os
import pickle
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from unilat.training import checkpoint
from unilat.types import UserError

from .toy import written

CALLS = ("open", "write", "fsync", "mkdir", "replace")


def tensors(value: float) -> dict[str, dict[str, Tensor]]:
    """Unequal shapes, several types, a view, a scalar, an empty one, two that share memory."""
    base = torch.arange(12.0).reshape(3, 4) + value
    return {
        "model": {"a": base.t(), "b": base[1:], "flag": torch.tensor([True, False]), "n": torch.tensor(7)},
        "ema": {"half": torch.full((2, 3), value % 100, dtype=torch.float16), "none": torch.zeros(0, 3), "a": base},
    }


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, step, tensors(step), {"stage": {"x": step / 7}}, keep=keep)


def quiet(line: str) -> None:
    pass


def load(folder: Path) -> tuple[int, list[str]]:
    """Step of what loads, after checking that its content is that step's, and the warnings."""
    told: list[str] = []
    found = checkpoint.load(folder, warn=told.append)
    assert found is not None
    assert found.state == {"stage": {"x": found.step / 7}}
    for group, expected in tensors(found.step).items():
        for name, tensor in expected.items():
            assert torch.equal(found.tensors[group][name], tensor)
            assert found.tensors[group][name].dtype == tensor.dtype
    return found.step, told


def test_a_state_without_one_of_its_parts_is_told_by_its_path(tmp_path: Path) -> None:
    """Kills: a part of another kind handed on, and an exception that names neither the checkpoint nor the part."""
    save(tmp_path, 3)
    found = checkpoint.load(tmp_path)
    assert found is not None and found.part("stage") == {"x": 3 / 7}
    for state in ({}, {"clock": 1.5}):
        with pytest.raises(UserError, match=r"step-0000000003 is of another unilat \(its state has no clock\)"):
            replace(found, state=state).part("clock")


def test_round_trip_keeps_every_bit_and_two_checkpoints(tmp_path: Path) -> None:
    """Kills: keep off by one; views saved with their storage's strides; the oldest kept instead of the newest."""
    assert checkpoint.load(tmp_path / "nothing") is None
    for step in (1, 2, 10, 9_999_999_999):
        save(tmp_path, step)
    assert written(tmp_path) == ["step-0000000010", "step-9999999999"]
    assert load(tmp_path) == (9_999_999_999, [])
    assert written(tmp_path / "step-0000000010") == [
        "ema.safetensors",
        "manifest.json",
        "model.safetensors",
        "state.json",
    ]


def test_a_rewound_run_drops_what_lies_beyond_and_replaces_the_same_step(tmp_path: Path) -> None:
    """Kills: rotation by step alone, which would keep step 9 of the abandoned future instead of the newest."""
    for step in (4, 9):
        save(tmp_path, step)
    save(tmp_path, 5)
    assert written(tmp_path) == ["step-0000000004", "step-0000000005"]
    save(tmp_path, 5)
    assert written(tmp_path) == ["step-0000000004", "step-0000000005.1"]
    assert load(tmp_path) == (5, [])


def test_fingerprint_covers_tensors_state_and_step_but_not_the_clock(tmp_path: Path) -> None:
    """Kills: a fingerprint that leaves a group, a name, the state or the step out: each differs in that alone."""

    def mark(step: int, groups: dict[str, dict[str, Tensor]], state: dict[str, object]) -> str:
        checkpoint.save(tmp_path, step, groups, state, keep=1)
        found = checkpoint.load(tmp_path)
        assert found
        return found.fingerprint()

    plain, x = {"x": 1, "clock": 5}, torch.ones(3)
    first = mark(3, {"m": {"a": x}}, plain)
    assert mark(3, {"m": {"a": x}}, {"x": 1, "clock": 6}) == first
    others = [
        mark(3, {"m": {"a": x}}, {"x": 2, "clock": 5}),
        mark(4, {"m": {"a": x}}, plain),
        mark(3, {"m": {"b": x}}, plain),
        mark(3, {"n": {"a": x}}, plain),
        mark(3, {"m": {"a": x.nextafter(2 * x)}}, plain),
    ]
    assert len({first, *others}) == 6


def damage(path: Path, kind: str, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        content = content[: chance.randrange(len(content))]
    elif kind == "flipped":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == "zeroed":
        content[:] = bytes(len(content))
    elif kind == "longer":
        content += b"\n"
    path.write_bytes(content)
    if kind == "missing":
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "flipped", "zeroed", "longer", "missing"])
def test_damage_is_noticed_told_and_survived(tmp_path: Path, kind: str) -> None:
    """Kills: sizes checked without content; a manifest that does not cover itself; a silent fall back."""
    save(tmp_path / "good", 3)
    save(tmp_path / "good", 5)
    chance = random.Random(kind)
    for trial in range({"truncated": 64, "flipped": 200}.get(kind, 4)):
        folder = tmp_path / str(trial)
        shutil.copytree(tmp_path / "good", folder)
        files = sorted((folder / "step-0000000005").iterdir())
        damage(files[trial % len(files)], kind, chance)
        step, told = load(folder)
        assert step == 3
        assert len(told) == 1
        assert "step-0000000005 is damaged" in told[0]
        shutil.rmtree(folder)


def test_swapped_files_and_renamed_checkpoints_are_noticed(tmp_path: Path) -> None:
    """Kills: checks of each file by itself, which files of an older checkpoint or of another group pass."""
    save(tmp_path, 3)
    newest = save(tmp_path, 5)
    shutil.copy(tmp_path / "step-0000000003" / "model.safetensors", newest / "model.safetensors")
    assert load(tmp_path)[0] == 3
    newest = save(tmp_path, 6, keep=3)
    shutil.copy(newest / "model.safetensors", tmp_path / "x")
    shutil.copy(newest / "ema.safetensors", newest / "model.safetensors")
    shutil.copy(tmp_path / "x", newest / "ema.safetensors")
    step, told = load(tmp_path)
    assert step == 3
    assert ["step-0000000006" in told[0], "step-0000000005" in told[1]] == [True, True]
    os.rename(tmp_path / "step-0000000003", tmp_path / "step-0000000008")
    with pytest.raises(UserError, match=r"no checkpoint can be read; restore one, or delete"):
        checkpoint.load(tmp_path, warn=quiet)


def test_no_payload_runs_and_no_path_leaves_the_folder(tmp_path: Path) -> None:
    """Kills: a fall back to pickle; file names of a manifest that are believed."""
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
            return os.mkdir, (canary,)

    save(tmp_path / "run", 3)
    newest = save(tmp_path / "run", 5)

    def reseal(files: dict[str, object]) -> None:
        manifest = {"format": 1, "step": 5, "files": files}
        manifest["sha256"] = checkpoint.hashlib.sha256(checkpoint._json(manifest)).hexdigest()
        (newest / "manifest.json").write_bytes(checkpoint._json(manifest))

    entries = json.loads((newest / "manifest.json").read_bytes())["files"]
    content = pickle.dumps(Payload())
    (newest / "model.safetensors").write_bytes(content)
    sealed = {"bytes": len(content), "sha256": checkpoint.hashlib.sha256(content).hexdigest()}
    for files in (
        entries | {"model.safetensors": sealed},
        entries | {"../step-0000000003/model.safetensors": entries["ema.safetensors"]},
        {"state.json": None},
        {},
        [],
    ):
        reseal(files)  # type: ignore[arg-type]
        assert load(tmp_path / "run")[0] == 3
    assert not canary.exists()


def test_rows_of_two_processes_are_joined_and_missing_ones_noticed(tmp_path: Path) -> None:
    """Kills: rows in the order of the files, rows that are believed to be all there are."""

    def file(place: Path, rank: int, first: int, rows: Tensor) -> None:
        told = json.dumps({"model/w": {"saved_offsets": [first, 0]}, "model/n": {"saved_offsets": []}})
        held = {"model/w": rows} | ({"model/n": torch.tensor(3)} if rank == 1 else {})
        safetensors.torch.save_file(held, place / checkpoint.ROWS.format(f"{rank:05}"), {"DCP_SHARDING_INFO": told})

    whole = torch.arange(10.0).reshape(5, 2)
    for name, lost in (("all", 0), ("few", 1)):
        folder = tmp_path / name

        def rows(folder: Path = folder, lost: int = lost) -> dict[str, dict[str, object]]:
            place = checkpoint.temporary(folder, 4, os.getpid())
            file(place, 1, 3, whole[3:])
            file(place, 2, lost, whole[lost:3])
            return {path.name: checkpoint.entry(path) for path in place.iterdir()}

        checkpoint.save(folder, 4, {}, {}, rows=rows)
    found = checkpoint.load(tmp_path / "all")
    assert found is not None and torch.equal(found.tensors["model"]["w"], whole)
    assert int(found.tensors["model"]["n"]) == 3
    told = list[str]()
    with pytest.raises(UserError, match="no checkpoint can be read"):
        checkpoint.load(tmp_path / "few", warn=told.append)
    assert "rows of model/w are missing" in told[0]


def test_a_newer_checkpoint_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kills: a run of a newer version taken for damage, or thrown back to an older checkpoint without a word."""
    save(tmp_path, 3)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 3)
        save(tmp_path, 4)
    told = list[str]()
    with pytest.raises(UserError) as caught:
        checkpoint.load(tmp_path, warn=told.append)
    assert str(caught.value) == (
        f"{tmp_path / 'step-0000000004'} was written by a newer unilat (format 3, this one reads up to 2): update it"
    )
    assert not told


def failing(monkeypatch: pytest.MonkeyPatch, call: str, turn: int, fail: Callable[..., object]) -> list[int]:
    """From its ``turn``-th call on, ``os.call`` is ``fail(real, ...)``; returns the growing list of calls."""
    real, calls = getattr(os, call), list[int]()

    def counted(*arguments: object, **named: object) -> object:
        if call == "open" and not int(arguments[1]) & os.O_CREAT:  # type: ignore[call-overload]
            return real(*arguments, **named)  # reading goes on where writing fails
        calls.append(1)
        return fail(real, *arguments) if len(calls) >= turn else real(*arguments, **named)

    monkeypatch.setattr(os, call, counted)
    return calls


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_fails_at_any_call_leaves_the_old_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """Kills: a rename before the sync, a temporary left behind, rotation before the rename, "saved" after a failure."""

    def fail(real: Callable[..., object], *arguments: object) -> object:
        if call == "write":
            real(arguments[0], bytes(arguments[1])[:3])  # type: ignore[call-overload]
        raise OSError(code, os.strerror(code))

    save(tmp_path, 3)
    save(tmp_path, 5)
    before = written(tmp_path)
    for turn in range(1, 40):
        with monkeypatch.context() as patch:
            calls = failing(patch, call, turn, fail)
            told: list[str] = []
            try:
                checkpoint.save(tmp_path, 7, tensors(7), {"stage": {"x": 1.0}}, warn=told.append)
            except UserError as error:
                assert os.strerror(code) in str(error)
                assert "step-0000000005 is intact" in str(error) or "step-0000000007 is intact" in str(error)
                assert "\n" not in str(error)
            else:
                assert len(calls) < turn or told  # whole, or only the old one could not be removed
                break
        assert written(tmp_path) in (before, [*before, "step-0000000007"])
        shutil.rmtree(tmp_path / "step-0000000007", ignore_errors=True)
        assert load(tmp_path)[0] == 5
    else:
        pytest.fail("the fault never ended")
    assert turn > 1


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process; its exit status as ``os.waitstatus_to_exitcode`` has it."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("call", CALLS)
def test_a_process_that_dies_at_any_call_leaves_a_checkpoint_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Kills: files written in place; rotation before the new one stands; temporaries that nobody sweeps."""

    def die(real: Callable[..., object], *arguments: object) -> None:
        if call == "write":
            real(arguments[0], bytes(arguments[1])[:3])  # type: ignore[call-overload]
        os.kill(os.getpid(), signal.SIGKILL)

    for turn in range(1, 40):
        folder = tmp_path / str(turn)
        save(folder, 3)
        save(folder, 5)
        with monkeypatch.context() as patch:
            failing(patch, call, turn, die)
            died = in_child(lambda folder=folder: save(folder, 7)) == -signal.SIGKILL
        assert load(folder)[0] in ((5, 7) if died else (7,))
        save(folder, 8)
        assert all(name.startswith("step-") for name in written(folder))
        assert len(written(folder)) == 2
        if not died:
            break
    assert turn > 1


def test_killed_at_random_moments_a_checkpoint_always_loads(tmp_path: Path) -> None:
    """Kills: whatever the calls above do not show; twelve processes that save without pause, killed."""

    def forever(step: int) -> None:
        while True:
            step += 1
            save(tmp_path, step)

    chance = random.Random(4)
    for trial in range(12):
        child = os.fork()
        if not child:
            forever(1000 * trial)
        deadline = time.monotonic() + 60  # until its first checkpoint stands, however busy the machine is
        while max(written(tmp_path), default="") <= f"step-{1000 * trial:010d}" and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert load(tmp_path)[0] > 1000 * trial


def test_the_lock_refuses_the_living_and_passes_on_from_the_dead(tmp_path: Path) -> None:
    """Kills: no lock; a lock by the existence of a file, which a dead trainer holds for ever."""
    with checkpoint.lock(tmp_path):
        with (
            pytest.raises(UserError, match=rf"is being trained by another process \(pid {os.getpid()}\); wait"),
            checkpoint.lock(tmp_path),
        ):
            pytest.fail("locked twice")
        assert written(tmp_path) == [".lock"]
    assert written(tmp_path) == []

    def hold() -> None:
        with checkpoint.lock(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(hold) == -signal.SIGKILL
    assert written(tmp_path) == [".lock"]
    with checkpoint.lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
    assert written(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ENOLCK])
def test_a_lock_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Kills: a file `.lock` that stays for ever after a disk failed, and one of somebody else that goes."""

    def fail(held: object) -> None:
        (tmp_path / ".lock").touch()
        raise OSError(number, "disk")

    monkeypatch.setattr("filelock.FileLock._acquire", fail)
    for before in ("", "12345\n"):
        if before:
            (tmp_path / ".lock").write_text(before)
        with pytest.raises(UserError, match=r"cannot be written \(disk\)"), checkpoint.lock(tmp_path):
            pytest.fail("locked")
        assert written(tmp_path) == ([".lock"] if before else [])


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    """Kills: a traceback in place of the one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be saved"):
        save(tmp_path / "file", 3)
    with pytest.raises(UserError, match="cannot be written"), checkpoint.lock(tmp_path / "file"):
        pytest.fail("locked a file")
