"""Files and JSON that may be anybody's: no pipe is waited for, no device is read, and nothing is nested without end.

Both raise what the standard library raises: OSError for a file that cannot be read, ValueError for text that is not
JSON. So a caller has one kind of each to put into its own error.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import Any, BinaryIO

MOST_DEPTH = 100
"""Levels of nested JSON. Manifests have 4, the settings of a run as many more as a user's own objects are nested; code
that walks JSON by recursion takes up to three of Python's 1,000 levels for each."""

MOST_JSON_BYTES = 2**26
"""Of a JSON file. The manifest of a sheet of 2048 tiles takes 0.7 MB."""

_FAST_BYTES = 2**20
"""Of JSON for orjson 3.11, which takes memory of 12 times its size."""

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: of the file; links are followed.

    Returns:
        The open file.

    Raises:
        OSError: it cannot be opened, or it is a pipe, a device or a folder: those may never end, or never begin.
    """
    try:
        # A pipe that nobody writes to would otherwise be waited for.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except ValueError as error:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    kind = _KINDS.get(stat.S_IFMT(mode), "of another kind")
    raise OSError(errno.EINVAL, f"it must be a regular file, but is {kind}")


def read_regular(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Read a regular file.

    Args:
        path: of the file; links are followed.
        most_bytes: of a file that is read.

    Returns:
        Its bytes.

    Raises:
        OSError: it cannot be read, is not regular, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"it must hold at most {most_bytes:,} bytes, but holds {size:,}")
        return file.read(most_bytes)


def parse_json(content: bytes) -> Any:
    """Parse JSON.

    Args:
        content: of a file, or a line of one.

    Returns:
        What it holds.

    Raises:
        ValueError: it is not JSON, or nested more than MOST_DEPTH deep.
    """
    tree = _parsed(content)
    if content.count(b"[") + content.count(b"{") > MOST_DEPTH:  # only then it can be so deep
        _check_depth(tree)
    return tree


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Args:
        path: of the file.

    Returns:
        What it holds.

    Raises:
        OSError: it cannot be read; see read_regular.
        ValueError: it is not JSON, or nested too deep.
    """
    return parse_json(read_regular(path, MOST_JSON_BYTES))


_TOO_DEEP = f"it is nested more than {MOST_DEPTH} deep"


def _parsed(content: bytes) -> Any:
    import orjson

    if len(content) <= _FAST_BYTES:
        with contextlib.suppress(ValueError):
            return orjson.loads(content)
    try:
        return json.loads(content.decode())  # slower, but it takes lone surrogates and NaN
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def _check_depth(tree: Any) -> None:
    """Raise ValueError for JSON that is nested too deep; level by level, since recursion would fail on it."""
    level = [tree]
    for _ in range(MOST_DEPTH + 1):
        inner = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [child for children in inner for child in children]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
