"""Pictures with names: what a run takes, what it says it takes, and that classes are the run's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unilat
from unilat.cli import main
from unilat.cli.places import for_pictures
from unilat.models.latents import LatentSet
from unilat.run.given import TAKES, PictureSet, read
from unilat.signals import load
from unilat.types import UserError

CLASSES = ("ant", "3", "cat")


def grey(value: int, side: int = 16) -> np.ndarray:
    """A picture that is ``value`` but for its first row of 0 and 255 in turn, so that no two values look alike."""
    picture = np.full((side, side), value, np.uint8)
    picture[0] = 255 * (np.arange(side) % 2)
    return picture


def given(source: Any, channels: int = 1, classes: tuple[str, ...] = CLASSES) -> PictureSet:
    return read(source, size=(16, 16), channels=channels, classes=classes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes that the run knows in another order, one that it does not, and a file that is no picture."""
    for name, value in (("cat/b.png", 90), ("ant/a.png", 30), ("dog/c.png", 60)):
        (tmp_path / "five" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(value, 20)).save(tmp_path / "five" / name)
    (tmp_path / "five" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path / "five"


def test_labels_are_of_the_runs_classes_by_name(folder: Path) -> None:
    """Kills: labels numbered by the source's own classes, an unknown class taken for the first one, names in another
    order than the pictures, a file that is left out in silence."""
    found = given(folder)
    assert found.labels.tolist() == [0, 2, -1] and found.classes == CLASSES
    assert found.names == ("ant/a.png", "cat/b.png", "dog/c.png")
    assert [one.label for one in found] == ["ant", "cat", None] and found[1].name == "cat/b.png"
    assert found.images[:, 0, 15, 15].tolist() == [30, 90, 60]
    assert found.counted()["skipped"][0]["name"] == "cat/notes.txt" and found.counted()["converted"]["resized"] == 3
    said = "\n".join(found.lines())
    assert "does not know, label -1: dog" in said and "cat/notes.txt (not a picture" in said and "3 resized" in said
    assert given(folder / "cat").labels.tolist() == [-1] and given(folder, classes=()).labels.tolist() == [0, 0, 0]
    Image.fromarray(grey(5)).save(folder / "loose.png")
    loose = given(folder)
    assert dict(zip(loose.names or (), loose.labels.tolist(), strict=True))["loose.png"] == -1
    assert "1 picture(s) have no class, label -1" in loose.lines() and "label -1: dog" in "".join(loose.lines())


def test_what_is_odd_about_pictures_is_said_and_nothing_of_a_split(tmp_path: Path) -> None:
    """Bytes of 0 and 1 in folders called train and test, one of which repeats another. Kills: black pictures without a
    word, a line on what will be trained on, which nothing here is."""
    for index, name in enumerate(("train/a.png", "train/b.png", "test/c.png", "test/d.png")):
        (tmp_path / "odd" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((grey(min(index, 2)) > 128).astype(np.uint8)).save(tmp_path / "odd" / name)
    said = "\n".join(given(tmp_path / "odd", classes=()).lines())
    assert "no value above 1 of 255" in said and "3 of 4 pictures are exact copies" in said and "train" not in said


def test_paths_arrays_pictures_and_tensors_are_the_same_pictures(folder: Path) -> None:
    """Kills: a kind that is refused or turned round, floats taken for bytes, an order that is not the list's."""
    paths = [folder / "cat" / "b.png", str(folder / "dog" / "c.png")]
    listed = given(paths)
    assert listed.labels.tolist() == [2, -1] and listed.names == tuple(map(str, paths)) and not listed.notes
    wanted = torch.from_numpy(np.stack([grey(90), grey(60)]))[:, None]
    values = wanted[:, 0].numpy()
    for source in (
        wanted,
        values,
        values / np.float32(255),
        wanted.permute(0, 2, 3, 1),
        wanted.float() / 255,
        wanted.repeat(1, 3, 1, 1),
        [Image.fromarray(one) for one in values],
        [values[0], torch.from_numpy(values[1])],
        [np.stack([one] * 3, 2) for one in values],
    ):
        found = given(source)
        assert torch.equal(found.images, wanted), source
        assert found.labels.tolist() == [-1, -1] and found.names is None
    assert torch.equal(given(values[0]).images, wanted[:1])
    assert given(values, channels=3).images.shape == (2, 3, 16, 16)
    large = [Image.fromarray(grey(90, 32)), Image.fromarray(grey(60, 16)), Image.fromarray(grey(7, 48)[:40])]
    found = given(large)
    assert found.images[:, 0, 15, 15].tolist() == [90, 60, 7] and found.converted == {"resized": 2, "cropped": 1}
    assert given(found).images is found.images and given(found).converted == found.converted


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (7, "int"),
        ([], "empty list"),
        ([Path("a.png"), 3], "picture 0"),
        (torch.zeros(16), "float32 .16."),
        (np.array([["a"]]), "U"),
        (torch.full((2, 16, 16), 700.0), "values from 700"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), "8 x 8"),
        ([Image.new("L", (8, 8))], "picture 0 is 8 x 8, smaller"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), "one in colour or several in grey"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_said_in_one_line(wrong: Any, words: str) -> None:
    """Kills: a traceback for what a run does not take, and a line that does not say what it takes."""
    with pytest.raises(UserError, match=words) as error:
        given(wrong)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(TAKES) or words not in ("int", "empty list", "picture 0", "float32 .16.", "U")


def test_file_names_are_safe_and_no_two_are_equal() -> None:
    """Kills: a name that leaves the folder, two files of one name, a number that is not the picture's."""
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, -1])
    names = ("a/cat.png", "b/cat.jpg", "../x y/é? o.png", "...")
    made = PictureSet(images=images, labels=labels, classes=CLASSES, names=names)
    assert made.file_names() == ["00000-cat.png", "00001-cat.png", "00002-é-o.png", "00003.png"]
    plain = PictureSet(images=images, labels=labels, classes=CLASSES)
    assert plain.file_names() == ["00000-ant.png", "00001-3.png", "00002-cat.png", "00003.png"]


