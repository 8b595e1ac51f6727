"""The Triton backend: under its interpreter, compiled for GPUs that are not there, and on one where it is."""

from __future__ import annotations

import collections
import importlib.util
import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import kernel_jobs as kernels
from support import overlay_jobs as overlays
from support.assertions import (
    MORE_INSTRUCTIONS,
    assert_equal_planes,
    assert_same_plane,
    assert_same_range,
    assert_same_statistics,
)
from support.cases import noise
from support.processes import Python
from support.quick import quick

import cnnviz_fast as cf
from cnnviz_fast.geometry import Grid, Strip, sampling_positions
from cnnviz_fast.kernels import reference

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed; it comes with torch's CUDA builds", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel

from benchmarks import instructions
from benchmarks.harness import cubins
from benchmarks.harness.cubins import Launch
from benchmarks.harness.workloads import WORKLOADS, Workload
from cnnviz_fast.kernels import triton_gpu, triton_programs

compiles_as_3_9 = pytest.mark.skipif(
    not cubins.CAN_COMPILE,
    reason=f"Triton {triton.__version__} makes sources of launches in another way than 3.9, which this follows",
)

PROGRAMS = ("render_block", "blend_block", "range_block", "sums_block", "squares_block")
SHARED_BYTES = 48 << 10
"""Shared memory that a program may take on every GPU without asking for more."""


# Under the interpreter.


