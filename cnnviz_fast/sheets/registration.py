"""Where the samples of maps lie on the model's input, by the receptive field that their provenance tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, advice
from ..geometry import Lattice

if TYPE_CHECKING:
    from ..provenance import Provenance

_OTHERS = "Take align 'center', or 'left' for padded networks."
_NONE_SIDE = Lattice(1.0, 0.0)
"""Of maps of one row, as those of signals are: it is drawn over the whole height."""


def lattices(provenance: Provenance) -> tuple[Lattice, Lattice]:
    """Return where the rows and the columns of maps lie on the input.

    Args:
        provenance: of the maps.

    Returns:
        One for rows, one for columns.

    Raises:
        OptionError: it tells no receptive field, or one that is the whole input and so lies nowhere; or what it tells
            is none.
    """
    field = provenance.field
    if field is None:
        give = advice(
            "Pass field=receptive_field(model, layer).",
            "A model has to run for it, or an atlas be drawn that a run has kept.",
        )
        raise OptionError(f"align 'field' needs the receptive field of the maps, got maps without. {give} {_OTHERS}")
    of_layer = "" if provenance.layer is None else f" of {provenance.layer!r}"
    if field.get("whole"):
        reasons = "; ".join(map(str, field.get("reasons", ())))
        raise OptionError(
            f"align 'field' needs units that see a part of the input, got maps{of_layer} whose units may see all of "
            f"it ({reasons}). {_OTHERS}"
        )
    try:
        rows, cols = (_lattice(*numbers) for numbers in zip(*map(_pair(field), _NUMBERS), strict=True))
    except (KeyError, TypeError, ValueError):
        raise OptionError(
            f"field must tell stride, offset and input_size, two numbers each, got {dict(field)!r}. {_OTHERS}"
        ) from None
    return rows, cols


_NUMBERS = ("stride", "offset", "input_size")


def _pair(field: Mapping[str, Any]) -> Any:
    def read(name: str) -> tuple[float, float]:
        y, x = map(float, field[name])
        if not (math.isfinite(y) and math.isfinite(x)):
            raise ValueError
        return y, x

    return read


def _lattice(stride: float, offset: float, input_px: float) -> Lattice:
    return Lattice(input_px / stride, offset / stride) if stride else _NONE_SIDE
