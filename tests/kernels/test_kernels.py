"""The reference against numbers worked out by hand and against torch, Pillow and numpy; every backend against it."""

from __future__ import annotations

import inspect
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_equal_planes, assert_same_plane, assert_same_range, assert_same_statistics
from support.cases import CASES, INF, LARGEST, NAN, SMALLEST, noise
from support.kernel_jobs import (
    ALL_LEVELS,
    EVERY_CASE,
    EXACT,
    IN_TURNS,
    MODULES,
    STRIP_CASES,
    WITH_ENTRIES,
    Job,
    Plane,
    any_jobs,
    any_maps,
    case_job,
    case_plane,
    draw,
    make_job,
)
from support.looping import case

from cnnviz_fast.channels.values import as_maps
from cnnviz_fast.geometry import Grid, Strip
from cnnviz_fast.kernels import Paint, reference, torch_ops
from cnnviz_fast.kernels.backends import BACKENDS
from cnnviz_fast.options.drawing import BY_SIZE_ALONE

FAST = [name for name in MODULES if name != "reference"]


def tile_of(values: Any, size: tuple[int, int], align: str = "center", **arguments: Any) -> list[list[int]]:
    """Draw one map by the reference."""
    maps = torch.tensor(values, dtype=torch.float32)[None]
    return draw("reference", make_job(maps, Grid(1, 1, 1, *size), align, **arguments)).tolist()


# Layer 1 of trust: the reference against numbers worked out by hand.


@pytest.mark.parametrize(
    ("value", "vmin", "vmax", "expected"),
    [
        (0, 0, 4, 0),
        (1, 0, 4, 0.25),
        (4, 0, 4, 1),
        (-3, 0, 4, 0),
        (9, 0, 4, 1),
        (-1, -2, 2, 0.25),
        (7, 7, 7, 0.5),
        (NAN, 0, 4, NAN),
        (INF, 0, 4, NAN),
        (-INF, 0, 4, NAN),
        (INF, 7, 7, NAN),
        (0, -3e38, 3e38, 0.5),
        (3e38, -3e38, 3e38, 1),
        (3e38, -3e38, 0, 1),
        (-3e38, 0, 3e38, 0),
        (-LARGEST, -LARGEST, LARGEST, 0),
        (LARGEST, -LARGEST, LARGEST, 1),
        (SMALLEST, 0, SMALLEST, 1),
        (2 * SMALLEST, 0, 4 * SMALLEST, 0.5),
    ],
)
def test_normalize_value_by_hand(value: float, vmin: float, vmax: float, expected: float) -> None:
    result = reference.normalize(np.float32(value), np.float32(vmin), np.float32(vmax), 0.5)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.float32(expected))


@pytest.mark.parametrize(
    ("before", "after", "fraction", "expected"),
    [(0, 1, 0.25, 0.25), (1, 0, 0.25, 0.75), (0.5, NAN, 0, 0.5), (NAN, 0.5, 0.999, NAN), (0.5, NAN, 0.001, NAN)],
)
def test_blend_by_hand(before: float, after: float, fraction: float, expected: float) -> None:
    result = reference.blend(np.float32(before), np.float32(after), np.float32(fraction))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.float32(expected))


@pytest.mark.parametrize(
    ("align", "upsampling", "expected"),
    [
        # Two samples, 0 and 1, as four pixels. center: at -0.25, 0.25, 0.75, 1.25, clamped; floor(v * 255 + 0.5).
        ("center", "bilinear", [0, 64, 191, 255]),
        # left: at 0, 0.5, 1, 1.5. 127.5 rounds up.
        ("left", "bilinear", [0, 128, 255, 255]),
        # corners: at 0, 1/3, 2/3, 1.
        ("corners", "bilinear", [0, 85, 170, 255]),
        ("center", "nearest", [0, 0, 255, 255]),
        ("left", "nearest", [0, 0, 255, 255]),
        ("corners", "nearest", [0, 0, 255, 255]),
    ],
)
def test_render_strip_two_samples_by_hand(align: str, upsampling: str, expected: list[int]) -> None:
    assert tile_of([[0, 1]], (1, 4), align, upsampling=upsampling) == [expected]
    assert tile_of([[0], [1]], (4, 1), align, upsampling=upsampling) == [[entry] for entry in expected]


