"""Models of transformers (extra `hf`), from the hub or from local folders, with their image processors.

Code that comes with a model is never run: what needs it is refused.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, reason_of
from ..options.reading import PreprocessOptions
from ..runtime.extras import import_extra
from . import hf_packed
from .download import hub_or_cache, without_weights
from .hf_parts import class_of, frames_first, left_out, needs_beside, takes_clips, vision_part
from .hf_preprocess import HfPreprocess, preprocess_with
from .notes import note
from .preprocess import CLIP_FRAMES, Clip, Preprocess, imagenet_preset, with_options

if TYPE_CHECKING:
    from torch import nn

_SAFE = {"trust_remote_code": False}
"""For every call of transformers. Without it, transformers asks on standard input, where a list of images answers."""

_OWN_CODE = "trust_remote_code"  # in every error of transformers on code that it was not allowed to run
_FRAMES = ("num_frames", "frames_per_clip")
_OF_IMAGES = ("vision_config", "vlm_config", "backbone_config", "encoder")  # configurations inside others
_LISTED = 5  # modules without weights that a note lists
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def read_config(name: str, arguments: Mapping[str, Any]) -> Any:
    """Read the configuration of a model.

    Args:
        name: name of a repository on the hub, or a local folder.
        arguments: entries of the configuration to replace.

    Returns:
        The configuration, which `build` and `pretrained` take.

    Raises:
        ModelError: transformers is not installed, or there is no such model, or the hub cannot be reached, or the model
            needs code of its own.
    """
    transformers = import_extra("transformers", "hf")
    if os.path.isfile(name):
        raise ModelError(
            f"hf:{name} must be a folder with a config.json or a name on the hub, got a file. "
            f"Name its folder: hf:{os.path.dirname(name) or '.'}."
        )
    if not os.path.exists(name) and (os.path.isabs(name) or name.startswith(".") or name.count("/") > 1):
        raise ModelError(f"no folder {name!r}. A name on the hub is hf:OWNER/NAME.")
    if os.path.isdir(name) and not Path(name, "config.json").is_file():
        raise ModelError(f"folder {name!r} holds no config.json. Write it with model.save_pretrained({name!r}).")
    try:
        with _reached(name), _quietly():
            config = transformers.AutoConfig.from_pretrained(name, **_SAFE)
    except Exception as error:  # the hub's client raises anything
        _refuse_own_code(name, error)
        raise ModelError(
            f"hf model {name!r} cannot be read: {reason_of(error)}. "
            f"Check the name and the network; a local folder with a config.json works offline."
        ) from error
    unknown = [key for key in arguments if not hasattr(config, key)]
    if unknown:
        raise ModelError(f"arguments of hf:{name} must be entries of its {type(config).__name__}, got {unknown[0]!r}.")
    config.update(dict(arguments))
    return config


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
    kind = class_of(config)
    try:
        with _quietly():
            whole = _without_values(kind, config) if getattr(config, "sub_configs", None) else None
            module = _from_config(kind, config) if whole is None else whole
            path, part = vision_part(name, module)
            if whole is not None:
                part = _with_values(name, kind, config, part if path else None)
    except ModelError:
        raise
    except Exception as error:  # configurations are users' files
        raise ModelError(f"hf model {name!r} cannot be built: {reason_of(error)}.") from error
    _say_what_is_missing(name, config, module, path, [])
    return part


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
    kind = class_of(config)
    try:
        with _reached(name), _quietly():
            module, found = kind.from_pretrained(name, config=config, output_loading_info=True, **_SAFE)
    except Exception as error:  # the hub's client and damaged files raise anything
        raise ModelError(
            f"weights of hf:{name} cannot be loaded: {reason_of(error)}. {without_weights(has_file=False)}"
        ) from error
    path, part = vision_part(name, module)
    prefix = f"{path}." if path else ""
    lost = sorted(key.removeprefix(prefix) for key in found["missing_keys"] if key.startswith(prefix))
    _say_what_is_missing(name, config, module, path, lost)
    return part


def renamed(name: str, config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the weights of a file as transformers does while it loads one: the names in files are often older.

    Args:
        name: for messages.
        config: the configuration, from `read_config`.
        values: name -> tensor. Not modified.

    Returns:
        Name of the part that takes images -> tensor, and under their own names those that it does not have.

    Raises:
        ModelError: transformers cannot load them.
    """
    kind = class_of(config)
    try:
        with _quietly():
            like: Any = _without_values(kind, config) or _from_config(kind, config)  # the Auto classes take no values
            module, found = like.from_pretrained(
                None, config=config, state_dict=dict(values), output_loading_info=True, **_SAFE
            )
    except Exception as error:  # what is in a user's file may fail anywhere
        raise ModelError(f"hf model {name!r} does not take these weights: {reason_of(error)}.") from error
    path, part = vision_part(name, module)
    prefix = f"{path}." if path else ""
    lost = {key.removeprefix(prefix) for key in found["missing_keys"]}
    own = {key: tensor for key, tensor in part.state_dict().items() if key not in lost}
    return own | {key: values[key] for key in found["unexpected_keys"] if key in values}


