"""The record of a receptive field: its size, and where it lies, in pixels of the model's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_ROUNDING = 1e-9
"""Of a place in px: offsets and strides are ratios of small whole numbers, which floats hold to 16 digits."""


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels of a model's input that the units of a layer depend on.

    Unit (y, x) of the maps has its field centred at `offset + stride * (y, x)`. Pixel centres lie at whole numbers.

    Attributes:
        size: (height, width) in px; of the whole input where `whole`.
        stride: (y, x) px of the input between neighbouring units; 0 where `whole`.
        offset: (y, x) px of the centre of the field of unit (0, 0): 0.0 for padded networks such as ResNets.
        whole: whether any unit may depend on the whole input.
        reasons: what made it whole: operations that take all positions together, or that cannot be followed.
        uneven: whether fields differ between units, as behind a resize or a transposed convolution, whose units have
            phases. `size` is then that of the smallest box that holds the field of every unit.
        input_size: (height, width) of the input in px that it was found for; None where that is not known.
        effective: the share of the gradient's energy that a box of `size` holds, where it was measured; None for the
            exact field. `whole` is False and `reasons` tells what the exact field is whole for.
    """

    size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]
    whole: bool = False
    reasons: tuple[str, ...] = ()
    uneven: bool = False
    input_size: tuple[int, int] | None = None
    effective: float | None = None

    def box(self, y: int, x: int) -> tuple[int, int, int, int]:
        """Return (y0, x0, y1, x1) of a unit's field in px, the ends exclusive; it may go beyond the input."""
        (y0, y1), (x0, x1) = (self._range(axis, at) for axis, at in ((0, y), (1, x)))
        return y0, x0, y1, x1

    def _range(self, axis: int, at: int) -> tuple[int, int]:
        start = self.offset[axis] + self.stride[axis] * at - (self.size[axis] - 1) / 2
        first = math.ceil(start - _ROUNDING)
        return first, first + self.size[axis]

    def to_json(self) -> dict[str, Any]:
        """Return the record in types that JSON has."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def of_whole(cls, size: tuple[int, int], reasons: tuple[str, ...]) -> ReceptiveField:
        """Return the field of units that may depend on a whole input of (height, width) px, and why."""
        centre = ((size[0] - 1) / 2, (size[1] - 1) / 2)
        return cls(size, (0.0, 0.0), centre, True, reasons, input_size=size)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ReceptiveField:
        """Rebuild a record from what `to_json` returned; names that this version does not know are left out."""
        known: dict[str, Any] = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        for name, value in known.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)
