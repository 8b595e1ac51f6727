"""Values of more than 8 bits become 8, or floats: scaled by their peak, from 0 to 1, or by a range that is given."""

from __future__ import annotations

import functools
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

BAND_VALUES = 1 << 20
"""Values that are converted at once: 8 MiB as float64."""

_NEAR_BLACK = 16
"""Levels of 256: 12 bits in 16 come out below. Nothing is seen in an image that is darker throughout."""

_UNSIGNED = "I;32N"
"""Pillow's name of 32 bits of a TIFF, which its mode I holds as signed."""


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

    def extremes(self, without_nan: bool = False) -> Range:
        """Return the smallest and the largest value of the colours; NaN if any is, or if all are."""
        least, most = (np.fmin, np.fmax) if without_nan else (np.minimum, np.maximum)
        found = [(least.reduce(rows, None), most.reduce(rows, None)) for rows in map(self._colours, self.tops())]
        lows, highs = zip(*found, strict=True)
        return float(least.reduce(lows)), float(most.reduce(highs))

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
        return self.read(top, min(top + self.band_rows, self.size[1]))

    def _colours(self, top: int) -> NDArray[Any]:
        rows = self._rows(top)
        return rows[..., :-1] if self.has_alpha else rows

    def band(self, top: int, ends: Range) -> PilImage:
        """Return a band in 8 bits: `ends` become 0 and 255, what lies beyond is cut off."""
        from PIL import Image

        values = self._rows(top)
        levels = _levels(values, ends, self.keeps_high_bytes)
        if self.has_alpha:  # no range but the whole one is that of alpha
            levels[..., -1] = _levels(values[..., -1], (0, self.peak), self.keeps_high_bytes)
        if self.white_is_zero:
            levels = 255 - levels
        if self.key is not None:
            levels = np.where(values == self.key, np.uint8(255), levels)
        return Image.frombuffer(self.mode, (values.shape[1], len(values)), np.ascontiguousarray(levels).tobytes())

    def in_floats(self, ends: Range) -> FloatImage:
        """Return it in floats: `ends` become 0 and 1, what lies beyond is cut off, NaN stays; laid over white."""
        from PIL import Image

        from ...models.float_images import FloatImage

        bands = tuple(Image.new("F", self.size) for _ in range(3 if self.mode.startswith("RGB") else 1))
        for top in self.tops():
            shares = self._shares(top, ends)
            for band, values in zip(bands, np.moveaxis(shares, -1, 0), strict=True):
                band.paste(Image.fromarray(np.ascontiguousarray(values)), (0, top))
        return FloatImage(bands)

    def _shares(self, top: int, ends: Range) -> NDArray[np.float32]:
        """Return a band of rows, (rows, width, 1 or 3) float32."""
        values = self._rows(top)
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


def _levels(values: NDArray[Any], ends: Range, keeps_high_bytes: bool) -> NDArray[np.uint8]:
    """Scale values to 0..255, rounded, a half upwards."""
    if values.dtype.kind in "ui" and 0 <= ends[0] < ends[1] <= 65535:
        if keeps_high_bytes and ends == (0, 65535):
            return (values >> 8).astype(np.uint8)
        return np.take(_table(ends), values, mode="clip")
    return _scaled(values if values.dtype == np.float32 else values.astype(np.float64), ends)


@functools.lru_cache(8)
def _table(ends: Range) -> NDArray[np.uint8]:
    """Return what becomes of each number of 16 bits: looking it up is ten times as fast as computing it."""
    return _scaled(np.arange(65536, dtype=np.float64), ends)


def _scaled(values: NDArray[Any], ends: Range) -> NDArray[np.uint8]:
    low, high = ends
    shares = values if ends == (0, 1) else (values.astype(np.float64) - low) / (high - low)
    levels = shares * 255 + np.float32(0.5)
    np.fmin(np.fmax(levels, 0, out=levels), 255, out=levels)  # which make 0 of NaN
    return levels.astype(np.uint8)


def ends_of(
    samples: Samples, given: Range | None, declared_bits: int | None, label: str, nan_allowed: bool = False
) -> Range:
    """Return what becomes black and white: the range that is given, the one that the file declares, or the whole one.

    Args:
        samples: of the image.
        given: the option input_range.
        declared_bits: how many bits of each sample are used, as the file itself states.
        label: names the image.
        nan_allowed: whether some values may be NaN.

    Returns:
        Low and high.

    Raises:
        ImageError: values lie outside the whole range, so that their scale is not known.
    """
    if given is not None:
        return given
    low, high = samples.extremes(nan_allowed)
    if declared_bits and 8 < declared_bits < 16 and samples.peak > 255 and samples.are_low_bits(declared_bits, high):
        return 0.0, float(2**declared_bits - 1)
    if not (low >= 0 and high <= samples.peak):  # true for NaN as well
        raise ImageError(
            f"{label} must hold values from 0 to {samples.peak:g}, got {low:g} to {high:g}. Save it with 8 bits a "
            f"channel, or give the range of its values as input_range."
        )
    if samples.peak > 255 and 0 < high * 256 < samples.peak * _NEAR_BLACK and not samples.white_is_zero:
        note_near_black(label, high, samples.peak)
    return 0.0, float(samples.peak)


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
