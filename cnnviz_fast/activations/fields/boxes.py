"""The record of a receptive field, made of the reach of what a layer puts out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .lines import Line
from .reach import Reach, words
from .record import ReceptiveField

_ROUNDING = 1e-9
"""Of a length in px, which is a ratio of whole numbers."""


def as_field(reach: Reach, shape: Sequence[int]) -> ReceptiveField:
    """Return the field of the units of an output.

    Args:
        reach: of the output.
        shape: of the input, (N, C, H, W) or (N, C, L).

    Returns:
        The record; of a signal it is one row high.
    """
    height, width = (shape[-2] if len(shape) > 3 else 1), shape[-1]
    lines: list[Line | None] = [None if len(shape) > 3 else Line(shift=0), None]
    for digit in (digit for axis in reach.axes for digit in axis):
        if digit.kind is not None:
            lines[digit.kind] = digit.line
    reasons = reach.reasons or _misplaced(reach, len(shape))
    if reasons or lines[0] is None or lines[1] is None:
        return ReceptiveField.of_whole((height, width), reasons)
    boxes = [line.box() for line in (lines[0], lines[1])]
    return ReceptiveField(
        (_px(boxes[0]), _px(boxes[1])),
        (lines[0].stride, lines[1].stride),
        ((boxes[0][1] - boxes[0][0]) / 2, (boxes[1][1] - boxes[1][0]) / 2),
        uneven=any(line.period > 1 for line in (lines[0], lines[1])),
        input_size=(height, width),
    )


def _px(box: tuple[float, float]) -> int:
    return math.ceil(sum(box) - _ROUNDING) + 1


def _misplaced(reach: Reach, input_axes: int) -> tuple[str, ...]:
    """Return why the axes of an output are not those of a map, or of a map's tokens; () where they are.

    Args:
        reach: of the output.
        input_axes: number of axes of the input: 3 of signals, 4 of images, 5 of clips.
    """
    kinds = {0, 1} if input_axes > 3 else {1}
    found = [digit.kind for axis in reach.axes for digit in axis if digit.kind is not None]
    if doubled := {kind for kind in found if found.count(kind) > 1}:
        return (f"{words(doubled)} along several axes, as in attention",)
    if missing := kinds - set(found):
        return (f"no axis of {words(missing)}",)
    if found != sorted(found):
        return ("columns before rows, as in a transposed map",)
    dims = [dim for dim in range(len(reach.axes)) if reach.kinds(dim)]
    are_tokens = len(dims) < len(kinds)
    has_time = are_tokens and input_axes > 4
    if not has_time and any(digit.kind is None for dim in dims for digit in reach.axes[dim]):
        return (f"{words(kinds)} that share an axis with others, as in a reshape",)
    tokens_first = len(dims) == 1 and len(reach.axes) == 3 and not reach.axes[1]
    if dims[0] == 0 and not tokens_first:
        return (f"{words(reach.kinds(0))} along the axis of images",)
    if are_tokens and len(reach.axes) > 3:
        return ("rows and columns in one axis of a map, as in a reshape",)
    if dims[-1] - dims[0] > 1:
        return ("rows and columns that do not lie side by side among the axes",)
    return ()
