"""From a tensor to one PNG file: `save_sheet` beside the other ways, a batch of images, and a sheet of 20,000 px."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import cnnviz_fast as cf
from benchmarks.harness import drawing_peers, installed, old_ways, outputs, peers, png_peers, processes
from benchmarks.harness.drawing import COLORMAP, FASTEST, Drawing, anything, decoded, drawing_of
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Inside, Table, cases, held_to
from benchmarks.harness.workloads import DEAD, HUGE, IMAGES, LAYER4, LAYER4_SMALL, TINY, WORKLOADS, Workload, maps_of
from cnnviz_fast.sheets import native_file

FIGURE_CHANNELS = 64
FIGURE_COLS = 8
TORCH_IMAGES = 2

SHEET = "sheet.png"


def sheet_path() -> Path:
    """The file that every contender writes."""
    return outputs.path(SHEET)


def save_sheet(d: Drawing, threads: int, colormap: str = COLORMAP) -> Contender:
    """What this package does."""
    name = held_to("save_sheet", threads) + (f", {colormap}" if colormap != COLORMAP else "")
    return Contender(
        name,
        lambda: cf.save_sheet(d.maps, sheet_path(), tile=d.tile_px, plain=True, colormap=colormap, threads=threads),
        d.file_is_expected if colormap == COLORMAP else lambda path: shows_sheet_in_color(d, path),
        OURS, d.bytes, threads=threads, output=sheet_path,
    )  # fmt: skip


def shows_sheet_in_color(d: Drawing, path: Path) -> None:
    """Assert that a file is what `render` gives in the same colormap, by OpenCV's decoder."""
    sheet = cf.render(d.maps, tile=d.tile_px, plain=True)
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), sheet.rgb())


def raw(d: Drawing) -> Contender:
    """The floor: the sheet's bytes in a file, not encoded."""
    return Contender("raw bytes", lambda: d.expected.tofile(sheet_path()), anything, FLOOR, d.bytes, output=sheet_path)


def alone(d: Drawing, threads: int) -> Contender:
    """The floor: the strips drawn and encoded, without a plan, a manifest, or a file that keeps them."""

    def run() -> int:
        with open(os.devnull, "wb") as nowhere:
            return native_file.write_strips(d.plan("native", threads), nowhere.fileno())

    def is_right(adler: int) -> None:
        native_file.write_png(d.plan("native", threads), sheet_path())
        d.file_is_expected(sheet_path())
        assert sheet_path().read_bytes()[-20:-16] == adler.to_bytes(4, "big")  # before the CRC and the last chunk

    return Contender(held_to("drawing and encoding alone", threads), run, is_right, FLOOR, d.bytes, threads=threads)


@dataclass(frozen=True)
class Writer:
    """A peer that draws and writes a sheet with tools of one's own choice; packages: see drawing_peers.Drawer."""

    name: str
    write: Callable[[Drawing, Path], object]
    packages: tuple[str, ...]


def write_with_fpng(d: Drawing, path: Path) -> None:
    """Draw and write with what is fastest of the peers on most shapes."""
    path.write_bytes(png_peers.fpng(peers.cv2_uint8_loop(d.array, d.tile_px, d.cols, d.plane)))


def write_with_libvips(d: Drawing, path: Path) -> None:
    """Draw and write in one pipeline of libvips, which never holds the sheet."""
    drawing_peers.vips_join(d.maps, d.tile_px, d.cols).pngsave(str(path), compression=1, filter="up")


WRITERS = (
    Writer("cv2.resize loop on uint8 + fpng, as RGB", write_with_fpng, ("fpng",)),
    Writer("libvips: affine of uint8, arrayjoin, pngsave", write_with_libvips, ("pyvips", "pyvips-binary")),
)


def by(writer: Writer, d: Drawing) -> Contender:
    """Make a contender of such a peer."""
    return Contender(
        writer.name, lambda: writer.write(d, sheet_path()), lambda _: d.file_is_close(sheet_path()), PEER, d.bytes,
        threads=2, output=sheet_path, slow=True, packages=writer.packages,
        load=lambda: writer.write(drawing_of(TINY), sheet_path()),
    )  # fmt: skip


def write_table(workload: Workload) -> Table:
    """A whole sheet, by all who can write one."""
    d, px = drawing_of(workload), workload.tile_px
    large = d.bytes > 100e6
    contenders = [
        save_sheet(d, 1),
        save_sheet(d, 2),
        *((alone(d, 1), alone(d, 2)) if FASTEST == "native" else ()),
        d.copy(),
        raw(d),
        Contender(
            "cv2.resize loop + cv2.imwrite", lambda: peers.cv2_sheet(d.array, px, d.cols, d.plane, sheet_path()),
            d.file_is_close, PEER, d.bytes, threads=2, output=sheet_path, slow=large,
        ),
        Contender(
            "Pillow, level 1 (drawn beforehand)", lambda: peers.pillow_sheet(d.expected, sheet_path(), 1),
            d.file_is_expected, PEER, d.bytes, output=sheet_path, slow=large,
        ),
        Contender(
            "Pillow, default (drawn beforehand)", lambda: peers.pillow_sheet(d.expected, sheet_path()),
            d.file_is_expected, PEER, d.bytes, output=sheet_path, slow=True,
        ),
        Contender(
            "F.interpolate + make_grid + save_image",
            lambda: peers.make_grid_save_image(d.maps, px, d.cols, sheet_path()),
            lambda _: d.file_is_close(sheet_path()), PEER, d.bytes, threads=2, output=sheet_path, slow=True,
        ),
        *(by(writer, d) for writer in installed.of(WRITERS)),
    ]  # fmt: skip
    if workload is LAYER4:
        contenders.insert(2, save_sheet(d, 2, "viridis"))
    if workload is LAYER4_SMALL:
        contenders += figures(d)

    return Table(f"write {workload.name}", contenders, d.prepare, full_only=workload is not LAYER4_SMALL)


