"""The map of a channel over its patch: the model runs once more on each photo of a sheet.

What a run keeps of a map is its strongest value. Where around it the channel answers too is only known by running the
model again, one photo at a time: a forward pass for each photo of the sheet, whatever the number of its patches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..activations.capture import capture
from ..activations.digests import weights_digest
from ..activations.maps import read_activations
from ..errors import CaptureError, OptionError
from ..inputs.images import usual_spec
from ..models.loaded import LoadedModel, as_given, module_of
from ..models.views import View, view_of
from ..options.reading import AxesOptions
from ..palette import make_palette
from .cut import Place, drawn_rows

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn

    from ..activations.fields.record import ReceptiveField
    from .photos import Photo

Pixels = NDArray[np.uint8]
Paint = Callable[[int, Place, Pixels], None]
"""Paints the map over a patch: the number of its tile, its place, and its pixels."""

NEAR = 0.01
"""Of a response, or of a tenth of a map's largest value: how far it may be from that of the run, since batches of
another size, other devices and shorter floats are rounded otherwise."""

COLORMAP = "viridis"
"""As sheets have it: no photo is likely to hold its purple, for no answer, or its yellow, for the strongest."""


class Unit(NamedTuple):
    """The unit of a tile.

    channel: its channel.
    position: (y, x) on the map.
    response: in the run. It stands for the end of the colormap.
    """

    channel: int
    position: tuple[int, int]
    response: float


class MapsAgain:
    """Runs a model on photos, one after another, for the maps of one layer."""

    def __init__(
        self,
        model: LoadedModel | nn.Module,
        layer: str,
        field: ReceptiveField,
        units: Sequence[Unit],
        by: str,
        alpha: float,
    ) -> None:
        """Prepare the passes.

        Args:
            model: that the run was over.
            layer: name of what is drawn; of a clip or a volume with the step.
            field: of the layer's units.
            units: of each tile.
            by: what of a map is the response.
            alpha: weight of the colours over the photo.
        """
        self._model = model if isinstance(model, LoadedModel) else as_given(module_of(model))
        self._spec = usual_spec(self._model)
        self._layer, self._field, self._units, self._by, self._alpha = layer, field, units, by, alpha
        self._colors = make_palette(COLORMAP, shows_background=False, shows_bad=False).colors.astype(np.float64)
        self._views: dict[tuple[int, int], View | None] = {}
        self._one_at_a_time = threading.Lock()

    def over(self, image: Image, photo: Photo) -> Paint | None:
        """Run the model on a photo.

        Args:
            image: the photo, upright, RGB.
            photo: where the model's input lies in it.

        Returns:
            What paints maps over its patches; None where its geometry is not known.

        Raises:
            CaptureError: the model or its preprocessing is another than that of the run.
        """
        if photo.view is None or photo.input is None:
            return None
        with self._one_at_a_time:
            maps = self._maps(image)
            self._refuse_other_input(image, photo)
        view, size = photo.view, photo.input

        def paint(number: int, place: Place, tile: Pixels) -> None:
            unit = self._units[number]
            values, strongest = maps[unit.channel], unit.response
            self._refuse_other_response(values, unit, photo)
            at = [
                self._on_map(axis, _centres(place, axis, tile.shape[axis]), view, size, values.shape[axis])
                for axis in (0, 1)
            ]
            shown = _sampled(values, *at) / strongest if strongest else np.zeros(tile.shape[:2])
            shown = np.nan_to_num(shown).clip(0, 1)
            inside = drawn_rows(place, (tile.shape[0], tile.shape[1]))
            colours = self._colors[np.floor(255 * shown + 0.5).astype(np.intp)]
            blended = self._alpha * colours + (1 - self._alpha) * tile
            tile[inside] = np.floor(blended[inside] + 0.5)

        return paint

    def _refuse_other_input(self, image: Image, photo: Photo) -> None:
        """Raise CaptureError where the model sees another part of a photo than in the run."""
        if image.size not in self._views:
            self._views[image.size] = view_of(self._spec.preprocess, image.height, image.width, self._spec.max_pixels)
        seen = self._views[image.size]
        if seen is None or not _is_about(seen, photo):
            raise CaptureError(
                f"the model sees another part of {photo.name!r} than in the run. Give the preprocessing of the run."
            )

    def _refuse_other_response(self, values: NDArray[np.float32], unit: Unit, photo: Photo) -> None:
        """Raise CaptureError where a unit answers otherwise than in the run."""
        finite = np.where(np.isfinite(values), values, np.nan)
        there = all(at < side for at, side in zip(unit.position, values.shape, strict=True))
        found = (np.nanmean(finite) if self._by == "mean" else finite[unit.position]) if there else np.nan
        if not abs(found - unit.response) <= NEAR * max(abs(unit.response), np.nanmax(np.abs(finite)) / 10):
            raise CaptureError(
                f"channel {unit.channel} of {self._layer!r} answers to {photo.name!r} with {found:.4g}, and with "
                f"{unit.response:.4g} in the run: another preprocessing than the run's. Give that of the run."
            )

    def _maps(self, image: Image) -> NDArray[np.float32]:
        """Return the maps of the layer, (C, H, W) float32."""
        batch = self._spec.preprocess(image)[None]
        layer = self._layer.partition("@")[0]
        found = capture(self._model, batch, [layer], keep="cpu")
        axes = AxesOptions()
        for read in read_activations(self._model, found, tuple(batch.shape), axes):
            if read.name == self._layer:
                maps: NDArray[np.float32] = read.maps[0].to(torch.float32).numpy(force=True)
                if len(maps) > max(unit.channel for unit in self._units):
                    return maps
        raise CaptureError(f"layer {self._layer!r} of this model puts out no such maps. Give the model of the run.")

    def _on_map(
        self, axis: int, at: NDArray[np.float64], view: tuple[float, ...], size: tuple[int, int], count: int
    ) -> NDArray[np.float64]:
        """Return where on a map of `count` rows (or columns) places of the photo lie, in units."""
        first, last = view[axis], view[axis + 2]
        inside = (at - first) / (last - first) * size[axis]  # px of the input, from its edge
        if self._field.whole:
            return inside / size[axis] * count - 0.5
        return (inside - 0.5 - self._field.offset[axis]) / self._field.stride[axis]


def _is_about(seen: View, photo: Photo) -> bool:
    """Check that a model sees what it saw of a photo in the run, within half a pixel: what is measured is not exact."""
    if photo.view is None or seen.size != photo.input:
        return False
    pixels = [max(1.0, (seen.box[axis + 2] - seen.box[axis]) / seen.size[axis]) for axis in (0, 1)] * 2
    return all(abs(a - b) <= pixel / 2 for a, b, pixel in zip(seen.box, photo.view, pixels, strict=True))


def _centres(place: Place, axis: int, count: int) -> NDArray[np.float64]:
    """Return where the centres of a tile's rows (or columns), `count` of them, lie in the photo, px from its edge."""
    first, last = place.box[axis], place.box[axis + 2]
    centres: NDArray[np.float64] = first + (np.arange(count) + 0.5) * (last - first) / count
    return centres


def _sampled(values: NDArray[np.float32], rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample a map, (H, W) float32, bilinearly at rows and columns, held to the map; (rows, cols) float64."""
    sampled = values.astype(np.float64)
    for at in (rows, cols):  # along each axis in turn, which bilinear sampling on a grid is
        held = at.clip(0, len(sampled) - 1)
        before = np.floor(held).astype(np.intp)
        after = np.minimum(before + 1, len(sampled) - 1)
        share = (held - before)[:, None]
        sampled = ((1 - share) * sampled[before] + share * sampled[after]).T
    return sampled


def refuse_other_weights(known: str | None, model: LoadedModel | nn.Module) -> None:
    """Raise OptionError where a model has other weights than that of the run, whose digest is known."""
    if known is not None and known != weights_digest(module_of(model)):
        raise OptionError("overlay must be the model of the run, and has other weights. Give those of the run.")
