"""The plan of a sheet: everything about it but its pixels, decided before the first of them is drawn.

choose_channels   maps -> a map for each tile, what each shows and holds; a vector becomes a bar there
decide_ranges     -> the range of values that each tile is drawn on
_lay_out          -> tile size, grid, lettering, palette, and the image under the tiles
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..channels.chosen import ChosenChannels, choose_channels
from ..channels.tile_ranges import RangeOrigin, SharedRanges, TileRanges, decide_ranges
from ..channels.values import as_tensor, shrink, squash
from ..channels.vectors import is_vector
from ..errors import InputError, ShapeError, repr_of
from ..geometry import NO_ROOM, Grid, Positions, Strip, cut_strips, plan_grid, sampling_positions, tile_size
from ..kernels import Paint, backends
from ..options.drawing import RenderOptions
from ..palette import Palette, make_palette
from ..provenance import Provenance
from ..runtime.device import device_at
from ..runtime.files import json_bytes
from ..runtime.workers import default_threads
from .annotation import Annotation, letter, word_sheet
from .look import SCREEN_RATIO, settled
from .manifest import SheetFacts, describe_sheet, sheet_json, with_files
from .marks import place_marks
from .overlay import Backdrop, Overlay
from .registration import lattices

if TYPE_CHECKING:
    import torch

    from ..channels.report import LayerReport
    from ..channels.selection import Selection
    from ..channels.statistics import ChannelStatistics
    from ..channels.vectors import Entry

Describe = Callable[[SheetFacts], dict[str, Any]]
"""What makes a manifest."""


@dataclass(frozen=True)
class Plan:
    """Everything about a sheet but its pixels. See `kernels` for what the arrays are.

    device: where the maps lie and the kernels run.
    selection: which channel, or which reduction of several, each tile shows.
    annotation: what is written around the tiles, or None.
    overlay: what lies under the tiles, or None.
    report: on the whole layer, where the options want it.
    entries: the strongest entries of a vector; None for maps, and for a sheet that stands beside another one.
    facts: what its manifest says.
    own_manifest: makes the manifest of a sheet that shows something else than a layer; else None.
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
    entries: list[Entry] | None
    facts: SheetFacts
    own_manifest: Describe | None

    def describe(self) -> dict[str, Any]:
        """Return the manifest. Not made before it is needed: that takes as long as drawing a small sheet."""
        return describe_sheet(self.facts) if self.own_manifest is None else self.own_manifest(self.facts)

    def manifest_json(self, files: Sequence[str] | None = None) -> bytes:
        """Return the manifest as JSON, made faster than by `describe`, with the file of each tile if tiles have any."""
        if self.own_manifest is None:
            return sheet_json(self.facts, files)
        return json_bytes(with_files(self.own_manifest(self.facts), files))

    def draw(self, strip: Strip, out: NDArray[np.uint8], threads: int = 1) -> NDArray[np.uint8]:
        """Draw one strip into `out`, (rows of the strip, width) uint8, and return it; see draw_tiles for `threads`."""
        self.draw_tiles(strip, out, threads)
        self.annotate(strip, out)
        return out

    def draw_tiles(self, strip: Strip, out: Any, threads: int = 1) -> None:
        """Draw the tiles of a strip, without text.

        Args:
            strip: which rows.
            out: (rows of the strip, width) uint8, on any device. Written.
            threads: at most as many draw at once, where the backend shares work; the others use one.
        """
        kernels = self.backend.kernels
        draw = partial(kernels.render_strip_by, threads) if self.backend.shares_work else kernels.render_strip
        draw(self.maps, self.vmin, self.vmax, self.rows, self.cols, self.grid, self.paint, strip, out)

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
    names: Sequence[str] | None = None,
    measured: ChannelStatistics | None = None,
    ranges: RangeOrigin = None,
    describe: Describe | None = None,
) -> Plan:
    """Decide everything about a sheet before the first pixel is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; (C,) for a vector. Not
            modified.
        options: how to draw them.
        provenance: where they came from, for the manifest.
        backdrop: the image to lay them over, or to show above them.
        names: of the tiles, for labels, where they show something else than channels.
        measured: statistics of the channels that `options` picks, on the CPU, where they are known already.
        ranges: where the ranges of the tiles come from, see `tile_ranges`; None for what the maps hold.
        describe: makes the manifest, where the sheet shows something else than a layer.

    Returns:
        The plan; drawing it can no longer fail because of a wrong argument.

    Raises:
        InputError: `maps` or an option cannot be used, see `as_tensor` and `options`.
        ShapeError: among them, maps of single cells that are to be laid over an image.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device of the maps was lost, perhaps by what made them.
        MemoryError: there is not enough memory to measure them.
    """
    tensor = as_tensor(maps)
    if not isinstance(provenance, Provenance):
        raise InputError(f"provenance must be a Provenance, got {repr_of(provenance)}.")
    over_image = backdrop is not None and backdrop.lies_under
    if over_image and is_vector(tensor):
        raise ShapeError("maps of single cells, a vector, cannot be laid over an image. Leave out overlay.")
    with device_at(tensor.device).faults():
        backend = backends.choose(options.backend, str(tensor.device))
        chosen = choose_channels(
            tensor,
            backend,
            options,
            measured,
            categories=provenance.categories,
            list_entries=not isinstance(ranges, SharedRanges),  # the lists of two sheets would differ in size
        )
        is_half = isinstance(ranges, SharedRanges)
        looks = settled(chosen.options, *chosen.maps.shape, over_image=over_image, side_by_side=is_half)
        chosen = replace(chosen, options=looks)
        drawn_on = decide_ranges(chosen, backend, ranges)
        shape = " x ".join(map(str, maps.shape))
        design = _lay_out(chosen, drawn_on, provenance, shape, names=names, backdrop=backdrop, backend=backend.name)
        facts = SheetFacts(
            provenance, chosen.options, backend.name, maps, design.grid, design.palette, chosen.selection,
            chosen.statistics, drawn_on.vmin, drawn_on.vmax, chosen.report, chosen.entries, design.overlay,
            design.image,
        )  # fmt: skip
        return _assemble(backend, chosen, drawn_on, design, facts, describe)


