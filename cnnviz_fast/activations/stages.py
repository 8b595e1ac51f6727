"""The layers that are drawn where nobody names any: the stages of a model, one for each size of its maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..models.layers import LayerInfo, layer_names
from ..models.loaded import LoadedModel
from .listing import list_layers
from .patterns import stages_of

if TYPE_CHECKING:
    import torch
    from torch import nn


def default_layers(model: LoadedModel, input: torch.Tensor | None = None) -> list[str]:
    """Return the stages of a model, the largest maps first.

    They are those that it declares (see `stage:` of the patterns). For other models they are, for each size of
    maps, the outermost layer with kernels that puts them out, and of several the last: conv1 to layer4 of a ResNet.

    Args:
        model: to look at, on any device. It is left as it was.
        input: (N, C, H, W) float, any device. What goes in; None for what the preprocessing makes.

    Returns:
        Names of layers.

    Raises:
        OptionError: no layer puts out maps.
        CaptureError: the model cannot run on this input.
    """
    declared = stages_of(model.module, layer_names(model.module))
    if declared:
        return declared
    chosen: dict[tuple[int, ...], LayerInfo] = {}
    for layer in list_layers(model, input):
        size = _size_of(layer.shape)
        if size is None or not _has_kernels(model.module.get_submodule(layer.name)):
            continue
        if size not in chosen or layer.name.count(".") <= chosen[size].name.count("."):
            chosen[size] = layer
    if not chosen:
        raise OptionError("layer must be given, as no layer of this model puts out maps. See: cnnviz layers MODEL")
    return [chosen[size].name for size in sorted(chosen, key=math.prod, reverse=True)]


def _size_of(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the size of the maps in an output, which may have its channels last; all tokens count as one size."""
    if shape is None or len(shape) < 3:
        return None
    if len(shape) == 3:
        return ()
    size = shape[1:-1] if shape[1] == shape[2] != shape[-1] else shape[2:]
    return size if max(size) > 1 else None


def _has_kernels(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())
