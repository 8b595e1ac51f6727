"""Heat maps of images on sheets: a sheet for each layer, a tile for each target, over the image that the model saw."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..activations.digests import sample_digest
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
from ..pipeline import NamedImage, PlannedLayer
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

    from ..sheets.manifest import SheetFacts
    from .cam import Attribution
    from .targets import Scores


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
        backdrop = asked.backdrop
        if backdrop is not None and expected_input(model).spatial_axes > 1:
            backdrop = backdrop.filled_with(partial(as_image, frame_of(batch[0], None, 1), model.preprocess))
        for folder, (layer, maps) in zip(layer_parts(list(found.maps)), found.maps.items(), strict=True):
            of_pixels = method_of(asked.method).of != "layers"
            tiles, names = tiles_of(maps[0].sum(1) if of_pixels else maps[0], found.scores)
            of = layer
            if of_pixels and "normalize" not in {**asked.look, **RenderOptions.implied(asked.look)}:
                tiles, of = _without_outliers(tiles), f"{layer}, {_SHOWN:.1%} of values"
            look = heat_look(asked.look, asked.method, of, image.name, tiles)
            provenance = Provenance(model.spec, model.weights, layer, image.name, weights_digest=sample_digest(model))
            describe = partial(_described, asked.method, found)
            made = plan(tiles, look, provenance, backdrop, names=names, describe=describe)
            yield PlannedLayer(image, layer, asked.method if layer == INPUT else f"{asked.method}/{folder}", made)


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


def tiles_of(maps: torch.Tensor, scores: Scores | None) -> tuple[torch.Tensor, list[str]]:
    """Return the maps of an image as tiles, one for each step of each target, and their labels.

    Args:
        maps: (T, h, w) float32, or (T, steps, h, w). Not modified.
        scores: of the targets; None where the method needs none.

    Returns:
        (K, h, w), and K names.
    """
    names = ["all targets"] if scores is None else list(scores.labels[0])
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
    targets, scores = None, found.scores
    if scores is not None:
        values = scores.values[0].tolist()
        targets = [{"target": name, "score": value} for name, value in zip(scores.labels[0], values, strict=True)]
    return {**describe_sheet(facts), "attribution": {"method": method, "targets": targets, **found.facts}}
