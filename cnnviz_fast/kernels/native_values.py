"""Kernels for the values of parameters, native: the same results as `numba_values`, with sums in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


def survey(values: NDArray[Any]) -> Doubles:
    """Find what one pass over values shows. Same as `numba_values.survey`."""
    return np.array(_native.survey(values))


def spread(values: NDArray[Any], mean: float, edges: Doubles) -> tuple[float, Counts]:
    """Measure how values lie about their mean and in bins of a histogram. Same as `numba_values.spread`."""
    counts = np.zeros(len(edges) - 1, np.int64)
    return _native.spread(values, mean, edges, counts), counts
