"""Kernel for distributions, torch: the same counts as `numba_sketch`, on any device."""

from __future__ import annotations

import torch


def count(values: torch.Tensor, pages: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Count each channel's values in the buckets of those octaves that have a page. Same result as numba_sketch.count.

    Args:
        values: (C, n) float32, any device, finite or not. Not modified.
        pages: (512,) int64, on that device. Where in `counts` the 64 buckets of an octave begin; -1 for no page.
        counts: (C, 64 * number of pages) int64, contiguous, on that device. Added to.

    Returns:
        (512,) bool, on that device. Octaves without a page that values lie in; those were not counted.
    """
    bits = values.view(torch.int32)
    octave = ((bits >> 23) & 511).to(torch.int64)
    page = pages[octave]
    counted = (page >= 0) & ((bits & 0x7FFFFFFF) != 0)
    row = torch.arange(len(counts), device=counts.device)[:, None] * counts.shape[1]
    bucket = row + page.clamp(min=0) + ((bits >> 17) & 63)
    counts.view(-1).scatter_add_(0, bucket.flatten(), counted.flatten().to(torch.int64))
    return (torch.bincount(octave.flatten(), minlength=len(pages)) > 0) & (pages < 0)
