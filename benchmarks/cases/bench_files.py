"""From a tensor to a PNG file for each of 2048 channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import cnnviz_fast as cf
from benchmarks.harness import old_ways, outputs, peers
from benchmarks.harness.drawing import COLORMAP, Drawing, anything, decoded, drawing_of
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Table, cases, held_to
from benchmarks.harness.workloads import ARTICLE_003, LAYER4

FIGURES = 32
LOOP_FILES = 2
CHECKED = 64  # of the files, spread over all

NO_COMPRESSION = (cv2.IMWRITE_PNG_COMPRESSION, 0)


def save_tiles(d: Drawing, threads: int, folder: Callable[[], Path]) -> Contender:
    """What this package does, from the maps."""
    return Contender(
        held_to("save_tiles", threads),
        lambda: cf.save_tiles(d.maps, folder(), tile=d.tile_px, plain=True, colormap=COLORMAP, threads=threads),
        partial(are_tiles, d), OURS, d.tiles_bytes, threads=threads, output=folder,
    )  # fmt: skip


def are_tiles(d: Drawing, written: Any) -> None:
    """Assert that files, given in the order of the channels or by their folder, are the expected tiles."""
    paths = written if isinstance(written, list) else [written / f"{c}.png" for c in range(len(d.tiles))]
    assert len(paths) == len(d.tiles)
    assert all(path.exists() for path in paths)
    for c in range(0, len(paths), len(paths) // CHECKED):
        assert np.array_equal(decoded(paths[c]), d.tiles[c])


def are_as_many(count: int, written: Path) -> None:
    """Assert that matplotlib wrote as many tiles; their pixels are its own."""
    paths = list(written.iterdir())
    assert len(paths) == count
    assert all(decoded(path) is not None for path in paths)


def peer(
    d: Drawing, name: str, folder: Callable[[], Path], write: Callable[..., Path], *rest: Any, slow: bool = False
) -> Contender:
    """Make a contender that writes tiles drawn beforehand, one after the other."""
    return Contender(
        f"{name} (drawn beforehand)", lambda: write(d.tiles, folder(), *rest), partial(are_tiles, d),
        PEER, d.tiles_bytes, output=folder, slow=slow,
    )  # fmt: skip


def figures(d: Drawing, name: str, folder: Callable[[], Path], write: Callable[..., Path], count: int) -> Contender:
    """Make a contender that goes through matplotlib, from the first `count` maps."""
    return Contender(
        name, lambda: write(d.array[:count], d.tile_px, folder()), partial(are_as_many, count), PEER, d.tiles_bytes,
        output=folder, ran=count, of=d.workload.channels, slow=True, load=old_ways.pyplot,
    )  # fmt: skip


def files_table() -> Table:
    """2048 files in memory: what is measured is drawing, encoding and making files, not a disk."""
    d, folder = drawing_of(LAYER4), lambda: outputs.path("tiles")
    return Table(
        f"{LAYER4.channels} files of {LAYER4.tile_px} px",
        [
            save_tiles(d, 1, folder),
            save_tiles(d, 2, folder),
            raw(d, folder),
            peer(d, "cv2.imwrite", folder, peers.cv2_files, slow=True),
            peer(d, "cv2.imwrite, no compression", folder, peers.cv2_files, NO_COMPRESSION, slow=True),
            peer(d, "Pillow, level 1", folder, peers.pillow_files, 1, slow=True),
            peer(d, "Pillow, default", folder, peers.pillow_files, slow=True),
            figures(d, "matplotlib, a figure a file", folder, old_ways.matplotlib_files, FIGURES),
            figures(d, "pixel loop + matplotlib (article 003)", folder, old_ways.article_003_files, LOOP_FILES),
        ],
        prepare=lambda: (d.prepare(), d.tiles),
    )


def raw(d: Drawing, folder: Callable[[], Path]) -> Contender:
    """The floor: the same files with the tiles' bytes in them, not encoded."""
    return Contender(
        "raw bytes", lambda: peers.raw_files(d.tiles, folder()), anything, FLOOR, d.tiles_bytes, output=folder
    )


def disk_table() -> Table:
    """The same files in the folder for temporary files, wherever that lies."""
    d, folder = drawing_of(LAYER4), lambda: outputs.path("tiles", "disk")
    return Table(
        f"{LAYER4.channels} files of {LAYER4.tile_px} px, in the folder for temporary files",
        [save_tiles(d, 2, folder), raw(d, folder), peer(d, "cv2.imwrite", folder, peers.cv2_files)],
        prepare=lambda: (d.prepare(), d.tiles),
        full_only=True,
    )


def article_003_table() -> Table:
    """The job of article 003: the channels of one layer and their sum, each as a file."""
    d, folder = drawing_of(ARTICLE_003), lambda: outputs.path("tiles")

    def ours() -> Any:
        return cf.save_tiles(
            d.maps, folder(), tile=d.tile_px, plain=True, colormap=COLORMAP, threads=2, reduce="sum", beside=True
        )

    def are_right(written: Any) -> None:
        assert [path.name for path in written[:2]] == ["sum.png", "0.png"]
        assert np.array_equal(
            decoded(written[0]), cf.render(d.maps.sum(0, keepdim=True), tile=d.tile_px, plain=True).index
        )
        are_tiles(d, written[1:])

    return Table(
        "2048 files of 96 px and their sum (article 003)",
        [
            Contender("save_tiles, 2 threads", ours, are_right, OURS, d.tiles_bytes, threads=2, output=folder),
            figures(d, "the article's loop", folder, old_ways.article_003_files, LOOP_FILES),
        ],
        prepare=lambda: (d.prepare(), d.tiles),
        full_only=True,
    )


TABLES = [files_table(), disk_table(), article_003_table()]


@cases(TABLES)
def bench_files(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
