"""Where a sheet's maps came from, which version of this package drew them, and how its manifest is recognised."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from .errors import InputError, OptionError, repr_of
from .runtime.untrusted import open_regular

MANIFEST_NAME = "manifest.json"
"""Of the manifest in a folder of single files."""

_HEAD_BYTES = 4096
"""Of a manifest: what comes before its tiles is shorter."""

_HEAD = re.compile(
    rb'\{(?:"a":\{"model":.+,)?"cnnviz_fast":.+,"maps":\{"shape":\[.+,"sheet":\{"height":(\d{1,9}),"width":(\d{1,9}),',
    re.DOTALL,
)
"""How the manifests of sheets, single files and comparisons begin, and no other document of this package."""


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
        field: the layer's receptive field, as `ReceptiveField.to_json` tells it, for align "field".
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
    field: Mapping[str, Any] | None = None

    def facts(self) -> dict[str, Any]:
        """Return what a manifest holds of it: all attributes but the names of all classes; no `field` if unknown."""
        hidden = ("categories",) if self.field is not None else ("categories", "field")
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def with_field(self, field: Any) -> Provenance:
        """Return this provenance with a receptive field: a ReceptiveField or its `to_json()`; None changes nothing."""
        if field is None:
            return self
        told = field.to_json() if hasattr(field, "to_json") else field
        if not isinstance(told, Mapping):
            raise OptionError(f"field must be a ReceptiveField, got {repr_of(field)}. Make one: receptive_field(...).")
        return replace(self, field=told)


def given_provenance(provenance: Any, field: Any = None) -> Provenance:
    """Return the provenance that a function was given, with a receptive field; see with_field.

    Raises:
        InputError: it is not a Provenance.
        OptionError: `field` is not a receptive field.
    """
    if not isinstance(provenance, Provenance | None):
        raise InputError(f"provenance must be a Provenance, got {repr_of(provenance)}.")
    return (provenance or Provenance()).with_field(field)


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


def size_in_manifest(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Read the size of a sheet from the beginning of its manifest: all of one of 2048 tiles takes longer than to draw.

    Args:
        path: of a file, which may be anybody's.

    Returns:
        (height, width) in px; None where the file cannot be read, or does not begin as manifests do.
    """
    try:
        with open_regular(path) as file:
            found = _HEAD.match(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return (int(found[1]), int(found[2])) if found else None
