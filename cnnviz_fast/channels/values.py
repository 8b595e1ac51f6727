"""Maps as tensors: check, widen, squash and shrink them, on the device where they lie."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import DTypeError, ShapeError, repr_of
from ..kernels.backends import BACKENDS
from ..runtime.arrays import as_float32
from ..runtime.native import native
from ..runtime.plain import dense, plain


def json_numbers(column: torch.Tensor) -> list[Any]:
    """Return the numbers of a tensor in types that JSON has.

    Args:
        column: (n,) real dtype.

    Returns:
        The numbers, with None for those that are not finite.
    """
    values: list[Any] = column.tolist()
    if column.is_floating_point() and not bool(column.isfinite().all()):
        return [value if math.isfinite(value) else None for value in values]
    return values


def as_maps(maps: Any) -> torch.Tensor:
    """Check maps and widen them to float32, on the device where they lie.

    Args:
        maps: (C, H, W) real dtype, an array or a tensor, or (C,) for a vector. See as_tensor. Not modified.

    Returns:
        (C, H, W) float32, detached. `maps` itself if nothing had to change.

    Raises:
        InputError: as for as_tensor.
    """
    return as_tensor(maps).to(torch.float32)


def as_tensor(maps: Any) -> torch.Tensor:
    """Check maps, and return them as a tensor in their own dtype.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, any strides; or a vector (C,), whose maps
            are single cells. Not modified.

    Returns:
        (C, H, W) real dtype, detached; float32 for a numpy array, with NaN where it is masked, and for a quantised
        tensor. `maps` itself if nothing had to change.

    Raises:
        ShapeError: `maps` is neither 3-dimensional nor a vector, or has no pixels.
        DTypeError: `maps` is complex, sparse, nested, on the meta device, or not an array.
    """
    if isinstance(maps, np.ndarray):
        maps = widened(maps)
    if not isinstance(maps, torch.Tensor):
        raise DTypeError(f"maps must be a tensor or a numpy array, got {type(maps).__name__}.{_advice_on(maps)}")
    maps = plain(maps)
    if maps.ndim == 4:
        raise ShapeError(f"maps must have shape (C, H, W), got {tuple(maps.shape)}. Pass one sample: maps[0].")
    if maps.ndim not in (1, 3):
        raise ShapeError(
            f"maps must have shape (C, H, W), or (C,) for a vector, got {tuple(maps.shape)}. Pass one sample: maps[0]."
        )
    check_values(maps)
    values: torch.Tensor = maps.detach().resolve_neg()
    return values[:, None, None] if values.ndim == 1 else values


def _advice_on(maps: Any) -> str:
    """Return what to do with maps that are not an array: what `capture` returns, or the path of an image."""
    if isinstance(maps, Mapping) and maps:
        return f" Pass one sample of one layer: maps[{repr_of(next(iter(maps)))}][0]."
    if isinstance(maps, (str, os.PathLike)):
        return " Make maps of an image with load_images and capture."
    return ""


def widened(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return an array as a tensor of the dtype in which maps are drawn.

    Args:
        array: (...) real dtype, any strides and byte order. Not modified.

    Returns:
        (...) float32, in new memory. NaN where the array is masked; what float32 cannot hold is infinite.

    Raises:
        DTypeError: `array` holds something else than real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"maps must be of a real dtype, got {array.dtype}. Pass maps.real or abs(maps), say.")
    # A copy, since torch supports neither foreign byte orders nor negative strides, nor all of numpy's dtypes.
    return torch.from_numpy(as_float32(array))


def check_values(maps: torch.Tensor) -> None:
    """Refuse tensors without real values.

    Args:
        maps: (...) real dtype.

    Raises:
        ShapeError: `maps` has no pixels.
        DTypeError: `maps` is complex, sparse, nested, quantised or on the meta device.
    """
    dense(maps, opened=False)
    if 0 in maps.shape:
        raise ShapeError(f"maps must have at least one channel and one pixel, got shape {tuple(maps.shape)}.")


def squash(maps: torch.Tensor) -> torch.Tensor:
    """Apply a sigmoid to maps. An infinity stays infinite, so that it is drawn as bad and not as 0 or 1.

    Args:
        maps: (..., H, W) real dtype. Not modified.

    Returns:
        (..., H, W) float32, in [0, 1] where finite.
    """
    values = maps.to(torch.float32)
    return torch.where(values.isinf(), values, values.sigmoid())


def shrink(maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Shrink maps to the size of a smaller tile, without aliasing; kernels only enlarge or copy.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W), finite or not. Not modified.
        vmin: (C,) float32, or (N, C). Lower end of the range to which values are clamped first, as the pixel rules say.
        vmax: (C,) float32, or (N, C). Upper end of the range.
        height: height of a tile in px.
        width: width of a tile in px.

    Returns:
        (C, min(H, height), min(W, width)) float32, or (N, C, ...). NaN where a value that is not finite takes part.
        `maps` itself, in its dtype, if it is no larger than a tile.

    Source:
        torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False), within 1e-6 of the
        greatest magnitude of a range.
    """
    size = [min(maps.shape[-2], height), min(maps.shape[-1], width)]
    if size == list(maps.shape[-2:]):
        return maps
    # The same function for all backends of a device, so that their planes stay equal.
    if maps.device.type == "cpu" and native()[0] is not None:
        return _shrunk_natively(maps, vmin, vmax, size)
    return _shrunk_by_torch(maps, vmin, vmax, size)


def _shrunk_natively(maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Shrink maps on the CPU in one pass of csrc/kernels/shrink.cpp, which reads them as they are."""
    module, backend = native()[0], BACKENDS["native"]
    assert module is not None
    smaller = torch.empty((*maps.shape[:-2], *size))
    tensors = backend.readable(maps.detach()), vmin, vmax, smaller
    batch = (tensor if maps.ndim == 4 else tensor[None] for tensor in tensors)
    for sample, low, high, out in zip(*batch, strict=True):
        module.shrink(backend.to_array(sample), low.contiguous(), high.contiguous(), out)
    return smaller


def _shrunk_by_torch(maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Shrink maps by torch's own antialiased interpolation, on the device where they lie."""
    values = maps.to(torch.float32)
    # A range has NaN ends if the channel has no finite value, so nothing is clamped.
    low, high = (end.nan_to_num(0)[..., None, None] for end in (vmin, vmax))
    clamped = torch.clamp(values, low, high).where(values.isfinite(), torch.nan)
    smaller = clamped.flatten(0, -3)[None]
    if size[1] == 1:
        # Of columns that are 1 px wide torch 2.14 averages the wrong values on the CPU, unless they lie as a row.
        smaller = _interpolated(smaller.mT.contiguous(), [maps.shape[-1], size[0]]).mT.contiguous()
    return _interpolated(smaller, size).view(*maps.shape[:-2], *size)


def _interpolated(maps: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Shrink (1, C, H, W) float32 `maps` to `size`, height and width."""
    return torch.nn.functional.interpolate(maps, size=size, mode="bilinear", antialias=True)
