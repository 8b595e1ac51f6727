"""Receptive fields of layers: one pass over a copy of the model without values tells those of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import CaptureError, LayerNotFoundError
from ...models.layers import has_lazy, layer_names, lazy_copy, meta_copy
from ...models.loaded import LoadedModel, as_given, calling, example_inputs, root_of
from ...options.parsers import lengths, share
from ..axes.evidence import Evidence
from ..axes.find import find_axes
from ..capture import Keeper, by_name, find_targets
from ..patterns import resolve
from ..tensors import only_tensor, tensors_in
from .boxes import as_field
from .effective import EnergyKeeper, Measure
from .follow import Follower, following
from .reach import Reach
from .record import ReceptiveField

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..passes.arguments import Forward, Inputs
    from ..patterns import Layers, Target


def receptive_field(
    model: LoadedModel | nn.Module,
    layer: Layers,
    input_size: int | tuple[int, int] | None = None,
    *,
    effective: float | None = None,
    images: torch.Tensor | None = None,
    inputs: Inputs = None,
    forward: Forward = None,
) -> ReceptiveField | dict[str, ReceptiveField]:
    """Find which pixels of the input the units of layers depend on: size, stride and offset of their fields.

    It comes from the operations of one pass in eval mode, of a copy of the model without values where that works: each
    says which rows and columns its output reads. A field is the box around all pixels that any channel of a unit may
    depend on, holes of dilated kernels included, and goes on beyond the input where padding does. What takes all
    positions together (attention, global pooling, squeeze-and-excitation gates) and what is not known makes the field
    the whole input, and `reasons` names it.

    Args:
        model: a record of `load_model`, or any module. It is left as it was.
        layer: one layer pattern or several, as for `capture`: `layer4`, `relu:2`, `layer4.2.add`.
        input_size: height and width of the input in px, one number for both; None for that of `images`, else that of
            the model's own preprocessing. Fields depend on it only where a model does, as behind a resize to a fixed
            size.
        effective: a share of the gradient's energy, such as 0.95, for the effective field in place of the exact one:
            `size` is then that of the smallest box around the field's centre with this share of the squared gradient
            of the middle unit, by the pixels of the input; a layer whose field is whole gets the stride of its map.
        images: (N, C, H, W) float, any device. What that gradient is measured on, preprocessed; None for four images of
            seeded noise, which show what the weights do, and not the user's photos. Not modified.
        inputs: what the model takes beside the batch; see capture.
        forward: what runs in place of the model's forward; see capture.

    Returns:
        The record, for one layer that was asked for by its name and ran once; else layer name -> record, as capture
        names them: for a sequence, for a pattern with `*`, `type:` or `re:`, for a layer that ran several times.

    Raises:
        OptionError: `input_size` or `effective` has a value that it cannot have.
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: the model fails, or the layer did not run or put out no tensor; for the effective field also where
            no gradient comes to the input.
    """
    size = None if input_size is None else lengths("input_size", input_size)
    root, (inputs, forward) = root_of(model), calling(model, inputs, forward)
    patterns = _as_text(root, layer)
    loaded = model if isinstance(model, LoadedModel) else as_given(root)
    if images is not None:
        candidates: Iterator[torch.Tensor] = iter([images[:1]])
    else:
        candidates = example_inputs(loaded, size)
    seen = _first_that_runs(root, candidates, patterns, inputs, forward)
    fields = {name: as_field(reach, seen.batch.shape) for name, reach in seen.reaches.items()}
    if effective is not None:
        measure = Measure(share("effective", effective), seen.batch if images is None else images, images is None)
        known = (root, tuple(seen.batch.shape), (inputs, forward))
        axes = {
            name: find_axes(shape, Evidence(name, module, *known)) for name, (module, shape) in seen.outputs.items()
        }
        keeper = EnergyKeeper(find_targets(root, measure.images, patterns, inputs, forward), measure, axes)
        fields = keeper.measured(root, fields, inputs, forward)
    if not _asks_for_several(layer, root) and len(fields) == 1:
        return next(iter(fields.values()))
    return fields


def _as_text(root: nn.Module, layer: Layers) -> list[str]:
    """Return patterns as text: of modules and numbers the names, since the pass is that of a copy."""
    from torch import nn

    several = isinstance(layer, Iterable) and not isinstance(layer, (str, nn.Module))
    patterns: list[Any] = list(layer) if several else [layer]  # type: ignore[arg-type]
    return [pattern if isinstance(pattern, str) else resolve(root, pattern)[0].name for pattern in patterns]


def _asks_for_several(layer: Layers, root: nn.Module) -> bool:
    """Check whether layers are given as a sequence, or as a pattern that may match several."""
    from torch import nn

    if isinstance(layer, (int, nn.Module)):
        return False
    if not isinstance(layer, str):
        return True
    return layer not in layer_names(root) and (
        "*" in layer or layer.removeprefix("input:").startswith(("type:", "re:"))
    )


def reaches_of(model: nn.Module, batch: torch.Tensor, layers: list[str]) -> dict[str, Reach]:
    """Return the reach of what layers put out in a pass, of which `receptive_field` makes records.

    Args:
        model: any module. It is left as it was.
        batch: (1, C, H, W) float. What goes in. Not modified.
        layers: layer patterns.
    """
    return _seen(model, batch, layers, None, None).reaches


class _Seen(NamedTuple):
    """What a pass has shown.

    batch: (1, C, H, W) float. What went in.
    reaches: name of a captured output -> its reach.
    outputs: name of a layer, without its call -> the layer and the shape of its output.
    """

    batch: torch.Tensor
    reaches: dict[str, Reach]
    outputs: dict[str, tuple[nn.Module | None, tuple[int, ...]]]


class _ReachKeeper(Keeper):
    """Looks at a pass and keeps the reach of what the wanted calls put out or took in."""

    def __init__(self, targets: Sequence[Target], follower: Follower) -> None:
        super().__init__(targets, self._reach)
        self._modules = {target.key(None): target.module for target in targets}
        self.follower = follower
        self.outputs: dict[str, tuple[nn.Module | None, tuple[int, ...]]] = {}

    def tensor_in(self, seen: Any, name: str, *, taken_in: bool) -> torch.Tensor:
        """Return the tensor of what was seen, which has no values; see only_tensor."""
        found = list(tensors_in(seen).values())
        return found[0] if len(found) == 1 else only_tensor(seen, name, taken_in=taken_in)  # which raises

    def _reach(self, tensor: torch.Tensor, name: str) -> tuple[Reach, None]:
        """Return the reach of a call's tensor, and that the model goes on with the tensor itself."""
        self.outputs[name] = (self._modules[name], tuple(tensor.shape))
        nothing = Reach((), ("nothing in it comes from the input, so far as is seen",))
        return self.follower.reach_now(tensor) or nothing, None


