"""Stages 2 to 5 joined: a picture goes through a model, and what layers put out becomes maps and plans of sheets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..models.layers import layer_names
from ..models.load import LoadedModel
from ..options.reading import AxesOptions
from ..provenance import Provenance
from .axes import Axes, Origin, find_axes, to_maps

if TYPE_CHECKING:
    import torch
    from torch import nn


def frame_of(batch: torch.Tensor) -> torch.Tensor:
    """Return what went in as pictures, (N, 3, H, W): of clips, (N, 3, T, H, W), their first frames."""
    return batch if batch.ndim == 4 else batch[:, :, 0]


class LayerMaps(NamedTuple):
    """The maps of a layer, or of a time step of it, for each picture of a batch.

    name: of what is drawn: the layer's, of a clip with the time step.
    layer: its name.
    maps: (N, C, H, W) real dtype, where the layer lies.
    axes: how they were read.
    step: the time step of a clip, from 0.
    """

    name: str
    layer: str
    maps: torch.Tensor
    axes: Axes
    step: int | None

    def provenance(self, model: LoadedModel, image: str) -> Provenance:
        """Say where the maps of one picture came from."""
        return Provenance(
            model=model.spec,
            weights=model.weights,
            layer=self.layer,
            image=image,
            axes=self.axes.name,
            prefix_tokens=self.axes.prefix_tokens if self.axes.name == "tokens" else None,
            time_step=self.step,
            categories=model.categories,
        )


def read_outputs(
    model: LoadedModel, outputs: Mapping[str, torch.Tensor], shape: tuple[int, ...], axes: AxesOptions
) -> Iterator[LayerMaps]:
    """Read the maps out of what layers put out.

    Args:
        model: that ran.
        outputs: of capture.
        shape: of the batch that went in.
        axes: how to read them.

    Yields:
        The maps, in the order of `outputs`; of a clip for each time step: `layer@t0`, `layer@t1`, ...

    Raises:
        ShapeError: a layer whose output cannot be drawn, or whose layout cannot be told.
    """
    for layer, output in outputs.items():
        origin = Origin(layer, _module_at(model.module, layer), model.module, shape)
        found = find_axes(tuple(output.shape), origin, axes.axes)
        clip = output.ndim == 5 or found.steps > 1
        for step in range(found.steps):
            maps = to_maps(output, found, step)
            # Of several windows of a picture the first is shown, where the layout was named.
            maps = maps[:: len(maps) // shape[0]] if len(maps) > shape[0] else maps
            name, at = (f"{layer}@t{step}", step) if clip else (layer, None)
            yield LayerMaps(name, layer, maps, found, at)


def _module_at(model: nn.Module, layer: str) -> nn.Module | None:
    """Return the module whose output a captured name stands for; None for a part of an output or an operation."""
    modules = layer_names(model)
    return modules.get(layer) or modules.get(re.sub(r":\d+$", "", layer))
