"""Stages 2 to 5 joined: a picture goes through a model, and what layers put out becomes maps and plans of sheets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError, OptionError, closest
from ..formats.names import distinct_stems
from ..inputs.images import find_images, image_name, load_images
from ..models.layers import layer_names
from ..models.load import LoadedModel
from ..options import LayoutOptions, RenderOptions
from ..sheets.manifest import Source
from ..sheets.overlay import Backdrop
from ..sheets.plan import Plan, plan_sheet
from .axes import Layout, Origin, find_layout, to_maps
from .capture import capture

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..channels.dataset import Ranges


@dataclass(frozen=True)
class Picture:
    """One picture to look at: where it comes from, and the stem of the files that come out."""

    origin: Any
    name: str
    stem: str


def list_pictures(images: Any) -> list[Picture]:
    """Find the pictures and give each a stem of its own.

    Args:
        images: what `load_images` takes.

    Returns:
        The pictures. Two of the same name, from different folders, get different stems: the second ends in -2.

    Raises:
        ImageError: a file is missing, or a folder holds no picture.
    """
    origins = find_images(images)
    names = [image_name(origin, position) for position, origin in enumerate(origins)]
    return [
        Picture(origin, str(origin) if isinstance(origin, (str, os.PathLike)) else name, stem)
        for origin, name, stem in zip(origins, names, distinct_stems(names), strict=True)
    ]


@dataclass(frozen=True)
class Seen:
    """What a model makes of a picture.

    Attributes:
        frame: (3, H, W) float32, the model's device or the CPU. What went in; of a clip, its first frame.
        maps: layer name -> maps, (C, H, W), and where they came from, in the order asked for. A clip has maps for each
            time step: `layer@t0`, `layer@t1`, ...
    """

    frame: torch.Tensor
    maps: dict[str, tuple[torch.Tensor, Source]]


def look_at(
    model: LoadedModel, picture: Picture, layers: Any, max_pixels: int, layout: LayoutOptions | None = None
) -> Seen:
    """Run the model on one picture and read the maps out of what each layer put out.

    Args:
        model: to run.
        picture: to look at.
        layers: layer patterns; see capture.
        max_pixels: largest picture to read, in px.
        layout: how to read what the layers put out; see layouts.

    Returns:
        The maps.

    Raises:
        ShapeError: a layer whose output cannot be drawn, or whose layout cannot be told.
        CnnvizError: anything else that is wrong; see load_images and capture.
    """
    batch = load_images(picture.origin, model, max_pixels=max_pixels)
    outputs = capture(model, batch, layers)
    maps = {
        read.name: (read.maps[0], read.source(model, picture.name))
        for read in read_outputs(model, outputs, tuple(batch.shape), layout or LayoutOptions())
    }
    return Seen(frame_of(batch)[0], maps)


def frame_of(batch: torch.Tensor) -> torch.Tensor:
    """Return what went in as pictures, (N, 3, H, W): of clips, (N, 3, T, H, W), their first frames."""
    return batch if batch.ndim == 4 else batch[:, :, 0]


class LayerMaps(NamedTuple):
    """The maps of a layer, or of a time step of it, for each picture of a batch.

    name: of what is drawn: the layer's, of a clip with the time step.
    layer: its name.
    maps: (N, C, H, W) real dtype, where the layer lies.
    layout: how they were read.
    step: the time step of a clip, from 0.
    """

    name: str
    layer: str
    maps: torch.Tensor
    layout: Layout
    step: int | None

    def source(self, model: LoadedModel, image: str) -> Source:
        """Say where the maps of one picture came from."""
        return Source(
            model=model.spec,
            weights=model.weights,
            layer=self.layer,
            image=image,
            layout=self.layout.name,
            prefix_tokens=self.layout.prefix_tokens if self.layout.name == "tokens" else None,
            time_step=self.step,
            categories=model.categories,
        )


def read_outputs(
    model: LoadedModel, outputs: Mapping[str, torch.Tensor], shape: tuple[int, ...], layout: LayoutOptions
) -> Iterator[LayerMaps]:
    """Read the maps out of what layers put out.

    Args:
        model: that ran.
        outputs: of capture.
        shape: of the batch that went in.
        layout: how to read them.

    Yields:
        The maps, in the order of `outputs`; of a clip for each time step: `layer@t0`, `layer@t1`, ...

    Raises:
        ShapeError: a layer whose output cannot be drawn, or whose layout cannot be told.
    """
    for layer, output in outputs.items():
        origin = Origin(layer, _module_at(model.module, layer), model.module, shape)
        found = find_layout(tuple(output.shape), origin, layout.layout)
        clip = output.ndim == 5 or found.steps > 1
        for step in range(found.steps):
            maps = to_maps(output, found, step)
            # Of several windows of a picture the first is shown, where the layout was named.
            maps = maps[:: len(maps) // shape[0]] if len(maps) > shape[0] else maps
            name, at = (f"{layer}@t{step}", step) if clip else (layer, None)
            yield LayerMaps(name, layer, maps, found, at)


def plan_layers(
    model: LoadedModel,
    seen: Seen,
    options: RenderOptions,
    backdrop: Backdrop | None = None,
    plan: Callable[..., Plan] = plan_sheet,
    ranges: Mapping[str, Ranges] | None = None,
) -> dict[str, Plan]:
    """Plan what is drawn of each layer, so that what is wrong shows before a file is made.

    Args:
        model: that was run.
        seen: what it made of a picture.
        options: how to draw.
        backdrop: the picture to lay maps over.
        plan: `plan_sheet`, or `plan_tiles` for single files.
        ranges: layer name -> what `plan` takes as ranges.

    Returns:
        Layer name -> plan.

    Raises:
        CnnvizError: anything that is wrong; see plan_sheet.
    """
    under = backdrop.seen_by_model(seen.frame, model.preprocess) if backdrop else None
    plans = {}
    for layer, (maps, source) in seen.maps.items():
        try:
            plans[layer] = plan(maps, options, source, under, ranges=ranges_of_layer(source.layer, ranges))
        except InputError as error:
            raise type(error)(f"{layer}: {error}" if len(seen.maps) > 1 else str(error)) from error
    return plans


def ranges_of_layer(layer: str | None, ranges: Mapping[str, Ranges] | None) -> Ranges | None:
    """Return the ranges of a layer, of a clip the same for every time step.

    Args:
        layer: its name.
        ranges: layer name -> ranges, or None for none.

    Returns:
        The ranges, or None.

    Raises:
        OptionError: there are ranges, and none of this layer.
    """
    if ranges is None:
        return None
    if layer is None or layer not in ranges:
        raise OptionError(f"statistics have no layer {layer!r}.{closest(str(layer), ranges)}")
    return ranges[layer]


def _module_at(model: nn.Module, layer: str) -> nn.Module | None:
    """Return the module whose output a captured name stands for; None for a part of an output or an operation."""
    modules = layer_names(model)
    return modules.get(layer) or modules.get(re.sub(r":\d+$", "", layer))
