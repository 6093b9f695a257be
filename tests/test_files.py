"""Files whole or not at all, and read without trust."""

import errno
import io
import json
import math
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

import unilat.files
from unilat.files import read_json, read_safetensors, sweep, whole, write_json, write_safetensors
from unilat.training import checkpoint
from unilat.training.journal import Journal
from unilat.types import UserError


def test_round_trip_of_every_dtype(tmp_path: Path) -> None:
    """Kills: a dtype or a shape lost, views and transposes written as they lie, a folder that is not made."""
    whole = torch.arange(24).reshape(4, 6)
    tensors = {
        "u8": whole.to(torch.uint8),
        "i64": whole.T,
        "f32": whole.float()[::2, ::3],
        "bf16": whole.to(torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "grad": torch.ones(2, requires_grad=True),
    }
    path = tmp_path / "a" / "b.safetensors"
    write_safetensors(path, tensors, {"name": "würfel"})
    again, header = read_safetensors(path)
    assert header.pop("sha256") and header == {"name": "würfel"} and again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor.detach())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("place", ["write", "replace"])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, place: str
) -> None:
    """Kills: a file overwritten in place, half a file under the real name, a temporary file left, an OSError shown."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": torch.ones(3)}, {"n": "old"})
    before = path.read_bytes()

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            if self.tell() >= 8:
                raise OSError(number, "disk")
            return super().write(data)  # type: ignore[arg-type]

    def half(part: Path, mode: str) -> Full:
        Path(part).write_bytes(before[:20])
        return Full()

    def refuse(*names: object) -> None:
        raise OSError(number, "disk")

    if place == "write":
        monkeypatch.setattr("builtins.open", half)
    else:
        monkeypatch.setattr(unilat.files.os, "replace", refuse)
    with pytest.raises(UserError, match=r"a\.safetensors could not be written .*disk.*free some space"):
        write_safetensors(path, {"x": torch.zeros(3)}, {"n": "new"})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_truly_full_device_is_told(tmp_path: Path) -> None:
    """Kills: an error of the safetensors library itself that is no OSError and passes by as a traceback."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    part = tmp_path / "link"
    part.symlink_to(full)
    with pytest.raises(UserError, match="could not be written"):
        unilat.files._replace(tmp_path / "a.json", lambda name: part.write_bytes(b"x" * 10_000))
    assert not (tmp_path / "a.json").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Kills: NotADirectoryError for a path below a file."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="could not be written"):
        write_json(tmp_path / "file" / "below.json", {})


def test_json_knows_no_nan(tmp_path: Path) -> None:
    """Kills: NaN and Infinity in a file, which no other JSON reader takes; numbers and accents must survive."""
    path = tmp_path / "a.json"
    write_json(path, {"a": [1.5, math.nan, -math.inf, {"b": (math.inf, 3)}], "größe": "é"})
    text = path.read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [1.5, None, None, {"b": [None, 3]}], "größe": "é"}
    assert read_json(path) == json.loads(text) and "größe" in text


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff\xfe{}", b"[" * 200_000])
def test_damaged_json_is_refused(tmp_path: Path, garbage: bytes) -> None:
    """Kills: a decoding error or a recursion shown as a traceback."""
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match="is not there"):
        read_json(path)
    path.write_bytes(garbage)
    with pytest.raises(UserError, match="no whole JSON file"):
        read_json(path)


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    """Kills: a truncated file read as far as it goes, a header that lies about its length, a folder of that name."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": torch.ones(300)}, {})
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:8], b"", (2**60).to_bytes(8, "little") + whole[8:], whole + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="no whole safetensors file"):
            read_safetensors(path)
    with pytest.raises(UserError, match="is not there"):
        read_safetensors(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Kills a reader without checksums: safetensors itself sees lengths only."""
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {"weight": torch.arange(64, dtype=torch.float32)}, {})
    content = bytearray(path.read_bytes())
    content[-17] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        read_safetensors(path)


