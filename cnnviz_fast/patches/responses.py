"""How strongly each channel answers to each image of a batch, and where on its map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..channels.values import check_values
from ..errors import DTypeError, ShapeError
from ..kernels.backends import BACKENDS
from ..runtime.native import native
from ..runtime.plain import dense
from .lists import LARGEST_SIDE, packed

PIECE = 1 << 20
"""Values that are copied at once, to look up where maps are greatest: 4 MB."""


@dataclass(frozen=True)
class Responses:
    """What a batch of maps shows, without its places; on the device of the maps.

    response: (N, C) float32. Maximum, mean or minimum of the finite values of each map; NaN if there is none.
    peak: (N, C) float32. The value whose place is that of the response: the response itself; by 'mean' the maximum.
    alive: (C,) bool. Whether any value is not 0.
    nonfinite: (C,) int64. Number of NaN and infinities.
    """

    response: torch.Tensor
    peak: torch.Tensor
    alive: torch.Tensor
    nonfinite: torch.Tensor


def checked(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """Check the maps of a batch.

    Args:
        maps: (N, C, H, W) real dtype, or (N, C) for vectors; any strides, any device. Not modified.
        channels: that they must have.

    Returns:
        (N, C, H, W) float32, float16 or bfloat16, detached. `maps` itself if nothing had to change.

    Raises:
        ShapeError: `maps` has another number of channels or of dimensions, no pixels, or a side of more than 32,767.
        DTypeError: `maps` is not a tensor, or complex, sparse, nested, quantised or on the meta device.
    """
    if not isinstance(maps, torch.Tensor):
        raise DTypeError(f"maps must be a tensor, got {type(maps).__name__}. Pass torch.as_tensor(maps).")
    dense(maps, opened=False)
    if maps.ndim not in (2, 4) or maps.shape[1] != channels:
        expected = f"(N, {channels}, H, W) or (N, {channels})"
        raise ShapeError(f"maps must have shape {expected}, got {tuple(maps.shape)}.")
    values = maps.detach().resolve_neg()
    values = values[:, :, None, None] if maps.ndim == 2 else values
    if not len(values):
        return values
    check_values(values)
    if max(values.shape[2:]) > LARGEST_SIDE:
        raise ShapeError(f"maps must have sides of at most {LARGEST_SIDE:,}, got {tuple(maps.shape)}.")
    return values if values.dtype in (torch.float16, torch.bfloat16) else values.to(torch.float32)


def measure(maps: torch.Tensor, by: str) -> Responses:
    """Measure a batch of maps.

    Args:
        maps: (N, C, H, W) float32, float16 or bfloat16, any strides, any device, finite or not; N at least 1. Not
            modified.
        by: 'max', 'mean' or 'min'.

    Returns:
        The responses.
    """
    module, _ = native() if maps.device.type == "cpu" else (None, "")
    low, high, nonfinite = _extremes(maps) if module is None else _native_extremes(module, maps)
    peak = low if by == "min" else high
    return Responses(
        response=_means(maps, nonfinite) if by == "mean" else peak,
        peak=peak,
        alive=((low != 0) | (high != 0) | (nonfinite > 0)).any(dim=0),
        nonfinite=nonfinite.sum(dim=0),
    )


def _extremes(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the least and the greatest finite value of each map, (N, C) float32, and how many are not finite."""
    low, high = maps.amin(dim=(2, 3)), maps.amax(dim=(2, 3))  # both are NaN where any value is
    if maps.device.type == "cpu" and bool((low.isfinite() & high.isfinite()).all()):
        return _as_float32(low), _as_float32(high), torch.zeros_like(low, dtype=torch.int64)
    finite = maps.isfinite()
    count = finite.sum(dim=(2, 3))
    low, high = maps.where(finite, torch.inf).amin(dim=(2, 3)), maps.where(finite, -torch.inf).amax(dim=(2, 3))
    low, high = (_as_float32(end).where(count > 0, torch.nan) for end in (low, high))
    return low, high, maps.shape[2] * maps.shape[3] - count


