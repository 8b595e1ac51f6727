"""What kernels are asked to draw, in every test of a backend: cases, and any job that hypothesis finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.cases import CASES, INF, LARGEST, NAN, SMALLEST
from support.native_module import is_built

from cnnviz_fast.channels.ranges import drawing_range
from cnnviz_fast.channels.values import as_maps, squash
from cnnviz_fast.geometry import Grid, Positions, plan_grid, sampling_positions
from cnnviz_fast.kernels import Paint, numba_cpu, reference, torch_ops
from cnnviz_fast.kernels.backends import BACKENDS
from cnnviz_fast.options.drawing import BY_SIZE_ALONE, NORMALIZATIONS, UPSAMPLINGS, RenderOptions

MODULES = {"reference": reference, "torch": torch_ops, "numba": numba_cpu}
if is_built():
    MODULES["native"] = BACKENDS["native"].kernels

EXACT = [name for name in MODULES if name in ("numba", "native")]
"""Those that keep every rounding of the reference."""


ALL_LEVELS = Paint(levels=256, flat=0.0, background=0, bad=255)


WITH_ENTRIES = Paint(levels=254, flat=0.0, background=254, bad=255)


SAMPLINGS = [(align, upsampling) for upsampling in UPSAMPLINGS for align in BY_SIZE_ALONE]


Plane = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Job:
    """What every backend's kernels get, with the arrays as CPU tensors."""

    maps: torch.Tensor
    vmin: torch.Tensor
    vmax: torch.Tensor
    rows: Positions
    cols: Positions
    grid: Grid
    paint: Paint


def make_job(
    maps: torch.Tensor,
    grid: Grid,
    align: str = "center",
    upsampling: str = "bilinear",
    paint: Paint = ALL_LEVELS,
    **options: Any,
) -> Job:
    """Build a job from maps, (C, H, W) float32, with the ranges that the options say."""
    vmin, vmax = map(torch.from_numpy, reference.channel_range(maps.contiguous().numpy()))
    if options.get("normalize") == "sigmoid":
        maps = squash(maps)
    if options.get("normalize") == "symmetric":
        paint = paint._replace(flat=0.5)
    vmin, vmax = drawing_range(maps, vmin, vmax, RenderOptions(**options))
    rows = sampling_positions(maps.shape[1], grid.tile_h, align, upsampling)
    cols = sampling_positions(maps.shape[2], grid.tile_w, align, upsampling)
    return Job(maps, vmin, vmax, rows, cols, grid, paint)


def draw(backend: str, job: Job, strip_rows: int | None = None) -> Plane:
    """Draw a job's sheet by strips of some height; every strip lies in memory of its own, full of what was before."""
    to_array = BACKENDS[backend].to_array
    arrays = [to_array(tensor) for tensor in (job.maps, job.vmin, job.vmax)]
    before = [tensor.clone() for tensor in (job.maps, job.vmin, job.vmax)]
    bands = []
    for strip in job.grid.strips(strip_rows or job.grid.height):
        memory = np.full((strip.stop - strip.start + 2, job.grid.width), 0xA5, dtype=np.uint8)
        MODULES[backend].render_strip(*arrays, job.rows, job.cols, job.grid, job.paint, strip, memory[1:-1])
        assert (memory[[0, -1]] == 0xA5).all(), "written beside `out`"
        bands.append(memory[1:-1])
    for tensor, copy in zip((job.maps, job.vmin, job.vmax), before, strict=True):
        assert torch.equal(tensor.nan_to_num(7), copy.nan_to_num(7)), "input modified"
    return np.concatenate(bands)


@cache
def case_job(name: str, align: str, upsampling: str) -> Job:
    case = CASES[name]
    maps = as_maps(case.maps)
    grid = plan_grid(len(maps), *case.tile, grid=case.grid, gap=case.gap, margin=case.margin, room=case.room)
    return make_job(maps, grid, align, upsampling, WITH_ENTRIES)


@cache
def case_plane(name: str, align: str, upsampling: str) -> Plane:
    return draw("reference", case_job(name, align, upsampling))


# The reference takes a second for a huge plane: one of them has to do.
EVERY_CASE = [(name, *sampling) for name in CASES for sampling in (SAMPLINGS if name != "huge" else SAMPLINGS[:1])]

IN_TURNS = [
    (name, *way)
    for at, name in enumerate(CASES)
    for way in (SAMPLINGS[at % 3], SAMPLINGS[3 + at % 3])
    if name != "huge" or way == SAMPLINGS[0]
]
"""Every case, by each way of upsampling with one way to align in turn."""


STRIP_CASES = [
    "gap_and_margin",
    "last_rows_empty",
    "mixed",
    "one_column_of_tiles",
    "tile_smaller",
    "all_that_is_written",
]


VALUES = st.one_of(
    st.floats(width=32),
    st.integers(-3, 3).map(float),
    st.sampled_from([NAN, INF, -INF, LARGEST, -LARGEST, SMALLEST, -0.0, 0.5]),
)


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int16, torch.uint8, torch.bool]


@st.composite
def any_maps(draw_value: Any) -> torch.Tensor:
    """Any maps that `as_maps` takes, widened by it."""
    shape = draw_value(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)))
    values = torch.from_numpy(draw_value(hnp.arrays(np.float32, shape, elements=VALUES)))
    dtype = draw_value(st.sampled_from(DTYPES))
    if not dtype.is_floating_point:
        values = values.nan_to_num(0, 1, 0).clamp(0, 200)
    return as_maps(values.to(dtype))


@st.composite
def any_ranges(draw_value: Any) -> dict[str, Any]:
    """Any way to normalise."""
    normalize = draw_value(st.sampled_from(NORMALIZATIONS))
    if normalize == "fixed":
        ends = draw_value(st.sampled_from([(0, 1), (-3e38, 3e38), (-2, 1e-3), (0, SMALLEST)]))
        return {"normalize": normalize, "vmin": ends[0], "vmax": ends[1]}
    if normalize == "percentile":
        return {"normalize": normalize, "percentile": draw_value(st.sampled_from([(1, 99), (0, 100), (30, 60)]))}
    return {"normalize": normalize}


@st.composite
def any_jobs(draw_value: Any) -> Job:
    """Any maps on any layout in any palette."""
    maps = draw_value(any_maps())
    cols = draw_value(st.integers(1, len(maps) + 1))
    grid = Grid(
        count=len(maps),
        rows=-(-len(maps) // cols) + draw_value(st.integers(0, 1)),
        cols=cols,
        tile_h=draw_value(st.integers(1, 12)),
        tile_w=draw_value(st.integers(1, 12)),
        gap=draw_value(st.integers(0, 3)),
        margin=draw_value(st.integers(0, 3)),
        label_h=draw_value(st.integers(0, 3)),
        label_w=draw_value(st.integers(0, 15)),
        head=draw_value(st.integers(0, 3)),
        foot=draw_value(st.integers(0, 3)),
        least_w=draw_value(st.integers(0, 40)),
    )
    levels = draw_value(st.sampled_from([256, 255, 254, 2]))
    background, bad = draw_value(st.sampled_from([(254, 255), (0, 255), (255, 0)]))
    return make_job(
        maps,
        grid,
        draw_value(st.sampled_from(BY_SIZE_ALONE)),
        draw_value(st.sampled_from(UPSAMPLINGS)),
        Paint(levels, 0.0, background, bad),
        **draw_value(any_ranges()),
    )
