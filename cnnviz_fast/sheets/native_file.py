"""A planned sheet as a PNG by the native module alone: drawn, coloured, lettered, encoded and written in one call.

The file is the one that `png.write_png` writes, byte for byte. The threads are native, wait between calls, and never
hold Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..formats import png
from ..runtime.files import whole_file
from ..runtime.native import native
from ..runtime.stage_times import record

if TYPE_CHECKING:
    from .plan import Plan


def takes(plan: Plan) -> bool:
    """Return whether a sheet is drawn by the native kernels, and may be written by them too."""
    return plan.backend.name == "native" and png.native()[0] is not None


def write_png(plan: Plan, path: Path, meanwhile: Callable[[], object] | None = None) -> None:
    """Write a sheet.

    Args:
        plan: of a sheet that `takes` takes.
        path: the file.
        meanwhile: what this thread does while others begin, if anything. What it raises ends the work.

    Raises:
        WriteError: the file cannot be written.
        MemoryError: there is no memory for the strips that are being worked on.
    """
    with whole_file(path) as file:
        file.write(png.head(plan.grid.height, plan.grid.width, None if plan.overlay else plan.palette))
        file.flush()
        file.write(png.tail(write_strips(plan, file.fileno(), meanwhile)))


def write_strips(plan: Plan, descriptor: int, meanwhile: Callable[[], object] | None = None) -> int:
    """Draw, colour, letter, encode and write the strips of a sheet, without what stands around them in a PNG.

    Args:
        plan: of a sheet that `takes` takes.
        descriptor: of a file that is open for writing.
        meanwhile: see write_png.

    Returns:
        Adler-32 of all filtered bytes.

    Raises:
        OSError: the file cannot be written.
        MemoryError: there is no memory for the strips that are being worked on.
    """
    module, _ = native()
    assert module is not None
    grid, overlay, paint = plan.grid, plan.overlay, plan.paint
    strip = plan.strips(png.RGB_STRIP_PX if overlay else png.STRIP_PX)[0]
    with record() as seconds:
        adler, seconds["render"], seconds["encode"], seconds["write"] = module.write_sheet(
            descriptor, grid.height, grid.width,
            plan.maps, plan.vmin, plan.vmax,
            plan.rows.index, plan.rows.fraction, plan.cols.index, plan.cols.fraction,
            grid.numbers,
            (paint.levels, paint.background, paint.bad), paint.flat, plan.palette.colors,
            (overlay.weights, overlay.photo) if overlay else None,
            plan.annotation.all_blocks() if plan.annotation else [],
            strip.stop - strip.start, plan.threads, meanwhile,
        )  # fmt: skip
    return int(adler)
