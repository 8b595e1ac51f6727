"""What only a GPU can prove, and the same tests in small on the CPU, so that they are known to work where none is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from support import kernel_jobs as kernels
from support.assertions import assert_same_plane, assert_same_range
from support.looping import case
from support.quick import quick
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import cnnviz_fast as cf
from cnnviz_fast import operators
from cnnviz_fast.channels.ranges import drawing_range
from cnnviz_fast.channels.values import squash
from cnnviz_fast.geometry import Grid, Strip, sampling_positions
from cnnviz_fast.kernels import Paint, backends, numba_cpu, torch_ops
from cnnviz_fast.options.drawing import BY_SIZE_ALONE, NORMALIZATIONS, UPSAMPLINGS, RenderOptions

ON_A_GPU, ON_THE_CPU = 10_000, 200
BLOCK = 100
"""Cases of one test."""


# Random cases: planes and ranges, by numba, which equals the reference.


@dataclass(frozen=True, eq=False)
class RandomCase:
    """Maps as a layer may put them out, and a job that draws them.

    base: what is sent to the device, any shape; `view` makes the maps, (C, H, W), of it, with their strides.
    job: with the maps as float32 on the CPU.
    strip_rows: height of the strips.
    """

    base: torch.Tensor
    view: Callable[[torch.Tensor], torch.Tensor]
    job: kernels.Job
    strip_rows: int


def random_case(number: int) -> RandomCase:
    """Make a case; the same number makes the same one."""
    random = np.random.default_rng(number)
    most_px = int(random.choice([18, 160], p=[0.97, 0.03]))  # from 16,384 values on, a range is put together of parts
    count, height, width = (int(random.integers(1, most)) for most in (30, most_px, most_px))
    base, view = random_maps(random, count, height, width)
    maps = view(base).float()
    cols = int(random.integers(1, count + 2))
    tile_h, tile_w = (int(random.choice([size, 2 * size, random.integers(1, 70)])) for size in (height, width))
    room = {name: int(random.integers(0, 9)) for name in ("gap", "margin", "label_h", "label_w", "head", "foot")}
    rows = -(-count // cols) + int(random.integers(2))
    grid = Grid(count, rows, cols, tile_h, tile_w, **room, least_w=int(random.integers(0, 300)))

    options = random_range(random)
    vmin, vmax = map(torch.from_numpy, numba_cpu.channel_range(maps.contiguous().numpy()))
    if options.normalize == "sigmoid":
        maps = squash(maps)
        base, view = maps, lambda maps: maps
    vmin, vmax = (side.contiguous() for side in drawing_range(maps, vmin, vmax, options))
    levels = int(random.choice([256, 255, 254, 17, 2]))
    background, bad = ((254, 255), (0, 255), (255, 0))[random.integers(3)]
    align, upsampling = str(random.choice(BY_SIZE_ALONE)), str(random.choice(UPSAMPLINGS))
    down, across = (sampling_positions(n, size, align, upsampling) for n, size in ((height, tile_h), (width, tile_w)))
    job = kernels.Job(maps, vmin, vmax, down, across, grid, Paint(levels, options.flat, background, bad))
    return RandomCase(base, view, job, int(random.integers(1, grid.height + 1)))


def random_maps(
    random: np.random.Generator, count: int, height: int, width: int
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Make maps of any dtype that layers put out, with any strides; some values zero, huge or not finite."""
    order, view = MEMORY[random.integers(len(MEMORY))]
    shape = order(count, height, width)
    values = random.standard_normal(shape) * 10.0 ** random.integers(-3, 4)
    values[random.random(shape) < random.choice([0, 0.5, 1], p=[0.4, 0.5, 0.1])] = 0
    for odd in (np.nan, np.inf, -np.inf, 6e4):
        values[random.random(shape) < random.choice([0, 0.02, 0.4], p=[0.8, 0.15, 0.05])] = odd
    dtype = (torch.float32, torch.float16, torch.bfloat16)[random.integers(3)]
    return torch.from_numpy(values.astype(np.float32)).to(dtype), view


