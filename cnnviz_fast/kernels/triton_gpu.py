"""Kernels, Triton: the same result as `reference`, each in one pass over a GPU's memory, on the current stream.

This is the host's side: it cuts the work and launches the programs of `triton_programs`. There are few configurations
and no tuning at run time, so programs are compiled once and then come from Triton's cache on disk.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..geometry import Grid, Positions, Strip, sampling_positions
from ..kernels import Paint
from . import triton_programs as programs

BLOCK_PX = 256
"""Columns of a program that draws, which is one warp: each lane stores 8 px at once; all share the cost of a row."""

GROUPS = (8, 4), (4, 5)
"""How many columns may form a group, and of how many columns of the map at most. In instructions for sm_90, groups of
8 over 6 columns, as doubling needs, cost as much as groups of 4 over 4, and take more registers."""

LEAST_ROWS, MOST_ROWS = 8, 128
"""Rows of a program that draws. benchmarks/INSTRUCTIONS.md has what a row costs, and a row of the maps."""

PROGRAMS = 2048
"""Programs to reach: smaller sheets are cut into fewer rows for it. A program takes 88 to 128 registers on sm_90 where
columns form groups, so the 132 multiprocessors of an H200 hold at least 16 each, 2112 at once."""

CHANNELS, VALUES = 8, 64
"""What a program that measures reads at once: of contiguous maps 256 bytes for each channel, of channels-last maps 32
bytes for each value, the least that memory delivers. Twice as many values spill registers on sm_80."""

SPAN = 256 * VALUES
"""Values of a channel that one program measures. Larger channels are measured in parts, which are then combined."""

FLAGS: dict[str, Any] = {"enable_fp_fusion": False}
"""Every operation rounds separately, as in the reference: a fused multiply-add would round once instead of twice."""


def channel_range(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the least and the greatest finite value of each channel. Same as `reference.channel_range`, on CUDA.

    `maps` may be float16 or bfloat16 too and have any strides. It may be (N, C, H, W), the maps of several samples; the
    results are then (N, C).
    """
    ends = torch.float32, torch.float32
    vmin, vmax = _measure(programs.range_block, maps.flatten(-2), ends)
    while vmin.shape[1] > 1:
        vmin, vmax = _measure(programs.range_block, vmin, ends)[0], _measure(programs.range_block, vmax, ends)[1]
    return vmin.view(maps.shape[:-2]), vmax.view(maps.shape[:-2])


