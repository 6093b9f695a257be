"""Sets that are damaged, change while they are read, or hold what none should: one line each, and a way out."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from unilat.signals import decode
from unilat.signals.source import Source, open_source
from unilat.types import UserError

from .samples import COUNT, SIDE, npy, pictures, png
from .streams import add, grouped_parquet, shard, shards, sorted_folder
from .streams import saved as saved_set
from .zoo import saved

ONE = png(pictures()[0])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))


def opened(path: object, **options: object) -> Source:
    """Streamed, whatever its size."""
    return open_source(str(path), size=SIDE, memory_budget=0, **options)  # pyright: ignore[reportArgumentType]


def refused(path: object, *words: str, **options: object) -> bool:
    """Whether it is, in one line with every word in it."""
    with pytest.raises(UserError) as told:
        opened(path, **options)
    text = str(told.value)
    return "\n" not in text and all(word in text for word in words)


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """A folder of one shard."""
    path.mkdir()
    with tarfile.open(path / "0.tar", "w") as out:
        for name, content in members.items():
            add(out, name, content)
    return path


def test_a_cut_shard(tmp_path: Path):
    """Cut in a picture, in a header, between two members, and empty. Kills: the end of a file taken for the end of the
    shard."""
    path = shard(tmp_path / "set" / "1.tar", range(6))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    places = (members[3].offset_data + 90, members[4].offset + 100, members[6].offset, 0, members[-1].offset_data + 1)
    for place in places:
        path.write_bytes(whole[:place])
        assert refused(path.parent, "1.tar", "cut in the middle", "anew")
    damaged = bytearray(whole)
    damaged[members[4].offset + 5] ^= 8  # its name, so that the header's sum is wrong
    path.write_bytes(damaged)
    assert refused(path.parent, "1.tar", "damaged")


def test_two_files_of_one_name_or_key(tmp_path: Path):
    """Kills: the second of two files taken in silence."""
    folder = packed(tmp_path / "name", {"a.png": ONE})
    with tarfile.open(folder / "0.tar", "a") as out:
        add(out, "a.png", png(pictures()[1]))
    assert refused(folder, "0.tar", "two files are called a.png")
    assert refused(packed(tmp_path / "key", {"a.png": ONE, "a.jpg": ONE}), "a.png and a.jpg", "one key", "keep one")


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/a.png"])
def test_members_that_lead_outside(name: str, tmp_path: Path):
    """Kills: a member's path believed."""
    assert refused(packed(tmp_path / "set", {"b.png": ONE, name: ONE}), name, "leads outside the shard")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_files(kind: bytes, tmp_path: Path):
    """Kills: a link in a shard read as an empty picture, or followed."""
    folder = packed(tmp_path / "set", {"b.png": ONE})
    with tarfile.open(folder / "0.tar", "a") as out:
        member = tarfile.TarInfo("a.png")
        member.type, member.linkname = kind, "/etc/passwd"
        out.addfile(member)
    assert refused(folder, "0.tar", "a.png", "a link or no plain file")


def test_members_over_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file or a picture too large is left out and named, and nothing is left of it alone. Kills: a member's size
    believed before it is read, a header's."""
    bomb = saved(Pillow.new("1", (9000, 8000)), "PNG")
    folder = packed(tmp_path / "set", {"a.png": ONE, "b.png": bomb, "c.png": ONE + bytes(9000), "d.png": b"text"})
    monkeypatch.setattr("unilat.signals.shards.MAX_BYTES", len(bomb) + 1)
    source = opened(folder)
    told = dict(source.skipped)
    assert len(source) == 1 and told["0.tar/b.png"].startswith(decode.TOO_LARGE)
    assert "MiB" in told["0.tar/c.png"] and "not a picture" in told["0.tar/d.png"]
    assert "3 of 4 skipped" in source.notes[0]
    assert refused(packed(tmp_path / "alone", {"b.png": bomb}), "none of 1 can be used", "megapixels")


def test_folders_without_a_picture(tmp_path: Path):
    """Kills: an empty set that trains on nothing."""
    assert refused(packed(tmp_path / "empty", {}), "no picture in it")
    assert refused(
        packed(tmp_path / "labels", {"a.cls": b"1", "b.json": b"{}"}), "none of 1", "a label without a picture"
    )
    (tmp_path / "bare").mkdir()
    assert refused(tmp_path / "bare", "the folder is empty")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "0.tar.gz").write_bytes(b"")
    assert refused(tmp_path / "packed", "0.tar.gz", "unpack it")
    assert refused(tmp_path / "nowhere", "no such file")


def test_labels_of_shards(tmp_path: Path):
    """Numbers sort as numbers, a picture without a label is left out where others have one, and a damaged label costs
    its picture. Kills: "10" before "2", a label of a neighbour, None or true as a class."""
    files = {"a.png": ONE, "a.cls": b"10\n", "b.png": ONE, "c.png": ONE, "c.json": b'{"label": 2, "of": [1]}'}
    files |= {"d.png": ONE, "d.json": b"{", "e.json": b'{"label": true}', "e.png": ONE, "f.png": ONE, "f.json": b"{}"}
    files |= {"x/a.png": ONE, "x/a.json": b'{"label": "2"}', ".hidden": b"", "x/g.JPG": ONE, "x/g.cls": b" 10 "}
    source = opened(packed(tmp_path / "set", files))
    assert source.classes == ("2", "10") and source.labels.tolist() == [1, 0, 0, 1]
    assert source.names(torch.arange(4)) == ["0.tar/a.png", "0.tar/c.png", "0.tar/x/a.png", "0.tar/x/g.JPG"]
    told = dict(source.skipped)
    assert told["0.tar/b.png"] == told["0.tar/f.png"] == "no label" and "cannot be read" in told["0.tar/d.png"]
    assert "neither text" in told["0.tar/e.png"] and len(told) == 4


