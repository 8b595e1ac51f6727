"""A device that is none: it works on tensors of the CPU, late, notes what it is asked for, and fails where told to.

It insists on being given its work on a stream of its own: what is done on none would be done on the caller's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from cnnviz_fast.runtime.device import Device, Stream

DEVICE_ERROR: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)
"""What torch raises where a device fails; before torch 2.8 that had no class of its own."""

POISON = 0xA5
"""What a staging buffer holds until somebody has waited for its pixels."""


class FakeStream(Stream):
    """A stream whose copies arrive only when they are waited for."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make it the stream of this thread."""
        here = vars(self.device.here)
        before, here["stream"] = here.get("stream"), self
        try:
            yield
        finally:
            here["stream"] = before

    def fetch(self, pixels: torch.Tensor, buffer: torch.Tensor) -> Callable[[], None]:
        """Take the pixels as they are now; they land when somebody waits for them, or for later ones.

        What was drawn on this stream is there by then, and on no other: so this has to be the one that drew.
        """
        assert self.device.active_stream() is self
        number = len(device_copies(self.device))
        self.device.log.append(("copy", number))
        buffer.fill_(POISON)
        with self.device.lock:
            self.device.pending[number] = (pixels.clone(), buffer)
        return partial(self.device.arrive, number)

    def wait(self) -> None:
        """Deliver everything."""
        self.device.arrive(len(device_copies(self.device)) - 1)


class FakeDevice(Device):
    """A device with `most_bytes` of memory; the copy of number `lost_at_copy` is the last thing it is asked for."""

    def __init__(self, *, most_bytes: int | None = None, lost_at_copy: int | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self.most_bytes = most_bytes
        self.lost_at_copy = lost_at_copy
        self.log: list[tuple[Any, ...]] = []
        self.here = threading.local()
        self.stagings: list[torch.Tensor] = []
        self.pending: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.lock = threading.Lock()

    @property
    def is_host(self) -> bool:
        """Report that pixels have to be fetched."""
        return False

    def stream(self, behind: Any = None) -> FakeStream:
        """Return a stream that is late."""
        return FakeStream(self)

    def active_stream(self) -> FakeStream:
        """Return the stream of this thread, which there has to be."""
        active: FakeStream | None = getattr(self.here, "stream", None)
        assert active is not None, "done on the caller's own stream"
        return active

    def memory(self, size: int) -> torch.Tensor:
        """Return memory, of which there is only so much."""
        self.active_stream()
        self.log.append(("memory", size))
        if self.most_bytes is not None and size > self.most_bytes:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.\nmore of it")
        return super().memory(size)

    def staging_buffer(self, size: int) -> torch.Tensor:
        """Return memory to land in, and keep it."""
        self.stagings.append(super().staging_buffer(size))
        return self.stagings[-1]

    def arrive(self, last: int) -> None:
        """Deliver copies up to number `last`: a stream does one after the other."""
        with self.lock:
            for number in [number for number in sorted(self.pending) if number <= last]:
                if self.lost_at_copy is not None and number >= self.lost_at_copy:
                    raise DEVICE_ERROR("CUDA error: an illegal memory access was encountered\nmore of it")
                pixels, buffer = self.pending.pop(number)
                buffer.copy_(pixels)
                self.log.append(("arrived", number))

    def give_back(self) -> None:
        """Note that memory was given back."""
        self.log.append(("give back",))


def device_copies(device: FakeDevice) -> list[tuple[Any, ...]]:
    """Return the copies that a device was asked for."""
    return [entry for entry in device.log if entry[0] == "copy"]
