"""Parquet and saved Hugging Face data sets: columns found, names kept, rows that cannot be used told."""

import json

import numpy as np
import pytest
from PIL import Image

from unilat.signals import load, split
from unilat.types import UserError

from .zoo import SIDE, saved

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PNGS = [saved(Image.new("L", (SIDE, SIDE), 10 * number), "PNG") for number in range(6)]
OTHERS = [saved(Image.new("L", (SIDE, SIDE), value), "PNG") for value in (5, 15)]
NAMES = {"info": {"features": {"label": {"names": ["bee", "ant", "cow"], "_type": "ClassLabel"}}}}
METADATA = {"huggingface": json.dumps(NAMES)}


def hugging_face(labels, pictures=PNGS, metadata=METADATA):
    cells = pa.array(
        [{"bytes": data, "path": None} for data in pictures], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    schema = pa.schema([("image", cells.type), ("label", pa.int64())], metadata=metadata)
    return pa.table([cells, pa.array(labels, pa.int64())], schema=schema)


def first_pixels(pictures):
    return pictures.images[:, 0, 0, 0].tolist()


def test_parquet_in_hugging_face_form(tmp_path):
    """Kills: class numbers reordered by name, rows shuffled."""
    parquet.write_table(hugging_face([2, 1, 0, 0, 1, 1]), tmp_path / "a.parquet", row_group_size=2)
    pictures = load(str(tmp_path / "a.parquet"), size=SIDE)
    assert pictures.classes == ("bee", "ant", "cow") and pictures.labels.tolist() == [2, 1, 0, 0, 1, 1]
    assert first_pixels(pictures) == [0, 10, 20, 30, 40, 50] and pictures.names[5] == "row 5"
    assert first_pixels(load(str(tmp_path / "a.parquet"), size=SIDE, limit=3)) == [0, 20, 40]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_of_plain_bytes_with_text_or_number_labels(tmp_path, kind):
    """Kills: numbers sorted as text, a score taken for a class, a usual column that is not looked for."""
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"photo": pa.array(PNGS, kind), "class": list("babbab")}), path)
    assert load(str(path), size=SIDE).classes == ("a", "b")
    parquet.write_table(pa.table({"photo": pa.array(PNGS, kind), "label": [10, 2, 2, 10, 2, 2]}), path)
    assert load(str(path), size=SIDE).classes == ("2", "10")
    parquet.write_table(pa.table({"photo": pa.array(PNGS, kind), "score": [0.5] * 6}), path)
    assert load(str(path), size=SIDE).classes == ()


def test_rows_that_cannot_be_used_are_told(tmp_path):
    """Kills: a path in a file that is followed, a row without label in class 0, reasons of another row."""
    cells = [{"bytes": PNGS[0], "path": None}, {"bytes": None, "path": "/etc/passwd"}, {"bytes": b"text", "path": None}]
    cells += [None, {"bytes": PNGS[1], "path": None}, {"bytes": PNGS[2], "path": None}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = pa.array([0, 0, 0, 0, None, 3], pa.int64())
    schema = pa.schema([("image", kind), ("label", pa.int64())], metadata=METADATA)
    parquet.write_table(pa.table([pa.array(cells, kind), labels], schema=schema), tmp_path / "a.parquet")
    pictures = load(str(tmp_path / "a.parquet"), size=SIDE)
    told = dict(pictures.skipped)
    assert len(pictures) == 1 and told["row 1"] == "only a path, no bytes" and told["row 3"] == "no bytes"
    assert told["row 2"].startswith("not a picture") and told["row 4"] == "no label" and "no name" in told["row 5"]


def test_folder_of_parquet_files_with_a_test_part(tmp_path):
    """Kills: the test file trained on."""
    (tmp_path / "data").mkdir()
    parquet.write_table(hugging_face([0, 1, 2, 0, 1, 2]), tmp_path / "data" / "train-00000-of-00001.parquet")
    parquet.write_table(hugging_face([1, 1], OTHERS), tmp_path / "data" / "test-00000-of-00001.parquet")
    pictures = load(str(tmp_path), size=SIDE)
    train, test = split(pictures)
    assert len(train) == 6 and len(test) == 2 and pictures.labels[test].tolist() == [1, 1]


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"text": ["a"]}),
        pa.table({"one": [b"a"], "two": [b"b"]}),
        pa.table({"image": pa.array([], pa.binary())}),
    ],
)
def test_tables_without_pictures_are_refused(tmp_path, table):
    """Kills: a guess between two columns of bytes, a traceback for none."""
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet"):
        load(str(tmp_path / "a.parquet"), size=SIDE)


