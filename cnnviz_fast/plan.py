"""Stage 5 of 7: the plan. Maps and options become everything about a sheet but its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from . import backends, channels, vectors
from .annotate import Annotation, letter, word_sheet
from .errors import ShapeError
from .kernels import Paint
from .layout import NO_ROOM, GridLayout, Positions, Strip, cut_strips, plan_grid, sampling_positions, tile_size
from .manifest import Facts, Source, describe_sheet
from .options import RenderOptions
from .overlay import Backdrop, Overlay
from .palette import Palette, make_palette
from .report import LayerReport, layer_report
from .selection import Selection, pick, select
from .strips import default_threads


@dataclass(frozen=True)
class Plan:
    """Everything about a sheet but its pixels. See `kernels` for what the arrays are.

    selection: which channel, or what reduction of several, each tile shows.
    annotation: what is written around the tiles, or None.
    overlay: what lies under the tiles, or None.
    report: on the whole layer, where it is wanted.
    entries: the strongest of a vector, or None for maps and where two sheets stand beside each other.
    describe: makes the manifest, which takes as long as drawing a small sheet.
    """

    backend: backends.Backend
    maps: Any
    vmin: Any
    vmax: Any
    rows: Positions
    cols: Positions
    layout: GridLayout
    palette: Palette
    paint: Paint
    threads: int
    selection: Selection
    annotation: Annotation | None
    overlay: Overlay | None
    report: LayerReport | None
    entries: list[vectors.Entry] | None
    describe: Callable[[], dict[str, Any]]

    def draw(self, strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw one strip into `out`, (rows of the strip, width) uint8, and return it."""
        self.backend.kernels.render_strip(
            self.maps, self.vmin, self.vmax, self.rows, self.cols, self.layout, self.paint, strip, out
        )
        if self.annotation is not None:
            self.annotation.paint(strip, out)
        return out

    def strips(self, most_px: int | None = None) -> list[Strip]:
        """Cut the sheet into strips that suit the backend, and of at most `most_px` pixels."""
        strip_px = min(self.backend.strip_px, most_px or self.backend.strip_px)
        return cut_strips(self.layout.height, self.layout.width, strip_px)


def plan_sheet(
    maps: Any,
    options: RenderOptions,
    source: Source,
    backdrop: Backdrop | None = None,
    *,
    shared_with: Any = None,
    names: Sequence[str] | None = None,
) -> Plan:
    """Decide everything about a sheet before the first pixel is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; (C,) for a vector. Not
            modified.
        options: how to draw them.
        source: where they came from, for the manifest.
        backdrop: the picture to lay them over.
        shared_with: (C, H, W) float32 on the same device, or None. Other maps, beside which the sheet will stand:
            ranges are those of both together, and the palette has a background for the gap between.
        names: of the tiles, for labels, where they show something else than channels.

    Returns:
        The plan; drawing it can no longer fail for a wrong argument.

    Raises:
        InputError: `maps` or an option cannot be used, see `channels.as_tensor` and `options`.
        ShapeError: among them, single cells that are to be laid over a picture.
        BackendUnavailableError: the named backend does not work for these maps.
    """
    given = channels.as_tensor(maps)
    backend = backends.choose(options.backend, given.device.type)
    layer = backend.readable(given)
    report = layer_report(layer, channels.channel_statistics(backend, layer)) if options.report else None
    chosen, selection = select(layer, backend, options)
    entries = None
    if vectors.is_vector(layer):
        if backdrop is not None:
            raise ShapeError("maps of single cells, a vector, have no places to lay over a picture. Leave out overlay.")
        if shared_with is None:  # of two sheets side by side, each would have a list of its own length and width
            entries = vectors.strongest(layer, source.categories, options.channels)
        options = vectors.as_bar(options, len(chosen))

    tile_h, tile_w = tile_size(layer.shape[1], layer.shape[2], options.tile, options.scale)
    shown = _measure(chosen, backend, options, shared_with)
    if options.label:
        names = names or selection.labels  # which for a million kernels take as long as the rest of the plan
    layout, palette, annotation = _lay_out(options, source, names or (), entries, shown, (tile_h, tile_w))
    overlay = backdrop.under(layout, palette, backend.name) if backdrop else None
    cells = shown.maps
    if options.upsampling == "bilinear":
        cells = channels.shrink(cells, shown.vmin, shown.vmax, tile_h, tile_w)
    facts = Facts(
        options, backend.name, maps, layout, palette, selection, shown.statistics, shown.vmin, shown.vmax, report,
        entries, overlay,
    )  # fmt: skip
    return Plan(
        backend=backend,
        maps=backend.to_array(cells),
        vmin=backend.to_array(shown.vmin),
        vmax=backend.to_array(shown.vmax),
        rows=sampling_positions(cells.shape[1], tile_h, options.align, options.upsampling),
        cols=sampling_positions(cells.shape[2], tile_w, options.align, options.upsampling),
        layout=layout,
        palette=palette,
        paint=Paint(palette.levels, options.flat, palette.background, palette.bad),
        threads=options.threads or default_threads(),
        selection=selection,
        annotation=annotation,
        overlay=overlay,
        report=report,
        entries=entries,
        describe=partial(describe_sheet, source, facts),
    )


class _Shown(NamedTuple):
    """The maps of the tiles, what they hold, and the range each is drawn on.

    shows_bad: whether any of them, or of those they share their range with, holds a NaN or an infinity.
    shares: whether there are such.
    """

    maps: torch.Tensor
    statistics: channels.ChannelStatistics
    vmin: torch.Tensor
    vmax: torch.Tensor
    shows_bad: bool
    shares: bool


def _measure(
    maps: torch.Tensor, backend: backends.Backend, options: RenderOptions, shared_with: torch.Tensor | None
) -> _Shown:
    """Measure the maps of the tiles, (K, H, W) of one of `backend.dtypes`, and decide their ranges."""
    statistics = measured = channels.channel_statistics(backend, maps)
    together = maps
    if shared_with is not None:
        together = torch.cat([maps, pick(shared_with, options.channels)[0]], dim=1)
        measured = channels.channel_statistics(backend, together)
    vmin, vmax = (
        vectors.range_of_cells(together, backend, options)
        if vectors.is_vector(maps)
        else channels.drawing_range(together, measured.vmin, measured.vmax, options)
    )
    values = channels.squash(maps) if options.normalize == "sigmoid" else maps
    return _Shown(values, statistics, vmin, vmax, not measured.all_finite, shared_with is not None)


def _lay_out(
    options: RenderOptions,
    source: Source,
    names: Sequence[str],
    entries: list[vectors.Entry] | None,
    shown: _Shown,
    tile: tuple[int, int],
) -> tuple[GridLayout, Palette, Annotation | None]:
    """Lay out the tiles and what is written around them, and make the palette of what all of that shows."""
    wording = word_sheet(options, source, names, shown.vmin, shown.vmax)
    if entries:
        wording = replace(wording, lines=tuple((entry.line, entry.share) for entry in entries))
    lettering = letter(wording, *tile, options.margin)
    layout = plan_grid(
        len(shown.maps), *tile, grid=options.grid, gap=options.gap, margin=options.margin, room=lettering.room
    )
    palette = make_palette(
        options.colormap,
        background=options.background,
        bad=options.bad,
        shows_background=layout.shows_background or shown.shares,
        shows_bad=shown.shows_bad,
        shows_ink=lettering.room != NO_ROOM,
    )
    return layout, palette, lettering.place(layout, palette)
