"""Runs over 240 photos through ResNet-18, one stage or five of each to files, beside reading them and running the model
alone."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import cnnviz_fast as cf
from benchmarks.harness import outputs
from benchmarks.harness.drawing import anything
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Inside, Table, cases

PHOTOS = 240
PHOTO_PX = (500, 375)  # width, height: ImageNet's usual size
BATCH = 16
TILE_PX = 56
LAYER = "layer4"
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
THREADS = 2
CHECKED = 4  # photos whose files are compared with what is made of them one by one

_SAMPLES = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": (
        "data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/hubble_deep_field.jpg", "data/ihc.png",
        "data/motorcycle_left.png", "data/retina.jpg", "data/rocket.jpg",
    ),
}  # fmt: skip


@cache
def model() -> cf.LoadedModel:
    """Make the model, with seeded random weights."""
    return cf.load_model("resnet18", weights="none", seed=0)


@cache
def photos() -> list[Path]:
    """Cut the photos."""
    return cut_photos(PHOTOS, outputs.path("photos"))


def cut_photos(count: int, folder: Path, size: tuple[int, int] = PHOTO_PX) -> list[Path]:
    """Cut photos out of the samples that come with scikit-learn and scikit-image: JPEG, 100 KB or so each.

    Args:
        count: number of photos.
        folder: that is made for them.
        size: width and height, px.

    Returns:
        Their paths.
    """
    folder.mkdir()
    samples = []
    for package, names in _SAMPLES.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for name in names:
            with Image.open(Path(spec.origin).parent / name) as image:
                samples.append(image.convert("RGB"))
    random = np.random.default_rng(0)
    return [_cut(samples[n % len(samples)], random, folder / f"{n:03d}.jpg", size) for n in range(count)]


def _cut(sample: Image.Image, random: np.random.Generator, path: Path, size: tuple[int, int]) -> Path:
    """Write a random part of a sample, at least half as wide, in a size."""
    most = min(sample.width, sample.height * size[0] / size[1])
    width = random.uniform(0.5, 1) * most
    height = width * size[1] / size[0]
    left, top = random.uniform(0, sample.width - width), random.uniform(0, sample.height - height)
    part = sample.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    part.save(path, quality=90)
    return path


def bare() -> None:
    """Read a batch, run the model on it, read the next one: one process, nothing kept."""
    with torch.inference_mode():
        for start in range(0, PHOTOS, BATCH):
            model().module(cf.load_images(photos()[start : start + BATCH], model()))


class Read(Dataset[torch.Tensor]):
    """The photos as the model takes them."""

    def __len__(self) -> int:
        return PHOTOS

    def __getitem__(self, index: int) -> torch.Tensor:
        return cf.load_images(photos()[index], model())[0]


def bare_with_loader() -> None:
    """Read ahead in a process of torch's DataLoader."""
    with torch.inference_mode():
        for batch in DataLoader(Read(), batch_size=BATCH, num_workers=1):
            model().module(batch)


def folder_of(save: str, layers: Sequence[str]) -> Path:
    """Return the folder that a run writes to."""
    return outputs.path(f"run-{save}-{len(layers)}")


def run(save: str, layers: Sequence[str]) -> Inside:
    """Run; the stages' seconds are those of all threads and processes together."""
    start = time.perf_counter()
    summary = cf.run(
        model(), photos(), layers, folder_of(save, layers), save=save, batch=BATCH, tile=TILE_PX, plain=True,
        progress="none",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    assert summary.finished == PHOTOS
    return Inside(seconds, {f"{stage}_s": spent for stage, spent in summary.stages.items()})


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
            CHECKS[kind](folder_of(save, layers), layers)

    return Contender(
        f"cf.run, {save}", lambda: run(save, layers), check, OURS, 0, threads=THREADS,
        output=lambda: folder_of(save, layers),
    )  # fmt: skip


NAME = f"{PHOTOS} photos through ResNet-18, {LAYER} at {TILE_PX} px"
NAME_OF_STAGES = f"{PHOTOS} photos through ResNet-18, {STAGES[0]} to {STAGES[-1]} at {TILE_PX} px"

BARE = Contender("load_images + forward", bare, anything, FLOOR, 0, threads=THREADS)

TABLES = [
    Table(
        NAME,
        [
            BARE,
            ours("sheets", [LAYER]),
            ours("atlases", [LAYER]),
            Contender("DataLoader, 1 worker, + forward", bare_with_loader, anything, PEER, 0, threads=THREADS),
        ],
        prepare=photos,
        full_only=True,
    ),
    Table(
        NAME_OF_STAGES,
        [BARE, *(ours(save, STAGES) for save in ("sheets", "atlases", "sheets,atlases", "top"))],
        prepare=photos,
        full_only=True,
    ),
]


@cases(TABLES)
def bench_run(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
