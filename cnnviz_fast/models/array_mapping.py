"""What arrays of another library are in a module: found by their names or their order, and given the axes of torch."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ModelError, shown
from .array_axes import FileAxes, Kernel, flattened_maps, permutation, permuted
from .stored_tensors import StoredTensor

if TYPE_CHECKING:
    from torch import nn


class Pair(NamedTuple):
    """An array that is a kernel of a module: its path, the kernel, and how its axes change places."""

    path: str
    kernel: Kernel
    axes: tuple[int, ...]


@dataclass
class ArrayMapping:
    """Arrays, the module that they are meant for, and what has been found so far.

    Attributes:
        module: any module.
        shapes: name -> shape of what it holds, None where any will do.
        kernels: its convolutions and dense layers.
        arrays: path -> array, in the order of the file.
        label: what to call the checkpoint in messages.
        found: name in the module -> array, with the axes of torch.
        used: paths of these arrays.
        said: what was done, for a note.
    """

    module: nn.Module
    shapes: Mapping[str, Any]
    kernels: list[Kernel]
    arrays: Mapping[str, StoredTensor]
    label: str
    found: dict[str, StoredTensor] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)

    def take(self, name: str, path: str) -> None:
        """Take an array as what the module has under a name; nothing where it has nothing."""
        if name in self.shapes:
            self.found[name] = self.arrays[path]
            self.used.add(path)

    def fitting(self, kernels: Iterable[tuple[str, Kernel]], axes: FileAxes) -> list[Pair]:
        """List the arrays that have the shape of a kernel, with axes that lie as given."""
        each = ((path, kernel, permutation(self.arrays[path].shape, kernel, axes)) for path, kernel in kernels)
        return [Pair(path, kernel, order) for path, kernel, order in each if order is not None]

    def take_kernels(self, options: Mapping[FileAxes, list[Pair]]) -> list[Pair]:
        """Take arrays as kernels, with axes as most of them fit.

        Args:
            options: how axes may lie -> arrays that fit then.

        Returns:
            Those that were taken.

        Raises:
            ModelError: they fit equally well in two ways.
        """
        most = max(map(len, options.values()))
        axes, pairs = self._only([(axes, pairs) for axes, pairs in options.items() if len(pairs) == most])
        dense = [pair for pair in pairs if pair.kernel.is_dense]
        maps = flattened_maps(self.module) if axes.convolutions_last and dense else {}
        if axes.convolutions_last and dense and dense[0].kernel.layer not in maps:
            # The order of its inputs is not known, and the others make no sense without it.
            self.said.append(f"not the dense layers: a pass on zeros does not reach {dense[0].kernel.layer}")
            pairs = [pair for pair in pairs if not pair.kernel.is_dense]
            for pair in dense:
                self.found.pop(pair.kernel.weight, None)
                self.used.discard(pair.path)
        counts = collections.Counter((pair.kernel.is_dense, pair.axes) for pair in pairs)
        for (is_dense, order), count in counts.items():
            stays = order == tuple(sorted(order))
            self.said.append(f"{count} {'dense' if is_dense else 'kernels'} {'as they are' if stays else order}")
        for path, kernel, order in pairs:
            channels = maps.get(kernel.layer, 0)
            if channels:
                self.said.append(f"inputs of {kernel.layer} from (H, W, {channels}) to ({channels}, H, W)")
            self.take(kernel.weight, path)
            self.found[kernel.weight] = permuted(self.arrays[path], order, channels)
        return pairs

    def _only(self, best: list[tuple[FileAxes, list[Pair]]]) -> tuple[FileAxes, list[Pair]]:
        """Return the first of several ways, if all of them are the same in the end."""
        axes, pairs = best[0]
        for _, others in best[1:]:
            for pair, other in zip(pairs, others, strict=True):
                if pair.axes != other.axes:
                    raise ModelError(
                        f"{self.label} can be read in two ways: with axes {pair.axes} and {other.axes}, such as "
                        f"'{shown(pair.path)}' for {pair.kernel.layer}. Save it under the names of the model's own "
                        f"state dict, with the axes of torch."
                    )
        return axes, pairs
