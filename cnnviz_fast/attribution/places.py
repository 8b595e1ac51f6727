"""Where a model has attention over the positions of an image: one pass of an image shows each matrix and its tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..activations.axes.evidence import has_class_token
from ..activations.capture import find_targets
from ..activations.maps import axes_of
from ..activations.passes.arguments import callable_of
from ..activations.passes.forward import Watched, run_pass
from ..activations.tensors import tensors_in
from ..activations.tracing.roles import CHANNELS
from ..activations.tracing.trace import traced_roles
from ..errors import CaptureError, ShapeError
from ..models.layers import layer_list, takes_hooks
from ..models.loaded import LoadedModel, root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from .attending import Attending, Matrix
    from .head import Request

_MOST_NAMED = 4


@dataclass(frozen=True)
class Place:
    """A place in a model with an attention matrix.

    Attributes:
        name: of the layer that computes it; of one that is called several times, with the call.
        number: in the order of the pass.
        queries: T.
        keys: S, the tokens of the image.
        prefix: number of tokens before their grid.
        grid: rows and columns of patches.
        steps: of clips, otherwise 1.
        has_class_token: whether the first of the queries is one.
    """

    name: str
    number: int
    queries: int
    keys: int
    prefix: int
    grid: tuple[int, int]
    steps: int
    has_class_token: bool

    @property
    def patches(self) -> slice:
        """Return which of the keys are patches."""
        return slice(self.prefix, self.prefix + self.steps * math.prod(self.grid))


@dataclass
class _Seen:
    """A matrix as a pass has shown it: a softmax that is not square may be anything, such as a gate.

    inputs: names and shapes of what went into the layers around it, the innermost first, which its tokens are among.
    """

    name: str
    operation: str
    number: int
    shape: tuple[int, ...]
    is_attention: bool
    inputs: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


def with_mode(model: LoadedModel, mode: Callable[[], Attending]) -> LoadedModel:
    """Return a model whose forward runs inside a mode, which is made anew for each pass."""

    def forward(module: nn.Module, *given: Any, **named: Any) -> Any:
        with mode():
            return callable_of(module, model.forward)(*given, **named)

    return replace(model, forward=forward)


def places_of(request: Request, *, all_of_them: bool) -> list[Place]:
    """Find the attention that a request asks for.

    Args:
        request: whose layers stand for every attention inside them; None for those of the whole model.
        all_of_them: whether all of the model's are asked for where no layer is named, not the last one alone.

    Returns:
        One or more places, in the order of the pass.

    Raises:
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: what was named has no attention.
        ShapeError: its attention is not over the positions of the image.
    """
    seen = _seen_in(request)
    if not seen:
        raise CaptureError(
            f"the model must have attention for this method, got {type(root_of(request.model)).__name__}, which shows "
            f"no softmax over keys: it has convolutions only, a linear attention, or kernels that show none. Those of "
            f"transformers are replaced by model.set_attn_implementation('sdpa')."
        )
    places = {each.number: _place(request, each) for each in seen}
    usable = [place for place in places.values() if isinstance(place, Place)]
    if request.layers is None:
        refused = [place for each in seen if each.is_attention and isinstance(place := places[each.number], ShapeError)]
        if not usable:
            raise refused[0] if refused else next(each for each in places.values() if isinstance(each, ShapeError))
        if all_of_them and refused:
            raise ShapeError(f"all attention must be over the image unless layers are named, and {refused[0]}")
        return usable if all_of_them else usable[-1:]
    chosen: dict[int, Place] = {}
    for pattern, within in _by_pattern(request, seen).items():
        if not within:
            names = ", ".join(repr(place.name) for place in usable[-_MOST_NAMED:])
            instead = f"Layers with one: {names}." if names else "No layer of this model has one over the image."
            raise CaptureError(f"layer {pattern!r} must have an attention matrix inside, got none. {instead}")
        within_usable = [place for each in within if isinstance(place := places[each.number], Place)]
        if not within_usable:
            raise next(error for each in within if isinstance(error := places[each.number], ShapeError))
        chosen |= {place.number: place for place in within_usable}
    return [chosen[number] for number in sorted(chosen)]


def _by_pattern(request: Request, seen: Sequence[_Seen]) -> dict[str, list[_Seen]]:
    """Return the matrices inside the layers that each pattern of a request names."""
    model, layers = request.model, request.layers
    assert layers is not None
    found: dict[str, list[_Seen]] = {}
    for target in find_targets(root_of(model), request.batch[:1], layers, request.inputs([0]), model.forward):
        inside = [each for each in seen if f"{each.operation}.".startswith(f"{target.name}.")]
        if target.call is not None:
            inside = inside[target.call : target.call + 1]
        for pattern in target.patterns:
            found.setdefault(str(pattern), []).extend(inside)
    return found


def _seen_in(request: Request) -> list[_Seen]:
    """Run the first image, and return every matrix of the pass."""
    from torch import nn

    from .attending import Attending

    one = request.variants(0, request.batch[:1])
    root = root_of(one.model)
    names: dict[nn.Module, str] = {module: name for name, module in layer_list(root) if takes_hooks(module)}
    running: list[tuple[nn.Module, list[tuple[str, tuple[int, ...]]]]] = []
    seen: list[_Seen] = []

    def enter(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        taken: Any = given[0] if len(given) == 1 and not named else dict(enumerate(given)) | named
        inputs = [(f"input:{names[module]}{path}", tuple(each.shape)) for path, each in tensors_in(taken).items()]
        running.append((module, inputs))

    def leave(module: nn.Module, output: Any) -> None:
        while running and running.pop()[0] is not module:  # modules that ended in an error which the model caught
            pass

    def see(number: int, matrix: Matrix) -> None:
        around = [names[module] for module, _ in running if not isinstance(module, nn.Softmax)]
        inputs = [each for _, taken in reversed(running) for each in taken]
        operation = f"{names[running[-1][0]]}.{matrix.function}" if running else matrix.function
        shape = tuple(matrix.values.shape)
        is_attention = matrix.function != "softmax" or shape[-2] == shape[-1]
        name = around[-1] if around else operation
        seen.append(_Seen(name, operation, number, shape, is_attention, inputs))

    def mode() -> Attending:
        seen.clear()
        running.clear()
        return Attending(lambda number: True, see)

    watched = Watched(outputs_of=list(names), output=leave, inputs_of=list(names), input=enter)
    run_pass(root, one.batch, watched, one.inputs(), with_mode(one.model, mode).forward)
    return _with_calls(seen)


def _with_calls(seen: list[_Seen]) -> list[_Seen]:
    """Return what was seen, of layers that have several matrices with names that tell them apart."""
    names = [each.name for each in seen]
    return [
        replace(each, name=f"{each.name}:{names[:at].count(each.name)}") if names.count(each.name) > 1 else each
        for at, each in enumerate(seen)
    ]


def _place(request: Request, seen: _Seen) -> Place | ShapeError:
    """Return the place of a matrix, or why it is not over the positions of the image."""
    queries, keys = seen.shape[-2:]
    shape = (1, *request.batch.shape[1:])
    reason: ShapeError | None = None
    for name, of in [] if _is_over_channels(request, seen, shape) else seen.inputs:
        if not _may_hold(keys, of):
            continue
        try:
            ((_, axes, _),) = axes_of(request.model, {name: of}, shape, request.axes)
        except ShapeError as error:
            reason = reason or error
            continue
        grid = axes.grid or {"nchw": of[2:], "nhwc": of[1:3]}.get(axes.name)
        if grid is not None:
            rows, cols = grid
            prefix = axes.prefix_tokens
            is_class = prefix > 0 and queries == keys and has_class_token(root_of(request.model))
            return Place(seen.name, seen.number, queries, keys, prefix, (rows, cols), axes.steps, is_class)
    return reason or ShapeError(
        f"the attention of layer {seen.name!r} has {' x '.join(map(str, seen.shape))} weights, over windows, pooled "
        f"keys, channels or other queries and not over all positions of an image that go into it: no maps show it."
    )


def _is_over_channels(request: Request, seen: _Seen, shape: tuple[int, ...]) -> bool:
    """Check whether what an attention takes its shares of are channels, of which there may be as many as tokens."""
    model = request.model
    roles = traced_roles(model.module, seen.operation, seen.shape, shape, called=(model.inputs, model.forward))
    return roles is not None and any(part.kind == CHANNELS for part in roles[-1])


def _may_hold(keys: int, shape: tuple[int, ...]) -> bool:
    """Check whether a tensor of one image may hold a token for each of so many keys."""
    if len(shape) == 4 and shape[0] == 1:
        return keys in (shape[2] * shape[3], shape[1] * shape[2])
    return len(shape) == 3 and (shape[:2] in ((1, keys), (keys, 1)))
