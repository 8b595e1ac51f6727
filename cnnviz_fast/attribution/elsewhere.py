"""Where a layer has no gradient: the last layer before it that has one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..activations.axes.record import Axes
from ..activations.passes.forward import Enough, Watched, run_pass
from ..activations.tensors import tensors_in
from ..models.layers import layer_names
from ..models.loaded import root_of
from .head import Request, differentiate
from .layer_maps import all_maps

if TYPE_CHECKING:
    import torch
    from torch import nn


def layer_that_works(request: Request, layer: str, axes: Axes) -> str | None:
    """Find the last layer before another one whose maps have that one's shape, and a gradient. It takes two passes.

    Args:
        request: that found no gradient.
        layer: where.
        axes: of its output.

    Returns:
        The name; None where there is none.
    """
    from torch import nn

    one = request.variants(0, request.batch[:1])
    before = [f"{name}:0" for name in _before(one, layer)]
    if not before:
        return None
    found = differentiate(dataclasses.replace(one, layers=before)).of
    working = [name for name in before if all(of is not None and all_maps(of, axes).any() for of in found[name])]
    # Not a part of an attention or the like that has none as a whole: its maps would be those of no stage.
    modules = layer_names(root_of(request.model))
    within = [name.removesuffix(":0") for name in before if name not in working]
    silent = tuple(f"{name}." for name in within if not isinstance(modules[name], nn.Sequential))
    outside = [name.removesuffix(":0") for name in working if not name.startswith(silent)]
    return outside[-1] if outside else None


def _before(request: Request, layer: str) -> list[str]:
    """Return the layers that put out what has the shape of a layer's output before that one does, in this order."""
    model = root_of(request.model)
    modules = {module: name for name, module in layer_names(model).items()}
    shapes: dict[str, tuple[int, ...]] = {}

    def see(module: nn.Module, output: Any) -> None:
        tensors: list[torch.Tensor] = list(tensors_in(output).values())
        if len(tensors) == 1 and tensors[0].is_floating_point():
            shapes.setdefault(modules[module], tuple(tensors[0].shape))
        if modules[module] == base:
            raise Enough

    base = layer if layer in modules.values() else layer.partition(":")[0].partition("[")[0]
    run_pass(model, request.batch, Watched(modules, see), request.inputs(), request.model.forward)
    shape = shapes.pop(base, None)
    return [name for name, each in shapes.items() if each == shape]
