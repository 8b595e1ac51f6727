"""The parameters of a model, and statistics of each.

These are the parameters and buffers of the state dict, in its order, module by module. A tensor that several modules
share is taken once, under its first name. Integer buffers are left out: they are counters, such as
`num_batches_tracked`, or indices. Where a module applies a weight that it makes of these (by a parametrization, a norm
of weights or pruning), that weight stands before them; see effective.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..activations.patterns import resolve
from ..activations.tensors import gathered
from ..errors import DTypeError, OptionError
from ..models.layers import every_module, layer_list, uncompiled
from ..models.loaded import LoadedModel, module_of
from ..models.missing import missing_in
from ..runtime.plain import plain
from .effective import effective_weights
from .histograms import Measured, measure

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..activations.patterns import Layers


@dataclass(frozen=True)
class ParameterInfo:
    """What one line of `cnnviz weights` says; every field is a JSON type. Statistics are of the finite values.

    Attributes:
        name: as in the model's state dict; of an effective weight the name of the attribute.
        kind: "parameter", "buffer", or "effective" for a weight as it is applied where the state dict has only what it
            is made of.
        dtype: such as "float32"; that of the values where they are quantised.
        shape: of the tensor.
        count: number of its values.
        mean: of the finite values; None without any.
        std: standard deviation, divisor n - 1; 0.0 for a single value, None without any, or beyond float64.
        min: least finite value, or None.
        max: greatest finite value, or None.
        zeros: share of all values that are 0; None for a tensor without values.
        nan: number of NaN.
        inf: number of infinities of either sign.
        histogram: counts of 50 equal bins over `edges`, as numpy.histogram makes them: each bin holds its lower edge,
            and the last one its upper edge too.
        edges: ends of the histogram: min and max. Where they are equal, half a unit below and above them; without
            finite values (0, 1).
        missing: whether the checkpoint that was loaded lacks it, so that its values are those that the model was built
            with, most often random.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    zeros: float | None
    nan: int
    inf: int
    histogram: tuple[int, ...]
    edges: tuple[float, float]
    missing: bool = False


@dataclass(frozen=True)
class HeldTensor:
    """A parameter or buffer where a module holds it.

    Attributes:
        name: as in the state dict.
        kind: "parameter", "buffer" or "effective".
        values: the tensor itself; all of one that is spread over processes, dequantised where it is quantised.
        module: that holds it.
        missing: whether the checkpoint that was loaded lacks it, or a part of what it is made of.
    """

    name: str
    kind: str
    values: torch.Tensor
    module: nn.Module
    missing: bool = False


def parameter_statistics(
    model: LoadedModel | nn.Module, layers: Layers | None = None, *, threads: int | None = None
) -> list[ParameterInfo]:
    """Measure every parameter and every floating-point buffer of a model.

    Args:
        model: from load_model, or any module.
        layers: layer patterns, see capture: only parameters of these modules and of the modules inside them. None
            for all.
        threads: number of workers; None for one per core.

    Returns:
        A record for each, in the order of the state dict.

    Raises:
        LayerNotFoundError: a pattern matches nothing.
        OptionError: the matched modules have no parameters, or a pattern names a call or a part of an output.
        DTypeError: a parameter is complex, sparse, quantised by torch.ao, lazy or on the meta device.
        ModelError: an effective weight cannot be computed.
    """
    held = held_tensors(model, layers)
    measured = measure([one.values for one in held], threads)
    return [_described(one, found) for one, found in zip(held, measured, strict=True)]


def held_tensors(model: LoadedModel | nn.Module, layers: Layers | None = None) -> list[HeldTensor]:
    """List the parameters and floating-point buffers of a model.

    Args:
        model: from load_model, or any module.
        layers: as for parameter_statistics.

    Returns:
        The tensors that `parameter_statistics` measures.

    Raises:
        InputError: as parameter_statistics does.
    """
    root = uncompiled(module_of(model))
    wanted = None if layers is None else _modules_of(root, layers)
    missing = missing_in(root).keys()
    found: dict[int | str, HeldTensor] = {}
    for prefix, module in [("", root), *layer_list(root)]:
        if wanted is not None and module not in wanted:
            continue
        for kind, name, tensor in _own_tensors(module, prefix):
            full_name = f"{prefix}.{name}" if prefix else name
            key = full_name if kind == "effective" else id(tensor)  # nobody keeps an effective one, so ids repeat
            if key not in found:
                sources = module.parameters() if kind == "effective" else [tensor]
                lacks = any(id(source) in missing for source in sources)
                found[key] = HeldTensor(full_name, kind, _values(full_name, tensor), module, lacks)
    if wanted is not None and not found:
        raise OptionError(f"layers must name a layer with parameters, got {layers!r}. List them with: cnnviz layers")
    return list(found.values())


def _modules_of(root: nn.Module, layers: Layers) -> set[nn.Module]:
    """Return the modules that patterns name, and all modules inside them."""
    targets = resolve(root, layers)
    for target in targets:
        if target.call is not None or target.path:
            raise OptionError(
                f"layers must name modules where their parameters are meant, got {target.key(target.call)!r}. "
                f"Leave the call or the part of its output away: {target.name!r}."
            )
    return {part for target in targets if target.module for part in every_module(target.module).values()}


def _own_tensors(module: nn.Module, prefix: str) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Yield the kind and the name of each tensor to measure that a module itself holds, and the tensor."""
    effective = effective_weights(module, prefix)
    buffers = {name: b for name, b in module._buffers.items() if name not in module._non_persistent_buffers_set}
    for kind, tensors in (("effective", effective), ("parameter", module._parameters), ("buffer", buffers)):
        for name, tensor in tensors.items():
            if tensor is not None and (kind == "parameter" or _is_measured(tensor)):
                yield kind, name, tensor


def _values(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor, whichever class it has; refuse one that cannot be measured."""
    import torch

    if not torch.nn.parameter.is_lazy(tensor):
        tensor = gathered(tensor)
    _check(name, tensor)
    return plain(tensor, f"parameter {name!r}").detach().resolve_neg()


def _is_measured(buffer: torch.Tensor) -> bool:
    return buffer.is_floating_point() or buffer.is_complex()


def _check(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor that cannot be measured."""
    import torch

    reason, advice = "", "Name others by layers."
    if type(tensor).__name__.startswith("Uninitialized"):
        reason, advice = "a lazy one without a shape", "Run the model once."
    elif tensor.is_complex():
        reason = str(tensor.dtype)
    elif tensor.is_meta:
        reason, advice = "one on the meta device", "Load the model with its values, on cpu or cuda."
    elif tensor.is_quantized or tensor.layout != torch.strided:
        reason = f"{tensor.dtype} in {tensor.qscheme() if tensor.is_quantized else tensor.layout}"
    if reason:
        raise DTypeError(f"parameter {name!r} must hold real numbers densely, got {reason}. {advice}")


def _described(held: HeldTensor, found: Measured) -> ParameterInfo:
    count = held.values.numel()
    return ParameterInfo(
        name=held.name,
        kind=held.kind,
        dtype=str(held.values.dtype).removeprefix("torch."),
        shape=tuple(held.values.shape),
        count=count,
        mean=_json_number(found.mean),
        std=_json_number(found.std),
        min=_json_number(found.low),
        max=_json_number(found.high),
        zeros=found.zeros / count if count else None,
        nan=found.nan,
        inf=found.inf,
        histogram=tuple(found.counts.tolist()),
        edges=found.edges,
        missing=held.missing,
    )


def _json_number(value: float) -> float | None:
    """Return a number, or None where it is not finite, which JSON cannot hold."""
    return value if math.isfinite(value) else None