def test_pictures_of_ones_own_are_safe(tiny_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--out`` where pictures lie, also under a name that ours would have. Kills: a user's picture written over, ours
    of an earlier call refused."""
    Image.fromarray(grey(5)).save(folder / "00000-a.png")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    words = [["reconstruct", str(tiny_run), str(folder), "--out", str(folder)]]
    words += [["sample", str(tiny_run), "-n", "2", "--out", str(folder)]]
    words += [["sample", str(tiny_run), "-n", "1", "--out", str(folder / "00000-a.png")]]
    for one in words:
        capsys.readouterr()
        assert main(one) == 2
        assert "choose another --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    for _ in range(2):
        assert main(["reconstruct", str(tiny_run), str(folder), "--out", str(folder.parent / "new")]) == 0
        said = capsys.readouterr().err
        assert "skipped: cat/notes.txt" in said and "resized" in said
    names = sorted(path.name for path in (folder.parent / "new").iterdir())
    assert names == ["00000-00000-a.png", "00001-a.png", "00002-b.png", "00003-c.png"]
    with pytest.raises(UserError, match="lies among the pictures"):
        for_pictures(folder / "cat" / "deeper", str(folder))
    for_pictures(folder.parent / "five-more", str(folder))


def test_what_was_left_out_is_counted_and_kept(
    tiny_run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: unreadable files left out in silence by encode or evaluate, and figures of other pictures called held
    out."""
    out = folder.parent / "z.safetensors"
    assert main(["encode", str(tiny_run), str(folder), "--out", str(out), "--json"]) == 0
    said, noted = capsys.readouterr()
    assert '"cat/notes.txt"' in said and '"resized": 3' in said and "skipped: cat/notes.txt" in noted
    latents = LatentSet.load(out)
    assert latents.names == ("ant/a.png", "cat/b.png", "dog/c.png") and latents.classes == ("lying", "standing")
    assert latents.skipped[0][0] == "cat/notes.txt" and latents.converted["resized"] == 3
    assert main(["evaluate", str(tiny_run), str(folder)]) == 0
    said, noted = capsys.readouterr()
    assert "held-out" not in said + noted and "3 pictures" in said and "skipped: cat/notes.txt" in noted


def test_labels_of_samples_go_round(tiny_run: Path) -> None:
    """Kills: a number that comes back as a name, a name taken for a number where there is such a class, and a text
    taken for a place among classes that are named by numbers."""
    run = unilat.load(tiny_run)
    run.data = replace(run.data, classes=("10", "0", "1"))
    assert [run.class_number(label) for label in (0, 1, 2)] == [0, 1, 2]
    assert [run.class_number(label) for label in ("10", "0", "1")] == [0, 1, 2]
    for wrong, words in ((3, "3: choose one of 10, 0, 1 or 0 to 2"), ("2", "2: choose one of 10, 0, 1 by name")):
        with pytest.raises(UserError, match=f"there is no class {words}$"):
            run.class_number(wrong)


def test_latents_are_sliced_with_all_that_is_known(tmp_path: Path) -> None:
    """Kills: names or labels of other rows, a mask taken for numbers, an item that is a view of another, a file that
    loses names, and one of before that is refused."""
    z, bits = torch.arange(5 * 4.0).view(5, 1, 2, 2), torch.arange(5.0)
    labels, names = torch.tensor([0, 1, 2, -1, 1]), tuple("abcde")
    more: dict[str, Any] = {"skipped": (("x.txt", "not a picture"),), "converted": {"cropped": 2}}
    latents = LatentSet(z, bits, labels, 5.0, "f" * 64, 4, names=names, classes=CLASSES, **more)
    again = LatentSet.load(latents.save(tmp_path / "z.safetensors"))
    for one in (latents, again):
        assert (one.names, one.classes, one.skipped, one.converted) == (names, CLASSES, *more.values())
        assert one[1:3].names == one[torch.tensor([1, 2])].names == one[[1, 2]].names == ("b", "c")
        part = one[one.bits > 2.5]
        assert part.names == ("d", "e") and part.labels.tolist() == [-1, 1] and torch.equal(part.z, z[3:])
        assert len(part) == 2 and part.bits.tolist() == [3, 4] and part.classes == CLASSES and part.lambda_0 == 5.0
        assert [(item.name, item.label, item.bits) for item in one][-2:] == [("d", None, 3.0), ("e", "3", 4.0)]
        assert one[-1].name == "e" and torch.equal(one[0].z, z[0])
        with pytest.raises(IndexError):
            one[5]
    from unilat.files import read_safetensors, write_safetensors

    tensors, header = read_safetensors(tmp_path / "z.safetensors")
    old = {name: header[name] for name in ("format", "lambda_0", "encoder_sha256", "pixels", "noisy", "mean", "std")}
    write_safetensors(tmp_path / "old.safetensors", tensors, old)
    before = LatentSet.load(tmp_path / "old.safetensors")
    assert before.names is None and before.classes == () and len(before) == 5
    write_safetensors(tmp_path / "bad.safetensors", tensors, header | {"names": '["a"]'})
    with pytest.raises(UserError, match="damaged latent data set"):
        LatentSet.load(tmp_path / "bad.safetensors")


def test_rows_without_a_label_are_encoded_as_of_no_class(tmp_path: Path) -> None:
    """Parquet with a missing label, and a class column whose -1 is none. Kills: such rows left out or taken for the
    first class, and pictures of no class that nobody hears of."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for value in (30, 60, 90):
        Image.fromarray(grey(value)).save(tmp_path / "a.png")
        rows.append((tmp_path / "a.png").read_bytes())
    parquet.write_table(pa.table({"image": rows, "label": ["cat", None, "ant"]}), tmp_path / "texts.parquet")
    feature = '{"info": {"features": {"label": {"names": ["cat", "ant"], "_type": "ClassLabel"}}}}'
    numbers = pa.table({"image": rows, "label": [0, -1, 1]}).replace_schema_metadata({"huggingface": feature})
    parquet.write_table(numbers, tmp_path / "numbers.parquet")
    for name in ("texts", "numbers"):
        found = given(tmp_path / f"{name}.parquet")
        assert found.labels.tolist() == [2, -1, 0] and found.names == ("row 0", "row 1", "row 2"), name
        assert "1 picture(s) have no class, label -1" in found.lines() and not found.skipped
        assert len(load(str(tmp_path / f"{name}.parquet"), size=16)) == 2, "training takes labelled rows alone"