def _native_extremes(module: Any, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what `_extremes` returns, of maps on the host, in one pass."""
    low, high = np.empty(maps.shape[:2], np.float32), np.empty(maps.shape[:2], np.float32)
    nonfinite = np.empty(maps.shape[:2], np.int64)
    for some, images in batches_of_channels(maps):
        module.channel_range(some, *(found[images].reshape(-1) for found in (low, high, nonfinite)))
    return _as_float32(torch.from_numpy(low)), _as_float32(torch.from_numpy(high)), torch.from_numpy(nonfinite)


def batches_of_channels(maps: torch.Tensor) -> Iterator[tuple[Any, slice]]:
    """Cut maps on the host into what the native kernels take: many channels at once, without a copy.

    Args:
        maps: (N, C, H, W) float32, float16 or bfloat16, any strides. Not modified.

    Yields:
        (M, H, W) maps, all at once or those of one image, and the images that they are of.
    """
    to_array = BACKENDS["native"].to_array
    if len(maps) == 1 or maps.stride(0) == maps.shape[1] * maps.stride(1):
        yield to_array(maps.flatten(0, 1)), slice(0, len(maps))
    else:
        for n, each in enumerate(maps):
            yield to_array(each), slice(n, n + 1)


def _means(maps: torch.Tensor, nonfinite: torch.Tensor) -> torch.Tensor:
    """Return the mean of the finite values of each map, (N, C) float32.

    Summed in float64, where the device has it, means hardly depend on the order: rounded to float32 they are the same
    for any memory order and batch size.
    """
    if maps.device.type != "cpu" or bool(nonfinite.any()):
        maps = maps.where(maps.isfinite(), 0)
    wide = torch.float32 if maps.device.type == "mps" else torch.float64
    total = maps.sum(dim=(2, 3), dtype=wide)
    return _as_float32(total / (maps.shape[2] * maps.shape[3] - nonfinite))


def _as_float32(response: torch.Tensor) -> torch.Tensor:
    return response.to(torch.float32) + 0.0  # which turns -0 into 0


class MapPlaces:
    """Where the maps of a batch are strongest; see `entries.Places`."""

    def __init__(self, maps: torch.Tensor, by: str, responses: Responses) -> None:
        """Look up nothing yet.

        Args:
            maps: (N, C, H, W) float32, float16 or bfloat16; as for `measure`.
            by: 'max', 'mean' or 'min'. By 'mean' the place is that of the maximum.
            responses: what `measure` returned.
        """
        self._maps = maps
        self._sign = -1 if by == "min" else 1
        self._scores = self._sign * responses.response + 0.0
        self._peaks = responses.peak
        self._found: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def scores(self) -> torch.Tensor:
        """Return the responses, (N, C) float32, by which the stronger one is the greater; NaN for none."""
        return self._scores

    def at(self, n: torch.Tensor, c: torch.Tensor, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See Places."""
        if repeat == 1 and (module := native()[0]) is not None:
            place = torch.from_numpy(self._firsts(module, n.numpy(), c.numpy()))[:, None]
            return self._scores[n, c][:, None], self._packed(place)
        most = max(1, PIECE // (self._maps.shape[2] * self._maps.shape[3]))
        pieces = [
            self._strongest(self._maps[n[some], c[some]].flatten(1), (n[some], c[some]), repeat)
            for some in (slice(start, start + most) for start in range(0, len(n), most))
        ]
        scores, positions = (torch.cat(column) for column in zip(*pieces, strict=True))
        return scores, positions

    def everywhere(self, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See Places. What was found last is kept: the draws need one place where the strongest may need several."""
        if self._found is None or self._found[0].shape[-1] < repeat:
            self._found = self._strongest(self._maps.flatten(2), (), repeat)
        return self._found

    def _firsts(self, module: Any, n: NDArray[np.int64], c: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of the peak on some maps on the host, (M,) int64, y * W + x."""
        place = np.empty(len(n), np.int64)
        peaks = self._peaks.numpy()[n, c]
        for maps, images in batches_of_channels(self._maps):
            inside = np.flatnonzero((n >= images.start) & (n < images.stop))
            channel = (n[inside] - images.start) * self._maps.shape[1] + c[inside]
            found = np.empty(len(inside), np.int64)
            module.first_places(maps, channel, peaks[inside], found)
            place[inside] = found
        return place

    def _strongest(self, maps: torch.Tensor, which: tuple[Any, ...], repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and positions, (..., repeat), of some maps, (..., H * W); of equal values the first."""
        first = (maps == self._peaks[which][..., None]).to(torch.uint8).argmax(dim=-1, keepdim=True)
        scores, places = [self._scores[which][..., None]], [first]
        if repeat > 1:
            left = self._sign * maps.to(torch.float32) + 0.0
            left = left.where(left.isfinite(), -torch.inf)
        while len(places) < min(repeat, maps.shape[-1]):
            left.scatter_(-1, places[-1], -torch.inf)
            places.append(left.argmax(dim=-1, keepdim=True))
            scores.append(left.gather(-1, places[-1]))
        score, position = torch.cat(scores, dim=-1), self._packed(torch.cat(places, dim=-1))
        score = score.where(score.isfinite(), torch.nan)
        room = (0, repeat - len(places))  # of maps that have fewer places
        return nn.functional.pad(score, room, value=torch.nan), nn.functional.pad(position, room, value=-1)

    def _packed(self, place: torch.Tensor) -> torch.Tensor:
        width = self._maps.shape[3]
        return packed(place // width, place % width)
