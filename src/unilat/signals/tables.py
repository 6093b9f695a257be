"""Parquet files and local Hugging Face data sets (``save_to_disk``) -> :class:`Pictures`, through pyarrow alone.

A row holds the bytes of a picture file, as a binary column or as Hugging Face's struct ``{bytes, path}``; paths are
never followed. Its class is an integer or text column, the usual one or those that are named; the file's own
``ClassLabel`` names the classes if there is one.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unilat.fields import FieldError, Fit, Size
from unilat.signals.collect import Item, collect, even_positions
from unilat.signals.decode import printable, read_file
from unilat.signals.factors import USUAL, Labels
from unilat.signals.parts import folder_side, word_side
from unilat.signals.pictures import Pictures, Progress, require_memory
from unilat.types import UserError

IMAGE_COLUMNS = ("image", "img", "picture", "images", "jpg", "png", "webp", "pixel_values", "bytes")
LABEL_COLUMNS = ("label", "labels", "class", "category", "fine_label", "cls", "target")
PYARROW_FLOOR = (14, 0, 1)  # CVE-2023-47248: older ones unpickle what a file says


def arrow() -> Any:
    """pyarrow, or the line that says how to get it."""
    try:
        import pyarrow
    except ImportError:
        raise UserError("Parquet and Hugging Face data sets are read by pyarrow: pip install 'unilat[data]'") from None
    version = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdigit())
    if version < PYARROW_FLOOR:
        raise UserError(f"pyarrow {pyarrow.__version__} runs code from files; pip install 'pyarrow>=14.0.1'")
    return pyarrow


def require_file(path: Path) -> None:
    """:class:`UserError` for a pipe or a device: pyarrow would wait for it, or read it for ever."""
    if path.exists() and not path.is_file():
        raise UserError(f"{printable(str(path))}: not a regular file; put one in its place, or take it away")


@dataclass(frozen=True)
class Table:
    """One part of a data set: its schema, its length, and a way to read chosen columns batch by batch."""

    path: Path
    schema: Any
    rows: int
    held_out: bool
    batches: Callable[[list[str]], Iterator[Any]]


@dataclass(frozen=True)
class Columns:
    """Those that are read of all parts of a data set."""

    image: str
    labels: tuple[str, ...]
    names: tuple[tuple[str, ...] | None, ...]
    """What ``ClassLabel`` calls the numbers of each label; None for a column without it."""

    @property
    def all(self) -> list[str]:
        """Pictures first."""
        return [self.image, *self.labels]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """In their own order, where there is one label that has one."""
        return self.names[0] if len(self.names) == 1 else None


def columns_of(tables: list[Table], source: str, labels: Labels) -> Columns:
    """The columns that all ``tables`` must have: those named, else the usual ones."""
    if not tables:
        raise UserError(f"{source}: it has no rows; name a data set that holds pictures")
    schema = tables[0].schema
    image, usual = image_column(schema, source), label_column(schema)
    lacking = [name for name in labels.names if not _may_label(schema, name)]
    if lacking and not labels.unlabelled:
        what = f"no column of text or whole numbers called {', '.join(printable(name, 40) for name in lacking)}"
        raise FieldError(f"{source}: {what}; it has {_shown(schema)}; name others in data.labels")
    found = () if lacking else labels.names or ((usual,) if usual else ())
    for table in tables[1:]:
        if not {image, *found} <= set(table.schema.names):
            raise UserError(f"{source}: {printable(table.path.name)} has other columns than {tables[0].path.name}")
    return Columns(image, found, tuple(_class_names(schema, name) for name in found))


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises for damaged rows into one line."""
    try:
        yield
    except (OSError, ValueError, MemoryError, LookupError) as error:  # pyarrow's own are these
        where = printable(str(path))
        raise UserError(f"{where}: cannot be read ({printable(str(error), 80)}); fetch or write it anew") from None


