"""Gradients of the head of a network: one pass, without gradients up to the layers that are asked for.

There the activations are detached, and from there on the pass is recorded. So a gradient costs the layers behind, not
the whole network, and neither frozen weights nor inputs without gradients matter. It all happens inside one pass of
`activations/passes`, which leaves the model as it was however it ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..activations.axes.record import Axes
from ..activations.capture import Keeper, by_name, capture, find_targets
from ..activations.maps import axes_of
from ..activations.passes.forward import Enough, run_pass
from ..activations.passes.rows import inputs_at
from ..errors import CaptureError
from ..models.loaded import LoadedModel, root_of
from ..options.reading import AxesOptions
from .layer_maps import all_maps
from .targets import Scores, Targets, Unit

if TYPE_CHECKING:
    import torch

    from ..activations.patterns import Layers, Target

    Grad = Callable[..., tuple[torch.Tensor | None, ...]]

INPUT = "input"
"""The name of the batch among the places that gradients are taken at."""


@dataclass(frozen=True)
class Request:
    """What is attributed to what.

    Attributes:
        model: to run.
        batch: (N, C, H, W) float, as `load_images` gives it.
        layers: layer patterns; None for the input.
        targets: whose causes are looked for.
        axes: how the outputs of layers are read.
    """

    model: LoadedModel
    batch: torch.Tensor
    layers: Layers | None
    targets: Targets
    axes: AxesOptions = dataclasses.field(default_factory=AxesOptions)

    def inputs(self, images: Sequence[int] | None = None) -> Any:
        """Return what the model takes beside the batch, for some of its images; None for all."""
        return inputs_at(self.model, range(len(self.batch)) if images is None else images)


@dataclass(frozen=True)
class Gradients:
    """What a pass and its gradients gave.

    Attributes:
        activations: layer name, or INPUT -> (N, ...) real dtype, as the layer put them out. Detached.
        of: layer name, or INPUT -> a gradient for each target, of the shape of the activations; None where the target
            does not depend on them.
        scores: of the targets, detached.
    """

    activations: Mapping[str, torch.Tensor]
    of: Mapping[str, tuple[torch.Tensor | None, ...]]
    scores: Scores


def differentiate(request: Request, grad: Grad | None = None) -> Gradients:
    """Run the model once, and return the gradients of the targets with respect to layers, or to the input.

    Args:
        request: what to run, and where gradients are taken.
        grad: `torch.autograd.grad`, or what is called in its place, with the same arguments.

    Returns:
        Activations, gradients and scores.

    Raises:
        CaptureError: the model failed, or a layer never ran.
        InputError: see Targets.scores.
    """
    import torch

    found: list[Gradients] = []
    grad = torch.autograd.grad if grad is None else grad

    def finish(places: Mapping[str, torch.Tensor], scores: Scores) -> None:
        at, each = list(places.values()), []
        for t, column in enumerate(scores.columns):
            nothing = (None,) * len(at)
            # In eval mode no image depends on another one: the gradient of the sum holds that of each image.
            more = t < len(scores.columns) - 1
            each.append(
                grad(column.sum(), at, retain_graph=more, allow_unused=True) if column.requires_grad else nothing
            )
        gradients = {name: tuple(of[n] for of in each) for n, name in enumerate(places)}
        activations = {name: place.detach() for name, place in places.items()}
        found.append(Gradients(activations, gradients, scores.detached()))

    record(request, finish)
    return found[0]


def forward_only(request: Request) -> tuple[dict[str, torch.Tensor], Scores]:
    """Run the model once, without gradients.

    Args:
        request: what to run, and which layers to keep.

    Returns:
        Layer name -> activations, and the scores.

    Raises:
        CnnvizError: see differentiate.
    """
    found: list[tuple[dict[str, torch.Tensor], Scores]] = []
    record(request, lambda places, scores: found.append((dict(places), scores)), linked=False)
    return found[0]


def record(
    request: Request, finish: Callable[[Mapping[str, torch.Tensor], Scores], object], *, linked: bool = True
) -> None:
    """Run the model once, with autograd from the layers on that are asked for, or from the input on.

    Args:
        request: what to run.
        finish: called inside the pass with the layers' activations, or the input under INPUT, by name; and with the
            scores.
        linked: whether gradients of the scores with respect to these can be taken.

    Raises:
        CnnvizError: see differentiate; and whatever `finish` raises.
    """
    import torch

    root, inputs, forward = root_of(request.model), request.inputs(), request.model.forward
    wanted: list[Target] = []
    if request.layers is not None:
        wanted = find_targets(root, request.batch, request.layers, inputs, forward)
    names = {target.key(None) for target in wanted}
    units = _units(request)
    batches: list[torch.Tensor] = []
    kept_names: set[str] = set()

    def keep(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        kept_names.add(name)
        # Copies for us and for the model: what comes next may work in place.
        if linked and name in names:
            kept = tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_()
            return kept, kept.clone()
        return tensor.clone(), None

    ends = None if request.targets.need_output else [unit.target for unit in units.values()]
    keeper = Keeper([*wanted, *(unit.target for unit in units.values())], keep, until=ends or ())
    watched = keeper.watched(root)

    def end(output: Any) -> None:
        if watched.result is not None and output is not None:  # the output itself is a layer that is asked for
            watched.result(output)
        if late := names - kept_names if ends else ():
            raise CaptureError(
                f"layer {min(late)!r} must run before that of the target {request.targets.units[-1].label!r}, got one "
                f"that does not. Name an earlier layer."
            )
        places = by_name(keeper, root, wanted) if wanted else {INPUT: batches[-1]}
        with torch.set_grad_enabled(linked):
            maps = {unit: _maps(by_name(keeper, root, [located.target]), located) for unit, located in units.items()}
            finish(places, request.targets.scores(output, maps, len(request.batch)))

    def linking(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """Record what comes after the layer; where that was the last, finish before the pass ends."""

        def call(*seen: Any) -> Any:
            try:
                other = function(*seen) if function is not None else None
            except Enough:
                end(None)
                raise
            if other is not None:
                torch.set_grad_enabled(True)  # until the pass ends
            return other

        return None if function is None else call

    def from_input(batch: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(linked)
        batches.append(batch.detach().requires_grad_(linked))
        return batches[-1].clone()

    looked_at = dataclasses.replace(
        watched,
        output=linking(watched.output),
        input=linking(watched.input),
        operation=linking(watched.operation),
        result=end if ends is None else linking(watched.result),
        batch=None if wanted else from_input,
    )
    keeper.copied = run_pass(root, request.batch, looked_at, inputs, forward)
    by_name(keeper, root)


@dataclass(frozen=True)
class _Located:
    """The layer of a unit: what to hang hooks on, and how its output is read."""

    target: Target
    axes: Axes


def _units(request: Request) -> dict[Unit, _Located]:
    """Find the layers of the units among the targets. A pass of one image shows the axes of their outputs."""
    units = request.targets.units
    if not units:
        return {}
    model, first = request.model, request.batch[:1]
    inputs = request.inputs([0])
    located = {}
    for unit in units:
        target, *others = find_targets(root_of(model), first, unit.layer, inputs, model.forward)
        if others:
            raise CaptureError(
                f"target must be a unit of one layer, and {unit.layer!r} names {1 + len(others)}. Name one of them."
            )
        # The first call of a module, so that the pass can end there.
        call = target.call or (0 if target.side in ("output", "input") else None)
        located[unit] = dataclasses.replace(target, call=call)
    names = {unit: target.key(target.call) for unit, target in located.items()}
    seen = capture(model, first, list(names.values()), inputs=inputs)
    shapes = {name: tuple(output.shape) for name, output in seen.items()}
    axes = {name: axes for name, axes, _ in axes_of(model, shapes, tuple(first.shape), request.axes)}
    return {unit: _Located(target, axes[names[unit]]) for unit, target in located.items()}


def _maps(seen: Mapping[str, torch.Tensor], located: _Located) -> torch.Tensor:
    (output,) = seen.values()
    return all_maps(output, located.axes)
