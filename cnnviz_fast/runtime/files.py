"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import WriteError, reason_of
from .native import native
from .stage_times import stage
from .windows import advice_on, fault_of, replace_patiently

_PART = re.compile(r"\..*\.[0-9a-f]{8}\.part|\.cnnviz-\d+-\d+-\d+\.tmp", re.ASCII | re.DOTALL)
"""Names of unfinished files: those of `whole_file`, and those of the compiled encoder, csrc/encoder/png_file.cpp."""


def sweep(folder: Path, older_than_s: float) -> None:
    """Remove the unfinished files of killed processes, in a folder and all folders below it.

    Args:
        folder: the folder.
        older_than_s: keep files that were changed later than this ago: a process may still write them.
    """
    now = time.time()
    for place, _, names in os.walk(folder):
        for name in filter(_PART.fullmatch, names):
            with contextlib.suppress(OSError):  # it may just have been moved to its final name
                if now - os.stat(os.path.join(place, name)).st_mtime >= older_than_s:
                    os.unlink(os.path.join(place, name))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing under a temporary name in the same folder, and give it its final name at the end.

    Args:
        path: the final name. An older file of that name stays until everything is written. That is handed to the
            system, not flushed to a disk: a machine that loses its power may lose both.

    Yields:
        The open file.

    Raises:
        WriteError: the folder is missing, forbidden or full. The temporary file is removed however the block ends.
    """
    check_path(path)
    if not path.name:
        raise WriteError(f"cannot write {path}: it names no file.")
    # File systems allow names of 255 bytes, and a character takes up to 4.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
        with stage("write"):
            move_file(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(temporary)
        if isinstance(error, OSError) or "\0" in str(path):
            raise cannot_write(path, error) from error
        raise


def move_file(source: Path, target: Path) -> None:
    """Move a file to a name in the same folder; the native module does so without a flush of what is written.

    Args:
        source: the file.
        target: an older file of this name is there until it is this one.

    Raises:
        OSError: it cannot be moved.
    """
    module, _ = native()
    if module is None:
        replace_patiently(source, target)
    elif error := module.move_file(os.fsencode(source), os.fsencode(target)):
        raise OSError(error, os.strerror(error))


def cannot_write(path: Path, error: BaseException) -> WriteError:
    """Return the error for a file that cannot be written, in one line whatever it is called."""
    shown = str(path) if str(path).isprintable() else repr(str(path))
    return WriteError(f"cannot write {shown}: {reason_of(error)}.{advice_on(path, error)}")


def check_path(path: Path) -> None:
    """Refuse a path that no file can have: Python would refuse it with an error of its own, Windows write elsewhere.

    Raises:
        WriteError: the path holds a NUL, or a character that the file system's encoding lacks; or Windows has another
            use for it.
    """
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise WriteError(f"cannot write {path}: {reason_of(error)}.") from error
    if b"\0" in encoded:
        raise WriteError(f"cannot write {path}: a path cannot hold the character NUL.")
    if sys.platform == "win32" and (fault := fault_of(path)):
        raise WriteError(f"cannot write {path}: {fault}.")


def json_bytes(document: Any) -> bytes:
    """Return a document as JSON; a number that is not finite becomes null."""
    import orjson  # a manifest of 2048 tiles takes it 1 ms, the standard library 7

    try:
        return orjson.dumps(document)
    except TypeError:  # the name of a file that is not UTF-8, which Python keeps as lone surrogates
        return ascii_json(document).encode()


def ascii_json(document: Any) -> str:
    """Return a document as JSON in ASCII, whatever its texts hold; a number that is not finite becomes null."""
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(document), parse_constant=lambda _: None))


def make_folder(path: Path) -> None:
    """Make a folder, with the folders above it.

    Raises:
        WriteError: the folder cannot be made.
    """
    check_path(path)
    if os.path.isdir(path):  # the usual case, in which mkdir takes an exception to find out
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise cannot_write(path, FileExistsError("it is there and is no folder")) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise cannot_write(path, error) from error
