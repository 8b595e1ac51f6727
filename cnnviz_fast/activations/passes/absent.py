"""Why a layer was not seen in a pass: the model ran a copy of it, a fused one perhaps, or it ran out of sight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .hidden import copy_of

if TYPE_CHECKING:
    from torch import nn

_FOLDED = "where a batch normalisation is part of the layer before it"


def why_absent(
    model: nn.Module, name: str, module: nn.Module, asked: str, copied: Mapping[nn.Module, nn.Module], elsewhere: bool
) -> str:
    """Return why a layer was not seen, and what to do.

    Args:
        model: that ran.
        name: of the layer in it.
        module: the layer.
        asked: as what it was asked for, such as `input:NAME`.
        copied: deep copies that the model has made while it ran -> what each is a copy of, which may be a copy too.
        elsewhere: whether the layer ran in another thread.

    Returns:
        One line.
    """
    if elsewhere:
        return (
            f"layer {asked!r} ran in another thread than the one that called the model, and only that one is looked "
            f"at. Have the model run its layers in one thread."
        )
    never = f"layer {asked!r} never ran in this pass"
    if found := copy_of(model, name, module):
        return f"{never}: the model keeps a copy of it. Capture {found[1]!r} from {found[0]}, with what goes into that."
    if _is_norm(module):
        above = name.rpartition(".")[0]
        if above and (found := copy_of(model, above, model.get_submodule(above))):
            return (
                f"{never}: the model keeps a fused copy of {above!r}, {_FOLDED}. Capture {found[1]!r} from {found[0]}, "
                f"with what goes into that."
            )
        if _is_folded(name, model.get_submodule(above), copied):
            return f"{never}: the model ran a fused copy, {_FOLDED}. Capture from the model that is not fused."
    if any(_differs(twin, module) for twin in _copies_of(module, copied)):
        return (
            f"{never}: the model ran a copy of it with other weights, as a fused one has. Make such a copy yourself, "
            f"and capture 'output' from it."
        )
    if module in copied.values():
        return f"{never}: the model ran a copy of it. Capture 'output' from the layer itself, with what goes into it."
    return f"{never}, or its forward() was called directly."


def _is_norm(module: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def _is_folded(name: str, above: nn.Module, copied: Mapping[nn.Module, nn.Module]) -> bool:
    """Check whether copies have other weights, and none of what holds a batch normalisation has kept it."""
    own = name.rpartition(".")[2]
    if any(own in dict(twin.named_children()) for twin in _copies_of(above, copied)):
        return False
    return any(_differs(twin, _original(twin, copied)) for twin in copied)


def _original(twin: nn.Module, copied: Mapping[nn.Module, nn.Module]) -> nn.Module:
    while twin in copied:
        twin = copied[twin]
    return twin


def _copies_of(module: nn.Module, copied: Mapping[nn.Module, nn.Module]) -> Iterator[nn.Module]:
    return (twin for twin in copied if _original(twin, copied) is module)


def _differs(twin: nn.Module, module: nn.Module) -> bool:
    """Check whether the weights that a module itself holds are others, or have other values."""
    import torch

    ours, theirs = (dict(each.named_parameters(recurse=False)) for each in (module, twin))
    if ours.keys() != theirs.keys():
        return True
    pairs = [(ours[name], theirs[name]) for name in ours]
    return any(a.shape != b.shape or (not a.is_meta and not torch.equal(a, b.to(a.device))) for a, b in pairs)
