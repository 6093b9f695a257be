"""Several labels of a picture, by the names of columns, keys and folders: one set of pairs in every format."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unilat.recipe.parts import DataConfig
from unilat.run import given
from unilat.signals import load, look, open_source, split
from unilat.signals.memory import InMemory
from unilat.types import UserError

from .samples import png
from .streams import add

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SIDE, NAMES = 8, ("face", "size")
PAIRS = [(face, size) for face in ("Sans", "Serif", "Mono") for size in (2, 10) if (face, size) != ("Mono", 10)] * 2
"""Ten pictures of five pairs; one pair of six does not occur."""
CLASSES = ("Mono size=2", "Sans size=2", "Sans size=10", "Serif size=2", "Serif size=10")
ORDER = {
    pair: number for number, pair in enumerate([("Mono", 2), ("Sans", 2), ("Sans", 10), ("Serif", 2), ("Serif", 10)])
}
ROWS = [[["Mono", "Sans", "Serif"].index(face), [2, 10].index(size)] for face, size in ORDER]
IMAGES = np.random.default_rng(7).integers(0, 256, (len(PAIRS), SIDE, SIDE, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Indexes of these sets are no other test's."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path_factory.mktemp("cache")))


def table(rows: slice = slice(None)) -> Any:
    """Labels before the pictures, a column that would be the class if none were named, and numbers with names."""
    pairs = PAIRS[rows]
    names = {"info": {"features": {"face": {"names": ["Serif", "Sans", "Mono"], "_type": "ClassLabel"}}}}
    schema = pa.schema(
        [("size", pa.int32()), ("face", pa.int64()), ("label", pa.string()), ("image", pa.binary())],
        metadata={"huggingface": json.dumps(names)},
    )
    faces = [["Serif", "Sans", "Mono"].index(face) for face, _ in pairs]
    columns = [[size for _, size in pairs], faces, ["x"] * len(pairs), [png(one) for one in IMAGES[rows]]]
    return pa.table([pa.array(one, kind) for one, kind in zip(columns, schema.types, strict=True)], schema=schema)


def as_parquet(folder: Path) -> str:
    parquet.write_table(table(), folder / "a.parquet", row_group_size=4)
    return str(folder / "a.parquet")


def as_saved(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    with pa.OSFile(str(folder / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table(), max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
    return str(folder)


def as_shard(folder: Path) -> str:
    with tarfile.open(folder / "a.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for row, (face, size) in enumerate(PAIRS):
            add(shard, f"{row:02}.json", json.dumps({"label": "x", "face": face, "size": size}).encode())
            add(shard, f"{row:02}.cls", b"0")
            add(shard, f"{row:02}.png", png(IMAGES[row]))
    return str(folder / "a.tar")


def as_folder(folder: Path, part: str = "") -> str:
    for row, (face, size) in enumerate(PAIRS):
        place = folder / part / face / str(size)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row:02}.png").write_bytes(png(IMAGES[row]))
    return str(folder)


FORMATS: dict[str, Callable[[Path], str]] = {
    "parquet": as_parquet,
    "saved": as_saved,
    "shard": as_shard,
    "folder": as_folder,
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_a_class_is_a_combination_in_every_format(tmp_path: Path, name: str, streamed: bool) -> None:
    """Each picture has its own pair, by its pixels, in memory and read as it is needed. Kills: columns exchanged, the
    numbers of ``ClassLabel`` for its names, sizes sorted as text, the usual label beside those that are named, a set
    that is read as it is needed without its labels."""
    source = FORMATS[name](tmp_path)
    found = open_source(source, size=SIDE, labels=NAMES, memory_budget=0 if streamed else None)
    pictures = found.pictures if isinstance(found, InMemory) else found
    assert isinstance(found, InMemory) != streamed and pictures.classes == CLASSES and pictures.notes == ()
    factors = pictures.factors
    assert factors is not None and factors.names == NAMES
    assert factors.values == (("Mono", "Sans", "Serif"), ("size=2", "size=10")) and factors.table.tolist() == ROWS
    everything = found.rows(torch.arange(len(found)))
    where = [int(np.flatnonzero((IMAGES.transpose(0, 3, 1, 2) == one.numpy()).all((1, 2, 3)))[0]) for one in everything]
    assert sorted(where) == list(range(10)) and pictures.labels.tolist() == [ORDER[PAIRS[row]] for row in where]


@pytest.mark.parametrize("name", FORMATS)
def test_without_names_all_is_as_it_was(tmp_path: Path, name: str) -> None:
    """The same set as before, also from an index that was made with names. Kills: labels that nobody asked for."""
    source = FORMATS[name](tmp_path)
    for budget in (None, 0):
        open_source(source, size=SIDE, labels=NAMES, memory_budget=budget)
        found = open_source(source, size=SIDE, memory_budget=budget)
        pictures = found.pictures if isinstance(found, InMemory) else found
        assert pictures.factors is None
        wanted = {"folder": ("Mono", "Sans", "Serif"), "shard": ("0",)}.get(name, ("x",))
        assert pictures.classes == wanted
    one = load(as_folder(tmp_path / "flat"), size=SIDE)
    assert one.classes == ("Mono", "Sans", "Serif")


@pytest.mark.parametrize("name", ["parquet", "saved", "shard"])
def test_one_name_is_the_class(tmp_path: Path, name: str) -> None:
    """Kills: one label told as a combination, the usual column in its place."""
    found = load(FORMATS[name](tmp_path), size=SIDE, labels=("size",))
    assert found.factors is None and found.classes == ("2", "10")
    assert found.labels.tolist() == [[2, 10].index(size) for _, size in PAIRS]


def test_pairs_are_held_out_and_a_split_of_folders_holds(tmp_path: Path) -> None:
    """Kills: the name of a part taken for a level, a pair whose face has no other picture held out."""
    pictures = load(as_folder(tmp_path / "a"), size=SIDE, labels=NAMES)
    for budget in (None, 0):
        few = open_source(str(tmp_path / "a"), size=SIDE, labels=NAMES, memory_budget=budget, limit=3)
        assert few.notes == (), "a pair of one picture is nothing to tell"
    train, test = split(pictures, fraction=0.3, seed=1)
    assert pictures.factors is not None and len(test) == 3
    assert len(pictures.factors.table[pictures.labels[train]][:, 0].unique()) == 3
    as_folder(tmp_path / "b", "train")
    (tmp_path / "b" / "test" / "Serif" / "10").mkdir(parents=True)
    Image.new("RGB", (SIDE, SIDE), (9, 8, 7)).save(tmp_path / "b" / "test" / "Serif" / "10" / "x.png")
    for budget in (None, 0):
        found = open_source(str(tmp_path / "b"), size=SIDE, labels=NAMES, memory_budget=budget)
        assert found.classes == CLASSES and found.held_out is not None and int(found.held_out.sum()) == 1
        assert found.classes[int(found.labels[found.held_out])] == "Serif size=10"


def refused(source: str, **asked: object) -> str:
    """The one line of a refusal, the same in memory and not."""
    said = []
    for budget in (None, 0):
        with pytest.raises(UserError) as error:
            open_source(source, size=SIDE, memory_budget=budget, **{"labels": NAMES, **asked})  # type: ignore[arg-type]
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0]
    return said[0]


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    """Kills: a column guessed, pyarrow's own error, labels that are silently not read."""
    source = as_parquet(tmp_path)
    line = refused(source, labels=("face", "colour"))
    assert "a.parquet: no column of text or whole numbers called colour; it has size (int32), face (int64)" in line
    assert line.endswith("name others in data.labels")
    assert "called image" in refused(source, labels=("face", "image"))
    assert "no two of them alike, not face, face" in refused(source, labels=("face", "face"))
    assert "no two of them alike" in refused(source, labels=("face", ""))
    parquet.write_table(table().drop_columns(["size"]), tmp_path / "b.parquet")
    assert "b.parquet has other columns than a.parquet" in refused(str(tmp_path))
    np.savez(tmp_path / "c.npz", images=IMAGES, labels=np.zeros((10, 2), int))
    assert refused(str(tmp_path / "c.npz")).endswith("names its labels in 'factors'; leave data.labels out")
    np.save(tmp_path / "d.npy", IMAGES)
    assert refused(str(tmp_path / "d.npy")).endswith("leave data.labels out")
    assert refused("glyphs").startswith("glyphs: it names its labels itself")
    for labels in (("a", "a"), ("a", ""), "ab"):
        with pytest.raises(UserError, match=r"data\.labels must be names"):
            DataConfig(labels=labels).check("data")  # type: ignore[arg-type]
    DataConfig(labels=NAMES).check("data")


