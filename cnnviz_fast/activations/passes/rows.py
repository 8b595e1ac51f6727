"""What a model takes beside its images, a row for each of them: each batch gets the rows of the images in it.

So the size of the batch does not matter. Tensors of one row are for every image; tensors without axes, and values that
are no tensors, go to every batch as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .leaves import changed, leaves_in

if TYPE_CHECKING:
    from ...models.loaded import LoadedModel


@dataclass(frozen=True, eq=False)
class InputRows:
    """The arguments of a model beside its images.

    Attributes:
        inputs: a tensor, a mapping or a sequence of arguments, with rows as `with_rows` checks them.
        count: number of images; None where it is not known.
    """

    inputs: Any
    count: int | None

    def at(self, positions: Sequence[int]) -> Any:
        """Return the arguments for the images at some positions, of the same types."""
        chosen = list(positions)

        def rows(value: Any) -> Any:
            if not value.ndim:
                return value
            return value[[0] * len(chosen) if len(value) == 1 else chosen]

        return changed(self.inputs, rows)

    def for_any(self, size: int) -> Any:
        """Return the arguments for a batch that is made up, such as that of a pass that only shows what layers do."""
        return self.at([position % (self.count or 1) for position in range(size)])


def with_rows(model: LoadedModel, count: int | None) -> LoadedModel:
    """Return the record of a model that is to run on some images, batch by batch.

    Args:
        model: its `inputs` are arguments, a function of the batch, or None.
        count: number of images; None where it is not known.

    Returns:
        The record, with `InputRows` in place of arguments.

    Raises:
        InputError: a tensor has neither one row nor one for each image.
    """
    given = model.inputs
    if given is None or callable(given) or isinstance(given, InputRows):
        return model
    for path, value in leaves_in(given):
        if value.ndim and len(value) not in (1, count):
            name = f" of {path!r}" if path else ""
            known = "and the number of images is not known" if count is None else f"for {count} images"
            raise InputError(
                f"inputs must have one row for every image, or one for each, got shape {tuple(value.shape)}{name} "
                f"{known}. Pass a function of the batch, inputs=lambda batch: (batch, ...), for anything else."
            )
    return replace(model, inputs=InputRows(given, count))


def inputs_at(model: LoadedModel, positions: Sequence[int]) -> Any:
    """Return what a model takes beside the images at some positions; what it has, where that has no rows."""
    return model.inputs.at(positions) if isinstance(model.inputs, InputRows) else model.inputs
