"""Triton's programs under its interpreter, on the CPU. `test_triton` runs this file in processes of its own.

The interpreter takes 40 ms for each program that is launched. So by default each branch of the programs runs for few
small cases; the others, and what combines cases with every dtype, sampling and strip height, are marked `long`.

By hand: TRITON_INTERPRET=1 python -m pytest -n 0 -W ignore::RuntimeWarning tests/support/interpreted_triton.py
(numpy, which the interpreter computes with, warns of infinities and NaN; a GPU does not).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import kernel_jobs as kernels
from support import overlay_jobs as overlays
from support.assertions import assert_equal_planes, assert_equal_tensors, assert_same_range, assert_same_statistics
from support.cases import CASES, noise
from support.quick import quick
from triton.runtime import interpreter

import cnnviz_fast as cf
from cnnviz_fast.channels.values import as_maps
from cnnviz_fast.geometry import Grid, Strip, sampling_positions
from cnnviz_fast.kernels import backends, reference, triton_gpu
from cnnviz_fast.kernels.backends import BACKENDS


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Any:
    """Make blocks small, so that tiles, rows and channels lie across their edges; 32 is no multiple of any tile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {
            "BLOCK_PX": 32,
            "LEAST_ROWS": 5,
            "MOST_ROWS": 5,
            "CHANNELS": 2,
            "VALUES": 8,
            "SPAN": 16,
        }.items():
            patch.setattr(triton_gpu, name, size)
        yield


@pytest.fixture(scope="module", autouse=True)
def _sums_of_their_dtype() -> Any:
    """Keep the dtype of sums: Triton 3.2's interpreter stores those of int32 as int64, into memory of others."""
    made = interpreter.ReduceOps.to_tensor

    def keep(self: Any, found: Any, dtype: Any) -> Any:
        return made(self, np.asarray(found, interpreter._get_np_dtype(dtype)), dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.ReduceOps, "to_tensor", keep)
        yield


def draw(job: kernels.Job, strip_rows: int | None = None, maps: torch.Tensor | None = None) -> kernels.Plane:
    """Draw a job's sheet by strips; each lies between rows that nothing may be written to."""
    maps, bands = job.maps if maps is None else maps, []
    for strip in job.grid.strips(strip_rows or job.grid.height):
        memory = np.full((strip.stop - strip.start + 2, job.grid.width), 0xA5, dtype=np.uint8)
        triton_gpu.render_strip(
            maps, job.vmin, job.vmax, job.rows, job.cols, job.grid, job.paint, strip, memory[1:-1]
        )  # fmt: skip
        assert (memory[[0, -1]] == 0xA5).all(), "written beside `out`"
        bands.append(memory[1:-1])
    return np.concatenate(bands)


def assert_same_moments(maps: torch.Tensor) -> None:
    """Compare channel_moments with the reference; sums in units of what was summed."""
    values = maps.float().contiguous().numpy()
    unit = max(1.0, float(np.abs(np.where(np.isfinite(values), values, 0)).max()))
    expected = reference.channel_moments(values)
    for name, ours, theirs in zip(
        ("mean", "std", "zeros", "nan", "inf"), triton_gpu.channel_moments(maps), expected, strict=True
    ):
        ours = np.asarray(ours)
        assert ours.dtype == theirs.dtype, name
        if name in ("mean", "std"):
            assert_same_statistics(ours / unit, theirs / unit)
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


NAMES = [name for name in CASES if name != "huge"]


@pytest.mark.parametrize("name", quick(NAMES, NAMES[5::16]))
def test_measurements_every_case_equal_reference(name: str) -> None:
    maps = as_maps(CASES[name].maps)
    assert_same_range(triton_gpu.channel_range(maps), reference.channel_range(maps.contiguous().numpy()))
    assert_same_moments(maps)


# Alignment is data to the programs: of nearest, one is enough. By default a few small cases have one of them in turn.
SAMPLINGS = [sampling for sampling in kernels.SAMPLINGS if sampling[1] == "bilinear" or sampling[0] == "center"]
SAMPLED = [case for case in kernels.EVERY_CASE if case[1:] in SAMPLINGS]
SMALL = [
    (name, *SAMPLINGS[i % len(SAMPLINGS)])
    for i, name in enumerate(CASES)
    if name in ("one_channel_nan", "numpy_backwards", "every_other", "range_overflows_float32")
]


