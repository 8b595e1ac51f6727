"""The entrance for maps that a caller hands in: whatever shape they have, they become (C, H, W) or a vector (C,)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DTypeError, ShapeError
from ..options.parsers import choice
from .values import dense, widened

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions

SAMPLE_AXES = ("auto", "chw", "hwc", "cl", "lc", "hw", "c")
"""Axes of one sample; auto takes the channels to be first."""

LEAST_PHOTO_PX = 6
"""Three columns wide, at least this high and as many: such maps are taken to be an image with its colours last."""

ROW_PX = 8
"""Height of a signal's row if neither `tile` nor `scale` is given."""

LEAST_ROW_PX, MOST_ROW_PX = 512, 4096
"""Width of a signal's row: a pixel a value between these."""


def enter(maps: Any, options: RenderOptions, axes: str = "auto") -> tuple[Any, RenderOptions]:
    """Bring maps as a caller has them into the form that is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array; (1, C, H, W), a batch of one; (C, L), a
            signal; (C,), a vector; or a list of maps (H, W), or of (C, H, W) that follow each other. Other orders where
            `axes` says so. Not modified.
        options: how they are drawn.
        axes: of one sample: chw, hwc, cl, lc, hw or c, or auto; with a leading n as well.

    Returns:
        The maps, (C, H, W) or (C,) for a vector, in their own kind and dtype, and the options, completed for a signal.

    Raises:
        ShapeError: the maps have another shape, or with auto that of an image with its colours last.
        DTypeError: a list holds no numbers.
        OptionError: `axes` is none of these.
    """
    known = (*SAMPLE_AXES, *(f"n{order}" for order in SAMPLE_AXES[1:]))
    order = choice(*known)("axes", axes).removeprefix("n")
    is_list = isinstance(maps, list | tuple)
    values = _one_sample(_stacked(maps) if is_list else _plain(maps), order)
    shape = tuple(getattr(values, "shape", ()))
    if order == "auto" and not is_list and len(shape) == 3 and shape[2] == 3 and min(shape[:2]) >= LEAST_PHOTO_PX:
        raise ShapeError(
            f"maps must have shape (C, H, W), got {shape}, which looks like an image (H, W, 3). "
            f"Say axes='hwc' if it is one, axes='chw' if it is not."
        )
    if len(shape) == 2 and order in ("auto", "cl", "lc"):
        signal = (values.T if order == "lc" else values)[:, None]
        return signal, as_rows(options, signal.shape[2])
    if order == "hw" and len(shape) == 2:
        return values[None], options
    if order == "hwc" and len(shape) == 3:
        return np.moveaxis(values, 2, 0) if isinstance(values, np.ndarray) else values.permute(2, 0, 1), options
    if order not in ("auto", "chw", "c") or (order == "chw" and len(shape) != 3) or (order == "c" and len(shape) != 1):
        raise ShapeError(f"maps must have {len(order)} axes for axes {order!r}, got shape {shape}.")
    return values, options


def as_rows(options: RenderOptions, length: int) -> RenderOptions:
    """Fill in how a signal is drawn where the options do not say: a row for each channel, one under another.

    Args:
        options: as given.
        length: values of each channel.

    Returns:
        The options with the size of a row and a grid of one column.
    """
    width = min(max(length, LEAST_ROW_PX), MOST_ROW_PX)
    return dataclasses.replace(
        options,
        tile=(ROW_PX, width) if options.tile is None and options.scale is None else options.tile,
        grid=(0, 1) if options.grid == (0, 0) else options.grid,
    )


def _plain(maps: Any) -> Any:
    """Return a tensor with plain numbers, an array that is no matrix, and anything else as it is."""
    if isinstance(maps, torch.Tensor):
        return dense(maps)
    return np.asarray(maps) if isinstance(maps, np.matrix) else maps


def _one_sample(maps: Any, order: str) -> Any:
    """Return the sample of a batch of one, and anything else as it is."""
    ndim = getattr(maps, "ndim", 0)
    is_batch = ndim == (4 if order == "auto" else len(order) + 1)
    return maps[0] if is_batch and len(maps) == 1 else maps


def _stacked(maps: list[Any] | tuple[Any, ...]) -> Any:
    """Make one tensor of a list: of maps (H, W), of maps (C, H, W), or of numbers, also in lists of lists."""
    if not maps:
        raise ShapeError("maps must have at least one channel, got an empty list.")
    try:
        if not any(hasattr(each, "shape") for each in maps):
            return np.asarray(maps, dtype=np.float32)
        parts = [dense(each) if isinstance(each, torch.Tensor) else widened(np.asanyarray(each)) for each in maps]
        return torch.cat(parts) if all(part.ndim == 3 for part in parts) else torch.stack(parts)
    except DTypeError:
        raise
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        shapes = sorted({str(tuple(getattr(each, "shape", ()))) for each in maps})
        if len(shapes) > 1:
            raise ShapeError(f"a list of maps must hold maps of one size, got {', '.join(shapes[:4])}.") from error
        raise DTypeError(
            f"a list of maps must hold tensors, arrays or numbers, got {type(maps[0]).__name__}."
        ) from error
