"""Archives of arrays: which are pictures and labels, in the words people use, and archives that are none."""

import contextlib
import struct
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from unilat.signals import load, split
from unilat.signals import npz as npz_module
from unilat.signals.npz import Archive, read_npz
from unilat.signals.source import open_source
from unilat.types import UserError

PICTURES = np.random.default_rng(2).integers(0, 256, (7, 8, 8, 3), np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2, 2])


def archive(path: Path, **arrays: np.ndarray) -> str:
    """An archive of these arrays."""
    np.savez(path / "set.npz", allow_pickle=False, **arrays)
    return str(path / "set.npz")


def refused(source: str) -> str:
    """The one line."""
    with pytest.raises(UserError) as error:
        load(source)
    assert "\n" not in str(error.value) and source in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("images", "labels"),
        ("images", "y"),
        ("arr_0", "arr_1"),
        ("x_train", "y_train"),
        ("X_train", "y_train"),
        ("train_images", "train_labels"),
        ("images", "y_train"),
        ("x_test", "y_test"),
        ("photos", "targets"),
    ],
)
def test_labels_go_by_many_names(tmp_path: Path, pictures: str, labels: str) -> None:
    """Kills: labels dropped in silence because of their name."""
    found = load(archive(tmp_path, **{pictures: PICTURES, labels: LABELS}))
    assert found.labels.tolist() == LABELS.tolist() and found.classes == ("0", "1", "2") and found.notes == ()
    found = load(archive(tmp_path, **{pictures: PICTURES, labels: LABELS[:, None].astype(np.float32)}))
    assert found.labels.tolist() == LABELS.tolist()


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    """An array of one number a picture that no name calls labels; a second array of pictures. Kills: silence, a note
    about what is read, arr_1 taken for labels whatever its shape."""
    found = load(archive(tmp_path, images=PICTURES, labels=LABELS, age=LABELS, classes=np.array(["a", "b", "c"])))
    assert found.notes == ("arrays that are not read: age int64 [7]",) and found.classes == ("a", "b", "c")
    found = load(archive(tmp_path, arr_0=PICTURES, arr_1=PICTURES, arr_2=LABELS[:3]))
    told = "arrays that are not read: arr_1 uint8 [7, 8, 8, 3], arr_2 int64 [3]"
    assert found.notes == (told,) and found.classes == ()
    assert load(archive(tmp_path, arr_0=PICTURES, arr_1=LABELS[:3])).classes == ()


def test_parts_of_a_split_by_their_names(tmp_path: Path) -> None:
    """MedMNIST's three parts: what is trained on comes first, each picture with its label. Kills: validation trained on
    or dropped, the labels of another part, counts of all together that hide a part's."""
    arrays = {"val_images": PICTURES[:2], "train_images": PICTURES[2:5], "test_images": PICTURES[5:]}
    arrays |= {"test_labels": LABELS[5:], "train_labels": LABELS[2:5], "val_labels": LABELS[:2, None]}
    found = load(archive(tmp_path, **arrays))
    order = [2, 3, 4, 0, 1, 5, 6]
    assert np.array_equal(found.images.numpy(), PICTURES[order].transpose(0, 3, 1, 2))
    assert found.labels.tolist() == LABELS[order].tolist()
    assert not any("not read" in note for note in found.notes)
    assert split(found)[0].tolist() == [0, 1, 2] and split(found)[1].tolist() == [3, 4, 5, 6]
    arrays |= {"train_labels": LABELS[1:5], "val_labels": LABELS[:1]}  # seven in all, but not where they belong
    assert "3 pictures but labels of shape [4]" in refused(archive(tmp_path, **arrays))


def test_parts_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    """Kills: a traceback of numpy's, floats and bytes mixed in one array, labels of one part dropped."""
    line = refused(archive(tmp_path, x_train=PICTURES, x_test=PICTURES[:2, :6]))
    assert "x_train uint8 [7, 8, 8, 3], x_test uint8 [2, 6, 8, 3]" in line and "one shape and type" in line
    assert "x_test float64" in refused(archive(tmp_path, x_train=PICTURES, x_test=PICTURES[:2] / 255))
    line = refused(archive(tmp_path, x_train=PICTURES, x_test=PICTURES[:2], y_train=LABELS))
    assert "x_test has no labels, the other part has" in line


def test_what_is_not_finite_is_named_by_its_array(tmp_path: Path) -> None:
    """Kills: the number of a picture in arrays laid end to end, which stands in no file."""
    values = PICTURES / 255.0
    values[5, 2, 2, 1] = np.nan
    line = refused(archive(tmp_path, x_train=values[:4], x_test=values[4:]))
    assert "picture 1 of x_test holds NaN or infinity" in line
    assert "picture 5 of images" in refused(archive(tmp_path, images=values))
    np.save(tmp_path / "set.npy", values)
    assert "picture 5 holds NaN" in refused(str(tmp_path / "set.npy"))


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (np.array(["a", "b", "a"]), "two classes have one name"),
        (np.array([1, 2, 3]), "one text for each class"),
        (np.frombuffer(struct.pack("<3I", 97, 98, 0x7FFFFFFF), "<U1"), "holds what is no text"),
    ],
)
def test_names_of_classes_that_name_none(tmp_path: Path, classes: np.ndarray, words: str) -> None:
    """Kills: two classes counted as one, names dropped in silence, a traceback for bytes that are no character."""
    assert words in refused(archive(tmp_path, images=PICTURES, labels=LABELS, classes=classes))


