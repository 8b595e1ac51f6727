"""Kernels, Triton: the programs that run on the GPU. `triton_gpu` cuts the work into them and launches them.

Every program that draws has a block of columns of the sheet, whatever tiles they belong to, and some adjacent rows
within one row of cells. So small tiles waste nothing, and gaps are written in the same pass. A row of the maps is
normalised and enlarged along x once; for each row drawn it is only blended with the next one. Adjacent columns form
groups, which share what they read of the maps. Several sheets with the same grid are drawn in one launch, each by its
own programs. benchmarks/INSTRUCTIONS.md counts what all this takes on a GPU.

Roundings are those of the reference: divisions are `div_rn`, and no multiplication is fused with an addition (a flag of
the launch, see `triton_gpu`). Offsets into memory are int64.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl


class Cut(NamedTuple):
    """How a strip of a sheet is cut into programs. Plain integers; lengths are in px.

    count, cols, tile_h, tile_w, step_y, step_x, top, left: as in the Grid.
    start, stop: rows of the sheet that make the strip.
    first_cell: row of cells in which `start` lies; negative above the grid.
    cells: number of rows of cells that the strip touches.
    rows: most rows that a program draws.
    segments: number of programs below each other in a row of cells.
    blocks: number of programs beside each other.
    samples: number of sheets to draw.
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
    samples: int

    @property
    def grid(self) -> tuple[int]:
        """Return the number of programs, on one axis: the others hold no more than 65,535."""
        return (self.samples * self.cells * self.segments * self.blocks,)


@triton.jit
def _rows_of(cut):
    """Return the sample and the row of cells of this program, the row of the strip where they start, and what to draw.

    What to draw is the first row, counted from the top of the row of cells, and the row after the last.
    """
    band = tl.program_id(0) // cut.blocks
    sample = band // (cut.cells * cut.segments)
    band -= sample * (cut.cells * cut.segments)
    cell = cut.first_cell + band // cut.segments
    origin = cut.top + cell.to(tl.int64) * cut.step_y
    first = (band % cut.segments) * cut.rows
    last = tl.minimum(first + cut.rows, cut.step_y)
    first = tl.maximum(first, cut.start - origin).to(tl.int32)
    last = tl.minimum(last, cut.stop - origin).to(tl.int32)
    return sample, cell, origin - cut.start, first, last


@triton.jit
def _columns_of(cut, cell, x):
    """Return the channel and the column of its tile for columns of the sheet, and whether they belong to a tile."""
    x = x - cut.left
    col = x // cut.step_x
    x_in_tile = x - col * cut.step_x
    channel = cell * cut.cols + col
    inside = (x >= 0) & (x_in_tile < cut.tile_w) & (col < cut.cols) & (channel >= 0) & (channel < cut.count)
    return channel, x_in_tile, inside


@triton.jit
def _scale_of(low, high, flat):
    """Return half, offset and span of a range: (value * half - offset) / span lies in [0, 1]. See reference.normalize.

    For a flat channel it is `flat`, whatever the value.
    """
    half = tl.where(tl.abs(high - low) == float("inf"), 0.5, 1.0)
    offset, span, same = low * half, high * half - low * half, low == high
    return tl.where(same, 0.0, half), tl.where(same, -flat, offset), tl.where(same, 1.0, span)


@triton.jit
def _normalized(at, half, offset, span):
    """Load values and bring them into [0, 1]; NaN if they are not finite. See reference.normalize.

    They are clamped before the division, and to 2^-64 in place of 0: a dividend of 0, which half the values give after
    a ReLU, would take the division's subroutine for rare cases. Entries stay the same. The least share that is not
    entry 0 is near 0.5 / 255: 2^-64 beside such a one is lost in rounding, and beside smaller ones it is entry 0 still.
    """
    value = tl.load(at).to(tl.float32)
    share = tl.minimum(tl.div_rn(tl.maximum(value * half - offset, span * 2.0**-64), span), 1.0)
    return share + value * 0.0  # NaN for an infinity


@triton.jit
def _where(mask, chosen, other):
    """Return `chosen` where the mask is -1 and `other` where it is 0.

    By bits: conditions that are needed again and again would take more predicates than there are.
    """
    bits = other.to(tl.int32, bitcast=True)
    return (bits ^ ((bits ^ chosen.to(tl.int32, bitcast=True)) & mask)).to(tl.float32, bitcast=True)


@triton.jit
def _line(row, stride_w, map_width, half, offset, span, col, ahead, fraction, SOURCES: tl.constexpr):
    """Normalise a row of the maps and enlarge it along x.

    Each group of columns reads SOURCES values, from `col` on. A column lies between the one `ahead` of that and the
    next. A neighbour with weight 0 has no effect, as in reference.blend.
    """
    at = row + col.to(tl.int64) * stride_w
    before = _normalized(at, half, offset, span)
    at += tl.where(col + 1 < map_width, stride_w, 0)
    right = _normalized(at, half, offset, span)
    after = right
    for k in tl.static_range(2, SOURCES):
        left = right
        at += tl.where(col + k < map_width, stride_w, 0)
        right = _normalized(at, half, offset, span)
        reached = (k - 2 - ahead) >> 31
        before, after = _where(reached, left, before), _where(reached, right, after)
    after = _where((fraction.to(tl.int32, bitcast=True) - 1) >> 31, before, after)
    return before + fraction * (after - before)