def test_render_strip_two_axes_by_hand() -> None:
    # Fractions 0, 1/2, 1 in both axes over the corners 0, 1/4, 1/2, 1: 255 times 1/8, 7/16, 1/4, 5/8, 3/4, rounded.
    assert tile_of([[0, 0.25], [0.5, 1]], (3, 3), "corners") == [[0, 32, 64], [64, 112, 159], [128, 191, 255]]


@pytest.mark.parametrize(
    ("levels", "expected"), [(256, [0, 64, 128, 255]), (255, [0, 64, 127, 254]), (2, [0, 0, 1, 1]), (1, [0, 0, 0, 0])]
)
def test_render_strip_levels_by_hand(levels: int, expected: list[int]) -> None:
    paint = ALL_LEVELS._replace(levels=levels)
    assert tile_of([[0, 0.25, 0.5, 1]], (1, 4), paint=paint) == [expected]


@pytest.mark.parametrize(
    ("flat", "levels", "expected"), [(0, 256, 0), (0.5, 256, 128), (0.5, 255, 127), (0.5, 254, 127)]
)
def test_render_strip_flat_channel_by_hand(flat: float, levels: int, expected: int) -> None:
    paint = Paint(levels, flat, 0, 255)
    assert tile_of([[-4, -4]], (2, 2), paint=paint) == [[expected] * 2] * 2


def test_render_strip_values_clamped_before_they_are_interpolated() -> None:
    # 100 counts as 1: the pixel half way shows 1/2. Clamped after interpolation it would show 1.
    assert tile_of([[0, 100]], (1, 3), "corners", normalize="fixed", vmin=0, vmax=1) == [[0, 128, 255]]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_render_strip_nonfinite_sample_spoils_the_pixels_it_weighs_in(value: float) -> None:
    # corners, 3 samples as 5 pixels: at 0, 0.5, 1, 1.5, 2; the middle sample weighs in the three in between.
    assert tile_of([[0, value, 1]], (1, 5), "corners") == [[0, 255, 255, 255, 255]]
    assert tile_of([[0, value, 1]], (1, 5), "corners", paint=WITH_ENTRIES) == [[0, 255, 255, 255, 253]]


def test_render_strip_neighbour_of_weight_zero_spoils_nothing() -> None:
    assert tile_of([[0, 1, NAN]], (1, 3), paint=WITH_ENTRIES) == [[0, 253, 255]]
    assert tile_of([[0], [1], [NAN]], (3, 1), paint=WITH_ENTRIES) == [[0], [253], [255]]
    # Clamped to the edge, the sample at the edge is the only one.
    assert tile_of([[0, NAN]], (1, 6), paint=WITH_ENTRIES) == [[0, 0, 255, 255, 255, 255]]


def test_render_strip_gap_margin_and_empty_cells_are_background() -> None:
    grid = Grid(count=3, rows=2, cols=2, tile_h=1, tile_w=2, gap=1, margin=1)
    maps = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[5.0, 5.0]]])
    plane = draw("reference", make_job(maps, grid, paint=Paint(255, 0.0, 9, 255)))
    assert plane.tolist() == [
        [9, 9, 9, 9, 9, 9, 9],
        [9, 0, 254, 9, 254, 0, 9],
        [9, 9, 9, 9, 9, 9, 9],
        [9, 0, 0, 9, 9, 9, 9],
        [9, 9, 9, 9, 9, 9, 9],
    ]


