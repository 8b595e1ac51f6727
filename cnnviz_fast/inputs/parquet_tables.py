"""Parquet files (extra `parquet`) that list paths, or that hold images as those of Hugging Face do."""

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
from ..runtime.untrusted import open_regular
from .catalogue import Catalogue, Failure, Files, ListedImage, normalised
from .in_memory import Encoded, Source

COLUMNS = ("image", "path", "filename", "file")
"""Names of columns that are taken first, in this order."""

_ROWS_READ = 16  # at once: images of 200 kB are 3 MB
_open = threading.local()


@dataclass(frozen=True, slots=True)
class Table:
    """One column of a Parquet file whose rows hold images, or a path where a row holds none."""

    path: str
    column: str

    def key(self, text: str) -> str:
        """Return TABLE/ROW."""
        return f"{self.path}/{text}"

    def open(self, image: ListedImage) -> Source:
        """Read a row. A table is read fastest in the order of its rows."""
        try:
            value = _reader_of(self).row(image.start)
        except Exception as error:  # pyarrow's own, OSError, StopIteration of a table that has changed
            raise ImageError(f"image {image.name!r} cannot be read: {reason_of(error)}.") from error
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, bytes):
            return Encoded(image.name, content)
        if path:
            return Path(os.path.join(os.path.dirname(self.path), path))
        raise ImageError(f"image {image.name!r} must be a path or a file's bytes, but the row is empty.")


def list_table(path: str, catalogue: Catalogue) -> None:
    """List the rows of a Parquet file; one that is damaged becomes a failure of the catalogue.

    A column of text holds paths, relative to the table's own folder. A column of binary values, or of structs with a
    field `bytes` (and `path`), holds the files of images. The first column named in COLUMNS that is one of these is
    taken; else the only column of images; else the only column of text.

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
        open_regular(path).close()  # pyarrow would wait for a pipe, without end
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
    """Return the path in each row of a column of text; None for each row of a column of images."""
    if _kind(file.schema_arrow.field(column).type) == "images":
        yield from itertools.repeat(None, file.metadata.num_rows)
        return
    for batch in file.iter_batches(columns=[column], use_threads=False):
        yield from batch.column(0).to_pylist()


def _kind(kind: Any) -> str | None:
    """Return whether a column's type is that of "text" or "images"; None for any other."""
    types = import_extra("pyarrow", "parquet", "Parquet lists", ImageError).types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else None
    return "images" if kind is not None and (types.is_binary(kind) or types.is_large_binary(kind)) else None


def _pick_column(path: str, schema: Any) -> str:
    """Choose the column that images come from."""
    kinds: dict[str, str | None] = {field.name: _kind(field.type) for field in schema}
    for name in COLUMNS:
        if kinds.get(name):
            return name
    for kind in ("images", "text"):
        fitting = [name for name, found in kinds.items() if found == kind]
        if len(fitting) == 1:
            return fitting[0]
    raise ImageError(
        f"table {path!r} must have a column named {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}, or one column of text or "
        f"of images, got {', '.join(kinds) or 'none'}. Rename one."
    )


class _Reader:
    """Reads rows of a table, a few at a time: going forwards streams, going back starts the row group again.

    Memory therefore grows with the page (1024 rows as pyarrow writes it), not with the row group, often the whole file.
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
    """Return a reader of a table, the one that is kept open in each thread; a forked process opens its own."""
    owner = (os.getpid(), table)
    if getattr(_open, "owner", None) != owner:
        _open.reader = _Reader(table)
        _open.owner = owner
    reader: _Reader = _open.reader
    return reader
