"""Weights as they are applied: what parametrizations, norms and pruning make of the parameters that are stored.

    parametrizations        torch.nn.utils.parametrize, and what is built on it: weight_norm, spectral_norm, orthogonal
    hooks of torch          the older weight_norm and spectral_norm, and all of torch.nn.utils.prune

They are computed in eval mode, so that no power iteration goes on, and the module is left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..activations.passes.snapshot import evaluating
from ..errors import ModelError, reason_of
from ..models.layers import every_module

if TYPE_CHECKING:
    import torch
    from torch import nn


def effective_weights(module: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Compute the weights of a module that are not stored as they are applied.

    Args:
        module: any; only what it holds itself counts, not the modules inside it.
        name: its name, for messages.

    Returns:
        Name of the attribute, such as "weight" -> the tensor that a pass in eval mode uses.

    Raises:
        ModelError: one of them cannot be computed.
    """
    import torch
    from torch.nn.utils import parametrize

    hooks = list(_computed_by_hooks(module))
    if not hooks and not parametrize.is_parametrized(module):
        return {}
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(every_module(module)):
        own = ""
        try:
            parametrized: Any = module.parametrizations if parametrize.is_parametrized(module) else ()
            for own in parametrized:
                found[own] = getattr(module, own).detach()
            for own, compute in hooks:
                found[own] = compute().detach()
        except Exception as error:  # code of the user's may make them
            label = f"{name}.{own}" if name else own
            raise ModelError(f"weight {label!r} cannot be computed: {reason_of(error, named=True)}.") from error
    return found


def _computed_by_hooks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the names of weights that a hook sets before each pass, and functions that compute them."""
    from functools import partial

    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook.name, partial(hook.compute_weight, module)
        elif isinstance(hook, SpectralNorm):
            yield hook.name, partial(hook.compute_weight, module, do_power_iteration=False)
        elif isinstance(hook, BasePruningMethod):
            yield hook._tensor_name, partial(hook.apply_mask, module)
