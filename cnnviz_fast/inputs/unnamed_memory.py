"""Batches and numbers that processes share, in memory without a name: it ends with those that hold it.

torch shares memory by a file in /dev/shm, which is small or missing in containers, and gives it to another process by a
socket in a folder pymp-* of its own, which a reader that is killed leaves behind. Here the descriptor of an unnamed
file goes to the other process itself. Where there are no such files (they are Linux's, and neither every Python nor
every container has them), torch's way is taken.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import pickle
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler, recv_handle, send_handle
from typing import Any

import torch

_files: dict[int, int] = {}
"""Address of a batch of this process that is still to be sent -> descriptor of its file."""


def empty(shape: Sequence[int]) -> torch.Tensor:
    """Make a batch that `send` will give away without a copy.

    Args:
        shape: of the batch.

    Returns:
        (*shape) float32, contiguous, in shared memory; its values are not set.

    Raises:
        OSError: there are no descriptors left.
        RuntimeError: there is too little shared memory, where the system has no unnamed files.
    """
    if not _has_files() or not math.prod(shape):
        batch = torch.empty(*shape)
        batch.share_memory_()  # type: ignore[no-untyped-call]
        return batch
    file = _made("cnnviz batch", shape, torch.float32)
    batch = _mapped(file, shape, torch.float32)
    _files[batch.data_ptr()] = file
    return batch


def send(pipe: Connection, message: object) -> None:
    """Send anything that pickles; batches of `empty` give their memory away, and are not to be used any more."""
    content, files = io.BytesIO(), list[int]()
    _Pickler(content, files).dump(message)
    try:
        pipe.send_bytes(len(files).to_bytes(4, "little") + content.getbuffer())
        for file in files:
            send_handle(pipe, file, None)
    finally:
        for file in files:
            os.close(file)


def receive(pipe: Connection) -> Any:
    """Return what `send` has sent; raise EOFError or OSError where the other process is gone."""
    content = pipe.recv_bytes()
    files = list[int]()
    try:
        for _ in range(int.from_bytes(content[:4], "little")):
            files.append(recv_handle(pipe))
        return _Unpickler(content[4:], files).load()
    finally:
        for file in files:
            os.close(file)


class SharedNumbers:
    """Whole numbers that this process shares with those that it starts, and that are given this object.

    Attributes:
        values: (*shape) int64.
    """

    def __init__(self, values: torch.Tensor) -> None:
        """Share numbers.

        Args:
            values: (*shape) int64, what they are at first.

        Raises:
            OSError: there are no descriptors left.
            RuntimeError: there is too little shared memory, where the system has no unnamed files.
        """
        if not _has_files():
            self.values = values.clone()
            self.values.share_memory_()  # type: ignore[no-untyped-call]
            return
        self._hold(_made("cnnviz numbers", values.shape, torch.int64), tuple(values.shape))
        self.values.copy_(values)

    def _hold(self, file: int, shape: tuple[int, ...]) -> None:
        self.values = _mapped(file, shape, torch.int64)
        self._file = file
        weakref.finalize(self, os.close, file)

    def __getstate__(self) -> object:  # for processes that are not forked
        if not _has_files():
            return self.values
        from multiprocessing.reduction import DupFd  # which Windows lacks

        return DupFd(self._file), tuple(self.values.shape)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, torch.Tensor):
            self.values = state
        else:
            self._hold(state[0].detach(), state[1])


@cache
def _has_files() -> bool:
    """Check whether there are unnamed files; raise OSError where there are no descriptors left to find out."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):  # which conda's Python may lack
        return False
    try:
        os.close(os.memfd_create("cnnviz"))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return False  # the container forbids the call
    return True


def _made(name: str, shape: Sequence[int], dtype: torch.dtype) -> int:
    """Make an unnamed file for a tensor, and return its descriptor; `name` is what lists of open files say."""
    file = os.memfd_create(name)
    os.ftruncate(file, math.prod(shape) * dtype.itemsize)
    return file


def _mapped(file: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return the memory of a file as a tensor, which keeps it."""
    return torch.frombuffer(mmap.mmap(file, math.prod(shape) * dtype.itemsize), dtype=dtype).view(*shape)


class _Pickler(ForkingPickler):
    """Writes a batch of `empty` as its number among the descriptors that follow, and its shape."""

    def __init__(self, content: io.BytesIO, files: list[int]) -> None:
        super().__init__(content, pickle.HIGHEST_PROTOCOL)
        self._sent = files

    def persistent_id(self, value: object) -> tuple[int, tuple[int, ...]] | None:
        """Return what stands for a batch; None for anything else."""
        if not isinstance(value, torch.Tensor) or (file := _files.pop(value.data_ptr(), None)) is None:
            return None
        self._sent.append(file)
        return len(self._sent) - 1, tuple(value.shape)


class _Unpickler(pickle.Unpickler):
    """Reads what _Pickler has written."""

    def __init__(self, content: bytes, files: Sequence[int]) -> None:
        super().__init__(io.BytesIO(content))
        self._files = files

    def persistent_load(self, pid: tuple[int, tuple[int, ...]]) -> torch.Tensor:
        """Return the batch."""
        number, shape = pid
        return _mapped(self._files[number], shape, torch.float32)
