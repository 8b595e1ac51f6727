"""How the tars of a run look inside: the head of a file in them, their end, and a walk from file to file."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ...runtime.untrusted import open_regular

END = bytes(2 * tarfile.BLOCKSIZE)
"""What a tar that is whole ends with."""

NUMBER = re.compile(r"\d{6}\.tar", re.ASCII)
"""Of a tar, behind its prefix."""

_SHARD = re.compile(r"shard-(\d+-of-\d+-)?\d{6}\.tar", re.ASCII)
_SIZE, _KIND = slice(124, 136), slice(156, 157)  # of a header's block; POSIX.1-1988, ustar


def part_of(folder: Path, name: str) -> Path:
    """Return the path of a tar while it is written."""
    return folder / f".{name}.part"


def header_of(name: str, size: int) -> bytes:
    """Return what stands before a file in a tar: always the same bytes for the same name and size."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.PAX_FORMAT)


def padding_of(size: int) -> bytes:
    """Return what stands behind a file in a tar, which is made of whole blocks."""
    return bytes(-size % tarfile.BLOCKSIZE)


def ends_at(path: Path, end: int) -> bool:
    """Check whether a tar has the mark of its end at a byte, and nothing behind it."""
    with open_regular(path) as file:
        file.seek(end)
        return file.read(len(END) + 1) == END


class TarMembers:
    """Walks over the files in a tar, in their order, and reads nothing but what stands before each.

    last: first byte and size of the file that was walked over last.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        """Begin before the first file, or before the one at a byte.

        Raises:
            OSError: it cannot be read, or is no regular file.
        """
        self._file = open_regular(path)
        self._size = os.fstat(self._file.fileno()).st_size
        self._end = start
        self.last = (start, 0)

    def go_on(self, names: Sequence[str]) -> int | None:
        """Walk over the next files.

        Args:
            names: that they must have.

        Returns:
            The byte behind them; None where others are there, or they are cut off.
        """
        return self._end if all(map(self._walk_over, names)) and self._end <= self._size else None

    def _walk_over(self, name: str) -> bool:
        self._file.seek(self._end)
        try:
            found = self._file.read(tarfile.BLOCKSIZE)
            if found[_KIND] == tarfile.XHDTYPE:  # a long name stands in blocks of its own before
                found += self._file.read(len(header_of(name, 0)) - tarfile.BLOCKSIZE)
            size = int(found[-tarfile.BLOCKSIZE :][_SIZE].rstrip(b"\0 "), 8)
            if size < 0 or found != header_of(name, size):
                return False
        except (OSError, ValueError):  # there is no head of a file, or no file can have the name
            return False
        self.last = (self._end + len(found), size)
        self._end += len(found) + size + len(padding_of(size))
        return True

    def close(self) -> None:
        """Close the tar."""
        self._file.close()


def open_members(folder: Path, name: str) -> TarMembers | None:
    """Begin to walk over a tar, or over what there is of it while it is written; None where there is neither.

    Args:
        folder: of the run.
        name: of the tar, as a row has it, which may be damaged.

    Returns:
        The walk.
    """
    for path in paths_of(folder, name):
        try:
            return TarMembers(path)
        except OSError:
            continue
    return None


def paths_of(folder: Path, name: str) -> list[Path]:
    """Return where a tar of a run lies, once it is whole and while it is written; none for what is no name of one."""
    return [folder / name, part_of(folder, name)] if _SHARD.fullmatch(name) else []
