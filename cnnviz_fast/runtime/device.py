"""Devices as drawing needs them: streams, memory, copies to the host, and how they fail.

CUDA (and ROCm) works while Python goes on, so related work is queued on a stream of its own and waited for as late as
possible. All other devices, such as MPS, do one thing after the other: a copy to the host returns when the pixels are
there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch

from ..errors import CnnvizError, KernelError, reason_of

_FAULTS = ("CUDA error", "HIP error", "Triton Error [")
"""How errors of a device begin that have no type of their own, such as those of cuBLAS or of Triton's driver.c."""

_FULL = ("out of memory", "can't allocate memory")
"""Messages of torch for lack of memory on devices without an error type for it: the CPU and MPS."""


class Stream:
    """Work that a device does in order. Here the caller waits for each step; `CudaStream` queues them."""

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the work of this thread goes to this stream. Any thread may use it, repeatedly."""
        return contextlib.nullcontext()

    def fetch(self, pixels: torch.Tensor, buffer: torch.Tensor) -> Callable[[], None]:
        """Copy pixels to the host, behind what the stream already holds.

        Args:
            pixels: (...) uint8, contiguous, on the device.
            buffer: (...) uint8, of the same shape, a part of a `Device.staging_buffer`. Written.

        Returns:
            A function that waits until they are there.
        """
        buffer.copy_(pixels)
        return lambda: None

    def wait(self) -> None:
        """Wait for everything that the stream holds."""


class CudaStream(Stream):
    """Work on a CUDA device, queued. To wait for it the host sleeps until an event occurs."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """See Stream."""
        return torch.cuda.stream(self._stream)

    def fetch(self, pixels: torch.Tensor, buffer: torch.Tensor) -> Callable[[], None]:
        """See Stream."""
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch has no types for it
        with self.active():
            buffer.copy_(pixels, non_blocking=True)
            arrived.record(self._stream)
        return arrived.synchronize

    def wait(self) -> None:
        """See Stream."""
        self._stream.synchronize()


class Device:
    """A device as drawing needs it. Here every call returns when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_host(self) -> bool:
        """Return whether this device uses the memory of the host, so that nothing has to be fetched."""
        return self.device.type == "cpu"

    def mark(self) -> Any:
        """Return a mark behind what the caller's current stream holds now, at which another stream can begin."""
        return None

    def stream(self, behind: Any = None) -> Stream:
        """Return a stream for which the caller's current stream never waits.

        Args:
            behind: the mark at which it begins; None for the end of what the caller's current stream holds.

        Returns:
            The stream.
        """
        return Stream()

    def uses(self, *tensors: torch.Tensor) -> None:
        """Keep tensors, which may have been made on another stream, until the current stream is done with them."""

    def memory(self, size: int) -> torch.Tensor:
        """Return (size,) uint8 memory of the device."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def staging_buffer(self, size: int) -> torch.Tensor:
        """Return (size,) uint8 memory of the host to which the device copies."""
        return torch.empty(size, dtype=torch.uint8)

    def give_back(self) -> None:
        """Free memory that nobody uses, so that a second attempt finds as much as there is."""

    def is_full(self, error: BaseException) -> bool:
        """Check whether an error means that memory ran out."""
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL))

    def is_lost(self, error: BaseException) -> bool:
        """Check whether an error means that this process cannot use the device any more."""
        return _is_fault(error) and not self.is_full(error)

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Turn errors of the device into errors of this package. All code that waits for a device runs in this context.

        CUDA reports a fault at the next wait, so a fault of the model may first show here. Contexts may be nested.

        Raises:
            KernelError: the device was lost, or refused the work.
            MemoryError: memory ran out.
        """
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, CnnvizError):
                raise
            reason = reason_of(error)
            if self.is_full(error):
                raise MemoryError(f"{self.device} has too little memory: {reason}.") from error
            if not _is_fault(error):
                raise
            if not self.is_lost(error):
                raise KernelError(f"{self.device} refused this work and can still be used: {reason}.") from error
            raise KernelError(
                f"{self.device} was lost while it worked: {reason}. Files that were finished are whole. Start again; "
                f"if a kernel of your own may be at fault, set CUDA_LAUNCH_BLOCKING=1."
            ) from error

    def attempt(self, work: Callable[[], object]) -> str | None:
        """Do some work. Return why memory did not suffice, or None if it did.

        The error is dropped at once: its traceback holds the frames, and these hold what was allocated.
        """
        try:
            work()
            return None
        except Exception as error:
            if not self.is_full(error):
                raise
            reason = reason_of(error)
        self.give_back()
        return reason


