"""The lock of a folder: between processes, after they are killed, and beside children that outlive them."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.processes import Python
from support.waiting import wait_until

from cnnviz_fast.errors import OptionError, WriteError
from cnnviz_fast.runs.folder.lock import FolderLock

HOLD = """
import os, signal, sys
from pathlib import Path
from cnnviz_fast.runs.folder.lock import FolderLock
rank, world_size, fork = map(int, sys.argv[2:5])
lock = FolderLock(Path(sys.argv[1]), rank, world_size, lambda: None)
child = os.fork() if fork else os.getpid()
if child == 0:
    lock.release()  # which is not the child's to do
    signal.alarm(60)
    signal.pause()
print(child, flush=True)
sys.stdin.read()
lock.release()
"""


def take(folder: Path, rank: int = 0, world_size: int = 1) -> FolderLock:
    return FolderLock(folder, rank, world_size, lambda: None)


@contextmanager
def holder(folder: Path, rank: int = 0, world_size: int = 1, *, fork: bool = False) -> Iterator[Any]:
    """Run a process that holds a folder until its stdin is closed; `child` is the one that it forked, or itself."""
    with Python("-c", HOLD, str(folder), str(rank), str(world_size), str(int(fork))) as process:
        wait_until(lambda: process.printed.endswith("\n"))
        process.child = int(process.printed)  # type: ignore[attr-defined]
        yield process


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_lock_is_gone_after_release_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(3):
        lock = take(tmp_path)
        assert left(tmp_path) == [".lock", ".lock-0-of-1"]
        lock.release()
        lock.release()
        assert left(tmp_path) == []


def test_lock_of_another_process_is_refused_with_its_number_and_host(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        said = (
            f"folder '{tmp_path}' is in use by another run (pid {process.pid} on {socket.gethostname()}). Wait for it"
        )
        for world_size in (1, 2):
            with pytest.raises(OptionError, match=re.escape(said)) as caught:
                take(tmp_path, 0, world_size)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        assert process.end() == 0
    assert left(tmp_path) == []
    take(tmp_path).release()


def test_lock_of_the_same_process_is_refused_and_stays_held(tmp_path: Path) -> None:
    lock = take(tmp_path, 0, 2)
    link = tmp_path.with_name("link")
    link.symlink_to(tmp_path)
    for folder, rank, world_size in ((tmp_path, 0, 2), (link, 0, 2), (tmp_path, 0, 1)):
        with pytest.raises(OptionError, match=rf"in use by another run \(pid {os.getpid()} on "):
            take(folder, rank, world_size)
    # To have looked at the files must not have cost this process its lock.
    with Python("-c", HOLD, str(tmp_path), "0", "2", "0") as tried:
        assert tried.end() == 1
        assert f"in use by another run (pid {os.getpid()} on" in tried.said
    lock.release()


def test_lock_of_other_ranks_of_the_same_run_is_none(tmp_path: Path) -> None:
    with holder(tmp_path, 1, 3):
        first, last = take(tmp_path, 0, 3), take(tmp_path, 2, 3)
        assert left(tmp_path) == [".lock", *(f".lock-{rank}-of-3" for rank in range(3))]
        first.release()
        with pytest.raises(OptionError, match="in use"):
            take(tmp_path, 0, 1)
        last.release()
    take(tmp_path, 0, 1).release()
    assert left(tmp_path) == []


def test_lock_goes_with_a_killed_process_even_where_its_child_lives_on(tmp_path: Path) -> None:
    with holder(tmp_path, fork=True) as process:
        with pytest.raises(OptionError, match=f"pid {process.pid} "):
            take(tmp_path)  # the child's release has changed nothing
        process.kill()
        process.end()
        os.kill(process.child, 0)  # it is alive, and has the file open
        assert left(tmp_path) == [".lock", ".lock-0-of-1"]
        lock = take(tmp_path)
        os.kill(process.child, signal.SIGKILL)
        with pytest.raises(OptionError, match="in use"):
            take(tmp_path)
        lock.release()


def test_lock_check_that_refuses_leaves_the_folder_free(tmp_path: Path) -> None:
    def refuse() -> None:
        raise OptionError("other settings")

    with pytest.raises(OptionError, match="other settings"):
        FolderLock(tmp_path, 0, 1, refuse)
    assert left(tmp_path) == []
    take(tmp_path).release()


def test_lock_release_where_the_folder_is_gone_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    lock = take(folder)
    for name in left(folder):
        (folder / name).unlink()
    folder.rmdir()
    lock.release()
    folder.mkdir()
    take(folder).release()


def test_lock_in_a_missing_folder_is_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot write .*\.lock-0-of-1: No such file or directory"):
        take(tmp_path / "missing")


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EINVAL])
def test_lock_that_a_file_system_lacks_is_a_write_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    said = rf"^cannot lock {tmp_path / '.lock'}: {os.strerror(number)}\. A run needs locks, .* Give another out, or "
    with pytest.raises(WriteError, match=said):
        take(tmp_path)
    monkeypatch.undo()
    take(tmp_path).release()
    assert left(tmp_path) == []


def test_lock_is_held_by_one_of_many_who_come_and_go(tmp_path: Path) -> None:
    code = """
import os, random, sys, time
from pathlib import Path
from cnnviz_fast.errors import OptionError
from cnnviz_fast.runs.folder.lock import FolderLock
folder, inside, end = Path(sys.argv[1]), Path(sys.argv[2]), time.time() + float(sys.argv[3])
taken = 0
while time.time() < end:
    try:
        lock = FolderLock(folder, 0, random.choice((1, 2)), lambda: None)
    except OptionError:
        continue
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails where another is inside
    os.unlink(inside)
    lock.release()
    taken += 1
print(taken)
"""
    folder = tmp_path / "out"
    folder.mkdir()
    together = [Python("-c", code, str(folder), str(tmp_path / "inside"), "0.7") for _ in range(4)]
    assert [process.end() for process in together] == [0] * 4, [process.said for process in together]
    assert sum(int(process.printed) for process in together) > 20
    assert left(folder) == []
