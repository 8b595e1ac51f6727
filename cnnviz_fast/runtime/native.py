"""The native module: the PNG encoder and the kernels for the CPU, compiled at install."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType

from ..errors import OptionError

SIMD_VARIABLE = "CNNVIZ_NO_SIMD"
"""Of 1, the module uses no vector instructions; it reads the variable itself when it is loaded (csrc/bindings)."""


@cache
def native() -> tuple[ModuleType | None, str]:
    """Return the native module and "", or None and why it is missing.

    Raises:
        OptionError: `CNNVIZ_NO_SIMD` is neither 0 nor 1.
    """
    value = os.environ.get(SIMD_VARIABLE, "")
    if value not in ("", "0", "1"):
        raise OptionError(f"{SIMD_VARIABLE} must be 0 or 1, got {value!r}.")
    try:
        from .. import _native
    except ImportError as error:
        return None, f"{error}. It is compiled at install where there is a C++ compiler."
    return _native, ""