def test_names_of_classes_as_bytes(tmp_path: Path) -> None:
    """Also such that are no UTF-8. Kills: names of numpy's S type dropped, UnicodeDecodeError."""
    found = load(archive(tmp_path, images=PICTURES, labels=LABELS, classes=np.array([b"ant", b"\xe9", "ü".encode()])))
    assert found.classes == ("ant", "\\xe9", "ü")


def bomb(path: Path, size: int) -> str:
    """An archive of ``size`` zeros as pictures of 64 x 64, deflated."""
    header = BytesIO()
    shape = (size // 4096, 64, 64)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path / "set.npz", "w", zipfile.ZIP_DEFLATED) as out, out.open("images.npy", "w") as file:
        file.write(header.getvalue())
        for _ in range(size // (1 << 22)):
            file.write(bytes(1 << 22))
    return str(path / "set.npz")


def test_a_zip_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MiB in 260 kB: not one byte of it is unpacked. Kills: minutes and gigabytes before the line is told; a bound
    that refuses small pictures that pack well, or large ones that pack as pictures do."""
    source = bomb(tmp_path, 1 << 28)
    monkeypatch.setattr(npz_module.np.lib.format, "read_array", lambda *given, **words: pytest.fail("unpacked"))
    begin = time.perf_counter()
    line = refused(source)
    assert "images unpacks from 0.24" in line and "to 0.25 GiB" in line and ".npy" in line
    assert time.perf_counter() - begin < 5
    with pytest.raises(UserError, match="unpacks from"):
        read_npz(Path(source), source)
    with pytest.raises(UserError, match="unpack"):
        open_source(source, memory_budget=1 << 30)
    monkeypatch.undo()
    monkeypatch.setattr(npz_module, "UNPACKED_LEAST", (1 << 22) + 128)
    small = bomb(tmp_path, 1 << 22)
    assert Archive(Path(small), small).read("images").shape == (1024, 64, 64)
    np.savez_compressed(tmp_path / "real.npz", images=np.repeat(PICTURES, 6000, 0))
    assert len(Archive(tmp_path / "real.npz", "real").read("images")) == 42_000


def test_an_array_that_is_not_wanted_is_not_unpacked(tmp_path: Path) -> None:
    """Kills: all arrays of an archive in memory for the sake of one."""
    source = bomb(tmp_path, 1 << 28)
    with zipfile.ZipFile(source, "a") as out, out.open("x.npy", "w") as file:
        np.lib.format.write_array(file, PICTURES)
    Path(source).rename(tmp_path / "two.npz")
    with zipfile.ZipFile(tmp_path / "two.npz") as before, zipfile.ZipFile(source, "w") as out:
        for entry in before.infolist():
            name = entry.filename.replace("images", "other")
            out.writestr(name, before.read(entry), zipfile.ZIP_DEFLATED)
    found = load(source)
    assert len(found) == 7 and found.notes == ("arrays that are not read: other uint8 [65536, 64, 64]",)


def test_archives_without_an_array_of_pictures(tmp_path: Path) -> None:
    """Nothing, a text, a pickle, a password, one number, strings. Kills: a traceback, anything unpickled."""
    for name, content in (("empty", {}), ("text", {"readme.txt": b"hello"}), ("pickle", {"images.pkl": b"\x80\x04N."})):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as out:
            for member, data in content.items():
                out.writestr(member, data)
        assert "It has none" in refused(str(tmp_path / f"{name}.npz"))
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as out:
        out.writestr("images.npy", b"\x80\x04N.")
    assert "not an .npz file of numbers" in refused(str(tmp_path / "set.npz"))
    assert "images float64 []" in refused(archive(tmp_path, images=np.array(1.5)))
    assert "which array holds" in refused(archive(tmp_path, images=np.array(["a", "b"])))
    assert "pictures of type" in refused(archive(tmp_path, images=PICTURES.astype("U3")))
    data = bytearray(Path(archive(tmp_path, images=PICTURES)).read_bytes())
    for place in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[place] |= 1  # encrypted
    (tmp_path / "locked.npz").write_bytes(bytes(data))
    assert "not an .npz file of numbers" in refused(str(tmp_path / "locked.npz"))


def test_a_stream_that_is_damaged(tmp_path: Path) -> None:
    """Bytes of the packed pictures in turn, and every one of the directory. Kills: zlib.error or NotImplementedError, a
    picture of other pixels."""
    np.savez_compressed(tmp_path / "whole.npz", images=PICTURES)
    data = (tmp_path / "whole.npz").read_bytes()
    for place in (*range(0, len(data), 31), *range(data.index(b"PK\x01\x02"), len(data))):
        (tmp_path / "set.npz").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with contextlib.suppress(UserError):
            open_source(str(tmp_path / "set.npz"), memory_budget=0)
        try:
            found = load(str(tmp_path / "set.npz"))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(found.images.numpy(), PICTURES.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(), (5,), (5, 9)])
def test_arrays_of_too_few_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """As a file alone, in memory and as a stream. Kills: IndexError for a row of numbers."""
    np.save(tmp_path / "set.npy", np.zeros(shape, np.uint8))
    source = str(tmp_path / "set.npy")
    assert "layout of shape" in refused(source)
    with pytest.raises(UserError, match="layout of shape"):
        open_source(source, memory_budget=0)
