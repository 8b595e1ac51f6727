"""Models of transformers (extra `hf`), from the hub or from local folders, with their image processors."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, reason_of
from ..runtime.extras import import_extra
from .download import hub_or_cache
from .preprocess import HfPreprocess, Preprocess, imagenet_preset

if TYPE_CHECKING:
    from torch import nn


def read_config(name: str, arguments: Mapping[str, Any]) -> Any:
    """Read the configuration of a model.

    Args:
        name: name of a repository on the hub, or a local folder.
        arguments: entries of the configuration to replace.

    Returns:
        The configuration, which `build` and `pretrained` take.

    Raises:
        ModelError: transformers is not installed, or there is no such model, or the hub cannot be reached.
    """
    transformers = import_extra("transformers", "hf")
    if os.path.isdir(name) and not Path(name, "config.json").is_file():
        raise ModelError(f"folder {name!r} holds no config.json. Write it with model.save_pretrained({name!r}).")
    try:
        with hub_or_cache():
            return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments)
    except Exception as error:  # the hub's client raises anything
        raise ModelError(
            f"hf model {name!r} cannot be read: {reason_of(error)}. "
            f"Check the name and the network; a local folder with a config.json works offline."
        ) from error


def build(name: str, config: Any) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: for messages.
        config: the configuration, from `read_config`.

    Returns:
        The module, or the part of it that takes images.

    Raises:
        ModelError: the configuration belongs to no model that takes images.
    """
    try:
        module = _class_for(config).from_config(config)
    except Exception as error:  # configurations are users' files
        raise ModelError(f"hf model {name!r} cannot be built: {reason_of(error)}.") from error
    return _seeing(name, module)


def pretrained(name: str, config: Any) -> nn.Module:
    """Build a model with its weights, downloaded where the hub's cache does not have them.

    Args:
        name: name of a repository on the hub, or a local folder.
        config: the configuration, from `read_config`.

    Returns:
        The module, or the part of it that takes images.

    Raises:
        ModelError: the weights cannot be downloaded or loaded, or the model takes no images.
    """
    try:
        with hub_or_cache():
            module = _class_for(config).from_pretrained(name, config=config)
    except Exception as error:  # the hub's client and damaged files raise anything
        raise ModelError(
            f"weights of hf:{name} cannot be loaded: {reason_of(error)}. Use --weights none for random weights."
        ) from error
    return _seeing(name, module)


def preprocess_of(name: str, config: Any) -> Preprocess:
    """Make the preprocessing of a model's image processor.

    Args:
        name: name of a repository on the hub, or a local folder.
        config: the configuration, from `read_config`.

    Returns:
        Image -> (3, H, W) float32. Without a processor, ImageNet's at the size that the configuration states.
    """
    transformers = import_extra("transformers", "hf")
    try:
        with hub_or_cache():
            processor = transformers.AutoImageProcessor.from_pretrained(name)
    except Exception:  # there is no processor, or none that works here
        size = getattr(config, "image_size", None)
        if not isinstance(size, int):
            return imagenet_preset()
        from torchvision.transforms._presets import ImageClassification

        preset: Preprocess = ImageClassification(crop_size=size, resize_size=size)
        return preset
    normalizes = getattr(processor, "do_normalize", False)
    mean = tuple(processor.image_mean) if normalizes else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if normalizes else (1.0, 1.0, 1.0)
    return HfPreprocess(processor, mean, std)


def _class_for(config: Any) -> Any:
    """Return AutoModel, or AutoBackbone if the model exists only as a backbone."""
    transformers = import_extra("transformers", "hf")
    whole = transformers.MODEL_MAPPING
    return transformers.AutoModel if type(config) in whole else transformers.AutoBackbone


def _seeing(name: str, module: nn.Module) -> nn.Module:
    """Return the part of a model that takes images as its first argument: all of it, or a vision model inside."""
    for part in (module, getattr(module, "vision_model", None)):
        if part is not None and next(iter(inspect.signature(part.forward).parameters), "") == "pixel_values":
            vision: nn.Module = part
            return vision
    raise ModelError(f"hf model {name!r} takes no images: {type(module).__name__} has no input pixel_values.")
