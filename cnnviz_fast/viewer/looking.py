"""A model looks at images, and what its layers hold becomes a run in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..activations.capture import capture
from ..activations.maps import LayerMaps, frame_number, frame_of, read_activations
from ..activations.passes.rows import inputs_at
from ..attribution.api import attribution, method_of
from ..attribution.drawing import tiles_of
from ..errors import ImageError
from ..formats.atlas import atlas_bytes
from ..inputs.images import load_images
from ..models.layers import layer_names
from ..models.loaded import LoadedModel
from ..models.preprocess import as_image, colour_order
from ..options.reading import AS_USUAL, AxesOptions, ImageOptions
from ..provenance import Provenance
from .memory import MemoryImage
from .payloads import as_jpeg, kernels_payload

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..pipeline import NamedImage


def look(
    model: LoadedModel,
    image: NamedImage,
    layers: Any,
    max_pixels: int,
    *,
    axes: AxesOptions | None = None,
    decoding: ImageOptions = AS_USUAL,
    method: str | None = None,
    target: Any = None,
    position: int = 0,
) -> MemoryImage:
    """Run the model on an image.

    Args:
        model: to run.
        image: to look at.
        layers: layer patterns; see capture.
        max_pixels: largest image to read, in px.
        axes: how the layers' outputs are read.
        decoding: what is done with damage, and with values of another range.
        method: of attribution; None for none.
        target: what is attributed; see attribute.
        position: of the image among those that the model's `inputs` have rows for.

    Returns:
        The image with atlases of the layers, and the view that the model saw.

    Raises:
        CnnvizError: the image cannot be read, or the model cannot run on it.
    """
    batch = load_images(image.origin, model, max_pixels=max_pixels, **vars(decoding))
    if len(batch) != 1:
        raise ImageError(f"{image.name} must be one image, got a batch of {len(batch)}.")
    read = _maps_of(model, batch, layers, axes or AxesOptions(), position)
    atlases = {each.name: _packed(each, model, image.name) for each in read}
    scores = [] if method is None else _scores_of(model, batch, image.name, method, target)
    return MemoryImage(image.name, atlases, *view_in(model, batch), scores, *_frames_of(model, batch, read))


def atlases_of(model: LoadedModel, batch: torch.Tensor, layers: Any, name: str) -> dict[str, bytes]:
    """Return the atlases of the layers of an image, by name; of a clip or a volume one for each step.

    Args:
        model: to run.
        batch: (1, C, H, W) float32. What goes in. Not modified.
        layers: layer patterns; see capture.
        name: of the image.
    """
    return {each.name: _packed(each, model, name) for each in _maps_of(model, batch, layers, AxesOptions())}


def _maps_of(
    model: LoadedModel, batch: torch.Tensor, layers: Any, axes: AxesOptions, position: int = 0
) -> list[LayerMaps]:
    outputs = capture(model, batch, layers, inputs=inputs_at(model, [position]))
    return list(read_activations(model, outputs, tuple(batch.shape), axes))


def _packed(read: LayerMaps, model: LoadedModel, image: str) -> bytes:
    return atlas_bytes(read.maps[0], read.provenance(model, image, with_field=True))


def view_in(model: LoadedModel, batch: torch.Tensor) -> tuple[bytes | None, tuple[int, int] | None]:
    """Return the view in a batch as JPEG, and its (height, width) in px; None for signals.

    Args:
        model: that takes it.
        batch: (1, C, H, W) float32; of volumes and clips (1, C, D, H, W). Not modified.
    """
    if batch.ndim < 4:
        return None, None
    seen = _seen(model, frame_of(batch[0], None, 1))
    return as_jpeg(seen), (seen.height, seen.width)


def _seen(model: LoadedModel, frame: torch.Tensor) -> Image:
    from PIL.Image import fromarray

    return fromarray(as_image(frame, model.preprocess))


def _frames_of(
    model: LoadedModel, batch: torch.Tensor, read: Sequence[LayerMaps]
) -> tuple[dict[int, bytes], dict[str, int]]:
    """Return the frames of a volume or a clip that lie under its layers, and which lies under each; see MemoryImage."""
    sample = batch[0]
    if sample.ndim < 4 or bool((sample == sample[:, :1]).all()):  # a clip made of one image
        return {}, {}
    depth = sample.shape[1]
    numbers = {each.name: frame_number(depth, each.step, each.axes.steps) for each in read if each.step is not None}
    return {number: as_jpeg(_seen(model, sample[:, number])) for number in set(numbers.values())}, numbers


def kernels_of(model: LoadedModel, layers: Sequence[str]) -> dict[tuple[str, str], bytes]:
    """Return the kernels of the layers that look at colours, as payloads of a MemoryRun."""
    modules, order = layer_names(model.module), colour_order(model.preprocess)
    found = {}
    for layer in layers:
        weight = getattr(modules.get(re.sub(r"[:@].*$", "", layer)), "weight", None)
        if weight is not None and order is not None and weight.ndim == 4 and weight.shape[1] == len(order):
            weight = weight[:, order]
        payload = None if weight is None else kernels_payload(weight)
        if payload is not None:
            found["kernels", layer] = payload
    return found


def _scores_of(
    model: LoadedModel, batch: torch.Tensor, name: str, method: str, target: Any
) -> list[tuple[str | None, str, bytes]]:
    """Return what scores depend on: for each target a map over the view, of the layers or of the input."""
    found, _ = attribution(model, batch, method, None, target)
    of_pixels = method_of(method).of_pixels
    scores: list[tuple[str | None, str, bytes]] = []
    for layer, maps in found.maps.items():
        tiles, labels = tiles_of(maps[0].sum(1) if of_pixels else maps[0], found)
        for label, heat in zip(labels, tiles, strict=True):
            packed = atlas_bytes(heat[None], Provenance(model=model.spec, layer=layer, image=name))
            scores.append((None, f"{method}: {label}", packed))
    return scores