def preprocess_of(name: str, config: Any, module: nn.Module) -> Preprocess:
    """Make the preprocessing of a model's image processor, or of its video processor.

    Args:
        name: name of a repository on the hub, or a local folder.
        config: the configuration, from `read_config`.
        module: the model, from `build` or `pretrained`. One that takes clips is made to take them as (N, C, T, H, W).

    Returns:
        Image -> (C, H, W) float32, or (C, T, H, W) for a model of clips or of pairs. Without a processor, ImageNet's at
        the size that the configuration states.
    """
    found = _processor(name)
    own = getattr(module, "config", config)
    preset: Preprocess = _preset_at(_stated_size(own)) if found is None else found
    if found is not None:
        _say_what_is_not_passed(name, found, module)
    if needs_beside(module) == hf_packed.BESIDE:
        module.register_forward_pre_hook(hf_packed.pack, with_kwargs=True)
        return preset
    frames = _frames(own, found, module, preset)
    if frames is None:
        return preset
    module.register_forward_pre_hook(frames_first)
    return Clip(preset, frames)


def _frames(config: Any, found: HfPreprocess | None, module: nn.Module, preset: Preprocess) -> int | None:
    """Return the number of frames, or of images of a pair, that a model takes; None for one of images."""
    if found is not None and found.beside == "pairs":
        return 2
    stated = next((getattr(config, key) for key in _FRAMES if getattr(config, key, None)), None)
    if found is not None and found.beside == "videos":
        return stated or getattr(found.processor, "num_frames", None) or CLIP_FRAMES
    return stated if stated and takes_clips(module, stated, preset) else None


def _from_config(kind: Any, config: Any) -> nn.Module:
    """Build a model of a class, or with one of the Auto classes."""
    auto = getattr(kind, "from_config", None)
    module: nn.Module = kind._from_config(config) if auto is None else auto(config, **_SAFE)
    return module


def _without_values(kind: Any, config: Any) -> nn.Module | None:
    """Build a model on the meta device; None where that fails."""
    import torch

    with contextlib.suppress(Exception), torch.device("meta"):
        return _from_config(kind, copy.deepcopy(config))
    return None


def _with_values(name: str, kind: Any, config: Any, part: Any) -> nn.Module:
    """Build a model that has no values yet once more: of a part only itself, since the rest may take many gigabytes."""
    if part is not None:
        with contextlib.suppress(Exception):  # it may be no model of its own
            alone: nn.Module = type(part)._from_config(part.config)
            return alone
    return vision_part(name, _from_config(kind, config))[1]


def _reached(name: str) -> AbstractContextManager[None]:
    """Return the context that a model is read in: of the hub, or of a local folder, for which no server is asked."""
    return contextlib.nullcontext() if os.path.isdir(name) else hub_or_cache()


