"""Operators for other libraries: tensors in, index planes out as tensors on the same device, in compiled code too.

    cf.render_index(maps, tile=56)            options as in `render`; the palette is the caller's
    torch.ops.cnnviz_fast.channel_range       the operators of which it is made, which torch.compile and torch.export
    torch.ops.cnnviz_fast.render_index        do not break up; defined by `import cnnviz_fast.operators`

Stable from version 0.1 on: these names; the names, order, meaning and defaults of their arguments; dtype, shape and
device of their results. New arguments come last, by keyword, with a default that changes nothing. The pixels follow
`kernels.reference` within 1 level; the backend that draws them may change.

Nothing here is differentiable: a result never requires gradients. Neither shapes nor control flow depend on the values
of maps, so nothing has to be read back from a device. On the CPU torch.get_num_threads() workers draw. Compiled code
works for any number of samples; grid 'auto' is recomputed for other numbers of channels and sizes of tiles.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch

from .channels.entrance import enter_tensor, read_axes, row_layout
from .channels.ranges import drawing_range
from .channels.values import check_values, shrink, squash
from .errors import BackendError, DTypeError, OptionError, ShapeError
from .geometry import Grid, Strip, cut_strips, plan_grid, sampling_positions, tile_size
from .kernels import Paint, backends
from .options.declared import takes
from .options.drawing import PLAIN, PLAIN_TILE_PX, UPSAMPLINGS, WITHOUT_STATISTICS, EntryOptions, RenderOptions
from .options.parsers import choice, share
from .runtime.plain import dense, without_mask
from .runtime.workers import in_order

TAKEN = ("tile", "scale", "grid", "gap", "margin", "normalize", "vmin", "vmax", "percentile", "align", "upsampling")
"""The render options that `render_index` takes."""

REFUSED = tuple(field.name for field in dataclasses.fields(RenderOptions) if field.name not in TAKEN)

_SETTLED = choice(*(name for name in UPSAMPLINGS if name != "auto"))
"""Checks an upsampling: auto is chosen by the looks of a sheet, which belongs to render."""

_NARROWER = {
    "align": Literal["left", "center", "corners"],
    "upsampling": Literal["bilinear", "nearest"],
    "normalize": Literal["channel", "layer", "percentile", "symmetric", "sigmoid", "fixed"],
}
"""What `render_index` takes of these options: the others need what only render takes, such as a receptive field."""

_TEXTS = {
    **WITHOUT_STATISTICS,
    "tile": f"px of its longer side, or HxW (default: {PLAIN_TILE_PX})",
    "align": "sample positions: left, center (default), corners",
    "upsampling": "bilinear (default) or nearest",
}
"""Their sentences, where they are not those of render."""


@torch.library.custom_op("cnnviz_fast::channel_range", mutates_args=())
def channel_range(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the least and the greatest finite value of each channel.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W), any strides, any device, finite or not. Not modified.

    Returns:
        vmin, vmax: (C,) float32, or (N, C), on the device of `maps`. NaN for a channel without a finite value.

    Raises:
        InputError: `maps` cannot be used.
    """
    backend, values = _readable(maps)
    taken = values if backend.batches else values.flatten(0, -3)
    vmin, vmax = backend.kernels.channel_range(backend.to_array(taken))
    return torch.as_tensor(vmin).view(maps.shape[:-2]), torch.as_tensor(vmax).view(maps.shape[:-2])


