"""Arrays of numpy become float32."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_float32(array: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return an array as float32.

    Args:
        array: (...) real dtype, any strides and byte order. Not modified.

    Returns:
        (...) float32, contiguous, in new memory. NaN where the array is masked; what float32 cannot hold is infinite.
    """
    with np.errstate(over="ignore"):
        values = np.array(array, dtype=np.float32, order="C")
    if isinstance(array, np.ma.MaskedArray):
        values[np.ma.getmaskarray(array)] = np.nan
    return values
