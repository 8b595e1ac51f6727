"""How the values of each channel are distributed over a data set, in little memory.

Values are counted in fixed buckets: the sign, the exponent and the top 6 bits of the mantissa of a float32 name the
bucket. All values of one sign and exponent form an octave of 64 buckets, which is kept once any channel has a value in
it. Counts are integers and the buckets never change, so the order of updates and merges does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..kernels import backends
from ..runtime.device import device_at

ACCURACY = 2.0**-7
"""A quantile is at most this share of itself, 0.8 %, away from the exact one: a bucket is no wider than 2^-6 of its
lower end, and is represented by its middle. A subnormal quantile is at most 2^-133 away."""

OCTAVES = 512
"""Number of octaves: the octave of a value is the top 9 bits of its float32, sign and exponent."""

BUCKETS = 64
"""Buckets of an octave: the next 6 bits."""

REST = 17
"""Bits of a float32 below its bucket."""

MOST_COUNTS = 2**30
"""Counts that arrays may ask for, 8 GB: 100,000 channels take a fifth. A small file can claim a million channels."""

NOT_FINITE = [255, 511]
"""The octaves of infinities and NaN, which are never kept."""


class QuantileSketch:
    """Counts of the values that are finite and not 0, for each channel of a layer.

    An octave in use takes 512 bytes for each channel. Twice as many images add about one octave of smaller values for
    each sign. Measured with 400 images and a ResNet-18: 14 to 16 KB a channel after a ReLU, 26 to 32 KB where values
    have both signs.

    Formula:
        Quantile q of n values is the one of rank floor(q (n - 1)) in ascending order. The counts show in which bucket
        it lies, since buckets have the order of values.

    Source:
        Masson, Rim, Lee: DDSketch, VLDB 2019. Its guarantee, proposition 3, needs no more than buckets of bounded
        relative width; these grow by octaves, not geometrically, so that no logarithm is taken.
    """

    def __init__(self, channels: int) -> None:
        """Start without values.

        Args:
            channels: number of channels of the layer.
        """
        self._pages = np.full(OCTAVES, -1, np.int64)
        self._pages[0] = 0  # of zeros, which most layers have: the kernels need a page to which they add 0
        self._counts = torch.zeros(channels, BUCKETS, dtype=torch.int64)

    def update(self, values: torch.Tensor) -> None:
        """Add values. The counts move to the device of the values.

        Args:
            values: (C, n) float32, contiguous, finite or not. Not modified.
        """
        self._counts = self._counts.to(values.device)
        missing = self._count(values, self._pages)
        missing[NOT_FINITE] = False
        if missing.any():
            self._count(values, self._keep(missing))

    def blank(self) -> QuantileSketch:
        """Return a sketch without values, on the same device, with pages for the same octaves."""
        other = QuantileSketch(0)
        other._pages, other._counts = self._pages, torch.zeros_like(self._counts)
        return other

    def merge(self, other: QuantileSketch) -> None:
        """Add what another sketch of as many channels has counted.

        Args:
            other: the sketch. Not modified.
        """
        octaves = other._pages >= 0
        self._keep(octaves)
        here: Any = self._counts
        there: Any = other._counts.to(here.device)
        device_at(here.device).uses(here, there)  # `there` may have been made on another stream
        if here.device.type == "cpu":  # numpy adds on this thread: torch uses others for each page, 140 ms for 25
            here, there = here.numpy(), there.numpy()
        if np.array_equal(self._pages, other._pages):
            here += there
            return
        for at, its in zip(self._pages[octaves].tolist(), other._pages[octaves].tolist(), strict=True):
            here[:, at : at + BUCKETS] += there[:, its : its + BUCKETS]

    def totals(self) -> NDArray[np.int64]:
        """Return the number of values of each channel in all buckets, (C,) int64."""
        total: NDArray[np.int64] = self._counts.sum(dim=1).cpu().numpy()
        return total

    def at_rank(self, rank: NDArray[np.int64], zeros: NDArray[np.int64]) -> NDArray[np.float32]:
        """Find the value of a rank in each channel.

        Args:
            rank: (C,) int64. From 0, less than the number of values and zeros of the channel; beyond that the result
                means nothing.
            zeros: (C,) int64. Number of zeros of each channel, which are not counted here.

        Returns:
            (C,) float32. The middle of the bucket, or 0.
        """
        columns, bucket = self._ascending()
        counts = self._counts.cpu().numpy()[:, columns]
        middle = ((bucket.astype(np.uint32) << REST) + (1 << (REST - 1))).view(np.float32)
        negative = int((middle < 0).sum())
        counts = np.insert(counts, negative, zeros, axis=1)
        middle = np.insert(middle, negative, 0)
        place = (np.cumsum(counts, axis=1) <= rank[:, None]).sum(axis=1)
        found: NDArray[np.float32] = middle[np.minimum(place, len(middle) - 1)]
        return found

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts that are not 0. The same values give the same arrays.

        Returns:
            buckets: (C,) int64. Number of buckets with values, for each channel.
            bucket: (K,) uint16. These buckets, channel by channel in ascending order of values: the top bits of the
                float32.
            bucket_count: (K,) int64. Number of values in each of them.
        """
        columns, bucket = self._ascending()
        buckets, place, count = self._nonzero(columns)
        return {"buckets": buckets, "bucket": bucket.astype(np.uint16)[place], "bucket_count": count}

    @classmethod
    def from_arrays(
        cls, buckets: NDArray[np.int64], bucket: NDArray[np.uint16], bucket_count: NDArray[np.int64]
    ) -> QuantileSketch:
        """Rebuild a sketch from what `to_arrays` returned.

        Args:
            buckets: (C,) int64. As `to_arrays` returned it.
            bucket: (K,) uint16. As `to_arrays` returned it.
            bucket_count: (K,) int64. As `to_arrays` returned it.

        Returns:
            The sketch.

        Raises:
            InputError: `to_arrays` cannot have returned these arrays.
        """
        octave = (bucket // BUCKETS).astype(np.int64)
        fits = (buckets >= 0).all() and (buckets <= len(bucket)).all()  # so that their sum cannot overflow
        sound = fits and len(bucket) == len(bucket_count) == buckets.sum() and (bucket_count > 0).all()
        if not sound or (octave >= OCTAVES).any() or np.isin(octave, NOT_FINITE).any():
            raise InputError("buckets must be those that to_arrays returned, got others.")
        if (counts := len(buckets) * len(np.unique(octave)) * BUCKETS) > MOST_COUNTS:
            raise InputError(f"buckets must take at most {MOST_COUNTS:,} counts, got {counts:,}.")
        sketch = cls(len(buckets))
        used = np.zeros(OCTAVES, np.bool_)
        used[octave] = True
        sketch._keep(used)
        row = np.repeat(np.arange(len(buckets)), buckets)
        sketch._counts.numpy()[row, sketch._pages[octave] + bucket % BUCKETS] = bucket_count
        return sketch

    def _count(self, values: torch.Tensor, pages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Count with the kernel for the device of `values`; return which octaves had no page."""
        if values.device.type == "cpu" and (kernels := backends.cpu_kernels("sketch")):
            octaves: NDArray[np.bool_] = kernels.count(values.numpy(), pages, self._counts.numpy())
            return octaves
        from ..kernels import torch_sketch

        missing: NDArray[np.bool_] = (
            torch_sketch.count(values, torch.from_numpy(pages).to(values.device), self._counts).cpu().numpy()
        )
        return missing

    def _keep(self, octaves: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Add pages for the octaves, (512,) bool, that have none; return the table of the new pages alone."""
        new = np.flatnonzero(octaves & (self._pages < 0))
        added = np.full(OCTAVES, -1, np.int64)
        added[new] = self._counts.shape[1] + BUCKETS * np.arange(len(new))
        self._pages = np.where(added >= 0, added, self._pages)
        if len(new):
            more = self._counts.new_zeros(len(self._counts), BUCKETS * len(new))
            self._counts = torch.cat([self._counts, more], dim=1)
        return added

    def _nonzero(self, columns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Gather the counts in some columns that are not 0; see numba_sketch.nonzero."""
        counts = self._counts.cpu().numpy()
        if kernels := backends.cpu_kernels("sketch"):
            gathered: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] = kernels.nonzero(counts, columns)
            return gathered
        counts = counts[:, columns]
        row, place = np.nonzero(counts)
        return np.bincount(row, minlength=len(counts)), place, counts[row, place]

    def _ascending(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return columns and numbers, (K,) int64 each, of all buckets kept, in ascending order of values."""
        octaves = np.flatnonzero(self._pages >= 0)
        column, bucket = (
            (first[:, None] + np.arange(BUCKETS)).ravel() for first in (self._pages[octaves], octaves * BUCKETS)
        )
        below_zero = bucket >= OCTAVES * BUCKETS // 2  # with the sign bit set, a larger number is a lower value
        order = np.argsort(np.where(below_zero, -1 - bucket, bucket))
        return column[order], bucket[order]
