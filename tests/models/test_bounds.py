"""How large preprocessing makes long and narrow images."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import assert_plane_within_a_level
from torch import nn
from torchvision import transforms as T
from torchvision.models.video import MViT_V1_B_Weights
from torchvision.transforms._presets import SemanticSegmentation

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.images import load_images
from cnnviz_fast.models.bounds import bounded
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.own_preprocess import OwnPreprocess
from cnnviz_fast.models.preprocess import as_clips, as_image, grey_preset, imagenet_preset, with_options
from cnnviz_fast.options.reading import PreprocessOptions

PRESETS: dict[str, Any] = {
    "imagenet": imagenet_preset,
    "grey": grey_preset,
    "without normalisation": lambda: with_options(imagenet_preset(), PreprocessOptions(mean=(0, 0, 0))),
    "own": lambda: OwnPreprocess(T.Compose([T.Resize(40), T.CenterCrop(32), T.ToTensor()])),
    "video": lambda: as_clips(MViT_V1_B_Weights.DEFAULT.transforms()),
    "timm": lambda: load_model("timm:resnet18", weights="none", device="meta").preprocess,
}


def stripe(width: int, height: int) -> Image.Image:
    """Make an image whose values change along it."""
    along = np.linspace(0, 60, max(width, height))
    rows = np.stack([127 + 120 * np.sin(along + shift) for shift in (0, 1, 2)], -1).astype(np.uint8)
    pixels = np.repeat(rows[None], height, 0) if width > height else np.repeat(rows[:, None], width, 1)
    return Image.fromarray(np.ascontiguousarray(pixels))


def frame(values: torch.Tensor) -> torch.Tensor:
    """Return an input, or the first frame of a clip."""
    return values[:, 0] if values.ndim == 4 else values


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [
    (151, 1), (4, 301), *(pytest.param(size, marks=pytest.mark.long) for size in ((1, 900), (1203, 3))),
])  # fmt: skip
def test_bounded_shows_the_same_middle(preset: str, size: tuple[int, int]) -> None:
    preprocess = PRESETS[preset]()
    image = stripe(*size)
    part = bounded(image, preprocess, 10**5, "image")
    assert part.size != image.size
    seen, expected = (as_image(frame(preprocess(each)), preprocess) for each in (part, image))
    for channel in range(3):
        assert_plane_within_a_level(seen[:, :, channel], expected[:, :, channel])


def test_bounded_leaves_other_images_as_they_are() -> None:
    preprocess = imagenet_preset()
    for size in ((300, 200), (2000, 40)):
        assert bounded(image := stripe(*size), preprocess, 10**8, "image") is image
    long = stripe(3000, 1)
    whole = with_options(preprocess, PreprocessOptions(size=32))
    assert bounded(long, whole, 10**4, "image") is long
    assert bounded(long, lambda image: image, 10**4, "image") is long


@pytest.mark.parametrize("preprocess", [
    SemanticSegmentation(resize_size=520), T.Compose([T.Resize(520), T.ToTensor()]),
], ids=["preset", "own"])  # fmt: skip
def test_bounded_refuses_what_is_shown_as_a_whole(preprocess: Any) -> None:
    with pytest.raises(ImageError, match=r"image 'x' of 3000 x 1 px would become 520 x 1,560,000 px .* set the size"):
        bounded(stripe(3000, 1), preprocess, 10**8, "image 'x'")


def test_load_images_of_one_row_needs_little_memory() -> None:
    module = nn.Conv2d(3, 2, 1)
    load_images(stripe(300, 200), module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = load_images(stripe(60_000, 1), module)
    assert batch.shape == (1, 3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; it was 16.5 GB
    assert torch.isfinite(batch).all()


def test_bounded_does_not_crop_behind_other_steps() -> None:
    padded = T.Compose([T.Pad(9), T.Resize(520), T.CenterCrop(32), T.ToTensor()])
    nested = T.Compose([T.Compose([T.Resize(520)]), T.CenterCrop(32), T.ToTensor()])
    with pytest.raises(ImageError, match="would become 520 x"):
        bounded(stripe(3000, 1), padded, 10**8, "image")
    assert bounded(stripe(3000, 1), nested, 10**8, "image").size == (16, 1)
