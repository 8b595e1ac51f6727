"""The pixels of a planned sheet in memory of the host: drawn there, or fetched from the device of the maps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..formats import png
from ..geometry import Strip, cut_rows
from ..runtime.device import device_at
from ..runtime.stage_times import stage
from ..runtime.workers import in_order
from .device_bands import Bands, Painter

if TYPE_CHECKING:
    from ..runtime.device import Device
    from .overlay import Overlay
    from .plan import Plan

WHOLE_STRIP_PX = 1 << 22
"""Pixels of a strip where a whole sheet is drawn into memory: what a worker draws at once, an eighth of a band."""

_AT_ONCE_PX = 1 << 29
"""Pixels that native threads draw before Ctrl-C is heard again: a tenth of a second."""


class Pixels(NamedTuple):
    """Where workers get the strips of a sheet. They take them in order, and give each back.

    draw: returns the pixels of a strip. It is passed memory of their shape, which it may fill and return.
    give_back: to be called once the pixels of a strip are no longer needed, also where `draw` failed: other workers
        wait for it.
    """

    draw: Callable[[Strip, NDArray[np.uint8]], NDArray[np.uint8]]
    give_back: Callable[[Strip], None]


@contextlib.contextmanager
def pixels_of(plan: Plan, strips: Sequence[Strip], overlay: Overlay | None) -> Iterator[Pixels]:
    """Open the pixels of a sheet, to be taken strip by strip.

    Args:
        plan: of the sheet.
        strips: of the whole sheet, from top to bottom.
        overlay: what the tiles lie over, for RGB; None for the index plane.

    Yields:
        The pixels: (rows, width) uint8 for a strip, or (rows, width, 3) for RGB.

    Raises:
        KernelError: the device was lost, or refuses to draw.
        MemoryError: the device has no memory for a strip.
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
    """A sheet that is being drawn. A device may read the maps until `finish` or `give_up` has returned.

    plan: of the sheet.
    finish: waits for the index plane, and returns it, (height, width) uint8, C-contiguous.
    give_up: waits until the device has done what was queued for the sheet, and lets go of its pixels.
    """

    plan: Plan
    finish: Callable[[], NDArray[np.uint8]]
    give_up: Callable[[], None]


def draw_whole(plan: Plan) -> NDArray[np.uint8]:
    """Draw the index plane of a sheet.

    Args:
        plan: of the sheet.

    Returns:
        (height, width) uint8, C-contiguous.

    Raises:
        KernelError: the device was lost, or refuses to draw.
        MemoryError: the sheet does not fit into memory of the host, or a strip of it into that of the device.
    """
    return begin_whole(plan).finish()


def begin_whole(plan: Plan) -> PendingSheet:
    """Begin to draw the index plane of a sheet.

    A device starts with the first bands at once; the CPU draws nothing before `finish`.

    Args:
        plan: of the sheet.

    Returns:
        The sheet. To finish it, or to give it up, raises what draw_whole raises.

    Raises:
        KernelError: the device was lost, or refuses to draw.
        MemoryError: the device has no memory for a strip.
    """
    strips = plan.strips(WHOLE_STRIP_PX)
    opened = contextlib.ExitStack()
    pixels = opened.enter_context(pixels_of(plan, strips, None))

    def finish() -> NDArray[np.uint8]:
        with opened:
            index = np.empty((plan.grid.height, plan.grid.width), dtype=np.uint8)
            if plan.backend.shares_work and device_at(plan.device).is_host:
                draw_at_once(plan, index)
            else:
                _gather(plan, strips, pixels, index)
            return index

    return PendingSheet(plan, finish, opened.close)


def draw_at_once(plan: Plan, index: NDArray[np.uint8]) -> None:
    """Draw an index plane, (height, width) uint8, by the native threads of the backend of its plan.

    Raises:
        MemoryError: there is no memory for a row of the sheet.
    """
    with stage("render"):
        for strip in cut_rows(plan.grid.height, max(1, _AT_ONCE_PX // plan.grid.width)):
            plan.draw(strip, index[strip.start : strip.stop], plan.threads)


def _gather(plan: Plan, strips: Sequence[Strip], pixels: Pixels, index: NDArray[np.uint8]) -> None:
    """Put an index plane together from its strips: drawn into it, or copied into it from a staging buffer."""

    def take(strip: Strip) -> None:
        try:
            out = index[strip.start : strip.stop]
            if (drawn := pixels.draw(strip, out)) is not out:
                out[:] = drawn
        finally:
            pixels.give_back(strip)

    for _ in in_order(take, strips, plan.threads):
        pass


def draw_on_device(plan: Plan) -> torch.Tensor | None:
    """Draw the index plane of a sheet without text on the device of its maps, on the current stream.

    Args:
        plan: of the sheet.

    Returns:
        (height, width) uint8, contiguous, on that device; None where it does not fit into its memory.
    """
    planes: list[torch.Tensor] = []

    def draw() -> None:
        index = torch.empty((plan.grid.height, plan.grid.width), dtype=torch.uint8, device=plan.device)
        for strip in plan.strips():
            plan.draw_tiles(strip, index[strip.start : strip.stop])
        planes.append(index)

    return planes[0] if device_at(plan.device).attempt(draw) is None else None


def _drawn(plan: Plan, overlay: Overlay | None) -> Callable[[Strip, NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return a function that draws a strip on the host into (rows, width) uint8, or (rows, width, 3) for RGB."""
    scratch = png.Scratch()

    def draw(strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with stage("render"):
            if overlay is None:
                return plan.draw(strip, out)
            overlay.blend(plan.draw(strip, scratch.pixels(out.shape[:2])), strip, out)
            return out

    return draw


def _painter(plan: Plan, device: Device, overlay: Overlay | None) -> Painter:
    """Return a painter for a sheet on the device of its maps, which blends it with the overlay if there is one."""
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