def test_pictures_at_another_depth_are_left_out_and_told(tmp_path: Path) -> None:
    """One beside the faces, one a level too deep. Kills: a folder of one level taken for a face with no size, pictures
    that vanish without a word, in memory or not."""
    source = as_folder(tmp_path)
    (tmp_path / "Sans" / "2" / "more").mkdir()
    for place in ("Sans/a.png", "Sans/2/more/b.png"):
        (tmp_path / place).write_bytes(png(IMAGES[0]))
    for budget in (None, 0):
        found = open_source(source, size=SIDE, labels=NAMES, memory_budget=budget)
        assert len(found) == 10 and found.classes == CLASSES
        assert sorted(found.skipped) == [
            ("Sans/2/more/b.png", "not in folders face/size"),
            ("Sans/a.png", "not in folders face/size"),
        ]
        assert found.notes == ("2 of 12 skipped: 2 not in folders face/size",)
    assert "none of 12 can be used (12 not in folders a/b/c/d)" in refused(source, labels=tuple("abcd"))


def test_rows_and_keys_without_one_of_the_labels_are_left_out(tmp_path: Path) -> None:
    """Kills: a label that is missing told as a value, of a table or a shard."""
    faces = ["Sans", None, "Serif", "", "Mono"]
    images = [png(one) for one in IMAGES[:5]]
    parquet.write_table(pa.table({"image": images, "face": faces, "size": [2, 2, 10, 2, None]}), tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
        for row, keys in enumerate(({"face": "Sans", "size": 2}, {"face": "Sans"}, {"face": "Serif", "size": 10})):
            add(shard, f"{row}.json", json.dumps(keys).encode())
            add(shard, f"{row}.png", images[row])
        add(shard, "3.png", images[3])
        add(shard, "4.json", json.dumps({"face": ["Sans"], "size": 2}).encode())
        add(shard, "4.png", images[4])
    for name, lost in (("a.parquet", 3), ("a.tar", 2)):
        found = load(str(tmp_path / name), size=SIDE, labels=NAMES)
        assert found.classes == ("Sans size=2", "Serif size=10")
        assert [reason for _, reason in found.skipped].count("no label") == lost
    assert dict(found.skipped)["a.tar/4.png"] == "its label is neither text nor a whole number"


def test_two_pairs_of_one_name_are_refused(tmp_path: Path) -> None:
    """Kills: a class that stands for two, of which only the first could ever be asked for."""
    for place in ("a b/c", "a/b c"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.png").write_bytes(png(IMAGES[len(place.split()[0])]))
    assert "two combinations of labels are both called 'a b c'; rename their values" in refused(str(tmp_path))


def test_lost_pairs_are_told_by_their_names(tmp_path: Path) -> None:
    """Kills: the text that readers hand on, shown to people."""
    (tmp_path / "Mono" / "10").mkdir(parents=True)
    (tmp_path / "Mono" / "10" / "x.png").write_text("no")
    source = as_folder(tmp_path)
    for budget in (None, 0):
        found = open_source(source, size=SIDE, labels=NAMES, memory_budget=budget)
        assert found.notes[0] == "left out, no readable picture in them: Mono size=10"
        assert found.classes == CLASSES and found.labels.tolist() == [0, 0, 2, 2, 1, 1, 4, 4, 3, 3], "10 lies before 2"


@pytest.mark.parametrize("name", FORMATS)
def test_pictures_given_to_a_run_are_known_by_their_pairs(tmp_path: Path, name: str) -> None:
    """By the names of the run's classes; what has no such labels has none. Kills: classes by the usual label, a flat
    folder or a table without the columns that is refused, pairs numbered by the set that is given."""
    known = CLASSES[1:]
    asked = {"size": (SIDE, SIDE), "channels": 3, "classes": known, "labels": NAMES}
    found = given.read(FORMATS[name](tmp_path), **asked)  # type: ignore[arg-type]
    labels = sorted(found.labels.tolist()) if name == "folder" else found.labels.tolist()
    wanted = [ORDER[pair] - 1 for pair in PAIRS]
    assert labels == (sorted(wanted) if name == "folder" else wanted) and wanted.count(-1) == 2
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "x.png").write_bytes(png(IMAGES[0]))
    assert given.read(str(flat), **asked).labels.tolist() == [-1]  # type: ignore[arg-type]
    parquet.write_table(table().drop_columns(["size"]), tmp_path / "bare.parquet")
    assert set(given.read(str(tmp_path / "bare.parquet"), **asked).labels.tolist()) == {-1}  # type: ignore[arg-type]


def test_a_look_reads_the_labels_that_are_named(tmp_path: Path) -> None:
    """Kills: names that do not reach the reader."""
    lines = look(as_parquet(tmp_path), size=SIDE, labels=NAMES).lines()
    assert lines[0].endswith("labels: 3 of face and 2 of size") and "size: size=2 6, size=10 4" in lines
    assert "combinations: 5 of 6 that are possible, 5 of them with fewer than 5 pictures" in lines
