"""Stage 5 of 7: the plan. Maps and options become everything about a sheet but its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..channels import vectors
from ..channels.ranges import drawing_range
from ..channels.report import LayerReport, layer_report
from ..channels.selection import Selection, pick, select
from ..channels.statistics import ChannelStatistics, channel_statistics
from ..channels.values import as_tensor, shrink, squash
from ..errors import OptionError, ShapeError
from ..geometry import NO_ROOM, Grid, Positions, Strip, cut_strips, plan_grid, sampling_positions, tile_size
from ..kernels import Paint, backends
from ..options.drawing import RenderOptions
from ..palette import Palette, make_palette
from ..provenance import Provenance
from ..runtime.device import device_at
from ..runtime.workers import default_threads
from .annotation import Annotation, letter, word_sheet
from .manifest import Facts, describe_sheet
from .overlay import Backdrop, Overlay

if TYPE_CHECKING:
    from ..channels.dataset import Ranges


@dataclass(frozen=True)
class Plan:
    """Everything about a sheet but its pixels. See `kernels` for what the arrays are.

    device: where the maps lie, and the kernels run.
    selection: which channel, or what reduction of several, each tile shows.
    annotation: what is written around the tiles, or None.
    overlay: what lies under the tiles, or None.
    report: on the whole layer, where it is wanted.
    entries: the strongest of a vector, or None for maps and where two sheets stand beside each other.
    describe: makes the manifest, which takes as long as drawing a small sheet.
    """

    backend: backends.Backend
    device: torch.device
    maps: Any
    vmin: Any
    vmax: Any
    rows: Positions
    cols: Positions
    grid: Grid
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
        self.draw_tiles(strip, out)
        self.annotate(strip, out)
        return out

    def draw_tiles(self, strip: Strip, out: Any) -> None:
        """Draw what the kernels draw of a strip into `out`, (rows of the strip, width) uint8, on any device."""
        self.backend.kernels.render_strip(
            self.maps, self.vmin, self.vmax, self.rows, self.cols, self.grid, self.paint, strip, out
        )

    def annotate(self, strip: Strip, out: NDArray[np.uint8]) -> None:
        """Paint what is written around the tiles over a drawn strip, (rows, width) uint8 or (rows, width, 3) RGB."""
        if self.annotation is not None:
            self.annotation.paint(strip, out)

    def strips(self, most_px: int | None = None) -> list[Strip]:
        """Cut the sheet into strips that suit the backend, and of at most `most_px` pixels."""
        strip_px = min(self.backend.strip_px, most_px or self.backend.strip_px)
        return cut_strips(self.grid.height, self.grid.width, strip_px)


def plan_sheet(
    maps: Any,
    options: RenderOptions,
    provenance: Provenance,
    backdrop: Backdrop | None = None,
    *,
    shared_with: Any = None,
    names: Sequence[str] | None = None,
    measured: ChannelStatistics | None = None,
    ranges: Ranges | None = None,
) -> Plan:
    """Decide everything about a sheet before the first pixel is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; (C,) for a vector. Not
            modified.
        options: how to draw them.
        provenance: where they came from, for the manifest.
        backdrop: the picture to lay them over.
        shared_with: (C, H, W) float32 on the same device, or None. Other maps, beside which the sheet will stand:
            ranges are those of both together, and the palette has a background for the gap between.
        names: of the tiles, for labels, where they show something else than channels.
        measured: statistics of the channels that `options` picks, on the CPU, where they are known already.
        ranges: with normalize dataset, those of all channels of the layer, of which `options` may choose some.

    Returns:
        The plan; drawing it can no longer fail for a wrong argument.

    Raises:
        InputError: `maps` or an option cannot be used, see `as_tensor` and `options`.
        ShapeError: among them, single cells that are to be laid over a picture.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device of the maps was lost, perhaps by what made them.
        MemoryError: memory for measuring them ran out.
    """
    tensor = as_tensor(maps)
    with device_at(tensor.device).faults():
        backend = backends.choose(options.backend, str(tensor.device))
        layer = backend.readable(tensor)
        if measured is None and options.report and options.channels is None:
            measured = channel_statistics(backend, layer).cpu()
        report = layer_report(layer, measured if options.channels is None else None) if options.report else None
        chosen, selection, statistics = select(layer, backend, options, measured)
        entries = None
        if vectors.is_vector(layer):
            if backdrop is not None:
                raise ShapeError(
                    "maps of single cells, a vector, have no places to lay over a picture. Leave out overlay."
                )
            if shared_with is None:  # of two sheets side by side, each would have a list of its own length and width
                entries = vectors.strongest(layer, provenance.categories, options.channels)
            options = vectors.as_bar(options, len(chosen))

        tile_h, tile_w = tile_size(layer.shape[1], layer.shape[2], options.tile, options.scale)
        given = _given(ranges, options, len(layer), selection)
        shown = _range_over(chosen, statistics, backend, options, shared_with, given)
        if options.label:
            names = names or selection.labels  # which for a million kernels take as long as the rest of the plan
        grid, palette, annotation = _lay_out(options, provenance, names or (), entries, shown, (tile_h, tile_w))
        overlay = backdrop.under(grid, palette, backend.name) if backdrop else None
        cells = shown.maps
        vmin, vmax = (end.to(cells.device, non_blocking=True) for end in (shown.vmin, shown.vmax))
        if options.upsampling == "bilinear":
            cells = shrink(cells, vmin, vmax, tile_h, tile_w)
        facts = Facts(
            options, backend.name, maps, grid, palette, selection, shown.statistics, shown.vmin, shown.vmax, report,
            entries, overlay,
        )  # fmt: skip
        return Plan(
            backend=backend,
            device=layer.device,
            maps=backend.to_array(cells),
            vmin=backend.to_array(vmin),
            vmax=backend.to_array(vmax),
            rows=sampling_positions(cells.shape[1], tile_h, options.align, options.upsampling),
            cols=sampling_positions(cells.shape[2], tile_w, options.align, options.upsampling),
            grid=grid,
            palette=palette,
            paint=Paint(palette.levels, options.flat, palette.background, palette.bad),
            threads=options.threads or default_threads(),
            selection=selection,
            annotation=annotation,
            overlay=overlay,
            report=report,
            entries=entries,
            describe=partial(describe_sheet, provenance, facts),
        )


class _Shown(NamedTuple):
    """The maps of the tiles, what they hold, and the range each is drawn on; all but the maps on the CPU.

    shows_bad: whether any of them, or of those they share their range with, holds a NaN or an infinity.
    shares: whether there are such.
    """

    maps: torch.Tensor
    statistics: ChannelStatistics
    vmin: torch.Tensor
    vmax: torch.Tensor
    shows_bad: bool
    shares: bool


def _range_over(
    maps: torch.Tensor,
    statistics: ChannelStatistics,
    backend: backends.Backend,
    options: RenderOptions,
    shared_with: torch.Tensor | None,
    given: tuple[torch.Tensor, torch.Tensor] | None,
) -> _Shown:
    """Decide the ranges of the maps of the tiles, (K, H, W) of `backend.dtypes`, from what they hold, or as given."""
    measured = statistics
    together = maps
    if shared_with is not None:
        together = torch.cat([maps, pick(shared_with, options.channels)[0]], dim=1)
        measured = channel_statistics(backend, together).cpu()
    if given is not None:
        # A channel without a finite value in the whole set has no range there, and is drawn on its own.
        vmin, vmax = (
            end.where(~end.isnan(), own) for end, own in zip(given, (measured.vmin, measured.vmax), strict=True)
        )
    elif vectors.is_vector(maps):
        vmin, vmax = vectors.range_of_cells(together, backend, options)
    else:
        vmin, vmax = drawing_range(together, measured.vmin, measured.vmax, options)
    values = squash(maps) if options.normalize == "sigmoid" else maps
    return _Shown(values, statistics, vmin.cpu(), vmax.cpu(), not measured.all_finite, shared_with is not None)


def _given(
    ranges: Ranges | None, options: RenderOptions, count: int, selection: Selection
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the ranges of the tiles, each (K,) float32 on the CPU, out of those of a layer of `count` channels."""
    if (ranges is None) == (options.normalize == "dataset"):
        if ranges is None:
            raise OptionError("normalize 'dataset' needs statistics of the data set. Pass them as statistics.")
        raise OptionError(f"statistics go with normalize 'dataset', got normalize {options.normalize!r}.")
    if ranges is None:
        return None
    if any(end.shape != (count,) for end in ranges):
        raise ShapeError(f"statistics must be of the layer's {count} channels, got those of {len(ranges[0])}.")
    shown = np.asarray(selection.channels, dtype=np.int64)
    return torch.from_numpy(ranges[0][shown]), torch.from_numpy(ranges[1][shown])


def _lay_out(
    options: RenderOptions,
    provenance: Provenance,
    names: Sequence[str],
    entries: list[vectors.Entry] | None,
    shown: _Shown,
    tile: tuple[int, int],
) -> tuple[Grid, Palette, Annotation | None]:
    """Lay out the tiles and what is written around them, and make the palette of what all of that shows."""
    wording = word_sheet(options, provenance, names, shown.vmin, shown.vmax)
    if entries:
        wording = replace(wording, lines=tuple((entry.line, entry.share) for entry in entries))
    lettering = letter(wording, *tile, options.margin)
    grid = plan_grid(
        len(shown.maps), *tile, grid=options.grid, gap=options.gap, margin=options.margin, room=lettering.room
    )
    palette = make_palette(
        options.colormap,
        background=options.background,
        bad=options.bad,
        shows_background=grid.shows_background or shown.shares,
        shows_bad=shown.shows_bad,
        shows_ink=lettering.room != NO_ROOM,
    )
    return grid, palette, lettering.place(grid, palette)