@pytest.mark.parametrize("backend", MODULES)
def test_render_strip_room_for_text_is_background(backend: str) -> None:
    grid = Grid(3, 2, 2, 1, 2, gap=1, margin=0, label_h=1, label_w=3, head=1, foot=2, least_w=9)
    maps = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[5.0, 5.0]]])
    assert draw(backend, make_job(maps, grid, paint=Paint(255, 0.0, 9, 255))).tolist() == [
        [9] * 9,
        [9] * 9,
        [0, 254, 9, 9, 254, 0, 9, 9, 9],
        [9] * 9,
        [9] * 9,
        [0, 0, 9, 9, 9, 9, 9, 9, 9],
        [9] * 9,
        [9] * 9,
    ]


@pytest.mark.parametrize("backend", MODULES)
def test_channel_range_by_hand(backend: str) -> None:
    maps = torch.tensor([[[3.0, -1.0]], [[NAN, 2.0]], [[INF, -INF]], [[INF, 4.0]], [[NAN, NAN]], [[-0.0, 0.0]]])
    vmin, vmax = MODULES[backend].channel_range(BACKENDS[backend].to_array(maps))
    expected = [-1, 2, NAN, 4, NAN, 0], [3, 2, NAN, 4, NAN, 0]
    assert_same_range((vmin, vmax), [np.array(side, np.float32) for side in expected])


# Layer 1, continued: the reference against witnesses that share no code with it.


@cache
def witness_maps(h: int, w: int) -> torch.Tensor:
    """Return three maps whose values already span [0, 1]."""
    maps = noise(3, h, w)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low)).nan_to_num(0)


def reference_tiles(maps: torch.Tensor, size: tuple[int, int], align: str, upsampling: str = "bilinear") -> Plane:
    """Draw maps that span [0, 1] below each other, as (C * tile_h, tile_w)."""
    grid = Grid(len(maps), len(maps), 1, *size)
    job = make_job(maps, grid, align, upsampling, normalize="fixed", vmin=0, vmax=1)
    return draw("reference", job)


def as_plane(values: Any) -> Plane:
    """Round values in [0, 1], (C, tile_h, tile_w), to 256 levels."""
    values = np.asarray(values)
    return np.floor(values * np.float32(255) + np.float32(0.5)).astype(np.uint8).reshape(-1, values.shape[-1])


SIZES = [((7, 7), (28, 28)), ((5, 3), (16, 25)), ((1, 6), (9, 30)), ((4, 1), (11, 2)), ((6, 5), (6, 5))]


@pytest.mark.parametrize(("size", "tile"), SIZES)
@pytest.mark.parametrize(("align", "align_corners"), [("center", False), ("corners", True)])
def test_render_strip_bilinear_equals_torch_interpolate(
    size: tuple[int, int], tile: tuple[int, int], align: str, align_corners: bool
) -> None:
    maps = witness_maps(*size)
    values = torch.nn.functional.interpolate(maps[None], size=tile, mode="bilinear", align_corners=align_corners)[0]
    assert_same_plane(reference_tiles(maps, tile, align), as_plane(values.clamp(0, 1)))


@pytest.mark.parametrize(("size", "tile"), SIZES)
@pytest.mark.parametrize(("align", "mode"), [("left", "nearest"), ("center", "nearest-exact")])
def test_render_strip_nearest_equals_torch_interpolate(
    size: tuple[int, int], tile: tuple[int, int], align: str, mode: str
) -> None:
    maps = witness_maps(*size)
    values = torch.nn.functional.interpolate(maps[None], size=tile, mode=mode)[0]
    assert_equal_planes(reference_tiles(maps, tile, align, "nearest"), as_plane(values))


@pytest.mark.parametrize(("size", "tile"), SIZES)
def test_render_strip_center_equals_pillow_resize(size: tuple[int, int], tile: tuple[int, int]) -> None:
    # A fair witness only because no side shrinks: then Pillow's triangle filter is plain bilinear interpolation.
    maps = witness_maps(*size)
    values = [Image.fromarray(m.numpy()).resize(tile[::-1], Image.Resampling.BILINEAR) for m in maps]
    assert_same_plane(reference_tiles(maps, tile, "center"), as_plane(np.stack(values).clip(0, 1)))