def test_the_digest_sees_names_shapes_types_and_bytes() -> None:
    """Kills: a checksum that two different files share, and one that changes with the order of the tensors."""
    zeros, other = torch.zeros(2, 3), torch.zeros(2, 3)
    other[1, 2] = -0.0
    variants: list[dict[str, torch.Tensor]] = [
        {"a": zeros, "b": torch.ones(2)},
        {"a": zeros, "c": torch.ones(2)},
        {"a": zeros.T, "b": torch.ones(2)},
        {"a": zeros.to(torch.int32), "b": torch.ones(2)},
        {"a": other, "b": torch.ones(2)},
        {"a": zeros},
    ]
    found = [unilat.files.digest(tensors) for tensors in variants]
    assert len(set(found)) == len(variants)
    assert unilat.files.digest({"b": torch.ones(2), "a": zeros}) == found[0]
    assert unilat.files.digest({"b": torch.ones(4)[::2], "a": zeros.T.contiguous().T}) == found[0]


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool) -> None:
    """Whatever stops a writer, an interrupt too, the old file stays and nothing else; the name comes last, and with
    ``sync`` after the bytes are on the disk. Kills: a part left behind, a rename before the sync, a sync left out."""
    path, calls = tmp_path / "a" / "b.bin", list[str]()
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    with whole(path, sync=sync) as part:
        part.write_bytes(b"old")
        assert part.parent == path.parent and not path.exists()
    assert calls == (["fsync", "replace"] if sync else ["replace"])
    with pytest.raises(KeyboardInterrupt), whole(path, sync=sync) as part:
        part.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert [entry.name for entry in path.parent.iterdir()] == ["b.bin"] and path.read_bytes() == b"old"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    """Kills: weights that the colleagues in the same group cannot read, though their folder says that they may, and a
    secret that they can."""
    before = os.umask(mask)
    try:
        write_safetensors(tmp_path / "a" / "w.safetensors", {"x": torch.ones(3)}, {})
        write_json(tmp_path / "a" / "j.json", {})
        checkpoint.save(tmp_path / "a" / "s", 1, {"model": {"x": torch.ones(3)}}, {})
        Journal(tmp_path / "a" / "log.jsonl", "s", 0).close()
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 6
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {p.name: oct(mode) for p in files}


def test_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    """Kills: temporary files that stay for ever, in folders below too, and the file that a live process is writing."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = [
        ".d.9999999999999.part",
        f".a.json.{gone.pid}.part",
        f"b/.c.{gone.pid}.part",
        f".own.{os.getpid()}.part",
        ".old.part",
    ]
    stay = [f".live.{os.getppid()}.part", "a.part", "b/c.json"]
    (tmp_path / "b").mkdir()
    for name in left + stay:
        (tmp_path / name).write_text("half")
    sweep(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(stay)


def test_equal_content_makes_equal_bytes(tmp_path: Path) -> None:
    """Kills: a header whose order is a matter of chance, as safetensors writes it, or of the order it was given in:
    equal runs then have weights of unequal hashes. The numbers lie at multiples of 8 bytes."""
    tensors = {"b": torch.ones(3, dtype=torch.int64), "a": torch.zeros(2, 2)}
    header = dict.fromkeys("abcdefghi", "1")
    for number in range(8):
        turned = dict(sorted(header.items(), reverse=number % 2 == 1))
        write_safetensors(tmp_path / f"{number}", dict(sorted(tensors.items(), reverse=number > 3)), turned)
    (content,) = {(tmp_path / f"{number}").read_bytes() for number in range(8)}
    assert int.from_bytes(content[:8], "little") % 8 == 0
    write_safetensors(tmp_path / "other", tensors, header | {"a": "2"})
    assert (tmp_path / "other").read_bytes() != content


def test_there_is_one_writer() -> None:
    """Kills: a room that renames a file of its own making (checkpoints and data sets rename folders, a message
    of the Inception network names a command), or has safetensors make it, which nobody but its owner may read then."""
    source = Path(unilat.files.__file__).parent
    ways = re.compile(r"os\.(?:replace|rename)\(|mkstemp|\.rename\(|NamedTemporaryFile|save_file\(")
    found = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if ways.search(path.read_text())}
    assert found == {"files.py", "training/checkpoint.py", "signals/catalogue.py", "metrics/inception.py"}
