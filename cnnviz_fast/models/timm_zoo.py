"""Models of timm (extra `timm`): their names, their weights, and the preprocessing of each model's data config."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, closest, reason_of
from ..runtime.extras import import_extra
from .download import hub_or_cache, without_weights
from .preprocess import TimmPreprocess
from .specs import spec_with

if TYPE_CHECKING:
    import torch
    from torch import nn


def check_name(name: str) -> str:
    """Check a model's name.

    Args:
        name: timm's, such as "resnet50" or "resnet50.a1_in1k".

    Returns:
        The name.

    Raises:
        ModelError: timm is not installed, or has no model or no weights of this name.
    """
    timm = import_extra("timm", "timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = closest(architecture, timm.list_models())
        raise ModelError(f"no model {name!r} in timm {timm.__version__}.{near}")
    tags = tags_of(architecture)
    if tag and tag not in tags:
        valid = f" There are {', '.join(tags)}." if tags else ""
        raise ModelError(f"no weights {tag!r} of {architecture} in timm {timm.__version__}.{valid}")
    return name


def tags_of(architecture: str) -> list[str]:
    """List the names of a model's pretrained weights.

    Args:
        architecture: timm's name of the model, without a tag.

    Returns:
        The tags; "" stands for weights without a name.
    """
    timm = import_extra("timm", "timm")
    known = timm.list_pretrained(f"{architecture}*")
    return [tag for model, _, tag in (entry.partition(".") for entry in known) if model == architecture]


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: the name, from `check_name`.
        arguments: for timm's create_model, such as num_classes and in_chans.

    Returns:
        The module, as timm makes it.

    Raises:
        ModelError: the model does not take the arguments.
    """
    timm = import_extra("timm", "timm")
    if not arguments:
        plain: nn.Module = timm.create_model(name, pretrained=False)
        return plain
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    except Exception as error:  # a model may do anything with them
        spec = spec_with(f"timm:{name}", arguments)
        raise ModelError(f"{spec} cannot be built: {reason_of(error, named=True)}.") from error
    return module


def pretrained(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a model with its pretrained weights, downloaded if the hub's cache does not have them.

    Args:
        name: the name, from `check_name`.
        arguments: as for `build`. timm fits the weights to other numbers of classes and of input channels.

    Returns:
        The module, as timm makes it.

    Raises:
        ModelError: the weights do not exist, or cannot be downloaded or loaded.
    """
    timm = import_extra("timm", "timm")
    try:
        with hub_or_cache():
            module: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # the hub's client and unpickling raise anything
        raise ModelError(f"weights of timm:{name} cannot be loaded: {reason_of(error)}. {without_weights()}") from error
    return module


def renamed(module: nn.Module, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a file as timm does while it loads one: the names of papers' own files are others.

    What timm would resample, split or put together to fit is left out: no value is made here.

    Args:
        module: a model of timm.
        values: name -> tensor. Not modified.

    Returns:
        Name of the module -> tensor, reshaped where timm does that.

    Raises:
        ModelError: timm cannot rename them.
    """
    rename = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return dict(values)
    whole = {(tensor.data_ptr(), tensor.numel()) for tensor in values.values()}
    try:
        found = rename(dict(values), module)
        return {name: tensor for name, tensor in found.items() if (tensor.data_ptr(), tensor.numel()) in whole}
    except Exception as error:  # what is in a user's file may fail anywhere
        raise ModelError(f"timm does not take these weights: {reason_of(error)}.") from error


def categories_of(module: nn.Module) -> tuple[str, ...] | None:
    """Return the names of the classes of a model that was trained on one of ImageNet's sets.

    Args:
        module: a model of timm, with pretrained weights.

    Returns:
        A name for each class; None if timm does not know them.
    """
    import_extra("timm", "timm")
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    if subset is None:
        return None
    known = ImageNetInfo(subset)
    return tuple(known.index_to_description(index) for index in range(known.num_classes()))


def preprocess_of(module: nn.Module) -> TimmPreprocess:
    """Make the preprocessing that a model's own data config asks for.

    Args:
        module: a model of timm.

    Returns:
        Image -> (3, H, W) float32.
    """
    import_extra("timm", "timm")
    from timm.data import resolve_model_data_config
    from torchvision.transforms import InterpolationMode

    config: dict[str, Any] = dict(resolve_model_data_config(module))
    mean, std = tuple(config.pop("mean")), tuple(config.pop("std"))
    return TimmPreprocess(config, mean, std, InterpolationMode(config.pop("interpolation")))
