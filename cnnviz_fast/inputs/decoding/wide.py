"""Values of more than 8 bits become 8, or floats: scaled by their peak, from 0 to 1, or by a range that is given."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ImageError
from ...runtime.caller import warn_caller

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

    from ...models.float_images import FloatImage

Range = tuple[float, float]

BAND_VALUES = 1 << 18
"""Values that are converted at once: 2 MiB as float64, so that what is made of them stays in the caches."""

_NEAR_BLACK = 16
"""Levels of 256: 12 bits in 16 come out below. Nothing is seen in an image that is darker throughout."""

_UNSIGNED = "I;32N"
"""Pillow's name of 32 bits of a TIFF, which its mode I holds as signed."""


@dataclass
class Extremes:
    """The smallest and the largest value of what was added; NaN if any value is, or if all are.

    Attributes:
        without_nan: whether NaN is passed over.
    """

    without_nan: bool = False
    _low: float = math.inf
    _high: float = -math.inf

    @property
    def ends(self) -> Range:
        """Smallest and largest value."""
        return (self._low, self._high) if self._low <= self._high else (math.nan, math.nan)

    def add(self, rows: NDArray[Any], has_alpha: bool) -> Range:
        """Add rows of samples, but for their alpha.

        Args:
            rows: (rows, width[, samples]) real dtype.
            has_alpha: whether the last sample is alpha.

        Returns:
            The extremes of these rows, with alpha.
        """
        least, most = (np.fmin, np.fmax) if self.without_nan else (np.minimum, np.maximum)
        lows, highs = least.reduce(rows), most.reduce(rows)  # of columns first: ten times as fast as of colours
        low, high = (ends[..., :-1] if has_alpha else ends for ends in (lows, highs))
        self._low = float(least(self._low, least.reduce(low, None)))
        self._high = float(most(self._high, most.reduce(high, None)))
        return float(least.reduce(lows, None)), float(most.reduce(highs, None))


