"""The map of a channel over its patch: the model runs once more on each photo of a sheet.

What a run keeps of a map is its strongest value. Where around it the channel answers too is only known by running the
model again, one photo at a time: a forward pass for each photo of the sheet, whatever the number of its patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..activations.capture import capture
from ..activations.maps import read_activations
from ..errors import CaptureError
from ..options.reading import AxesOptions
from ..palette import make_palette
from .again import ONE_AT_A_TIME, ModelAgain, Unit
from .cut import Place, drawn_rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..activations.fields.record import ReceptiveField
    from .cut import Cut
    from .photos import Photo

Pixels = NDArray[np.uint8]

COLORMAP = "viridis"
"""As sheets have it: no photo is likely to hold its purple, for no answer, or its yellow, for the strongest."""


class MapsAgain:
    """Runs a model on photos, one after another, for the maps of one layer.

    Args:
        again: the model, and the layer: of a clip or a volume with the step. The response of a unit in the run stands
            for the end of the colormap.
        field: of the layer's units.
        alpha: weight of the colours over the photo.
        tiles: (N, tile_h, tile_w, 3) uint8. They are painted over.
    """

    def __init__(self, again: ModelAgain, field: ReceptiveField, alpha: float, tiles: Pixels) -> None:
        self._again, self._field, self._alpha, self._tiles = again, field, alpha, tiles
        self._colors = make_palette(COLORMAP, shows_background=False, shows_bad=False).colors.astype(np.float64)

    def paint(self, image: Image, cut: Cut) -> None:
        """Run the model on a photo, and paint maps over its patches; nothing where its geometry is not known.

        Args:
            image: the photo, upright, RGB.
            cut: its patches, which are drawn already.

        Raises:
            CaptureError: the model or its preprocessing is another than that of the run.
        """
        view, size = cut.photo.view, cut.photo.input
        if view is None or size is None:
            return
        maps = self._maps(self._again.batch(image, cut.photo))
        for number, place in cut.places:
            assert place is not None  # the photo's size is known
            unit, tile = self._again.units[number], self._tiles[number]
            values, strongest = maps[unit.channel], unit.response
            self._refuse_other_response(values, unit, cut.photo)
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

    def _refuse_other_response(self, values: NDArray[np.float32], unit: Unit, photo: Photo) -> None:
        """Raise CaptureError where a unit answers otherwise than in the run."""
        finite = np.where(np.isfinite(values), values, np.nan)
        there = all(at < side for at, side in zip(unit.position, values.shape, strict=True))
        found = (np.nanmean(finite) if self._again.by == "mean" else finite[unit.position]) if there else np.nan
        self._again.refuse_other_response(unit, float(found), float(np.nanmax(np.abs(finite))), photo)

    def _maps(self, batch: torch.Tensor) -> NDArray[np.float32]:
        """Return the maps of the layer, (C, H, W) float32."""
        again = self._again
        with ONE_AT_A_TIME:
            found = capture(again.model, batch, [again.layer.partition("@")[0]], keep="cpu")
        axes = AxesOptions()
        for read in read_activations(again.model, found, tuple(batch.shape), axes):
            if read.name == again.layer:
                maps: NDArray[np.float32] = read.maps[0].to(torch.float32).numpy(force=True)
                if len(maps) > max(unit.channel for unit in again.units):
                    return maps
        raise CaptureError(f"layer {again.layer!r} of this model puts out no such maps. Give the model of the run.")

    def _on_map(
        self, axis: int, at: NDArray[np.float64], view: tuple[float, ...], size: tuple[int, int], count: int
    ) -> NDArray[np.float64]:
        """Return where on a map of `count` rows (or columns) places of the photo lie, in units."""
        first, last = view[axis], view[axis + 2]
        inside = (at - first) / (last - first) * size[axis]  # px of the input, from its edge
        if self._field.whole:
            return inside / size[axis] * count - 0.5
        return (inside - 0.5 - self._field.offset[axis]) / self._field.stride[axis]


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
