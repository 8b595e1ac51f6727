"""What is flushed to the disk, and in which order; folders that are no longer the ones they were."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnviz_fast.errors import WriteError
from cnnviz_fast.runtime import disk
from cnnviz_fast.runtime.disk import HeldFolder, flush_files


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of paths that are flushed, in their order."""
    paths: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: paths.append(Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
    return paths


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, which knows the paths of open files")
def test_flush_files_flushes_files_and_then_their_folders(tmp_path: Path, flushed: list[Path]) -> None:
    names = ["0/a.png", "0/tiles/a/1.png", "b.png"]
    for size, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert flush_files(tmp_path, names) == [0, 1, 2]
    assert flushed[:3] == [tmp_path / name for name in names]
    assert sorted(flushed[3:]) == sorted(tmp_path / folder for folder in ("", "0", "0/tiles", "0/tiles/a"))


def test_flush_files_of_many_is_in_their_order(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(100)]
    for n, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(n))
    assert flush_files(tmp_path, names) == list(range(100))


@pytest.mark.parametrize("call", [None, lambda _: 0])
def test_flush_files_of_many_is_one_call_where_there_is_one(
    call: Callable[[int], int] | None, tmp_path: Path, flushed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(disk, "_syncfs", lambda: call and (lambda descriptor: calls.append(descriptor) or 0))
    names = [f"{n % 3}/{n}.png" for n in range(100)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    flush_files(tmp_path, names)
    assert (len(calls), len(flushed)) == ((0, 104) if call is None else (1, 0))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux")
def test_flush_files_of_many_that_the_disk_refuses_is_a_write_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    names = [f"{n}.png" for n in range(100)]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "99.png").unlink()
    with pytest.raises(WriteError, match=r"^cannot write .*99\.png: No such file or directory\.$"):
        flush_files(tmp_path, names)
    monkeypatch.setattr(disk, "_syncfs", lambda: full)
    with pytest.raises(WriteError, match=r"^cannot write .*: Input/output error\.$"):
        flush_files(tmp_path, names)


def test_flush_files_missing_or_refused_is_a_write_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WriteError, match=r"^cannot write .*a\.png: No such file or directory\.$"):
        flush_files(tmp_path, ["a.png"])
    (tmp_path / "a.png").touch()

    def full(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"^cannot write .*a\.png: Input/output error\.$"):
        flush_files(tmp_path, ["a.png"])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("count", [1, 100])
def test_flush_files_is_done_where_a_file_system_cannot_be_asked_for_it(
    count: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: int) -> int:
        ctypes.set_errno(number)
        return -1

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    names = [f"{n}.png" for n in range(count)]
    for name in names:
        (tmp_path / name).write_bytes(b"whole")
    monkeypatch.setattr(disk, "_syncfs", lambda: cannot)
    monkeypatch.setattr(os, "fsync", refuse)
    assert flush_files(tmp_path, names) == [5] * count


def test_held_folder_is_the_same_whatever_is_written_into_it(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    (tmp_path / "new").mkdir()
    tmp_path.chmod(0o700)
    held.check()


def test_held_folder_made_anew_is_another_one(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    held = HeldFolder(folder)
    for _ in range(20):  # a file system gives a number that has become free to the next folder
        shutil.rmtree(folder)
        with pytest.raises(WriteError, match=r"was removed, renamed or replaced meanwhile\. Run it again\.$"):
            held.check()
        folder.mkdir()
        with pytest.raises(WriteError, match="meanwhile"):
            held.check()
    with pytest.raises(WriteError, match=r"no: No such file or directory\.$"):
        HeldFolder(tmp_path / "no")
