"""What a folder is taken for, with stray files in it, and sources that are no files."""

import gzip
import os
import shutil
from pathlib import Path

import pytest

from unilat.signals import load, look
from unilat.signals.detect import folder_kind
from unilat.signals.source import open_source
from unilat.types import UserError

from .samples import COUNT, SIDE, parquet, split_folder
from .streams import saved, shard, sorted_folder

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are kept in a folder of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path_factory.mktemp("cache")))


def refused(source: str) -> str:
    """The one line, the same for a set in memory and for a stream."""
    lines = set()
    for read in (lambda: load(source, size=SIDE), lambda: open_source(source, size=SIDE, memory_budget=0)):
        with pytest.raises(UserError) as error:
            read()
        lines.add(str(error.value))
    (line,) = lines
    assert "\n" not in line
    return line


def stray(name: str, folder: Path) -> None:
    """A file that people keep beside their pictures."""
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"file_name": ["a/1.png"], "text": ["a cat"]}), folder / name)
    elif name == "photos.tar.gz":
        (folder / name).write_bytes(gzip.compress(b"packed"))
    else:
        (folder / name).write_text('{"file_name": "a/1.png"}\n')


STRAYS = ("metadata.parquet", "metadata.csv", "metadata.jsonl", "photos.tar.gz", "state.json", "dataset_dict.json")


@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_file_blocks_no_pictures(tmp_path: Path, name: str) -> None:
    """It is skipped by name, in memory and as a stream. Kills: a folder of pictures refused, or read as something
    else, because of one file."""
    folder = Path(split_folder(tmp_path / "set"))
    before = load(str(folder), size=SIDE)
    stray(name, folder)
    found = load(str(folder), size=SIDE)
    assert found.sha256 == before.sha256 and [file for file, _ in found.skipped] == [name]
    streamed = open_source(str(folder), size=SIDE, memory_budget=0)
    assert len(streamed) == COUNT and [file for file, _ in streamed.skipped] == [name]
    assert look(str(folder), size=SIDE).json()["skipped_count"] == 1


def test_a_table_of_something_else_is_no_part_of_the_set(tmp_path: Path) -> None:
    """Kills: metadata.parquet among Parquet files of pictures that is refused for its columns, or decides the set's."""
    path = Path(parquet(tmp_path / "set"))
    stray("metadata.parquet", path.parent)
    assert len(load(str(path.parent), size=SIDE)) == COUNT
    assert len(open_source(str(path.parent), size=SIDE, memory_budget=0)) == COUNT
    os.remove(path)
    assert "no column of picture files" in refused(str(path.parent))


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path, kind: str) -> None:
    """Kills: pictures left out in silence because a file of another kind lies beside them, or the other way round."""
    folder = Path(sorted_folder(tmp_path / "set"))
    if kind == "shards":
        shard(folder / "00000.tar", range(9))
    else:
        shutil.copy(parquet(tmp_path / "other"), folder / "set.parquet")
    line = refused(str(folder))
    assert (
        ("00000.tar" if kind == "shards" else "set.parquet") in line and "a/00.png" in line and "name a folder" in line
    )


def test_each_kind_alone(tmp_path: Path) -> None:
    """Kills: a kind that is not seen, or is seen only in a set without another file."""
    assert folder_kind(Path(sorted_folder(tmp_path / "pictures"))) == "pictures"
    assert folder_kind(Path(saved(tmp_path / "saved"))) == "saved"
    assert folder_kind(Path(parquet(tmp_path / "tables")).parent) == "parquet"
    (tmp_path / "tables" / "readme.txt").write_text("about")
    (tmp_path / "tables" / "data").mkdir()
    shutil.move(tmp_path / "tables" / "set.parquet", tmp_path / "tables" / "data" / "set.parquet")
    assert folder_kind(tmp_path / "tables") == "parquet"
    shard(tmp_path / "shards" / "0.tar", range(3))
    assert folder_kind(tmp_path / "shards") == "shards"
    (tmp_path / "packed").mkdir()
    stray("photos.tar.gz", tmp_path / "packed")
    assert "compressed" in refused(str(tmp_path / "packed"))


def test_no_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: DATA that an empty variable left empty, and the pictures of wherever one stands."""
    sorted_folder(tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    assert "has no name" in refused("")
    assert len(load(".", size=SIDE)) == COUNT


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", ["set.npy", "set.npz", "set.tar", "set.parquet", "set"])
def test_pipes_and_devices_are_no_data(tmp_path: Path, name: str, make) -> None:
    """As the set, and as a file of one. Kills: waiting for a pipe that nobody writes to, /dev/zero read to its end."""
    make(tmp_path / name)
    assert "neither a folder nor a regular file" in refused(str(tmp_path / name))
    assert str(tmp_path) in refused(str(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_and_devices_in_a_saved_set(tmp_path: Path, make) -> None:
    """Kills: pyarrow that maps a device or waits for a pipe."""
    folder = Path(saved(tmp_path / "set"))
    os.remove(folder / "data-1.arrow")
    make(folder / "data-1.arrow")
    assert "data-1.arrow" in refused(str(folder))
    os.remove(folder / "state.json")
    make(folder / "state.json")
    refused(str(folder))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and control characters, in names of folders, classes and files. Kills: UnicodeError,
    lines that a terminal runs."""
    folder = Path(sorted_folder(tmp_path / "set"))
    os.rename(folder / "a", os.fsencode(folder) + b"/\xff\x1b[2J")
    os.rename(folder, os.fsencode(tmp_path) + b"/\xe9")
    source = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9")
    found = load(source, size=SIDE)
    streamed = open_source(source, size=SIDE, memory_budget=0)
    assert len(found) == len(streamed) == COUNT and found.classes == streamed.classes
    assert set(found.names or ()) == set(streamed.names(streamed.labels.new_tensor(range(COUNT))))
    for text in (*found.classes, *(found.names or ()), found.source, streamed.source):
        assert text.isprintable() and text.encode()
