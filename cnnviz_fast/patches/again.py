"""The model of a run, run again on its photos, one at a time; a model with other weights is noticed and refused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..activations.digests import weights_digest
from ..errors import CaptureError, OptionError
from ..inputs.images import usual_spec
from ..models.loaded import LoadedModel, as_given, module_of
from ..models.views import View, view_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

    from .photos import Photo

NEAR = 0.01
"""Of a response, or of a tenth of the largest one beside it: how far it may be from that of the run, since batches of
another size, other devices and shorter floats are rounded otherwise."""

ONE_AT_A_TIME = threading.Lock()
"""Held while a model runs: photos are decoded by several workers, and a pass hangs hooks on the model."""


class Unit(NamedTuple):
    """The unit of a tile.

    channel: its channel.
    position: (y, x) on the map.
    response: in the run.
    """

    channel: int
    position: tuple[int, int]
    response: float


class ModelAgain:
    """The model of a run, which has to see and to answer what it did there.

    Args:
        model: that the run was over.
        layer: name of what is drawn.
        units: of each tile.
        by: what of a map is the response.

    Attributes:
        model: as a record.
        layer: see above.
        units: see above.
        by: see above.
    """

    def __init__(self, model: LoadedModel | nn.Module, layer: str, units: Sequence[Unit], by: str) -> None:
        self.model = model if isinstance(model, LoadedModel) else as_given(module_of(model))
        self.layer, self.units, self.by = layer, units, by
        self._spec = usual_spec(self.model)
        self._views: dict[tuple[int, int], View | None] = {}

    def batch(self, image: Image, photo: Photo) -> torch.Tensor:
        """Return what the model gets of a photo, (1, C, H, W) float32; raise CaptureError if that is another part."""
        if image.size not in self._views:
            self._views[image.size] = view_of(self._spec.preprocess, image.height, image.width, self._spec.max_pixels)
        seen = self._views[image.size]
        if seen is None or not _is_about(seen, photo):
            raise CaptureError(
                f"the model sees another part of {photo.name!r} than in the run. Give the preprocessing of the run."
            )
        return self._spec.preprocess(image)[None]

    def refuse_other_response(self, unit: Unit, found: float, largest: float, photo: Photo) -> None:
        """Raise CaptureError where a unit answers otherwise than in the run.

        Args:
            unit: the unit.
            found: its response now.
            largest: response beside it.
            photo: that it answers to.
        """
        if not abs(found - unit.response) <= NEAR * max(abs(unit.response), largest / 10):
            raise CaptureError(
                f"channel {unit.channel} of {self.layer!r} answers to {photo.name!r} with {found:.4g}, and with "
                f"{unit.response:.4g} in the run: another preprocessing than the run's. Give that of the run."
            )


def refuse_other_weights(option: str, known: str | None, model: LoadedModel | nn.Module) -> None:
    """Raise OptionError where a model has other weights than that of the run, whose digest is known."""
    if known is not None and known != weights_digest(module_of(model)):
        raise OptionError(f"{option} must be the model of the run, and has other weights. Give those of the run.")


def _is_about(seen: View, photo: Photo) -> bool:
    """Check that a model sees what it saw of a photo in the run, within half a pixel: what is measured is not exact."""
    if photo.view is None or seen.size != photo.input:
        return False
    pixels = [max(1.0, (seen.box[axis + 2] - seen.box[axis]) / seen.size[axis]) for axis in (0, 1)] * 2
    return all(abs(a - b) <= pixel / 2 for a, b, pixel in zip(seen.box, photo.view, pixels, strict=True))
