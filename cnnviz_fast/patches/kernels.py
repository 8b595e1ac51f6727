"""The kernels of a layer that reads the image, as large as its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..models.loaded import root_of
from ..models.preprocess import colour_order

if TYPE_CHECKING:
    from torch import nn

    from ..activations.fields.record import ReceptiveField
    from ..models.loaded import LoadedModel

Pixels = NDArray[np.uint8]


def kernels_of(
    model: LoadedModel, layer: str, field: ReceptiveField, channels: list[int], shape: tuple[int, int]
) -> list[Pixels] | None:
    """Draw the kernels of channels of a layer that is a convolution of the image, with what follows it at a place.

    Kernels of other layers have as many planes as the layer before has channels, and are in no colours.

    Args:
        model: that has the layer.
        layer: its name.
        field: of its units.
        channels: whose kernels.
        shape: (height, width) of a patch, px.

    Returns:
        (height, width, 3) uint8 RGB for each, on the range of its own weights; None for other layers.
    """
    from PIL import Image

    if (convolution := _reads_the_image(root_of(model), layer, field)) is None:
        return None
    drawn = []
    for weight in convolution.weight.detach().float().cpu()[channels].numpy():
        order = (colour_order(model.preprocess) or [0, 1, 2]) if len(weight) == 3 else [0] * 3
        low, high = weight.min(), weight.max()
        levels = np.floor(255 * (weight - low) / ((high - low) or 1) + 0.5).astype(np.uint8)
        kernel = Image.fromarray(np.ascontiguousarray(np.moveaxis(levels[order], 0, -1)))
        drawn.append(np.asarray(kernel.resize((shape[1], shape[0]), Image.Resampling.NEAREST)))
    return drawn


def _reads_the_image(model: nn.Module, layer: str, field: ReceptiveField) -> nn.Conv2d | None:
    """Return the convolution of the image that a layer is, or holds as all that mixes channels; None for others."""
    from torch import nn

    def mixing(module: nn.Module) -> list[nn.Module]:
        return [each for each in module.modules() if any(weight.ndim > 1 for weight in each.parameters(recurse=False))]

    named = dict(model.named_modules())
    found = mixing(named[layer]) if layer in named else []
    if len(found) != 1 or found != mixing(model)[:1]:
        return None
    (only,) = found
    if not isinstance(only, nn.Conv2d) or only.in_channels not in (1, 3) or only.groups != 1:
        return None
    reach = tuple(step * (side - 1) + 1 for side, step in zip(only.kernel_size, only.dilation, strict=True))
    return only if not field.whole and (field.size, field.stride) == (reach, only.stride) else None