def figures(d: Drawing) -> list[Contender]:
    """The ways through matplotlib, on some channels."""

    def draw(way: Callable[..., Path]) -> Callable[[], Path]:
        return lambda: way(d.array[:FIGURE_CHANNELS], d.tile_px, FIGURE_COLS, sheet_path())

    def is_pil_image(path: Path) -> None:
        # Its pixels are its own: another filter, sometimes other colours and titles. It must be there in full size.
        assert min(decoded(path).shape) >= FIGURE_CHANNELS // FIGURE_COLS * d.tile_px

    subset = [
        Contender(
            name, draw(way), is_pil_image, PEER, d.bytes, threads=2, output=sheet_path, ran=FIGURE_CHANNELS,
            of=d.workload.channels, slow=True, load=old_ways.pyplot,
        )
        for name, way in (
            ("matplotlib, a subplot a channel", old_ways.matplotlib_subplots),
            ("mmengine's way, with matplotlib", old_ways.mmengine_way),
        )
    ]  # fmt: skip
    whole = Contender(
        f"matplotlib, all {d.workload.channels} subplots",
        lambda: old_ways.matplotlib_subplots(d.array, d.tile_px, d.cols, sheet_path()), is_pil_image, PEER, d.bytes,
        threads=2, output=sheet_path, slow=True, load=old_ways.pyplot,
    )  # fmt: skip
    return [*subset, whole]


def dead_table() -> Table:
    """All-zero maps: dead channels must cost next to nothing."""
    d = drawing_of(DEAD)
    return Table(
        f"write {DEAD.name}",
        [
            save_sheet(d, 2),
            raw(d),
            Contender(
                "cv2.resize loop + cv2.imwrite",
                lambda: peers.cv2_sheet(d.array, d.tile_px, d.cols, d.plane, sheet_path()),
                d.file_is_expected, PEER, d.bytes, threads=2, output=sheet_path,
            ),
        ],
        prepare=d.prepare,
        full_only=True,
    )  # fmt: skip


def batch_table() -> Table:
    """One layer of a batch of images: a sheet for each."""
    workload, folder = LAYER4_SMALL, lambda: outputs.path("batch")
    d = drawing_of(workload)

    def file(i: int) -> Path:
        return folder() / f"{i}.png"

    def batch(count: int) -> list[torch.Tensor]:
        return [maps_of(workload, seed) for seed in range(count)]

    def ours() -> None:
        for i, maps in enumerate(batch(IMAGES)):
            cf.save_sheet(maps, file(i), tile=workload.tile_px, plain=True, colormap=COLORMAP, threads=2)

    def opencv() -> None:
        for i, maps in enumerate(batch(IMAGES)):
            peers.cv2_sheet(maps.numpy(), workload.tile_px, d.cols, d.plane, file(i))

    def torchvision() -> None:
        for i, maps in enumerate(batch(TORCH_IMAGES)):
            peers.make_grid_save_image(maps, workload.tile_px, d.cols, file(i))

    def are_right(_: Any) -> None:
        written = sorted(folder().glob("*.png"))
        assert len(written) in (IMAGES, TORCH_IMAGES)
        for path in written[:: max(1, len(written) // 4)]:
            sheet = cf.render(maps_of(workload, int(path.stem)), tile=workload.tile_px, plain=True, colormap=COLORMAP)
            assert cv2.absdiff(decoded(path), sheet.index).max() <= 1

    size = IMAGES * d.bytes
    return Table(
        f"write {IMAGES} images of {workload.name}",
        [
            Contender("save_sheet, 2 threads", ours, are_right, OURS, size, threads=2, output=folder),
            Contender("cv2.resize loop + cv2.imwrite", opencv, are_right, PEER, size, threads=2, output=folder),
            Contender(
                "F.interpolate + make_grid + save_image", torchvision, are_right, PEER, size, threads=2, output=folder,
                ran=TORCH_IMAGES, of=IMAGES,
            ),
        ],
        prepare=lambda: (d.prepare(), batch(IMAGES)),
        full_only=True,
    )  # fmt: skip


def huge_table() -> Table:
    """A sheet of 20,160 x 20,608 px, each way in a process of its own, which also says how much memory it took."""
    d = drawing_of(HUGE)

    def is_right(largest_difference: int, _: Inside) -> None:
        plane, plan = decoded(sheet_path()), d.plan("torch")
        for strip in plan.grid.strips(1024):
            drawn = plan.draw(strip, np.empty((strip.stop - strip.start, plan.grid.width), np.uint8))
            assert cv2.absdiff(plane[strip.start : strip.stop], drawn).max() <= largest_difference

    return Table(
        f"write {HUGE.name}, a sheet of 20,000 px",
        [
            Contender(
                name, partial(processes.measured_child, "sheet", way, str(sheet_path())), partial(is_right, difference),
                role, d.bytes, threads=2,
            )
            for name, way, role, difference in (
                ("save_sheet, 2 threads", "save_sheet", OURS, 0),
                ("cv2.resize loop + cv2.imwrite", "cv2", PEER, 1),
            )
        ],
        full_only=True,
    )  # fmt: skip


TABLES = [*map(write_table, WORKLOADS), dead_table(), batch_table(), huge_table()]


@cases(TABLES)
def bench_write(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
