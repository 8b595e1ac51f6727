"""What a pass has added to modules: a target network that is copied, or a head that is built, in the first forward.

What a pass added would be missing or different without that pass, so it is taken out again.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_TABLES = operator.attrgetter("_modules", "_parameters", "_buffers")
_VALUES = operator.methodcaller("values")


class Grown:
    """Modules, and the layers, parameters and buffers that they have of their own before a pass.

    Args:
        modules: those that are not torch's own, which add nothing to themselves but in ways of their own.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._tables: list[dict[str, Any]] = list(itertools.chain.from_iterable(map(_TABLES, modules)))
        self._before = list(map(dict, self._tables))

    def take_out(self, attributes: Sequence[Mapping[str, Any]]) -> list[tuple[nn.Module, str]]:
        """Take out what the modules have got where there was nothing, or None.

        It stays where layers were replaced or removed, since it may stand for them: a fused convolution, say.

        Args:
            attributes: of each module, before the pass.

        Returns:
            The layers among them, each by the module that got it and its name there.
        """
        layers: list[tuple[nn.Module, str]] = []
        now, before = (list(itertools.chain.from_iterable(map(_VALUES, each))) for each in (self._tables, self._before))
        if len(now) == len(before) and all(map(operator.is_, now, before)):
            return layers
        pairs = list(zip(self._tables, self._before, strict=True))
        if any(_has_lost(table, earlier) for table, earlier in pairs[::3]):  # those of layers
            return layers
        for position, (table, earlier) in enumerate(pairs):
            added = [name for name, value in table.items() if value is not None and earlier.get(name) is None]
            module, had = self._modules[position // 3], attributes[position // 3]
            layers += [(module, name) for name in added if position % 3 == 0]
            for name in added:
                if name in earlier:
                    table[name] = None
                else:
                    del table[name]
                    module._non_persistent_buffers_set.discard(name)
                if name in had:  # None, in a plain attribute
                    vars(module).setdefault(name, had[name])
        return layers


def _has_lost(table: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Check whether a module has another layer, or none, in the place of one that it had."""
    return any(table.get(name) is not layer for name, layer in before.items() if layer is not None)
