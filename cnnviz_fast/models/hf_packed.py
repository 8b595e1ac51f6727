"""Images that transformers packs patch by patch, row by row, with the size of the grid beside them (SigLIP 2, LFM2-VL).

Here such an input stays an image, which can be drawn and laid under maps: what the processor packs is unpacked, and a
hook on the model packs it again. The sizes that the model needs follow from the shape of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

BESIDE = ["pixel_attention_mask", "spatial_shapes"]
"""Arguments of models that take such patches."""


def unpacked(found: Mapping[str, Any]) -> torch.Tensor | None:
    """Make an image of the patches that a processor returns.

    Args:
        found: what it returns: `pixel_values` (1, L, P * P * 3), and `spatial_shapes` (1, 2), rows and columns.

    Returns:
        (3, H, W) float32, without what is padded; None if it returned something else.
    """
    values: Any = found.get("pixel_values")
    shapes: Any = found.get("spatial_shapes")
    if shapes is None or getattr(values, "ndim", 0) != 3:
        return None
    rows, columns = (int(count) for count in shapes[0])
    side = round((values.shape[-1] / 3) ** 0.5)
    if side * side * 3 != values.shape[-1]:
        return None
    grid = values[0, : rows * columns].float().reshape(rows, columns, side, side, 3)
    image: torch.Tensor = grid.permute(4, 0, 2, 1, 3).reshape(3, rows * side, columns * side)
    return image


def pack(part: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pack images (N, C, H, W) as a model takes them, and add what it needs beside them; a hook before its forward.

    Args:
        part: the model; its configuration has the size of a patch.
        arguments: of the call, the images first. Patches that the caller has packed stay as they are.
        named: keyword arguments of the call.

    Returns:
        Both, changed.

    Raises:
        InputError: the images are not whole patches high and wide.
    """
    import torch

    values = arguments[0] if arguments else None
    if not isinstance(values, torch.Tensor) or values.ndim != 4:
        return arguments, named
    side = int(part.config.patch_size)  # type: ignore[union-attr,arg-type]
    count, channels, height, width = values.shape
    rows, columns = height // side, width // side
    if (rows * side, columns * side) != (height, width):
        raise InputError(
            f"images of this model must be multiples of {side} px high and wide, got {height} x {width}. Set size."
        )
    grid = values.reshape(count, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    patches = grid.reshape(count, rows * columns, -1)
    # Nothing is padded, so there is no mask. Sizes are values: they are on the CPU, also for a model without values.
    beside = dict(zip(BESIDE, (None, torch.tensor([[rows, columns]] * count)), strict=True))
    return (patches, *arguments[1:]), beside | named