def test_damaged_parquet_is_one_line(tmp_path):
    """Kills: pyarrow's own pages of text for a file that ends early."""
    parquet.write_table(hugging_face([0] * 6), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    for number, damaged in enumerate((b"", b"PAR1", data[: len(data) // 2], b"PAR1" + bytes(60) + b"PAR1")):
        (tmp_path / f"{number}.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match=f"{number}.parquet") as error:
            load(str(tmp_path / f"{number}.parquet"), size=SIDE)
        assert "\n" not in str(error.value)


def test_damaged_rows_are_one_line(tmp_path):
    """A byte of the rows in turn, by steps. Kills: pyarrow's own errors where the footer is whole and a page is not."""
    parquet.write_table(hugging_face([0, 1, 2, 0, 1, 2]), tmp_path / "whole.parquet", compression="gzip")
    data, told = (tmp_path / "whole.parquet").read_bytes(), 0
    for place in range(4, len(data) // 2, 7):
        (tmp_path / "a.parquet").write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            load(str(tmp_path / "a.parquet"), size=SIDE)
        except UserError as error:
            assert "a.parquet" in str(error) and "\n" not in str(error)
            told += "cannot be read" in str(error)
    assert told > 3


def save_to_disk(folder, table, parts=2, stream=True):
    """What ``datasets.Dataset.save_to_disk`` writes."""
    folder.mkdir(parents=True)
    files, step = [], -(-table.num_rows // parts)
    for part in range(parts):
        name = f"data-{part:05}-of-{parts:05}.arrow"
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with pa.OSFile(str(folder / name), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table.slice(part * step, step))
        files.append({"filename": name})
    state = {"_data_files": files, "_fingerprint": "0", "_format_type": None, "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


@pytest.mark.parametrize("stream", [True, False])
def test_saved_data_set(tmp_path, stream):
    """Class names in their own order, over several files, in both formats. Kills: names sorted, a file left out."""
    save_to_disk(tmp_path / "set", hugging_face([2, 1, 0, 0, 1, 1]), stream=stream)
    pictures = load(str(tmp_path / "set"), size=SIDE)
    assert pictures.classes == ("bee", "ant", "cow") and pictures.labels.tolist() == [2, 1, 0, 0, 1, 1]
    assert first_pixels(pictures) == [0, 10, 20, 30, 40, 50]


def test_saved_data_set_with_splits(tmp_path):
    """Kills: a part called test that is trained on."""
    save_to_disk(tmp_path / "set" / "train", hugging_face([0, 1, 2, 0, 1, 2]))
    save_to_disk(tmp_path / "set" / "test", hugging_face([1, 1], OTHERS), parts=1)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    train, test = split(load(str(tmp_path / "set"), size=SIDE))
    assert len(train) == 6 and test.tolist() == [6, 7]


def test_of_a_saved_set_test_and_validation_are_held_out(tmp_path):
    """Kills: the validation part among the training pictures or in none, a part held out that is called otherwise."""
    for number, name in enumerate(("train", "validation", "test", "extra")):
        files = [saved(Image.new("L", (SIDE, SIDE), 50 * number + row), "PNG") for row in range(6)]
        save_to_disk(tmp_path / "set" / name, hugging_face([0, 1, 2, 0, 1, 2], files))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test", "extra"]}')
    pictures = load(str(tmp_path / "set"), size=SIDE)
    train, test = split(pictures)
    pixels = pictures.images[:, 0, 0, 0]
    assert sorted(pixels[test].tolist()) == [*range(50, 56), *range(100, 106)]
    assert sorted(pixels[train].tolist()) == [*range(6), *range(150, 156)]
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["validation", "test"]}')
    assert load(str(tmp_path / "set"), size=SIDE).held_out is None


def test_validation_files_are_held_out_beside_those_of_training(tmp_path):
    """Kills: `validation-*.parquet` trained on, because only `test-*` is looked for."""
    parquet.write_table(hugging_face([0, 1, 2, 0, 1, 2]), tmp_path / "train-0.parquet")
    parquet.write_table(hugging_face([1, 1], OTHERS), tmp_path / "validation-0.parquet")
    pictures = load(str(tmp_path), size=SIDE)
    assert sorted(pictures.images[split(pictures)[1], 0, 0, 0].tolist()) == [5, 15]


def test_many_rows_keep_their_labels(tmp_path):
    """150 rows in batches of 64 over two files, every third chosen. Kills: a row counted anew in each batch or file, a
    label of the row beside."""
    files = [saved(Image.new("L", (SIDE, SIDE), row), "PNG") for row in range(150)]
    labels = [row * row % 3 for row in range(150)]
    save_to_disk(tmp_path / "set", hugging_face(labels, files))
    for limit in (None, 50):
        pictures = load(str(tmp_path / "set"), size=SIDE, limit=limit)
        rows = list(range(0, 150, 3 if limit else 1))
        assert first_pixels(pictures) == rows and pictures.labels.tolist() == [labels[row] for row in rows]
        assert pictures.names == tuple(f"row {row}" for row in rows)


@pytest.mark.parametrize(
    "state",
    [
        "{",
        "[]",
        "{}",
        '{"_data_files": [{"filename": "../outside.arrow"}]}',
        '{"_data_files": [{"filename": "/etc/passwd"}]}',
        '{"_data_files": [{"filename": "missing.arrow"}]}',
        '{"_data_files": [{"filename": "state.json"}]}',
        '{"_data_files": [], "_indices_data_files": [{"filename": "x"}]}',
        '{"_data_files": []}',
    ],
)
def test_saved_data_sets_that_lie_are_refused(tmp_path, state):
    """Kills: a file outside the folder that is read, rows in another order than an index says."""
    save_to_disk(tmp_path / "set", hugging_face([0] * 6))
    (tmp_path / "outside.arrow").write_bytes((tmp_path / "set" / "data-00000-of-00002.arrow").read_bytes())
    (tmp_path / "set" / "state.json").write_text(state)
    with pytest.raises(UserError, match="set") as error:
        load(str(tmp_path / "set"), size=SIDE)
    assert "\n" not in str(error.value)


def test_pyarrow_that_is_missing_names_the_extra(tmp_path, monkeypatch):
    """Kills: ImportError in place of what to install."""
    parquet.write_table(hugging_face([0] * 6), tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"unilat\[data\]"):
        load(str(tmp_path / "a.parquet"), size=SIDE)


def test_channels_follow_the_pictures(tmp_path):
    """Kills: one grey picture that takes the colour of all."""
    colour = np.dstack([np.full((SIDE, SIDE), value, np.uint8) for value in (1, 2, 3)])
    pictures = [saved(Image.fromarray(colour), "PNG"), PNGS[3]]
    parquet.write_table(hugging_face([0, 1], pictures), tmp_path / "a.parquet")
    assert load(str(tmp_path / "a.parquet"), size=SIDE).images[:, :, 0, 0].tolist() == [[1, 2, 3], [30, 30, 30]]
