"""Memory for copies of activations, reused once nobody holds it.

Copying costs little, but fresh memory costs much: the system clears every page on its first write. On ResNet-50,
copies of the 44 MB of all convolutions took 18 % of the forward pass in fresh memory and 11 % in reused memory (CPU
time of one thread; benchmarks/cases/bench_capture.py measures both). malloc returns blocks of such sizes to the system
each time they are freed, so they are kept here. A block becomes free when the last tensor that uses any of it is gone.
"""

from __future__ import annotations

import collections
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LEAST_BYTES = 2**16
"""Smaller copies stay with malloc, which keeps sizes below its mmap threshold (128 KiB at first) by itself."""

MOST_IDLE_BYTES = 2**28
"""Most memory that is kept unused: five times what all convolutions of ResNet-50 take at 224 px."""


class Pool:
    """Blocks of memory by size. Without locks: a block may become free anywhere a tensor dies, even inside `copy`."""

    def __init__(self, most_idle_bytes: int = MOST_IDLE_BYTES) -> None:
        self.most_idle_bytes = most_idle_bytes
        self._idle: collections.defaultdict[int, collections.deque[Any]] = collections.defaultdict(collections.deque)
        self._lent: dict[int, tuple[weakref.ref[Any], Any]] = {}

    @property
    def idle_bytes(self) -> int:
        """Return the bytes that are kept unused."""
        return sum(size * len(blocks) for size, blocks in list(self._idle.items()))

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor, with its order in memory.

        Args:
            tensor: (any shape) real dtype, dense. Not modified.

        Returns:
            The copy: an ordinary tensor, with memory from this pool if it is on the CPU and large enough.
        """
        import torch

        size_bytes = tensor.numel() * tensor.element_size()
        if tensor.device.type != "cpu" or size_bytes < LEAST_BYTES or type(tensor) is not torch.Tensor:
            return tensor.clone()
        memory = torch.from_numpy(self._lease(size_bytes)).view(tensor.dtype)
        if tensor.is_contiguous():
            return memory.view(tensor.shape).copy_(tensor)
        like = torch.empty_like(tensor, device="meta")  # the strides that clone() would give
        return memory.as_strided(like.size(), like.stride()).copy_(tensor)

    def _lease(self, size_bytes: int) -> Any:
        """Return (size_bytes,) uint8 memory, which becomes free when the caller drops it."""
        import torch

        size = _class_bytes(size_bytes)
        try:
            block = self._idle[size].pop()
        except IndexError:
            block = torch.empty(size, dtype=torch.uint8).numpy()  # numpy's own memory is not aligned to 64 bytes
        # A new array: a tensor made of it keeps it alive as long as the tensor or any view of it lives.
        lease = block[:size_bytes]
        key = id(lease)
        self._lent[key] = (weakref.ref(lease, lambda _: self._take_back(key)), block)
        return lease

    def _take_back(self, key: int) -> None:
        """Keep a block that became free, unless enough memory is kept already."""
        _, block = self._lent.pop(key)
        if self.idle_bytes + block.nbytes <= self.most_idle_bytes:
            self._idle[block.nbytes].append(block)

    def clear(self) -> None:
        """Return unused memory to the system."""
        self._idle.clear()


def _class_bytes(size_bytes: int) -> int:
    """Round a size up by at most a quarter, so that layers of about the same size share blocks.

    The added bytes are never written, so they take no memory.
    """
    step = 1 << max(size_bytes.bit_length() - 3, 12)
    return -(-size_bytes // step) * step


pool = Pool()
