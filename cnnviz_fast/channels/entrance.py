"""The entrance for maps that a caller hands in, in whatever order of axes: they become (C, H, W), or a vector (C,).

enter         one sample, for render, save_sheet, save_tiles, compare, save_atlas and layer_report
enter_batch   N samples, for render_batch
enter_tensor  one sample or N, for render_index
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DTypeError, OptionError, ShapeError
from ..options.parsers import channel_list, choice
from ..runtime.plain import plain
from .values import widened

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions
    from ..provenance import Provenance

SAMPLE_AXES = ("auto", "chw", "hwc", "cl", "lc", "hw", "c", "cdhw", "dhwc")
"""Axes of one sample; auto takes the channels to be first."""

LEAST_PHOTO_PX = 6
"""Three columns wide, at least this high and as many: such maps are taken to be an image with its colours last."""

ROW_PX = 8
"""Height of a signal's row if neither `tile` nor `scale` is given."""

LEAST_ROW_PX, MOST_ROW_PX = 512, 4096
"""Width of a signal's row: a pixel a value between these."""


@dataclass(frozen=True)
class Handed:
    """The maps of one sample as they are drawn.

    Attributes:
        maps: (C, H, W) or (C,) real dtype, a tensor or an array; or what is neither, which `as_tensor` refuses.
        is_signal: whether each channel is a row of values, (C, 1, L).
        plane: of the volume that they were taken from.
    """

    maps: Any
    is_signal: bool = False
    plane: int | None = None

    def completed(self, options: RenderOptions) -> RenderOptions:
        """Return options with what they leave open for a signal."""
        return as_rows(options, self.maps.shape[-1]) if self.is_signal else options

    def placed(self, provenance: Provenance) -> Provenance:
        """Return a provenance with the plane of the volume."""
        return provenance if self.plane is None else dataclasses.replace(provenance, plane=self.plane)


def read_axes(axes: Any, planes: Any) -> tuple[str, int | None]:
    """Check what a caller says of the axes of maps.

    Args:
        axes: of one sample: one of SAMPLE_AXES; with a leading n as well.
        planes: of volumes, the plane to draw, counted from 0; None for maps that have none.

    Returns:
        The axes, without the n, and the plane. They are auto only where no plane is named.

    Raises:
        OptionError: `axes` is none of these, or `planes` is not one plane, or they do not go together.
    """
    known = (*SAMPLE_AXES, *(f"n{order}" for order in SAMPLE_AXES[1:]))
    order: str = choice(*known)("axes", axes).removeprefix("n")
    if planes is None:
        if "d" in order:
            raise OptionError(f"axes {order!r} must go with the plane to draw, got none. Name it: planes=0.")
        return order, None
    chosen = channel_list("planes", planes)
    if len(chosen) != 1:
        raise OptionError(f"planes must name one plane of a volume, got {len(chosen)}. Draw a sheet for each.")
    if order != "auto" and "d" not in order:
        raise OptionError(f"planes go with volumes, (C, D, H, W), got axes {order!r}. Leave planes out.")
    return "cdhw" if order == "auto" else order, chosen[0]


def enter(maps: Any, axes: Any = "auto", planes: Any = None) -> Handed:
    """Bring the maps of one sample, as a caller has them, into the form that is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array; (1, C, H, W), a batch of one; (C, L), a
            signal; (C,), a vector; (C, D, H, W), a volume, where `planes` names a plane; or a list of maps (H, W), or
            of (C, H, W) that follow each other. Other orders where `axes` says so. Not modified.
        axes: see read_axes.
        planes: see read_axes.

    Returns:
        The maps, in their own kind and dtype.

    Raises:
        ShapeError: the maps have another shape, or with auto that of an image with its colours last.
        DTypeError: a list holds no numbers.
        OptionError: `axes` or `planes` cannot be used.
    """
    order, plane = read_axes(axes, planes)
    is_list = isinstance(maps, list | tuple)
    values = _stacked(maps) if is_list else _plain(maps)
    ndim = getattr(values, "ndim", 0)
    if ndim == (4 if order == "auto" else len(order) + 1) and len(values) == 1:
        values, ndim = values[0], ndim - 1
    if order == "auto":
        if ndim > 3:
            raise ShapeError(
                f"maps must have shape (C, H, W), got {tuple(values.shape)}. Pass one sample: maps[0]. "
                f"Of a volume (C, D, H, W) name the plane: planes=0."
            )
        if not is_list:
            _refuse_photo(values, "maps")
        order = ("", "c", "cl", "chw")[ndim]
    elif ndim != len(order):
        shape = tuple(getattr(values, "shape", ()))
        raise ShapeError(f"maps must have {len(order)} axes for axes {order!r}, got shape {shape}.")
    return Handed(values if order in ("", "c") else arranged(values, order, plane), order in ("cl", "lc"), plane)


