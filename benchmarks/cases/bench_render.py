"""Everything before the first byte is encoded: ranges, plans, kernels drawing into memory that is already mapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.harness import installed, old_ways, peers
from benchmarks.harness.drawing import FASTEST, ON_THE_CPU, Drawing, Plane, anything, drawing_of
from benchmarks.harness.drawing_peers import DRAWERS, Drawer
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Table, cases, held_to
from benchmarks.harness.workloads import CONV1, LAYER4, TINY, WORKLOADS, Workload, maps_of
from cnnviz_fast.kernels import reference

PIXEL_LOOP_CHANNELS = 2
THREADS = (1, 2)


def ours(d: Drawing) -> list[Contender]:
    """The kernels. Those that stand in for the native ones where these are missing are timed in full runs."""
    return [
        Contender(
            held_to(backend, n), d.draw(backend, n), d.is_expected, OURS, d.bytes, threads=n,
            slow=backend != FASTEST, load=drawing_of(TINY).draw(backend, n),
        )
        for backend in ON_THE_CPU
        for n in THREADS
    ]  # fmt: skip


def peer(d: Drawing, drawer: Drawer, threads: int) -> Contender:
    """Make a contender of another tool that draws the same plane."""

    def draw(d: Drawing) -> Plane:
        return drawer.draw(d.maps, d.tile_px, d.cols, d.plane)

    return Contender(
        held_to(drawer.name, threads), partial(draw, d), d.is_close, PEER, d.bytes, threads=threads,
        slow=not drawer.short, packages=drawer.packages, load=partial(draw, drawing_of(TINY)),
    )  # fmt: skip


def render_table(workload: Workload) -> Table:
    """The kernels beside filling and copying the same memory, and the usual ways to draw the same plane."""
    d, px = drawing_of(workload), workload.tile_px
    contenders = [
        *ours(d),
        Contender("torch, 2 threads", d.draw("torch", 2), d.is_expected, OURS, d.bytes, threads=2, slow=True),
        d.fill(),
        d.copy(),
        *(peer(d, drawer, n) for drawer in installed.of(DRAWERS) for n in drawer.threads),
        Contender(
            "F.interpolate + make_grid", lambda: peers.interpolate_make_grid(d.maps, px, d.cols),
            grid_is_close(workload), PEER, d.bytes, threads=2, slow=True,
        ),
    ]  # fmt: skip
    if workload is LAYER4:
        contenders.append(
            Contender(
                "Python loop over pixels (article 003)",
                lambda: old_ways.article_003_sheet(d.array[:PIXEL_LOOP_CHANNELS], px),
                lambda sheet: first_tiles_are_close(workload, sheet), PEER, d.bytes,
                ran=PIXEL_LOOP_CHANNELS, of=workload.channels, slow=True,
            )
        )  # fmt: skip
    return Table(f"render {workload.name}", contenders, prepare=d.prepare, full_only=workload is not LAYER4)


def grid_is_close(workload: Workload) -> Callable[[torch.Tensor], None]:
    """Return the check of a grid that is float in [0, 1] and has three equal channels."""
    return lambda grid: drawing_of(workload).is_close((grid[0] * 255 + 0.5).to(torch.uint8).numpy())


def first_tiles_are_close(workload: Workload, sheet: Any) -> None:
    """Assert that tiles side by side are the first of the expected ones, within 1 level."""
    expected = np.hstack(drawing_of(workload).tiles[: sheet.shape[1] // workload.tile_px])
    assert abs(sheet.astype(np.int16) - expected).max() <= 1


def tiny_table() -> Table:
    """All backends, the reference with them, which no larger workload could wait for."""
    d = drawing_of(TINY)
    return Table(
        f"render {TINY.name}: every backend",
        [
            *(
                Contender(held_to(name, 1), d.draw(name, 1), d.is_expected, OURS, d.bytes)
                for name in ("reference", "torch", *ON_THE_CPU)
            ),
            d.fill(),
        ],
        prepare=d.prepare,
        full_only=True,
    )


def range_table(workload: Workload) -> Table:
    """Least and greatest value of each channel, beside reading the maps once."""
    d = drawing_of(workload)
    size = 4 * workload.channels * workload.map_px**2

    def is_right(found: Any) -> None:
        for ours, exact in zip(found, reference.channel_range(d.array), strict=True):
            assert np.array_equal(np.asarray(ours), exact)

    def ranges(backend: str) -> Callable[[], Any]:
        def measured() -> Any:
            chosen = d.plan(backend).backend
            return chosen.kernels.channel_range(chosen.to_array(d.maps))

        return measured

    return Table(
        f"channel_range {workload.name.split(' to ')[0]}",
        [
            *(Contender(held_to(name, 1), ranges(name), is_right, OURS, size) for name in ON_THE_CPU),
            Contender("torch, 2 threads", ranges("torch"), is_right, OURS, size, threads=2),
            Contender("torch amin and amax", lambda: (d.maps.amin((1, 2)), d.maps.amax((1, 2))), is_right, PEER, size),
            Contender("copy", lambda: d.maps.clone(), anything, FLOOR, size),
        ],
        prepare=d.prepare,
        full_only=True,
    )


def plan_table(workload: Workload) -> Table:
    """Everything about a sheet but its pixels: statistics, ranges, positions, manifest."""
    d = drawing_of(workload)

    def is_whole(plan: Any) -> None:
        assert len(plan.describe()["tiles"]) == workload.channels

    size = 4 * workload.channels * workload.map_px**2
    return Table(
        f"plan {workload.name}",
        [
            Contender("plan_sheet", lambda: d.plan.__wrapped__(), is_whole, OURS, size, threads=2),
            Contender("copy of the maps", lambda: maps_of(workload).clone(), anything, FLOOR, size),
        ],
        full_only=True,
    )


TABLES = [
    *map(render_table, WORKLOADS),
    tiny_table(),
    range_table(LAYER4),
    range_table(CONV1),
    plan_table(LAYER4),
    plan_table(CONV1),
]


@cases(TABLES)
def bench_render(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