@pytest.mark.parametrize(("name", "align", "upsampling"), quick(SAMPLED, SMALL))
def test_render_strip_every_case_equals_reference(
    name: str, align: str, upsampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "huge":
        monkeypatch.setattr(triton_gpu, "BLOCK_PX", 256)
    job = kernels.case_job(name, align, upsampling)
    before = job.maps.clone()
    assert_equal_planes(draw(job), kernels.case_plane(name, align, upsampling))
    assert_equal_tensors(job.maps, before)


@pytest.mark.long
def test_render_strip_last_rows_of_a_huge_sheet_equal_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_gpu, "BLOCK_PX", 256)
    job = kernels.case_job("huge", "center", "bilinear")
    strip = Strip(job.grid.height - 12, job.grid.height)
    bands = np.full((2, 12, job.grid.width), 0xA5, np.uint8)
    for module, band in zip((triton_gpu, reference), bands, strict=True):
        maps, *ends = (x if module is triton_gpu else x.numpy() for x in (job.maps, job.vmin, job.vmax))
        module.render_strip(maps, *ends, job.rows, job.cols, job.grid, job.paint, strip, band)
    assert_equal_planes(*bands)


STRIPS = [(name, rows) for name in kernels.STRIP_CASES for rows in (3, 10)]


# That of `gap_and_margin` is drawn by strips below, for several samples.
@pytest.mark.parametrize(("name", "strip_rows"), quick(STRIPS, [("last_rows_empty", 10), ("tile_smaller", 3)]))
def test_render_strip_any_height_gives_the_same_plane(name: str, strip_rows: int) -> None:
    expected = kernels.case_plane(name, "center", "bilinear")
    assert_equal_planes(draw(kernels.case_job(name, "center", "bilinear"), strip_rows), expected)


GROUPED = [
    # columns of the maps, of a tile, lengths that are multiples of a group, and the group and what it reads
    (2, 16, {}, (8, 3)),
    (4, 16, {}, (8, 4)),
    (2, 8, {"gap": 4, "margin": 4}, (4, 3)),
    (8, 16, {"label_w": 24}, (4, 4)),
    (16, 16, {"least_w": 64}, (4, 5)),
    (24, 16, {}, (1, 2)),
]


@pytest.mark.parametrize(("align", "upsampling"), quick(SAMPLINGS, SAMPLINGS[:1]))
@pytest.mark.parametrize(("columns", "tile_w", "lengths", "group"), quick(GROUPED, GROUPED[1::4]))
def test_render_strip_of_columns_in_groups_equals_reference(
    columns: int, tile_w: int, lengths: dict[str, int], group: tuple[int, int], align: str, upsampling: str
) -> None:
    maps = noise(6, 5, columns)
    maps[0, :, 1], maps[1, 2], maps[2, 0, 0], maps[2, 4, -1] = torch.nan, 3, torch.inf, -torch.inf
    maps[3], maps[4] = maps[3].relu(), 0
    maps[5] = maps[5].sign() * 3e38  # the range overflows
    grid = Grid(6, 2, 4, 7, tile_w, **lengths)  # few pixels: each program takes long
    job = kernels.make_job(maps, grid, align, upsampling, kernels.WITH_ENTRIES)
    assert triton_gpu._group(grid, sampling_positions(columns, tile_w, "center")) == group
    assert_equal_planes(draw(job, 5), kernels.draw("reference", job))


def test_render_strip_reads_rows_longer_than_31_bits() -> None:
    memory = torch.empty(2**31 + 8, dtype=torch.float16)  # of which three values are touched
    far = memory.as_strided((1, 1, 3), (1, 1, 2**30 + 2))
    far.copy_(noise(1, 1, 3))
    job = kernels.make_job(far.float(), Grid(1, 1, 1, 1, 16))
    assert_equal_planes(draw(job, maps=far), kernels.draw("reference", job))


SHARES = [(scale, size) for scale in (1.0, 2.0**-120) for size in (14, 16)]


