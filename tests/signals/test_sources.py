"""The contract of every source: the same pictures in any format are the same rows, labels, groups and split."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from unilat.signals.index_file import indexed
from unilat.signals.kind import Image
from unilat.signals.memory import InMemory
from unilat.signals.pictures import equal_groups
from unilat.signals.source import Source, open_source
from unilat.signals.stream import Streamed
from unilat.signals.stream_folders import FolderFormat

from .samples import COUNT, LABELS, SIDE, TRAIN, pictures, png, split_folder
from .streams import FORMATS, add, order, shard, shards, sorted_folder

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every format's path, written once."""
    home = tmp_path_factory.mktemp("formats")
    return {name: write(home / name.replace(" ", "-")) for name, write in FORMATS.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(path: str, budget: int = 0, **options: object) -> Source:
    """Streamed, unless ``budget`` is large."""
    return open_source(path, size=SIDE, memory_budget=budget, **options)  # pyright: ignore[reportArgumentType]


def every(source: Source) -> torch.Tensor:
    """All rows."""
    return source.rows(torch.arange(len(source)))


CASES = [(name, budget) for name in FORMATS for budget in (0, 1 << 30)]
ALL = pytest.mark.parametrize(("name", "budget"), CASES, ids=[f"{n}{' in memory' * bool(b)}" for n, b in CASES])


@ALL
def test_one_set_in_every_format(name: str, budget: int, made: dict[str, str]):
    """Rows, labels, groups and split are those that were written. Kills: labels of other rows, test shards trained on,
    copies apart, a format whose values, channels or order are others."""
    source, chosen = opened(made[name], budget), order(name)
    assert isinstance(source, InMemory if budget else Streamed)
    assert source.kind == Image(height=SIDE, width=SIDE, channels=3) and len(source) == COUNT and not source.skipped
    images = pictures()[chosen].transpose(0, 3, 1, 2)
    rows = every(source)
    assert rows.dtype == torch.uint8 and np.array_equal(rows.numpy(), images)
    labelled = name not in ("npy", "floats")
    assert source.labels.dtype == torch.int64 and source.labels.tolist() == (LABELS[chosen] * labelled).tolist()
    assert len(source.classes) == 3 * labelled
    assert source.groups.dtype == torch.int64 and source.groups.tolist() == equal_groups(images).tolist()
    if name.startswith("split "):
        assert source.held_out is not None and source.held_out.tolist() == (chosen >= TRAIN).tolist()
    else:
        assert source.held_out is None


@ALL
def test_any_subset_in_any_order(name: str, budget: int, made: dict[str, str]):
    """Kills: rows in the order they were read in instead of the one asked for, one of a repeated row lost, a row of a
    block's neighbour, names of other rows."""
    source = opened(made[name], budget)
    whole = every(source)
    chosen = torch.from_numpy(np.random.default_rng(5).integers(0, COUNT, 40))
    assert torch.equal(source.rows(chosen), whole[chosen])
    assert torch.equal(source.rows(chosen[:1]), whole[chosen[:1]]) and source.rows(chosen[:0]).shape[0] == 0
    names = source.names(torch.arange(COUNT))
    assert len(set(names)) == COUNT and source.names(chosen) == [names[index] for index in chosen.tolist()]
    for wrong in (-1, COUNT):
        with pytest.raises(IndexError, match="pictures 0 to 83"):
            source.rows(torch.tensor([3, wrong]))


@ALL
def test_a_forked_child_reads_the_same(name: str, budget: int, made: dict[str, str]):
    """A child forked after the parent has read gives the parent's rows, in its own order, and so does the parent
    after it. Kills: an open file or a row group shared across the fork."""
    source = opened(made[name], budget)
    whole = every(source)
    source.rows(torch.tensor([40]))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        backwards = source.rows(torch.arange(COUNT - 1, -1, -1))
        os.write(write_end, bytes([torch.equal(backwards, whole.flip(0))]))
        os._exit(0)
    again = source.rows(torch.arange(COUNT))
    assert os.waitpid(child, 0)[1] == 0 and os.read(read_end, 1) == b"\1" and torch.equal(again, whole)
    os.close(read_end), os.close(write_end)


@ALL
def test_identity_is_what_is_in_it(name: str, budget: int, made: dict[str, str], tmp_path: Path):
    """A moved set has the same sha256; a smaller one, another size or fit have others. Kills: the path or a time in
    it, labels or pictures left out of it, latents of padded pictures taken for those of cut ones."""
    source = opened(made[name], budget)
    path = Path(made[name])
    moved = tmp_path / "moved" / path.name
    moved.parent.mkdir()
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, moved)
    assert opened(str(moved), budget).sha256 == source.sha256 and len(source.sha256) == 64
    others = [opened(made[name], budget, limit=COUNT - 1), opened(made[name], budget, channels=1)]
    others.append(open_source(made[name], size=8, memory_budget=budget))
    assert len({source.sha256, *(one.sha256 for one in others)}) == 4
    padded = open_source(made[name], size=SIDE, fit="pad", memory_budget=budget)  # in memory it is of the pixels alone
    assert (padded.sha256 == source.sha256) is not isinstance(source, Streamed)


