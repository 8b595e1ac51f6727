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
from .targets import Scores, Targets

if TYPE_CHECKING:
    import torch

    from ..activations.capture import Keep
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
        inner: the layers of the units among the targets, where they are known already; see `located`.
    """

    model: LoadedModel
    batch: torch.Tensor
    layers: Layers | None
    targets: Targets
    axes: AxesOptions = dataclasses.field(default_factory=AxesOptions)
    inner: Mapping[str, InnerLayer] | None = None

    def inputs(self, images: Sequence[int] | None = None) -> Any:
        """Return what the model takes beside the batch, for some of its images; None for all."""
        return inputs_at(self.model, range(len(self.batch)) if images is None else images)

    def variants(self, image: int, batch: torch.Tensor, layers: Layers | None = None) -> Request:
        """Return the request for variants of one image.

        Args:
            image: its position in the batch.
            batch: (K, C, H, W) float. The variants.
            layers: see Request.

        Returns:
            The same in everything else.
        """
        model = dataclasses.replace(self.model, inputs=self.inputs([image] * len(batch)))
        return dataclasses.replace(self, model=model, batch=batch, layers=layers, targets=self.targets.at(image))


@dataclass(frozen=True)
class InnerLayer:
    """The layer of units: what to hang hooks on, and how its output is read."""

    target: Target
    axes: Axes


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

    record(request, finish, _linked, from_input=_leaf)
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
    record(request, lambda places, scores: found.append((dict(places), scores)), copied)
    return found[0]


def record(
    request: Request,
    finish: Callable[[Mapping[str, torch.Tensor], Scores], object],
    keep: Keep,
    from_input: Callable[[torch.Tensor], torch.Tensor] | None = None,
    linked: bool = False,
) -> None:
    """Run the model once, and finish inside the pass.

    Args:
        request: what to run.
        finish: called inside the pass with what was kept of the layers, by name, and with the scores.
        keep: what is kept of a layer, and what the model goes on with; see Keeper.
        from_input: makes a leaf of the batch, where gradients are taken with respect to that: it is kept under INPUT.
        linked: whether the model's forward records gradients by itself.

    Raises:
        CnnvizError: see differentiate; and whatever `finish` raises.
    """
    import torch

    root, inputs, forward = root_of(request.model), request.inputs(), request.model.forward
    wanted: list[Target] = []
    if request.layers is not None:
        wanted = find_targets(root, request.batch, request.layers, inputs, forward)
    names = {target.key(None) for target in wanted}
    inner = located(request)
    leaves: list[torch.Tensor] = []
    kept_names: set[str] = set()

    def keep_one(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        kept_names.add(name)
        return keep(tensor, name) if name in names else copied(tensor, name)

    ends = () if request.targets.need_output else [layer.target for layer in inner.values()]
    keeper = Keeper([*wanted, *(layer.target for layer in inner.values())], keep_one, until=ends)
    watched = keeper.watched(root)

    def end(output: Any) -> None:
        if watched.result is not None and output is not None:  # the output itself is a layer that is asked for
            watched.result(output)
        if ends and (late := names - kept_names):
            raise CaptureError(
                f"layer {min(late)!r} must run before that of the target, {request.targets.layers[-1]!r}, got one that "
                f"does not. Name an earlier layer."
            )
        places = by_name(keeper, root, wanted) if wanted else {INPUT: leaves[-1]} if leaves else {}
        maps = {
            name: all_maps(next(iter(by_name(keeper, root, [layer.target]).values())), layer.axes)
            for name, layer in inner.items()
        }
        with torch.set_grad_enabled(from_input is not None or linked):
            finish(places, request.targets.scores(output, maps, len(request.batch)))

    def linking(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """Record what comes after a leaf; where a layer was the last that is needed, finish before the pass ends."""

        if function is None:
            return None

        def call(*seen: Any) -> Any:
            try:
                other = function(*seen)
            except Enough:
                end(None)
                raise
            if from_input is not None and other is not None:
                torch.set_grad_enabled(True)  # until the pass ends
            return other

        return call

    def begin(batch: torch.Tensor) -> torch.Tensor:
        assert from_input is not None
        torch.set_grad_enabled(True)
        leaves.append(from_input(batch))
        return leaves[-1].clone()

    looked_at = dataclasses.replace(
        watched,
        output=linking(watched.output),
        input=linking(watched.input),
        operation=linking(watched.operation),
        result=linking(watched.result) if ends else end,
        batch=None if wanted or from_input is None else begin,
    )
    keeper.copied = run_pass(root, request.batch, looked_at, inputs, forward)
    by_name(keeper, root)


def located(request: Request) -> Mapping[str, InnerLayer]:
    """Find the layers of the units among the targets. A pass of one image shows the axes of their outputs.

    Args:
        request: with the targets.

    Returns:
        Layer as it was written -> what it is.

    Raises:
        LayerNotFoundError: there is no such layer.
        CaptureError: several layers are named by one unit, or the layer never ran.
        ShapeError: the axes of the output cannot be told.
    """
    if request.inner is not None:
        return request.inner
    layers = request.targets.layers
    if not layers:
        return {}
    model, first, inputs = request.model, request.batch[:1], request.inputs([0])
    targets = {}
    for layer in layers:
        target, *others = find_targets(root_of(model), first, layer, inputs, model.forward)
        if others:
            raise CaptureError(
                f"target must be a unit of one layer, and {layer!r} names {1 + len(others)}. Name one of them."
            )
        # The first call of a module, so that the pass can end there.
        call = target.call or (0 if target.side in ("output", "input") else None)
        targets[layer] = dataclasses.replace(target, call=call)
    names = {layer: target.key(target.call) for layer, target in targets.items()}
    seen = capture(model, first, list(names.values()), inputs=inputs)
    shapes = {name: tuple(output.shape) for name, output in seen.items()}
    axes = {name: axes for name, axes, _ in axes_of(model, shapes, tuple(first.shape), request.axes)}
    return {layer: InnerLayer(target, axes[names[layer]]) for layer, target in targets.items()}


def copied(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, None]:
    """Keep a copy, since the next layer may work in place; it stays linked to what it was made of."""
    return tensor.clone(), None


def _linked(tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep a copy, a leaf unless it comes after one, that the model goes on with a copy of."""
    kept = tensor.clone() if tensor.requires_grad else _leaf(tensor.clone())
    return kept, kept.clone()


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_()