@pytest.mark.parametrize(("scale", "size"), quick(SHARES, SHARES[:1]))
def test_shares_too_small_for_an_entry_do_not_change_one(scale: float, size: int) -> None:
    # Values are clamped to 2^-64 of the range, not to 0: beside them are such as round to an entry at a tie.
    tiny = torch.tensor([0, -1, 2.0**-70, 2.0**-64, 2.0**-41, 2.0**-24, 1e-45])
    ties = (torch.arange(7) + 0.5) / 255
    maps = torch.stack([tiny.expand(7, 7), tiny[:, None].expand(7, 7), torch.stack([tiny, ties] * 4)[:7]])
    job = kernels.make_job(maps * scale, Grid(3, 1, 3, size, size), normalize="fixed", vmin=0.0, vmax=scale)
    assert_equal_planes(draw(job), kernels.draw("reference", job))


HALVES = [(name, dtype) for name in ("mixed", "channels_last", "every_other") for dtype in kernels.DTYPES[1:3]]


@pytest.mark.parametrize(("name", "dtype"), quick(HALVES, HALVES[4:5]))
def test_half_maps_are_widened_as_they_are_read(name: str, dtype: torch.dtype) -> None:
    half = as_maps(CASES[name].maps).to(dtype)
    job = kernels.make_job(half.float(), kernels.case_job(name, "center", "bilinear").grid, paint=kernels.WITH_ENTRIES)
    assert_equal_planes(draw(job, maps=half), kernels.draw("reference", job))
    assert_same_range(triton_gpu.channel_range(half), reference.channel_range(half.float().contiguous().numpy()))
    assert_same_moments(half)