MEMORY: list[tuple[Callable[..., tuple[int, ...]], Callable[[torch.Tensor], torch.Tensor]]] = [
    (lambda c, h, w: (c, h, w), lambda base: base),
    (lambda c, h, w: (h, w, c), lambda base: base.permute(2, 0, 1)),
    (lambda c, h, w: (2, h, w, c), lambda base: base.permute(0, 3, 1, 2)[1]),
    (lambda c, h, w: (c, w, h), lambda base: base.transpose(1, 2)),
    (lambda c, h, w: (2 * c, h, 2 * w + 1), lambda base: base[::2, :, 1::2]),
    (lambda c, h, w: (c, h + 2, w + 3), lambda base: base[:, 1:-1, 2:-1]),
]
"""The shape in memory of maps of (C, H, W), and what makes maps of it."""


def random_range(random: np.random.Generator) -> RenderOptions:
    """Choose a way to normalise."""
    normalize = str(random.choice(NORMALIZATIONS))
    more: dict[str, Any] = {}
    if normalize == "fixed":
        more = dict(zip(("vmin", "vmax"), ((0, 1), (-3e38, 3e38), (-2, 0.001))[random.integers(3)], strict=True))
    return RenderOptions(normalize=normalize, **more)


def assert_block_is_right(first: int, module: ModuleType, device: str) -> None:
    """Compare a backend with numba on BLOCK cases."""
    for number in range(first, first + BLOCK):
        assert_same_as_numba(random_case(number), module, device)


def assert_same_as_numba(drawn: RandomCase, module: ModuleType, device: str) -> None:
    """Compare a backend's ranges and strips of a case; on CUDA halves are read as they are."""
    job = drawn.job
    maps = drawn.view(drawn.base.to(device))
    maps = maps.float() if device == "cpu" else maps
    found = module.channel_range(maps)
    assert_same_range([side.cpu() for side in found], numba_cpu.channel_range(job.maps.contiguous().numpy()))
    plane = torch.full((job.grid.height, job.grid.width), 0xA5, dtype=torch.uint8, device=device)
    ends = job.vmin.to(device), job.vmax.to(device)
    for start in range(0, job.grid.height, drawn.strip_rows):
        strip = Strip(start, min(start + drawn.strip_rows, job.grid.height))
        out = plane[strip.start : strip.stop]
        module.render_strip(maps, *ends, job.rows, job.cols, job.grid, job.paint, strip, out)
    assert_same_plane(plane.cpu(), kernels.draw("numba", job), levels=min(job.paint.levels, 255))


def test_random_cases_differ_in_everything() -> None:
    cases = [random_case(number) for number in range(300)]
    maps = [case.view(case.base) for case in cases]
    assert {m.dtype for m in maps} == {torch.float32, torch.float16, torch.bfloat16}
    assert {m.is_contiguous() for m in maps} == {True, False}
    assert any(m.stride(0) == 1 and m.stride(2) > 1 for m in maps), "channels last"
    assert any(m.isnan().any() for m in maps)
    assert any(m.isinf().any() for m in maps)
    assert {case.job.paint.levels for case in cases} == {256, 255, 254, 17, 2}
    assert any(case.job.grid.tile_h < case.job.maps.shape[1] for case in cases)
    assert any(case.job.grid.tile_h == case.job.maps.shape[1] for case in cases)
    assert any(case.strip_rows < case.job.grid.height for case in cases)
    assert torch.equal(random_case(7).base.nan_to_num(), cases[7].base.nan_to_num())


@pytest.mark.parametrize("first", quick(range(0, ON_THE_CPU, BLOCK), [0]))
def test_random_cases_torch_equals_numba(first: int) -> None:
    assert_block_is_right(first, backends.BACKENDS["torch"].kernels, "cpu")


