"""Files of the strongest responses of layers, with where their images lie and what their units see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..activations.fields.record import ReceptiveField
from ..errors import LayerNotFoundError, closest
from ..options.parsers import path as path_of
from ..provenance import package_version
from ..runtime.array_files import DIGEST, Array, ArrayFile, part_of, prefixed
from ..runtime.run_files import collected_file

if TYPE_CHECKING:
    from .classes import ClassResponses
    from .top import TopResponses

_FILE = ArrayFile(
    "top_responses",
    "strongest responses",
    "write_top",
    covered=lambda content: {name: value for name, value in content.items() if name != DIGEST},
)


@dataclass(frozen=True)
class TopFile(Mapping[str, "TopResponses"]):
    """What a file of strongest responses holds: layer -> TopResponses, in the order written.

    Attributes:
        layers: name -> its entries.
        photos: key of an image -> where it lies and which part of it the model saw.
        fields: layer -> its receptive field.
        classes: layer -> its responses by class, where there are labels.
        facts: what else its header says.
    """

    layers: Mapping[str, TopResponses]
    photos: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    classes: Mapping[str, ClassResponses] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> TopResponses:
        """Return the entries of a layer."""
        if layer not in self.layers:
            raise LayerNotFoundError(f"no layer {layer!r} in this file.{closest(str(layer), self.layers)}")
        return self.layers[layer]

    def __contains__(self, layer: object) -> bool:
        """Check whether a layer is in the file."""
        return layer in self.layers

    def __iter__(self) -> Iterator[str]:
        """Return the names of the layers, in order."""
        return iter(self.layers)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)


def write_top(
    path: str | os.PathLike[str],
    layers: Mapping[str, TopResponses],
    facts: Mapping[str, Any] | None = None,
    photos: Mapping[str, dict[str, Any]] | None = None,
    fields: Mapping[str, dict[str, Any]] | None = None,
    classes: Mapping[str, ClassResponses] | None = None,
) -> Path:
    """Write the strongest responses of layers into one file.

    Args:
        path: the file, in the format safetensors; it appears whole or not at all.
        layers: name -> its entries.
        facts: further entries of its header, in types that JSON has.
        photos: key -> record of an image, in types that JSON has.
        fields: layer -> record of its receptive field, in types that JSON has.
        classes: layer -> its responses by class.

    Returns:
        The path.

    Raises:
        WriteError: the file cannot be written.
    """
    classes = classes or {}
    arrays: dict[str, Array] = {}
    for position, (layer, top) in enumerate(layers.items()):
        arrays |= prefixed(top.to_arrays(), f"{position}.")
        if layer in classes:
            arrays |= prefixed(classes[layer].to_arrays(), f"{position}.classes.")
    content = {
        "version": package_version(),
        "layers": list(layers),
        "with_classes": [layer for layer in layers if layer in classes],
        "facts": dict(facts or {}),
        "photos": dict(photos or {}),
        "fields": dict(fields or {}),
    }
    return _FILE.write(path, arrays, content)


def read_top(path: str | os.PathLike[str]) -> TopFile:
    """Read the strongest responses that a run kept, its top.safetensors.

    Args:
        path: the file, or the folder of a run.

    Returns:
        The file's content: layer -> TopResponses.

    Raises:
        InputError: the file is missing, damaged, or of another kind; the run kept no such file.
    """
    return _FILE.read(collected_file(path_of("path", path), "top", "the strongest responses"), _built)


def read_classes(path: str | os.PathLike[str]) -> dict[str, ClassResponses]:
    """Read only the responses by class of what `write_top` wrote, without torch.

    Args:
        path: the file.

    Returns:
        Layer -> its responses, of the layers that have them.

    Raises:
        InputError: see read_top.
    """
    return _FILE.read(path_of("path", path), _classes_built)


def top_facts_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the facts that were given to `write_top`.

    Args:
        path: the file.

    Returns:
        The facts, unchecked; empty if the file is missing or of another kind.
    """
    facts = _FILE.record_of(path).get("facts")
    return facts if isinstance(facts, dict) else {}


def top_layers_of(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Return the layers that a file of `write_top` has, and those with responses by class, without their entries.

    Args:
        path: the file.

    Returns:
        Names, unchecked; none if the file is missing or of another kind.
    """
    record = _FILE.record_of(path)
    found = (record.get(name) for name in ("layers", "with_classes"))
    layers, classes = (names if isinstance(names, list) else [] for names in found)
    return layers, classes


def _built(content: dict[str, Any], arrays: dict[str, Array]) -> TopFile:
    from .top import TopResponses

    photos, fields, facts = (_entries_of(content, name) for name in ("photos", "fields", "facts"))
    layers = {}
    for position, layer in enumerate(content["layers"]):
        layers[layer] = TopResponses.from_arrays(part_of(arrays, f"{position}."))
        if layer in fields:
            layers[layer].field = receptive_field = ReceptiveField.from_json(_entries_of(fields, layer))
            receptive_field.box(0, 0)  # which fails where it is none
    return TopFile(layers, photos, fields, _classes_built(content, arrays), facts)


def _classes_built(content: dict[str, Any], arrays: dict[str, Array]) -> dict[str, ClassResponses]:
    from .classes import ClassResponses

    return {
        layer: ClassResponses.from_arrays(part_of(arrays, f"{position}.classes."))
        for position, layer in enumerate(content["layers"])
        if layer in content["with_classes"]
    }


def _entries_of(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(content[name], dict):
        raise TypeError(f"{name} must be an object, got {type(content[name]).__name__}")
    return dict(content[name])
