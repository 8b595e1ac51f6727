"""The lock of a run's folder: the folder belongs to one run at a time, however the run before it ended.

Each rank holds `.lock-RANK-of-WORLD_SIZE`. The system releases a lock when the process that took it ends, killed or
not. These are POSIX locks (`fcntl.lockf`), which a forked child does not inherit: readers that outlive a killed run
would go on holding a lock of `flock`. They have one trap: a process that opens the file a second time loses its lock
when it closes that. So the files that this process holds are known, and are not opened again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ...errors import OptionError, WriteError, reason_of
from ...runtime.files import cannot_write

_NAME = re.compile(r"\.lock-(\d+)-of-(\d+)", re.ASCII)
_held: dict[Path, int] = {}  # lock file -> process that holds it; in a forked child that is its parent
_threads = threading.Lock()  # POSIX locks do not tell the threads of a process apart

if sys.platform == "win32":
    import msvcrt

    def _locked(file: BinaryIO, *, wait: bool) -> bool:
        """Lock a byte far behind what is written: on Windows a locked byte cannot be read."""
        file.seek(1 << 20)
        try:
            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                    return True
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EDEADLOCK):
                        raise
                    if not wait:  # otherwise LK_LOCK has given up, as it does after 10 s
                        return False
        finally:
            file.seek(0)

else:
    import fcntl

    def _locked(file: BinaryIO, *, wait: bool) -> bool:
        """Lock a file; False where another process holds it."""
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except PermissionError:  # POSIX allows this too for a file that another process holds, if it is not waited for
            if wait:
                raise
            return False
        return True


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file; False where another process holds it.

    Raises:
        WriteError: its file system has no locks.
    """
    try:
        return _locked(file, wait=wait)
    except OSError as error:
        raise WriteError(
            f"cannot lock {file.name}: {reason_of(error)}. A run needs locks, which NFS and Lustre have where they are "
            f"mounted with them. Give another out, or have it mounted so."
        ) from error


class FolderLock:
    """A folder taken for one rank of a run, until `release` or the end of the process."""

    def __init__(self, folder: Path, rank: int, world_size: int, check: Callable[[], None]) -> None:
        """Take the folder.

        Args:
            folder: must exist.
            rank: of this process, from 0.
            world_size: number of ranks.
            check: called while no other run can take or leave the folder; if it raises, the folder is not taken.

        Raises:
            OptionError: a run of the same rank, or of another number of ranks, is in the folder.
            WriteError: the folder cannot be written, or its file system has no locks.
        """
        self._folder = folder.resolve()
        self._path = self._folder / f".lock-{rank}-of-{world_size}"
        try:
            with alone(self._folder):
                for path, of in _lock_files(self._folder):
                    if of == world_size and path != self._path:
                        continue
                    if (holder := _holder(path)) is not None:
                        raise OptionError(
                            f"folder {str(folder)!r} is in use by another run ({holder}). Wait for it, or give another "
                            f"out."
                        )
                    path.unlink()
                check()
                self._file = _taken(self._path)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def release(self) -> None:
        """Release the folder. In a forked child this does nothing: the folder is its parent's."""
        if _held.get(self._path) != os.getpid():
            return
        try:
            with alone(self._folder):
                self._let_go()
                self._path.unlink()
        except (OSError, WriteError):  # the folder is gone, or is no longer writable
            self._let_go()

    def _let_go(self) -> None:
        self._file.close()
        _held.pop(self._path, None)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Admit one process at a time to the block: meanwhile no run can take or leave the folder.

    The last run that leaves removes the file that is locked for this. A process that waited for it may then hold a file
    that no longer has a name; it tries again.
    """
    path = folder / ".lock"
    with _threads:
        while True:
            with open(path, "ab") as file:
                _lock(file, wait=True)
                if not _is_at(file, path):
                    continue
                try:
                    yield
                finally:
                    if not any(_lock_files(folder)):
                        with contextlib.suppress(OSError):  # Windows does not remove an open file
                            path.unlink()
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the lock files in a folder, each with the number of ranks of its run."""
    for name in os.listdir(folder):
        if match := _NAME.fullmatch(name):
            yield folder / name, int(match[2])


def _holder(path: Path) -> str | None:
    """Return the process that holds a lock file, in words; None where that process has ended."""
    if _held.get(path) == os.getpid():
        return _this_process()
    with open(path, "r+b") as file:
        return None if _lock(file, wait=False) else file.read().decode(errors="replace")


def _taken(path: Path) -> BinaryIO:
    """Make a lock file and hold it."""
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(open(path, "xb", buffering=0))
        _lock(file, wait=False)  # succeeds: only the process in `alone` opens lock files
        file.write(_this_process().encode())
        undo.pop_all()
    _held[path] = os.getpid()
    return file


def _this_process() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"
