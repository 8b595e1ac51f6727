"""The trunk of a network: from images to what some of its layers put out, again and again, linked by gradients.

Everything happens inside one pass of `activations/passes`, which leaves the model as it was however it ends. In it the
model is called as often as is needed, and each call ends with the last of the layers. Gradients are taken with respect
to images alone, so none reaches a parameter.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..activations.capture import Keeper, by_name, find_targets
from ..activations.passes.arguments import arguments, callable_of, placed
from ..activations.passes.forward import Enough, Watched, hooked, run_pass
from ..activations.passes.operations import watching
from ..activations.passes.rows import inputs_at
from ..errors import CaptureError
from ..models.loaded import LoadedModel, root_of
from .bends import Bends

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..activations.patterns import Layers, Target


class Trunk:
    """A model up to its layers, called with images inside `inside_pass`.

    Args:
        root: the module that runs.
        call: runs it, with the arguments that it takes.
        inputs: what it takes beside the batch; see capture.
        layers: name -> the one call of a layer that it stands for.
        before_bends: whether what layers put out is taken before their last bend; see bends.py.
    """

    def __init__(
        self,
        root: nn.Module,
        call: Callable[..., Any],
        inputs: Any,
        layers: Mapping[str, Target],
        before_bends: bool,
    ) -> None:
        self._root, self._call, self._inputs = root, call, inputs
        self._layers, self._before_bends = layers, before_bends

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the model as far as its last layer.

        Args:
            images: (N, C, H, W) float, on the device of the model. Not modified.

        Returns:
            Layer name -> (N, ...) real dtype: a copy, with gradients where the images have them.
        """
        import torch

        bends = Bends() if self._before_bends else None

        def keep(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, None]:
            return (tensor if bends is None else bends.before(tensor)).clone(), None

        targets = list(self._layers.values())
        keeper = Keeper(targets, keep, until=targets)
        watched = keeper.watched(self._root)
        # A copy, for models that work in place. Convolutions on the CPU are faster by a fifth with channels behind.
        copy = images.clone(memory_format=torch.channels_last)
        positional, named = arguments(copy, self._inputs)
        if self._inputs is not None:
            positional = placed(positional, images.device, linked=True)
            named = placed(named, images.device, linked=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(Enough))
            stack.enter_context(hooked(watched))
            if watched.operation is not None:
                stack.enter_context(watching(self._root, watched.operation))
            if bends is not None:
                stack.enter_context(bends)
            output = self._call(*positional, **named)
            if watched.result is not None:
                watched.result(output)
        return dict(zip(self._layers, by_name(keeper, self._root).values(), strict=True))


def inside_pass(
    model: LoadedModel,
    batch: torch.Tensor,
    layers: Layers,
    work: Callable[[Trunk, dict[str, torch.Tensor], torch.Tensor], None],
    *,
    before_bends: bool = False,
) -> None:
    """Do some work with the trunk of a model inside one pass, which leaves the model as it was.

    Args:
        model: to run.
        batch: (N, C, H, W) float, any device. Not modified.
        layers: layer patterns.
        work: called with the trunk; with what each layer put out for the batch, by name, without gradients; and with
            the copy of the batch that the model gets, on its device and in its dtype.
        before_bends: see Trunk.

    Raises:
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: the model failed, or nothing that a pattern names ran.
    """
    import torch

    root, inputs = root_of(model), inputs_at(model, range(len(batch)))
    named = _calls(root, batch, layers, inputs, model.forward)

    def run(module: nn.Module, given: torch.Tensor) -> None:
        trunk = Trunk(root, callable_of(module, model.forward), inputs, named, before_bends)
        seen = trunk(given)
        with torch.enable_grad():
            work(trunk, seen, given)

    run_pass(root, batch, Watched(), None, run)


def _calls(root: nn.Module, batch: torch.Tensor, layers: Layers, inputs: Any, forward: Any) -> dict[str, Target]:
    """Return the calls that patterns name, by name: an ordinary pass shows how often each layer runs."""
    keeper = Keeper(find_targets(root, batch, layers, inputs, forward), lambda tensor, name: (tensor[:0], None))
    keeper.run(root, batch, inputs, forward)
    names = list(by_name(keeper, root))
    targets = find_targets(root, batch, names, inputs, forward)
    if len(targets) != len(names):
        raise CaptureError(f"layers must be told apart by their names, got {', '.join(map(repr, names))}.")
    return {
        name: dataclasses.replace(target, call=0) if target.call is None and target.module is not None else target
        for name, target in zip(names, targets, strict=True)
    }
