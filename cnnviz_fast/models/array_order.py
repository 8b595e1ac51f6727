"""Arrays of another library find their places in a module by the order of the layers of each kind.

The first convolutions of the file must be those of the module, one after the other, until one of the two has no more;
the dense layers and the normalisations then go together in the same way, so far as they fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..errors import ModelError, shown
from .array_axes import AXES, FileAxes, Kernel
from .array_layers import FileLayer, FileLayers, layers_in
from .array_mapping import ArrayMapping, Pair
from .matching import shape_differs


def map_by_order(mapping: ArrayMapping) -> None:
    """Take arrays by the order of their layers.

    Args:
        mapping: where they are added.

    Raises:
        ModelError: the convolutions do not fit, or fit in two ways.
    """
    layers = layers_in(mapping.arrays)
    convolutions = [kernel for kernel in mapping.kernels if not kernel.is_dense]
    dense = [kernel for kernel in mapping.kernels if kernel.is_dense]
    options = {}
    for axes in AXES:
        first = _fitting_first(mapping, layers.convolutions, convolutions, axes)
        then = _fitting_first(mapping, layers.dense, dense, axes)
        if first + then and len(first) in (len(layers.convolutions), len(convolutions)):
            options[axes] = (
                first + then + _of_other_classes(mapping, layers.dense[len(then) :], dense[len(then) :], axes)
            )
    if not options:
        raise _misfit(mapping, layers, convolutions or dense)
    biases = {layer.path: layer.parts["bias"] for layer in layers.with_kernels if "bias" in layer.parts}
    for pair in mapping.take_kernels(options):
        if pair.path in biases:
            mapping.take(pair.kernel.bias, biases[pair.path])
    _take_norms(mapping, layers.norms)


def _fitting_first(
    mapping: ArrayMapping, layers: Sequence[FileLayer], kernels: Sequence[Kernel], axes: FileAxes
) -> list[Pair]:
    """List the first layers of a file that fit the first kernels of a module, up to the first that does not."""
    together = ((layer.path, kernel) for layer, kernel in zip(layers, kernels, strict=False))
    found = (mapping.fitting([pair], axes) for pair in together)
    return [pair for pairs in itertools.takewhile(bool, found) for pair in pairs]


def _of_other_classes(
    mapping: ArrayMapping, layers: Sequence[FileLayer], dense: Sequence[Kernel], axes: FileAxes
) -> list[Pair]:
    """Return the last layer if it differs by its number of classes alone: a model can be built for that number."""
    if len(layers) != 1 or len(dense) != 1:
        return []
    classes = (mapping.arrays[layers[0].path].shape or ())[1 if axes.dense_last else 0]
    other = dense[0]._replace(shape=(classes, dense[0].shape[1]))
    return [pair._replace(kernel=dense[0]) for pair in mapping.fitting([(layers[0].path, other)], axes)]


def _take_norms(mapping: ArrayMapping, layers: Sequence[FileLayer]) -> None:
    """Take the normalisations, if each has the length of the module's."""
    from torch import nn

    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    own = [name for name, part in mapping.module.named_modules() if isinstance(part, kinds)]
    together = [
        (f"{name}.{part}".lstrip("."), path)
        for layer, name in zip(layers, own, strict=False)
        for part, path in layer.parts.items()
    ]
    if any(shape_differs(mapping.arrays[path], mapping.shapes.get(name)) for name, path in together):
        return
    for name, path in together:
        mapping.take(name, path)
    if together:
        mapping.said.append(f"{min(len(layers), len(own))} normalisations")


def _misfit(mapping: ArrayMapping, layers: FileLayers, kernels: Sequence[Kernel]) -> ModelError:
    """Return the error that names the first kernel that does not fit."""
    start = f"{mapping.label} does not fit {type(mapping.module).__name__}"
    unusable = [f"'{shown(path)}' is {array.fault}" for path, array in mapping.arrays.items() if array.fault]
    if unusable:
        return ModelError(f"{start}: {unusable[0]}.")
    is_dense = bool(kernels) and kernels[0].is_dense
    theirs = layers.dense if is_dense else layers.convolutions
    if not theirs or not kernels:
        return ModelError(f"{start}: neither are its names the model's, nor are there kernels in both.")
    found = max((_fitting_first(mapping, theirs, kernels, axes) for axes in AXES), key=len)
    layer, kernel = theirs[len(found)], kernels[len(found)]
    return ModelError(
        f"{start}: its names are not the model's, and in its order '{shown(layer.path)}' "
        f"{mapping.arrays[layer.path].shape} would have to be {kernel.layer} {kernel.shape} with its axes in another "
        f"order. If another part of the file is meant, name it with weights_key."
    )
