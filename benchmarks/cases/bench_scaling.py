"""How the time of `save_sheet` and of the kernels grows with channels, with pixels, and falls with threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cnnviz_fast as cf
from benchmarks.harness import old_ways, outputs
from benchmarks.harness.drawing import COLORMAP, FASTEST, Drawing, drawing_of
from benchmarks.harness.measure import OURS, PEER, Contender, Table, cases, held_to
from benchmarks.harness.workloads import LAYER2, LAYER4, Workload, maps_of
from cnnviz_fast.runtime.workers import default_threads

CHANNELS = (64, 256, 1024, 2048)
TILES_PX = (28, 56, 112, 224, 448)
TILED_CHANNELS = 512
ARTICLE_COLS = 16


def sheet_of(workload: Workload, name: str, threads: int = 2) -> Contender:
    """`save_sheet` of one workload as a point of a curve."""
    d = drawing_of(workload)

    def path() -> Path:
        return outputs.path("curve.png")

    return Contender(
        name,
        lambda: cf.save_sheet(d.maps, path(), tile=d.tile_px, plain=True, colormap=COLORMAP, threads=threads),
        d.file_is_expected, OURS, d.bytes, threads=threads, output=path,
    )  # fmt: skip


def thread_counts() -> list[int]:
    """1, 2, 4 and so on up to all cores."""
    cores = default_threads()
    return sorted({1, 2, *(2**k for k in range(2, cores.bit_length()) if 2**k <= cores), max(cores, 2)})


def kernel_of(d: Drawing, threads: int) -> Contender:
    """The kernel alone as a point of a curve."""
    name = held_to("render", threads)
    return Contender(name, d.draw(FASTEST, threads), d.is_expected, OURS, d.bytes, threads=threads)


def curves() -> list[Table]:
    """Time against channels, against pixels, against threads; each beside the fill of its largest sheet."""
    by_channels = [Workload(count, 7, 224) for count in CHANNELS]
    by_pixels = [Workload(TILED_CHANNELS, 7, px) for px in TILES_PX]
    d = drawing_of(LAYER4)

    def prepare(workloads: Sequence[Workload]) -> Callable[[], object]:
        return lambda: [drawing_of(workload).prepare() for workload in workloads]

    return [
        Table(
            "save_sheet by channels, 7x7 to 224 px",
            [*(sheet_of(w, f"{w.channels} channels") for w in by_channels), d.fill()],
            prepare(by_channels),
            full_only=True,
        ),
        Table(
            f"save_sheet by pixels, {TILED_CHANNELS}x7x7",
            [*(sheet_of(w, f"tiles of {w.tile_px} px") for w in by_pixels), drawing_of(by_pixels[-1]).fill()],
            prepare(by_pixels),
            full_only=True,
        ),
        Table(
            f"by threads, {LAYER4.name}",
            [
                *(kernel_of(d, n) for n in thread_counts()),
                *(sheet_of(LAYER4, held_to("save_sheet", n), n) for n in thread_counts()),
                d.fill(),
            ],
            d.prepare,
            full_only=True,
        ),
    ]


def own_size_table() -> Table:
    """Maps at their own size in one grid, which is all that article 001 draws."""
    workload = replace(LAYER2, tile_px=LAYER2.map_px)
    d = drawing_of(workload)

    def article() -> object:
        return old_ways.article_001(d.array, ARTICLE_COLS)

    def ours() -> object:
        return cf.render(
            maps_of(workload), tile=d.tile_px, plain=True, grid=f"x{ARTICLE_COLS}", colormap=COLORMAP, threads=2
        ).index

    def is_right(sheet: object) -> None:
        assert abs(sheet - (article() * 255)).max() <= 1

    def is_whole(sheet: object) -> None:
        assert sheet.shape == (workload.channels // ARTICLE_COLS * d.tile_px, ARTICLE_COLS * d.tile_px)

    return Table(
        f"grid {workload.name}, at the maps' own size",
        [
            Contender("render, 2 threads", ours, is_right, OURS, d.tiles_bytes, threads=2),
            Contender("hstack and vstack loop (article 001)", article, is_whole, PEER, d.tiles_bytes),
        ],
        d.prepare,
        full_only=True,
    )


TABLES = [*curves(), own_size_table()]


@cases(TABLES)
def bench_scaling(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
