"""What is sure to be on the disk, and whether a folder is still the one that files were written to."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import WriteError
from .files import cannot_write
from .workers import in_order

_AT_ONCE = 8
"""Files that are flushed at once: a file system writes its journal once for all that wait for it. Measured on ext4, 256
files of 200 kB: 100 ms one by one, 48 ms with 8."""

_EACH = 8
"""Files for which a thread is worth its start."""

_MANY = 64
"""Files from which on whole file systems are flushed, in one call. Measured on ext4, of 1 kB: 288 files in 30 ms,
not in 80 to 300; 3,456 in 0.2 s with 9 ms of CPU time, not in 0.8 s with 260."""

_NEVER_FLUSHED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""What file systems say that flush no folders, or nothing at all: some of networks, and some of user space."""


def flush(descriptor: int) -> None:
    """Wait until an open file or folder is on the disk, where its file system can be asked for that.

    Raises:
        OSError: the disk refuses it.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NEVER_FLUSHED:
            raise


def flush_files(root: Path, names: Sequence[str]) -> list[int]:
    """Wait until files and their entries in folders are on the disk, so that no loss of power takes them.

    Args:
        root: a folder.
        names: of files below it, with /.

    Returns:
        The size of each, in bytes.

    Raises:
        WriteError: a file is missing, or the disk refuses it.
    """
    folders = [root / folder for folder in dict.fromkeys(parent for name in names for parent in Path(name).parents)]
    if len(names) >= _MANY and _flush_file_systems(folders):
        return [_size_of(root / name) for name in names]
    threads = max(1, min(_AT_ONCE, len(names) // _EACH))
    sizes = list(in_order(_flush_file, [root / name for name in names], threads))
    flush_folders(folders)
    return sizes


def _flush_file_systems(folders: Iterable[Path]) -> bool:
    """Wait until all that was written to the file systems of folders is on their disks.

    Returns:
        False where the operating system has no such call, or does not do it.

    Raises:
        WriteError: a folder is missing, or a disk refuses it.
    """
    flush_all = _syncfs()
    flushed: set[int] = set()
    for folder in folders if flush_all is not None else ():
        try:
            with _opened(folder) as descriptor:
                device = os.fstat(descriptor).st_dev
                if device not in flushed and flush_all is not None and flush_all(descriptor):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                flushed.add(device)
        except OSError as error:
            if error.errno in _NEVER_FLUSHED:
                return False
            raise cannot_write(folder, error) from error
    return flush_all is not None


@functools.cache
def _syncfs() -> Callable[[int], int] | None:
    """Return Linux's syncfs, which Python has no name for; since Linux 5.8 it tells of files that were not written."""
    if not sys.platform.startswith("linux"):
        return None
    flush_all: Callable[[int], int] | None = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    return flush_all


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise cannot_write(path, error) from error


def flush_folders(folders: Iterable[Path]) -> None:
    """Wait until the entries of folders are on the disk.

    Raises:
        WriteError: a folder is missing, or the disk refuses it.
    """
    for folder in folders if sys.platform != "win32" else ():  # which flushes no folder
        try:
            with _opened(folder) as descriptor:
                flush(descriptor)
        except OSError as error:
            raise cannot_write(folder, error) from error


def _flush_file(path: Path) -> int:
    try:
        with _opened(path) as descriptor:
            flush(descriptor)
            return os.fstat(descriptor).st_size
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class HeldFolder:
    """A folder that must stay the one it is: what is written to a path alone may go anywhere.

    It is kept open, so that no other folder can get its number. Another one under its path, and a link to anywhere, are
    other folders; so is a link that takes the place of a link.
    """

    def __init__(self, path: Path) -> None:
        """Take hold of a folder.

        Raises:
            WriteError: it is not there.
        """
        self.path = path
        try:
            self._descriptor = None if sys.platform == "win32" else os.open(path, os.O_RDONLY)
            self._identity = self._identified()
        except OSError as error:
            raise cannot_write(path, error) from error

    def check(self) -> None:
        """Raise WriteError where the folder is gone, or another one is under its path."""
        try:
            same = self._identified() == self._identity
        except OSError:
            same = False
        if not same:
            raise WriteError(
                f"cannot write {self.path}: the folder was removed, renamed or replaced meanwhile. Run it again."
            )

    def _identified(self) -> list[tuple[int, int]]:
        """Return device and number of what is at the path, and of the folder that it leads to."""
        return [(found.st_dev, found.st_ino) for found in (os.lstat(self.path), os.stat(self.path))]

    def __del__(self) -> None:
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            os.close(descriptor)
