"""Pixels on their way from a device to the host, in bands.

    device   draw 0 | copy 0 | draw 1 | copy 1 |  waits for a staging buffer   | draw 2 | copy 2 | ...
    host                     |  strips of band 0 encoded by the workers  |  strips of band 1 ...

A band is as many strips as fit into a staging buffer: memory of the host, pinned on CUDA, that the device copies to and
workers read from. So nothing is copied twice. There are two of these buffers: the device is at most two bands ahead,
and waits only while both are full. No thread of its own is needed: the worker that gives back the last strip of a band
queues the next one.

Errors of the device come out as they are. `Device.faults` belongs around all of it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..geometry import Strip
from ..runtime.device import Fitting

if TYPE_CHECKING:
    import torch

    from ..runtime.device import Device

BAND_BYTES = 1 << 25
"""Size of a staging buffer. A copy of 32 MB takes 0.6 ms over PCIe 5, far longer than it takes to queue one."""

STAGING_BUFFERS = 2


class Painter:
    """Draws rows of a sheet on a device and sends them to the host, on a stream of its own."""

    def __init__(
        self,
        device: Device,
        draw: Callable[[Strip, torch.Tensor], object],
        row_shape: tuple[int, ...],
        rows_at_once: int,
    ) -> None:
        """Take a stream of the device.

        Args:
            device: draws, once it has done what the caller has queued there.
            draw: draws rows of the sheet into (rows, *row_shape) uint8 memory of the device.
            row_shape: (width,) or (width, 3).
            rows_at_once: how many rows one call draws; fewer once memory has run out.
        """
        self.device = device
        self.stream = device.stream()
        self.row_shape = row_shape
        self.row_bytes = math.prod(row_shape)
        self._draw = draw
        self._plane: torch.Tensor | None = None
        self._at_once = Fitting(device, rows_at_once)

    def reserve(self, least: int, most: int) -> int:
        """Reserve memory of the device for a band: BAND_BYTES, halved until it fits.

        Args:
            least: rows that have to fit.
            most: rows of the whole sheet.

        Returns:
            The number of rows that fit, at least `least`.

        Raises:
            MemoryError: there is not enough for `least`.
        """

        def take(rows: int) -> None:
            with self.stream.active():
                self._plane = self.device.memory(rows * self.row_bytes)

        hoped = max(least, min(most, BAND_BYTES // self.row_bytes))
        return Fitting(self.device, hoped, least).fit(take, hoped)

    def send(self, strip: Strip, staging: torch.Tensor) -> Callable[[], None]:
        """Queue the drawing of rows and their copy to the host.

        Args:
            strip: the rows, at most as many as were reserved.
            staging: (rows * row bytes) uint8, contiguous. Memory of the host.

        Returns:
            A function that waits until these rows, and all rows sent before them, have arrived.

        Raises:
            MemoryError: the device cannot draw a single row.
        """
        assert self._plane is not None, "reserve has to be called first"
        shape = (strip.stop - strip.start, *self.row_shape)
        plane = self._plane[: math.prod(shape)].view(shape)

        def draw(first: int, last: int) -> None:
            self._draw(Strip(first, last), plane[first - strip.start : last - strip.start])

        with self.stream.active():
            self._at_once.run(draw, strip.start, strip.stop)
            return self.stream.fetch(plane, staging.view(shape))


class Bands:
    """Strips of a sheet that a device draws, for workers that take them in order and give each back.

    Use it in a `with` block. At its end the device has done all that was queued: until then it reads the maps and
    writes into the staging buffers.
    """

    def __init__(self, painter: Painter, strips: Sequence[Strip]) -> None:
        """Queue the first bands.

        Args:
            painter: draws them.
            strips: of the whole sheet, from top to bottom.

        Raises:
            MemoryError: the device has no memory for the tallest strip.
        """
        self._painter = painter
        rows = painter.reserve(max(stop - start for start, stop in strips), strips[-1].stop - strips[0].start)
        self._bands = _grouped(strips, rows)
        self._band_of = {strip.start: number for number, band in enumerate(self._bands) for strip in band}
        size = rows * painter.row_bytes
        self._stagings = [painter.device.staging_buffer(size) for _ in range(min(STAGING_BUFFERS, len(self._bands)))]
        self._changed = threading.Condition(threading.RLock())
        self._arrived: list[Callable[[], None]] = []
        self._left = [len(band) for band in self._bands]
        self._error: BaseException | None = None
        self._queue()

    def pixels(self, strip: Strip) -> NDArray[np.uint8]:
        """Wait for a strip and return it, (rows, *row_shape) uint8, C-contiguous, valid until it is given back."""
        number = self._band_of[strip.start]
        with self._changed:
            while len(self._arrived) <= number and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            arrived = self._arrived[number]
        with self._kept_for_all():
            arrived()
        shape = (strip.stop - strip.start, *self._painter.row_shape)
        first = (strip.start - self._bands[number][0].start) * self._painter.row_bytes
        staging = self._stagings[number % STAGING_BUFFERS][first : first + math.prod(shape)]
        pixels: NDArray[np.uint8] = staging.view(shape).numpy()
        return pixels

    def give_back(self, strip: Strip) -> None:
        """Mark the pixels of a strip as no longer needed. The last strip of a band makes room for another band."""
        number = self._band_of[strip.start]
        with self._changed:
            self._left[number] -= 1
            self._queue()

    def __enter__(self) -> Bands:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            for arrived in self._arrived[-1:]:  # not the whole stream, on which the next sheet may already be queued
                arrived()
        else:
            with contextlib.suppress(Exception):  # the error being raised says more than what the device reports now
                self._painter.stream.wait()

    def _queue(self) -> None:
        """Queue bands while a staging buffer is free. An error is raised later, where pixels are asked for."""
        with self._changed:
            while (number := len(self._arrived)) < len(self._bands) and self._error is None:
                if number >= STAGING_BUFFERS and self._left[number - STAGING_BUFFERS]:
                    break
                band = self._bands[number]
                strip = Strip(band[0].start, band[-1].stop)
                size = (strip.stop - strip.start) * self._painter.row_bytes
                with contextlib.suppress(Exception), self._kept_for_all():
                    self._arrived.append(self._painter.send(strip, self._stagings[number % STAGING_BUFFERS][:size]))
            self._changed.notify_all()

    @contextlib.contextmanager
    def _kept_for_all(self) -> Iterator[None]:
        """Keep an error for all workers: those that wait for later bands would otherwise wait for ever."""
        try:
            yield
        except Exception as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()
            raise


def _grouped(strips: Sequence[Strip], rows: int) -> list[list[Strip]]:
    """Group neighbouring strips into bands of at most `rows` rows."""
    bands: list[list[Strip]] = []
    for strip in strips:
        if bands and strip.stop - bands[-1][0].start <= rows:
            bands[-1].append(strip)
        else:
            bands.append([strip])
    return bands
