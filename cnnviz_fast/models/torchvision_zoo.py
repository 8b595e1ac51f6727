"""Models of torchvision: their names, their weights, the download, and how each is built."""

from __future__ import annotations

import http.client
import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from ..errors import ModelError, closest, reason_of
from .download import kept_under, knock, without_weights
from .specs import spec_with, where_else

if TYPE_CHECKING:
    from torch import nn


CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".h5", ".hdf5", ".keras", ".npz")


def known_models() -> list[str]:
    """List torchvision's models, without the 8-bit integer ones, whose maps are not floats."""
    import torchvision

    return [name for name in torchvision.models.list_models() if not name.startswith("quantized_")]


def check_name(name: str) -> str:
    """Check a model's name.

    Args:
        name: torchvision's, in letters of any case.

    Returns:
        The name, in small letters.

    Raises:
        ModelError: torchvision has no model of this name. The message says where else there is one.
    """
    import torchvision

    names = known_models()
    if name.lower() in names:
        return name.lower()
    advice = where_else(name) or closest(name.lower(), names)
    raise ModelError(f"no model {name!r} in torchvision {torchvision.__version__}.{advice}")


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a model.

    Args:
        name: torchvision's name of the model.
        arguments: for its builder.

    Returns:
        The module.

    Raises:
        ModelError: the builder does not take the arguments.
    """
    import torchvision

    try:
        module: nn.Module = torchvision.models.get_model(name, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:  # of torchvision's own arguments, none is refused
        raise ModelError(f"torchvision:{name} cannot be built: {reason_of(error, named=True)}.") from error
    return module


def weights_of(name: str) -> dict[str, Any]:
    """List the pretrained weights of a model.

    Args:
        name: torchvision's, in small letters.

    Returns:
        Name -> member of its enum, DEFAULT included; empty if there are none.

    Raises:
        ModelError: torchvision has no model of this name.
    """
    import torchvision

    check_name(name)
    try:
        return dict(torchvision.models.get_model_weights(name).__members__)
    except (ValueError, AttributeError):  # registered by the user without an enum of weights; before 0.22 the latter
        return {}


def choose_weights(name: str, weights: str | os.PathLike[str] | None) -> Any:
    """Find the weights that a `weights` argument names.

    Args:
        name: torchvision's name of the model.
        weights: as for `load_model`.

    Returns:
        A member of the model's enum, the path of a checkpoint as text, or None for random weights.

    Raises:
        ModelError: it is neither a name of weights nor a path.
    """
    members = weights_of(name)
    text = "DEFAULT" if weights is None else os.fspath(weights) if isinstance(weights, os.PathLike) else str(weights)
    if text.lower() == "none":
        return None
    enum_names = {type(member).__name__ for member in members.values()}
    owner, dot, key = text.rpartition(".")
    key = key if dot and owner in enum_names else text
    if key in members:
        return members[key]
    if is_path(weights):
        return text
    valid = ", ".join(["none", *members])
    raise ModelError(
        f"no weights {text!r} for {name}. There are {valid}, and paths of checkpoints.{closest(text, members)}"
    )


def is_path(weights: str | os.PathLike[str] | None) -> bool:
    """Check whether `weights` is the path of a checkpoint, which need not exist, and not a name of weights."""
    if weights is None or isinstance(weights, os.PathLike):
        return weights is not None
    text = str(weights)
    return os.path.exists(text) or bool(re.search(r"[/\\]", text)) or text.lower().endswith(CHECKPOINT_SUFFIXES)


def pretrained(name: str, member: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a model with pretrained weights, downloaded if torch's cache does not have them.

    Args:
        name: torchvision's name of the model.
        member: the member of its enum of weights.
        arguments: for its builder, which refuses those that do not fit the weights.

    Returns:
        The module, as torchvision's builder makes it.

    Raises:
        ModelError: the weights cannot be downloaded, or their file in the cache is damaged.
    """
    import torchvision

    path = _downloaded(name, member)
    try:
        module: nn.Module = torchvision.models.get_model(name, weights=member, **arguments)
    except Exception as error:  # unpickling a damaged file raises anything
        if arguments:
            spec = spec_with(f"torchvision:{name}", arguments)
            raise ModelError(
                f"{spec} cannot be built with weights {member.name}: {reason_of(error, named=True)}. "
                f"{without_weights(has_file=False)}"
            ) from error
        raise ModelError(
            f"weights {member.name} of {name} cannot be loaded from {str(path)!r}: {reason_of(error)}. "
            f"If the file is damaged, delete it; it is then downloaded again."
        ) from error
    return module


def _downloaded(name: str, member: Any) -> Path:
    """Download the file to where torchvision's builder looks for it.

    The builder would download it too, but without a timeout, and it prints to stdout, which is kept for results.
    """
    import torch

    url = member.url
    file_name = os.path.basename(urlparse(url).path)
    path = Path(torch.hub.get_dir(), "checkpoints", file_name)
    if path.exists():
        return path
    digest = re.search(r"-([0-9a-f]+)\.", file_name)  # torch.hub's rule: NAME-<first digits of its SHA-256>.pth
    try:
        with kept_under("TORCH_HOME"):
            path.parent.mkdir(parents=True, exist_ok=True)
            knock(url)
            progress = sys.stderr is not None and sys.stderr.isatty()
            torch.hub.download_url_to_file(url, str(path), digest[1] if digest else None, progress=progress)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        raise ModelError(
            f"weights {member.name} of {name} cannot be downloaded from {url}: {reason_of(error)}. {without_weights()}"
        ) from error
    return path


def build_arguments(name: str, state: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments with which a builder makes the model of its DEFAULT weights, but without weights.

    Args:
        name: torchvision's name of the model.
        state: the checkpoint that will be loaded, or None for random weights.

    Returns:
        Keyword arguments for `torchvision.models.get_model`.
    """
    import torchvision

    parameters = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in parameters:
        arguments["weights_backbone"] = None  # otherwise it would be downloaded
    if name.startswith("vit_") and state is None:
        # The preprocessing of the DEFAULT weights makes images of this size, which for vit_h_14 is not the default.
        arguments["image_size"] = weights_of(name)["DEFAULT"].meta["min_size"][0]
    if "aux_loss" in parameters:
        arguments["aux_loss"] = state is None or any("aux_classifier." in key for key in state)
    if name in ("googlenet", "inception_v3"):
        # Their weights were trained with another normalisation, to which the model converts ImageNet's.
        arguments["transform_input"] = True
        arguments["aux_logits"] = name == "inception_v3" and (
            state is None or any("AuxLogits." in key for key in state)
        )
        arguments["init_weights"] = state is None  # without it torchvision 0.29 warns
    return arguments


def adapt_state(name: str, state: dict[str, Any]) -> None:
    """Change a state dict, in place, as torchvision's builders change the weights that they download.

    Args:
        name: torchvision's name of the model.
        state: name -> tensor.
    """
    for key in list(state):
        if name.startswith("densenet"):  # norm.1 in the files is the module norm1
            state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)] = state.pop(key)
        elif name == "googlenet" and re.search(r"\baux[12]\.", key):  # heads that are used only in training
            del state[key]