def _is_fault(error: BaseException) -> bool:
    """Check whether a device reported an error."""
    reported = getattr(torch, "AcceleratorError", ())  # torch 2.6 and 2.7 raise a RuntimeError
    return isinstance(error, reported) or str(error).startswith(_FAULTS)


class CudaDevice(Device):
    """A CUDA device: one stream for each thread, pinned staging buffers."""

    _streams: ClassVar[dict[tuple[str, str], torch.cuda.Stream]] = {}

    def mark(self) -> torch.cuda.Event:
        """See Device."""
        return torch.cuda.current_stream(self.device).record_event()  # type: ignore[no-any-return]

    def uses(self, *tensors: torch.Tensor) -> None:
        """See Device. Otherwise torch would reuse their memory as soon as nobody holds them."""
        for tensor in tensors:
            tensor.record_stream(torch.cuda.current_stream(self.device))

    def stream(self, behind: torch.cuda.Event | None = None) -> CudaStream:
        """See Device. A thread has one stream for each device, shared by later threads of the same name.

        Workers have the same names in every pool: each reuses the memory that its predecessor allocated on the stream.
        """
        key = str(self.device), threading.current_thread().name
        if key not in self._streams:
            self._streams[key] = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream = self._streams[key]
        if behind is not None:
            stream.wait_event(behind)
        elif (current := torch.cuda.current_stream(self.device)) != stream:
            stream.wait_stream(current)
        return CudaStream(stream)

    def staging_buffer(self, size: int) -> torch.Tensor:
        """See Device. Pinned if possible: only copies to pinned memory run beside other work."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            if not self.is_full(error):
                raise
        return super().staging_buffer(size)

    def give_back(self) -> None:
        """See Device."""
        torch.cuda.empty_cache()

    def is_lost(self, error: BaseException) -> bool:
        """See Device. Every later call reports an error that ended the CUDA context, but not a refused launch."""
        if not super().is_lost(error):
            return False
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:
            return True
        return False


def device_at(device: torch.device) -> Device:
    """Return the device where tensors lie."""
    return CudaDevice(device) if device.type == "cuda" else Device(device)


class Fitting:
    """How much work fits into memory at once: first the most that was asked for, and half of it whenever that fails.

    The amount that fitted is used from then on.
    """

    def __init__(self, device: Device, most: int, least: int = 1) -> None:
        """Begin.

        Args:
            device: the device whose memory may run out.
            most: units of work to try at once.
            least: units that must fit.
        """
        self.device = device
        self.least = least
        self.most = max(least, most)

    def run(self, work: Callable[[int, int], object], start: int, stop: int) -> None:
        """Do units start..stop-1 of some work, as many at once as fit.

        Args:
            work: does units first..last-1. Called again for units that it did not finish.
            start: the first unit.
            stop: the unit after the last.

        Raises:
            MemoryError: the least number of units does not fit.
        """
        while start < stop:
            start += self.fit(partial(_from, work, start), stop - start)

    def fit(self, work: Callable[[int], object], most: int) -> int:
        """Do some work once, on as many units as fit.

        Args:
            work: does a number of units. Called again with fewer if memory runs out.
            most: number of units left.

        Returns:
            The number of units done.

        Raises:
            MemoryError: the least number of units does not fit.
        """
        units = min(self.most, most)
        while (reason := self.device.attempt(partial(work, units))) is not None:
            if units <= self.least:
                raise MemoryError(f"{self.device.device} has too little memory: {reason}.")
            units = self.most = max(self.least, units // 2)
        return units


def _from(work: Callable[[int, int], object], start: int, units: int) -> None:
    """Do a number of units of some work from `start` on."""
    work(start, start + units)
