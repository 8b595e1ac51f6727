"""The index of a run: which images are finished, and what came out of each, one JSON line a layer.

Every line has the image's `key`, the `stem` of its files, and `part`: [i, n] in the i-th of its n lines; the rest is an
IndexRow. The lines of an image are written at once, so they stand together; an image with a missing line is not
finished.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...errors import InputError, OptionError, WriteError, reason_of
from ...formats.output_folders import INDEX_NAME
from ...runtime.compact import DigestMap
from ...runtime.extras import import_extra
from ...runtime.files import ascii_json, cannot_write, whole_file
from ...runtime.untrusted import open_regular, parse_json

Line = dict[str, Any]

OWN = ("key", "stem", "part")
"""Fields of a line that are not those of a row."""

_BATCH_LINES = 4096  # of a row group of Parquet

_MOST_LINE_BYTES = 2**26
"""Of a line that is read: a row with the names of 2048 tiles takes 20 kB. A file without an end of line may be huge."""


class FinishedLines(NamedTuple):
    """The lines of an image that is finished, and the bytes where they start and end in an index file."""

    start: int
    end: int
    lines: list[Line]


def name_of(kind: str, rank: int, world_size: int) -> str:
    """Name a rank's own file: KIND.jsonl where it is alone, KIND-RANK-of-WORLD_SIZE.jsonl otherwise."""
    return f"{kind}.jsonl" if world_size == 1 else f"{kind}-{rank}-of-{world_size}.jsonl"


def files_of(folder: Path, kind: str) -> list[tuple[Path, int, int]]:
    """List the files of a kind, index or failed, each with its rank and number of ranks, in the order of these."""
    matches = filter(None, map(INDEX_NAME.fullmatch, os.listdir(folder)))
    found = [(folder / match[0], int(match[2] or 0), int(match[3] or 1)) for match in matches if match[1] == kind]
    return sorted(found, key=lambda entry: (entry[2], entry[1]))


def image_lines(key: str, stem: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Make the lines of an image; one line where it has no rows.

    Args:
        key: of the image; it may hold any character.
        stem: of its files.
        rows: JSON, one a layer, see IndexRow; numbers that are not finite become null.

    Returns:
        The lines, ASCII.

    Raises:
        InputError: a row has a field of OWN.
    """
    lines = []
    for part, row in enumerate(rows or [{}]):
        if taken := [name for name in OWN if name in row]:
            raise InputError(f"rows must not have a field {taken[0]!r}, which is the index's own.")
        line = {"key": key, "stem": stem, "part": [part, max(len(rows), 1)], **row}
        lines.append(ascii_json(line))
    return "".join(f"{line}\n" for line in lines).encode()


def read_finished(file: BinaryIO) -> Iterator[FinishedLines]:
    """Read the finished images of an index file, up to the first line that does not belong to one.

    Args:
        file: at its start.

    Yields:
        The lines of each image.
    """
    start = end = 0
    lines: list[Line] = []
    for raw in iter(lambda: file.readline(_MOST_LINE_BYTES), b""):
        line = read_line(raw)
        if line is None or not _follows(line, lines):
            return
        end += len(raw)
        lines.append(line)
        if line["part"][1] == len(lines):
            yield FinishedLines(start, end, lines)
            start, lines = end, []


def read_line(raw: bytes) -> Line | None:
    """Read one line; None if it is cut off or damaged."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = parse_json(raw)
    except ValueError:
        return None
    match line:
        case {"key": str(), "stem": str(), "part": [int(i), int(n)]} if 0 <= i < n:
            return dict(line)
    return None


def _follows(line: Line, lines: list[Line]) -> bool:
    """Check whether a line is the next one of an image; with no lines yet, the first one of any image."""
    first = lines[0] if lines else line
    expected = (first["key"], first["stem"], [len(lines), first["part"][1]])
    return (line["key"], line["stem"], line["part"]) == expected


def index_to_parquet(folder: str | os.PathLike[str]) -> Path:
    """Write the index of a run as one table, index.parquet: the finished images of all ranks, each once.

    Args:
        folder: of the run. Lone surrogates in text are escaped as `\\udcff`, since Parquet holds UTF-8.

    Returns:
        The path of the table.

    Raises:
        OptionError: pyarrow is not installed.
        WriteError: it cannot be written, or a field holds values of different kinds.
    """
    arrow = import_extra("pyarrow", "parquet", "Parquet tables", OptionError)
    parquet = import_extra("pyarrow.parquet", "parquet", "Parquet tables", OptionError)
    folder = Path(folder)
    path = folder / "index.parquet"
    try:
        schema = arrow.schema([("key", arrow.string()), ("stem", arrow.string()), ("part", arrow.list_(arrow.int64()))])
        for batch in _batches(folder):
            names = dict.fromkeys(name for line in batch for name in line)  # from_pylist would take the first line's
            found = arrow.table({name: [line.get(name) for line in batch] for name in names}).schema
            schema = arrow.unify_schemas([schema, found], promote_options="permissive")
        with whole_file(path) as file, parquet.ParquetWriter(file, schema) as writer:
            for batch in _batches(folder):
                writer.write_table(arrow.Table.from_pylist(batch, schema))
    except arrow.ArrowException as error:
        raise WriteError(f"cannot write {path}: {reason_of(error)}.") from error
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def _batches(folder: Path) -> Iterator[list[Line]]:
    """Yield the lines of the finished images in a folder, some thousands at once."""
    lines = _lines_once(folder)
    while batch := list(itertools.islice(lines, _BATCH_LINES)):
        yield batch


def _lines_once(folder: Path) -> Iterator[Line]:
    seen = DigestMap(0)
    for path, _, _ in files_of(folder, "index"):
        with open_regular(path) as file:
            for finished in read_finished(file):
                known = len(seen)
                seen.setdefault(finished.lines[0]["key"], b"")
                if len(seen) > known:
                    yield from map(_in_utf8, finished.lines)


def _in_utf8(value: Any) -> Any:
    """Escape all lone surrogates in a line."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_in_utf8(name): _in_utf8(entry) for name, entry in value.items()}
    return list(map(_in_utf8, value)) if isinstance(value, list) else value
