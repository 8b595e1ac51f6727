"""From captured activations to maps: one record for each layer, or for each time step of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from ..errors import OptionError
from ..models.layers import every_module, layer_names
from ..models.loaded import LoadedModel
from ..options.reading import AxesOptions
from ..provenance import Provenance, layer_at
from .axes.evidence import Evidence
from .axes.find import find_axes, to_maps
from .axes.proven import out_of_place
from .axes.record import Axes
from .digests import sample_digest
from .fields.known import known_field

if TYPE_CHECKING:
    import torch

    from .fields.record import ReceptiveField


def frame_of(sample: torch.Tensor, step: int | None, steps: int) -> torch.Tensor:
    """Return the image, (C, H, W), that lies under the maps of a step of a layer.

    Args:
        sample: (C, H, W) float, or of a volume or a clip (C, D, H, W). What went into the model.
        step: plane or time step of the maps; None for maps without any.
        steps: how many of these the layer has; each covers an equal part of the depth of the sample.

    Returns:
        (C, H, W), a view.
    """
    return sample if sample.ndim < 4 else sample[:, frame_number(sample.shape[1], step, steps)]


def frame_number(depth: int, step: int | None, steps: int) -> int:
    """Return which of `depth` frames of a sample lies under the maps of a step; see frame_of."""
    return 0 if step is None else min(depth - 1, int((step + 0.5) * depth / steps))


class LayerMaps(NamedTuple):
    """The maps of a layer, or of one plane or time step of it, for each image of a batch.

    name: name of what is drawn: the layer's, for volumes with the plane, for clips with the time step.
    layer: name of the layer.
    maps: (N, C, H, W) real dtype, on the device of the layer.
    axes: what the axes of its activations mean.
    step: plane of a volume or time step of a clip, from 0; None for images.
    out_of_place: finds why the maps do not lie in the image as they are drawn, as attention matrices, windows and
        pieces of maps do not; "" where they do. It may take a pass of the model.
    field: finds the layer's receptive field, which may take a pass too; None where there is none.
    """

    name: str
    layer: str
    maps: torch.Tensor
    axes: Axes
    step: int | None
    out_of_place: Callable[[], str] = str
    field: Callable[[], ReceptiveField | None] = lambda: None

    def provenance(self, model: LoadedModel, image: str, with_field: bool = False) -> Provenance:
        """Return where the maps of one image came from, with the layer's receptive field where that is wanted."""
        known = Provenance(
            model=model.spec,
            weights=model.weights,
            layer=self.layer,
            image=image,
            axes=self.axes.name,
            prefix_tokens=None if self.axes.grid is None else self.axes.prefix_tokens,
            time_step=None if self.axes.name == "ncdhw" else self.step,
            plane=self.step if self.axes.name == "ncdhw" else None,
            categories=model.categories,
            weights_digest=sample_digest(model),
        )
        return known.with_field(self.field()) if with_field else known


def read_activations(
    model: LoadedModel, activations: Mapping[str, torch.Tensor], shape: tuple[int, ...], axes: AxesOptions
) -> Iterator[LayerMaps]:
    """Read captured activations as maps.

    Args:
        model: the model that ran.
        activations: layer name -> activations, from `capture`.
        shape: shape of the batch that went in.
        axes: how to read them.

    Yields:
        The maps, in the order of `activations`; of a clip one record for each time step, `layer@t0`, `layer@t1`, ...,
        of a volume one for each plane, `layer@d0`, ...

    Raises:
        ShapeError: the activations of a layer cannot be drawn, or their axes cannot be told.
        OptionError: planes are named that the layer or the input does not have.
    """
    if axes.planes is not None and len(shape) != 5:
        raise OptionError(f"planes go with volumes and clips, and the input of this model has shape {shape}.")
    shapes = {layer: tuple(output.shape) for layer, output in activations.items()}
    for layer, found, evidence in axes_of(model, shapes, shape, axes):
        output = activations[layer]
        clip = output.ndim == 5 or found.steps > 1
        for step in _steps(layer, found.steps, axes.planes if clip else None):
            maps = to_maps(output, found, step)
            # Where the axes were named and the layer cuts an image into windows, the first window is shown.
            windows = len(maps) > shape[0]
            maps = maps[:: len(maps) // shape[0]] if windows else maps
            at = step if clip else None
            name = layer_at(layer, plane=at) if found.name == "ncdhw" else layer_at(layer, at)
            reason = _of_windows if windows else cache(partial(out_of_place, found, tuple(output.shape), evidence))
            field = cache(partial(known_field, model, layer, shape, tuple(activations)))
            yield LayerMaps(name, layer, maps, found, at, reason, field)


def axes_of(
    model: LoadedModel, outputs: Mapping[str, tuple[int, ...]], shape: tuple[int, ...], axes: AxesOptions
) -> Iterator[tuple[str, Axes, Evidence]]:
    """Find what the axes of layers' outputs mean.

    Args:
        model: the model that ran.
        outputs: layer name, as `capture` gives it -> shape of its output.
        shape: of the batch that went in.
        axes: how to read them.

    Yields:
        The name of each layer, its axes, and what is known of it.

    Raises:
        ShapeError: the output of a layer cannot be drawn, or its axes cannot be told.
    """
    modules, called = layer_names(model.module), (model.inputs, model.forward)
    layers = tuple(map(id, every_module(model.module).values()))
    for layer, output in outputs.items():
        # None for a part of an output or an operation.
        module = modules.get(layer) or modules.get(re.sub(r":\d+$", "", layer))
        evidence = Evidence(layer, module, model.module, shape, called, layers)
        yield layer, find_axes(output, evidence, axes.axes), evidence


def _of_windows() -> str:
    return "is one of the windows that the layer cuts an image into"


def _steps(layer: str, count: int, chosen: Sequence[int] | None) -> Sequence[int]:
    """Return the planes or time steps to read: all, or those chosen; raise OptionError where there are too few."""
    if chosen is None:
        return range(count)
    if max(chosen) >= count:
        raise OptionError(f"planes must be 0 to {count - 1} for layer {layer!r}, got {max(chosen)}.")
    return chosen