def enter_batch(maps: torch.Tensor, order: str, plane: int | None, what: str = "maps") -> torch.Tensor:
    """Bring the maps of N samples into the form that is drawn.

    Args:
        maps: (N, C, H, W) real dtype, any device, or with the axes of each sample in the order that is said; of
            volumes (N, C, D, H, W). Not modified.
        order: axes of each sample; see read_axes.
        plane: of volumes, the one that is drawn.
        what: what to call the maps in messages.

    Returns:
        (N, C, H, W) real dtype, a view.

    Raises:
        ShapeError: the maps have another shape, or with auto that of images with their colours last.
    """
    axes = "chw" if order == "auto" else order
    if maps.ndim != len(axes) + 1:
        wanted = ", ".join(f"n{axes}".upper())
        raise ShapeError(f"{what} must have shape ({wanted}), got {tuple(maps.shape)}. For one sample there is render.")
    if order == "auto":
        _refuse_photo(maps, what)
    values: torch.Tensor = arranged(maps, axes, plane)
    return values


def enter_tensor(maps: torch.Tensor, order: str, plane: int | None) -> torch.Tensor:
    """Bring the maps of one sample, or of N, into the form that is drawn, also in compiled code.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W), any device, or with the axes of each sample in the order that is
            said. Not modified.
        order: axes of each sample; see read_axes.
        plane: of volumes, the one that is drawn.

    Returns:
        (C, H, W) or (N, C, H, W) real dtype, a view.

    Raises:
        ShapeError: the maps have another shape, or with auto that of an image with its colours last.
    """
    axes = "chw" if order == "auto" else order
    if maps.ndim not in (len(axes), len(axes) + 1):
        one, several = (", ".join(each.upper()) for each in (axes, f"n{axes}"))
        raise ShapeError(f"maps must have shape ({one}), or ({several}) for a batch, got {tuple(maps.shape)}.")
    if order == "auto":
        _refuse_photo(maps, "maps")
    values: torch.Tensor = arranged(maps, axes, plane)
    return values


def arranged(values: Any, order: str, plane: int | None = None) -> Any:
    """Return maps as (C, H, W); axes in front of those of a sample stay.

    Args:
        values: (..., C, H, W) real dtype, or in another order. A tensor or an array. Not modified.
        order: axes of one sample; see SAMPLE_AXES.
        plane: of volumes, the one that is drawn.

    Returns:
        (..., C, H, W) in the same dtype, a view.

    Raises:
        OptionError: the volume has no such plane.
    """
    if plane is not None:
        at = order.index("d") - len(order)
        if plane >= values.shape[at]:
            raise OptionError(
                f"planes must be 0 to {values.shape[at] - 1} for shape {tuple(values.shape)}, got {plane}."
            )
        values = values[(..., plane, *[slice(None)] * (-at - 1))]
        order = order.replace("d", "")
    if order in ("hwc", "lc"):
        moved = np.moveaxis if isinstance(values, np.ndarray) else torch.movedim
        values = moved(values, -1, -len(order))
    if order in ("cl", "lc"):
        return values[..., None, :]
    if order == "hw":
        return values[..., None, :, :]
    return values[..., None, None] if order == "c" else values


def _refuse_photo(values: Any, what: str) -> None:
    """Refuse maps, also of a batch, that look like an image with its colours last."""
    shape: tuple[int, ...] = tuple(getattr(values, "shape", ()))
    *_, height, width, last = (0, 0, 0, *shape)
    if last == 3 and min(height, width) >= LEAST_PHOTO_PX:
        raise ShapeError(
            f"{what} must have shape (C, H, W), got {shape}, which looks like an image (H, W, 3). "
            f"Say axes='hwc' if it is one, axes='chw' if it is not."
        )


def row_layout(options: RenderOptions, length: int) -> tuple[Any, tuple[int, int]]:
    """Return the size of tiles and the grid of a signal where options do not say: a row for each channel.

    Args:
        options: as given.
        length: values of each channel.

    Returns:
        The options `tile` and `grid`: rows one under another.
    """
    width = min(max(length, LEAST_ROW_PX), MOST_ROW_PX)
    tile = (ROW_PX, width) if options.tile is None and options.scale is None else options.tile
    return tile, (0, 1) if options.grid == (0, 0) else options.grid


def as_rows(options: RenderOptions, length: int) -> RenderOptions:
    """Fill in how a signal is drawn where the options do not say; see row_layout.

    Args:
        options: as given.
        length: values of each channel.

    Returns:
        The options with the size of a row and a grid of one column.
    """
    tile, grid = row_layout(options, length)
    return dataclasses.replace(options, tile=tile, grid=grid)


def _plain(maps: Any) -> Any:
    """Return a tensor with plain numbers, an array that is no matrix, and anything else as it is."""
    if isinstance(maps, torch.Tensor):
        return plain(maps)
    return np.asarray(maps) if isinstance(maps, np.matrix) else maps


def _stacked(maps: list[Any] | tuple[Any, ...]) -> Any:
    """Make one tensor of a list: of maps (H, W), of maps (C, H, W), or of numbers, also in lists of lists."""
    if not maps:
        raise ShapeError("maps must have at least one channel, got an empty list.")
    try:
        if not any(hasattr(each, "shape") for each in maps):
            return np.asarray(maps, dtype=np.float32)
        parts = [plain(each) if isinstance(each, torch.Tensor) else widened(np.asanyarray(each)) for each in maps]
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
