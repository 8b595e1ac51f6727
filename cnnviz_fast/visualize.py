"""All of it: model and pictures in, sheets out. What the command line runs."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .capture import capture
from .encode.files import make_folder
from .encode.formats import format_of
from .images import find_images, image_name, load_images
from .layouts import Origin, find_layout, to_maps
from .manifest import Source
from .models import LoadedModel, as_given, load_model, module_of
from .options import MAX_PIXELS, LayoutOptions, RenderOptions, takes
from .render import Plan, draw_sheet, plan_sheet
from .sheet import Sheet

if TYPE_CHECKING:
    from torch import nn

NAME_BYTES = 200
"""Longest stem of a file name; file systems end at 255 bytes, and suffixes and temporary names need some."""


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


def distinct_stems(names: Sequence[str]) -> list[str]:
    """Make the stem of a file name of each of some names, all different.

    Args:
        names: any strings.

    Returns:
        Stems as safe_name makes them; of several that are the same, the second ends in -2.
    """
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = base = safe_name(name)
        count = 1
        # File systems that ignore case would overwrite Cat with cat.
        while stem.casefold() in taken:
            count += 1
            stem = f"{base}-{count}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def plan_picture(
    model: LoadedModel,
    picture: Picture,
    layers: Any,
    max_pixels: int,
    options: RenderOptions,
    layout: LayoutOptions | None = None,
) -> dict[str, Plan]:
    """Run the model on one picture and plan a sheet for each layer, so that what is wrong shows before a file is made.

    Args:
        model: to run.
        picture: to look at.
        layers: layer patterns; see capture.
        max_pixels: largest picture to read, in px.
        options: how to draw.
        layout: how to read what the layers put out; see layouts.

    Returns:
        Layer name -> plan, in the order asked for. A clip has a plan for each time step: `layer@t0`, `layer@t1`, ...

    Raises:
        ShapeError: a layer whose output is not spatial, or whose layout cannot be told.
        CnnvizError: anything else that is wrong; see load_images, capture and plan_sheet.
    """
    batch = load_images(picture.origin, model, max_pixels=max_pixels)
    activations = capture(model, batch, layers)
    plans: dict[str, Plan] = {}
    for layer, output in activations.items():
        origin = Origin(layer, _module_at(model.module, layer), model.module, tuple(batch.shape))
        found = find_layout(tuple(output.shape), origin, (layout or LayoutOptions()).layout)
        clip = output.ndim == 5 or found.steps > 1
        for step in range(found.steps):
            source = Source(
                model.spec,
                model.weights,
                layer,
                picture.name,
                found.name,
                found.prefix_tokens if found.name == "tokens" else None,
                step if clip else None,
            )
            name = f"{layer}@t{step}" if clip else layer
            plans[name] = plan_sheet(to_maps(output, found, step)[0], options, source)
    return plans


def _module_at(model: nn.Module, layer: str) -> nn.Module | None:
    """Return the module whose output a captured name stands for; None for a part of an output or an operation."""
    modules = dict(model.named_modules(remove_duplicate=False))
    return modules.get(layer) or modules.get(re.sub(r":\d+$", "", layer))


def sheet_path(folder: Path, picture: Picture, layer: str, format: str) -> Path:
    """Name the file of a sheet.

    Args:
        folder: where it goes.
        picture: what was looked at.
        layer: which layer it shows.
        format: png, jpg, webp or npy.

    Returns:
        The path, with a name that any file system takes.
    """
    return folder / f"{safe_name(f'{picture.stem}_{layer}')}.{format}"


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
    **options: Any,
) -> list[Sheet]:
    """Draw sheets of the layers of a model for pictures.

    Args:
        model: from load_model, a module of one's own, or a spec for load_model.
        images: files, folders, globs, PIL images, arrays or tensors, one or a list; see load_images.
        layers: layer patterns; see capture.
        out: folder to write the sheets to, made where it is missing; None writes nothing.
        format: of the files: png, jpg, webp or npy.
        max_pixels: largest picture to read, in px.
        layout: axes of what the layers put out: auto, nchw, nhwc, tokens, tokens:PREFIX:HxW, ncthw or nthwc.
        **options: see below.

    Returns:
        The sheets, picture by picture and layer by layer in the order asked for; of a clip, one a time step.

    Raises:
        CnnvizError: anything that went wrong; see load_model, load_images, capture and render.
    """
    checked = RenderOptions(**options)
    reading = LayoutOptions(layout=layout)
    format_of(Path(f"sheet.{format}"))
    loaded = load_model(model) if isinstance(model, str) else model
    if not isinstance(loaded, LoadedModel):
        loaded = as_given(module_of(loaded))
    folder = Path(out) if out is not None else None
    if folder is not None:
        make_folder(folder)
    sheets = []
    for picture in list_pictures(images):
        for layer, plan in plan_picture(loaded, picture, layers, max_pixels, checked, reading).items():
            sheet = draw_sheet(plan)
            if folder is not None:
                sheet.save(sheet_path(folder, picture, layer, format))
            sheets.append(sheet)
    return sheets


def safe_name(name: str) -> str:
    """Make a file name of a picture's or a layer's name.

    Args:
        name: any string.

    Returns:
        The name with all but letters, digits, dots, blanks, _ and - replaced by -, at most NAME_BYTES long; a digest
        stands for what is cut, so that different long names stay different.
    """
    safe = re.sub(r"[^\w. -]", "-", name).strip(". ") or "_"
    raw = safe.encode()
    if len(raw) <= NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return raw[: NAME_BYTES - 13].decode(errors="ignore") + "-" + digest
