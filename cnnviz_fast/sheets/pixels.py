"""Stage 6 of 7: the pixels of a planned sheet, in memory of the host: drawn there, or fetched from the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..formats import png
from ..geometry import Strip
from ..runtime.device import device_at
from ..runtime.stage_times import stage
from ..runtime.workers import in_order
from .device_bands import Bands, Painter

if TYPE_CHECKING:
    from ..runtime.device import Device
    from .overlay import Overlay
    from .plan import Plan

WHOLE_STRIP_PX = 1 << 22
"""Of a sheet that is drawn into memory: what the CPU draws at once, and an eighth of a band of `bands`."""


class Pixels(NamedTuple):
    """Where workers get the strips of a picture. They take them in order, and give each back.

    draw: returns the pixels of a strip; gets memory of their shape, which it may fill and return.
    give_back: told that the pixels of a strip are no longer needed, also where `draw` failed: others wait for it.
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
        KernelError: the device was lost, or refuses to draw.
        MemoryError: it has no memory for a strip.
    """
    device = device_at(plan.device)
    with device.faults():
        if device.is_host:
            yield Pixels(_drawn(plan, overlay), lambda _: None)
            return
        with Bands(_painter(plan, device, overlay), strips) as bands:

            def fetch(strip: Strip, _: NDArray[np.uint8]) -> NDArray[np.uint8]:
                with stage("render"):
                    pixels = bands.pixels(strip)
                    plan.annotate(strip, pixels)
                    return pixels

            yield Pixels(fetch, bands.give_back)


class PendingSheet(NamedTuple):
    """A sheet that is under way. One of the two has to be called: until then a device reads the maps.

    plan: of the sheet.
    finish: waits for the index plane, and returns it, (height, width) uint8, C-contiguous.
    wait: gives the sheet up, and waits for what a device is doing for it.
    """

    plan: Plan
    finish: Callable[[], NDArray[np.uint8]]
    wait: Callable[[], None]


def draw_whole(plan: Plan) -> NDArray[np.uint8]:
    """Draw the index plane of a sheet.

    Args:
        plan: of the sheet.

    Returns:
        (height, width) uint8, C-contiguous.

    Raises:
        KernelError: the device was lost, or refuses to draw.
        MemoryError: the sheet does not fit into memory of the host, or a row of it into that of the device.
    """
    return begin_whole(plan).finish()


def begin_whole(plan: Plan) -> PendingSheet:
    """Begin to draw the index plane of a sheet: a device draws the first bands, the CPU begins when it is asked.

    Args:
        plan: of the sheet.

    Returns:
        What finishes the sheet, or gives it up. Both raise what draw_whole raises.

    Raises:
        KernelError: the device was lost, or refuses to draw.
        MemoryError: it has no memory for a row.
    """
    strips = plan.strips(WHOLE_STRIP_PX)
    under_way = contextlib.ExitStack()
    pixels = under_way.enter_context(pixels_of(plan, strips, None))

    def finish() -> NDArray[np.uint8]:
        with under_way:
            return _gathered(plan, strips, pixels)

    return PendingSheet(plan, finish, under_way.close)


def _gathered(plan: Plan, strips: Sequence[Strip], pixels: Pixels) -> NDArray[np.uint8]:
    """Return the strips of an index plane in one: drawn there, or copied there out of page-locked memory."""
    index = np.empty((plan.grid.height, plan.grid.width), dtype=np.uint8)

    def take(strip: Strip) -> None:
        try:
            out = index[strip.start : strip.stop]
            if (drawn := pixels.draw(strip, out)) is not out:
                out[:] = drawn
        finally:
            pixels.give_back(strip)

    for _ in in_order(take, strips, plan.threads):
        pass
    return index


def draw_on_device(plan: Plan) -> torch.Tensor | None:
    """Draw the index plane of a sheet that has nothing written on it where its maps lie, on the current stream.

    Args:
        plan: of the sheet.

    Returns:
        (height, width) uint8, contiguous, on the device of the maps; None where it does not fit into its memory.
    """
    planes: list[torch.Tensor] = []

    def draw() -> None:
        index = torch.empty((plan.grid.height, plan.grid.width), dtype=torch.uint8, device=plan.device)
        for strip in plan.strips():
            plan.draw_tiles(strip, index[strip.start : strip.stop])
        planes.append(index)

    return planes[0] if device_at(plan.device).attempt(draw) is None else None


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
    width = plan.grid.width

    def blend(strip: Strip, out: Any) -> None:
        index = torch.empty((strip.stop - strip.start, width), dtype=torch.uint8, device=plan.device)
        plan.draw_tiles(strip, index)
        assert overlay is not None
        overlay.blend(index, strip, out)

    rows_at_once = max(1, plan.backend.strip_px // width)
    if overlay is None:
        return Painter(device, plan.draw_tiles, (width,), rows_at_once)
    return Painter(device, blend, (width, 3), rows_at_once)
