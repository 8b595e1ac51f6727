"""Stage 2 of 7, tables (extra `parquet`): Parquet files that list paths, or that hold pictures as Hugging Face does."""

from __future__ import annotations

import bisect
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ImageError, reason_of
from ..runtime.extras import import_extra
from .catalogue import Catalogue, Failure, Files, ListedImage, normalised
from .in_memory import Encoded, Source

COLUMNS = ("image", "path", "filename", "file")
"""Names of the columns that are looked for first, in this order."""

_ROWS_READ = 16  # at once: pictures of 200 kB are 3 MB
_open = threading.local()


@dataclass(frozen=True, slots=True)
class Table:
    """One column of a Parquet file whose rows hold pictures, or a path where a row holds none."""

    path: str
    column: str

    def key(self, text: str) -> str:
        """Return TABLE/ROW."""
        return f"{self.path}/{text}"

    def open(self, item: ListedImage) -> Source:
        """Read a row. Those of a table are read fastest in their order."""
        try:
            value = _reader_of(self).row(item.start)
        except Exception as error:  # pyarrow's own, OSError, StopIteration of a table that has changed
            raise ImageError(f"image {item.name!r} cannot be read: {reason_of(error)}.") from error
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, bytes):
            return Encoded(item.name, content)
        if path:
            return Path(os.path.join(os.path.dirname(self.path), path))
        raise ImageError(f"image {item.name!r} must be a path or a file's bytes, but the row is empty.")


def list_table(path: str, catalogue: Catalogue) -> None:
    """List the rows of a Parquet file; one that is damaged becomes a failure of the catalogue.

    Of columns named as in COLUMNS the first that fits is taken: text is paths, relative to the table's own folder;
    binary values, or structs with a field `bytes` (and `path`), are files of pictures. Otherwise it is the only column
    of binary values or structs, or else the only one of text.

    Args:
        path: of a .parquet file.
        catalogue: to add to.

    Raises:
        ImageError: pyarrow is not installed, or no column fits.
    """
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet lists", ImageError)
    folder = os.path.dirname(path)
    files, listed = Files(), 0
    try:
        with parquet.ParquetFile(path) as file:
            column = _pick_column(path, file.schema_arrow)
            table = Table(path, column)
            for listed, text in enumerate(_texts(file, column), 1):
                if text:
                    catalogue.add(files, normalised(os.path.join(folder, text)))
                else:
                    catalogue.add(table, str(listed - 1), listed - 1)
    except ImageError:
        raise
    except Exception as error:  # pyarrow's own errors are of many classes
        catalogue.failures.append(Failure(path, f"table {path!r} is damaged: {reason_of(error)}."))
    else:
        if not listed:
            catalogue.failures.append(Failure(path, f"table {path!r} holds no rows."))


def _texts(file: Any, column: str) -> Iterator[str | None]:
    """Give the path in each row of a column; None for each row of one that holds pictures."""
    if _kind(file.schema_arrow.field(column).type) == "pictures":
        yield from itertools.repeat(None, file.metadata.num_rows)
        return
    for batch in file.iter_batches(columns=[column], use_threads=False):
        yield from batch.column(0).to_pylist()


def _kind(kind: Any) -> str | None:
    """Tell columns of text and of pictures."""
    types = import_extra("pyarrow", "parquet", "Parquet lists", ImageError).types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else None
    return "pictures" if kind is not None and (types.is_binary(kind) or types.is_large_binary(kind)) else None


def _pick_column(path: str, schema: Any) -> str:
    """Choose the column that pictures come from."""
    kinds: dict[str, str | None] = {field.name: _kind(field.type) for field in schema}
    for name in COLUMNS:
        if kinds.get(name):
            return name
    for kind in ("pictures", "text"):
        fitting = [name for name, found in kinds.items() if found == kind]
        if len(fitting) == 1:
            return fitting[0]
    raise ImageError(
        f"table {path!r} must have a column named {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}, or one column of text or "
        f"of pictures, got {', '.join(kinds) or 'none'}. Rename one."
    )


class _Reader:
    """Rows of a table, a few at a time: forwards they stream, and going back starts the row group anew.

    So memory grows with the page, of 1024 rows as pyarrow writes it, and not with the row group, often the whole file.
    """

    def __init__(self, table: Table) -> None:
        parquet = import_extra("pyarrow.parquet", "parquet", "Parquet lists", ImageError)
        self._file = parquet.ParquetFile(table.path, buffer_size=1 << 20, pre_buffer=False)
        self._column = table.column
        groups = self._file.metadata
        sizes = (groups.row_group(i).num_rows for i in range(groups.num_row_groups))
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self._group, self._first = -1, 0
        self._rows: Any = ()
        self._batches: Iterator[Any] = iter(())

    def row(self, row: int) -> Any:
        """Return what a row holds."""
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._batches = self._file.iter_batches(
                _ROWS_READ, row_groups=[group], columns=[self._column], use_threads=False
            )
            self._group, self._first, self._rows = group, self._starts[group], ()
        while row >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = next(self._batches).column(0)
        return self._rows[row - self._first].as_py()


def _reader_of(table: Table) -> _Reader:
    """Keep one table open in each thread, of the process that opened it: a fork does not share it."""
    owner = (os.getpid(), table)
    if getattr(_open, "owner", None) != owner:
        _open.reader = _Reader(table)
        _open.owner = owner
    reader: _Reader = _open.reader
    return reader
