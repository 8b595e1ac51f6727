"""Stage 6 of 7: the pixels of a planned sheet, in memory of the host: drawn there, or fetched from the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .bands import Bands, Painter
from .device import device_at
from .encode import png
from .layout import Strip, cut_rows
from .stages import stage
from .strips import in_order

if TYPE_CHECKING:
    from .device import Device
    from .overlay import Overlay
    from .plan import Plan


class Pixels(NamedTuple):
    """Where workers get the strips of a picture. They take them in order, and give each back.

    draw: returns the pixels of a strip; gets memory of their shape, which it may fill and return.
    give_back: told that the pixels of a strip are no longer needed.
    """

    draw: Callable[[Strip, NDArray[np.uint8]], NDArray[np.uint8]]
    give_back: Callable[[Strip], None]


@contextlib.contextmanager
def pixels_of(plan: Plan, strips: Sequence[Strip], overlay: Overlay | None) -> Iterator[Pixels]:
    """Get ready to draw a sheet strip by strip.

    Args:
        plan: of the sheet.
        strips: all of it, from top to bottom.
        overlay: what to blend it with, for RGB; None for its index plane.

    Yields:
        The strips' pixels, (rows, width) uint8, or (rows, width, 3) for RGB.

    Raises:
        KernelError: the device was lost.
        MemoryError: it has no memory for a strip.
    """
    device = device_at(plan.device)
    if device.is_host:
        yield Pixels(_drawn(plan, overlay), lambda _: None)
        return
    bands = Bands(_painter(plan, device, overlay), strips)

    def fetch(strip: Strip, _: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with stage("render"):
            pixels = bands.pixels(strip)
            plan.annotate(strip, pixels)
            return pixels

    try:
        yield Pixels(fetch, bands.give_back)
    finally:
        bands.close()


def draw_whole(plan: Plan) -> NDArray[np.uint8]:
    """Draw the index plane of a sheet.

    Args:
        plan: of the sheet.

    Returns:
        (height, width) uint8, C-contiguous.

    Raises:
        KernelError: the device was lost.
        MemoryError: the sheet does not fit into memory of the host.
    """
    return begin_whole(plan)()


def begin_whole(plan: Plan) -> Callable[[], NDArray[np.uint8]]:
    """Begin to draw the index plane of a sheet: a device is given all it has to do, the CPU begins when it is asked.

    Args:
        plan: of the sheet.

    Returns:
        What returns the plane, (height, width) uint8, C-contiguous, and waits for it. It has to be called: until then
        the device reads the maps.

    Raises:
        KernelError: the device was lost.
        MemoryError: the sheet does not fit into memory of the host.
    """
    height, width = plan.layout.height, plan.layout.width
    device = device_at(plan.device)
    if device.is_host:
        return partial(_draw_on_host, plan)
    painter = _painter(plan, device, None)
    landing = device.landing(height * width).view(height, width)

    try:
        for strip in cut_rows(height, painter.reserve(1, height)):
            arrived = painter.send(strip, landing[strip.start : strip.stop])
    except BaseException:
        painter.wait()
        raise

    def finish() -> NDArray[np.uint8]:
        arrived()
        index: NDArray[np.uint8] = landing.numpy()
        plan.annotate(Strip(0, height), index)
        return index

    return finish


def _draw_on_host(plan: Plan) -> NDArray[np.uint8]:
    index = np.empty((plan.layout.height, plan.layout.width), dtype=np.uint8)
    for _ in in_order(lambda strip: plan.draw(strip, index[strip.start : strip.stop]), plan.strips(), plan.threads):
        pass
    return index


def draw_on_device(plan: Plan) -> torch.Tensor:
    """Draw the index plane of a sheet that has nothing written on it where its maps lie, on the current stream.

    Args:
        plan: of the sheet.

    Returns:
        (height, width) uint8, contiguous, on the device of the maps.
    """
    index = torch.empty((plan.layout.height, plan.layout.width), dtype=torch.uint8, device=plan.device)
    for strip in plan.strips():
        plan.draw_tiles(strip, index[strip.start : strip.stop])
    return index


def _drawn(plan: Plan, overlay: Overlay | None) -> Callable[[Strip, NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return what draws a strip on the host, (rows, width) uint8 or (rows, width, 3) for RGB, filled and returned."""
    scratch = png.Scratch()

    def draw(strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with stage("render"):
            if overlay is None:
                return plan.draw(strip, out)
            overlay.blend(plan.draw(strip, scratch.pixels(out.shape[:2])), strip, out)
            return out

    return draw


def _painter(plan: Plan, device: Device, overlay: Overlay | None) -> Painter:
    """Return what draws rows of a sheet, or blends them with what lies under it, where the maps lie."""
    width = plan.layout.width

    def blend(strip: Strip, out: Any) -> None:
        index = torch.empty((strip.stop - strip.start, width), dtype=torch.uint8, device=plan.device)
        plan.draw_tiles(strip, index)
        assert overlay is not None
        overlay.blend(index, strip, out)

    rows_at_once = max(1, plan.backend.strip_px // width)
    if overlay is None:
        return Painter(device, plan.draw_tiles, (width,), rows_at_once)
    return Painter(device, blend, (width, 3), rows_at_once)
