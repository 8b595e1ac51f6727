"""All of it: model and pictures in, sheets out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .activations.maps import list_pictures, look_at, plan_layers
from .channels.dataset import LayerStatistics, ranges_of
from .formats.names import layer_stem, refuse_same_names
from .formats.picture import format_of
from .models.load import LoadedModel, as_given, load_model, module_of
from .options import MAX_PIXELS, LayoutOptions, RenderOptions, takes
from .runtime.files import make_folder
from .runtime.progress import with_bar
from .sheets.overlay import read_overlay
from .sheets.render import draw_sheet
from .sheets.sheet import Sheet

if TYPE_CHECKING:
    from torch import nn


@takes(RenderOptions)
def visualize(
    model: LoadedModel | nn.Module | str,
    images: Any,
    layers: str | int | Sequence[str | int],
    out: str | os.PathLike[str] | None = None,
    *,
    format: str = "png",
    max_pixels: int = MAX_PIXELS,
    layout: str = "auto",
    overlay: Any = None,
    alpha: float | None = None,
    statistics: Mapping[str, LayerStatistics] | None = None,
    **options: Any,
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
        layout: axes of what the layers put out: auto, nchw, nhwc, tokens, tokens:PREFIX:HxW, ncthw or nthwc.
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
    checked = RenderOptions(**options)
    reading = LayoutOptions(layout=layout)
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
