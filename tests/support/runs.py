"""A small model, many small pictures, and what a run over them leaves: shared by the tests of runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from cnnviz_fast.channels.dataset import LayerStatistics
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.preprocess import Preprocessing

NET = '''
"""A net of two convolutions for pictures of 24 px."""
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, stride=2, padding=1))
'''

LAYERS = ["0", "2"]


def small_model() -> LoadedModel:
    """Make a model that takes pictures of 24 px, in 0.1 ms each."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 10, 3, stride=2, padding=1))
    preprocess = Preprocessing(None, (24, 24), interpolation(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # type: ignore[arg-type]
    return LoadedModel(module.eval(), preprocess, "small", "seeded")


def interpolation() -> Any:
    """Return torchvision's bilinear filter."""
    from torchvision.transforms import InterpolationMode

    return InterpolationMode.BILINEAR


def make_pictures(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write pictures of 32 px, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for n in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        paths.append(folder / f"p{n:04d}.png")
        coarse.resize((32, 32), Image.Resampling.BILINEAR).save(paths[-1], compress_level=1)
    return paths


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a run has made of pictures, by its path."""
    made = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


def rows(folder: Path, stem: str = "index") -> list[dict[str, Any]]:
    """Return the rows of the index, or of what failed, of all processes."""
    lines = [line for path in sorted(folder.glob(f"{stem}*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def sorted_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the index in an order that does not depend on who has written them."""
    return sorted(rows(folder), key=lambda row: (row["key"], row["layer"]))


COUNT = 23


def assert_same_outcome(folder: Path, alone: Path) -> None:
    """Assert that a run has come to the same files, rows and statistics as the one left alone."""
    assert digests(folder) == digests(alone)
    assert sorted_rows(folder) == sorted_rows(alone)
    assert_same_statistics(read_statistics(folder / "statistics.safetensors"), alone)


def assert_same_statistics(found: dict[str, LayerStatistics], alone: Path) -> None:
    for layer, expected in read_statistics(alone / "statistics.safetensors").items():
        ours = found[layer]
        assert ours.images == expected.images
        for name in ("vmin", "vmax", "zeros", "nan", "inf", "finite", "dead"):
            assert np.array_equal(getattr(ours, name), getattr(expected, name))
        for name in ("mean", "variance"):
            np.testing.assert_allclose(getattr(ours, name), getattr(expected, name), rtol=1e-6)
        for q in (0.01, 0.5, 0.99):
            assert np.array_equal(ours.quantile(q), expected.quantile(q))
