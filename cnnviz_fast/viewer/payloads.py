"""What a page holds beside atlases: statistics, kernels, an order by similarity, and photos, each as bytes."""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formats.safetensors import RECORD

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    from ..patches.sheet import PatchSheet

QUALITY = 90
"""Of JPEG."""

KERNEL_CHANNELS = 3
"""Input channels of the layers whose kernels are shown: those that look at colours."""


def as_jpeg(image: Image) -> bytes:
    """Return an RGB image as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def statistics_payload(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Return what a layer held over a data set: by name, a number for each of its channels."""
    return _packed({name: column.astype(np.float32) for name, column in columns.items()}, "statistics")


def kernels_payload(weight: torch.Tensor) -> bytes | None:
    """Return the kernels of a layer that looks at colours, each on its own range; None for any other weight.

    Args:
        weight: (C, 3, kh, kw) real dtype, any device, to be one that is shown. Not modified.
    """
    if weight.ndim != 4 or weight.shape[1] != KERNEL_CHANNELS or max(weight.shape[2:]) < 2:
        return None
    values = weight.detach().float().nan_to_num(0.0, 0.0, 0.0)
    flat = values.flatten(1)
    low, high = (end[:, None, None, None] for end in (flat.amin(1), flat.amax(1)))
    levels = (values - low) / (high - low).clamp_min(1e-38) * 255
    return _packed({"kernel": levels.add(0.5).clamp(0, 255).byte().cpu().numpy()}, "kernels")


def similarity_payload(maps: Sequence[torch.Tensor]) -> bytes:
    """Return an arrangement of the channels of a layer in which channels with similar maps stand near each other.

    Args:
        maps: (C, H, W) real dtype each: of some images. Not modified.

    Formula:
        Each channel's values over all images, less their mean, to unit length: products are correlations. Of these the
        two main axes; channels are cut into columns along the first, and sorted by the second within each.
    """
    import torch

    values = torch.cat([each.flatten(1).float() for each in maps], 1).nan_to_num(0.0, 0.0, 0.0).double()
    values = values - values.mean(1, keepdim=True)
    values = values / values.norm(dim=1, keepdim=True).clamp_min(1e-30)
    values = values - values.mean(0, keepdim=True)
    count, cells = values.shape
    if cells < count:
        axes = torch.linalg.eigh(values.T @ values)[1][:, -2:]
        places = values @ axes
    else:
        places = torch.linalg.eigh(values @ values.T)[1][:, -2:]
    if places.shape[1] < 2:
        places = places.expand(count, 2)
    # The sign of an eigenvector is anybody's: the largest entry is made positive.
    places = places * places.gather(0, places.abs().argmax(0, keepdim=True)).sign()
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    across = torch.argsort(places[:, 1], stable=True)
    order = np.empty(count, np.int32)
    full = count - (rows - 1) * columns  # columns that have a channel in the last row
    start = 0
    for column in range(columns):
        part = across[start : start + (rows if column < full else rows - 1)]
        start += len(part)
        for row, channel in enumerate(part[torch.argsort(places[part, 0], stable=True)].tolist()):
            order[row * columns + column] = channel
    return _packed({"order": order, "columns": np.array([columns], np.int32)}, "similarity")


def patches_payload(sheet: PatchSheet, row: int, count: int) -> bytes:
    """Return the patches of a channel as one JPEG, the strongest first, side by side, each in a square."""
    from PIL import Image

    patches = [sheet.patch(row, rank) for rank in range(count)]
    side = max(patches[0].shape[:2])
    strip = Image.new("RGB", (side * count, side))
    for rank, patch in enumerate(patches):
        top, left = ((side - length) // 2 for length in patch.shape[:2])
        strip.paste(Image.fromarray(patch), (rank * side + left, top))
    return as_jpeg(strip)


def _packed(arrays: dict[str, NDArray[Any]], kind: str) -> bytes:
    from safetensors.numpy import save

    return zlib.compress(save(arrays, {RECORD: json.dumps({"format": kind})}))
