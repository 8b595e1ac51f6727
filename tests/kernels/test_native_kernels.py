"""The native kernels beyond what every backend has: dtypes and strides, every level of instructions, sizes refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.assertions import assert_equal_planes, assert_same_statistics
from support.cases import INF, NAN, SMALLEST, noise
from support.kernel_jobs import ALL_LEVELS, Job, Plane, any_jobs, draw, make_job
from support.native_module import load_native
from support.quick import in_turns, quick

from cnnviz_fast.geometry import Grid, Strip, plan_grid
from cnnviz_fast.kernels import reference
from cnnviz_fast.kernels.backends import BACKENDS

native = load_native()
LEVELS = native.vector_levels()
KERNELS = BACKENDS["native"].kernels


@pytest.fixture(autouse=True)
def level_as_before() -> Iterator[None]:
    before = native.vector_level()
    yield
    native.set_vector_level(before)


def odd_maps(channels: int = 19, height: int = 5, width: int = 37) -> torch.Tensor:
    """Return maps of which some channels are flat or hold NaN, infinities and subnormal numbers."""
    maps = noise(channels, height, width)
    maps[1] = 3
    maps[2, 0, 0], maps[3, 1, 1], maps[4] = NAN, INF, NAN
    maps[5] *= SMALLEST
    return maps


def odd_maps_of(dtype: torch.dtype) -> torch.Tensor:
    values = odd_maps() if dtype.is_floating_point else (noise(19, 5, 37) * 80).clamp(0, 255)
    return values.to(dtype)


ODD_GRID = plan_grid(19, 11, 90, gap=3)

STRIDES = {
    "contiguous": lambda maps: maps.contiguous(),
    "channels last": lambda maps: maps.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "width first": lambda maps: maps.transpose(1, 2).contiguous().transpose(1, 2),
    "every other": lambda maps: torch.stack([maps, maps], dim=-1)[..., 0],
    "rows apart": lambda maps: torch.cat([maps, maps], dim=2)[..., : maps.shape[2]],
    "channels apart": lambda maps: torch.cat([maps, maps], dim=1)[:, : maps.shape[1]],
    "of a batch": lambda maps: torch.stack([maps, maps], dim=1)[:, 1],
    "expanded": lambda maps: maps[:1].expand(len(maps), -1, -1),
}


@functools.cache
def plane_of_odd_maps(dtype: torch.dtype, expanded: bool) -> Plane:
    maps = odd_maps_of(dtype)
    return draw("reference", make_job((STRIDES["expanded"](maps) if expanded else maps).float(), ODD_GRID))


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.uint8]
READ = [(level, strides, dtype) for level in LEVELS for strides in STRIDES for dtype in DTYPES]
# Every dtype at every level, and every order in memory at every level.
READ_BY_DEFAULT = [(level, strides, DTYPES[(i + i // 4) % 4]) for level in LEVELS for i, strides in enumerate(STRIDES)]


@pytest.mark.parametrize(("level", "strides", "dtype"), quick(READ, READ_BY_DEFAULT))
def test_maps_of_any_dtype_and_strides_are_read_as_they_lie(level: str, strides: str, dtype: torch.dtype) -> None:
    native.set_vector_level(level)
    maps = STRIDES[strides](odd_maps_of(dtype))
    widened = maps.float().contiguous()
    read = BACKENDS["native"].to_array(maps)
    assert BACKENDS["native"].readable(maps) is maps
    for ours, theirs in zip(KERNELS.channel_range(read), KERNELS.channel_range(widened.numpy()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(KERNELS.channel_moments(read), KERNELS.channel_moments(widened.numpy()), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    job = make_job(widened, ODD_GRID)
    as_it_lies = Job(maps, job.vmin, job.vmax, job.rows, job.cols, ODD_GRID, job.paint)
    assert_equal_planes(draw("native", as_it_lies, 13), plane_of_odd_maps(dtype, strides == "expanded"))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 33, 49, 3136])
def test_channels_measured_at_once_are_the_same_at_every_level_and_as_in_two_calls(size: int) -> None:
    maps = noise(12, 1, size).numpy()
    maps[1], maps[2] = 3, -0.0
    maps[3, 0, 0], maps[4, 0, -1], maps[5, 0, size // 2], maps[6], maps[7] = NAN, INF, -INF, NAN, -INF
    maps[8, 0, ::2] = NAN
    maps[9] *= SMALLEST
    maps[10] = np.finfo(np.float32).max
    maps[11, 0, ::3] = 0
    first: tuple[Any, ...] = ()
    for level in LEVELS:
        native.set_vector_level(level)
        together = KERNELS.channel_measures(maps)
        first = first or together
        for measured, same, alone in zip(
            together, first, (*KERNELS.channel_range(maps), *KERNELS.channel_moments(maps)), strict=True
        ):
            assert measured.tobytes() == same.tobytes() == alone.tobytes()
    mean, std = reference.channel_moments(maps)[:2]
    assert_same_statistics(first[2], mean)
    assert_same_statistics(first[3], std)


@pytest.mark.parametrize("shape", [(7, 300, 200), (5, 512, 512), (9000, 7, 7), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_channels_measured_by_several_threads_are_the_same(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    maps = noise(*shape)
    maps[:, 0, 0] = NAN
    read = BACKENDS["native"].to_array(maps.to(dtype))
    alone = KERNELS.channel_measures(read)
    for threads in (2, 3, 50):
        for measured, expected in zip(KERNELS.channel_measures(read, threads), alone, strict=True):
            assert measured.tobytes() == expected.tobytes()


@given(job=any_jobs(), strip_rows=st.integers(1, 40))
def test_every_level_draws_the_same_plane(job: Job, strip_rows: int) -> None:
    expected = draw("reference", job)
    for level in LEVELS:
        native.set_vector_level(level)
        assert_equal_planes(draw("native", job, strip_rows), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("width", [1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 65])
def test_rows_of_every_width_and_scale_equal_the_reference(width: int, level: str) -> None:
    # Blocks of 8 and 16 columns and pieces of 32 and 64 pixels, with every kind of rest.
    native.set_vector_level(level)
    maps = noise(3, 2, width)
    for tile_w in (width, width + 1, 2 * width, 3 * width - 1, 7 * width + 5):
        job = make_job(maps, plan_grid(3, 3, tile_w, gap=1, margin=2), paint=ALL_LEVELS)
        assert_equal_planes(draw("native", job), draw("reference", job))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("width", "align"), in_turns([7, 8, 9, 15, 16, 17, 56], ["left", "center"]))
def test_rows_of_twice_the_width_equal_the_reference(width: int, align: str, level: str) -> None:
    # Aligned left every other column is one of the map; with gaps, a NaN, and a sheet's last pixel at a tile's end.
    native.set_vector_level(level)
    for gap in (0, 1):
        maps = noise(5, 3, width)
        for _ in range(2):
            job = make_job(maps, plan_grid(5, 6, 2 * width, gap=gap, grid=(2, 3)), align, paint=ALL_LEVELS)
            assert_equal_planes(draw("native", job), draw("reference", job))
            maps[1, 1, width - 1] = NAN


@pytest.mark.parametrize("level", LEVELS)
def test_nan_does_not_reach_the_last_tile_of_a_shorter_row_below(level: str) -> None:
    native.set_vector_level(level)
    maps = noise(3, 2, 16)
    maps[1, :, 0] = NAN  # lies behind the row of the first tile, and later behind that of the last
    job = make_job(maps, plan_grid(3, 4, 32, grid=(2, 2)), paint=ALL_LEVELS)
    assert_equal_planes(draw("native", job), draw("reference", job))


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("level", LEVELS)
def test_values_about_every_step_have_the_entry_of_two_roundings(level: str, every: int) -> None:
    # For some numbers of levels, 254 among them, one rounding would give another entry.
    native.set_vector_level(level)
    for levels in (*range(2, 255, every), 255, 256):
        scale, half = np.float32(levels - 1), np.float32(0.5)
        steps = ((np.arange(1, levels) - 0.5) / (levels - 1)).astype(np.float32)
        near = (steps.view(np.int32)[:, None] + np.arange(-4, 5, dtype=np.int32)).view(np.float32)
        values = np.concatenate([[np.float32(0), np.float32(1)], near.ravel()])
        maps = torch.from_numpy(values)[None, None]
        job = make_job(maps, plan_grid(1, 1, len(values)), paint=ALL_LEVELS._replace(levels=levels))
        assert_equal_planes(draw("native", job), np.floor(values * scale + half).astype(np.uint8)[None])


@pytest.mark.parametrize("level", LEVELS)
def test_float16_is_widened_exactly_at_every_value(level: str) -> None:
    native.set_vector_level(level)
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = bits[bits.isfinite()]
    low, high = KERNELS.channel_range(BACKENDS["native"].to_array(finite[:, None, None]))
    np.testing.assert_array_equal(low, finite.float().numpy())
    np.testing.assert_array_equal(high, low)
    nan, inf = KERNELS.channel_moments(BACKENDS["native"].to_array(bits[None, None]))[3:]
    assert (nan[0], inf[0]) == (int(bits.isnan().sum()), int(bits.isinf().sum()))


def test_float16_is_widened_where_subnormal_numbers_are_flushed() -> None:
    values = torch.tensor([2.0**-24, 2.0**-15], dtype=torch.float16)[:, None, None]
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        low, _ = KERNELS.channel_range(values.numpy())
    finally:
        torch.set_flush_denormal(False)
    assert low.tolist() == [2.0**-24, 2.0**-15]


@pytest.mark.parametrize("background", [0, 254, 255])
@pytest.mark.parametrize("levels", [1, 2, 253, 254, 255, 256])
def test_background_is_its_entry_for_any_number_of_levels(levels: int, background: int) -> None:
    paint = ALL_LEVELS._replace(levels=levels, background=background)
    job = make_job(odd_maps(7), plan_grid(7, 11, 90, grid=(2, 4), gap=3, margin=4), paint=paint)
    assert_equal_planes(draw("native", job), draw("reference", job))


def arguments(**changed: Any) -> dict[str, Any]:
    """Return what render_strip takes for two maps of 3x4 as tiles of 6x8, one of them changed."""
    maps = noise(2, 3, 4)
    job = make_job(maps, Grid(2, 1, 2, 6, 8))
    sound = {
        "maps": maps.numpy(), "vmin": job.vmin.numpy(), "vmax": job.vmax.numpy(),
        "row_index": job.rows.index, "row_fraction": job.rows.fraction,
        "col_index": job.cols.index, "col_fraction": job.cols.fraction,
        "grid": (2, 6, 8, 6, 8, 0, 0), "paint": (256, 0, 255), "flat": 0.0, "start": 0,
        "out": np.zeros((6, 16), np.uint8),
    }  # fmt: skip
    return sound | changed


def test_arguments_that_are_sound_draw() -> None:
    native.render_strip(**arguments())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("maps", np.zeros((2, 0, 4), np.float32), "no axis of length 0"),
        ("vmin", np.zeros(1, np.float32), "vmin must have length 2, got 1"),
        ("vmax", np.zeros(3, np.float32), "vmax must have length 2, got 3"),
        ("row_index", np.zeros(5, np.int32), "rows must have 6 positions, got 5 and 6"),
        ("col_fraction", np.zeros(9, np.float32), "cols must have 8 positions, got 8 and 9"),
        ("row_index", np.full(6, 3, np.int32), "rows must lie within the maps' 3, got 3"),
        ("col_index", np.full(8, -1, np.int32), "cols must lie within the maps' 4, got -1"),
        ("grid", (0, 6, 8, 6, 8, 0, 0), "grid must have tiles"),
        ("grid", (2, 6, 8, 6, 8, 0, 1), "grid must fit into the sheet of 16 px"),
        ("grid", (2, 6, 8, 5, 8, 0, 0), "lay tiles over one another"),
        ("grid", (2**40, 6, 8, 6, 8, 0, 0), "below 2^31"),
        ("paint", (0, 0, 255), "1 to 256 levels"),
        ("paint", (257, 0, 255), "1 to 256 levels"),
        ("paint", (256, 256, 255), "entries of at most 255"),
        ("start", 2**40, "grid must fit"),
        ("out", np.zeros((6, 15), np.uint8), "grid must fit into the sheet of 15 px"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("^", r"\^")):
        native.render_strip(**arguments(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maps", np.zeros((2, 3, 4), np.complex64)),
        ("maps", np.zeros((2, 3, 4), np.float64)),
        ("maps", np.zeros((2, 3, 4), ">f4")),
        ("maps", np.zeros((2, 12), np.float32)),
        ("out", np.zeros((6, 16), np.int8)),
        ("out", np.zeros((6, 32), np.uint8)[:, ::2]),
        ("out", np.broadcast_to(np.zeros((1, 16), np.uint8), (6, 16))),
    ],
)
def test_other_dtypes_and_orders_are_refused(name: str, value: Any) -> None:
    with pytest.raises((TypeError, BufferError)):
        native.render_strip(**arguments(**{name: value}))


def test_blend_strip_refuses_what_does_not_fit() -> None:
    sound: dict[str, Any] = {
        "index": np.zeros((6, 16), np.uint8), "colors": np.zeros((256, 3), np.uint8),
        "weights": np.full(256, 256, np.uint16), "photo": np.zeros((6, 8, 3), np.uint8),
        "grid": (2, 6, 8, 6, 8, 0, 0), "count": 2, "start": 0, "out": np.zeros((6, 16, 3), np.uint8),
    }  # fmt: skip
    native.blend_strip(**sound)
    wrong = {
        "colors": np.zeros((255, 3), np.uint8), "weights": np.full(256, 257, np.uint16),
        "photo": np.zeros((6, 7, 3), np.uint8), "out": np.zeros((5, 16, 3), np.uint8),
        "index": np.zeros((6, 15), np.uint8),
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(ValueError, match="must"):
            native.blend_strip(**sound | {name: value})


@pytest.mark.parametrize("threads", [2, 3, 64])
@pytest.mark.parametrize("start", [0, 17])
def test_bands_of_threads_are_the_strip_of_one(start: int, threads: int) -> None:
    maps = odd_maps(64, 5, 37)
    grid = plan_grid(64, 200, 333, gap=3, margin=5)  # some ten bands
    job = make_job(maps, grid)
    strip = Strip(start, grid.height - start)
    planes = np.full((2, strip.stop - strip.start, grid.width), 7, np.uint8)
    arrays = BACKENDS["native"].to_array(maps), job.vmin.numpy(), job.vmax.numpy()
    for plane, wanted in zip(planes, (1, threads), strict=True):
        KERNELS.render_strip_by(wanted, *arrays, job.rows, job.cols, grid, job.paint, strip, plane)
    assert_equal_planes(*planes)