def test_random_cases_find_a_wrong_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_ops = backends.BACKENDS["torch"].kernels
    monkeypatch.setattr(torch_ops, "blend", lambda before, after, fraction: before)
    with pytest.raises(AssertionError, match="levels apart"):
        assert_block_is_right(0, torch_ops, "cpu")


@pytest.mark.gpu
def test_random_cases_triton_equals_numba() -> None:
    assert not backends.missing("triton")
    for first in range(0, ON_A_GPU, BLOCK):
        with case(first):
            assert_block_is_right(first, backends.BACKENDS["triton"].kernels, "cuda")


# Batches of more elements than 31 bits count.


def assert_batch_is_right(device: str, side_px: int) -> None:
    """Draw two samples of two maps at their own size; the last rows of both are what the rule says."""
    maps = torch.empty(2, 2, side_px, side_px, dtype=torch.float16, device=device).uniform_()
    index = cf.render_index(maps, tile=side_px, grid="1x2")
    assert index.shape == (2, side_px, 2 * side_px)
    for sample in range(2):
        for c in range(2):
            low, high = maps[sample, c].amin().float(), maps[sample, c].amax().float()
            values = (maps[sample, c, -3:].float() - low) / (high - low)
            expected = (values * 255 + 0.5).floor().to(torch.uint8)
            assert_same_plane(index[sample, -3:, c * side_px : (c + 1) * side_px].cpu(), expected.cpu())


def test_render_index_draws_every_sample_of_a_batch() -> None:
    assert_batch_is_right("cpu", 50)


@pytest.mark.gpu
def test_render_index_draws_a_batch_beyond_31_bits() -> None:
    side_px = 23_200  # 2 * 2 * 23,200^2 = 2.153e9 values, 2^31 is 2.147e9
    free_bytes, _ = torch.cuda.mem_get_info()
    if free_bytes < 24e9:  # the maps, as float32 too, and the planes
        pytest.skip(f"{free_bytes / 1e9:.0f} GB are free on the device, and 24 are needed")
    assert_batch_is_right("cuda", side_px)


# Memory.


def planes_of(seen: dict[str, torch.Tensor]) -> None:
    """Draw planes that stay on the device."""
    planes = [cf.render_index(maps, tile=20, normalize="percentile") for maps in seen.values()]
    assert all(plane.is_cuda for plane in planes)


def sheets_of(seen: dict[str, torch.Tensor]) -> None:
    """Draw sheets, which land in page-locked memory by way of a stream of their own."""
    assert len(list(cf.render_batch(seen, tile=20))) == 2 * 4


@pytest.mark.gpu
@pytest.mark.parametrize("draw", [planes_of, sheets_of])
def test_memory_is_back_at_its_start_after_1000_batches(draw: Callable[[dict[str, torch.Tensor]], None]) -> None:
    model, batch = small_model().cuda(), torch.randn(4, 3, 16, 16, device="cuda")

    def look() -> None:
        draw(cf.capture(model, batch, "type:Conv2d", channels="0-5"))

    def held_bytes() -> tuple[int, int, int]:
        torch.cuda.synchronize()
        page_locked = torch.cuda.host_memory_stats()["allocated_bytes.current"]
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved(), page_locked

    for _ in range(10):
        look()
    start_bytes = held_bytes()
    for _ in range(1000):
        look()
    assert held_bytes() == start_bytes


# The first sheet of a process.

FIRST_SHEET = """
import time
import torch
import cnnviz_fast as cf
maps = torch.rand(64, 7, 7, device="cuda")
torch.cuda.synchronize()
start_s = time.perf_counter()
index = cf.render_index(maps, tile=56)
torch.cuda.synchronize()
print(time.perf_counter() - start_s)
"""


