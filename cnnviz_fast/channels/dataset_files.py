"""Files of statistics over a data set, for a later run or another program."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import InputError, reason_of
from ..options.parsers import path as path_of
from ..provenance import package_version
from ..runtime.files import whole_file
from ..runtime.untrusted import open_regular, parse_json
from .dataset import LayerStatistics, Ranges, ranges_of

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions

Array = NDArray[Any]

CONTENT = "dataset_statistics"
"""The entry of a file's header that describes its content, as JSON."""


def write_statistics(
    path: str | os.PathLike[str],
    layers: Mapping[str, LayerStatistics],
    facts: Mapping[str, int | str | None] | None = None,
) -> Path:
    """Write the statistics of layers into one file.

    Args:
        path: the file, in the format safetensors; it appears whole or not at all.
        layers: name -> statistics.
        facts: further entries of its header; see facts_of.

    Returns:
        The path.

    Raises:
        WriteError: the file cannot be written.
    """
    from safetensors.numpy import save

    arrays: dict[str, Array] = {}
    for position, statistics in enumerate(layers.values()):
        arrays |= {f"{position}.{name}": array for name, array in statistics.to_arrays().items()}
    content = {
        "version": package_version(),
        "layers": list(layers),
        "images": [statistics.images for statistics in layers.values()],
        **(facts or {}),
        "sha256": _digest(list(layers), arrays),
    }
    path = Path(path)
    with whole_file(path) as file:
        file.write(save(arrays, {CONTENT: json.dumps(content)}))
    return path


def read_statistics(path: str | os.PathLike[str]) -> dict[str, LayerStatistics]:
    """Read what `write_statistics` wrote.

    Args:
        path: the file.

    Returns:
        Layer name -> statistics, in the order written.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    label = f"statistics {os.fspath(path_of('path', path))!r}"
    try:
        open_regular(path).close()  # safe_open would wait for a pipe
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            header = (file.metadata() or {}).get(CONTENT)
            arrays = {name: file.get_tensor(name) for name in names} if header else {}
    # The last two are what it raises for dtypes that numpy lacks, bfloat16 and float8.
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise InputError(f"{label} cannot be read: {reason_of(error)}.") from error
    if header is None:
        raise InputError(f"{label} must be a file of write_statistics, got one of another kind.")
    try:
        content = parse_json(header.encode())
        layers = list(content["layers"])
        if content["sha256"] != _digest(layers, arrays):
            raise InputError("its content is not what was written")
        return {layer: LayerStatistics.from_arrays(_part(arrays, f"{i}.")) for i, layer in enumerate(layers)}
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{label} is damaged: {str(error).rstrip('.')}.") from error


def ranges_for(path: str | os.PathLike[str], options: RenderOptions) -> dict[str, Ranges]:
    """Read the ranges that sheets are drawn on from a statistics file.

    Args:
        path: the file.
        options: `percentile`.

    Returns:
        Layer -> range of each channel.

    Raises:
        InputError: it is not a statistics file.
    """
    return {layer: ranges for layer, each in read_statistics(path).items() if (ranges := ranges_of(each, options))}


def facts_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file of statistics: version, layers, images, and the facts that were given.

    Args:
        path: the file.

    Returns:
        The facts; empty if the file is missing or not a statistics file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()
        with safe_open(path, framework="numpy") as file:
            return dict(parse_json((file.metadata() or {}).get(CONTENT, "{}").encode()))
    except (SafetensorError, OSError, ValueError, TypeError):
        return {}


def _digest(layers: list[str], arrays: Mapping[str, Array]) -> str:
    """Return a hash of everything that statistics hold."""
    digest = hashlib.sha256(json.dumps(layers).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
