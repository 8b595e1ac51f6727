"""All of it: model and pictures in, sheets out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .activations.capture import capture
from .activations.maps import frame_of, read_outputs
from .channels.dataset import LayerStatistics, ranges_of, ranges_of_layer
from .errors import InputError
from .formats.names import distinct_stems, layer_stem, refuse_same_names
from .formats.picture import format_of
from .inputs.find import find_images, image_name
from .inputs.images import load_images
from .models.load import LoadedModel, as_given, load_model, module_of
from .models.preprocess import as_image
from .options.declared import takes
from .options.drawing import RenderOptions
from .options.reading import MAX_PIXELS, AxesOptions
from .provenance import Provenance
from .runtime.files import make_folder
from .runtime.progress import with_bar
from .sheets.overlay import Backdrop, read_overlay
from .sheets.plan import Plan, plan_sheet
from .sheets.render import draw_sheet
from .sheets.sheet import Sheet

if TYPE_CHECKING:
    import torch
    from torch import nn
    from typing_extensions import Unpack

    from .channels.dataset import Ranges
    from .options.keywords import RenderKeywords


@takes(RenderOptions)
def visualize(
    model: LoadedModel | nn.Module | str,
    images: Any,
    layers: str | int | Sequence[str | int],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str = "png",
    max_pixels: int = MAX_PIXELS,
    axes: str = "auto",
    overlay: Any = None,
    alpha: float | None = None,
    statistics: Mapping[str, LayerStatistics] | None = None,
    **options: Unpack[RenderKeywords],
) -> list[Sheet]:
    """Draw sheets of the layers of a model for pictures.

    A bar counts several pictures, in a notebook and on a terminal.

    Args:
        model: from load_model, a module of one's own, or a spec for load_model.
        images: files, folders, globs, PIL images, arrays or tensors, one or a list; see load_images.
        layers: layer patterns; see capture.
        out: folder to write the sheets to, made where it is missing; None writes nothing.
        format: of the files: png, jpg, webp or npy.
        max_pixels: largest picture to read, in px.
        axes: axes of what the layers put out: auto, nchw, nhwc, tokens, tokens:PREFIX:HxW, ncthw or nthwc.
        overlay: True to lay the maps over the picture as the model saw it, resized and cropped (of a clip, its first
            frame); or another picture, as in render.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        statistics: layer name -> statistics over a data set, with normalize dataset; see read_statistics.
        **options: see below.

    Returns:
        The sheets, picture by picture and layer by layer in the order asked for; of a clip, one a time step.

    Raises:
        CnnvizError: anything that went wrong; see load_model, load_images, capture and render.
    """
    checked = RenderOptions.of(options)
    reading = AxesOptions(axes=axes)
    format_of(Path(f"sheet.{format}"))
    backdrop = read_overlay(overlay, alpha, max_pixels=max_pixels)
    ranges = None
    if statistics is not None:
        ranges = {layer: found for layer, each in statistics.items() if (found := ranges_of(each, checked))}
    loaded = load_model(model) if isinstance(model, str) else model
    if not isinstance(loaded, LoadedModel):
        loaded = as_given(module_of(loaded))
    folder = Path(out) if out is not None else None
    if folder is not None:
        make_folder(folder)
    sheets: list[Sheet] = []
    pictures = list_pictures(images)
    for picture in with_bar(pictures, "picture"):
        plans = plan_layers(
            loaded, look_at(loaded, picture, layers, max_pixels, reading), checked, backdrop, ranges=ranges
        )
        if folder is not None and not sheets:
            refuse_same_names([each.stem for each in pictures], plans)
        for layer in list(plans):
            sheet = draw_sheet(plans.pop(layer))  # which lets go of its maps before the next picture needs memory
            if folder is not None:
                sheet.save(folder / f"{layer_stem(picture.stem, layer)}.{format}")
            sheets.append(sheet)
    return sheets


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
    maps: dict[str, tuple[torch.Tensor, Provenance]]


def look_at(
    model: LoadedModel, picture: Picture, layers: Any, max_pixels: int, axes: AxesOptions | None = None
) -> Seen:
    """Run the model on one picture and read the maps out of what each layer put out.

    Args:
        model: to run.
        picture: to look at.
        layers: layer patterns; see capture.
        max_pixels: largest picture to read, in px.
        axes: how to read what the layers put out; see layouts.

    Returns:
        The maps.

    Raises:
        ShapeError: a layer whose output cannot be drawn, or whose layout cannot be told.
        CnnvizError: anything else that is wrong; see load_images and capture.
    """
    batch = load_images(picture.origin, model, max_pixels=max_pixels)
    outputs = capture(model, batch, layers)
    maps = {
        read.name: (read.maps[0], read.provenance(model, picture.name))
        for read in read_outputs(model, outputs, tuple(batch.shape), axes or AxesOptions())
    }
    return Seen(frame_of(batch)[0], maps)


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
    under = backdrop.filled_with(partial(as_image, seen.frame, model.preprocess)) if backdrop else None
    plans = {}
    for layer, (maps, provenance) in seen.maps.items():
        try:
            plans[layer] = plan(maps, options, provenance, under, ranges=ranges_of_layer(provenance.layer, ranges))
        except InputError as error:
            raise type(error)(f"{layer}: {error}" if len(seen.maps) > 1 else str(error)) from error
    return plans
