"""Which parameters and buffers a pass in eval mode may write: followers of trained ones, and buffers of no norm."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .own_objects import by_class

if TYPE_CHECKING:
    import torch
    from torch import nn


def followers_in(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return parameters that a pass may write: those that are not trained in a model that also has trained ones.

    Of layers that only apply their weights, as those of a frozen backbone, only parameters of a module that has a
    trained twin beside it: an encoder of which the other one is the moving average, which their parent writes.
    """
    from torch import nn

    parameters = list(parameters)
    frozen = {id(one) for one in parameters if not one.requires_grad}
    if not frozen or len(frozen) == len(parameters):
        return []
    modules = list(modules)
    following = _twins(modules[0], frozen)
    kinds = (nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase)
    followers = []
    for module in modules:
        # Subclasses may do more, such as merging an adapter into their weight.
        applies_only = isinstance(module, kinds) and is_of_torch(type(module))
        for one in module._parameters.values():
            if one is not None and id(one) in frozen and (id(one) in following or not applies_only):
                followers.append(one)
    return followers


def _twins(root: nn.Module, frozen: set[int]) -> set[int]:
    """Return the ids of frozen parameters in modules beside which a trained one has parameters of the same shapes.

    Not among the entries of a list of layers: blocks of one kind, of which the first ones are frozen, are no copies.
    """
    from torch import nn

    found: set[int] = set()

    def visit(module: nn.Module) -> list[nn.Parameter]:
        inside = [one for one in module._parameters.values() if one is not None]
        parts = [visit(child) for child in module._modules.values() if child is not None]
        if len(parts) > 1 and type(module) not in (nn.Sequential, nn.ModuleList):
            trained = {tuple(one.shape for one in part) for part in parts if any(id(one) not in frozen for one in part)}
            for part in parts:
                ids = list(map(id, part))
                if ids and frozen.issuperset(ids) and tuple(one.shape for one in part) in trained:
                    found.update(ids)
        return list(itertools.chain(inside, *parts))

    visit(root)
    return found


def split_buffers(
    modules: Iterable[nn.Module], followers: set[int], is_training: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the buffers whose values are saved, and those that are only checked.

    These are the statistics of torch's own norms in a model that is in eval mode throughout: they are two thirds of
    the tensors of a residual network, and nothing writes them then, unless the model follows another one.
    """
    from torch import nn

    saved: list[torch.Tensor] = []
    checked: list[torch.Tensor] = []
    for module in modules:
        if module._buffers and "_initialize_hook" not in vars(module):  # of lazy modules: they are initialised
            is_norm = isinstance(module, nn.modules.batchnorm._NormBase) and is_of_torch(type(module))
            follows = bool(followers) and any(id(one) in followers for one in module._parameters.values())
            kept = checked if is_norm and not (is_training or follows) else saved
            kept.extend(one for one in module._buffers.values() if one is not None)
    return saved, checked


@by_class
def is_of_torch(kind: type[nn.Module]) -> bool:
    """Check whether a class is one of torch's own layers, which keep nothing in plain attributes while they run.

    Wrappers for several processes set themselves up in the first pass: that must stay.
    """
    return kind.__module__.startswith(("torch.nn.modules.", "torch.nn.parallel.", "torch.distributed.fsdp.fully_"))
