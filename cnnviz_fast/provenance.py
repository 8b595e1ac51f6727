"""Where a sheet's maps came from, and which version of this package drew them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Provenance:
    """Where maps came from, for the manifest; each part may be unknown.

    Attributes:
        model: spec of the model.
        weights: name of its weights.
        layer: name of the layer.
        image: name of the image.
        axes: the axes by which the layer's activations were read, such as "nhwc".
        prefix_tokens: number of tokens that the activations have before those of the maps.
        time_step: of a clip, counted from 0.
        plane: of a volume, counted from 0.
        categories: names of the model's classes, for a vector with one entry per class. The manifest has only the
            names of the strongest entries.
        atlas: name of the atlas file that the maps were read from.
        weights_digest: what tells the weights from others of their name, 16 hexadecimal digits.
    """

    model: str | None = None
    weights: str | None = None
    layer: str | None = None
    image: str | None = None
    axes: str | None = None
    prefix_tokens: int | None = None
    time_step: int | None = None
    plane: int | None = None
    categories: Sequence[str] | None = None
    atlas: str | None = None
    weights_digest: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of it: everything except the names of all classes."""
        return {name: value for name, value in vars(self).items() if name != "categories"}


def layer_at(layer: str, time_step: int | None = None, plane: int | None = None) -> str:
    """Return the name of what a layer put out: its own, of a clip LAYER@tSTEP, of a volume LAYER@dPLANE."""
    if plane is not None:
        return f"{layer}@d{plane}"
    return layer if time_step is None else f"{layer}@t{time_step}"


@cache
def package_version() -> str:
    """Return the version of the installed package. It is read from a file once, which takes 60 us."""
    from importlib.metadata import version

    return version("cnnviz_fast")