def channel_moments(
    maps: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Measure what else a channel holds. Same as `reference.channel_moments`, on CUDA.

    Sums are taken in another order. `maps` may be float16 or bfloat16 too and have any strides.
    """
    flat = maps.flatten(1)
    found = _measure(programs.sums_block, flat, (torch.float64, torch.int32, torch.int32, torch.int32))
    total, zeros, nan, inf = (parts.sum(dim=1) for parts in found)
    count = flat.shape[1] - nan - inf
    mean = total / count
    (squares,) = _measure(programs.squares_block, flat, (torch.float64,), mean)
    return mean, (squares.sum(dim=1) / count).sqrt(), zeros.double() / flat.shape[1], nan, inf


def render_strip(
    maps: torch.Tensor,
    vmin: torch.Tensor,
    vmax: torch.Tensor,
    rows: Positions,
    cols: Positions,
    grid: Grid,
    paint: Paint,
    strip: Strip,
    out: Any,
) -> None:
    """Draw a band of rows of a sheet, or of N sheets. Same as `reference.render_strip` for each of them, on CUDA.

    `maps` may be float16 or bfloat16 too and have any strides. For N sheets `maps` is (N, C, H, W), the ranges are
    (N, C) and `out` is (N, stop - start, width): the rows of each sample C-contiguous, and samples any number of rows
    apart. `out` may be a numpy array or a tensor. A tensor on the device of `maps` is written in place, without waiting
    for it.
    """
    target = torch.as_tensor(out)
    plane = _there(target, maps.device)
    positions = *_uploaded(rows, maps.device), *_uploaded(cols, maps.device)[:2]
    group, sources = _group(grid, cols)
    maps, sheets = (maps, plane) if maps.ndim == 4 else (maps[None], plane[None])
    cut, steps = _cut(grid, strip, grid.width, len(maps)), paint.levels - 1
    with torch.cuda.device(maps.get_device()):
        programs.render_block[cut.grid](
            maps, *maps.stride(), *maps.shape[2:], vmin.contiguous(), vmax.contiguous(), *positions,
            cut, float(steps), float(paint.flat), paint.bad / steps, paint.background / steps, paint.background,
            plane, sheets.stride(0) // grid.width, grid.width // group,
            BLOCK=BLOCK_PX, GROUP=group, SOURCES=sources, num_warps=1, **FLAGS,
        )  # fmt: skip
    if plane is not target:
        target.copy_(plane)


def blend_strip(
    index: Any,
    colors: Any,
    weights: Any,
    photo: Any,
    grid: Grid,
    strip: Strip,
    out: Any,
) -> None:
    """Colour a band of rows of a sheet, with a photo under every tile. Same as `reference.blend_strip`, on CUDA.

    Each array may be a numpy array or a tensor on any device.
    """
    drawn, target = torch.as_tensor(index), torch.as_tensor(out)
    home = drawn.device if drawn.is_cuda or not torch.cuda.is_available() else torch.device("cuda")
    rgb = _there(target, home)
    sources = (_sent(array, home).contiguous() for array in (drawn, colors, weights, photo))
    cut = _cut(grid, strip, 3 * grid.width)
    with torch.cuda.device(rgb.get_device()):
        programs.blend_block[cut.grid](*sources, cut, rgb, grid.width, BLOCK=BLOCK_PX, num_warps=1, **FLAGS)
    if rgb is not target:
        target.copy_(rgb)


def trial(device: str = "cuda") -> None:
    """Measure and draw a tiny sheet, and raise the error of Triton if it does not work.

    The first run on a machine compiles a launcher with the C compiler, and the programs with Triton's own tools: those
    for contiguous float32 maps, which most sheets need anyway.

    Args:
        device: the device to try.

    Raises:
        RuntimeError: the entries drawn are wrong.
    """
    maps = torch.tensor([[[-1.0, torch.nan, 2.0]]], device=device)
    grid, strip = Grid(1, 1, 1, 1, 16), Strip(0, 1)
    rows, cols = sampling_positions(1, 1, "left"), sampling_positions(3, 16, "left", "nearest")
    index = torch.empty(1, 16, dtype=torch.uint8, device=device)
    render_strip(maps, *channel_range(maps), rows, cols, grid, Paint(256, 0.0, 0, 7), strip, index)
    drawn, expected = index[0].tolist(), [0] * 6 + [7] * 5 + [255] * 5
    if drawn != expected:
        raise RuntimeError(f"a trial run drew the entries {drawn}, not {expected}")


def _measure(
    program: Any, flat: torch.Tensor, dtypes: tuple[torch.dtype, ...], *known: torch.Tensor
) -> list[torch.Tensor]:
    """Run a program that measures (C, values), or (N, C, values), in parts.

    It returns the results of all parts, (N * C, parts) of each of `dtypes`.
    """
    batch = flat if flat.ndim == 3 else flat[None]
    samples, per_sample, size = batch.shape
    count, parts = samples * per_sample, -(-size // SPAN)
    # The stride of a single sample does not matter: with 0 loads are as wide as the other strides allow.
    strides = (batch.stride(0) if samples > 1 else 0, *flat.stride()[-2:])
    found = [torch.empty(count, parts, dtype=dtype, device=flat.device) for dtype in dtypes]
    with torch.cuda.device(flat.get_device()):
        program[-(-count // CHANNELS) * parts,](
            flat, *strides, per_sample, count, size, SPAN, parts, *known, *found,
            CHANNELS=CHANNELS, VALUES=VALUES, num_warps=4, **FLAGS,
        )  # fmt: skip
    return found


def _cut(grid: Grid, strip: Strip, columns: int, samples: int = 1) -> programs.Cut:
    """Cut a strip of each sheet into programs; `columns` is the number of values in a row of what they write."""
    start, stop = strip
    blocks = -(-columns // BLOCK_PX)
    rows = min(MOST_ROWS, max(LEAST_ROWS, samples * (stop - start) * blocks // PROGRAMS))
    segments = -(-grid.step_y // rows)
    first, last = ((y - grid.top) // grid.step_y for y in (start, stop - 1))
    return programs.Cut(
        grid.count, grid.cols, grid.tile_h, grid.tile_w, grid.step_y, grid.step_x, grid.top, grid.left,
        start, stop, first, last - first + 1, -(-grid.step_y // segments), segments, blocks,
        samples,
    )  # fmt: skip


def _group(grid: Grid, cols: Positions) -> tuple[int, int]:
    """Return how many columns of a sheet form a group, and how many columns of a map it needs at most.

    A group lies within a tile, or beside all. The larger it is and the fewer columns of the map it needs, the less
    often a value of the maps is normalised; where neither helps, columns are drawn one by one.
    """
    for group, most in GROUPS:
        if not any(px % group for px in (grid.left, grid.step_x, grid.tile_w, grid.width)):
            index = cols.index.reshape(-1, group)
            needed = int((index[:, -1] - index[:, 0]).max()) + 2
            if needed <= most:
                return group, max(needed, 3)
    return 1, 2


def _uploaded(positions: Positions, device: torch.device) -> _Tables:
    """Return the tables of sampling positions on the device, sent there on first use.

    Each stream has its own copies, so nothing has to wait: its later work follows them anyway. Once the positions are
    gone, torch reuses their memory in the order of that stream. They cannot be sent while a CUDA graph is captured.
    """
    if device.type != "cuda":
        return _tables(positions, device)
    place = device, torch.cuda.current_stream(device).cuda_stream
    copies = _copies.setdefault(positions, {})
    if place not in copies:
        copies[place] = _tables(positions, device)
    return copies[place]


def _tables(positions: Positions, device: torch.device) -> _Tables:
    """Send index and fraction of each position, and the next position that lies between other samples."""
    course = 2 * positions.index + (positions.fraction != 0)
    until = np.searchsorted(course, course, side="right").astype(np.int32)
    return _sent(positions.index, device), _sent(positions.fraction, device), _sent(until, device)


_Tables = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_copies: WeakKeyDictionary[Positions, dict[tuple[torch.device, int], _Tables]] = WeakKeyDictionary()


def _there(target: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return `target` if it lies on the device; otherwise memory on the device, which the caller copies to `target`."""
    return target if target.device == device else torch.empty_like(target, device=device)


def _sent(array: Any, device: torch.device) -> torch.Tensor:
    """Return an array on the device, without waiting for it. Memory that is not pinned is copied before the return."""
    return torch.as_tensor(array).to(device, non_blocking=True)
