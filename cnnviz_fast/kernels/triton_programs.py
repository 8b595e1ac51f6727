"""Kernels, Triton: the programs that run on the GPU. `triton_gpu` cuts the work into them and launches them.

Every program that draws owns a block of columns of the sheet, whatever tiles they belong to, and some rows below each
other within one row of cells: nothing is wasted on small tiles, and gaps are written in the same pass. A row of the
maps is normalised and enlarged along x once, and only blended with the next one for each row drawn.

Roundings are those of the reference: divisions are `div_rn`, and no multiplication is fused with an addition (which is
up to the launch, see `triton_gpu`). Offsets into memory are int64.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl


class Cut(NamedTuple):
    """How a strip of a sheet is cut into programs. Plain integers, in px where they are lengths.

    count, cols, tile_h, tile_w, step_y, step_x, top, left: of the GridLayout.
    start, stop: rows of the sheet that make the strip.
    first_cell: row of cells in which `start` lies; below 0 above the grid.
    cells: rows of cells that the strip touches.
    rows: most rows that a program draws.
    segments: programs below each other in a row of cells.
    blocks: programs beside each other.
    """

    count: int
    cols: int
    tile_h: int
    tile_w: int
    step_y: int
    step_x: int
    top: int
    left: int
    start: int
    stop: int
    first_cell: int
    cells: int
    rows: int
    segments: int
    blocks: int

    @property
    def grid(self) -> tuple[int]:
        """Number of programs. One axis: the others hold no more than 65,535."""
        return (self.cells * self.segments * self.blocks,)


@triton.jit
def _rows_of(cut):
    """Return this program's row of cells, the row of the strip in which that starts, and which of its rows to draw."""
    band = tl.program_id(0) // cut.blocks
    cell = cut.first_cell + band // cut.segments
    origin = cut.top + cell.to(tl.int64) * cut.step_y
    first = (band % cut.segments) * cut.rows
    last = tl.minimum(first + cut.rows, cut.step_y)
    first = tl.maximum(first, cut.start - origin).to(tl.int32)
    last = tl.minimum(last, cut.stop - origin).to(tl.int32)
    return cell, origin - cut.start, first, last


@triton.jit
def _columns_of(cut, cell, x):
    """Return the channel and the column of its tile that columns of the sheet show, and whether they show any."""
    x = x - cut.left
    col = x // cut.step_x
    x_in_tile = x - col * cut.step_x
    channel = cell * cut.cols + col
    inside = (x >= 0) & (x_in_tile < cut.tile_w) & (col < cut.cols) & (channel >= 0) & (channel < cut.count)
    return channel, x_in_tile, inside


@triton.jit
def _normalized(at, inside, low, high, half, flat):
    """Load values and bring them into [0, 1]; NaN where they are not finite, and outside. See reference.normalize."""
    value = tl.load(at, mask=inside, other=float("nan")).to(tl.float32)
    share = tl.div_rn(value * half - low * half, high * half - low * half)
    share = tl.minimum(tl.maximum(share, 0.0), 1.0)
    share = tl.where(low == high, flat, share)
    return tl.where(tl.abs(value) < float("inf"), share, float("nan"))


@triton.jit
def _blended(before, step, fraction):
    """Interpolate towards before + step; a neighbour whose weight is 0 takes no part. See reference.blend."""
    return tl.where(fraction == 0, before, before + fraction * step)


@triton.jit
def _line(
    maps, stride_c, stride_h, stride_w, map_width,
    vmin, vmax, col_index, col_fraction, channel, x, inside, row, flat,
):  # fmt: skip
    """Enlarge a row of the maps along x.

    What a column needs is read again for each of them: kept meanwhile, it would fill the registers.
    """
    low, high = tl.load(vmin + channel, mask=inside, other=0), tl.load(vmax + channel, mask=inside, other=1)
    half = tl.where(tl.abs(high - low) == float("inf"), 0.5, 1.0)
    col = tl.load(col_index + x, mask=inside, other=0)
    fraction = tl.load(col_fraction + x, mask=inside, other=0)
    at = maps + channel.to(tl.int64) * stride_c + col.to(tl.int64) * stride_w + row.to(tl.int64) * stride_h
    left = _normalized(at, inside, low, high, half, flat)
    right = _normalized(at + tl.where(col + 1 < map_width, stride_w, 0), inside, low, high, half, flat)
    return _blended(left, right - left, fraction)


