"""Whether the native module is there, and what tests do where it is not."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

from cnnviz_fast.runtime.native import native

REQUIRED = os.environ.get("CNNVIZ_REQUIRE_NATIVE", "0") not in ("", "0")


def load_native() -> ModuleType:
    """Return the module; skip the file of tests that asks for it where it is not built, or fail if it must be."""
    if is_built():
        return importlib.import_module("cnnviz_fast._native")
    pytest.skip(f"the native module is not built: {native()[1]}", allow_module_level=True)


def is_built() -> bool:
    """Return whether the module is there; fail where it must be and is not."""
    module, reason = native()
    if module is None and REQUIRED:
        raise RuntimeError(f"the native module is required: {reason}")
    return module is not None


def cpu_modules(subject: str) -> list[ModuleType]:
    """Return the kernels for the CPU of a subject: numba's, and the native ones where they are built."""
    families = ["numba", "native"] if is_built() else ["numba"]
    return [importlib.import_module(f"cnnviz_fast.kernels.{family}_{subject}") for family in families]
