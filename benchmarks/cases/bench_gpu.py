"""On a CUDA device: drawing beside filling the same memory, and looking into a pass beside the pass alone.

Where the device's own time is asked for, it is taken from events on its stream, and the work is launched while the
device still waits: launching takes the CPU longer than drawing a sheet takes the device. CUDA queues about a thousand
kernels behind a device that waits; what takes more is launched as one CUDA graph. Without a CUDA device these cases are
deselected.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from benchmarks.cases.bench_capture import INPUT_PX, resnet50
from benchmarks.harness import peers
from benchmarks.harness.drawing import COLORMAP, SPOILT, anything, drawing_of
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Inside, Table, cases
from benchmarks.harness.workloads import LAYER4, Workload, maps_of
from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.operators import render_index
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.sheets.plan import Plan, plan_sheet

DEVICE, BACKEND = "cuda", "auto"
IMAGES = 64
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
STAGE_TILE_PX = 56
HOLD_CYCLES = 100_000_000
"""The device counts so far before it starts: 50 ms at 2 GHz, while the CPU launches some hundred kernels at 20 us."""


def wait() -> None:
    """Return when the device has done all it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def on_device(work: Callable[[], object]) -> Inside:
    """Take the time that the device needs, without the CPU's for launching."""
    if DEVICE != "cuda":
        start_s = time.perf_counter()
        work()
        return Inside(time.perf_counter() - start_s)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    wait()
    torch.cuda._sleep(HOLD_CYCLES)
    start.record()
    work()
    stop.record()
    wait()
    return Inside(start.elapsed_time(stop) / 1e3)


