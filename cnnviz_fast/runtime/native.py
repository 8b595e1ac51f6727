"""The native module: the PNG encoder and the kernels for the CPU, compiled at install."""

from __future__ import annotations

from functools import cache
from types import ModuleType


@cache
def native() -> tuple[ModuleType | None, str]:
    """Return the native module and "", or None and why it is missing."""
    try:
        from .. import _native
    except ImportError as error:
        return None, f"{error}. It is compiled at install where there is a C++ compiler."
    return _native, ""
