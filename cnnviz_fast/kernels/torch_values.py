"""Kernels for the values of parameters, torch: the same results as `numba_values`, for any edges, on any device."""

from __future__ import annotations

import torch


def survey(values: torch.Tensor) -> torch.Tensor:
    """Find what one look at values can tell. Same result as numba_values.survey, but for the order of summing.

    Args:
        values: (N,) float32 or float64, any device, finite or not. Not modified.

    Returns:
        (6,) float64 on the device of `values`: least and greatest finite value (inf and -inf where there is none), sum
        of the finite values, number of zeros, of NaN, and of infinities of either sign.
    """
    wide = values.double()
    finite = wide.isfinite()
    found = (
        wide.where(finite, torch.inf).amin(),
        wide.where(finite, -torch.inf).amax(),
        wide.where(finite, 0).sum(),
        (wide == 0).sum().double(),
        wide.isnan().sum().double(),
        wide.isinf().sum().double(),
    )
    return torch.stack(found)


def spread(values: torch.Tensor, mean: float, edges: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Find how values lie about their mean and in the bins of a histogram. Same result as numba_values.spread.

    Args:
        values: (N,) float32 or float64, any device, each finite and in [edges[0], edges[-1]]. Not modified.
        mean: of all values of the parameter.
        edges: (bins + 1,) float64, ascending; unlike numba's, they may repeat and be of unequal width.

    Returns:
        The sum of squared distances from the mean, and the counts, (bins,) int64. Bin k holds
        edges[k] <= value < edges[k + 1], the last one also its upper edge: numpy.histogram's rule.
    """
    wide = values.double()
    bins = len(edges) - 1
    k = (torch.bucketize(wide, edges.to(wide.device), right=True) - 1).clamp(max=bins - 1)
    return float((wide - mean).square().sum()), torch.bincount(k, minlength=bins)