@pytest.mark.parametrize("chosen", [[], pytest.param(["-m", "long"], marks=pytest.mark.long)], ids=["quick", "long"])
def test_programs_under_the_interpreter_equal_reference(chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    suite = Path(__file__).parents[1] / "support" / "interpreted_triton.py"
    ignored = [
        "-Wignore::RuntimeWarning",
        "-Wignore:Conversion of an array with ndim:DeprecationWarning",  # Triton 3.2 converts so, numpy 1.26 says so
    ]
    switches = ["-q", "-n", "0", "-p", "no:cacheprovider", *ignored]
    with Python("-m", "pytest", *switches, *chosen, str(suite)) as run:
        assert run.end(seconds=3600) == 0, run.printed[-8000:] + run.said[-2000:]
        assert re.search(r"^\d{2,} passed", run.printed, re.M), run.printed[-2000:]


# Compiled for GPUs that are not there: what the backend launches, recorded and handed to Triton's compiler.


def held(count: int, height: int, width: int) -> Iterator[torch.Tensor]:
    """Return maps of every dtype that is read, in both orders, and such as begin at no multiple of 16 bytes."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield torch.zeros(count, height, width, dtype=dtype)
        yield torch.zeros(height, width, count, dtype=dtype).permute(2, 0, 1)
        yield torch.zeros(count * height * width + 1, dtype=dtype)[1:].view(count, height, width)


def plane_of(grid: Grid, *samples: int, offset: int = 0) -> torch.Tensor:
    """Return memory for a sheet, or for several, that begins `offset` bytes behind a multiple of 16."""
    shape = (*samples, grid.height, grid.width)
    return torch.empty(math.prod(shape) + offset, dtype=torch.uint8)[offset:].view(shape)


def launch_everything() -> None:
    """Call the backend with each dtype, memory layout and width that is compiled on its own, as far as they are common.

    What Triton compiles in is which strides, widths and addresses are multiples of 16, and which strides are 1: of
    maps of 7 x 7, the last ones of most networks, none is.
    """
    square, odd = Grid(32, 4, 8, 24, 24), Grid(32, 4, 8, 23, 23, gap=1)
    for size, tile in ((7, 56), (7, 28), (12, 24), (12, 48)):
        draw(torch.zeros(32, size, size), Grid(32, 4, 8, tile, tile), plane_of(Grid(32, 4, 8, tile, tile)))
    for height, width in ((16, 16), (7, 7)):
        for number, maps in enumerate(held(32, height, width)):
            if number % 3 == 2 and height == 16:
                continue  # of maps that begin anywhere, those of 7 x 7 are enough
            triton_gpu.channel_range(maps)
            draw(maps, square, plane_of(square))
            if number in ((0, 1, 3, 6) if height == 16 else (0, 4)):
                triton_gpu.channel_moments(maps)
            if number in (0, 4):
                draw(maps, odd, plane_of(odd, offset=1))
        for batch in (torch.zeros(3, 32, height, width), torch.zeros(3, 32, height, width, dtype=torch.float16)):
            for maps in (batch, batch.to(memory_format=torch.channels_last)):
                triton_gpu.channel_range(maps)
                draw(maps, square, plane_of(square, len(maps)))
    for grid in (square, odd):
        index, rgb = (torch.zeros(grid.height, grid.width, *more, dtype=torch.uint8) for more in ((), (3,)))
        colors, weights = np.zeros((256, 3), np.uint8), np.zeros(256, np.uint16)
        photo = np.zeros((grid.tile_h, grid.tile_w, 3), np.uint8)
        triton_gpu.blend_strip(index, colors, weights, photo, grid, Strip(0, grid.height), rgb)


def draw(maps: torch.Tensor, grid: Grid, out: torch.Tensor) -> None:
    """Draw all of a sheet, or of several."""
    job = kernels.make_job(torch.zeros(maps.shape[-3:]), grid)
    ends = (torch.zeros(maps.shape[:-2]) for _ in range(2))
    triton_gpu.render_strip(maps, *ends, job.rows, job.cols, grid, job.paint, Strip(0, grid.height), out)


@pytest.fixture(scope="module")
def launches() -> list[Launch]:
    """What the backend launches."""
    return cubins.launches_of(launch_everything, PROGRAMS)


@pytest.fixture
def compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Compile with Triton into an empty cache, and print what ptxas says."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(triton.knobs.nvidia, "dump_ptxas_log", True)
    return


def compile_all(launches: list[Launch], target: GPUTarget, every: int = 1) -> Iterator[tuple[Launch, CompiledKernel]]:
    """Compile every launch, each distinct one once.

    Args:
        launches: what the backend launches.
        target: the GPU.
        every: compile the first of each program, and then only one in so many.

    Yields:
        The launches, and what was compiled of each.
    """
    seen, distinct = set(), collections.Counter[str]()
    for launch in launches:
        source = cubins.source_of(launch, target)
        if source.key in seen:
            continue
        seen.add(source.key)
        distinct[launch.program] += 1
        if distinct[launch.program] % every == 1 % every:
            yield launch, source.compile()


@compiles_as_3_9
@pytest.mark.parametrize(
    ("capability", "every"), [(90, 50), *(pytest.param(each, 1, marks=pytest.mark.long) for each in (80, 90, 100))]
)
@pytest.mark.usefixtures("compiled_anew")
def test_programs_compile_for_cuda_without_spills(
    capability: int, every: int, launches: list[Launch], capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = list(compile_all(launches, GPUTarget("cuda", capability, 32), every))
    assert {launch.program for launch, _ in compiled} == set(PROGRAMS)
    for launch, kernel in compiled:
        assert kernel.asm["cubin"].startswith(b"\x7fELF")
        assert kernel.metadata.shared <= SHARED_BYTES
        # Roundings: no fused multiply-add, no subnormals flushed to zero, divisions as IEEE has them.
        assert not re.search(r"\bfma\.|\.ftz\b|\bdiv\.(approx|full)\b", kernel.asm["ptx"])
        if launch.program == "render_block":
            assert "div.rn.f32" in kernel.asm["ptx"]
    logged = capsys.readouterr().out
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", logged)
    # ptxas says it of the entry, and of each function that it calls for the rare cases of a division.
    assert len(spills) >= len(compiled)
    assert set(spills) == {("0", "0", "0")}


@compiles_as_3_9
@pytest.mark.long
@pytest.mark.usefixtures("compiled_anew")
def test_programs_compile_for_amd_without_spills(launches: list[Launch]) -> None:
    compiled = list(compile_all(launches, GPUTarget("hip", "gfx942", 64)))
    assert {launch.program for launch, _ in compiled} == set(PROGRAMS)
    for _, kernel in compiled:
        assert kernel.asm["hsaco"].startswith(b"\x7fELF")
        assert kernel.metadata.shared <= SHARED_BYTES
        assert set(re.findall(r"\.[sv]gpr_spill_count: +(\d+)", kernel.asm["amdgcn"])) == {"0"}


@compiles_as_3_9
@pytest.mark.skipif(
    triton.__version__ != instructions.recorded()[0],
    reason=f"the instructions recorded are those of Triton {instructions.recorded()[0]}",
)
# By default the maps that are enlarged most, and those that are enlarged least.
@pytest.mark.parametrize("workload", quick(WORKLOADS, [WORKLOADS[0], WORKLOADS[4]]), ids=lambda workload: workload.name)
@pytest.mark.usefixtures("compiled_anew")
def test_drawing_takes_no_more_instructions_than_recorded(workload: Workload) -> None:
    count = instructions.count_of(workload)
    assert count.total <= instructions.recorded()[1][workload.name] * MORE_INSTRUCTIONS
    assert count.bytes_of("store") >= 4
    assert count.of("conversion") < 1.25  # one a pixel, and some for where a program draws


def test_sheets_of_every_shape_share_their_programs(launches: list[Launch]) -> None:
    # Of the integers of a launch only strides and widths may be compiled in: all else changes from sheet to sheet.
    for name in PROGRAMS:
        parameters = getattr(triton_programs, name).params
        changing = {p.name for p in parameters if not p.do_not_specialize and not p.is_constexpr}
        values = {n for launch in launches if launch.program == name
                  for n, value in zip([p.name for p in parameters], launch.arguments, strict=False)
                  if not isinstance(value, torch.Tensor)}  # fmt: skip
        assert changing & values <= {"stride_n", "stride_c", "stride_h", "stride_w", "stride_i", "width"}


def test_batches_are_drawn_in_one_launch_by_the_programs_of_single_sheets(launches: list[Launch]) -> None:
    drawn = [launch.arguments for launch in launches if launch.program == "render_block"]
    assert {len(maps) for maps, *_ in drawn} == {1, 3}
    assert sum(len(maps) == 3 for maps, *_ in drawn) == 8  # as many as calls
    assert "stride_n" not in {p.name for p in triton_programs.render_block.params if not p.do_not_specialize}


# How work is cut.


@pytest.mark.parametrize("name", overlays.GRIDS)
def test_cut_covers_each_row_of_a_strip_once(name: str) -> None:
    grid = overlays.GRIDS[name]
    for start in range(grid.height):
        for stop in range(start + 1, grid.height + 1):
            cut = triton_gpu._cut(grid, Strip(start, stop), grid.width)
            drawn = [
                cut.top + (cut.first_cell + cell) * cut.step_y + y
                for cell in range(cut.cells)
                for segment in range(cut.segments)
                for y in range(segment * cut.rows, min((segment + 1) * cut.rows, cut.step_y))
            ]
            assert [y for y in drawn if start <= y < stop] == list(range(start, stop))


def test_cut_of_several_samples_has_programs_for_each() -> None:
    grid = overlays.GRIDS["last_row_not_full"]
    one, three = (triton_gpu._cut(grid, Strip(1, grid.height), grid.width, samples) for samples in (1, 3))
    assert three.grid == (3 * one.grid[0],)
    assert three == one._replace(samples=3)


GROUPS = {
    # of a map's columns, the grid
    (2, Grid(6, 2, 3, 16, 16)): (8, 3),
    (4, Grid(6, 2, 3, 16, 16)): (8, 4),
    (1, Grid(6, 2, 3, 16, 16)): (8, 3),
    (2, Grid(6, 2, 3, 8, 8, gap=4, margin=4)): (4, 3),
    (8, Grid(6, 2, 3, 16, 16)): (4, 4),
    (16, Grid(6, 2, 3, 16, 16)): (4, 5),
    (24, Grid(6, 2, 3, 16, 16)): (1, 2),
    (2, Grid(6, 2, 3, 16, 15)): (1, 2),
    (2, Grid(6, 2, 3, 16, 16, gap=1)): (1, 2),
    (2, Grid(6, 2, 3, 16, 16, margin=2)): (1, 2),
    (2, Grid(6, 2, 3, 16, 16, least_w=50)): (1, 2),
}


@pytest.mark.parametrize(("columns", "grid"), GROUPS)
def test_columns_form_groups_that_lie_in_one_tile_and_need_few_values(columns: int, grid: Grid) -> None:
    cols = sampling_positions(columns, grid.tile_w, "center")
    group, sources = triton_gpu._group(grid, cols)
    assert (group, sources) == GROUPS[columns, grid]
    for x in range(0, grid.width, group):
        inside = [(x + i - grid.left) % grid.step_x < grid.tile_w and x + i >= grid.left for i in range(group)]
        assert len(set(inside)) == 1
    for x in range(0, grid.tile_w, group):
        assert cols.index[x + group - 1] + 1 < cols.index[x] + sources


# Copies on the device. Streams are numbers here, and copies are noted.


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Return what stands for CUDA: the current stream, and which arrays were sent."""
    device = SimpleNamespace(stream=7, arrays=[])
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: SimpleNamespace(cuda_stream=device.stream))
    monkeypatch.setattr(triton_gpu, "_sent", lambda array, _: device.arrays.append(array) or torch.as_tensor(array))
    sampling_positions.cache_clear()
    yield device
    sampling_positions.cache_clear()
    assert len(triton_gpu._copies) == 0, "copies outlive their positions"


