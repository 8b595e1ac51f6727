"""The part of a model of transformers that takes images alone, and the classes that a configuration can be built as."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..runtime.extras import import_extra
from .layers import meta_copy

if TYPE_CHECKING:
    from torch import nn

    from .preprocess import Preprocess

_IMAGES = ("pixel_values", "pixel_values_videos", "pixel_values_images", "image", "images")
"""How the first argument of what takes images is called."""

_TEXT = ("input_ids", "decoder_input_ids", "qformer_input_ids")
"""Arguments of models that take text beside images, even where their signatures let it be left out."""

_TOWERS = re.compile(r"vis(ion|ual)|image_(model|encoder|tower)|encoder$|backbone$")
"""Names of vision models inside larger ones. What merely cuts an image into patches is called otherwise."""

_USUAL = re.compile(r"vision_(model|tower|encoder)|visual|image_(model|encoder|tower)|encoder")
"""Those of the main one, where there are several on one floor."""

_FRAME_PX = (224, 224)  # size of an image that becomes a frame


def class_of(config: Any) -> Any:
    """Choose the class that a model is built as.

    Args:
        config: its configuration.

    Returns:
        AutoModel or AutoBackbone where they know the configuration; else the class that it names itself, or one that is
        made for it and takes images.

    Raises:
        ModelError: transformers has none.
    """
    transformers = import_extra("transformers", "hf")
    if type(config) in transformers.MODEL_MAPPING:
        return transformers.AutoModel
    if type(config) in transformers.MODEL_FOR_BACKBONE_MAPPING:
        return transformers.AutoBackbone
    named = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or ()]
    for found in (*named, *sorted(_classes_for(config), key=_demands)):
        if hasattr(found, "from_pretrained"):
            return found
    name = type(config).__name__
    raise ModelError(
        f"transformers {transformers.__version__} has no model for a {name}. "
        f"Name the model's class in its config.json, under architectures."
    )


def _classes_for(config: Any) -> Iterator[Any]:
    """Return the classes for a configuration, from the module beside its own: there the largest is the last."""
    transformers = import_extra("transformers", "hf")
    try:
        module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    except Exception:  # it may need a package that is not installed
        return
    for found in reversed(list(vars(module).values())):
        if not inspect.isclass(found) or not issubclass(found, transformers.PreTrainedModel):
            continue
        if getattr(found, "config_class", None) is type(config) and found.__module__ == module.__name__:
            yield found


def _demands(kind: type) -> tuple[bool, int]:
    """Sort classes that take images alone before others."""
    lacks = _lacks(kind)
    return lacks is None, len(lacks or ())


def vision_part(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """Find the part of a model that takes images alone: all of it, or the vision model inside.

    Args:
        name: of the model, for messages.
        module: the model.

    Returns:
        The part's name in the model, "" for all of it, and the part. It may need more than an image where nothing
        inside does not: see `needs_beside`.

    Raises:
        ModelError: no part takes images.
    """
    takes_text = any(argument in _TEXT for argument in _arguments(type(module)))
    if not takes_text and _lacks(type(module)) == []:
        return "", module
    inside = sorted(module.named_modules(), key=_depth)
    for path, part in inside:
        if path and _TOWERS.search(path.rpartition(".")[2]) and _lacks(type(part)) == []:
            return path, part
    for path, part in inside:
        if _lacks(type(part)) is not None and (not path or _TOWERS.search(path.rpartition(".")[2])):
            return path, part
    kind = type(module).__name__
    if any(argument in _IMAGES for argument in _arguments(type(module))):
        first = next(iter(_arguments(type(module))))
        raise ModelError(
            f"hf model {name!r} takes no images alone: {kind} begins with {first}. "
            f"Build it in Python and pass the module, with a function that makes its inputs."
        )
    raise ModelError(f"hf model {name!r} takes no images: no part of {kind} has an input pixel_values.")


def _depth(entry: tuple[str, nn.Module]) -> tuple[int, bool]:
    path, _ = entry
    return path.count("."), not _USUAL.fullmatch(path.rpartition(".")[2])


def left_out(module: nn.Module, path: str, full: str, whole: nn.Module | None) -> list[str]:
    """List what a checkpoint has beside the part of it that is used.

    Args:
        module: what was built.
        path: of the part in it; "" for all of it.
        full: name of the class that the checkpoint is of.
        whole: a model of that class, without values; None where it is that of `module`, or cannot be built.

    Returns:
        Names of modules, and "the head of" a class that is made around that of `module`.
    """
    if whole is not None and getattr(whole, "base_model", whole) is whole:
        # It shares only the part with `module`: what else that holds is not in the checkpoint.
        kind = type(module.get_submodule(path))
        at = next((name for name, each in whole.named_modules() if name and type(each) is kind), None)
        if at is not None:
            return _beside(whole, at)
    return _beside(module, path) + ([f"the head of {full}"] if full != type(module).__name__ else [])


def _beside(module: nn.Module, path: str) -> list[str]:
    """List the modules that are neither a part of a module nor hold it."""
    parts = path.split(".") if path else []
    return [
        child
        for depth, own in enumerate(parts)
        for child, _ in module.get_submodule(".".join(parts[:depth])).named_children()
        if child != own
    ]


def needs_beside(part: nn.Module) -> list[str]:
    """Return what a part has to be given beside an image."""
    return _lacks(type(part)) or []


def takes_clips(part: nn.Module, frames: int, preset: Preprocess) -> bool:
    """Check whether a part takes a clip, (N, T, C, H, W), by a pass without values.

    Args:
        part: what takes images.
        frames: number of frames T.
        preset: makes a frame of an image.

    Returns:
        Whether the pass ran.
    """
    import torch
    from PIL import Image

    try:
        frame = preset(Image.new("RGB", _FRAME_PX))
        with torch.no_grad():
            meta_copy(part).eval()(torch.empty(1, frames, *frame.shape, device="meta"))
    except Exception:  # a foreign model may raise anything at what it does not take
        return False
    return True


def frames_first(part: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Turn (N, C, T, H, W), as this package and torch have clips, into (N, T, C, H, W), as transformers has them."""
    clips, *others = arguments or (None,)
    if getattr(clips, "ndim", 0) == 5 and clips.shape[1] <= 4:
        return (clips.transpose(1, 2), *others)
    return arguments


def _lacks(kind: type) -> list[str] | None:
    """Return the arguments of a class of modules that must be given beside images; None if it takes no images."""
    arguments = _arguments(kind)
    first = next(iter(arguments), "")
    if first not in _IMAGES and (first != "hidden_states" or getattr(kind, "main_input_name", None) not in _IMAGES):
        return None
    return [name for name, parameter in arguments.items() if name != first and _is_required(parameter)]


def _is_required(parameter: inspect.Parameter) -> bool:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and parameter.kind not in several


def _arguments(kind: Any) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(kind.forward).parameters
    return {name: parameter for name, parameter in parameters.items() if name != "self"}