@dataclass(frozen=True)
class Samples:
    """An image whose values are no bytes, or are to be scaled.

    Attributes:
        size: width and height, px.
        mode: of the 8-bit PIL image that it becomes.
        read: rows first to last -> (rows, width) or (rows, width, samples) any real dtype, in the image's own units.
        peak: what becomes 255; 1 for floats.
        keeps_high_bytes: whether 16 bits lose their low bytes and are not rounded: the samples of colours, as Pillow
            reads them in other formats.
        white_is_zero: whether the peak is black.
        key: the value that is transparent.
    """

    size: tuple[int, int]
    mode: str
    read: Callable[[int, int], NDArray[Any]]
    peak: float
    keeps_high_bytes: bool = False
    white_is_zero: bool = False
    key: int | None = None

    @property
    def has_alpha(self) -> bool:
        """Whether the last sample is alpha."""
        return self.mode[-1] in "Aa"

    @property
    def is_wide(self) -> bool:
        """Whether 256 levels are too few for it, and it is in grey or in red, green and blue."""
        return self.mode in ("L", "LA", "La", "RGB", "RGBA", "RGBa") and self.read(0, 1).dtype.itemsize > 1

    @property
    def whole(self) -> Range:
        """All values that have a known scale."""
        return 0.0, self.peak

    def are_low_bits(self, bits: int, high: float) -> bool:
        """Check that samples fill only their low bits, up to `high`; PNG asks for the high bits, with 0 below."""
        spare = (1 << (16 - bits)) - 1
        return high < 2**bits and any((self._colours(top) & spare).any() for top in self.tops())

    def tops(self) -> range:
        """Return the first row of each band."""
        return range(0, self.size[1], self.band_rows)

    @property
    def band_rows(self) -> int:
        """How many rows a band has."""
        return max(1, BAND_VALUES // self.size[0])

    def _rows(self, top: int) -> NDArray[Any]:
        rows = self.read(top, min(top + self.band_rows, self.size[1]))
        rows = rows.astype(rows.dtype.newbyteorder("="), copy=False)
        return _as_float32(rows) if rows.dtype == np.float16 else rows

    def _colours(self, top: int) -> NDArray[Any]:
        rows = self._rows(top)
        return rows[..., :-1] if self.has_alpha else rows

    def band(self, top: int, ends: Range, seen: Extremes) -> PilImage:
        """Return a band in 8 bits: `ends` become 0 and 255, what lies beyond is cut off.

        Args:
            top: its first row.
            ends: what becomes black and white.
            seen: the extremes of its colours are added to it: rows are read once, which may mean to decode them.

        Returns:
            The band, in the mode of the samples.
        """
        from PIL import Image

        values = self._rows(top)
        low, high = seen.add(values, self.has_alpha)
        inside = ends[0] <= low and high <= ends[1]  # False for NaN as well
        levels = _levels(values, ends, self.keeps_high_bytes, inside)
        if self.has_alpha and ends != self.whole:  # no range but the whole one is that of alpha
            levels[..., -1] = _levels(values[..., -1], self.whole, self.keeps_high_bytes, inside=False)
        if self.white_is_zero:
            levels = 255 - levels
        if self.key is not None:
            levels = np.where(values == self.key, np.uint8(255), levels)
        return Image.frombuffer(self.mode, (values.shape[1], len(values)), np.ascontiguousarray(levels))

    def in_floats(self, ends: Range, seen: Extremes) -> FloatImage:
        """Return it in floats: `ends` become 0 and 1, what lies beyond is cut off, NaN stays; laid over white.

        Args:
            ends: what becomes black and white.
            seen: the extremes of its colours are added to it, as in `band`.

        Returns:
            The image.
        """
        from PIL import Image

        from ...models.float_images import FloatImage

        bands = tuple(Image.new("F", self.size) for _ in range(3 if self.mode.startswith("RGB") else 1))
        for top in self.tops():
            values = self._rows(top)
            seen.add(values, self.has_alpha)
            shares = self._shares(values, ends)
            for band, share in zip(bands, np.moveaxis(shares, -1, 0), strict=True):
                band.paste(Image.fromarray(np.ascontiguousarray(share)), (0, top))
        return FloatImage(bands)

    def _shares(self, values: NDArray[Any], ends: Range) -> NDArray[np.float32]:
        """Scale rows to (rows, width, 1 or 3) float32."""
        values = values if values.ndim == 3 else values[..., None]
        colours = _shares(values[..., :-1] if self.has_alpha else values, ends)
        if self.has_alpha:
            alpha = _shares(values[..., -1:], (0, self.peak))
            colours = (colours * alpha if self.mode.endswith("A") else colours) + (1 - alpha)
        if self.white_is_zero:
            colours = 1 - colours
        if self.key is not None:
            colours = np.where(values == self.key, 1, colours)
        return np.clip(colours, 0, 1).astype(np.float32)


def _shares(values: NDArray[Any], ends: Range) -> NDArray[np.float64]:
    """Scale values so that `ends` become 0 and 1; NaN stays."""
    low, high = ends
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def _levels(values: NDArray[Any], ends: Range, keeps_high_bytes: bool, inside: bool) -> NDArray[np.uint8]:
    """Scale values, all of which may be known to be `inside` the ends, to 0..255, rounded, a half upwards."""
    if values.dtype.kind in "ui" and 0 <= ends[0] < ends[1] <= 65535:
        if keeps_high_bytes and ends == (0, 65535):
            return (values >> 8).astype(np.uint8)
        return np.take(_table(ends), values, mode="clip")
    return _scaled(values if values.dtype == np.float32 else values.astype(np.float64), ends, inside)


def _as_float32(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """Convert half floats, which single ones hold exactly, by torch: numpy takes eight times as long."""
    import torch

    return torch.from_numpy(np.require(halves, requirements=["C", "W"])).float().numpy()


@functools.lru_cache(8)
def _table(ends: Range) -> NDArray[np.uint8]:
    """Return what becomes of each number of 16 bits: looking it up is ten times as fast as computing it."""
    return _scaled(np.arange(65536, dtype=np.float64), ends, inside=False)


def _scaled(values: NDArray[Any], ends: Range, inside: bool) -> NDArray[np.uint8]:
    low, high = ends
    with np.errstate(over="ignore", invalid="ignore"):  # of values that are cut off, or whose image is refused
        shares = values if ends == (0, 1) else (values.astype(np.float64) - low) / (high - low)
        levels = shares * np.float32(255)
        levels += np.float32(0.5)
    if not inside:
        np.fmin(np.fmax(levels, 0, out=levels), 255, out=levels)  # which make 0 of NaN
    return levels.astype(np.uint8)


def ends_of(samples: Samples, seen: Extremes, declared_bits: int | None, label: str) -> Range:
    """Return what becomes black and white: the range that the file declares, or the whole one.

    Args:
        samples: of the image.
        seen: the extremes of its colours.
        declared_bits: how many bits of each sample are used, as the file itself states.
        label: names the image.

    Returns:
        Low and high.

    Raises:
        ImageError: values lie outside the whole range, so that their scale is not known.
    """
    low, high = seen.ends
    if declared_bits and 8 < declared_bits < 16 and samples.peak > 255 and samples.are_low_bits(declared_bits, high):
        return 0.0, float(2**declared_bits - 1)
    if not (low >= 0 and high <= samples.peak):  # true for NaN as well
        raise ImageError(
            f"{label} must hold values from 0 to {samples.peak:g}, got {low:g} to {high:g}. Save it with 8 bits a "
            f"channel, or give the range of its values as input_range."
        )
    if samples.peak > 255 and 0 < high * 256 < samples.peak * _NEAR_BLACK and not samples.white_is_zero:
        note_near_black(label, high, samples.peak)
    return samples.whole


def is_near_black(image: PilImage) -> bool:
    """Check whether the colours of a loaded image are near black throughout, whatever its alpha."""
    bands = image.getextrema()[:3]
    return all(high < _NEAR_BLACK for _, high in bands)  # type: ignore[misc]


def note_near_black(label: str, high: float, peak: float) -> None:
    """Warn that an image is near black, since its values fill little of their range."""
    likely = 2 ** max(int(high).bit_length(), 8) - 1
    warn_caller(
        f"{label} is near black: its values reach {high:g} of {peak:g}. If they have fewer bits than their file, scale "
        f"them with input_range (0, {likely}), or --input-range 0:{likely}."
    )


def samples_of(image: PilImage, raw_mode: str, scaled: bool) -> Samples | None:
    """Return the samples of a loaded PIL image whose values are no bytes, or are to be `scaled`; None for all others.

    Args:
        image: of any mode.
        raw_mode: Pillow's name of the pixels in its file.
        scaled: whether a range of values is given.

    Returns:
        The samples.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return _bytes_of(image) if scaled else None
    key = image.info.get("transparency")
    rows = rows_of(image)
    unsigned = raw_mode == _UNSIGNED
    peak = 1 if image.mode == "F" else 4095 if raw_mode == "I;12" else 65535  # Pillow 13 does not scale 12-bit TIFF
    white_is_zero = getattr(image, "tag_v2", {}).get(262) == 0  # TIFF 6.0; Pillow 13 heeds it up to 8 bits only
    return Samples(
        image.size,
        "L",
        (lambda first, last: rows(first, last).view(np.uint32)) if unsigned else rows,
        float(peak),
        white_is_zero=white_is_zero,
        key=key if isinstance(key, int) else None,
    )


def rows_of(image: PilImage) -> Callable[[int, int], NDArray[Any]]:
    """Return what reads rows of a loaded PIL image: first, last -> (rows, width[, bands])."""
    return lambda first, last: np.asarray(image.crop((0, first, image.width, last)))


def _bytes_of(image: PilImage) -> Samples:
    """Return the samples of an image of 8 bits or fewer."""
    if image.mode not in ("L", "LA", "RGB", "RGBA") or "transparency" in image.info:
        grey = image.mode in ("1", "L") and "transparency" not in image.info
        image = image.convert("L" if grey else "RGBA" if image.has_transparency_data else "RGB")
    return Samples(image.size, image.mode, rows_of(image), 255.0)
