"""Where the samples of maps lie on the model's input, by the receptive field that their provenance tells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import OptionError, advice
from ..geometry import Lattice

if TYPE_CHECKING:
    from ..provenance import Provenance

_OTHERS = "Take align 'center', or 'left' for padded networks."
_ONE_ROW = Lattice(1.0, 0.0)
"""Of maps of one row, as those of signals are: it is drawn over the whole height."""


def lattices(provenance: Provenance) -> tuple[Lattice, Lattice]:
    """Return where the rows and the columns of maps lie on the input.

    Args:
        provenance: of the maps.

    Returns:
        One for rows, one for columns.

    Raises:
        OptionError: `provenance` has no receptive field, one that is the whole input and so lies nowhere, or numbers
            that are those of no field.
    """
    field = provenance.field
    if field is None:
        give = advice(
            "Pass field=receptive_field(model, layer).",
            "A model has to run for it, or an atlas be drawn that a run has kept.",
        )
        raise OptionError(f"align 'field' needs the receptive field of the maps, got maps without. {give} {_OTHERS}")
    try:
        if field.get("whole"):
            reasons = "; ".join(field["reasons"])
        else:
            numbers = (map(float, field[name]) for name in ("stride", "offset", "input_size"))
            rows, cols = (_lattice(*side) for side in zip(*numbers, strict=True))
            return rows, cols
    except (KeyError, TypeError, ValueError):
        raise OptionError(
            f"field must tell stride, offset and input_size, two numbers each, got {dict(field)!r}. {_OTHERS}"
        ) from None
    of_layer = "" if provenance.layer is None else f" of {provenance.layer!r}"
    raise OptionError(
        f"align 'field' needs units that see a part of the input, got maps{of_layer} whose units may see all of it "
        f"({reasons}). {_OTHERS}"
    )


def _lattice(stride: float, offset: float, input_px: float) -> Lattice:
    """Return that of one side; raise ValueError for numbers that are those of no field."""
    if not stride:
        return _ONE_ROW
    found = Lattice(input_px / stride, offset / stride)
    if not all(map(math.isfinite, found)):
        raise ValueError
    return found
