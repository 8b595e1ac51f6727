"""What Windows does otherwise: names that it takes for something else, and files that it does not let go at once."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path, PureWindowsPath

DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
"""Names of devices, which a file does not have in any folder, with an extension or without."""

_REFUSED = re.compile('[\x00-\x1f<>:"|?*]')

_LONGEST_PATH = 244
"""Characters of a path, unless long paths are switched on: MAX_PATH without the NUL at its end, and without the 15 that
the name of an unfinished file is longer by; see `files.whole_file`."""

_PATIENCE_S = 1.0
_POLL_S = 0.01
"""A scanner or an indexer holds what was just written for moments. As long as csrc/system/windows.cpp waits."""


def fault_of(path: str | os.PathLike[str]) -> str:
    """Return why Windows would write something else than a file of this name, or "" where it would not.

    Args:
        path: of a file or a folder.

    Returns:
        A reason without a full stop.
    """
    given = PureWindowsPath(os.fspath(path))
    for part in given.parts[1:] if given.anchor else given.parts:
        if found := _REFUSED.search(part):
            return f"Windows takes no {found[0]!a} in a name"
        if DEVICE.match(part):
            return f"Windows has a device of the name {part!r}"
        if part.endswith((".", " ")) and part != "..":
            return f"Windows drops the end of the name {part!r}"
    return ""


def advice_on(path: str | os.PathLike[str], error: BaseException) -> str:
    """Return what else to say where a file cannot be written on Windows, with a leading blank, or "".

    Args:
        path: of the file.
        error: what the system said.
    """
    if sys.platform != "win32":
        return ""
    whole = os.path.abspath(path)
    if isinstance(error, FileNotFoundError) and len(whole) > _LONGEST_PATH:
        return f" Its path has {len(whole)} characters, of {_LONGEST_PATH} that go without LongPathsEnabled of Windows."
    if isinstance(error, PermissionError) and os.path.isfile(path):
        return " Another program may have it open."
    return ""


def replace_patiently(source: Path, target: Path) -> None:
    """Move a file as `os.replace` does, and wait a moment where Windows refuses it because somebody has it open."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > until:
                raise
        time.sleep(_POLL_S)