def _processor(name: str) -> HfPreprocess | None:
    """Load the image processor of a model, else its video processor; None if there is none, or none that works."""
    transformers = import_extra("transformers", "hf")
    reasons = []
    for auto in (transformers.AutoImageProcessor, transformers.AutoVideoProcessor):
        try:
            with _reached(name), _quietly():
                processor = auto.from_pretrained(name, **_SAFE)
        except Exception as error:  # the hub's client and users' files raise anything
            reasons.append(error)
            continue
        return preprocess_with(processor, video=auto is transformers.AutoVideoProcessor)
    if os.path.isdir(name) and not any(Path(name, file).is_file() for file in _PROCESSORS):
        return None
    first = str(reasons[0])
    reason = "it needs code of its own, which is never run" if _OWN_CODE in first else reason_of(reasons[0])
    note(f"hf:{name}: its image processor cannot be used: {reason}. ImageNet's preprocessing is used instead.")
    return None


def _stated_size(config: Any) -> Any:
    """Return the size of images that a configuration states, itself or in the one of a backbone or a vision model."""
    if (size := getattr(config, "image_size", None)) is not None:
        return size
    for name in getattr(config, "sub_configs", {}):
        if name in _OF_IMAGES and (size := _stated_size(getattr(config, name, None))) is not None:
            return size
    return None


def _preset_at(size: Any) -> Preprocess:
    """Return ImageNet's preprocessing at the size that a configuration states."""
    if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if isinstance(size, list | tuple) and len(size) == 2:
        return with_options(imagenet_preset(), PreprocessOptions(size=tuple(size)))
    if not isinstance(size, int):
        return imagenet_preset()
    from torchvision.transforms._presets import ImageClassification

    preset: Preprocess = ImageClassification(crop_size=size, resize_size=size)
    return preset


def _say_what_is_missing(name: str, config: Any, module: nn.Module, path: str, random: list[str]) -> None:
    """Say which parts of a model are left out, what is random though weights were loaded, and what has to be given.

    Args:
        name: of the model.
        config: its configuration.
        module: all of it that was built.
        path: of the part that takes images; "" for all.
        random: names of parameters of the part without weights.
    """
    part = module.get_submodule(path)
    full = next(iter(getattr(config, "architectures", None) or ()), type(module).__name__)
    kind = getattr(import_extra("transformers", "hf"), full, None)
    whole = None if kind is None or full == type(module).__name__ else _without_values(kind, config)
    left = left_out(module, path, full, whole)
    said = [f"{type(part).__name__} is used, without {', '.join(left)}"] if left else []
    if random:
        owners = dict.fromkeys(key.rpartition(".")[0] or key for key in random)
        more = f" and {len(owners) - _LISTED} more" if len(owners) > _LISTED else ""
        said.append(f"there are no weights for {', '.join(list(owners)[:_LISTED])}{more}: random")
    needed = needs_beside(part)
    if needed and needed != hf_packed.BESIDE:
        said.append(f"it needs {', '.join(needed)} beside the image: give them as inputs")
    if said:
        note(f"hf:{name}: {'; '.join(said)}.")


def _say_what_is_not_passed(name: str, found: HfPreprocess, module: nn.Module) -> None:
    """Say that padding is taken for image, where a model could have been told what is padded."""
    taken = set(inspect.signature(module.forward).parameters) - set(needs_beside(module))
    masks = [mask for mask in found.masks() if mask in taken]
    if masks:
        note(f"hf:{name}: {', '.join(masks)} of its processor is not passed on, so what is padded counts as image.")


def _refuse_own_code(name: str, error: Exception) -> None:
    """Raise the error for a model that brings code of its own, if that is why it could not be read."""
    if _OWN_CODE in str(error):
        raise ModelError(
            f"hf model {name!r} needs code of its own, which is never run. "
            f"Build it in Python and pass the module, or name what builds it: package.module:factory."
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from printing reports and bars: what matters in them is said in one line."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
