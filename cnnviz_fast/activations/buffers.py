"""Memory for copies of activations that is written again once nobody holds it.

A copy costs little; fresh memory for it costs much: the system clears every page on the first write. On ResNet-50 the
44 MB of all convolutions took 18 % of the forward pass in fresh memory and 11 % here (CPU time of one thread;
benchmarks/bench_capture.py measures both). malloc gives such sizes back to the system each time they are freed, so
blocks are kept here. A block comes back when the last tensor that sees any of it is gone, whoever held it.
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
"""What is kept at most while nobody uses it: five times what all convolutions of ResNet-50 take at 224 px."""


class Pool:
    """Blocks of memory by size. Without locks: blocks come back wherever a tensor dies, even inside `copy` itself."""

    def __init__(self, most_idle_bytes: int = MOST_IDLE_BYTES) -> None:
        self.most_idle_bytes = most_idle_bytes
        self._idle: collections.defaultdict[int, collections.deque[Any]] = collections.defaultdict(collections.deque)
        self._lent: dict[int, tuple[weakref.ref[Any], Any]] = {}

    @property
    def idle_bytes(self) -> int:
        """What lies ready now."""
        return sum(size * len(blocks) for size, blocks in list(self._idle.items()))

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor, its order in memory included.

        Args:
            tensor: (any shape) real dtype, dense. Not modified.

        Returns:
            The copy: an ordinary tensor, whose memory comes from here where it is on the CPU and large enough.
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
        """Return (size_bytes,) uint8 memory that is the caller's until it lets go of it."""
        import torch

        size = _class_bytes(size_bytes)
        try:
            block = self._idle[size].pop()
        except IndexError:
            block = torch.empty(size, dtype=torch.uint8).numpy()  # numpy's own memory is not aligned to 64 bytes
        # A new array, which a tensor made of it keeps alive as long as its storage lives, for all views of that.
        lease = block[:size_bytes]
        key = id(lease)
        self._lent[key] = (weakref.ref(lease, lambda _: self._take_back(key)), block)
        return lease

    def _take_back(self, key: int) -> None:
        _, block = self._lent.pop(key)
        if self.idle_bytes + block.nbytes <= self.most_idle_bytes:
            self._idle[block.nbytes].append(block)

    def clear(self) -> None:
        """Give what lies ready back to the system."""
        self._idle.clear()


def _class_bytes(size_bytes: int) -> int:
    """Round a size up by at most a quarter, so that layers of about the same size share blocks.

    What is added is never written, so it takes no memory.
    """
    step = 1 << max(size_bytes.bit_length() - 3, 12)
    return -(-size_bytes // step) * step


pool = Pool()