BATCHES = [
    (name, dtype, factors)
    for factors in ((1, -2), (1, -2, 0, 0.25))
    for name in ("gap_and_margin", "labels_and_rows_without_tiles", "channels_last", "mixed")
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize(("name", "dtype", "factors"), quick(BATCHES, [BATCHES[5]]))
def test_render_strip_of_several_samples_draws_each_as_on_its_own(
    name: str, dtype: torch.dtype, factors: tuple[float, ...]
) -> None:
    job = kernels.case_job(name, "center", "bilinear")
    grid, values = job.grid, job.maps.to(dtype).float()
    jobs = [kernels.make_job(values * factor, grid, paint=kernels.WITH_ENTRIES) for factor in factors]
    batch = torch.stack([one.maps for one in jobs]).to(dtype)
    batch = batch.to(memory_format=torch.channels_last) if name == "channels_last" else batch
    vmin, vmax = (torch.stack([getattr(one, end) for one in jobs]) for end in ("vmin", "vmax"))
    planes = torch.full((len(factors), grid.height, grid.width), 0xA5, dtype=torch.uint8)
    strips = grid.strips(7)  # which begin and end inside cells
    assert len(strips) > 2
    for strip in strips[1:]:
        band = planes[:, strip.start : strip.stop]
        triton_gpu.render_strip(batch, vmin, vmax, job.rows, job.cols, grid, kernels.WITH_ENTRIES, strip, band)
    assert (planes[:, : strips[0].stop] == 0xA5).all(), "written beside `out`"
    for one, plane in zip(jobs, planes, strict=True):
        assert_equal_planes(plane[strips[1].start :], kernels.draw("reference", one)[strips[1].start :])


def test_channel_range_of_several_samples_is_that_of_each() -> None:
    # Programs measure 2 channels: of 3 each, the second reads the last of one sample and the first of the next. 18
    # values lie in two parts, 12 in one.
    batch = noise(3, 3, 3, 6)
    batch[0, 2], batch[1, 0, 1, 1] = torch.nan, -torch.inf
    top = batch[:, :, :2]
    for held in (batch, top.to(memory_format=torch.channels_last), top[::2], top.half()):
        found = triton_gpu.channel_range(held)
        assert found[0].shape == held.shape[:2]
        for low, high, maps in zip(*found, held.float(), strict=True):
            assert_same_range((low, high), reference.channel_range(maps.contiguous().numpy()))


def test_trial_passes_and_fails_where_what_is_drawn_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_gpu.trial("cpu")
    render_strip = triton_gpu.render_strip
    monkeypatch.setattr(triton_gpu, "render_strip", lambda maps, *given: render_strip(-maps, *given))
    with pytest.raises(RuntimeError, match=r"^a trial run drew the entries \[170, .*, not \[0, 0, "):
        triton_gpu.trial("cpu")


AS_TRITON = dataclasses.replace(BACKENDS["triton"], devices=())


INDEXED = [
    (tile, normalize, dtype)
    for tile in (9, 3)
    for normalize in ("channel", "layer", "percentile", "sigmoid", "symmetric")
    for dtype in kernels.DTYPES[:3]
]
EACH_ONCE = [INDEXED[i] for i in (15, 19, 23, 24, 28)]


@pytest.mark.parametrize(("tile", "normalize", "dtype"), quick(INDEXED, EACH_ONCE))
def test_render_index_by_triton_draws_what_the_reference_draws(
    dtype: torch.dtype, normalize: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = torch.stack([noise(8, 3, 4), CASES["mixed"].maps]).to(dtype)
    options = {"tile": tile, "gap": 1, "normalize": normalize, "levels": 254, "background": 254, "bad": 255}
    planes = []
    for backend, maps in ((BACKENDS["reference"], batch.float()), (AS_TRITON, batch)):
        monkeypatch.setattr(backends, "choose", lambda name, device, chosen=backend: chosen)
        planes.append(cf.render_index(maps, **options))
    assert_equal_planes(planes[1], planes[0])


def test_channel_range_of_many_parts_is_measured_in_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 values a part: 6 parts, of which those of the first channel hold nothing finite but the last.
    monkeypatch.setattr(triton_gpu, "VALUES", 2)
    monkeypatch.setattr(triton_gpu, "SPAN", 4)
    maps = noise(2, 2, 11)
    maps[0] = torch.nan
    maps[0, 1, 10], maps[1, 1, 5] = -4, torch.inf
    assert_same_range(triton_gpu.channel_range(maps), reference.channel_range(maps.numpy()))
    assert_same_moments(maps)


def test_render_strip_fills_a_tensor_in_place() -> None:
    job = kernels.case_job("single_channel", "center", "bilinear")
    out = torch.full((job.grid.height, job.grid.width), 0xA5, dtype=torch.uint8)
    strip = Strip(0, job.grid.height)
    triton_gpu.render_strip(job.maps, job.vmin, job.vmax, job.rows, job.cols, job.grid, job.paint, strip, out)
    assert_equal_planes(out, kernels.case_plane("single_channel", "center", "bilinear"))


@pytest.mark.parametrize("examples", quick([2, 60], [2]))
def test_render_strip_any_job_equals_reference(examples: int) -> None:
    @settings(max_examples=examples)
    @given(job=kernels.any_jobs(), strip_rows=st.integers(4, 40))
    def equals_reference(job: kernels.Job, strip_rows: int) -> None:
        assert_equal_planes(draw(job, strip_rows), kernels.draw("reference", job))

    equals_reference()


@pytest.mark.parametrize("name", overlays.GRIDS)
def test_blend_strip_every_layout_equals_numpy(name: str) -> None:
    index, colors, weights, photo, expected = overlays.blend_job(name)
    grid = overlays.GRIDS[name]
    for strip in grid.strips(grid.height // 2 + 1):
        memory = np.full((strip.stop - strip.start + 2, grid.width, 3), 0xA5, np.uint8)
        band = index[strip.start : strip.stop]
        triton_gpu.blend_strip(band, colors, weights, photo, grid, strip, memory[1:-1])
        assert_equal_planes(memory[1:-1], expected[strip.start : strip.stop])
        assert (memory[[0, -1]] == 0xA5).all(), "written beside `out`"


def test_blend_strip_takes_and_fills_tensors_too() -> None:
    *arrays, expected = overlays.blend_job("last_row_not_full")
    grid, out = overlays.GRIDS["last_row_not_full"], torch.empty(expected.shape, dtype=torch.uint8)
    triton_gpu.blend_strip(*map(torch.from_numpy, arrays), grid, Strip(0, grid.height), out)
    assert_equal_planes(out, expected)
