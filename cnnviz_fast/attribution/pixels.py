"""Gradients of targets with respect to the pixels of the input: one pass, and one way back for each target.

From channels of an inner layer, of which there may be thousands, the pass ends with that layer. On a device that is
faster with large batches each way back takes several targets: the images stand in the batch several times, and each
time they are asked for another target. On a CPU that is no faster, and takes several times the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..activations.passes.arguments import weight_of
from ..errors import CaptureError, DTypeError
from ..models.loaded import root_of
from ..runtime.device import device_at
from .chunks import at_once
from .head import INPUT, Request, located, record

if TYPE_CHECKING:
    import torch

    from .head import Grad
    from .targets import Scores

_ROWS = 16
"""Targets that go back at once on a GPU."""


@dataclass(frozen=True)
class InputGradients:
    """What a pass and its ways back gave.

    Attributes:
        batch: (N, C, H, W) float32. What the model got.
        maps: (N, T, C, H, W) float32. The gradients.
        scores: of the targets, detached.
    """

    batch: torch.Tensor
    maps: torch.Tensor
    scores: Scores


def differentiate_input(request: Request, grad: Grad | None = None, rows: int | None = None) -> InputGradients:
    """Run the model once, and return the gradients of the targets with respect to the input.

    Args:
        request: what to run.
        grad: `torch.autograd.grad`, or what is called in its place, with the same arguments.
        rows: how many targets go back at once where all are channels of inner layers; halved where memory runs out.
            None for 1 on a CPU and 16 on other devices.

    Returns:
        Gradients and scores.

    Raises:
        DTypeError: the batch is not float.
        CaptureError: the model failed, or a target does not depend on the input.
    """
    if not request.batch.is_floating_point():
        raise DTypeError(f"batch must be float for gradients, got {request.batch.dtype}. Make one with load_images.")
    device = weight_of(root_of(request.model), request.batch).device
    if request.targets.need_output:
        rows = 1
    elif rows is None:
        rows = 1 if device_at(device).is_host else _ROWS
    request = replace(request, inner=located(request))
    found: list[InputGradients] = []
    at_once(lambda count: found.append(_differentiated(request, grad, count)), device, rows)
    return found[0]


def _differentiated(request: Request, grad: Grad | None, rows: int) -> InputGradients:
    """Return the gradients of as many targets at once."""
    import torch

    found: list[InputGradients] = []
    images = len(request.batch)
    grad = torch.autograd.grad if grad is None else grad

    def finish(places: Mapping[str, torch.Tensor], scores: Scores) -> None:
        leaf, columns = places[INPUT], scores.columns
        batch = leaf.detach()[:images].float()
        maps = batch.new_zeros((images, len(columns), *batch.shape[1:]))
        for first in range(0, len(columns), rows):
            group = columns[first : first + rows]
            # In eval mode no row depends on another one: the gradient of the sum holds that of each.
            total = torch.stack([column.reshape(rows, images)[row] for row, column in enumerate(group)]).sum()
            more = first + rows < len(columns)
            of = grad(total, [leaf], retain_graph=more, allow_unused=True)[0] if total.requires_grad else None
            if of is None:
                raise CaptureError(
                    f"target {scores.labels[0][first]!r} does not depend on the pixels of the input: there is no "
                    f"gradient. Name another one."
                )
            for row in range(len(group)):
                maps[:, first + row] = of[row * images : (row + 1) * images]
        found.append(InputGradients(batch, maps, scores.detached().part(0, images)))

    repeated = request
    if rows > 1:
        model = replace(request.model, inputs=request.inputs(list(range(images)) * rows))
        repeated = replace(request, model=model, batch=request.batch.repeat(rows, *[1] * (request.batch.ndim - 1)))
    record(repeated, finish, lambda tensor, name: (tensor, None), lambda batch: batch.detach().requires_grad_())
    return found[0]
