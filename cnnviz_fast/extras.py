"""Optional packages that models come from, and the server that keeps their weights: only where asked for by name."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

from .errors import ModelError
from .zoo import knock


def import_extra(name: str, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        name: of the package.
        extra: the extra of this project that installs it.

    Returns:
        The package.

    Raises:
        ModelError: it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        lacking = error.name == name if isinstance(error, ModuleNotFoundError) else False
        state = "is not installed" if lacking else f"cannot be imported: {error}"
        raise ModelError(
            f'{extra}: models need the package {name}, which {state}. Install it: pip install "cnnviz_fast[{extra}]".'
        ) from error


@contextlib.contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let the hub's client use its cache alone while its server cannot be reached.

    Left to itself it tries each file six times, 23 s in all (huggingface_hub 2.4), before it looks into the cache.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            try:
                knock(constants.ENDPOINT)
            except OSError:
                constants.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
