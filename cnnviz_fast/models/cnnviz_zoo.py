"""The package's own networks, `cnnviz:filters` and `cnnviz:small`, with trained weights that need no download."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, closest, reason_of
from .download import without_weights
from .specs import spec_with
from .torchvision_zoo import is_path

if TYPE_CHECKING:
    from torch import nn

NAMES = ("filters", "small")
TRAINED = "PHOTOS_V1"
"""Name of the trained weights of both; trained/README.md says on which photos."""

FOLDER = Path(__file__).parent / "trained"


def check_name(name: str) -> str:
    """Check a network's name.

    Args:
        name: one of NAMES, in letters of any case.

    Returns:
        The name, in small letters.

    Raises:
        ModelError: there is no such network. The message names those that there are.
    """
    if name.lower() in NAMES:
        return name.lower()
    specs = " and ".join(f"cnnviz:{known}" for known in NAMES)
    raise ModelError(f"no network {name!r} in cnnviz. There are {specs}.{closest(name.lower(), NAMES)}")


def choose_weights(name: str, weights: str | os.PathLike[str] | None) -> str:
    """Find the weights that a `weights` argument names.

    Args:
        name: from `check_name`.
        weights: as for `load_model`.

    Returns:
        TRAINED, "none", or the path of a checkpoint.

    Raises:
        ModelError: it is neither a name of weights nor a path, or the file of the trained weights is missing.
    """
    text = "DEFAULT" if weights is None else os.fspath(weights)
    if text.lower() == "none":
        return "none"
    if text in ("DEFAULT", TRAINED):
        if not trained_file(name).is_file():
            raise ModelError(
                f"the trained weights of cnnviz:{name} are missing: no file {str(trained_file(name))!r}. "
                f"Install the package again. {without_weights()}"
            )
        return TRAINED
    if is_path(weights):
        return text
    raise ModelError(
        f"no weights {text!r} for cnnviz:{name}. There are none, {TRAINED}, DEFAULT, and paths of checkpoints."
        f"{closest(text, (TRAINED, 'DEFAULT'))}"
    )


def trained_file(name: str) -> Path:
    """Return the path of the trained weights of a network, a file of safetensors."""
    return FOLDER / f"{name}.safetensors"


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: from `check_name`.
        arguments: none is taken.

    Returns:
        The module.

    Raises:
        ModelError: there are arguments.
    """
    from .small_networks import FilterBank, SmallNetwork

    network = {"filters": FilterBank, "small": SmallNetwork}[name]
    try:
        return network(**arguments)
    except TypeError as error:
        raise ModelError(
            f"{spec_with(f'cnnviz:{name}', arguments)} cannot be built: {reason_of(error, named=True)}."
        ) from error


def categories_of(name: str) -> tuple[str, ...] | None:
    """Return the names of the classes of a network with its trained weights; None for one without a head."""
    from .small_networks import CATEGORIES

    return CATEGORIES if name == "small" else None