@pytest.mark.parametrize(("size", "tile"), SIZES)
@pytest.mark.parametrize("align", BY_SIZE_ALONE)
def test_render_strip_bilinear_equals_numpy_interp(size: tuple[int, int], tile: tuple[int, int], align: str) -> None:
    def positions(n: int, count: int) -> NDArray[np.float64]:
        """The design's formulas, once more."""
        if align == "left":
            return np.array([d * n / count for d in range(count)])
        if align == "center":
            return np.array([(d + 0.5) * n / count - 0.5 for d in range(count)])
        return np.array([d * (n - 1) / (count - 1) for d in range(count)])

    def enlarge(lines: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """numpy.interp clamps to both ends."""
        n = lines.shape[-1]
        return np.apply_along_axis(lambda line: np.interp(positions(n, count), np.arange(n), line), -1, lines)

    maps = witness_maps(*size)
    values = enlarge(enlarge(maps.double().numpy(), tile[1]).swapaxes(1, 2), tile[0]).swapaxes(1, 2)
    assert_same_plane(reference_tiles(maps, tile, align), as_plane(values.astype(np.float32)))


# Layer 2: every backend, every case, against the reference.


@pytest.mark.parametrize("backend", FAST)
def test_channel_range_every_case_equals_reference_exactly(backend: str) -> None:
    for name in CASES:
        maps = as_maps(CASES[name].maps)
        with case(name):
            actual = MODULES[backend].channel_range(BACKENDS[backend].to_array(maps))
            assert_same_range(actual, reference.channel_range(maps.contiguous().numpy()))


@pytest.mark.parametrize(
    "cases", [IN_TURNS, pytest.param(EVERY_CASE, marks=pytest.mark.long)], ids=["in turns", "every"]
)
@pytest.mark.parametrize("backend", FAST)
def test_render_strip_every_case_equals_reference(backend: str, cases: list[tuple[str, str, str]]) -> None:
    for sampled in cases:
        job, expected = case_job(*sampled), case_plane(*sampled)
        with case(*sampled):
            actual = draw(backend, job)
            assert_same_plane(actual, expected, levels=job.paint.levels)
            if backend in EXACT:
                assert_equal_planes(actual, expected)


@pytest.mark.gpu
def test_kernels_on_cuda_every_case_equals_reference() -> None:
    for sampled in EVERY_CASE:
        job = case_job(*sampled)
        arrays = [tensor.cuda() for tensor in (job.maps, job.vmin, job.vmax)]
        actual = torch_ops.channel_range(arrays[0])
        assert_same_range([side.cpu() for side in actual], reference.channel_range(job.maps.contiguous().numpy()))
        plane = torch.empty(job.grid.height, job.grid.width, dtype=torch.uint8, device="cuda")
        strip = Strip(0, job.grid.height)
        torch_ops.render_strip(*arrays, job.rows, job.cols, job.grid, job.paint, strip, plane)
        assert_same_plane(plane.cpu(), case_plane(*sampled), levels=job.paint.levels)


# Strips.


@pytest.mark.parametrize("name", STRIP_CASES)
@pytest.mark.parametrize("backend", MODULES)
def test_render_strip_any_height_gives_the_same_plane(backend: str, name: str) -> None:
    job, expected = case_job(name, "center", "bilinear"), case_plane(name, "center", "bilinear")
    for strip_rows in (1, 2, 3, 4, 5, 7, 9, 10, 11, 13):
        assert_equal_planes(draw(backend, job, strip_rows), expected)


@pytest.mark.parametrize("backend", FAST)
def test_render_strip_any_start_and_stop_gives_those_rows(backend: str) -> None:
    # Tiles of 9 rows with gaps of 2 and a margin of 3: every start and stop, in a margin, mid-tile, in a gap.
    sampled = ("gap_and_margin", "corners", "bilinear")
    job, expected = case_job(*sampled), case_plane(*sampled)
    arrays = [BACKENDS[backend].to_array(tensor) for tensor in (job.maps, job.vmin, job.vmax)]
    for start in range(job.grid.height):
        for stop in range(start + 1, job.grid.height + 1):
            out = np.full((stop - start, job.grid.width), 0xA5, dtype=np.uint8)
            strip = Strip(start, stop)
            MODULES[backend].render_strip(*arrays, job.rows, job.cols, job.grid, job.paint, strip, out)
            assert_equal_planes(out, expected[start:stop])


def test_render_strip_torch_fills_a_tensor_too() -> None:
    job = case_job("gap_and_margin", "center", "bilinear")
    out = torch.full((job.grid.height, job.grid.width), 0xA5, dtype=torch.uint8)
    strip = Strip(0, job.grid.height)
    torch_ops.render_strip(job.maps, job.vmin, job.vmax, job.rows, job.cols, job.grid, job.paint, strip, out)
    assert_same_plane(out, case_plane("gap_and_margin", "center", "bilinear"), levels=job.paint.levels)


# Layer 3: signatures.


@pytest.mark.parametrize("function", ["channel_range", "channel_moments", "render_strip", "blend_strip"])
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
def test_signature_every_backend_equals_reference(backend: str, function: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton is not installed; it comes with torch's CUDA builds")

    def shown(home: ModuleType) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(getattr(home, function)).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    assert shown(BACKENDS[backend].kernels) == shown(reference)


def test_backends_name_every_kernel_module() -> None:
    here = {name: backend for name, backend in BACKENDS.items() if backend.takes("cpu") and name in MODULES}
    assert {name: backend.kernels for name, backend in here.items()} == MODULES
    assert {name for name, backend in BACKENDS.items() if backend.takes("cpu")} - {"native"} <= set(MODULES)


@pytest.mark.parametrize("backend", FAST)
def test_measure_returns_what_both_kernels_return(backend: str) -> None:
    array = BACKENDS[backend].to_array(noise(5, 7, 9))
    kernels = MODULES[backend]
    alone = *kernels.channel_range(array), *kernels.channel_moments(array)
    for measured, column in zip(BACKENDS[backend].measure(array), alone, strict=True):
        assert measured.dtype == column.dtype
        assert (measured == column).all()


# Properties: whatever the maps, the options and the grid are, fast backends equal the reference.


@given(any_maps())
@example(torch.full((1, 1, 1), NAN))
def test_channel_range_any_maps_equals_reference_exactly(maps: torch.Tensor) -> None:
    expected = reference.channel_range(maps.numpy())
    for backend in FAST:
        assert_same_range(MODULES[backend].channel_range(BACKENDS[backend].to_array(maps)), expected)


@given(job=any_jobs(), strip_rows=st.integers(1, 40))
def test_render_strip_any_job_equals_reference(job: Job, strip_rows: int) -> None:
    expected = draw("reference", job)
    for backend in EXACT:
        assert_equal_planes(draw(backend, job, strip_rows), expected)
    assert_same_plane(draw("torch", job, strip_rows), expected, levels=min(job.paint.levels, 255))


@given(any_maps())
@example(torch.full((1, 1, 1), NAN))
def test_channel_moments_any_maps_equal_reference(maps: torch.Tensor) -> None:
    expected = reference.channel_moments(maps.numpy())
    for backend in FAST:
        actual = MODULES[backend].channel_moments(BACKENDS[backend].to_array(maps))
        for name, ours, theirs in zip(("mean", "std", "zeros", "nan", "inf"), actual, expected, strict=True):
            ours = np.asarray(ours)
            assert ours.dtype == theirs.dtype
            if name in ("zeros", "nan", "inf"):
                assert (ours == theirs).all()
            else:
                # Sums differ in their last bits, in units of what was summed.
                unit = max(1.0, float(np.abs(np.where(np.isfinite(maps.numpy()), maps.numpy(), 0)).max(initial=0)))
                assert_same_statistics(ours / unit, theirs / unit)
