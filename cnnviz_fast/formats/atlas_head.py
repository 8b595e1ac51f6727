"""The head of an atlas: what it shows, without its maps, and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import AtlasError
from ..provenance import Provenance, layer_at
from .safetensors import read_header

SUFFIX = ".atlas"
VERSION = 1


@dataclass(frozen=True)
class AtlasHead:
    """What the head of an atlas says, unchecked but for its types.

    shape: (C, H, W) of the maps.
    provenance: where they came from; nothing where the atlas does not say.
    """

    shape: tuple[int, int, int]
    provenance: Provenance

    @property
    def layer(self) -> str | None:
        """Return the layer, of a clip with the time step as LAYER@tSTEP; None where the atlas does not say."""
        origin = self.provenance
        return None if origin.layer is None else layer_at(origin.layer, origin.time_step, origin.plane)


def read_head(packed: bytes, name: str) -> AtlasHead:
    """Read only what an atlas shows.

    Args:
        packed: bytes of an atlas, or the first ones; they need not be trusted.
        name: name of the file, for messages.

    Returns:
        The head.

    Raises:
        AtlasError: it is damaged or not that of an atlas.
    """
    label = f"atlas {name!r}"
    header, record = read_header(packed, label)
    facts, index = record.get("source"), header.get("index")
    match index:
        case {"shape": [int(channels), int(height), int(width)]} if min(channels, height, width) > 0:
            origin = provenance_of(facts, label) if isinstance(facts, dict) else Provenance()
            return AtlasHead((channels, height, width), origin)
    raise AtlasError(f"{label} is not an atlas: it holds other tensors.")


def provenance_of(facts: dict[str, Any], label: str) -> Provenance:
    """Read the provenance in a record, without fields that only a later version knows; raise AtlasError for damage."""
    if "layout" in facts:  # as older atlases call it
        facts = {"axes": facts["layout"], **facts}
    kinds = {"prefix_tokens": int, "time_step": int, "plane": int, "categories": list, "field": dict}
    known = {name: facts[name] for name in vars(Provenance()) if facts.get(name) is not None}
    for name, value in known.items():
        kind = kinds.get(name, str)
        if not isinstance(value, kind):
            raise AtlasError(f"{label} is damaged: {name} of its source must be of type {kind.__name__}.")
    return Provenance(**known)
