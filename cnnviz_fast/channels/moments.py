"""Counts, extremes and moments of channels: measure them, and join those of two sets of values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..kernels import backends
from .statistics import channel_statistics


@dataclass(frozen=True)
class Moments:
    """Counts, extremes and moments of `values` values in each channel; arrays have one entry for each channel.

    vmin: (C,) float32. Least finite value; NaN if there is none.
    vmax: (C,) float32. Greatest finite value; NaN if there is none.
    mean: (C,) float64. Mean of the finite values; NaN if there is none.
    squares: (C,) float64. Sum of their squared distances from the mean; 0 if there is none.
    zero: (C,) int64. Number of zeros.
    nan: (C,) int64. Number of NaN.
    inf: (C,) int64. Number of infinities of either sign.
    """

    values: int
    vmin: NDArray[np.float32]
    vmax: NDArray[np.float32]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    zero: NDArray[np.int64]
    nan: NDArray[np.int64]
    inf: NDArray[np.int64]

    @property
    def finite(self) -> NDArray[np.int64]:
        """Return the number of finite values, (C,) int64."""
        return self.values - self.nan - self.inf

    def joined(self, other: Moments) -> Moments:
        """Return the moments of both sets of values. The order of the two does not change a bit of the result.

        Args:
            other: moments of as many channels.

        Returns:
            The moments.

        Formula:
            mean = (n_a mean_a + n_b mean_b) / n; squares = squares_a + squares_b + (mean_b - mean_a)^2 n_a n_b / n

        Source:
            Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances, 1979.
        """
        n_a, n_b = self.finite.astype(np.float64), other.finite.astype(np.float64)
        n = np.maximum(n_a + n_b, 1)
        mean_a, mean_b = np.where(n_a, self.mean, 0), np.where(n_b, other.mean, 0)
        vmin, vmax = np.fmin(self.vmin, other.vmin), np.fmax(self.vmax, other.vmax)
        mean = np.where(n_a + n_b, mean_a * (n_a / n) + mean_b * (n_b / n), np.nan)
        squares = self.squares + other.squares + np.square(mean_b - mean_a) * (n_a * n_b / n)
        return Moments(
            values=self.values + other.values,
            vmin=vmin,
            vmax=vmax,
            # A weighted mean of equal values may differ from them in the last bit: a variance of 0 would not stay 0.
            mean=np.where(vmin == vmax, vmin, mean),
            squares=squares,
            zero=self.zero + other.zero,
            nan=self.nan + other.nan,
            inf=self.inf + other.inf,
        )


def no_moments(channels: int) -> Moments:
    """Return the moments of no values."""
    unknown, none = np.full(channels, np.nan), np.zeros(channels, np.int64)
    narrow = unknown.astype(np.float32)
    return Moments(0, narrow, narrow, unknown, np.zeros(channels), none, none, none)


def measure_moments(maps: torch.Tensor) -> Moments:
    """Measure maps, by the backend that "auto" chooses for the device where they lie.

    Args:
        maps: (C, H, W) float32, finite or not. Not modified.

    Returns:
        The moments. -0 is returned as 0: which of the two a minimum finds depends on the order.
    """
    found = channel_statistics(backends.choose("auto", str(maps.device)), maps)
    vmin, vmax, mean, std, zeros, nan, inf = (column.cpu().numpy() for column in vars(found).values())
    values = maps[0].numel()
    return Moments(
        values=values,
        vmin=vmin + np.float32(0),
        vmax=vmax + np.float32(0),
        mean=mean.astype(np.float64),
        squares=np.nan_to_num(np.square(std.astype(np.float64)) * (values - nan - inf), nan=0.0),
        zero=np.rint(zeros * values).astype(np.int64),
        nan=nan,
        inf=inf,
    )
