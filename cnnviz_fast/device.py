"""Stage 6 of 7: what a device is to the engine: a stream of its own, memory, copies to the host, and how it fails.

CUDA (ROCm too) works while Python goes on, so what belongs together is queued on a stream of its own and waited for as
late as possible. Everything else, MPS among it, is asked to do one thing after the other: a copy to the host returns
when the pixels are there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from .errors import KernelError

_FULL = ("out of memory", "can't allocate memory")
"""What torch says where memory runs out and it has no error of its own for that: on the CPU and on MPS."""


class Stream:
    """Work that a device does in order. Here the caller waits for each part; `CudaStream` queues it."""

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return what puts the work of this thread on this stream; any thread may, as often as it likes."""
        return contextlib.nullcontext()

    def fetch(self, pixels: torch.Tensor, landing: torch.Tensor) -> Callable[[], None]:
        """Copy pixels to the host behind what the stream already holds.

        Args:
            pixels: (...) uint8, contiguous, on the device.
            landing: of the same shape, memory of `Device.landing`.

        Returns:
            What waits until they are there.
        """
        landing.copy_(pixels)
        return lambda: None

    def wait(self) -> None:
        """Wait for everything that the stream holds."""


class CudaStream(Stream):
    """Work on a CUDA device, queued. The host learns of its end by an event, and sleeps until then."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """See Stream."""
        return torch.cuda.stream(self._stream)

    def fetch(self, pixels: torch.Tensor, landing: torch.Tensor) -> Callable[[], None]:
        """See Stream."""
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch has no types for it
        with self.active():
            landing.copy_(pixels, non_blocking=True)
            arrived.record(self._stream)
        return arrived.synchronize

    def wait(self) -> None:
        """See Stream."""
        self._stream.synchronize()


class Device:
    """A device by what the engine needs of it. Here every call returns when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_host(self) -> bool:
        """Whether the memory of this device is the host's own, so that nothing has to be fetched."""
        return self.device.type == "cpu"

    def mark(self) -> Any:
        """Return a mark behind what the caller's current stream holds now, for another stream to begin at."""
        return None

    def stream(self, behind: Any = None) -> Stream:
        """Return a stream which the caller's current one never waits for.

        Args:
            behind: a mark where it begins; None for the end of what the caller's current stream holds.

        Returns:
            The stream.
        """
        return Stream()

    def memory(self, size: int) -> torch.Tensor:
        """Return (size,) uint8 memory of the device."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def landing(self, size: int) -> torch.Tensor:
        """Return (size,) uint8 memory of the host that the device copies to."""
        return torch.empty(size, dtype=torch.uint8)

    def give_back(self) -> None:
        """Give memory that nobody uses back, so that a second try finds as much as there is."""

    def is_full(self, error: BaseException) -> bool:
        """Tell whether an error says that memory ran out."""
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL))

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Turn the end of a device into an error of this package.

        Raises:
            KernelError: the device reports a fault, after which it does nothing more for this process.
        """
        try:
            yield
        except torch.AcceleratorError as error:
            reason = str(error).partition("\n")[0]
            raise KernelError(
                f"{self.device} was lost while it worked: {reason}. Files that were finished are whole. Start anew, "
                f"where a kernel of your own may be at fault with CUDA_LAUNCH_BLOCKING=1."
            ) from error


class CudaDevice(Device):
    """A CUDA device: one stream a thread, pinned memory to land in."""

    _streams = threading.local()

    def mark(self) -> torch.cuda.Event:
        """See Device."""
        return torch.cuda.current_stream(self.device).record_event()  # type: ignore[no-any-return]

    def stream(self, behind: torch.cuda.Event | None = None) -> CudaStream:
        """See Device. A thread has one for each device, so that their memory is used again from sheet to sheet."""
        streams = vars(self._streams)
        key = str(self.device)
        if key not in streams:
            streams[key] = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        if behind is not None:
            streams[key].wait_event(behind)
        elif (current := torch.cuda.current_stream(self.device)) != streams[key]:
            streams[key].wait_stream(current)
        return CudaStream(streams[key])

    def landing(self, size: int) -> torch.Tensor:
        """See Device. Pinned: only from there and to there copies run beside everything else."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def give_back(self) -> None:
        """See Device."""
        torch.cuda.empty_cache()


def device_at(device: torch.device) -> Device:
    """Return the device where tensors lie."""
    return CudaDevice(device) if device.type == "cuda" else Device(device)


class Fitting:
    """How much of some work fits into memory at once: as much as was hoped for, and half of it wherever that does not.

    What was found to fit is kept for what comes after.
    """

    def __init__(self, device: Device, most: int) -> None:
        """Begin.

        Args:
            device: whose memory may run out.
            most: units of work to try at once.
        """
        self.device = device
        self.most = max(1, most)

    def run(self, work: Callable[[int, int], object], start: int, stop: int) -> None:
        """Do units start..stop-1 of some work, as many at once as fit.

        Args:
            work: does units first..last-1; called again for units that it did not finish.
            start: the first unit.
            stop: the unit after the last.

        Raises:
            MemoryError: not even one unit fits.
        """
        while start < stop:
            start += self.fit(partial(_from, work, start), stop - start)

    def fit(self, work: Callable[[int], object], most: int) -> int:
        """Do some work once, on as many units as fit.

        Args:
            work: does so many units; called again with fewer where memory runs out.
            most: units there are.

        Returns:
            How many were done.

        Raises:
            MemoryError: not even one unit fits.
        """
        units = min(self.most, most)
        while (reason := self._attempt(work, units)) is not None:
            if units == 1:
                raise MemoryError(f"{self.device.device} has too little memory: {reason}")
            units = self.most = units // 2
            self.device.give_back()
        return units

    def _attempt(self, work: Callable[[int], object], units: int) -> str | None:
        """Try; return why memory did not suffice, and None where it did.

        Nothing of the error outlives the `except`: its traceback holds the frames, and they what had been allocated.
        """
        try:
            work(units)
        except Exception as error:
            if not self.device.is_full(error):
                raise
            return str(error).partition("\n")[0]
        return None


def _from(work: Callable[[int, int], object], start: int, units: int) -> None:
    work(start, start + units)