@triton.jit(do_not_specialize=["height", "map_width", "cut", "steps", "flat", "background", "bad"])
def render_block(
    maps, stride_c, stride_h, stride_w, height, map_width,
    vmin, vmax, row_index, row_fraction, col_index, col_fraction,
    cut, steps, flat, background, bad, out, width, BLOCK: tl.constexpr,
):  # fmt: skip
    """Draw BLOCK columns of some rows of a strip."""
    cell, origin, first, last = _rows_of(cut)
    start = (tl.program_id(0) % cut.blocks) * BLOCK
    lane = tl.arange(0, BLOCK)
    drawn = lane < width - start
    channel, x, inside = _columns_of(cut, cell, start + lane)
    inside = inside & drawn
    odd = tl.where(inside, bad, background).to(tl.float32)  # shown where there is no value
    place = out + start + lane

    held = -2  # neither the first row nor the one before it
    before = tl.zeros([BLOCK], tl.float32)
    after = tl.zeros([BLOCK], tl.float32)
    for y in range(first, tl.minimum(last, cut.tile_h)):
        row, fraction = tl.load(row_index + y), tl.load(row_fraction + y)
        if row != held:
            if row == held + 1:
                before = after
            else:
                before = _line(
                    maps, stride_c, stride_h, stride_w, map_width,
                    vmin, vmax, col_index, col_fraction, channel, x, inside, row, flat,
                )  # fmt: skip
            after = _line(
                maps, stride_c, stride_h, stride_w, map_width,
                vmin, vmax, col_index, col_fraction, channel, x, inside, tl.minimum(row + 1, height - 1), flat,
            )  # fmt: skip
            held = row
        value = _blended(before, after - before, fraction)
        entry = tl.where(value == value, value * steps + 0.5, odd)  # not below 0, so that conversion is floor
        tl.store(place + (origin + y) * width, entry.to(tl.int32).to(tl.uint8), mask=drawn)
    blank = tl.full([BLOCK], background, tl.int32).to(tl.uint8)
    for y in range(tl.maximum(first, cut.tile_h), last):
        tl.store(place + (origin + y) * width, blank, mask=drawn)


@triton.jit(do_not_specialize=["cut"])
def blend_block(index, colors, weights, photo, cut, out, width, BLOCK: tl.constexpr):
    """Colour BLOCK components, three a pixel, of some rows of a strip. See reference.over."""
    cell, origin, first, last = _rows_of(cut)
    start = (tl.program_id(0) % cut.blocks).to(tl.int64) * BLOCK
    lane = start + tl.arange(0, BLOCK)
    pixel, k = lane // 3, lane % 3
    drawn = pixel < width
    _, x, inside = _columns_of(cut, cell, pixel)
    inside = inside & drawn
    photo_row = cut.tile_w.to(tl.int64) * 3
    for y in range(first, last):
        row = origin + y
        entry = tl.load(index + row * width + pixel, mask=drawn, other=0).to(tl.int32)
        color = tl.load(colors + entry * 3 + k, mask=drawn, other=0).to(tl.int32)
        weight = tl.load(weights + entry, mask=drawn, other=0).to(tl.int32)
        over = inside & (x < tl.where(y < cut.tile_h, cut.tile_w, 0))
        under = tl.load(photo + y * photo_row + x * 3 + k, mask=over, other=0).to(tl.int32)
        blended = (weight * color + (256 - weight) * under + 128) >> 8
        tl.store(out + row * width * 3 + lane, tl.where(over, blended, color).to(tl.uint8), mask=drawn)


