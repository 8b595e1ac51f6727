"""Files of statistics over a data set, for a later run or another program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..options.parsers import path as path_of
from ..provenance import package_version
from ..runtime.array_files import Array, ArrayFile, part_of, prefixed
from ..runtime.run_files import collected_file

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions
    from .dataset import LayerStatistics, Ranges

_FILE = ArrayFile(
    "dataset_statistics", "statistics", "write_statistics", covered=lambda content: list(content["layers"])
)


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
    arrays: dict[str, Array] = {}
    for position, statistics in enumerate(layers.values()):
        arrays |= prefixed(statistics.to_arrays(), f"{position}.")
    images = [statistics.images for statistics in layers.values()]
    content = {"version": package_version(), "layers": list(layers), "images": images, **(facts or {})}
    return _FILE.write(path, arrays, content)


def read_statistics(path: str | os.PathLike[str]) -> dict[str, LayerStatistics]:
    """Read statistics over a data set, such as a run kept in its statistics.safetensors.

    Args:
        path: the file, or the folder of a run.

    Returns:
        Layer name -> statistics, in the order written.

    Raises:
        InputError: the file is missing, damaged, or of another kind; the run kept no such file.
    """

    from .dataset import LayerStatistics

    def build(content: dict[str, Any], arrays: dict[str, Array]) -> dict[str, LayerStatistics]:
        names = enumerate(content["layers"])
        return {layer: LayerStatistics.from_arrays(part_of(arrays, f"{position}.")) for position, layer in names}

    return _FILE.read(statistics_file(path), build)


def read_columns(path: str | os.PathLike[str]) -> dict[str, dict[str, NDArray[Any]]]:
    """Read of a statistics file what one number says of each channel, without torch.

    Args:
        path: the file, or the folder of a run.

    Returns:
        Layer name -> mean, std, min, max and sparsity (the share of zeros), (C,) float64 or float32 each.

    Raises:
        InputError: see read_statistics.
    """

    def build(content: dict[str, Any], arrays: dict[str, Array]) -> dict[str, dict[str, NDArray[Any]]]:
        names = enumerate(content["layers"])
        return {layer: _columns_of(part_of(arrays, f"{position}.")) for position, layer in names}

    return _FILE.read(statistics_file(path), build)


def statistics_file(path: str | os.PathLike[str]) -> Path:
    """Return the file of the statistics that a run kept; `path` and errors as in read_statistics."""
    return collected_file(path_of("path", path), "statistics", "statistics")


def _columns_of(arrays: dict[str, Array]) -> dict[str, NDArray[Any]]:
    """Return the columns of a layer; see LayerStatistics, whose properties these are."""
    values = int(arrays["seen"][1])
    finite = values - arrays["nan"] - arrays["inf"]
    return {
        "mean": arrays["mean"],
        "std": np.sqrt(np.where(finite, arrays["squares"] / np.maximum(finite, 1), np.nan)),
        "min": arrays["vmin"],
        "max": arrays["vmax"],
        "sparsity": arrays["zero"] / max(values, 1),
    }


def ranges_for(path: str | os.PathLike[str], options: RenderOptions) -> dict[str, Ranges]:
    """Read the ranges that sheets are drawn on from a statistics file.

    Args:
        path: the file, or the folder of a run.
        options: `percentile`.

    Returns:
        Layer -> range of each channel.

    Raises:
        InputError: it is not a statistics file.
    """
    from .dataset import ranges_of

    return {layer: ranges for layer, each in read_statistics(path).items() if (ranges := ranges_of(each, options))}


def facts_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file of statistics: version, layers, images, and the facts that were given.

    Args:
        path: the file.

    Returns:
        The facts; empty if the file is missing or not a statistics file.
    """
    return _FILE.record_of(path)
