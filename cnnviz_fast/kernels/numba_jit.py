"""Kernels, numba: the one set of flags with which all of them are compiled.

They are serial and release the GIL: each worker runs one strip. There is no `fastmath`, which would change roundings
and replace `isnan` by False; only sums may be reordered, where that makes them vector code.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types

from ..runtime.home import has_folder


def compiled(signature: Any, reorder_sums: bool = False) -> Any:
    """Return a decorator that compiles with the flags of all kernels, once, at import, for one signature.

    The machine code is cached beside the kernel's file, or in the user's cache folder if that is not writable. Without
    a home folder it is cached only where NUMBA_CACHE_DIR says.

    Args:
        signature: types of the arguments and of the result, or a list of these.
        reorder_sums: allow sums in another order.

    Returns:
        The decorator.
    """
    flags: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc"} if reorder_sums else False}

    def compile_function(function: Any) -> Any:
        try:
            return njit(signature, cache=has_folder("NUMBA_CACHE_DIR"), **flags)(function)
        except RuntimeError:  # numba finds no writable folder: compile again in every process
            return njit(signature, **flags)(function)

    return compile_function


def read_only(dtype: Any, dimensions: int) -> Any:
    """Return the type of C-contiguous arrays that a kernel only reads."""
    return types.Array(dtype, dimensions, "C", readonly=True)
