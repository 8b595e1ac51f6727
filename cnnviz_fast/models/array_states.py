"""Weights of other libraries as a state dict of a module: names and axes of arrays become those of torch.

Where most names are the module's, with other separators or other words (conv1/kernel:0 for conv1.weight), names decide.
Elsewhere the order does, in which all convolutions must have the shapes of the module's. What was done is said when the
weights are loaded.

How a network takes its images is in no such file. Colours from 0 to 255 minus a mean, as Caffe's and Keras' VGG take
them, are mean=(0.485, 0.458, 0.408), std=(1 / 255,) * 3; blue before red is channel_order="bgr". Kernels that Theano
turned by 180 degrees look like all others, and are read as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .array_axes import AXES, TORCH, kernels_of
from .array_layers import named
from .array_mapping import ArrayMapping
from .array_order import map_by_order
from .checkpoint_files import StateDict
from .filling import shapes_of
from .matching import fits

if TYPE_CHECKING:
    from torch import nn


def state_for(module: nn.Module, state: StateDict, label: str, key: str | None = None) -> StateDict | None:
    """Return arrays of another library under the names, and with the axes, that they have in a module.

    Args:
        module: that they are meant for. It is left as it was.
        state: path -> array, in the order of the file.
        label: what to call the checkpoint in messages.
        key: where in the file they lie; None for anywhere but among the states of an optimizer.

    Returns:
        Name -> tensor. What the module has no place for keeps its path, with dots. None if nothing lies under the key.

    Raises:
        ModelError: neither names nor shapes fit, or shapes fit in several ways.
    """
    inside = "" if key is None else re.sub(r"[./]+", "/", key).strip("/") + "/"
    arrays = {
        path.removeprefix(inside): array
        for path, array in state.values.items()
        if (path.startswith(inside) if inside else not path.lower().startswith("optim"))
    }
    if not arrays:
        return None
    shapes = shapes_of(module)
    mapping = ArrayMapping(module, shapes, kernels_of(module, shapes), arrays, label)
    best = _named(mapping)
    if 2 * len(best) > len(shapes):
        how = f"{len(best)} arrays by their names"
        _map_by_name(mapping, best)
    else:
        how = f"by the order of its {state.order}"
        map_by_order(mapping)
    left = {_dotted(path, shapes): array for path, array in arrays.items() if path not in mapping.used}
    return StateDict(state.key, mapping.found | left, mapped=f"{how}: {', '.join(mapping.said)}")


def _dotted(path: str, taken: Mapping[str, Any]) -> str:
    """Return a path as a name with dots, if that is not a name of the module by chance."""
    name = path.replace("/", ".")
    return path if name in taken else name


def _named(mapping: ArrayMapping) -> dict[str, str]:
    """Map names of the module to the paths that say the same: as they are, or in the words of torch."""
    own = {_bare(name): name for name in mapping.shapes} | {name: name for name in mapping.shapes}
    best: dict[str, str] = {}
    for name_of in (_as_it_is, _in_words_of_torch):
        theirs: dict[str, str] = {}
        for path in mapping.arrays:
            name = name_of(path).replace("/", ".")
            theirs[own.get(name, own.get(_bare(name), name))] = path
        fit = fits([StateDict("", theirs)], dict.fromkeys(mapping.shapes))[0]
        found = {name: path for name, path in fit.values.items() if name in mapping.shapes}
        best = found if len(found) > len(best) else best
    return best


def _map_by_name(mapping: ArrayMapping, paths: Mapping[str, str]) -> None:
    for name, path in paths.items():
        mapping.take(name, path)
    kernels = [(paths[kernel.weight], kernel) for kernel in mapping.kernels if kernel.weight in paths]
    options = {axes: mapping.fitting(kernels, axes) for axes in AXES}
    is_torch = len(options[TORCH]) == len(kernels) and all(path.endswith("weight") for path, _ in kernels)
    mapping.take_kernels({TORCH: options[TORCH]} if is_torch else options)


def _as_it_is(path: str) -> str:
    return re.sub(r":\d+$", "", path)


def _in_words_of_torch(path: str) -> str:
    """Return a path with torch's word at its end, and without what Keras says twice: conv1/conv1/kernel:0."""
    layer, role = named(path)
    parts = [*layer.split("/"), *([role] if role else [])]
    return "/".join(part for part, before in zip(parts, [None, *parts], strict=False) if part != before)


def _bare(name: str) -> str:
    """Return a name with dots for whatever stands between its parts."""
    return re.sub(r"[./:_|-]+", ".", name)
