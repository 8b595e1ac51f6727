"""The output of a layer: find the tensors in it, choose the one that is meant, and copy what is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError
from ..options.drawing import REDUCTIONS
from ..options.parsers import channel_list, choice
from ..runtime.plain import is_fake, without_mask
from .buffers import pool
from .passes.leaves import changed

if TYPE_CHECKING:
    import torch

KEPT_ON = ("device", "cpu")
KEPT_REDUCTIONS = tuple(reduction for reduction in REDUCTIONS if reduction != "strongest")
"""Which channel is the strongest is found later, from all of them."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of a tensor. It is taken inside the hook, so that the rest takes no memory beside it.

    Attributes:
        keep: "device" for the layer's own device, "cpu" for the CPU's memory.
        channels: indices on the second axis, such as "0-63,128", in the order wanted; None for all.
        reduce: sum, mean or max over the chosen channels, to one channel; None for no reduction. Halves are widened to
            float32 first.
    """

    keep: str = "device"
    channels: Any = None
    reduce: str | None = None

    def __post_init__(self) -> None:
        choice(*KEPT_ON)("keep", self.keep)
        if self.channels is not None:
            object.__setattr__(self, "channels", channel_list("channels", self.channels))
        if self.reduce is not None:
            choice(*KEPT_REDUCTIONS)("reduce", self.reduce)

    def of(self, tensor: torch.Tensor, layer: str) -> tuple[torch.Tensor, None]:
        """Return a copy of what is kept, as `copy` does, and that the model goes on with the tensor itself."""
        return self.copy(tensor, layer), None

    def copy(self, tensor: torch.Tensor, layer: str) -> torch.Tensor:
        """Copy what is kept of a tensor.

        Args:
            tensor: (N, C, ...) real dtype. Not modified.
            layer: name of the layer whose output it is, for messages.

        Returns:
            (N, C or 1, ...) of the same dtype, float32 if halves were reduced; in memory that nobody else writes.

        Raises:
            CaptureError: the tensor does not have these channels, or has no axis of channels.
        """
        import torch

        kept, fresh = tensor.detach(), False
        if (self.channels is not None or self.reduce is not None) and kept.ndim < 2:
            raise CaptureError(f"layer {layer!r} put out {tuple(kept.shape)}, which has no axis of channels.")
        if self.channels is not None:
            last = kept.shape[1] - 1
            if max(self.channels) > last:
                raise CaptureError(f"channels must be 0 to {last} for layer {layer!r}, got {max(self.channels)}.")
            kept, fresh = kept.index_select(1, torch.tensor(self.channels).to(kept.device, non_blocking=True)), True
        if self.reduce is not None:
            kept, fresh = _reduced(kept, self.reduce), True
        if self.keep == "cpu" and kept.device.type != "cpu":
            kept, fresh = kept.cpu(), True
        # Copied at once: the next layer may work in place, and that cannot be known in advance.
        return kept if fresh else pool.copy(kept)


def _reduced(maps: torch.Tensor, reduce: str) -> torch.Tensor:
    """Reduce the second axis of (N, C, ...) `maps` to length 1, halves and integers in float32."""
    import torch

    wide = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) or not maps.is_floating_point() else maps
    if reduce == "max":
        return wide.amax(1, keepdim=True)
    return wide.sum(1, keepdim=True) if reduce == "sum" else wide.mean(1, keepdim=True)


def tensors_in(output: Any) -> dict[str, torch.Tensor]:
    """Find the tensors in an output: itself, or those in its sequences, mappings and dataclasses, at any depth.

    Args:
        output: what a layer put out.

    Returns:
        Path -> tensor, in order; the path of the output itself is "", that of an entry of its second part `[1][out]`.
    """
    found: dict[str, torch.Tensor] = {}
    _collect(output, "", found, ())
    return found


def part_of(output: Any, path: tuple[str, ...], layer: str) -> Any:
    """Follow a path into an output.

    Args:
        output: what a layer put out.
        path: index of a sequence, key of a mapping or name of an attribute, for each level.
        layer: name of the layer, for messages.

    Returns:
        The part.

    Raises:
        CaptureError: there is no such part.
    """
    part = output
    for depth, step in enumerate(path):
        parts = _parts(part)
        if step in parts:
            part = parts[step]
        elif step.lstrip("-").isdigit() and isinstance(part, (list, tuple)) and -len(part) <= int(step) < len(part):
            part = part[int(step)]
        elif step.isidentifier() and not step.startswith("_") and not callable(getattr(part, step, print)):
            part = getattr(part, step)
        else:
            way = "".join(f"[{step}]" for step in path[:depth])
            there = ", ".join(f"[{name}]" for name in list(parts)[:8]) or "no parts"
            kind = type(part).__name__
            raise CaptureError(f"layer {layer + way!r} has no part [{step}] in its {kind}: it has {there}.")
    return part


def only_tensor(output: Any, layer: str, *, taken_in: bool = False) -> torch.Tensor:
    """Return the one tensor of an output.

    Args:
        output: what a layer put out.
        layer: its name, for messages.
        taken_in: whether it is what the layer took in instead, for messages.

    Returns:
        The tensor: dense, real and with values; dequantised if it was quantised.

    Raises:
        CaptureError: there is no tensor or there are several, or its values cannot be drawn.
    """
    import torch

    found = tensors_in(output)
    puts, put, what = ("take in", "took in", "input") if taken_in else ("put out", "put out", "output")
    if len(found) != 1:
        kind = type(output).__name__
        named = ", ".join(repr(layer + path) for path in list(found)[:4])
        advice = f" Name one: {named}{', ...' if len(found) > 4 else ''}." if found else ""
        raise CaptureError(f"layer {layer!r} must {puts} one tensor, got {len(found)} ({what} of type {kind}).{advice}")
    (tensor,) = map(without_mask, found.values())
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise CaptureError(
            f"layer {layer!r} ran inside vmap, grad or jvp of torch.func, where its output has no values of its own. "
            f"Capture what the model makes of it afterwards."
        )
    if tensor.is_meta or is_fake(tensor):
        kind = "meta" if tensor.is_meta else "fake"
        raise CaptureError(f"layer {layer!r} {put} a {kind} tensor, which has no values. Load the model with weights.")
    if tensor.is_nested or not (tensor.layout is torch.strided or tensor.is_mkldnn):
        raise CaptureError(f"layer {layer!r} {put} a sparse or nested tensor; only dense ones have maps.")
    if tensor.is_complex():
        raise CaptureError(f"layer {layer!r} {put} complex numbers, which have no single value to draw.")
    if tensor.numel() == 0:
        raise CaptureError(f"layer {layer!r} {put} an empty tensor of shape {tuple(tensor.shape)}.")
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor.to_dense() if tensor.is_mkldnn else tensor


def replaced(output: Any, tensor: torch.Tensor, other: torch.Tensor, layer: str) -> Any:
    """Return an output in which a tensor is another one.

    Args:
        output: what a layer put out. Not modified.
        tensor: (any shape) real dtype. One of its tensors.
        other: (same shape) real dtype. Takes its place.
        layer: name of the layer, for messages.

    Returns:
        The output, of the same types.

    Raises:
        CaptureError: the output holds the tensor where it cannot be replaced, such as in an object of a class.
    """
    at = []

    def change(leaf: Any) -> Any:
        at.append(leaf is tensor)
        return other if leaf is tensor else leaf

    made = changed(output, change)
    if not any(at):
        kind = type(output).__name__
        raise CaptureError(
            f"layer {layer!r} puts out a {kind}, in which no tensor can be replaced. Name a layer before or behind it."
        )
    return made


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight of one of the classes that others derive from Tensor as one with all its values.

    Args:
        tensor: (any shape) real dtype. A DTensor, of which a process holds a part, is asked for in each process.

    Returns:
        The tensor itself, or (same shape) what it stands for: whole, dequantised, and NaN where it is masked.
    """
    import torch

    with torch.no_grad():
        if hasattr(tensor, "full_tensor"):
            tensor = tensor.full_tensor()
        if type(tensor).dequantize is not torch.Tensor.dequantize:  # torchao's classes
            tensor = tensor.dequantize()
        return without_mask(tensor)


def _parts(output: Any) -> dict[str, Any]:
    """Return the parts of a container by the text that names each; none for anything but a container."""
    if isinstance(output, Mapping):
        return {str(key): part for key, part in output.items()}
    if isinstance(output, (list, tuple)):
        return {str(index): part for index, part in enumerate(output)}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}


def _collect(output: Any, path: str, found: dict[str, torch.Tensor], above: tuple[int, ...]) -> None:
    """Add the tensors in an output to `found`; `above` holds the ids of the containers around it."""
    import torch

    if isinstance(output, torch.Tensor):
        found[path] = output
    elif id(output) not in above:  # a container may hold itself
        for name, part in _parts(output).items():
            _collect(part, f"{path}[{name}]", found, (*above, id(output)))