@pytest.mark.gpu
def test_the_first_sheet_of_a_process_takes_less_than_a_second_once_triton_has_compiled() -> None:
    for _ in range(2):  # the first process compiles what is not in Triton's cache yet
        done = subprocess.run([sys.executable, "-c", FIRST_SHEET], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1, f"{done.stdout} s"


# Nothing in a hook waits for the device.


def small_model() -> nn.Sequential:
    """Return two convolutions with something in place between them."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3)).eval()


OWN = {own._opoverload: own for own in (operators.channel_range, operators.draw_index)}


class RefusesToWait(TorchDispatchMode):
    """Refuses what would have to wait for a device: values that are read, and shapes that depend on them.

    It sees into the operators of this package, which draw by the torch backend meanwhile.
    """

    WAITING = (
        "aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2",
        "aten::equal",
    )  # fmt: skip

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.name in self.WAITING:
            raise RuntimeError(f"called a synchronizing operation: {function}")
        if own := OWN.get(function):
            with self, pytest.MonkeyPatch.context() as patch:
                patch.setattr(backends, "choose", lambda name, device: backends.BACKENDS["torch"])
                patch.setattr(torch, "get_num_threads", lambda: 1)  # a mode has a hold on its own thread only
                return own._init_fn(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def refused_to_wait(device: str) -> Iterator[None]:
    """Make whatever waits for the device an error."""
    if device == "cpu":
        with RefusesToWait():
            yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Watched(nn.Module):
    """A model that may not wait while its layers run, and so neither may hooks on them."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.body = small_model()
        self.device = device

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        with refused_to_wait(self.device):
            result: torch.Tensor = self.body(batch)
        return result


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Return the device, in turn."""
    return str(request.param)


KEPT: dict[str, dict[str, Any]] = {
    "everything": {},
    "channels": {"channels": "0-3,5"},
    **{f"reduced_by_{way}": {"reduce": way} for way in ("sum", "mean", "max")},
    "channels_reduced": {"channels": "5,1", "reduce": "mean"},
}


@pytest.mark.parametrize("name", KEPT)
def test_hook_does_not_wait_for_the_device(name: str, device: str) -> None:
    model, batch = Watched(device).to(device), torch.randn(2, 3, 12, 12, device=device)
    for _ in range(2):
        seen = cf.capture(model, batch, "type:Conv2d", keep="device", **KEPT[name])
    assert [maps.device.type for maps in seen.values()] == [device] * 2


@pytest.mark.parametrize("normalize", ["channel", "layer", "percentile", "symmetric", "sigmoid"])
def test_rendering_in_a_hook_does_not_wait_for_the_device(normalize: str, device: str) -> None:
    model, batch = Watched(device).to(device), torch.randn(2, 3, 12, 12, device=device)
    cf.render_index(batch, tile=5)  # compiles, and tries Triton, which waits
    drawn: list[torch.Tensor] = []
    cf.capture_stream(
        model, batch, "type:Conv2d",
        lambda name, maps: drawn.append(cf.render_index(maps, tile=(30, 5), normalize=normalize)),
    )  # fmt: skip
    assert [plane.device.type for plane in drawn] == [device] * 2


@pytest.mark.parametrize("waits", [lambda x: x.sum().item(), lambda x: x.nonzero()])
def test_what_waits_in_a_hook_is_found(waits: Callable[[torch.Tensor], Any], device: str) -> None:
    model, batch = Watched(device).to(device), torch.randn(2, 3, 12, 12, device=device)
    with pytest.raises(RuntimeError, match="synchronizing"):
        cf.capture_stream(model, batch, "body.0", lambda name, maps: waits(maps))


@pytest.mark.parametrize("waits", [lambda maps: maps.sum().item(), lambda maps: maps.nonzero()])
@pytest.mark.parametrize("inside", ["normalize", "channel_range"])
def test_what_waits_inside_an_operator_is_found(
    inside: str, waits: Callable[[torch.Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = getattr(torch_ops, inside)
    monkeypatch.setattr(torch_ops, inside, lambda maps, *rest: (waits(maps), work(maps, *rest))[1])
    with pytest.raises(RuntimeError, match="synchronizing"), RefusesToWait():
        cf.render_index(torch.randn(2, 3, 12, 12), tile=20)