def open_parquet(path: Path, held_out: bool = False) -> Table:
    """A Parquet file; its footer is read, no row yet."""
    arrow()
    import pyarrow.parquet as parquet

    require_file(path)
    try:
        file = parquet.ParquetFile(path)
        metadata = file.metadata
        largest = max((metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups)), default=0)
        schema = file.schema_arrow
        len(schema.names)  # which are no text where the file is damaged
    except Exception as error:  # pyarrow raises its own and Python's errors on damaged files
        raise UserError(f"{printable(str(path))}: not a readable Parquet file ({printable(str(error), 80)})") from None
    require_memory(largest, printable(str(path)), metadata.num_rows, "its largest row group")

    def batches(columns: list[str]) -> Iterator[Any]:
        with _one_line(path):
            yield from file.iter_batches(batch_size=64, columns=columns)

    return Table(path, schema, metadata.num_rows, held_out, batches)


def open_arrow(path: Path, held_out: bool) -> Table:
    """A file of Arrow record batches, as ``datasets`` writes them (stream format; the file format is taken too)."""
    pa = arrow()
    require_file(path)
    try:
        source = pa.memory_map(str(path))
        try:
            parts = list(pa.ipc.open_stream(source))
            schema = parts[0].schema if parts else pa.schema([])
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            parts, schema = [reader.get_batch(k) for k in range(reader.num_record_batches)], reader.schema
        len(schema.names)  # which are no text where the file is damaged
    except Exception as error:
        raise UserError(f"{printable(str(path))}: not a readable Arrow file ({printable(str(error), 80)})") from None

    def batches(columns: list[str]) -> Iterator[Any]:
        with _one_line(path):
            for part in parts:
                for start in range(0, part.num_rows, 64):
                    yield part.select(columns).slice(start, 64)

    return Table(path, schema, sum(part.num_rows for part in parts), held_out, batches)


def parquet_tables(folder: Path) -> list[Table]:
    """The Parquet files of a folder or its ``data/`` that hold pictures; ``test*`` beside ``train*`` is held out.

    A file of another kind of table (``metadata.parquet``) is left out, unless there is nothing else.
    """
    files = sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")])
    split = {"train", "test"} <= {word_side(path.name) for path in files}
    tables = [open_parquet(path, split and word_side(path.name) == "test") for path in files]
    return [table for table in tables if picture_columns(table.schema)] or tables


def saved_tables(folder: Path) -> list[Table]:
    """The parts of a ``save_to_disk`` folder: one data set, or the splits named in ``dataset_dict.json``.

    Test and validation are held out, both where there are both; every other part is trained on.
    """
    if not (folder / "dataset_dict.json").is_file():
        return _saved_split(folder, False)
    splits = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits) or not splits:
        raise UserError(f"{printable(str(folder))}: dataset_dict.json names no splits; save the data set again")
    held = [folder_side(name) == "test" for name in splits]
    return [
        table
        for name, one in zip(splits, held, strict=True)
        for table in _saved_split(_inside(folder, name), one and not all(held))
    ]


def _saved_split(folder: Path, held_out: bool) -> list[Table]:
    """The Arrow files that a split's ``state.json`` lists."""
    state = _json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise UserError(
            f"{printable(str(folder))}: rows are reordered by an index; save data_set.flatten_indices() instead"
        )
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and isinstance(f.get("filename"), str) for f in files
    ):
        raise UserError(f"{printable(str(folder))}: state.json names no data files; save the data set again")
    return [open_arrow(_inside(folder, f["filename"]), held_out) for f in files]


