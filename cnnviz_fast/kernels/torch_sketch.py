"""Kernels for distributions, torch: the same counts as `numba_sketch`, on any device."""

from __future__ import annotations

import torch


def count(values: torch.Tensor, pages: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Count each channel's values in the buckets of octaves with a page. Same as `numba_sketch.count`, in tensors."""
    bits = values.view(torch.int32)
    octave = ((bits >> 23) & 511).to(torch.int64)
    page = pages[octave]
    counted = (page >= 0) & ((bits & 0x7FFFFFFF) != 0)
    row = torch.arange(len(counts), device=counts.device)[:, None] * counts.shape[1]
    bucket = row + page.clamp(min=0) + ((bits >> 17) & 63)
    counts.view(-1).scatter_add_(0, bucket.flatten(), counted.flatten().to(torch.int64))
    return (torch.bincount(octave.flatten(), minlength=len(pages)) > 0) & (pages < 0)
