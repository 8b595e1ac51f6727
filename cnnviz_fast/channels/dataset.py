"""Statistics over a data set: what each channel of a layer held, for any number of images, processes and machines.

    statistics = LayerStatistics(512)
    statistics.update(activations["layer4"])   # once for each batch
    statistics.merge(others)                    # the record of another process
    render(maps, statistics=statistics, normalize="dataset")

Counts are integers, and do not depend on the order of updates and merges; nor do the extremes and the quantiles. Mean
and variance are sums in float64: the order changes the mean by less than 1e-12 of the mean magnitude, and the standard
deviation by less than 1e-12 of the root mean square.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DTypeError, InputError, OptionError, ShapeError, closest
from ..options.drawing import RenderOptions
from ..options.parsers import LARGEST_CHANNEL, share, whole_within
from ..runtime.plain import dense
from .moments import Moments, measure_moments, no_moments
from .quantile_sketch import QuantileSketch
from .values import check_values, json_numbers

Ranges = tuple[NDArray[np.float32], NDArray[np.float32]]
"""vmin, vmax: (C,) float32. The range on which each channel of a layer is drawn; NaN without a finite value."""

PIECE = 1 << 20
"""Values measured at once on the CPU: 1 ms of work, against 0.1 ms to join the results."""

DEVICE_PIECE = 1 << 22
"""Values measured at once on other devices. The sketch takes 32 MB for them in each of its steps, as int64."""

_MOMENTS = ("vmin", "vmax", "mean", "squares", "zero", "nan", "inf")
_SKETCH = ("buckets", "bucket", "bucket_count")
_DTYPES = {"vmin": "float32", "vmax": "float32", "mean": "float64", "squares": "float64", "bucket": "uint16"}
"""Dtypes of the arrays that are not counts; counts are int64."""


class LayerStatistics:
    """What each channel of one layer held, over a data set. Only one thread at a time may update a record.

    Attributes:
        images: number of images seen.
    """

    def __init__(self, channels: int) -> None:
        """Start without images.

        Args:
            channels: number of channels of the layer.
        """
        channels = whole_within(0, LARGEST_CHANNEL + 1)("channels", channels)
        self.images = 0
        self._moments = no_moments(channels)
        self._sketch = QuantileSketch(channels)

    def __repr__(self) -> str:
        """Return what was seen, in one line."""
        seen = f"{self.images:,} images, {self.values:,} values a channel"
        if self.finite.any():
            seen += f", from {np.nanmin(self.vmin):.4g} to {np.nanmax(self.vmax):.4g}, {int(self.dead.sum()):,} dead"
        return f"LayerStatistics({self.channels:,} channels, {seen})"

    def blank(self) -> LayerStatistics:
        """Return statistics of the same layer without images. They are faster to fill and merge than a new record."""
        other = LayerStatistics(0)
        other._moments, other._sketch = no_moments(self.channels), self._sketch.blank()
        return other

    @property
    def channels(self) -> int:
        """Return the number of channels of the layer."""
        return len(self._moments.vmin)

    @property
    def values(self) -> int:
        """Return the number of values of each channel, finite or not."""
        return self._moments.values

    @property
    def finite(self) -> NDArray[np.int64]:
        """Return the number of finite values, (C,) int64."""
        return self._moments.finite

    @property
    def nan(self) -> NDArray[np.int64]:
        """Return the number of NaN, (C,) int64."""
        return self._moments.nan

    @property
    def inf(self) -> NDArray[np.int64]:
        """Return the number of infinities of either sign, (C,) int64."""
        return self._moments.inf

    @property
    def vmin(self) -> NDArray[np.float32]:
        """Return the least finite value, (C,) float32, NaN if there is none."""
        return self._moments.vmin

    @property
    def vmax(self) -> NDArray[np.float32]:
        """Return the greatest finite value, (C,) float32, NaN if there is none."""
        return self._moments.vmax

    @property
    def mean(self) -> NDArray[np.float64]:
        """Return the mean of the finite values, (C,) float64, NaN if there is none."""
        return self._moments.mean

    @property
    def variance(self) -> NDArray[np.float64]:
        """Return the variance of the finite values (divisor n), (C,) float64, NaN if there is none."""
        return np.where(self.finite, self._moments.squares / np.maximum(self.finite, 1), np.nan)

    @property
    def zeros(self) -> NDArray[np.float64]:
        """Return the share of all values that are 0, (C,) float64, NaN without any value."""
        return self._moments.zero / self.values if self.values else np.full(self.channels, np.nan)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Return which channels were zero in all images, (C,) bool."""
        return np.equal(self.zeros, 1)

    def update(self, maps: torch.Tensor, *, again: bool = False) -> None:
        """Add the maps of a batch of images. Their size may differ from batch to batch.

        Args:
            maps: (N, C, H, W) real dtype, any strides, any device, finite or not; measured as float32, as they are
                drawn. N may be 0. Not modified.
            again: whether the images are counted already, as for further time steps of clips.

        Raises:
            ShapeError: `maps` is not 4-dimensional, has no pixels, or another number of channels.
            DTypeError: `maps` is not a tensor, or complex, sparse, nested, quantised or on the meta device.
        """
        if not isinstance(maps, torch.Tensor):
            raise DTypeError(f"maps must be a tensor, got {type(maps).__name__}. Pass torch.as_tensor(maps).")
        dense(maps, opened=False)
        if maps.ndim != 4 or maps.shape[1] != self.channels:
            raise ShapeError(f"maps must have shape (N, {self.channels}, H, W), got {tuple(maps.shape)}.")
        if not len(maps):
            return
        check_values(maps)
        most = PIECE if maps.device.type == "cpu" else DEVICE_PIECE
        for piece in torch.split(maps.detach().resolve_neg(), max(1, most // maps[0].numel())):
            values = _by_channel(piece.to(torch.float32))
            self._moments = self._moments.joined(measure_moments(values[:, None]))
            self._sketch.update(values)
        self.images += 0 if again else len(maps)

    def merge(self, other: LayerStatistics) -> None:
        """Add the statistics of other images.

        Args:
            other: statistics of the same layer. Not modified.

        Raises:
            ShapeError: `other` has another number of channels.
            InputError: `other` is something else.
        """
        if not isinstance(other, LayerStatistics):
            raise InputError(f"other must be LayerStatistics, got {type(other).__name__}.")
        if other.channels != self.channels:
            raise ShapeError(f"other must have {self.channels} channels, got {other.channels}.")
        self._moments = self._moments.joined(other._moments)
        self._sketch.merge(other._sketch)
        self.images += other.images

    def quantile(self, q: float) -> NDArray[np.float32]:
        """Estimate a quantile of each channel's finite values, as numpy.quantile(method="lower") defines it.

        Args:
            q: 0 to 1.

        Returns:
            (C,) float32. At most 0.8 % of itself away from the exact quantile; exact if that is 0 or an extreme. NaN
            for a channel without a finite value.

        Raises:
            OptionError: `q` is not a number from 0 to 1.
        """
        last = np.maximum(self.finite - 1, 0)
        rank = np.floor(share("q", q) * last).astype(np.int64)
        found = np.clip(self._sketch.at_rank(rank, self._moments.zero), self.vmin, self.vmax)
        return np.where(rank == last, self.vmax, np.where(rank == 0, self.vmin, found))

    def drawing_range(self, percentile: tuple[float, float] | None = None) -> Ranges:
        """Return the range on which each channel is drawn with normalize "dataset".

        Args:
            percentile: LOW,HIGH of the option, 0 to 100; None for the extremes.

        Returns:
            The range: the extremes if both percentiles are equal.
        """
        if percentile is None:
            return self.vmin, self.vmax
        low, high = (self.quantile(end / 100) for end in percentile)
        level = low == high
        return np.where(level, self.vmin, low), np.where(level, self.vmax, high)

    def describe(self) -> dict[str, Any]:
        """Return a record for a manifest, in types that JSON has; None stands for values that are not finite."""
        quantiles = {f"p{percent}": self.quantile(percent / 100) for percent in (1, 50, 99)}
        columns = {
            "min": self.vmin, "max": self.vmax, "mean": self.mean, "variance": self.variance, **quantiles,
            "zeros": self.zeros, "nan": self.nan, "inf": self.inf, "dead": self.dead,
        }  # fmt: skip
        rows = zip(*(json_numbers(torch.from_numpy(column)) for column in columns.values()), strict=True)
        return {
            "images": self.images,
            "values": self.values,
            "channels": [{"channel": c, **dict(zip(columns, row, strict=True))} for c, row in enumerate(rows)],
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, to store or to send. The same values give the same integers."""
        moments = {name: getattr(self._moments, name) for name in _MOMENTS}
        return {"seen": np.array([self.images, self.values]), **moments, **self._sketch.to_arrays()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what `to_arrays` returns: on the host, without empty buckets."""
        return LayerStatistics.from_arrays, (self.to_arrays(),)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LayerStatistics:
        """Rebuild statistics from what `to_arrays` returned.

        Args:
            arrays: name -> array.

        Returns:
            The statistics.

        Raises:
            InputError: `to_arrays` cannot have returned these arrays.
        """
        for name in ("seen", *_MOMENTS, *_SKETCH):
            wanted = np.dtype(_DTYPES.get(name, "int64"))
            array = arrays.get(name) if isinstance(arrays, Mapping) else None
            if not isinstance(array, np.ndarray) or array.dtype != wanted or array.ndim != 1:
                raise InputError(f"arrays must hold {name!r} of one dimension and {wanted}, as to_arrays returns it.")
        if len({len(arrays[name]) for name in (*_MOMENTS, "buckets")}) > 1 or len(arrays["seen"]) != 2:
            raise InputError("arrays must be those that to_arrays returned, got arrays of other lengths.")
        statistics = cls(len(arrays["vmin"]))
        statistics.images = int(arrays["seen"][0])
        statistics._moments = Moments(int(arrays["seen"][1]), *(arrays[name] for name in _MOMENTS))
        statistics._sketch = QuantileSketch.from_arrays(*(arrays[name] for name in _SKETCH))
        if not np.array_equal(statistics._sketch.totals(), statistics.finite - arrays["zero"]):
            raise InputError("arrays must be those that to_arrays returned, got counts that do not add up.")
        return statistics


def merge_layers(into: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Add the records of other images, layer by layer: statistics, or others that have a method `merge`.

    Args:
        into: layer -> record. Changed in place; a layer that it lacks is taken from `others`.
        others: layer -> record. Not to be used afterwards.
    """
    for layer, record in others.items():
        if layer in into:
            into[layer].merge(record)
        else:
            into[layer] = record


def _by_channel(maps: torch.Tensor) -> torch.Tensor:
    """Return the values of (N, C, H, W) float32 as (C, n), contiguous: a copy, except for a single image."""
    if maps.device.type != "cpu":
        return maps.transpose(0, 1).flatten(1).contiguous()
    # numpy copies on this thread. torch would use its own threads, and wait for them while other work holds the cores:
    # 6.8 ms measured for 8 x 512 x 7 x 7 between two convolutions, where numpy takes 0.2 ms.
    return torch.from_numpy(np.ascontiguousarray(maps.numpy().swapaxes(0, 1)).reshape(maps.shape[1], -1))


def ranges_of(statistics: LayerStatistics | None, options: RenderOptions) -> Ranges | None:
    """Return the ranges that `plan_sheet` takes.

    Args:
        statistics: statistics of the layer, or None.
        options: `percentile`.

    Returns:
        The ranges; None without statistics.

    Raises:
        InputError: `statistics` is neither.
    """
    if statistics is None:
        return None
    if not isinstance(statistics, LayerStatistics):
        raise InputError(
            f"statistics must be LayerStatistics, got {type(statistics).__name__}. From a file: "
            f"read_statistics(path)[layer]."
        )
    return statistics.drawing_range(options.percentile)


def ranges_of_layer(layer: str | None, ranges: Mapping[str, Ranges] | None) -> Ranges | None:
    """Return the ranges of a layer; for a clip they are the same for every time step.

    Args:
        layer: name of the layer.
        ranges: layer name -> ranges, or None.

    Returns:
        The ranges; None if `ranges` is None.

    Raises:
        OptionError: `ranges` has no entry for this layer.
    """
    if ranges is None:
        return None
    if layer is None or layer not in ranges:
        raise OptionError(f"statistics have no layer {layer!r}.{closest(str(layer), ranges)}")
    return ranges[layer]
