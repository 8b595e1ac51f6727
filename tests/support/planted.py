"""A network with hand-set filters, photos in which what they look for is planted at known places, and files of top
responses of the one over the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from cnnviz_fast.activations.fields.record import ReceptiveField
from cnnviz_fast.inputs.images import usual_spec
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.patches.photos import describe
from cnnviz_fast.patches.top import TopResponses
from cnnviz_fast.patches.top_files import write_top

KERNEL, STRIDE = 11, 2
FIELD = ReceptiveField((KERNEL, KERNEL), (float(STRIDE), float(STRIDE)), (0.0, 0.0))
"""Of the units of the network, whose convolution is padded by half its kernel."""

BLUE, VERTICAL, HORIZONTAL, DEAD = range(4)
"""The channels: a colour, stripes of two directions, and one without weights."""

PERIOD = 8.0
"""Of the stripes that two filters look for, px of the input."""


def planted_network(preprocess: Any) -> LoadedModel:
    """Return a network of one convolution that looks for blue, and for upright and level stripes."""
    at = np.arange(KERNEL) - KERNEL // 2
    envelope = np.exp(-np.square(at / 3.0))
    wave = envelope * np.cos(2 * np.pi * at / PERIOD)
    wave -= envelope * wave.sum() / envelope.sum()  # answers to no plain area
    kernels = np.zeros((4, 3, KERNEL, KERNEL), np.float32)
    kernels[BLUE] = np.array([-0.5, -0.5, 1.0])[:, None, None] * np.outer(envelope, envelope)
    kernels[VERTICAL] = np.outer(envelope, wave)
    kernels[HORIZONTAL] = np.outer(wave, envelope)
    convolution = nn.Conv2d(3, 4, KERNEL, STRIDE, KERNEL // 2, bias=False)
    convolution.weight.data = torch.from_numpy(kernels)
    return LoadedModel(nn.Sequential(convolution, nn.ReLU()).eval(), preprocess, "planted", "by hand")


def planted(height: int, width: int, places: Mapping[int, tuple[int, int]], scale: float = 1.0) -> Image.Image:
    """Return a dark photo with what channels look for at (y, x) of its pixels, `scale` px for one of the input."""
    y, x = np.mgrid[:height, :width].astype(float)
    grey = 20 + 20 * x / width + 10 * y / height  # dark, so that the edge of an input answers to no filter much
    pixels = np.stack([grey, grey, grey], axis=-1)
    for channel, (at_y, at_x) in places.items():
        near = np.exp(-(np.square((y - at_y) / scale) + np.square((x - at_x) / scale)) / 30.0)
        if channel == BLUE:
            pixels += near[..., None] * np.array([-20, -20, 150])
        else:
            along = x - at_x if channel == VERTICAL else y - at_y
            pixels += (near * 80 * (1 + np.cos(2 * np.pi * along / scale / PERIOD)))[..., None]
    return Image.fromarray(np.floor(pixels.clip(0, 255) + 0.5).astype(np.uint8))


def top_file(
    model: LoadedModel,
    images: Any,
    path: Path,
    *,
    photos: Mapping[str, dict[str, Any]] | None = None,
    fields: Mapping[str, dict[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
    layer: str = "1",
    **settings: Any,
) -> Path:
    """Run a network over files, and write the strongest responses of its last layer as a run does."""
    catalogue = list_images(images)
    spec = usual_spec(model)
    top = TopResponses(4, **{"k": 3, **settings})
    for image in catalogue:
        with torch.no_grad():
            top.update(model.module(spec.read(image.open())), [image.key])
    described = describe(catalogue, list(catalogue.keys()), model) if photos is None else photos
    return write_top(path, {layer: top}, facts or {"model": "planted"}, described, fields or {layer: FIELD.to_json()})


def saved(image: Image.Image, path: Path, orientation: int = 1) -> Path:
    """Write an image lying as an EXIF orientation says, without loss where the format has none."""
    way = Image.Transpose
    lies: Sequence[Any] = (
        None, None, way.FLIP_LEFT_RIGHT, way.ROTATE_180, way.FLIP_TOP_BOTTOM, way.TRANSPOSE, way.ROTATE_90,
        way.TRANSVERSE, way.ROTATE_270,
    )  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    (image if orientation == 1 else image.transpose(lies[orientation])).save(path, exif=exif, quality=95)
    return path
