"""Patches deconvolved: which pixels of its patch a unit answers to.

The model runs once more on each photo, up to the layer. Each unit whose patch is cut from that photo is followed back
to the input, alone, and the named rule decides what passes a rectifier. The result is summed over the colours and cut
out as the patch is. Each result has its own scale, with grey for 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..attribution.head import Request, located
from ..attribution.saliency import under_rule
from ..attribution.targets import parse_targets
from ..palette import make_palette
from .again import ONE_AT_A_TIME, ModelAgain
from .cut import Place, draw, drawn_rows
from .photos import Photo

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..attribution.head import InnerLayer
    from ..models.views import Box
    from .cut import Cut

Pixels = NDArray[np.uint8]

RULES = ("guided", "deconvolution")
"""Methods of attribution; see attribution/rectifiers.py."""

COLORMAP = "coolwarm"
"""Of which the middle is grey."""

AT_ONCE = 64
"""Units of a photo in a pass: their gradients take 39 MB for inputs of 224 px."""


class Deconvolved:
    """Runs a model on photos, one after another, and sends the units of their patches back to the pixels.

    Args:
        again: the model, the layer and the units.
        rule: one of RULES.
        background: (3,) uint8, RGB. Shown beyond what the model saw.
        tiles: (N, tile_h, tile_w, 3) uint8. Those of each photo are written.
    """

    def __init__(self, again: ModelAgain, rule: str, background: Pixels, tiles: Pixels) -> None:
        self._again, self._rule, self._background, self._tiles = again, rule, background, tiles
        self._colors = make_palette(COLORMAP, shows_background=False, shows_bad=False).colors
        self._inner: dict[tuple[int, ...], dict[str, InnerLayer]] = {}

    def paint(self, image: Image, cut: Cut) -> None:
        """Draw the deconvolved patches of a photo; nothing but background where its geometry is not known.

        Args:
            image: the photo, upright, RGB.
            cut: its patches.

        Raises:
            CaptureError: the model or its preprocessing is another than that of the run, or has no rectifiers.
        """
        photo = cut.photo
        if photo.view is None or photo.input is None:
            self._tiles[[number for number, _ in cut.places]] = self._background
            return
        batch = self._again.batch(image, photo)
        for first in range(0, len(cut.places), AT_ONCE):
            places = cut.places[first : first + AT_ONCE]
            gradients = self._gradients(batch, [number for number, _ in places], photo)
            for (number, place), values in zip(places, gradients, strict=True):
                assert place is not None  # the photo's size is known
                self._draw(values, _in_input(place, photo.view, photo.input), self._tiles[number])

    def _gradients(self, batch: torch.Tensor, numbers: Sequence[int], photo: Photo) -> NDArray[np.float32]:
        """Return what comes back from units, by the numbers of their tiles: (units, H, W) float32."""
        again = self._again
        units = [again.units[number] for number in numbers]
        wanted = [(again.layer, unit.channel, *(() if again.by == "mean" else unit.position)) for unit in units]
        request = Request(again.model, batch, None, parse_targets(wanted, None, 1))
        shape = tuple(batch.shape)
        with ONE_AT_A_TIME:
            if shape not in self._inner:
                self._inner[shape] = dict(located(request))
            found, _ = under_rule(replace(request, inner=self._inner[shape]), self._rule)
        largest = max(abs(unit.response) for unit in units)
        for unit, response in zip(units, found.scores.values[0].tolist(), strict=True):
            again.refuse_other_response(unit, response, largest, photo)
        gradients: NDArray[np.float32] = found.maps[0].sum(1).cpu().numpy()
        return gradients

    def _draw(self, values: NDArray[np.float32], place: Place, out: Pixels) -> None:
        """Draw the part of gradients, (H, W) float32, that a patch shows."""
        from PIL import Image

        part = np.empty(out.shape[:2], np.float32)
        draw(Image.fromarray(values), Photo("", size=(len(values), len(values[0]))), place, 0.0, part)
        end = float(np.abs(part).max()) or 1.0
        inside = drawn_rows(place, out.shape[:2])
        out[:] = self._background
        out[inside] = self._colors[np.floor((part[inside] / end + 1) * 127.5 + 0.5).astype(np.intp)]


def _in_input(place: Place, view: Box, size: tuple[int, int]) -> Place:
    """Return a place in the photo as one in the model's input, px."""
    first = np.array([view[0], view[1]] * 2)
    scale = np.array([size[0] / (view[2] - view[0]), size[1] / (view[3] - view[1])] * 2)
    box, seen = (tuple(((np.array(edges) - first) * scale).tolist()) for edges in (place.box, place.seen))
    return Place(box, seen, place.unit)