def _inside(folder: Path, name: str) -> Path:
    """``folder / name``, refused where it leads outside the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{printable(str(folder))}: names a file outside itself ({printable(name)}); not read")
    if not path.exists():
        raise UserError(f"{printable(str(folder))}: {printable(name)} is missing; save the data set again")
    return path


def _json(path: Path) -> dict[str, Any]:
    """A small JSON object."""
    try:
        content = json.loads(read_file(path))
    except Exception as error:
        raise UserError(f"{printable(str(path))}: cannot be read ({printable(str(error), 60)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{printable(str(path))}: not a JSON object; save the data set again")
    return content


def load_tables(
    tables: list[Table],
    source: str,
    *,
    size: Size,
    channels: int | None = None,
    fit: Fit = "crop",
    progress: Progress | None = None,
    limit: int | None = None,
    labels: Labels = USUAL,
) -> Pictures:
    """Every row with a readable picture, in the tables' order; names are ``row 17``, counted over all tables.

    ``labels.unlabelled``: also those without a label, or with -1 for one, in a class named by the empty text.
    """
    tables = [table for table in tables if table.rows]
    columns = columns_of(tables, source, labels)
    held_out = [table.held_out for table in tables for _ in range(table.rows)]
    chosen = set(even_positions(len(held_out), limit, held_out))
    return collect(
        _items(tables, columns, chosen, labels),
        len(chosen),
        source,
        size=size,
        channels=channels,
        fit=fit,
        progress=progress,
        class_order=(*columns.classes, "") if columns.classes and labels.unlabelled else columns.classes,
        one_class=not columns.labels,
        labels=labels.several,
    )


def _items(tables: list[Table], columns: Columns, chosen: set[int], labels: Labels) -> Iterator[Item]:
    """The chosen rows as :class:`Item`."""
    row = -1
    for table in tables:
        for batch in table.batches(columns.all):
            cells = batch.column(columns.image)
            with _one_line(table.path):
                values = [batch.column(name).to_pylist() for name in columns.labels]
            for position in range(batch.num_rows):
                row += 1
                if row in chosen:
                    of = [column[position] for column in values]
                    yield _item(f"row {row}", cells[position].as_py(), of, columns, labels, table.held_out)


def _item(name: str, cell: Any, values: Sequence[Any], columns: Columns, labels: Labels, held_out: bool) -> Item:
    """One row; what is missing in it becomes the reason it is skipped."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or (None if not cell.get("path") else str(cell["path"]))
    if isinstance(cell, str):
        return Item(name, None, problem="only a path, no bytes")
    if not cell:
        return Item(name, None, problem="no bytes")
    known = list(zip(values, columns.names, strict=True))
    if labels.unlabelled and any(value in (None, "") or (names is not None and value == -1) for value, names in known):
        return Item(name, cell, "", held_out)
    texts = []
    for value, names in known:
        if value is None or (labels.names and value == ""):
            return Item(name, None, problem="no label")
        if names is not None and (not isinstance(value, int) or not 0 <= value < len(names)):
            return Item(name, None, problem=f"label {printable(str(value), 20)} has no name")
        texts.append(str(value) if names is None else names[value])
    return Item(name, cell, labels.text(texts), held_out)


def picture_columns(schema: Any) -> list[str]:
    """The columns that may hold picture files: binary, or a struct with a binary field ``bytes``."""
    pa = arrow()

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    return [field.name for field in schema if holds_bytes(field.type)]


def image_column(schema: Any, source: str) -> str:
    """The column that holds pictures: the only one that may, of several one with a usual name."""
    found = picture_columns(schema)
    usual = [name for name in IMAGE_COLUMNS if name in found]
    if usual or len(found) == 1:
        return (usual or found)[0]
    shown = _shown(schema)
    raise UserError(f"{source}: no column of picture files; it has {shown}; name the column of bytes 'image'")


def _shown(schema: Any) -> str:
    """The first columns with their types."""
    return ", ".join(printable(f"{field.name} ({field.type})", 40) for field in list(schema)[:6]) or "none"


def label_column(schema: Any) -> str | None:
    """The column of classes: a usual name, whole numbers or text; None where there is none."""
    return next((name for name in LABEL_COLUMNS if _may_label(schema, name)), None)


def _may_label(schema: Any, name: str) -> bool:
    """Whether there is one such column, of whole numbers or text."""
    pa = arrow()
    if schema.names.count(name) != 1:
        return False
    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names of Hugging Face's ``ClassLabel`` for this column, from the schema's metadata."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = feature["names"]
        if feature["_type"] == "ClassLabel" and isinstance(names, list) and len(set(map(str, names))) == len(names):
            return tuple(str(name) for name in names)
    except (KeyError, ValueError, TypeError):
        pass
    return None
