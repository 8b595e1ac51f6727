"""Kernels for the values of parameters, torch: the same results as `numba_values`, on any device."""

from __future__ import annotations

import torch


def survey(values: torch.Tensor) -> torch.Tensor:
    """Find what one pass over values shows. Same as `numba_values.survey`, in tensors.

    Sums are taken in another order.
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
    """Measure how values lie about their mean and in bins of a histogram. Same as `numba_values.spread`, in tensors.

    `edges` need only be ascending: they may repeat, and bins may have unequal width.
    """
    wide = values.double()
    bins = len(edges) - 1
    k = (torch.bucketize(wide, edges.to(wide.device), right=True) - 1).clamp(max=bins - 1)
    return float((wide - mean).square().sum()), torch.bincount(k, minlength=bins)
