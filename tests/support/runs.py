"""Small models, many small images, and what a run over them leaves: shared by the tests of runs."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from support.assertions import FLOAT32_RATIO, MERGED, assert_close
from support.processes import Python
from support.waiting import wait_until
from torch import nn
from torch.utils.data import Dataset

from cnnviz_fast.channels.dataset import LayerStatistics
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.preprocess import Preprocessing
from cnnviz_fast.patches.top_files import read_top

NET = '''
"""A net of two convolutions for images of 24 px."""
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, stride=2, padding=1))
'''

LAYERS = ["0", "2"]

COUNT = 23
"""Images of the folder that most tests share: not a multiple of the batch."""

QUICK: dict[str, Any] = {"batch": 4, "readers": 0, "tile": 12, "plain": True, "progress": "none"}
"""Options of a run without processes, whose sheets hold no text, so that they depend on values alone."""

VERB = "run"
"""The command that makes runs."""


def small_model() -> LoadedModel:
    """Make a model that takes images of 24 px, in 0.1 ms each."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, stride=2, padding=1))
    preprocess = Preprocessing(None, (24, 24), interpolation(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # type: ignore[arg-type]
    return LoadedModel(module.eval(), preprocess, "small", "seeded")


class Picky(nn.Module):
    """A model that fails on bright images, and runs out of memory on more than `most`."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.most = most
        self.sizes: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        if (batch.mean(dim=(1, 2, 3)) > 2).any():
            raise ValueError("too bright")
        return self.conv(batch)


class Small(Dataset[torch.Tensor]):
    """Images in memory, of which the first ones are too small for the model."""

    def __init__(self, small: int) -> None:
        self.small = small

    def __len__(self) -> int:
        return 12

    def __getitem__(self, position: int) -> torch.Tensor:
        size = 2 if position < self.small else 24
        return torch.rand(3, size, size, generator=torch.Generator().manual_seed(position))


def interpolation() -> Any:
    """Return torchvision's bilinear filter."""
    from torchvision.transforms import InterpolationMode

    return InterpolationMode.BILINEAR


def make_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write images of 32 px, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for n in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        paths.append(folder / f"p{n:04d}.png")
        coarse.resize((32, 32), Image.Resampling.BILINEAR).save(paths[-1], compress_level=1)
    return paths


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a run has made of images, by its path."""
    made = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


def plane_of(path: Path) -> np.ndarray:
    """Return the index plane of a sheet."""
    with Image.open(path) as image:
        assert image.mode in "LP"
        return np.asarray(image)


def members(folder: Path) -> dict[str, bytes]:
    """Return the files in all tars of a run, by their names, of which none is there twice."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    return found


def rows(folder: Path, stem: str = "index") -> list[dict[str, Any]]:
    """Return the rows of the index, or of what failed, of all processes."""
    lines = [line for path in sorted(folder.glob(f"{stem}*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def sorted_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the index in an order that does not depend on who has written them."""
    return sorted(rows(folder), key=lambda row: (row["key"], row["layer"]))


def assert_same_outcome(folder: Path, alone: Path) -> None:
    """Assert that a run has come to the same files, rows, statistics and lists as the one left alone."""
    assert digests(folder) == digests(alone)
    assert sorted_rows(folder) == sorted_rows(alone)
    assert_same_statistics(read_statistics(folder / "statistics.safetensors"), alone)
    if (alone / "top.safetensors").exists():
        assert_same_top(folder, alone)


def assert_same_top(folder: Path, alone: Path) -> None:
    """Assert that all lists of strongest images are the same to the last bit, and classes are of the same images."""
    found, expected = read_top(folder), read_top(alone)
    assert list(found) == list(expected)
    for layer, top in expected.items():
        for name, array in top.to_arrays().items():
            assert np.array_equal(found[layer].to_arrays()[name], array, equal_nan=array.dtype.kind == "f"), (
                layer,
                name,
            )
    for layer, classes in expected.classes.items():
        of_each, wanted = found.classes[layer].to_arrays(), classes.to_arrays()
        assert np.array_equal(of_each["class_bytes"], wanted["class_bytes"])
        assert np.array_equal(of_each["count"], wanted["count"])
        assert_close(of_each["mean"], wanted["mean"], MERGED)


def assert_same_statistics(found: dict[str, LayerStatistics], alone: Path) -> None:
    for layer, expected in read_statistics(alone / "statistics.safetensors").items():
        ours = found[layer]
        assert ours.images == expected.images
        for name in ("vmin", "vmax", "zeros", "nan", "inf", "finite", "dead"):
            assert np.array_equal(getattr(ours, name), getattr(expected, name))
        for name in ("mean", "variance"):
            assert_close(getattr(ours, name), getattr(expected, name), FLOAT32_RATIO)
        for q in (0.01, 0.5, 0.99):
            assert np.array_equal(ours.quantile(q), expected.quantile(q))


def command(net: Path, images: Path, out: Path, *more: str) -> list[str]:
    """Return the arguments of a run over a folder with the model of a file that holds NET."""
    return [
        VERB, f"{net}:make", str(images), "--layer", "0", "2", "--size", "24", "--tile", "12", "--batch", "4",
        "--out", str(out), *more,
    ]  # fmt: skip


def wait_for_rows(out: Path, count: int, process: Python) -> None:
    """Wait until the index of a run has so many lines; fail where the run ends first."""
    index = out / "index.jsonl"

    def has_rows() -> bool:
        assert process.code is None, process.said or "it ended first"
        return index.exists() and index.read_bytes().count(b"\n") >= count

    wait_until(has_rows, 120)
