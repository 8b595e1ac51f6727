"""Stage 7 of 7, the index of a run: which pictures are finished, and what came of each, one JSON line a layer.

Every line has the picture's `key`, the `stem` of its files, and `part`: [i, n] of the i-th of its n lines. They were
written at once, so they stand together; a picture some of whose lines are missing is not finished.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from ...errors import InputError, OptionError, WriteError, reason_of
from ...runtime.compact import DigestMap
from ...runtime.extras import import_extra
from ...runtime.files import cannot_write, whole_file

Line = dict[str, Any]

RUN = "run.json"
"""What everything in the folder of a run depends on."""

OWN = ("key", "stem", "part")
"""Names in a line that are the index's own."""

_NAME = re.compile(r"(index|failed)(?:-(\d+)-of-(\d+))?\.jsonl", re.ASCII)
_BATCH_LINES = 4096  # that become a row group of Parquet


class Finished(NamedTuple):
    """A picture all of whose lines are in an index file: bytes where they start and end, and the lines."""

    start: int
    end: int
    lines: list[Line]


def name_of(kind: str, rank: int, world: int) -> str:
    """Name a rank's own file: KIND.jsonl where it is alone, KIND-RANK-of-WORLD.jsonl otherwise."""
    return f"{kind}.jsonl" if world == 1 else f"{kind}-{rank}-of-{world}.jsonl"


def files_of(folder: Path, kind: str) -> list[tuple[Path, int, int]]:
    """List the files of all ranks, of index or failed, with rank and number of ranks, by these."""
    matches = filter(None, map(_NAME.fullmatch, os.listdir(folder)))
    found = [(folder / match[0], int(match[2] or 0), int(match[3] or 1)) for match in matches if match[1] == kind]
    return sorted(found, key=lambda entry: (entry[2], entry[1]))


def holds_a_run(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is that of a run."""
    return os.path.exists(os.path.join(folder, RUN)) and bool(files_of(Path(folder), "index"))


def picture_lines(key: str, stem: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write the lines of a picture; one line where it has no rows.

    Args:
        key: which picture; it may hold any character.
        stem: of its files.
        rows: of JSON, one a layer; numbers that are not finite become null.

    Returns:
        The lines, ASCII.

    Raises:
        InputError: a row has a field of a name that is the index's own.
    """
    lines = []
    for part, row in enumerate(rows or [{}]):
        if taken := [name for name in OWN if name in row]:
            raise InputError(f"rows must not have a field {taken[0]!r}, which is the index's own.")
        line = {"key": key, "stem": stem, "part": [part, max(len(rows), 1)], **row}
        try:
            lines.append(json.dumps(line, allow_nan=False))
        except ValueError:
            lines.append(json.dumps(json.loads(json.dumps(line), parse_constant=lambda _: None)))
    return "".join(f"{line}\n" for line in lines).encode()


def read_finished(file: BinaryIO) -> Iterator[Finished]:
    """Read the finished pictures of an index file, up to the first line that does not belong to one.

    Args:
        file: at its start.

    Yields:
        The pictures.
    """
    start = end = 0
    lines: list[Line] = []
    for raw in file:
        line = read_line(raw)
        if line is None or not _follows(line, lines):
            return
        end += len(raw)
        lines.append(line)
        if line["part"][1] == len(lines):
            yield Finished(start, end, lines)
            start, lines = end, []


def read_line(raw: bytes) -> Line | None:
    """Read one line; None if it is cut off or damaged."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = orjson.loads(raw)
    except ValueError:
        try:
            line = json.loads(raw)  # which takes lone surrogates
        except (ValueError, RecursionError):
            return None
    match line:
        case {"key": str(), "stem": str(), "part": [int(i), int(n)]} if 0 <= i < n:
            return dict(line)
    return None


def _follows(line: Line, lines: list[Line]) -> bool:
    """Tell if a line is the next one of a picture, or the first one of another where there are no lines yet."""
    first = lines[0] if lines else line
    told = (first["key"], first["stem"], [len(lines), first["part"][1]])
    return (line["key"], line["stem"], line["part"]) == told


def index_to_parquet(folder: str | os.PathLike[str]) -> Path:
    """Write the index of a run as one table, index.parquet: the finished pictures of all ranks, each once.

    Args:
        folder: of the run. In text, lone surrogates become `\\udcff`, since Parquet holds UTF-8.

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
    """Give the lines of finished pictures in a folder, some thousands at once."""
    lines = _lines_once(folder)
    while batch := list(itertools.islice(lines, _BATCH_LINES)):
        yield batch


def _lines_once(folder: Path) -> Iterator[Line]:
    seen = DigestMap(0)
    for path, _, _ in files_of(folder, "index"):
        with open(path, "rb") as file:
            for finished in read_finished(file):
                known = len(seen)
                seen.setdefault(finished.lines[0]["key"], b"")
                if len(seen) > known:
                    yield from map(_in_utf8, finished.lines)


def _in_utf8(value: Any) -> Any:
    """Escape lone surrogates, wherever they stand in a line."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_in_utf8(name): _in_utf8(entry) for name, entry in value.items()}
    return list(map(_in_utf8, value)) if isinstance(value, list) else value
