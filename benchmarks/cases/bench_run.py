"""Runs over 240 photos through ResNet-18, one stage or five of each to files, beside reading them and running the model
alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cnnviz_fast as cf
from benchmarks.harness import outputs, processes
from benchmarks.harness.drawing import anything
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Inside, Table, cases
from benchmarks.harness.photo_runs import THREADS, TILE_PX, cut_photos, model

PHOTOS = 240
LAYER = "layer4"
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
CHECKED = 4  # photos whose files are compared with what is made of them one by one


@cache
def photos() -> list[Path]:
    """Cut the photos."""
    return cut_photos(PHOTOS, outputs.path("photos"))


def folder_of(way: str, layers: Sequence[str]) -> Path:
    """Return the folder that a way is given to write to."""
    return outputs.path(f"run-{way}-{len(layers)}")


def alone(way: str, layers: Sequence[str]) -> Inside:
    """Do it in a process of its own; see photo_runs.timed."""
    folder = photos()[0].parent
    return processes.measured_child("photos", str(folder), str(folder_of(way, layers)), way, *layers)


def some(layers: Sequence[str]) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Capture some photos, each for itself: layer, stem of the file, and maps."""
    for path in photos()[:: PHOTOS // CHECKED]:
        for layer, maps in cf.capture(model(), cf.load_images(path, model()), layers).items():
            yield layer, path.stem, maps[0]


def check_sheets(folder: Path, layers: Sequence[str]) -> None:
    """Assert that sheets show what `render` makes, within a level: convolutions differ with the size of the batch."""
    assert len(list(folder.glob("*/*.png"))) == PHOTOS * len(layers)
    for layer, stem, maps in some(layers):
        with Image.open(folder / layer / f"{stem}.png") as sheet:
            assert sheet.mode == "P"
            difference = np.abs(np.asarray(sheet).astype(int) - cf.render(maps, tile=TILE_PX, plain=True).index)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.001


def check_atlases(folder: Path, layers: Sequence[str]) -> None:
    """Assert that atlases hold the ranges of the maps."""
    assert len(list(folder.glob("*/*.atlas"))) == PHOTOS * len(layers)
    for layer, stem, maps in some(layers):
        atlas = cf.read_atlas(folder / layer / f"{stem}.atlas")
        torch.testing.assert_close(atlas.vmax, maps.amax(dim=(1, 2)), rtol=1e-4, atol=1e-5)


def check_top(folder: Path, layers: Sequence[str]) -> None:
    """Assert that some photos stand among the strongest with the maxima of their maps, or are weaker than the last."""
    found = cf.read_top(folder)
    assert list(found) == list(layers)
    for layer, stem, maps in some(layers):
        top, response = found[layer], maps.amax(dim=(1, 2)).numpy()
        assert top.seen == PHOTOS
        own = np.vectorize(lambda key: Path(key).stem)(top.images) == stem
        values = np.where(own.any(axis=1), np.where(own, top.values, -np.inf).max(axis=1), response)
        np.testing.assert_allclose(response, values, rtol=1e-4, atol=1e-5)
        weaker = response <= top.values[:, -1] * 1.0001 + 1e-5
        assert (own.any(axis=1) | weaker | top.dead).all()


CHECKS = {"sheets": check_sheets, "atlases": check_atlases, "top": check_top}


def ours(save: str, layers: Sequence[str]) -> Contender:
    def check(_: Inside) -> None:
        for kind in save.split(","):
            CHECKS[kind](folder_of(save, layers) / "all", layers)

    return Contender(
        f"cf.run, {save}", partial(alone, save, layers), check, OURS, 0, threads=THREADS,
        output=lambda: folder_of(save, layers),
    )  # fmt: skip


def loop(name: str, way: str, role: str) -> Contender:
    """Make a contender that reads and runs the model, and no more."""
    return Contender(name, partial(alone, way, ()), anything, role, 0, threads=THREADS)


NAME = f"{PHOTOS} photos through ResNet-18, {LAYER} at {TILE_PX} px"
NAME_OF_STAGES = f"{PHOTOS} photos through ResNet-18, {STAGES[0]} to {STAGES[-1]} at {TILE_PX} px"

LOOPS = [
    loop("load_images + forward", "bare", FLOOR),
    loop("load_images + forward, the C library keeps what is freed", "bare_with_memory_kept", FLOOR),
]

TABLES = [
    Table(
        NAME,
        [
            *LOOPS,
            ours("sheets", [LAYER]),
            ours("atlases", [LAYER]),
            loop("DataLoader, 1 worker, + forward", "bare_with_loader", PEER),
        ],
        prepare=photos,
        full_only=True,
    ),
    Table(
        NAME_OF_STAGES,
        [*LOOPS, *(ours(save, STAGES) for save in ("sheets", "atlases", "sheets,atlases", "top"))],
        prepare=photos,
        full_only=True,
    ),
]


@cases(TABLES)
def bench_run(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