def test_positions_are_sent_once_to_each_stream_of_each_device(sent: SimpleNamespace) -> None:
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    positions = sampling_positions(4, 9, "center")
    copies = triton_gpu._uploaded(positions, first)
    until = [1, 3, 3, 6, 6, 6, 8, 8, 9]  # samples lie at 0, 0.17, 0.61, 1.06, 1.5, 1.94, 2.39, 2.83, 3
    assert [copy.tolist() for copy in copies] == [positions.index.tolist(), positions.fraction.tolist(), until]
    assert triton_gpu._uploaded(positions, first) is copies
    assert len(sent.arrays) == 3
    assert triton_gpu._uploaded(positions, second) is not copies
    sent.stream = 8
    assert triton_gpu._uploaded(positions, first) is not copies
    assert len(sent.arrays) == 9
    sent.stream = 7
    assert triton_gpu._uploaded(positions, first) is copies
    assert triton_gpu._uploaded(sampling_positions(4, 9, "left"), first)[1].tolist() != copies[1].tolist()
    sent.arrays.clear()


# On a GPU.


@pytest.mark.gpu
def test_kernels_on_cuda_every_case_equal_reference() -> None:
    for sampled in kernels.EVERY_CASE:
        job = kernels.case_job(*sampled)
        arrays = [tensor.cuda() for tensor in (job.maps, job.vmin, job.vmax)]
        actual = triton_gpu.channel_range(arrays[0])
        values = job.maps.contiguous().numpy()
        assert_same_range([side.cpu() for side in actual], reference.channel_range(values))
        draw = partial(triton_gpu.render_strip, *arrays, job.rows, job.cols, job.grid, job.paint)
        plane = torch.empty(job.grid.height, job.grid.width, dtype=torch.uint8, device="cuda")
        draw(Strip(0, job.grid.height), plane)
        assert_same_plane(plane.cpu(), kernels.case_plane(*sampled), levels=job.paint.levels)
        for strip in job.grid.strips(5):
            band = np.empty((strip.stop - strip.start, job.grid.width), np.uint8)
            draw(strip, band)
            assert_equal_planes(band, plane[strip.start : strip.stop].cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_measurements_on_cuda_equal_reference(dtype: torch.dtype) -> None:
    # 129 x 257 values lie in three parts.
    maps = noise(19, 129, 257)
    maps[3, 5, 5], maps[4], maps[5], maps[6, 128, 256] = torch.nan, torch.inf, 0, -torch.inf
    for held in (maps.to(dtype), maps.to(dtype).permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        values = held.float().contiguous().numpy()
        actual = triton_gpu.channel_range(held.cuda())
        assert_same_range([side.cpu() for side in actual], reference.channel_range(values))
        for ours, theirs in zip(
            triton_gpu.channel_moments(held.cuda()), reference.channel_moments(values), strict=True
        ):
            assert_same_statistics(ours.cpu().double(), theirs.astype(float))


@pytest.mark.gpu
def test_blend_strip_on_cuda_equals_numpy() -> None:
    for name, grid in overlays.GRIDS.items():
        index, *arrays, expected = overlays.blend_job(name)
        strip = Strip(0, grid.height)
        out = torch.empty(expected.shape, dtype=torch.uint8, device="cuda")
        triton_gpu.blend_strip(torch.from_numpy(index).cuda(), *arrays, grid, strip, out)
        assert_equal_planes(out.cpu(), expected)
        band = np.empty_like(expected)
        triton_gpu.blend_strip(index, *arrays, grid, strip, band)
        assert_equal_planes(band, expected)


@pytest.mark.gpu
def test_maps_and_sheets_beyond_31_bits_on_cuda() -> None:
    far = torch.empty(2**31 + 16, dtype=torch.float16, device="cuda").as_strided((2, 4, 4), (2**31, 4, 1))
    far.copy_(noise(2, 4, 4))
    grid = Grid(2, 2, 1, 23_200, 46_400)  # 2 * 23,200 * 46,400 = 2.15e9 px, 2^31 is 2.147e9
    job = kernels.make_job(far.float().cpu(), grid)
    rows, cols = (sampling_positions(4, size, "center") for size in (grid.tile_h, grid.tile_w))
    plane = torch.empty(grid.height, grid.width, dtype=torch.uint8, device="cuda")
    draw = partial(triton_gpu.render_strip, far, job.vmin.cuda(), job.vmax.cuda(), rows, cols, grid, job.paint)
    draw(Strip(0, grid.height), plane)
    last = Strip(grid.height - 1, grid.height)
    expected = np.empty((1, grid.width), np.uint8)
    job_arrays = (far.float().cpu().numpy(), job.vmin.numpy(), job.vmax.numpy())
    reference.render_strip(*job_arrays, rows, cols, grid, job.paint, last, expected)
    assert_same_plane(plane[last.start :].cpu(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_samples_on_cuda_are_drawn_at_once(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    batch = torch.stack([noise(19, 7, 5) * factor for factor in (1, -3, 0, 0.01)]).to(dtype)
    batch[2, 3, 1, 1] = torch.nan
    grid = Grid(19, 4, 5, 24, 31, gap=1, margin=2)
    jobs = [kernels.make_job(maps.float(), grid, paint=kernels.WITH_ENTRIES) for maps in batch]
    held = batch.cuda().to(memory_format=memory_format)
    vmin, vmax = triton_gpu.channel_range(held)
    planes = torch.empty(4, grid.height, grid.width, dtype=torch.uint8, device="cuda")
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            planes.fill_(0xA5)
            for strip in grid.strips(20):
                band = planes[:, strip.start : strip.stop]
                given = jobs[0].rows, jobs[0].cols, grid, kernels.WITH_ENTRIES
                triton_gpu.render_strip(held, vmin, vmax, *given, strip, band)
        torch.cuda.synchronize()
        for job, low, high, plane in zip(jobs, vmin.cpu(), vmax.cpu(), planes.cpu(), strict=True):
            assert_same_range((low, high), (job.vmin, job.vmax))
            expected = kernels.draw("reference", job)
            assert_same_plane(plane, expected, levels=kernels.WITH_ENTRIES.levels)


@pytest.mark.gpu
def test_drawing_again_on_cuda_sends_and_waits_for_nothing() -> None:
    maps = noise(8, 7, 7).half().cuda()
    cf.render_index(maps, tile=56)  # compiles, and sends the positions
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            cf.render_index(maps, tile=56)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ran = [event.key for event in profile.key_averages()]
    assert sum("render_block" in key for key in ran) == 1
    assert not [key for key in ran if "HtoD" in key or "DtoH" in key]


@pytest.mark.gpu
def test_trial_on_cuda_passes() -> None:
    triton_gpu.trial()