class _Design(NamedTuple):
    """How a sheet is laid out, and its colours; see Plan."""

    grid: Grid
    palette: Palette
    annotation: Annotation | None
    overlay: Overlay | None
    image: dict[str, Any] | None


def _lay_out(
    chosen: ChosenChannels,
    drawn_on: TileRanges,
    provenance: Provenance,
    shape: str,
    *,
    names: Sequence[str] | None,
    backdrop: Backdrop | None,
    backend: str,
) -> _Design:
    """Lay out the tiles and what is written around them, and make the palette of what all of that shows."""
    options = chosen.options
    tile_h, tile_w = tile_size(chosen.maps.shape[1], chosen.maps.shape[2], options.tile, options.scale)
    # Names of a million kernels take as long as the rest of the plan, so they are made only where they are written.
    labels = (names or chosen.selection.labels) if options.label else ()
    unit = "channel" if names is None else "tile"
    wording = word_sheet(options, provenance, labels, drawn_on.vmin, drawn_on.vmax, shape=shape, unit=unit)
    if chosen.entries:
        wording = replace(wording, lines=tuple((entry.line, entry.share) for entry in chosen.entries))
    above = backdrop.above(max(tile_h, tile_w)) if backdrop else None
    lettering = letter(wording, tile_h, tile_w, options.margin, above and above.pixels)
    grid = plan_grid(
        len(chosen.maps),
        tile_h,
        tile_w,
        grid=options.grid,
        gap=options.gap,
        margin=options.margin,
        room=lettering.room,
        ratio=1.0 if options.plain else SCREEN_RATIO / (2 if drawn_on.shared else 1),
    )
    crossed, framed = _marked(chosen, drawn_on) if options.marks else ([], [])
    palette = make_palette(
        options.colormap,
        background=options.background,
        bad=options.bad,
        # Two sheets side by side have one palette, whichever of them has marks, and a gap between them.
        shows_background=grid.shows_background or drawn_on.shared or bool(crossed),
        shows_bad=not drawn_on.all_finite,
        shows_ink=lettering.room != NO_ROOM or bool(crossed or framed) or (drawn_on.shared and options.marks),
        apart=bool(crossed) and backdrop is not None and backdrop.lies_under,  # a cross lies over no image
        own=above and above.colors,
    )
    overlay = backdrop.under(grid, palette, backend) if backdrop else None
    marks = place_marks(grid, palette, crossed, framed)
    image = {"source": backdrop.source, "box": lettering.image_box(grid)} if backdrop and above else None
    return _Design(grid, palette, lettering.place(grid, palette, marks), overlay, image)


def _marked(chosen: ChosenChannels, drawn_on: TileRanges) -> tuple[list[int], list[int]]:
    """Return the positions of the tiles to cross out and of those to frame.

    Crossed out is a channel that is zero everywhere, and one whose colour says nothing, since its range has no width.
    Framed is a reduction, where channels stand beside it.
    """
    if chosen.is_vector:
        return [], []
    statistics, reductions = chosen.statistics, chosen.selection.reductions or []
    crossed = ((drawn_on.vmin == drawn_on.vmax) | statistics.dead) & ~statistics.nonfinite
    framed = [position for position, reduction in enumerate(reductions) if reduction is not None]
    return crossed.nonzero()[:, 0].tolist(), framed if len(framed) < len(reductions) else []


def _assemble(
    backend: backends.Backend,
    chosen: ChosenChannels,
    drawn_on: TileRanges,
    design: _Design,
    facts: SheetFacts,
    own_manifest: Describe | None,
) -> Plan:
    """Bring maps and ranges into the form that kernels take, and put everything together."""
    options, cells, grid, palette = chosen.options, chosen.maps, design.grid, design.palette
    vmin, vmax = (end.to(cells.device, non_blocking=True) for end in (drawn_on.vmin, drawn_on.vmax))
    if options.normalize == "sigmoid":
        cells = squash(cells)
    native = cells.shape[1:]
    if options.upsampling == "bilinear":
        cells = shrink(cells, vmin, vmax, grid.tile_h, grid.tile_w)
    align = "center" if chosen.is_vector and options.align == "field" else options.align  # a bar is no map of the input
    places = lattices(facts.provenance) if align == "field" else (None, None)
    rows, cols = (
        sampling_positions(n, size, align, options.upsampling, place and place.shrunk(before, n))
        for n, size, place, before in zip(cells.shape[1:], (grid.tile_h, grid.tile_w), places, native, strict=True)
    )
    return Plan(
        backend=backend,
        device=cells.device,
        maps=backend.to_array(cells),
        vmin=backend.to_array(vmin),
        vmax=backend.to_array(vmax),
        rows=rows,
        cols=cols,
        grid=grid,
        palette=palette,
        paint=Paint(palette.levels, options.flat, palette.background, palette.bad),
        threads=options.threads or default_threads(),
        selection=chosen.selection,
        annotation=design.annotation,
        overlay=design.overlay,
        report=chosen.report,
        entries=chosen.entries,
        facts=facts,
        own_manifest=own_manifest,
    )