def test_a_class_that_has_no_name(tmp_path: Path):
    """Kills: a label outside the classes trained on as another."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    metadata = {"huggingface": '{"info": {"features": {"label": {"names": ["bee", "ant"], "_type": "ClassLabel"}}}}'}
    table = pa.table({"image": [ONE] * 4, "label": [1, 2, 0, -1]}).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "a.parquet")
    source = opened(tmp_path / "a.parquet")
    assert source.classes == ("bee", "ant") and source.labels.tolist() == [1, 0]
    assert [name for name, reason in source.skipped if "no name" in reason] == ["row 1", "row 3"]


def test_pictures_too_small(tmp_path: Path):
    """Left out by the index, named, and the class that loses all of them is told. Kills: sizes not looked at."""
    folder = Path(sorted_folder(tmp_path / "set"))
    (folder / "d").mkdir()
    (folder / "d" / "small.png").write_bytes(saved(Pillow.new("L", (SIDE, SIDE - 1)), "PNG"))
    source = opened(folder)
    assert source.skipped == (("d/small.png", f"smaller than {SIDE}: {SIDE - 1} x {SIDE}"),)
    assert source.classes == ("a", "b", "c") and "left out, no readable picture in them: d" in source.notes
    with pytest.raises(UserError, match=r"choose data\.size 16 or less"):
        open_source(str(folder), size=32, memory_budget=0)


@pytest.mark.parametrize(("write", "file"), [(sorted_folder, "a/00.png"), (shards, "00000.tar")])
def test_a_set_that_changes_while_it_is_read(write, file: str, tmp_path: Path):
    """The change is told at the picture it touches; opened anew the set is indexed again. Kills: bytes of a changed
    file taken for the picture that was indexed."""
    path = Path(write(tmp_path / "set"))
    source = opened(path)
    whole = (path / file).read_bytes()
    changed = bytearray(whole)
    changed[whole.index(ONE) + 60] ^= 1
    (path / file).write_bytes(changed)
    with pytest.raises(UserError, match=rf"{file} has changed since its index was made.*anew"):
        source.rows(torch.tensor([0]))
    if write is shards:  # cut while it is read
        (path / file).write_bytes(whole[: len(whole) // 3])
        with pytest.raises(UserError, match="has changed"):
            source.rows(torch.tensor([25]))
    (path / file).write_bytes(whole)
    assert np.array_equal(opened(path).rows(torch.tensor([0]))[0], pictures()[0].transpose(2, 0, 1))


@pytest.mark.parametrize("write", [grouped_parquet, npy, saved_set])
def test_a_table_or_array_that_changes_while_it_is_read(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: a file that another took the place of, read by the index of the first."""
    path = Path(write(tmp_path / "set"))
    source = opened(path)
    others = 255 - pictures()
    for module in ("streams", "samples"):
        monkeypatch.setattr(f"{__package__}.{module}.pictures", lambda: others)
    (tmp_path / "set").rename(tmp_path / "aside")
    write(tmp_path / "set")
    forked = os.fork()  # this process may go on reading the file it has open
    if forked == 0:
        with pytest.raises(UserError, match="has changed since its index was made"):
            source.rows(torch.tensor([80]))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7
    assert np.array_equal(opened(path).rows(torch.tensor([80]))[0], others[80].transpose(2, 0, 1))


def test_npz_is_not_streamed(tmp_path: Path):
    """Kills: an archive that is read whole though it does not fit."""
    np.savez(tmp_path / "a.npz", images=pictures())
    assert refused(tmp_path / "a.npz", "a.npz", "cannot be read in parts", "numpy.save")
    assert len(open_source(str(tmp_path / "a.npz"), size=SIDE)) == COUNT


def test_options_that_cannot_be(tmp_path: Path):
    """Kills: a size, limit or share that is taken as it comes."""
    folder = sorted_folder(tmp_path / "set")
    for options in ({"limit": 0}, {"channels": 2}, {"unreadable_share": 1.5}):
        with pytest.raises(UserError, match=r"limit|channel|share"):
            opened(folder, **options)
    for size in (0, (8, 9000), (8, 16, 3)):
        with pytest.raises(UserError, match="size"):
            open_source(folder, size=size)


def test_descriptors_are_few(tmp_path: Path):
    """Kills: every shard kept open."""
    for number in range(40):
        shard(tmp_path / "set" / f"{number:02}.tar", range(number, number + 1))
    source = opened(tmp_path / "set")
    before = len(os.listdir("/proc/self/fd"))
    source.rows(torch.arange(40))
    assert len(os.listdir("/proc/self/fd")) - before <= 16