def graphed(work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Capture work into a CUDA graph; return what does it again in one launch, into the same memory every time."""
    if DEVICE != "cuda":
        return work
    wait()
    with torch.cuda.stream(torch.cuda.Stream()):
        work()  # what it loads and allocates the first time cannot be captured
    wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def again() -> torch.Tensor:
        graph.replay()
        return result

    return again


def awaited(work: Callable[[], Any]) -> Any:
    """Do work and wait for the device, as a caller who needs the result does."""
    result = work()
    wait()
    return result


class OnDevice:
    """A workload's maps and memory for its sheet on the device. Nothing is made before it is used."""

    def __init__(self, workload: Workload) -> None:
        self.drawing = drawing_of(workload)
        self.tile_px = workload.tile_px
        self.maps = cache(lambda: self.drawing.maps.to(DEVICE))
        self.plane = cache(lambda: torch.full_like(torch.from_numpy(self.drawing.plane), SPOILT, device=DEVICE))
        self.plan = cache(self._plan)

    def _plan(self) -> Plan:
        return plan_sheet(
            self.maps(), RenderOptions(tile=self.tile_px, plain=True, colormap=COLORMAP, backend=BACKEND), Provenance()
        )

    def draw(self) -> None:
        """Draw the planned sheet into the plane, which stays on the device."""
        plan, plane = self.plan(), self.plane()
        for strip in plan.strips():
            plan.backend.kernels.render_strip(
                plan.maps, plan.vmin, plan.vmax, plan.rows, plan.cols, plan.grid, plan.paint, strip,
                plane[strip.start : strip.stop],
            )  # fmt: skip

    def prepare(self) -> None:
        """Make what contenders share."""
        self.drawing.prepare()
        self.plan(), self.plane()

    def drew(self, _: object) -> None:
        """Assert that the plane is the expected one, and spoil it."""
        self.drawing.is_close(self.plane().cpu().numpy())
        self.plane().fill_(SPOILT)

    def is_close(self, index: torch.Tensor) -> None:
        """Assert that a plane, or the last of a batch, is the expected one."""
        self.drawing.is_close(index.view(-1, *index.shape[-2:])[-1].cpu().numpy())


def render_table(workload: Workload) -> Table:
    """One sheet, beside a fill, which nothing can beat, and the usual way with torch."""
    there, d = OnDevice(workload), drawing_of(workload)
    # Two thousand tiles are as many kernels.
    grid_again = cache(lambda: graphed(lambda: peers.interpolate_make_grid(there.maps(), there.tile_px, d.cols)))
    last: list[torch.Tensor] = []

    def make_grid() -> None:
        last[:] = [grid_again()()]

    return Table(
        f"render {workload.name} on CUDA",
        [
            Contender("kernel, device time", lambda: on_device(there.draw), there.drew, OURS, d.bytes),
            Contender(
                "render_index, awaited", lambda: awaited(lambda: render_index(there.maps(), tile=there.tile_px)),
                there.is_close, OURS, d.bytes,
            ),
            Contender(
                "fill, device time", lambda: on_device(lambda: there.plane().fill_(SPOILT)), anything, FLOOR, d.bytes
            ),
            Contender(
                "F.interpolate + make_grid, device time", lambda: on_device(make_grid),
                lambda _: d.is_close(entries(last[0])), PEER, d.bytes,
            ),
        ],
        prepare=lambda: (there.prepare(), grid_again()), full_only=True, device="cuda",
    )  # fmt: skip


def entries(grid: torch.Tensor) -> Any:
    """Round a grid of three equal channels in [0, 1] to the entries of a plane."""
    return (grid[0] * 255 + 0.5).to(torch.uint8).cpu().numpy()


def batch_table(workload: Workload, images: int) -> Table:
    """Sheets of a whole batch in one call; the last one has the maps of the workload itself."""
    there, d = OnDevice(workload), drawing_of(workload)
    size = images * d.bytes
    batch = cache(lambda: torch.stack([maps_of(workload, seed) for seed in range(images)][::-1]).to(DEVICE))
    planes = cache(lambda: torch.stack([there.plane()] * images))
    last: list[torch.Tensor] = []

    def draw() -> None:
        last[:] = [render_index(batch(), tile=workload.tile_px)[-1]]

    return Table(
        f"render {images} images of {workload.name} on CUDA",
        [
            Contender(
                "render_index, device time", lambda: on_device(draw), lambda _: there.is_close(last[0]), OURS, size
            ),
            Contender(
                "render_index, awaited", lambda: awaited(lambda: render_index(batch(), tile=workload.tile_px)),
                there.is_close, OURS, size,
            ),
            Contender(
                "fill, device time", lambda: on_device(lambda: planes().fill_(SPOILT)), anything, FLOOR, size
            ),
        ],
        prepare=lambda: (there.prepare(), batch(), planes()), full_only=True, device="cuda",
    )  # fmt: skip


def look_table(images: int) -> Table:
    """A pass of ResNet-50 of which only index planes of its five stages are kept, beside the pass alone."""
    model = cache(lambda: copy.deepcopy(resnet50()).to(DEVICE))
    batch = cache(
        lambda: torch.randn(images, 3, INPUT_PX, INPUT_PX, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    )

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return model()(batch())

    def planes() -> dict[str, torch.Tensor]:
        drawn: dict[str, torch.Tensor] = {}

        def consume(layer: str, maps: torch.Tensor) -> None:
            drawn[layer] = render_index(maps, tile=STAGE_TILE_PX)

        capture_stream(model(), batch(), STAGES, consume)
        return drawn

    def check(drawn: dict[str, torch.Tensor]) -> None:
        seen = capture(model(), batch(), list(STAGES))
        assert list(drawn) == list(STAGES)
        for layer, index in drawn.items():
            assert torch.equal(index, render_index(seen[layer], tile=STAGE_TILE_PX))

    return Table(
        f"look into ResNet-50, batch {images}, on CUDA",
        [
            Contender("forward pass alone", lambda: awaited(forward), anything, FLOOR, 0),
            Contender("capture and render five stages", lambda: awaited(planes), check, OURS, 0),
        ],
        prepare=lambda: (model(), batch()), full_only=True, device="cuda",
    )  # fmt: skip


TABLES = [render_table(LAYER4), batch_table(LAYER4, IMAGES), look_table(IMAGES)]


@cases(TABLES)
def bench_gpu(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
