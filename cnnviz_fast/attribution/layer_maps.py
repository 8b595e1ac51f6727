"""The outputs of layers as maps of an image, planes and time steps included, and maps back in that form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..activations.axes.find import to_maps
from ..activations.axes.record import Axes
from ..activations.maps import axes_of
from ..errors import ShapeError
from ..models.loaded import LoadedModel
from ..options.reading import AxesOptions

if TYPE_CHECKING:
    import torch

CHANNELS_LAST = ("nhwc", "tokens", "tnc", "nthwc", "nlc")
"""Axes of which the last is that of the channels; of others it is the second."""

_PLACELESS = {"nc": "vectors", "matrix": "attention matrices"}
"""Axes without positions in the image, and what outputs with them are."""


def all_maps(output: torch.Tensor, axes: Axes) -> torch.Tensor:
    """Return the output of a layer as maps, those of several planes or time steps below each other.

    Args:
        output: (N, ...) real dtype, as `axes` says. Not modified.
        axes: its axes.

    Returns:
        (N, C, steps * h, w), same dtype: a view where strides and steps allow one.
    """
    import torch

    if axes.steps == 1:
        return to_maps(output, axes)
    return torch.cat([to_maps(output, axes, step) for step in range(axes.steps)], 2)


def as_steps(maps: torch.Tensor, axes: Axes) -> torch.Tensor:
    """Return maps that stand below each other with an axis of their planes or time steps.

    Args:
        maps: (N, T, steps * h, w) real dtype.
        axes: those of the layer.

    Returns:
        (N, T, steps, h, w) for volumes and clips, otherwise the maps themselves; a view.
    """
    if axes.steps > 1 or axes.name in ("ncdhw", "ncthw", "nthwc"):
        return maps.reshape(*maps.shape[:2], axes.steps, -1, maps.shape[3])
    return maps


def axes_of_maps(
    model: LoadedModel, outputs: Mapping[str, torch.Tensor], shape: tuple[int, ...], axes: AxesOptions
) -> dict[str, Axes]:
    """Return how the outputs of layers become maps of the images, one set for each.

    Args:
        model: that ran.
        outputs: layer name -> (N, ...) real dtype.
        shape: of the batch that went in.
        axes: how they are read.

    Returns:
        Layer name -> axes.

    Raises:
        ShapeError: a layer has no maps of the images, or its axes cannot be told.
    """
    found = {}
    shapes = {layer: tuple(output.shape) for layer, output in outputs.items()}
    for layer, read, _ in axes_of(model, shapes, shape, axes):
        if read.name in _PLACELESS:
            raise ShapeError(
                f"layer {layer!r} puts out {shapes[layer]}, {_PLACELESS[read.name]} without maps of the image. "
                f"`cnnviz layers` shows the layers."
            )
        sets = len(to_maps(outputs[layer], read))
        if sets != shape[0]:
            raise ShapeError(
                f"layer {layer!r} puts out {sets} sets of maps (windows or regions) for {shape[0]} images. Name a "
                f"layer with one for each."
            )
        found[layer] = read
    return found
