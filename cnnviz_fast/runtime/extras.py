"""Optional packages, imported only when something needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import CnnvizError, ModelError


def import_extra(name: str, extra: str, need: str | None = None, error: type[CnnvizError] = ModelError) -> ModuleType:
    """Import an optional package.

    Args:
        name: name of the package, or of a module in it.
        extra: the extra of this project that installs it.
        need: what needs it, in the plural, for the message; None for the models of the extra.
        error: class of the error to raise without it.

    Returns:
        The package or module.

    Raises:
        CnnvizError: of class `error`: the package is not installed. The message has the command that installs it.
    """
    package = name.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(name)
    except ImportError as failure:
        lacking = failure.name == package if isinstance(failure, ModuleNotFoundError) else False
        state = "is not installed" if lacking else f"cannot be imported: {failure}"
        raise error(
            f"{need or f'{extra}: models'} need the package {package}, which {state}. "
            f'Install it: pip install "cnnviz_fast[{extra}]".'
        ) from failure