def test_identity_knows_labels_and_pixels(tmp_path: Path):
    """Kills: a class moved without notice, a picture changed without notice, in folders and shards."""
    found = set()
    for number, rows in enumerate((range(84), range(83, -1, -1))):
        shard(tmp_path / str(number) / "0.tar", rows)
        found.add(opened(str(tmp_path / str(number))).sha256)
    folder = Path(sorted_folder(tmp_path / "folder"))
    for change in (lambda: None, lambda: (folder / "a" / "02.png").rename(folder / "b" / "02.png")):
        change()
        found.add(opened(str(folder)).sha256)
    picture = folder / "a" / "00.png"
    picture.write_bytes(png(255 - pictures()[0]))
    found.add(opened(str(folder)).sha256)
    assert len(found) == 5


@pytest.mark.parametrize("name", ["folder", "shards", "parquet", "saved", "npy"])
def test_limits_and_channels(name: str, made: dict[str, str]):
    """Kills: the first rows in place of evenly spread ones, luma of another formula, colour asked for and not given."""
    source = opened(made[name], limit=20, channels=1)
    memory = opened(made[name], 1 << 30, limit=20, channels=1) if name != "shards" else None
    assert len(source) == 20 and source.kind.channels == 1
    spread = order(name)[[position * COUNT // 20 for position in range(20)]]
    red, green, blue = (pictures()[spread][..., k].astype(np.uint32) for k in range(3))
    assert np.array_equal(every(source).numpy()[:, 0], (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)
    if memory is not None:
        assert torch.equal(every(memory), every(source)) and torch.equal(memory.labels, source.labels)


@pytest.mark.parametrize("write", [sorted_folder, shards])
def test_grey_pictures_stored_in_colour_are_grey(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: colour believed by the header alone, and colour that stands in the last picture only left out."""
    grey = np.repeat(pictures()[..., :1], 3, axis=3)
    monkeypatch.setattr(f"{__package__}.streams.pictures", lambda: grey)
    assert opened(write(tmp_path / "grey")).kind.channels == 1
    grey[-1, 0, 0] = (1, 2, 3)
    assert opened(write(tmp_path / "colour")).kind.channels == 3


@pytest.mark.parametrize("name", ["parquet", "split parquet"])
def test_blocks_are_row_groups(name: str, made: dict[str, str]):
    """Kills: blocks of one file that go on in the next, blocks of another size; formats without blocks have none."""
    blocks = opened(made[name]).blocks
    sizes = [7] * 12 if name == "parquet" else [COUNT - TRAIN, TRAIN]
    assert blocks is not None and blocks.dtype == torch.int64
    assert blocks.unique(return_counts=True)[1].tolist() == sizes
    assert blocks.tolist() == sorted(blocks.tolist())
    assert opened(made["saved"]).blocks is None and opened(made["folder"]).blocks is None


def test_few_row_groups_are_at_hand(made: dict[str, str]):
    """A row group is read once while its rows are read, and at most 9 stay. Kills: one read a row, all kept."""
    source = opened(made["parquet"])
    reads = []
    form = source._form  # pyright: ignore[reportAttributeAccessIssue]
    form._groups._open_one = lambda key, read=form._groups._open_one: (reads.append(key), read(key))[1]
    every(source)
    assert len(reads) == len(set(reads)) and {block for _, block in reads} >= set(range(1, 12))  # 0: for its colours
    assert len(form._groups._kept) == 9


def test_the_budget_decides(made: dict[str, str]):
    """Kills: a set that just fits streamed, one a byte larger taken into memory, limit and channels not counted."""
    for name in ("folder", "parquet", "npy", "shards"):
        whole = COUNT * 3 * SIDE * SIDE
        assert isinstance(opened(made[name], whole), InMemory)
        assert isinstance(opened(made[name], whole - 1), Streamed)
        assert isinstance(opened(made[name], whole // 3, channels=1), InMemory)
        assert isinstance(opened(made[name], whole // 2, limit=COUNT // 2), InMemory)


def test_progress_is_told(made: dict[str, str]):
    """Kills: minutes of indexing in silence, a count of another thing."""
    told: list[tuple[int, int, str]] = []
    opened(made["parquet"], progress=lambda *words: told.append(words))
    opened(made["shards"], progress=lambda *words: told.append(words))
    assert told == [(1, COUNT, "indexing pictures"), (1, 0, "indexing pictures")]


def test_names_say_where_a_picture_lies(made: dict[str, str]):
    """Kills: members without their shard, rows counted over all files."""
    last = torch.tensor([COUNT - 1])
    formats = ("folder", "shards", "parquet", "split parquet", "npy")
    names = {name: opened(made[name]).names(last)[0] for name in formats}
    assert names == {
        "folder": "c/80.png",
        "shards": "00002.tar/00083.png",
        "parquet": "row 83",
        "split parquet": "train-0.parquet row 59",
        "npy": "83",
    }


def test_reading_leaves_memory_flat(tmp_path: Path):
    """4,000 pictures of 64² read from shards, 47 MiB decoded, leave less than 6 MiB behind. Kills: pictures or members
    kept after they were handed out."""
    with tarfile.open(tmp_path / "0.tar", "w") as out:
        content = [png(np.full((64, 64, 3), (value, 0, 99), np.uint8)) for value in range(50)]
        for number in range(4000):
            add(out, f"{number}.png", content[number % 50])
    source = open_source(str(tmp_path), size=64, memory_budget=0)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    source.rows(torch.arange(64))
    before = resident()
    for first in range(0, 4000, 50):
        source.rows(torch.arange(first, first + 50))
    assert resident() - before < 6 << 20


def test_what_an_index_knows_needs_no_second_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An index is made once; a file that changed is read again, and no other. Kills: every file read at each opening,
    a changed file believed, an index of before used for what lies there now, a cache that must be writable."""
    folder = Path(sorted_folder(tmp_path / "folder"))
    scanned: list[str] = []
    scan = FolderFormat.scan
    monkeypatch.setattr(FolderFormat, "scan", lambda self, file: (scanned.append(file), scan(self, file))[1])
    first = opened(str(folder))
    assert len(scanned) == COUNT
    again = opened(str(folder))
    assert len(scanned) == COUNT and again.sha256 == first.sha256 and torch.equal(every(again), every(first))
    (folder / "b" / "05.png").write_bytes((folder / "a" / "00.png").read_bytes())
    opened(str(folder))
    assert scanned[COUNT:] == ["b/05.png"]
    (folder / "a" / "01.png").unlink()
    (folder / "d").mkdir()
    (folder / "d" / "new.png").write_bytes((folder / "a" / "02.png").read_bytes())
    changed = opened(str(folder))
    assert scanned[COUNT:] == ["b/05.png", "d/new.png"]
    assert changed.classes == ("a", "b", "c", "d") and len(changed) == COUNT
    monkeypatch.setenv("UNILAT_CACHE", "/proc/nowhere")
    afresh = opened(str(folder))
    assert afresh.sha256 == changed.sha256 and torch.equal(afresh.groups, changed.groups)
    assert torch.equal(afresh.labels, changed.labels) and torch.equal(every(afresh), every(changed))


def test_a_damaged_index_is_made_anew(tmp_path: Path, cache: Path):
    """A flipped bit, a cut or an empty file in the cache cost time only. Kills: an index believed without its sum."""
    folder = sorted_folder(tmp_path / "folder")
    whole = opened(folder)
    (path,) = (cache / "indexes").glob("*.safetensors")
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-200] ^= 4
    for damaged in (bytes(flipped), content[:-1], content[: len(content) // 2], b"", b"\xff" * 100):
        path.write_bytes(damaged)
        again = opened(folder)
        assert again.sha256 == whole.sha256 and torch.equal(again.labels, whole.labels)
        assert path.read_bytes() == content
    form = FolderFormat(Path(folder))
    assert indexed(form, form.listing()).mark == form.listing(keep=False).mark


def test_sets_alike_from_outside_are_kept_apart(tmp_path: Path):
    """Two sets of equal names, sizes and times. Kills: an index kept under a name that two sets share."""
    for number in range(2):
        path = Path(FORMATS["npy"](tmp_path / str(number)))
        np.save(path, pictures() + np.uint8(number))
        os.utime(path, ns=(0, 0))
        assert np.array_equal(every(opened(str(path))).numpy(), (pictures() + np.uint8(number)).transpose(0, 3, 1, 2))


def test_a_split_that_appears_is_seen(tmp_path: Path):
    """Kills: labels of an index kept though the folder became one of train/ and test/."""
    folder = Path(split_folder(tmp_path / "set"))
    (folder / "test").rename(tmp_path / "aside")
    assert opened(str(folder)).classes == ("train",)
    (tmp_path / "aside").rename(folder / "test")
    source = opened(str(folder))
    assert source.classes == ("a", "b", "c") and source.held_out is not None and int(source.held_out.sum()) == 24