# Sampling positions are sent from the host, so torch.compile must leave this operator out of its CUDA graphs. torch 2.6
# has no name for that.
_OUTSIDE_GRAPHS: dict[str, Any] = (
    {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
)


@torch.library.custom_op("cnnviz_fast::render_index", mutates_args=(), **_OUTSIDE_GRAPHS)
def draw_index(
    maps: torch.Tensor,
    vmin: torch.Tensor,
    vmax: torch.Tensor,
    tile_h: int,
    tile_w: int,
    *,
    rows: int = 0,
    cols: int = 0,
    gap: int = 0,
    margin: int = 0,
    align: str = RenderOptions.align,
    upsampling: str = "bilinear",
    levels: int = EntryOptions.levels,
    flat: float = 0.0,
    background: int = EntryOptions.background,
    bad: int = EntryOptions.bad,
) -> torch.Tensor:
    """Draw maps on given ranges into the index plane of a sheet, or of N sheets.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W), any strides, any device, finite or not. Not modified.
        vmin: (C,) real dtype, or (N, C), on the device of `maps`. Lower end of the range of each channel.
        vmax: (C,) real dtype, or (N, C). Upper end; equal to `vmin` for a flat channel.
        tile_h: height of a tile in px. Tiles smaller than the maps are made by torch's antialiased interpolation.
        tile_w: width of a tile in px.
        rows: rows of the grid; 0 for as many as needed. With 0 rows and 0 cols the sheet is nearly square.
        cols: columns of the grid; 0 for as many as needed.
        gap: px between tiles.
        margin: px around the grid.
        align: where samples lie: 'left', 'center' or 'corners'.
        upsampling: between samples: 'bilinear' or 'nearest'.
        levels: entries 0 .. levels - 1 show values.
        flat: the normalised value, 0 to 1, that stands for a channel whose range has no width.
        background: entry of pixels that belong to no tile.
        bad: entry of pixels that a NaN or an infinity touches.

    Returns:
        (height, width) uint8, or (N, height, width), contiguous, on the device of `maps`.

    Raises:
        InputError: an argument cannot be used.
        BackendError: a CUDA graph is being captured.

    Source:
        Pixel rules: `kernels.reference`.
    """
    _refuse_capture(maps.device)
    # A record that exists is valid.
    RenderOptions.of(
        {"tile": (tile_h, tile_w), "grid": (rows, cols), "gap": gap, "margin": margin, "align": align}
        | {"upsampling": _SETTLED("upsampling", upsampling)}
    )
    EntryOptions(levels=levels, background=background, bad=bad)
    paint = Paint(levels, share("flat", flat), background, bad)
    grid = _grid_of(maps, vmin, vmax, tile_h, tile_w, rows, cols, gap, margin)
    backend, values = _readable(maps)
    low, high = (end.detach().to(torch.float32) for end in (vmin, vmax))
    cells = shrink(values, low, high, tile_h, tile_w) if upsampling == "bilinear" else values
    arrays = [backend.to_array(tensor) for tensor in (cells, low, high)]
    down, across = (
        sampling_positions(n, size, align, upsampling)
        for n, size in zip(cells.shape[-2:], (tile_h, tile_w), strict=True)
    )
    where = down, across, grid, paint
    index = maps.new_empty((*maps.shape[:-3], grid.height, grid.width), dtype=torch.uint8)
    if backend.batches:
        backend.kernels.render_strip(*arrays, *where, Strip(0, grid.height), index)
        return index

    planes = backend.to_array(index.view(-1, grid.height, grid.width))  # shares the memory of `index`
    arrays = [array.reshape(-1, *array.shape[low.ndim :]) for array in arrays]  # the channels of all samples

    def draw(sample: int, strip: Strip) -> None:
        chosen = slice(sample * grid.count, (sample + 1) * grid.count)
        out = planes[sample, strip.start : strip.stop]
        backend.kernels.render_strip(*(array[chosen] for array in arrays), *where, strip, out)

    strips = cut_strips(grid.height, grid.width, backend.strip_px)
    work = [(sample, strip) for sample in range(len(planes)) for strip in strips]
    for _ in in_order(lambda item: draw(*item), work, torch.get_num_threads() if maps.device.type == "cpu" else 1):
        pass
    return index


@channel_range.register_fake
def _channel_range_fake(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    _check_shape(maps)
    vmin, vmax = (maps.new_empty(maps.shape[:-2], dtype=torch.float32) for _ in range(2))
    return vmin, vmax


# torch asks for a backward function, but nothing calls it: uint8 has no gradients.
channel_range.register_autograd(
    lambda ctx, *gradients: None, setup_context=lambda ctx, inputs, output: ctx.mark_non_differentiable(*output)
)


@draw_index.register_fake
def _draw_index_fake(
    maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, tile_h: int, tile_w: int, *,
    rows: int = 0, cols: int = 0, gap: int = 0, margin: int = 0, **_: Any,
) -> torch.Tensor:  # fmt: skip
    grid = _grid_of(maps, vmin, vmax, tile_h, tile_w, rows, cols, gap, margin)
    return maps.new_empty((*maps.shape[:-3], grid.height, grid.width), dtype=torch.uint8)


@takes(RenderOptions, without=REFUSED, defaults=PLAIN, types=_NARROWER, texts=_TEXTS)
def render_index(
    maps: torch.Tensor,
    *,
    levels: int = EntryOptions.levels,
    background: int = EntryOptions.background,
    bad: int = EntryOptions.bad,
    axes: str = "auto",
    planes: Any = None,
    **options: Any,
) -> torch.Tensor:
    """Draw every channel of a layer into an index plane that stays a tensor; for a batch, one plane for each sample.

    The plane holds the palette entry of each pixel; the palette is the caller's. By default values take all 256
    entries, and entry 0 also stands for background and for values that are not finite, since the entries in use must
    not depend on the values. To distinguish them, pass levels=254, background=254, bad=255.

    The pixels are those of `render(..., plain=True).index` if levels, background and bad are those of its palette:
    tiles of 224 px, bilinear, on a nearly square plane, where options do not say otherwise. But maps of
    single cells are drawn like any other maps, each on its own range unless `normalize` says otherwise. Align field,
    upsampling auto and normalize dataset belong to `render`.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W), any strides, any device, finite or not; others where `axes` or
            `planes` says so. Not modified.
        levels: entries 0 .. levels - 1 show values, 2 to 256 of them.
        background: entry of gaps, margins and empty cells.
        bad: entry of NaN and infinities.
        axes: of each sample, where it is not (C, H, W); see render.
        planes: of volumes, (C, D, H, W) or (N, C, D, H, W), the plane to draw, counted from 0.
        **options: see below.

    Returns:
        (height, width) uint8, or (N, height, width), contiguous, on the device of `maps`. Never requires gradients.

    Raises:
        InputError: `maps` or an option cannot be used.

    Source:
        Pixel rules: `kernels.reference`.
    """
    if not isinstance(maps, torch.Tensor):
        raise DTypeError(
            f"maps must be a tensor, got {type(maps).__name__}. Pass torch.as_tensor(maps), or use render."
        )
    if not torch.compiler.is_compiling():
        maps = without_mask(maps)
    if not maps.is_meta:  # which has the shape of the result
        dense(maps, opened=False)
    entries, wanted, (order, plane) = _checked(levels, background, bad, axes, planes, **options)
    operators = torch.ops.cnnviz_fast
    values = enter_tensor(maps.detach(), order, plane)
    signal = order in ("cl", "lc")
    tile, (rows, cols) = row_layout(wanted, values.shape[-1]) if signal else (wanted.tile, wanted.grid)
    vmin, vmax = operators.channel_range(values)
    vmin, vmax = drawing_range(values, vmin, vmax, wanted)
    if wanted.normalize == "sigmoid":
        values = squash(values)
    tile_h, tile_w = tile_size(values.shape[-2], values.shape[-1], tile, wanted.scale)
    index: torch.Tensor = operators.render_index(
        values, vmin, vmax, tile_h, tile_w,
        rows=rows, cols=cols, gap=wanted.gap, margin=wanted.margin,
        align=wanted.align, upsampling=wanted.upsampling,
        levels=entries.levels, flat=wanted.flat, background=entries.background, bad=entries.bad,
    )  # fmt: skip
    return index


# torch.compile calls this function instead of compiling the checks.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch has no types for it
def _checked(
    levels: int, background: int, bad: int, axes: str, planes: Any, **options: Any
) -> tuple[EntryOptions, RenderOptions, tuple[str, int | None]]:
    """Check the options of `render_index`, and how the axes of maps are read."""
    for name in options:
        if name in REFUSED:
            raise OptionError(
                f"{name} belongs to render; render_index draws every map it is given and leaves colours to its caller. "
                f"Leave it out."
            )
    if "upsampling" in options:
        _SETTLED("upsampling", options["upsampling"])
    wanted = RenderOptions(**{"plain": True, **options})
    if wanted.align == "field":
        raise OptionError(
            "align 'field' belongs to render: render_index does not take what it needs to know of the input. "
            "Take left, center or corners."
        )
    if wanted.normalize == "dataset":
        raise OptionError(
            "normalize 'dataset' needs statistics, which render_index does not take. Pass their ranges, one entry for "
            "each channel, to torch.ops.cnnviz_fast.render_index."
        )
    return EntryOptions(levels=levels, background=background, bad=bad), wanted, read_axes(axes, planes)


def _refuse_capture(device: torch.device) -> None:
    """Refuse to run while a CUDA graph is captured."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise BackendError(
            "render_index must not be captured into a CUDA graph: it sends sampling positions from the host. "
            "Call it on what the graph puts out."
        )


def _check_shape(maps: torch.Tensor) -> None:
    """Refuse maps of other than 3 or 4 dimensions."""
    if maps.ndim not in (3, 4):
        raise ShapeError(f"maps must have shape (C, H, W), or (N, C, H, W) for a batch, got {tuple(maps.shape)}.")


def _readable(maps: torch.Tensor) -> tuple[backends.Backend, torch.Tensor]:
    """Check maps; return the backend for them, and the maps in a dtype that it reads."""
    _check_shape(maps)
    check_values(maps)
    backend = backends.choose("auto", str(maps.device))
    return backend, backend.readable(maps.detach())


def _grid_of(
    maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, tile_h: int, tile_w: int,
    rows: int, cols: int, gap: int, margin: int,
) -> Grid:  # fmt: skip
    """Check shapes, which may be symbolic, and plan the grid of one sample."""
    _check_shape(maps)
    for name, end in (("vmin", vmin), ("vmax", vmax)):
        if end.shape != maps.shape[:-2] or end.device != maps.device:
            raise ShapeError(
                f"{name} must have shape {tuple(maps.shape[:-2])} on {maps.device}, one entry for each channel, "
                f"got {tuple(end.shape)} on {end.device}."
            )
    return plan_grid(maps.shape[-3], tile_h, tile_w, grid=(rows, cols), gap=gap, margin=margin)