@triton.jit
def _course(before, after, fraction, odd):
    """Return the value of a column at a row of the maps, and its step to the next row: `odd` and 0 without a value.

    A neighbour with weight 0 has no effect, as in reference.blend. The result holds for all rows of the sheet between
    the two, each of which then takes a multiplication and an addition.
    """
    step = tl.where(fraction == 0, 0.0, after - before)
    known = (before == before) & (step == step)
    return tl.where(known, before, odd), tl.where(known, step, 0.0)


@triton.jit(
    do_not_specialize=[
        "stride_n", "height", "map_width", "cut", "steps", "flat", "bad", "background", "blank", "sheet_rows",
    ]
)  # fmt: skip
def render_block(
    maps, stride_n, stride_c, stride_h, stride_w, height, map_width,
    vmin, vmax, row_index, row_fraction, row_until, col_index, col_fraction,
    cut, steps, flat, bad, background, blank, out, sheet_rows, width,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, SOURCES: tl.constexpr,
):  # fmt: skip
    """Draw BLOCK columns of some rows of a strip of a sheet, in groups of GROUP columns.

    A group belongs to one tile, or to none. Tensors are (GROUP, groups), or (1, groups) for what its columns share; the
    other way round Triton 3.8 passes rows of groups of 1 through shared memory.

    `row_until` is, for each row of a tile, the first below it that lies between other rows of the maps. `bad` and
    `background` are the values that become those entries; `blank` is the entry of the background itself. In `out` the
    sheets lie `sheet_rows` rows apart; `width` is in groups.
    """
    sample, cell, origin, first, last = _rows_of(cut)
    group = (tl.program_id(0) % cut.blocks) * (BLOCK // GROUP) + tl.arange(0, BLOCK // GROUP)[None, :]
    drawn = group < width
    channel, x, inside = _columns_of(cut, cell, group * GROUP)
    inside = inside & drawn
    # Outside tiles the first values of the maps are read, with NaN as the fraction.
    channel, x = tl.where(inside, channel, 0), tl.multiple_of(tl.where(inside, x, 0), (GROUP, GROUP))
    ends = sample.to(tl.int64) * cut.count + channel
    half, offset, span = _scale_of(tl.load(vmin + ends), tl.load(vmax + ends), flat)
    maps += sample.to(tl.int64) * stride_n + channel.to(tl.int64) * stride_c
    col = tl.load(col_index + x)
    nth = tl.arange(0, GROUP)[:, None]
    ahead = tl.load(col_index + x + nth) - col
    x_fraction = tl.load(col_fraction + x + nth, mask=inside, other=float("nan"))
    odd = tl.where(inside, bad, background)
    pitch = width.to(tl.int64) * GROUP
    place, lane = out + (sample.to(tl.int64) * sheet_rows + origin + first) * pitch, group * GROUP + nth

    held = -2  # the row of the maps in `after`; that in `before` is the one above
    before = tl.zeros([GROUP, BLOCK // GROUP], tl.float32)
    after = tl.zeros([GROUP, BLOCK // GROUP], tl.float32)
    y, end = first, tl.minimum(last, cut.tile_h)
    while y < end:
        row, fraction = tl.load(row_index + y), tl.load(row_fraction + y)
        held = tl.maximum(held, row - 1)
        while held <= row:
            held += 1
            before = after
            after = _line(
                maps + tl.minimum(held, height - 1).to(tl.int64) * stride_h, stride_w, map_width,
                half, offset, span, col, ahead, x_fraction, SOURCES,
            )  # fmt: skip
        base, step = _course(before, after, fraction, odd)
        until = tl.minimum(tl.load(row_until + y), end)
        for drawn_y in tl.range(y, until, loop_unroll_factor=2):
            entry = (base + tl.load(row_fraction + drawn_y) * step) * steps + 0.5
            # It is never negative, so the conversion rounds down.
            tl.store(place + lane, entry.to(tl.int32).to(tl.uint8), mask=drawn)
            place += pitch
        y = until
    entry = tl.full([GROUP, BLOCK // GROUP], blank, tl.int32).to(tl.uint8)
    for _ in range(tl.maximum(first, cut.tile_h), last):
        tl.store(place + lane, entry, mask=drawn)
        place += pitch


@triton.jit(do_not_specialize=["cut"])
def blend_block(index, colors, weights, photo, cut, out, width, BLOCK: tl.constexpr):
    """Colour BLOCK components, three a pixel, of some rows of a strip. See reference.over."""
    _, cell, origin, first, last = _rows_of(cut)
    start = (tl.program_id(0) % cut.blocks).to(tl.int64) * BLOCK
    lane = start + tl.arange(0, BLOCK)
    pixel, k = lane // 3, lane % 3
    drawn = pixel < width
    _, x, inside = _columns_of(cut, cell, pixel)
    inside = inside & drawn
    photo_row = tl.cast(cut.tile_w, tl.int64) * 3
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
def _share_of(maps, stride_n, stride_c, per_sample, count, size, span, parts, CHANNELS: tl.constexpr):
    """Return the channels that this program reads, where they begin, whether they exist, and its part of each."""
    part = tl.program_id(0) % parts
    channel = (tl.program_id(0) // parts) * CHANNELS + tl.arange(0, CHANNELS)
    sample = channel // per_sample
    begin = maps + sample.to(tl.int64) * stride_n + (channel - sample * per_sample).to(tl.int64) * stride_c
    first = part.to(tl.int64) * span
    return channel, begin, channel < count, part, first, tl.minimum(first + span, size)


@triton.jit
def _values(begin, exists, stride_i, first, size, VALUES: tl.constexpr):
    """Load (CHANNELS, VALUES) float32 of channels; return also which of the values exist."""
    i = first + tl.arange(0, VALUES)
    there = exists[:, None] & (i < size)[None, :]
    return tl.load(begin[:, None] + i[None, :] * stride_i, mask=there, other=float("nan")).to(tl.float32), there


@triton.jit(do_not_specialize=["per_sample", "count", "size", "span", "parts"])
def range_block(
    maps, stride_n, stride_c, stride_i, per_sample, count, size, span, parts, vmin, vmax,
    CHANNELS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Find the least and the greatest finite value of a part of CHANNELS channels; NaN if there is none."""
    channel, begin, exists, part, first, last = _share_of(
        maps, stride_n, stride_c, per_sample, count, size, span, parts, CHANNELS
    )
    least = tl.full([CHANNELS, VALUES], float("inf"), tl.float32)
    greatest = tl.full([CHANNELS, VALUES], float("-inf"), tl.float32)
    for i in range(first, last, VALUES):
        value, _ = _values(begin, exists, stride_i, i, last, VALUES)
        finite = tl.abs(value) < float("inf")
        least = tl.minimum(least, tl.where(finite, value, float("inf")))
        greatest = tl.maximum(greatest, tl.where(finite, value, float("-inf")))
    low, high = tl.min(least, axis=1), tl.max(greatest, axis=1)
    place = channel.to(tl.int64) * parts + part
    tl.store(vmin + place, tl.where(low <= high, low, float("nan")), mask=exists)
    tl.store(vmax + place, tl.where(low <= high, high, float("nan")), mask=exists)


@triton.jit(do_not_specialize=["per_sample", "count", "size", "span", "parts"])
def sums_block(
    maps, stride_n, stride_c, stride_i, per_sample, count, size, span, parts, total, zeros, nan, inf,
    CHANNELS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Add up the finite values of a part of CHANNELS channels, and count its zeros, NaN and infinities."""
    channel, begin, exists, part, first, last = _share_of(
        maps, stride_n, stride_c, per_sample, count, size, span, parts, CHANNELS
    )
    sums = tl.zeros([CHANNELS, VALUES], tl.float64)
    zero_count = tl.zeros([CHANNELS, VALUES], tl.int32)
    nan_count = tl.zeros([CHANNELS, VALUES], tl.int32)
    inf_count = tl.zeros([CHANNELS, VALUES], tl.int32)
    for i in range(first, last, VALUES):
        value, there = _values(begin, exists, stride_i, i, last, VALUES)
        sums += tl.where(tl.abs(value) < float("inf"), value, 0.0).to(tl.float64)
        zero_count += (value == 0).to(tl.int32)
        nan_count += ((value != value) & there).to(tl.int32)
        inf_count += (tl.abs(value) == float("inf")).to(tl.int32)
    place = channel.to(tl.int64) * parts + part
    tl.store(total + place, tl.sum(sums, axis=1), mask=exists)
    tl.store(zeros + place, tl.sum(zero_count, axis=1), mask=exists)
    tl.store(nan + place, tl.sum(nan_count, axis=1), mask=exists)
    tl.store(inf + place, tl.sum(inf_count, axis=1), mask=exists)


@triton.jit(do_not_specialize=["per_sample", "count", "size", "span", "parts"])
def squares_block(
    maps, stride_n, stride_c, stride_i, per_sample, count, size, span, parts, mean, squares,
    CHANNELS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Add up the squared distances of the finite values of a part of CHANNELS channels from their means."""
    channel, begin, exists, part, first, last = _share_of(
        maps, stride_n, stride_c, per_sample, count, size, span, parts, CHANNELS
    )
    centre = tl.load(mean + channel, mask=exists, other=0)[:, None]
    sums = tl.zeros([CHANNELS, VALUES], tl.float64)
    for i in range(first, last, VALUES):
        value, _ = _values(begin, exists, stride_i, i, last, VALUES)
        distance = value.to(tl.float64) - centre
        sums += tl.where(tl.abs(value) < float("inf"), distance * distance, 0.0)
    tl.store(squares + channel.to(tl.int64) * parts + part, tl.sum(sums, axis=1), mask=exists)
