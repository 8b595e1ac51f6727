"""Stages 2 to 5 joined: a picture goes through a model, and what layers put out becomes maps and plans of sheets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .capture import capture
from .errors import InputError, OptionError, closest
from .file_names import distinct_stems
from .images import find_images, image_name, load_images
from .layers import layer_names
from .layouts import Layout, Origin, find_layout, to_maps
from .manifest import Source
from .models import LoadedModel
from .options import LayoutOptions, RenderOptions
from .overlay import Backdrop
from .plan import Plan, plan_sheet

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .dataset_statistics import Ranges


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
    maps: dict[str, tuple[torch.Tensor, Source]] = {}
    for layer, output in capture(model, batch, layers).items():
        origin = Origin(layer, _module_at(model.module, layer), model.module, tuple(batch.shape))
        found = find_layout(tuple(output.shape), origin, (layout or LayoutOptions()).layout)
        clip = output.ndim == 5 or found.steps > 1
        for step in range(found.steps):
            source = _source_of(model, picture, layer, found, step if clip else None)
            maps[f"{layer}@t{step}" if clip else layer] = to_maps(output, found, step)[0], source
    return Seen(batch[0] if batch.ndim == 4 else batch[0, :, 0], maps)


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
            plans[layer] = plan(maps, options, source, under, ranges=_ranges_of(source.layer, ranges))
        except InputError as error:
            raise type(error)(f"{layer}: {error}" if len(seen.maps) > 1 else str(error)) from error
    return plans


def _ranges_of(layer: str | None, ranges: Mapping[str, Ranges] | None) -> Ranges | None:
    """Return the ranges of a layer, of a clip the same for every time step."""
    if ranges is None:
        return None
    if layer is None or layer not in ranges:
        raise OptionError(f"statistics have no layer {layer!r}.{closest(str(layer), ranges)}")
    return ranges[layer]


def _source_of(model: LoadedModel, picture: Picture, layer: str, found: Layout, step: int | None) -> Source:
    return Source(
        model=model.spec,
        weights=model.weights,
        layer=layer,
        image=picture.name,
        layout=found.name,
        prefix_tokens=found.prefix_tokens if found.name == "tokens" else None,
        time_step=step,
        categories=model.categories,
    )


def _module_at(model: nn.Module, layer: str) -> nn.Module | None:
    """Return the module whose output a captured name stands for; None for a part of an output or an operation."""
    modules = layer_names(model)
    return modules.get(layer) or modules.get(re.sub(r":\d+$", "", layer))
