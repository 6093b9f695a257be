"""Parquet files of any size, a row group at a time, and saved sets of the ``datasets`` library by memory map.

Columns, classes and what is refused are those of ``tables.py``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unilat.fields import Fit, Size
from unilat.signals.decode import printable
from unilat.signals.factors import USUAL, Labels
from unilat.signals.handles import Handles
from unilat.signals.index import Entry, Index, Listing, checked, described, listing, sized, unread
from unilat.signals.tables import Table, _item, arrow, columns_of, open_parquet, parquet_tables, saved_tables
from unilat.types import UserError

GROUPS, GROUP_BYTES = 9, 1 << 28
"""Row groups at hand in one process: the 8 that an epoch's order shuffles together and the next; of so much memory."""


class TableFormat:
    """Pictures in the rows of Parquet or Arrow files: ``Format`` for a file, a folder of them, or a saved set."""

    said = ""
    side = None

    def __init__(self, path: Path, labels: Labels = USUAL) -> None:
        self.path, self.labels = path, labels
        self.folder = path if path.is_dir() else path.parent
        self.source = printable(str(path))
        is_saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
        self.word, self.has_blocks = ("saved", False) if is_saved else ("parquet", True)
        tables = saved_tables(path) if is_saved else parquet_tables(path) if path.is_dir() else [open_parquet(path)]
        tables = [table for table in tables if table.rows]
        self.columns = columns_of(tables, self.source, labels)
        self.classes = self.columns.classes
        self.rows = sum(table.rows for table in tables)
        self._held_out = {self._relative(table): table.held_out for table in tables}
        self._files: Handles[str, Any] = Handles(self._open, most=64)
        self._groups: Handles[tuple[str, int], Any] = Handles(
            self._group, most=GROUPS, weigh=lambda column: column.nbytes, most_bytes=GROUP_BYTES
        )

    def _relative(self, table: Table) -> str:
        return table.path.relative_to(self.folder).as_posix()

    def _open(self, file: str) -> Any:
        """A Parquet file, or the record batches of an Arrow file, mapped."""
        if self.word == "parquet":
            arrow()
            import pyarrow.parquet as parquet

            return parquet.ParquetFile(self.folder / file, pre_buffer=False)
        pa = arrow()
        mapped = pa.memory_map(str(self.folder / file))
        try:
            return list(pa.ipc.open_stream(mapped))
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(mapped)
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]

    def _read(self, file: str, block: int, columns: list[str]) -> Any:
        """The columns of one row group or record batch. No thread of pyarrow's is started: a fork would lose it."""
        handle = self._files.get(file)
        return (
            handle.read_row_group(block, columns=columns, use_threads=False)
            if self.word == "parquet"
            else handle[block].select(columns)
        )

    def _group(self, key: tuple[str, int]) -> Any:
        return self._read(*key, [self.columns.image]).column(0)

    def listing(self, *, keep: bool = True) -> Listing:
        """The files in the set's order."""
        label = self.columns.labels[0] if self.columns.labels else None
        said = json.dumps([self.columns.image, label, self.classes, [*self._held_out.values()]]) + self.labels.said
        return listing(((file, str(self.folder / file)) for file in self._held_out), lambda: said, keep=keep)

    def scan(self, file: str) -> Iterator[Entry]:
        """Every row of a file."""
        number = 0
        try:
            handle = self._files.get(file)
            for block in range(handle.num_row_groups if self.word == "parquet" else len(handle)):
                part = self._read(file, block, self.columns.all)
                values = [part.column(name).to_pylist() for name in self.columns.labels]
                for offset, cell in enumerate(part.column(self.columns.image)):
                    of, held_out = [column[offset] for column in values], self._held_out[file]
                    item = _item(f"row {number}", cell.as_py(), of, self.columns, self.labels, held_out)
                    entry = Entry(name=item.name, block=block, offset=offset, label=item.label)
                    entry = entry._replace(held_out=item.held_out, problem=item.problem)
                    yield described(entry, item.data) if isinstance(item.data, bytes) else entry
                    number += 1
        except (OSError, ValueError) as error:  # pyarrow's errors are these
            where = printable(str(self.folder / file))
            raise UserError(f"{where}: cannot be read ({printable(str(error), 80)}); fetch or write it anew") from None

    def name(self, file: str, entry: str) -> str:
        """``row 17``, counted in its file, which is named where there are several."""
        return entry if len(self._held_out) == 1 else f"{file} {entry}"

    def pixels(self, index: Index, row: int, size: Size, fit: Fit = "crop") -> np.ndarray:
        """uint8 ``[1 or 3, H, W]`` of a row."""
        file, block, offset = index.files[int(index.file[row])], int(index.block[row]), int(index.offset[row])
        try:
            key = (file, block)
            column = self._groups.get(key) if self.has_blocks else self._group(key)
            cell = column[offset].as_py() if offset < len(column) else None
        except (OSError, ValueError, IndexError) as error:
            raise unread(index, row, self.folder, self.source, error) from None
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        data = content if isinstance(content, bytes) else b""
        checked(index, row, data, self.source)
        return sized(data, size, fit)
