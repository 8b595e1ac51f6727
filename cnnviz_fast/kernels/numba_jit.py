"""Kernels, numba: the one set of flags that all of them are compiled with.

Serial and without the GIL: the engine's own workers run one strip each. No `fastmath`, which would change roundings and
fold `isnan` to False; sums may be taken in another order where that makes them vector code.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types


def compiled(signature: Any, reorder_sums: bool = False) -> Any:
    """Compile with the flags that all kernels share; the signature makes it one compile, done at import.

    The machine code is cached beside the kernel's file, or in the user's cache folder where that is not writable.

    Args:
        signature: types of the arguments and of the result, or a list of such.
        reorder_sums: let sums be taken in another order.

    Returns:
        The decorator.
    """
    flags: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc"} if reorder_sums else False}

    def compile_function(function: Any) -> Any:
        try:
            return njit(signature, cache=True, **flags)(function)
        except RuntimeError:  # numba finds no folder that it can write to: compile again in every process
            return njit(signature, **flags)(function)

    return compile_function


def read_only(dtype: Any, dimensions: int) -> Any:
    """Return the type of C-contiguous arrays that a kernel only reads."""
    return types.Array(dtype, dimensions, "C", readonly=True)