@triton.jit
def _share_of(count, size, span, parts, CHANNELS: tl.constexpr):
    """Return the channels that this program reads, whether they exist, and its part of their values."""
    part = tl.program_id(0) % parts
    channel = (tl.program_id(0) // parts) * CHANNELS + tl.arange(0, CHANNELS)
    first = part.to(tl.int64) * span
    return channel, channel < count, part, first, tl.minimum(first + span, size)


@triton.jit
def _values(maps, channel, exists, stride_c, stride_i, first, size, VALUES: tl.constexpr):
    """Load (CHANNELS, VALUES) float32 of channels; also which of them exist."""
    i = first + tl.arange(0, VALUES)
    there = exists[:, None] & (i < size)[None, :]
    at = maps + channel.to(tl.int64)[:, None] * stride_c + i[None, :] * stride_i
    return tl.load(at, mask=there, other=float("nan")).to(tl.float32), there


@triton.jit(do_not_specialize=["count", "size", "span", "parts"])
def range_block(
    maps, stride_c, stride_i, count, size, span, parts, vmin, vmax, CHANNELS: tl.constexpr, VALUES: tl.constexpr
):
    """Find the least and the greatest finite value of a part of CHANNELS channels; NaN where there is none."""
    channel, exists, part, first, last = _share_of(count, size, span, parts, CHANNELS)
    least = tl.full([CHANNELS, VALUES], float("inf"), tl.float32)
    greatest = tl.full([CHANNELS, VALUES], float("-inf"), tl.float32)
    for i in range(first, last, VALUES):
        value, _ = _values(maps, channel, exists, stride_c, stride_i, i, last, VALUES)
        finite = tl.abs(value) < float("inf")
        least = tl.minimum(least, tl.where(finite, value, float("inf")))
        greatest = tl.maximum(greatest, tl.where(finite, value, float("-inf")))
    low, high = tl.min(least, axis=1), tl.max(greatest, axis=1)
    place = channel.to(tl.int64) * parts + part
    tl.store(vmin + place, tl.where(low <= high, low, float("nan")), mask=exists)
    tl.store(vmax + place, tl.where(low <= high, high, float("nan")), mask=exists)


@triton.jit(do_not_specialize=["count", "size", "span", "parts"])
def sums_block(
    maps, stride_c, stride_i, count, size, span, parts, total, zeros, nan, inf,
    CHANNELS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Add up the finite values of a part of CHANNELS channels, and count its zeros, NaN and infinities."""
    channel, exists, part, first, last = _share_of(count, size, span, parts, CHANNELS)
    sums = tl.zeros([CHANNELS, VALUES], tl.float64)
    zero_count = tl.zeros([CHANNELS, VALUES], tl.int32)
    nan_count = tl.zeros([CHANNELS, VALUES], tl.int32)
    inf_count = tl.zeros([CHANNELS, VALUES], tl.int32)
    for i in range(first, last, VALUES):
        value, there = _values(maps, channel, exists, stride_c, stride_i, i, last, VALUES)
        sums += tl.where(tl.abs(value) < float("inf"), value, 0.0).to(tl.float64)
        zero_count += (value == 0).to(tl.int32)
        nan_count += ((value != value) & there).to(tl.int32)
        inf_count += (tl.abs(value) == float("inf")).to(tl.int32)
    place = channel.to(tl.int64) * parts + part
    tl.store(total + place, tl.sum(sums, axis=1), mask=exists)
    tl.store(zeros + place, tl.sum(zero_count, axis=1), mask=exists)
    tl.store(nan + place, tl.sum(nan_count, axis=1), mask=exists)
    tl.store(inf + place, tl.sum(inf_count, axis=1), mask=exists)


@triton.jit(do_not_specialize=["count", "size", "span", "parts"])
def squares_block(
    maps, stride_c, stride_i, count, size, span, parts, mean, squares, CHANNELS: tl.constexpr, VALUES: tl.constexpr
):
    """Add up the squared distances of the finite values of a part of CHANNELS channels from their means."""
    channel, exists, part, first, last = _share_of(count, size, span, parts, CHANNELS)
    centre = tl.load(mean + channel, mask=exists, other=0)[:, None]
    sums = tl.zeros([CHANNELS, VALUES], tl.float64)
    for i in range(first, last, VALUES):
        value, _ = _values(maps, channel, exists, stride_c, stride_i, i, last, VALUES)
        distance = value.to(tl.float64) - centre
        sums += tl.where(tl.abs(value) < float("inf"), distance * distance, 0.0)
    tl.store(squares + channel.to(tl.int64) * parts + part, tl.sum(sums, axis=1), mask=exists)
