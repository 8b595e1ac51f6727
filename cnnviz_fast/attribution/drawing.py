"""Heat maps of images on sheets: a sheet for each layer, a tile for each target, over the image that the model saw."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..activations.digests import sample_digest
from ..activations.fields.known import known_field
from ..activations.maps import frame_of
from ..activations.passes.rows import inputs_at, with_rows
from ..errors import CaptureError, CnnvizError, ImageError
from ..formats.names import layer_parts
from ..inputs.images import load_images
from ..models.loaded import LoadedModel, expected_input
from ..models.preprocess import as_image
from ..options.attribution import AttributionOptions
from ..options.drawing import RenderOptions
from ..options.reading import AS_USUAL, MAX_PIXELS, AxesOptions, ImageOptions
from ..pipeline import LayerInput, NamedImage, PlannedLayer
from ..provenance import Provenance
from ..runtime.progress import with_bar
from ..sheets.annotation import MOST_CHARACTERS, SEPARATOR
from ..sheets.lettering import shortened
from ..sheets.manifest import describe_sheet
from ..sheets.overlay import Backdrop
from ..sheets.plan import Plan, plan_sheet
from .api import attribution, method_of
from .head import INPUT

if TYPE_CHECKING:
    import torch

    from ..channels.dataset import Ranges
    from ..sheets.manifest import SheetFacts
    from .cam import Attribution


@dataclass(frozen=True)
class HeatMaps:
    """What heat maps are of, and how they are drawn.

    Attributes:
        method: its name.
        layers: layer patterns; None for the last stage, or for methods of the input.
        target: see attribute.
        options: of the method.
        axes: how the layers' outputs are read.
        look: options of drawing that were given, by name; `heat_look` fills in the others.
        backdrop: the image to lay them over.
    """

    method: str
    layers: Any
    target: Any
    options: AttributionOptions = field(default_factory=AttributionOptions)
    axes: AxesOptions = field(default_factory=AxesOptions)
    look: Mapping[str, Any] = field(default_factory=dict)
    backdrop: Backdrop | None = None


def planned_heat_maps(
    model: LoadedModel,
    images: Sequence[NamedImage],
    asked: HeatMaps,
    max_pixels: int = MAX_PIXELS,
    plan: Callable[..., Plan] = plan_sheet,
    failed: Callable[[NamedImage, CnnvizError], None] | None = None,
    decoding: ImageOptions = AS_USUAL,
) -> Iterator[PlannedLayer]:
    """Attribute scores to the places of images, one image after the other, and plan a sheet for each layer.

    Args:
        model: to run.
        images: to look at.
        asked: method, layers and targets, and how to draw the maps.
        max_pixels: largest image to read, in px.
        plan: `plan_sheet`, or what plans as it does.
        failed: called with an image that cannot be read or run, and why; then the others are done. None: it is raised.
        decoding: what is done with damage, and with values of another range.

    Yields:
        The sheets of each image, in the folders METHOD/LAYER, or METHOD for maps of the input.

    Raises:
        CnnvizError: see attribute, load_images and plan_sheet.
    """
    model = with_rows(model, len(images))
    for position, image in enumerate(with_bar(images, "image")):
        try:
            batch = load_images(image.origin, model, max_pixels=max_pixels, **vars(decoding))
            if len(batch) != 1:
                raise ImageError(f"{image.name} must be one image, got {len(batch)}. Save each in a file of its own.")
            one = replace(model, inputs=inputs_at(model, [position]))
            found, _ = attribution(
                one, batch, asked.method, asked.layers, asked.target, asked.axes, options=asked.options
            )
        except (ImageError, CaptureError) as error:
            if failed is None:
                raise
            failed(image, error)
            continue
        for folder, layer in zip(heat_folders(asked.method, found.maps), found.maps, strict=True):
            heat = heat_layer(model, asked, found, layer, image.name, batch[0])
            describe = partial(_described, asked.method, found)
            made = plan(heat.maps, heat.options, heat.provenance, heat.backdrop, names=heat.names, describe=describe)
            yield PlannedLayer(image, layer, folder, made)


def heat_folders(method: str, layers: Iterable[str]) -> list[str]:
    """Return the folders of the files of heat maps: METHOD/LAYER, or METHOD for maps of the input.

    Args:
        method: its name.
        layers: names of the layers.

    Returns:
        A folder for each.
    """
    layers = list(layers)
    parts = zip(layers, layer_parts(layers), strict=True)
    return [method if layer == INPUT else f"{method}/{part}" for layer, part in parts]


def heat_layer(
    model: LoadedModel,
    asked: HeatMaps,
    found: Attribution,
    layer: str,
    image: str,
    sample: torch.Tensor,
    ranges: Ranges | None = None,
) -> LayerInput:
    """Return the heat maps of an image as they are drawn, a tile for each target.

    Args:
        model: that ran.
        asked: how to draw them.
        found: for this one image.
        layer: among those that were found.
        image: its name.
        sample: (C, H, W) float32, or of a volume or a clip (C, D, H, W). What went into the model.
        ranges: of the targets, with normalize dataset.

    Returns:
        The tiles, with everything that decides how they are drawn.
    """
    backdrop, maps = asked.backdrop, found.maps[layer][0]
    if backdrop is not None and expected_input(model).spatial_axes > 1:
        backdrop = backdrop.filled_with(partial(as_image, frame_of(sample, None, 1), model.preprocess))
    of_pixels = method_of(asked.method).of_pixels
    tiles, names = tiles_of(maps.sum(1) if of_pixels else maps, found)
    of = layer
    if of_pixels and "normalize" not in {**asked.look, **RenderOptions.implied(asked.look)}:
        tiles, of = _without_outliers(tiles), f"{layer}, {_SHOWN:.1%} of values"
    look = heat_look(asked.look, asked.method, of, image, tiles)
    provenance = Provenance(model.spec, model.weights, layer, image, weights_digest=sample_digest(model))
    if look.align == "field" and of_pixels:
        look = replace(look, align="center")  # where pixels lie
    elif look.align == "field":
        provenance = provenance.with_field(known_field(model, layer, (1, *sample.shape)))
    return LayerInput(layer, tiles, provenance, look, backdrop, ranges, names=names)


def heat_look(options: Mapping[str, Any], method: str, layer: str, image: str, maps: torch.Tensor) -> RenderOptions:
    """Return how heat maps are drawn, where the options that were given leave it open.

    Maps with values on both sides of 0 get a range about 0 and colours that part there.

    Args:
        options: those that were given.
        method: for the title.
        layer: for the title.
        image: for the title.
        maps: (T, h, w) float32.

    Returns:
        The options of a sheet.
    """
    signed = bool((maps < 0).any() and (maps > 0).any())
    usual: dict[str, Any] = {"colormap": "coolwarm" if signed else "inferno"}
    if signed and "normalize" not in {**options, **RenderOptions.implied(options)}:
        usual["normalize"] = "symmetric"
    if not options.get("plain"):
        parts = (shortened(part, MOST_CHARACTERS) for part in (method, layer, os.path.basename(image)))
        title = SEPARATOR.join(parts).replace("{", "{{").replace("}", "}}")
        usual |= {"colorbar": True, "title": title}
    return RenderOptions(**{**usual, **options})


def tiles_of(maps: torch.Tensor, found: Attribution) -> tuple[torch.Tensor, list[str]]:
    """Return the maps of an image as tiles, one for each step of each target, and their labels.

    Args:
        maps: (T, h, w) float32, or (T, steps, h, w). Not modified.
        found: of this image.

    Returns:
        (K, h, w), and K names.
    """
    if found.scores is not None:
        names = list(found.scores.labels[0])
    else:
        names = [f"{found.entries} {k}" for k in range(len(maps))] if found.entries else ["all targets"]
    if maps.ndim == 3:
        return maps, names
    steps = maps.shape[1]
    return maps.flatten(0, 1), [f"{name} {step}" for name in names for step in range(steps)]


_SHOWN = 0.995
"""The share of the values of pixels that get colours of their own: a few at the border may be ten times as large."""


def _without_outliers(tiles: torch.Tensor) -> torch.Tensor:
    """Return tiles (K, h, w), each cut off where a few of its values that are not 0 are larger."""
    import torch

    most = []
    for tile in tiles.abs():
        values = tile[tile > 0]
        most.append(values.kthvalue(math.ceil(_SHOWN * len(values))).values if len(values) else tile.max())
    ends = torch.stack(most)[:, None, None]
    return tiles.clamp(-ends, ends)


def _described(method: str, found: Attribution, facts: SheetFacts) -> dict[str, Any]:
    """Return the manifest of a sheet, with what is on it."""
    return {**describe_sheet(facts), "attribution": heat_facts(method, found)}


def heat_facts(method: str, found: Attribution) -> dict[str, Any]:
    """Return what is told of the heat maps of one image: the method, the targets with their scores, and its facts."""
    targets, scores = None, found.scores
    if scores is not None:
        values = scores.values[0].tolist()
        targets = [{"target": name, "score": value} for name, value in zip(scores.labels[0], values, strict=True)]
    return {"method": method, "targets": targets, **found.facts}
