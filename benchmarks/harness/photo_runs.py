"""Photos through ResNet-18, the ways of `bench_run`: each in a process of its own, as a user's script would be.

In a process in which much has been measured before, the C library keeps what a pass frees. In a new one it gives that
back to the system: the passes lose 3,500 pages an image, and a seventh of their time.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import cnnviz_fast as cf
from cnnviz_fast.runtime import freed_memory

PHOTO_PX = (500, 375)  # width, height: ImageNet's usual size
BATCH = 16
TILE_PX = 56
THREADS = 2

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


def bare(photos: Sequence[Path]) -> int:
    """Read a batch, run the model on it, read the next one, in one process; return how many results there were."""
    with torch.inference_mode():
        batches = (cf.load_images(photos[at : at + BATCH], model()) for at in range(0, len(photos), BATCH))
        return sum(len(model().module(batch)) for batch in batches)


def bare_with_memory_kept(photos: Sequence[Path]) -> int:
    """Do the same while the C library keeps what is freed, as runs have it."""
    with freed_memory.kept():
        return bare(photos)


class Read(Dataset[torch.Tensor]):
    """Photos as the model takes them."""

    def __init__(self, photos: Sequence[Path]) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> torch.Tensor:
        return cf.load_images(self.photos[index], model())[0]


def bare_with_loader(photos: Sequence[Path]) -> int:
    """Do the same, reading ahead in a process of torch's DataLoader."""
    with torch.inference_mode():
        return sum(len(model().module(batch)) for batch in DataLoader(Read(photos), batch_size=BATCH, num_workers=1))


BARE: dict[str, Callable[[Sequence[Path]], int]] = {
    way.__name__: way for way in (bare, bare_with_memory_kept, bare_with_loader)
}


def run(photos: Sequence[Path], out: Path, save: str, layers: Sequence[str]) -> dict[str, float]:
    """Run; the stages' seconds are those of all threads and processes together."""
    summary = cf.run(model(), photos, layers, out, save=save, batch=BATCH, tile=TILE_PX, plain=True, progress="none")
    assert summary.finished == len(photos)
    return {f"{stage}_s": spent for stage, spent in summary.stages.items()}


def timed(folder: Path, out: Path, way: str, layers: Sequence[str]) -> dict[str, float]:
    """Do it with three batches, which load and compile what is needed, then with all photos.

    Args:
        folder: of the photos.
        out: of the run.
        way: one of BARE, or what a run saves.
        layers: of the run.

    Returns:
        Its seconds, and those of a run's stages.
    """
    torch.set_num_threads(THREADS)
    photos = sorted(folder.iterdir())
    facts: dict[str, float] = {}
    for part, place in ((photos[: 3 * BATCH], out / "first"), (photos, out / "all")):
        start = time.perf_counter()
        if way in BARE:
            assert BARE[way](part) == len(part)
        else:
            facts = run(part, place, way, layers)
        facts["seconds"] = time.perf_counter() - start
    return facts
