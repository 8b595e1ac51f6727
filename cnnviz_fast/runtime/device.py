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
from typing import Any, ClassVar

import torch

from ..errors import CnnvizError, KernelError, reason_of

_FAULTS = ("CUDA error", "HIP error", "Triton Error [")
"""How an error begins that a device reported and that has no type of its own: of cuBLAS, say, or Triton's driver.c."""

_FULL = ("out of memory", "can't allocate memory")
"""What torch says where memory runs out and it has no error of its own for that: on the CPU and on MPS."""


class Stream:
    """Work that a device does in order. Here the caller waits for each part; `CudaStream` queues it."""

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Return what puts the work of this thread on this stream; any thread may, as often as it likes."""
        return contextlib.nullcontext()

    def fetch(self, pixels: torch.Tensor, staging: torch.Tensor) -> Callable[[], None]:
        """Copy pixels to the host behind what the stream already holds.

        Args:
            pixels: (...) uint8, contiguous, on the device.
            landing: of the same shape, memory of `Device.landing`.

        Returns:
            What waits until they are there.
        """
        staging.copy_(pixels)
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

    def fetch(self, pixels: torch.Tensor, staging: torch.Tensor) -> Callable[[], None]:
        """See Stream."""
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch has no types for it
        with self.active():
            staging.copy_(pixels, non_blocking=True)
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

    def uses(self, *tensors: torch.Tensor) -> None:
        """Have tensors that may have been made on another stream kept until the current one is done with them."""

    def memory(self, size: int) -> torch.Tensor:
        """Return (size,) uint8 memory of the device."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def staging(self, size: int) -> torch.Tensor:
        """Return (size,) uint8 memory of the host that the device copies to."""
        return torch.empty(size, dtype=torch.uint8)

    def give_back(self) -> None:
        """Give memory that nobody uses back, so that a second try finds as much as there is."""

    def is_full(self, error: BaseException) -> bool:
        """Tell whether an error says that memory ran out."""
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL))

    def is_lost(self, error: BaseException) -> bool:
        """Tell whether an error says that the device does nothing more for this process."""
        return _is_fault(error) and not self.is_full(error)

    @contextlib.contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what the device reports into errors that callers know. It belongs around all that waits for a device.

        CUDA reports a fault to whoever waits next, so that one of the model may first be seen here. May be nested.

        Raises:
            KernelError: the device was lost, or refuses the work.
            MemoryError: memory ran out.
        """
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, CnnvizError):
                raise
            reason = reason_of(error)
            if self.is_full(error):
                raise MemoryError(f"{self.device} has too little memory: {reason}") from error
            if not _is_fault(error):
                raise
            if not self.is_lost(error):
                raise KernelError(f"{self.device} refuses this work, and goes on: {reason}.") from error
            raise KernelError(
                f"{self.device} was lost while it worked: {reason}. Files that were finished are whole. Start anew, "
                f"where a kernel of your own may be at fault with CUDA_LAUNCH_BLOCKING=1."
            ) from error

    def attempt(self, work: Callable[[], object]) -> str | None:
        """Do some work; return why memory did not suffice, and None where it did.

        Nothing of the error outlives the `except`: its traceback holds the frames, and they what had been allocated.
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
    return isinstance(error, torch.AcceleratorError) or str(error).startswith(_FAULTS)


class CudaDevice(Device):
    """A CUDA device: one stream a thread, pinned memory to land in."""

    _streams: ClassVar[dict[tuple[str, str], torch.cuda.Stream]] = {}

    def mark(self) -> torch.cuda.Event:
        """See Device."""
        return torch.cuda.current_stream(self.device).record_event()  # type: ignore[no-any-return]

    def uses(self, *tensors: torch.Tensor) -> None:
        """See Device: torch would give their memory away as soon as nobody holds them."""
        for tensor in tensors:
            tensor.record_stream(torch.cuda.current_stream(self.device))

    def stream(self, behind: torch.cuda.Event | None = None) -> CudaStream:
        """See Device. A thread has one for each device, and so have later threads of its name.

        Workers are named alike from pool to pool: what one has allocated on its stream the next one uses again.
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

    def staging(self, size: int) -> torch.Tensor:
        """See Device. Pinned, since only to there copies run beside everything else; but not at any price."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            if not self.is_full(error):
                raise
        return super().staging(size)

    def give_back(self) -> None:
        """See Device."""
        torch.cuda.empty_cache()

    def is_lost(self, error: BaseException) -> bool:
        """See Device. What ends a CUDA context is reported by every later call; a launch that was refused is not."""
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
    """How much of some work fits into memory at once: as much as was hoped for, and half of it wherever that does not.

    What was found to fit is kept for what comes after.
    """

    def __init__(self, device: Device, most: int, least: int = 1) -> None:
        """Begin.

        Args:
            device: whose memory may run out.
            most: units of work to try at once.
            least: units that have to fit.
        """
        self.device = device
        self.least = least
        self.most = max(least, most)

    def run(self, work: Callable[[int, int], object], start: int, stop: int) -> None:
        """Do units start..stop-1 of some work, as many at once as fit.

        Args:
            work: does units first..last-1; called again for units that it did not finish.
            start: the first unit.
            stop: the unit after the last.

        Raises:
            MemoryError: not even the least fits.
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
            MemoryError: not even the least fits.
        """
        units = min(self.most, most)
        while (reason := self.device.attempt(partial(work, units))) is not None:
            if units <= self.least:
                raise MemoryError(f"{self.device.device} has too little memory: {reason}")
            units = self.most = max(self.least, units // 2)
        return units


def _from(work: Callable[[int, int], object], start: int, units: int) -> None:
    work(start, start + units)