def _first_that_runs(
    root: nn.Module, candidates: Iterator[torch.Tensor], patterns: list[str], inputs: Inputs, forward: Forward
) -> _Seen:
    """Follow a pass over the first input on which the model runs; where none does, raise the error of the first."""
    first: CaptureError | None = None
    for batch in candidates:
        try:
            return _seen(root, batch, patterns, inputs, forward)
        except CaptureError as error:
            first = first or error
    assert first is not None  # there is always a candidate
    raise first


def _seen(root: nn.Module, batch: torch.Tensor, patterns: list[str], inputs: Inputs, forward: Forward) -> _Seen:
    """Follow a pass: of a copy without values where that works, else of the model itself."""
    try:
        return _followed(meta_copy(root), batch.to("meta"), patterns, inputs, forward)
    except LayerNotFoundError:
        raise
    except Exception:  # a foreign model may raise anything here; the pass with values decides
        return _followed(lazy_copy(root) if has_lazy(root) else root, batch, patterns, inputs, forward)


def _followed(model: nn.Module, batch: torch.Tensor, patterns: list[str], inputs: Inputs, forward: Forward) -> _Seen:
    follower = Follower()
    keeper = _ReachKeeper(find_targets(model, batch, patterns, inputs, forward), follower)
    marked = batch.clone()  # what is noted on it is not for its owner
    follower.begin(marked)
    with following(follower):
        keeper.run(model, marked, inputs, forward)
    return _Seen(batch, by_name(keeper, model), keeper.outputs)
