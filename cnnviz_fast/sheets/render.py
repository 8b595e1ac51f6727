"""The main path: maps go in, and a sheet comes out, in memory or as a file that was never in memory as a whole.

    plan_sheet    maps -> ranges, grid, sampling positions, palette, backend: everything but pixels; see plan.py
    pixels_of     its strips in the host's memory: drawn there by the kernels, or fetched from the maps' device
    draw_sheet    all strips as one index plane
    write_sheet   each strip drawn, encoded and written while it is in cache; with an overlay it is coloured in between

`render` is plan_sheet and draw_sheet; `save_sheet` is plan_sheet and write_sheet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..channels.dataset import LayerStatistics, Ranges, ranges_of
from ..channels.entrance import Handed, enter
from ..formats import device_jpeg, png
from ..formats import picture as formats
from ..formats.manifest_files import refuse_other_json
from ..options.declared import takes
from ..options.drawing import RenderOptions
from ..options.parsers import path as path_of
from ..provenance import Provenance, given_provenance
from ..runtime.device import device_at
from . import native_file
from .overlay import Backdrop, read_overlay
from .pixels import draw_on_device, draw_whole, pixels_of
from .plan import Plan, plan_sheet
from .sheet import Sheet, write_manifest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import RenderKeywords


def _planned(
    handed: Handed,
    options: RenderOptions,
    provenance: Provenance | None,
    field: Any,
    backdrop: Backdrop | None,
    ranges: Ranges | None,
) -> Plan:
    """Plan the sheet of maps that were handed in."""
    known = handed.placed(given_provenance(provenance, field))
    given = (handed.maps, handed.completed(options), known, backdrop)
    return plan_sheet(*given, ranges=ranges)


def draw_sheet(plan: Plan) -> Sheet:
    """Draw a planned sheet into memory."""
    return Sheet(draw_whole(plan), plan.palette, plan.describe(), plan.overlay)


def write_sheet(plan: Plan, path: Path, *, manifest: bool = True) -> Path:
    """Draw a planned sheet into a file, and write its manifest beside it unless that is not wanted."""
    if not manifest:
        write_picture(plan, path)
        return path
    refuse_other_json(path.with_suffix(".json"))
    made: list[bytes] = []
    write_picture(plan, path, lambda: made.append(plan.manifest_json()))
    write_manifest(path, *made)
    return path


def write_picture(plan: Plan, path: Path, meanwhile: Callable[[], object] | None = None) -> None:
    """Draw a planned sheet into a file. Formats other than PNG need the whole sheet in memory.

    Args:
        plan: of the sheet.
        path: the file.
        meanwhile: what else is to be done, if anything: while native threads draw, or when the file is whole.
    """
    grid, overlay = plan.grid, plan.overlay
    chosen = formats.check_size(path, grid.height, grid.width)
    if chosen.name == "PNG" and native_file.takes(plan):
        native_file.write_png(plan, path, meanwhile)
        return
    if chosen.name == "PNG":
        strips = plan.strips(png.RGB_STRIP_PX if overlay else png.STRIP_PX)
        palette = None if overlay else plan.palette
        with pixels_of(plan, strips, overlay) as pixels:
            png.write_png(path, grid.height, grid.width, palette, strips, pixels.draw, plan.threads, pixels.give_back)
    elif not (chosen.name == "JPEG" and _write_on_device(plan, path)):
        draw_sheet(plan).write(path)
    if meanwhile is not None:
        meanwhile()


def _write_on_device(plan: Plan, path: Path) -> bool:
    """Encode a JPEG on the device of the maps and write it. Return whether that was possible.

    It is not where text or an overlay has to be drawn, which the host does, or where the device lacks memory for the
    whole sheet.
    """
    if plan.device.type != "cuda" or plan.overlay is not None or plan.annotation is not None:
        return False
    with device_at(plan.device).faults():
        if not device_jpeg.takes(plan.grid.height, plan.grid.width, str(plan.device)):
            return False
        if (index := draw_on_device(plan)) is None:
            return False
        formats.write_device_jpeg(path, index, plan.palette)
        return True


@takes(RenderOptions)
def render(
    maps: Any,
    *,
    axes: str = "auto",
    planes: Any = None,
    provenance: Provenance | None = None,
    overlay: Any = None,
    alpha: float | None = None,
    show_input: Any = None,
    statistics: LayerStatistics | None = None,
    field: Any = None,
    **options: Unpack[RenderKeywords],
) -> Sheet:
    """Draw every channel of a layer into one sheet.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; or (1, C, H, W), (C, L) for
            a signal, (C,) for a vector, (C, D, H, W) for a volume, or a list of maps. Not modified.
        axes: of `maps`: auto (the channels are first), chw, hwc, cl, lc, hw, c, cdhw or dhwc.
        planes: of a volume, the plane to draw, counted from 0.
        provenance: where the maps came from, for the manifest.
        overlay: image to lay the maps over: a path, PIL image, or (H, W[, 3]) uint8 array, resized to the tiles.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        show_input: image to show above the grid, which takes 64 of the palette's colours; as for overlay.
        statistics: of the layer over a data set, with normalize dataset.
        field: receptive field of the layer, of `receptive_field`, with align field, unless `provenance` tells it.
        **options: see below.

    Returns:
        The sheet: index plane, palette and manifest, and what lies under it.

    Raises:
        InputError: `maps` or an option cannot be used.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device of the maps was lost, or refuses the work.
        MemoryError: the sheet does not fit into memory.

    Source:
        Pixel rules: `kernels.reference`.
    """
    checked = RenderOptions.of(options)
    ranges = ranges_of(statistics, checked)
    backdrop = read_overlay(overlay, alpha, show_input)
    plan = _planned(enter(maps, axes, planes), checked, provenance, field, backdrop, ranges)
    return draw_sheet(plan)


@takes(RenderOptions)
def save_sheet(
    maps: Any,
    path: str | os.PathLike[str],
    *,
    axes: str = "auto",
    planes: Any = None,
    provenance: Provenance | None = None,
    overlay: Any = None,
    alpha: float | None = None,
    show_input: Any = None,
    statistics: LayerStatistics | None = None,
    manifest: bool = True,
    field: Any = None,
    **options: Unpack[RenderKeywords],
) -> Path:
    """Draw every channel of a layer into one file, with its manifest beside it.

    A PNG goes strip by strip from the kernels through the encoder to the file: the whole sheet is never in memory.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; or (1, C, H, W), (C, L) for
            a signal, (C,) for a vector, (C, D, H, W) for a volume, or a list of maps. Not modified.
        path: the file; its suffix decides the format: .png, .jpg, .jpeg, .webp, or .npy for the index plane.
        axes: of `maps`: auto (the channels are first), chw, hwc, cl, lc, hw, c, cdhw or dhwc.
        planes: of a volume, the plane to draw, counted from 0.
        provenance: where the maps came from, for the manifest.
        overlay: image to lay the maps over, as in render. A PNG is then RGB; .npy is still the index plane.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        show_input: image to show above the grid, which takes 64 of the palette's colours; as for overlay.
        statistics: of the layer over a data set, with normalize dataset.
        manifest: False writes the sheet alone.
        field: receptive field of the layer; see render.
        **options: see below.

    Returns:
        The path.

    Raises:
        InputError: `maps` or an option cannot be used.
        EncodeError: the sheet is too large for the format.
        WriteError: the file cannot be written, or the manifest would replace another JSON file; nothing is left of it,
            and an older file of that name stays.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device of the maps was lost, or refuses the work; nothing is left of the file.
    """
    path = path_of("path", path)
    formats.format_of(path)
    checked = RenderOptions.of(options)
    ranges = ranges_of(statistics, checked)
    backdrop = read_overlay(overlay, alpha, show_input)
    plan = _planned(enter(maps, axes, planes), checked, provenance, field, backdrop, ranges)
    return write_sheet(plan, path, manifest=manifest)
