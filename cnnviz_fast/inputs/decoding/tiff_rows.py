"""Rows of a TIFF page, by tifffile: what they do not need is neither read nor decoded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_JPEG = (6, 7, 33007, 34892)  # whose parts share tables; their samples are bytes


class Rows:
    """Reads rows of a page: first, last -> (rows, width[, samples]), of the page's dtype.

    Of strips or tiles that are compressed, a row of them is decoded when it is needed, and kept until another is.
    """

    def __init__(self, page: Any) -> None:
        """Prepare it; nothing is read yet.

        Args:
            page: a tifffile.TiffPage of one plane in depth, whose file stays open.
        """
        self._page = page
        self._planes, _, self._height, self._width, self._samples = page.shaped
        self._is_raw = page.is_contiguous and page.fillorder == 1 and page.predictor == 1 and not page.is_subsampled
        self._part_rows = self._height
        if not self._is_raw and page.compression not in _JPEG:
            self._part_rows = min(page.tilelength if page.is_tiled else page.rowsperstrip, self._height)
        self._kept: tuple[int, NDArray[Any]] | None = None

    def __call__(self, first: int, last: int) -> NDArray[Any]:
        """Return rows first to last.

        Args:
            first: the first of them.
            last: the one behind them.

        Returns:
            The rows.

        Raises:
            Exception: of tifffile, where they are damaged or of a kind that it does not decode.
        """
        if self._is_raw:
            return _pixels([self._raw(plane, first, last) for plane in range(self._planes)])
        pieces = []
        for number in range(first // self._part_rows, (last - 1) // self._part_rows + 1):
            top = number * self._part_rows
            pieces.append(self._decoded(number)[max(first - top, 0) : last - top])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _raw(self, plane: int, first: int, last: int) -> NDArray[Any]:
        """Read rows of a plane that lies in the file as it is: (rows, width, samples)."""
        dtype = np.dtype(self._page.dtype).newbyteorder(self._page.parent.byteorder)
        row_values = self._width * self._samples
        file = self._page.parent.filehandle
        file.seek(self._page.dataoffsets[0] + (plane * self._height + first) * row_values * dtype.itemsize)
        content = file.read((last - first) * row_values * dtype.itemsize)
        if len(content) < (last - first) * row_values * dtype.itemsize:
            raise OSError("image file is truncated")
        values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)
        return values.reshape(last - first, self._width, self._samples)

    def _decoded(self, number: int) -> NDArray[Any]:
        """Return the rows of one row of strips or tiles."""
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # before the next are made
            self._kept = number, _pixels(self._parts(number))
        return self._kept[1]

    def _parts(self, number: int) -> NDArray[Any]:
        """Decode one row of strips or tiles: (planes, rows, width, samples)."""
        page = self._page
        if self._part_rows == self._height:
            return np.asarray(page.asarray(squeeze=False))[:, 0]
        across = math.ceil(self._width / page.tilewidth) if page.is_tiled else 1
        down = math.ceil(self._height / self._part_rows)
        rows = min(self._part_rows, self._height - number * self._part_rows)
        values = np.empty((self._planes, rows, self._width, self._samples), page.dtype)
        for plane in range(self._planes):
            for at in range(across):
                index = (plane * down + number) * across + at
                page.parent.filehandle.seek(page.dataoffsets[index])
                content = page.parent.filehandle.read(page.databytecounts[index])
                part, (_, _, _, left, _), _ = page.decode(content, index)
                values[plane, :, left : left + part.shape[2]] = part[0, :rows, : self._width - left]
        return values


def _pixels(planes: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any]:
    """Bring planes together: each (rows, width, samples) -> (rows, width[, samples])."""
    pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
