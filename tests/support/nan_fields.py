"""Receptive fields by brute force: which units of a layer turn to NaN with parts of the input.

Of an image whose rows up to row r are NaN those units turn to NaN whose field begins at r or before; of one whose rows
from r on are, those whose field ends at r or behind. NaN goes through convolutions, maxima and activations whatever the
weights are; in float64 no fast algorithm carries it further than it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from cnnviz_fast.activations.capture import capture
from cnnviz_fast.activations.fields.boxes import as_field
from cnnviz_fast.activations.fields.find import reaches_of
from cnnviz_fast.activations.fields.reach import Reach
from cnnviz_fast.activations.fields.record import ReceptiveField


class Verdict(NamedTuple):
    """What brute force says of the fields of a model's layers.

    wrong: layers with a unit that depends on more than its field, or with one inside the image that depends on less.
    exact: number of layers whose fields are those found for every unit, at the border too.
    inside: number of others, whose units at the border see less than their fields: padding stands for the rest.
    whole: layers of which the whole input was said to be the field, and is for some unit.
    overclaimed: those of which it was said, though no unit saw a corner that lies furthest from it.
    """

    wrong: list[str]
    exact: int
    inside: int
    whole: list[str]
    overclaimed: list[str]


def judged(model: nn.Module, shape: Sequence[int], names: Sequence[str], cuts: int = 2, border: int = 0) -> Verdict:
    """Compare the fields that are found with those that NaN shows, for units at all places of the maps.

    Args:
        model: in eval mode.
        shape: (C, H, W) of one image.
        names: of layers that run once, or `name:k`.
        cuts: number of rows, and of columns, at which the image is cut.
        border: units at either end of a map that are left out, where padding or cuts leave them less than a field.
    """
    found = reaches_of(model, torch.zeros(1, *shape), list(names))
    wide = model.double()
    agreement: dict[str, set[str]] = {name: set() for name, reach in found.items() if not reach.reasons}
    for axis in (0, 1):
        places = np.random.default_rng(axis).integers(1, shape[1 + axis] - 1, cuts).tolist()
        outputs = _outputs(wide, shape, names, axis, places)
        for name, agrees in agreement.items():
            agrees.add(_agreement(found[name], outputs[name], axis, places, shape, border))
    corner = torch.zeros(1, *shape, dtype=torch.float64)
    corner[..., 0, 0] = float("nan")
    seen = _run(wide, corner, names)
    whole, overclaimed = list[str](), list[str]()
    for name, reach in found.items():
        if reach.reasons:
            (whole if bool(seen[name].isnan().flatten(1)[:, -1].any()) else overclaimed).append(name)
    wrong = [name for name, agrees in agreement.items() if "no" in agrees]
    exact = sum(agrees == {"everywhere"} for agrees in agreement.values())
    return Verdict(wrong, exact, len(agreement) - exact - len(wrong), whole, overclaimed)


def strays(
    model: nn.Module, layer: str, field: ReceptiveField, shape: Sequence[int]
) -> list[tuple[str, int, int, int]]:
    """List units of a layer that NaN in a row or a column of the input changes, though it lies outside of their boxes.

    Args:
        model: in eval mode. Its layer puts out (1, C, H, W).
        layer: the name of one that runs once.
        field: what was found for it.
        shape: (C, H, W) of one image.

    Returns:
        `row` or `column` and its number, and the (y, x) of the first unit that it changes.
    """
    image, found = torch.ones(1, *shape, dtype=torch.float64), list[tuple[str, int, int, int]]()
    before = _put_out(model.double(), layer, image)
    boxes = np.array([[field.box(y, x) for x in range(before.shape[-1])] for y in range(before.shape[-2])])
    for axis, name in ((0, "row"), (1, "column")):
        for place in range(shape[1 + axis]):
            spoilt = image.clone()
            spoilt.narrow(2 + axis, place, 1).fill_(float("nan"))
            changed = (_put_out(model, layer, spoilt) != before)[0].any(0).numpy()
            outside = (place < boxes[..., axis]) | (place >= boxes[..., 2 + axis])
            found += [(name, place, int(y), int(x)) for y, x in np.argwhere(changed & outside)[:1]]
    return found


def _put_out(model: nn.Module, layer: str, batch: torch.Tensor) -> torch.Tensor:
    """Return what a layer puts out, by a hook of its own: in a tenth of the time of `capture`."""
    outputs: list[torch.Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda *call: outputs.append(call[2].clone()))
    with hook, torch.no_grad():
        model(batch)
    (output,) = outputs
    return output


def _outputs(
    model: nn.Module, shape: Sequence[int], names: Sequence[str], axis: int, places: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return what layers put out for images that are NaN before each place, and behind it."""
    batch = torch.zeros(2 * len(places), *shape, dtype=torch.float64)
    for at, place in enumerate(places):
        for image, part in ((2 * at, slice(0, place + 1)), (2 * at + 1, slice(place, None))):
            batch[image].narrow(1 + axis, *_range(part, shape[1 + axis])).fill_(float("nan"))
    return _run(model, batch, names)


def _range(part: slice, size: int) -> tuple[int, int]:
    start, stop, _ = part.indices(size)
    return start, stop - start


def _run(model: nn.Module, batch: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    return capture(model, batch, list(names))


def _agreement(
    reach: Reach, output: torch.Tensor, axis: int, places: Sequence[int], shape: Sequence[int], border: int
) -> str:
    """Compare the intervals of all units of an output, and the record of them: everywhere, inside or no."""
    digits = [digit for one in reach.axes for digit in one]
    at = [digit.kind for digit in digits].index(axis)
    nan = output.isnan().reshape(2 * len(places), *(digit.size for digit in digits))
    touched = nan.transpose(1, 1 + at).flatten(2).any(2).numpy() if len(digits) > 1 else nan.numpy()
    line = digits[at].line
    assert line is not None
    first, last = line.at(np.arange(digits[at].size))
    kept = slice(border, len(first) - border)
    first, last, touched = first[kept], last[kept], touched[:, kept]
    expected = np.stack([mask for place in places for mask in (first <= place, last >= place)])
    field = as_field(reach, (1, *shape))
    boxes = [field.box(i, i)[axis::2] for i in range(digits[at].size)][kept]
    for (start, end), a, b in zip(boxes, first, last, strict=True):
        if start > a or end <= b or (not field.uneven and end - start != b - a + 1):
            return "no"
    if np.array_equal(touched, expected):
        return "everywhere"
    inside = (first >= 0) & (last < shape[1 + axis])
    missed = (touched & ~expected).any()
    return "no" if missed or not np.array_equal(touched[:, inside], expected[:, inside]) else "inside"
