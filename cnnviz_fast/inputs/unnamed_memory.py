"""Batches on their way between processes, in shared memory without a name: it ends with those that hold it.

torch gives memory to another process by a socket in a folder pymp-* of its own, which a reader that is killed leaves
behind. Here the descriptor of an unnamed file goes through the pipe itself. Where the system has no such files (they
are Linux's), torch's way is taken.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import sys
from collections.abc import Sequence
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
    count = math.prod(shape)
    if sys.platform != "linux" or not count:
        batch = torch.empty(*shape)
        batch.share_memory_()  # type: ignore[no-untyped-call]
        return batch
    file = os.memfd_create("cnnviz batch")
    os.ftruncate(file, count * torch.float32.itemsize)
    batch = _mapped(file, tuple(shape))
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


def _mapped(file: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the memory of a file as a tensor, which keeps it."""
    count = math.prod(shape)
    return torch.frombuffer(mmap.mmap(file, count * torch.float32.itemsize), dtype=torch.float32).view(shape)


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
        return _mapped(self._files[number], shape)
