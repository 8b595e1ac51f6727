"""The native module (csrc): the PNG encoder, and the kernels for the CPU.

Arrays that are written must have exactly the dtype and memory order stated; none is copied. Any array on the host that
shares its memory by the buffer protocol or DLPack will do, a tensor too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def encode_strip(pixels: NDArray[np.uint8], bytes_per_pixel: int, out: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Deflate a strip of rows into one complete IDAT chunk, independently of all other strips.

    The chunk holds whole deflate blocks that end on a byte, none of them the last. A file is: signature, IHDR, PLTE if
    indexed, an IDAT of the zlib header 78 01, the strips in order, an IDAT of an empty last block (03 00) and the
    Adler-32 of all filtered bytes (`adler32_combine`), IEND. The bytes depend on the pixels of the strip alone.

    Args:
        pixels: (rows, row_bytes) uint8, C-contiguous. Grey values, palette indices or interleaved RGB. Not modified.
        bytes_per_pixel: 1 for grey and indexed, 3 for RGB; at most 8, divides row_bytes.
        out: (n,) uint8, C-contiguous, n >= strip_bound(rows, row_bytes). Written; reuse it, fresh memory costs time.

    Returns:
        Bytes of `out` that the chunk takes; Adler-32 of the filtered bytes; their number, rows * (row_bytes + 1).

    Raises:
        TypeError: an array has another dtype, memory order or number of dimensions, or `out` is read-only.
        ValueError: a size does not fit.
    """

def strip_bound(rows: int, row_bytes: int) -> int:
    """Return the bytes that `out` of encode_strip must have.

    Raises:
        ValueError: a side is 0, or the strip does not fit one PNG chunk (2^31 bytes).
    """

def write_png_files(pixels: NDArray[np.uint8], palette: bytes | None, paths: Sequence[bytes]) -> tuple[int, int]:
    """Encode each image and write it to its path, in order, up to the first failure.

    A file is written under a temporary name in its own folder and moved into place. A file that fails leaves nothing
    behind, and an older file at its path stays. The GIL is released throughout.

    Args:
        pixels: (n, height, width) uint8, C-contiguous. Grey values or palette indices. Not modified.
        palette: red, green, blue of each entry (3 to 768 bytes) for indexed files, None for grey ones.
        paths: n paths, os.fsencode'd.

    Returns:
        Number of files complete; errno of the one after them, 0 when all are complete.

    Raises:
        TypeError: an array has another dtype, memory order or number of dimensions.
        ValueError: a size does not fit, or a path holds a zero byte.
    """

def move_file(source: bytes, target: bytes) -> int:
    """Move a file to a name in the same folder, which at every moment is that of the older file or of this one.

    Args:
        source: its path.
        target: the path that it gets.

    Returns:
        0, or the errno of what failed.

    Raises:
        ValueError: a path holds a zero byte.
    """

def adler32(data: NDArray[np.uint8], adler: int = 1) -> int:
    """Return the Adler-32 checksum of (n,) uint8 `data`, continuing from `adler`."""

def adler32_combine(adler1: int, adler2: int, len2: int) -> int:
    """Return the Adler-32 checksum of two byte strings joined, the second of `len2` bytes."""

def crc32(data: NDArray[np.uint8], crc: int = 0) -> int:
    """Return the CRC-32 checksum of (n,) uint8 `data`, continuing from `crc`."""

def zlib_compress(parts: Sequence[NDArray[np.uint8] | bytes | memoryview]) -> bytes:
    """Deflate bytes into one zlib stream, which any inflater reads. The GIL is released throughout.

    Args:
        parts: (n,) uint8, C-contiguous each, or bytes. What follows each other in the stream; each part gets codes of
            its own. Not modified.

    Raises:
        TypeError: a part is something else.
        ValueError: they are more than 2^31 - 1 bytes.
        MemoryError: there is no memory for the stream.
    """

def filter_row(
    filter: int, row: NDArray[np.uint8], above: NDArray[np.uint8], bytes_per_pixel: int, residuals: NDArray[np.uint8]
) -> None:
    """Write the residuals of one row, for tests.

    Args:
        filter: 0 None, 1 Sub, 2 Up, 4 Paeth.
        row: (n,) uint8. The row itself.
        above: (n,) uint8. The row above it.
        bytes_per_pixel: the distance to the pixel on the left.
        residuals: (n,) uint8. Written.
    """

def render_strip(
    maps: Any,
    vmin: Any,
    vmax: Any,
    row_index: NDArray[np.int32],
    row_fraction: NDArray[np.float32],
    col_index: NDArray[np.int32],
    col_fraction: NDArray[np.float32],
    grid: tuple[int, ...],
    paint: tuple[int, int, int],
    flat: float,
    start: int,
    out: NDArray[np.uint8],
    threads: int = 1,
) -> None:
    """Draw a band of rows of a sheet; see kernels.reference.render_strip. The GIL is released meanwhile.

    Args:
        maps: (C, H, W) float32, float16, bfloat16 or uint8, of any strides. Not modified.
        vmin: (C,) float32.
        vmax: (C,) float32.
        row_index: (tile_h,) int32, each in [0, H - 1].
        row_fraction: (tile_h,) float32.
        col_index: (tile_w,) int32, each in [0, W - 1].
        col_fraction: (tile_w,) float32.
        grid: columns, tile_h, tile_w, step_y, step_x, top and left of a geometry.Grid.
        paint: levels, background and bad of a kernels.Paint.
        flat: of that paint.
        start: first row of the band.
        out: (rows, width) uint8, C-contiguous. Written.
        threads: at most as many draw at once.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit, or a position lies outside the maps.
        MemoryError: there is no memory for a row of the sheet.
    """

def blend_strip(
    index: NDArray[np.uint8],
    colors: NDArray[np.uint8],
    weights: NDArray[np.uint16],
    photo: NDArray[np.uint8],
    grid: tuple[int, ...],
    count: int,
    start: int,
    out: NDArray[np.uint8],
) -> None:
    """Colour a band of rows of a sheet over a photo; see kernels.reference.blend_strip.

    Args:
        index: (rows, width) uint8, C-contiguous. Not modified.
        colors: (256, 3) uint8, C-contiguous.
        weights: (256,) uint16, at most 256.
        photo: (tile_h, tile_w, 3) uint8, C-contiguous.
        grid: as for render_strip.
        count: number of tiles.
        start: first row of the band.
        out: (rows, width, 3) uint8, C-contiguous. Written.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit.
        MemoryError: there is no memory for a row of a tile.
    """

def tile_records(
    grid: tuple[int, ...],
    channels: bytes,
    own_ranges: bool,
    numbers: bytes,
    nan: NDArray[np.int64],
    inf: NDArray[np.int64],
    flat: NDArray[np.bool_],
    dead: NDArray[np.bool_],
    reductions: bytes,
    scores: bytes,
) -> bytes:
    """Write the tiles of a manifest as JSON, without spaces; see sheets.manifest.

    Args:
        grid: as for render_strip.
        channels: the JSON array of K numbers of channels or nulls.
        own_ranges: whether each tile is drawn on the range from its least to its greatest value.
        numbers: the JSON array of all tiles' vmin and vmax, unless `own_ranges`; and of min, max, mean, std and zeros.
        nan: (K,) int64.
        inf: (K,) int64.
        flat: (K,) bool.
        dead: (K,) bool.
        reductions: the JSON array of K plain words or nulls; `[]` for none.
        scores: the JSON array of K numbers or nulls; `[]` for none.

    Returns:
        The JSON array of K objects.

    Raises:
        TypeError: an array has another dtype.
        ValueError: an array or a text has another length.
        MemoryError: there is no memory for the records.
    """

def write_sheet(
    file: int,
    height: int,
    width: int,
    maps: Any,
    vmin: Any,
    vmax: Any,
    row_index: NDArray[np.int32],
    row_fraction: NDArray[np.float32],
    col_index: NDArray[np.int32],
    col_fraction: NDArray[np.float32],
    grid: tuple[int, ...],
    paint: tuple[int, int, int],
    flat: float,
    colors: NDArray[np.uint8],
    photo: tuple[NDArray[np.uint16], NDArray[np.uint8]] | None,
    blocks: Sequence[tuple[int, int, NDArray[np.uint8]]],
    strip_rows: int,
    threads: int,
    meanwhile: Callable[[], object] | None = None,
) -> tuple[int, float, float, float]:
    """Draw, colour, letter, encode and write all strips of a sheet, each as an IDAT chunk, in order.

    Between the calls its threads wait. Ctrl-C is noticed within a tenth of a second.

    Args:
        file: descriptor of a file that is open for writing. Of a PNG it holds everything before the strips.
        height: of the sheet in px.
        width: of the sheet in px.
        maps, vmin, vmax, row_index, row_fraction, col_index, col_fraction, grid, paint, flat: as for render_strip.
        colors: (256, 3) uint8, C-contiguous. Of the palette.
        photo: weights and photo, as for blend_strip, for a file in RGB; None for one of palette entries.
        blocks: (y, x, entries) each: text, (h, w) uint8 palette entries, C-contiguous, to go over the sheet there.
        strip_rows: rows of a strip; the last one takes what is left.
        threads: at most as many work at once.
        meanwhile: what this thread does while others begin; after that it joins them.

    Returns:
        Adler-32 of all filtered bytes, and the seconds that all threads spent drawing, encoding and writing.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit.
        OSError: the file cannot be written.
        MemoryError: there is no memory for a strip.
        KeyboardInterrupt: or what else a signal handler raises, or `meanwhile` does.
    """

def channel_range(
    maps: Any,
    vmin: NDArray[np.float32],
    vmax: NDArray[np.float32],
    nonfinite: NDArray[np.int64] | None = None,
) -> None:
    """Write the least and the greatest finite value of each channel, NaN where there is none.

    Args:
        maps: (C, H, W), as for render_strip.
        vmin: (C,) float32. Written.
        vmax: (C,) float32. Written.
        nonfinite: (C,) int64. Number of NaN and infinities. Written, unless it is None.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit.
        MemoryError: there is no memory for a copy of 16 channels, where one is needed.
    """

def enter_entries(
    scores: NDArray[np.float32],
    digests: NDArray[np.int64],
    positions: NDArray[np.int32],
    drawn: bool,
    new_scores: NDArray[np.float32],
    new_digests: NDArray[np.int64],
    touched: NDArray[np.bool_],
) -> None:
    """Enter a batch of images into the lists of each channel, one entry an image; see cnnviz_fast.patches.entries.

    Args:
        scores: (C, w) float32. Of the entries, in order; NaN behind the last. Written, as the next two.
        digests: (C, w) int64. Of their images.
        positions: (C, w) int32. A new entry has -2 - n, where n is its image in the batch.
        drawn: whether entries are in the order of their digests; otherwise greater scores come first, and of equal ones
            the lesser digest.
        new_scores: (N, C) float32. Of the batch; NaN for no entry. Not modified.
        new_digests: (N,) int64. Of its images. Not modified.
        touched: (C,) bool. Set where a channel has a new entry.

    Raises:
        TypeError: an array has another dtype, memory order or number of dimensions.
        ValueError: a size does not fit.
    """

def merge_entries(
    scores: NDArray[np.float32],
    digests: NDArray[np.int64],
    positions: NDArray[np.int32],
    drawn: bool,
    other_scores: NDArray[np.float32],
    other_digests: NDArray[np.int64],
    other_positions: NDArray[np.int32],
) -> None:
    """Enter the entries of other lists into lists, one entry an image.

    Args:
        scores: (C, w) float32. As for enter_entries. Written, as the next two.
        digests: (C, w) int64. As for enter_entries.
        positions: (C, w) int32. Where the entries are.
        drawn: as for enter_entries.
        other_scores: (C, v) float32. Of the others, in the same order. Not modified, as the next two.
        other_digests: (C, v) int64. Of the others.
        other_positions: (C, v) int32. Of the others.

    Raises:
        TypeError, ValueError: as for enter_entries.
    """

def first_places(maps: Any, channel: NDArray[np.int64], values: NDArray[np.float32], places: NDArray[np.int64]) -> None:
    """Find where some maps first have a value.

    Args:
        maps: (C, H, W), as for render_strip.
        channel: (M,) int64. Which maps.
        values: (M,) float32. The value that is looked for in each.
        places: (M,) int64. y * W + x of the first place; 0 where there is none. Written.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit, or a channel is not in the maps.
        MemoryError: there is no memory for a copy of a channel, where one is needed.
    """

def channel_measures(
    maps: Any,
    threads: int,
    vmin: NDArray[np.float32],
    vmax: NDArray[np.float32],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    zeros: NDArray[np.float64],
    nan: NDArray[np.int64],
    inf: NDArray[np.int64],
) -> None:
    """Write what each channel holds; see kernels.reference.channel_range and channel_moments.

    Args:
        maps: (C, H, W), as for render_strip.
        threads: at most as many work at once.
        vmin: (C,) float32. Written.
        vmax: (C,) float32. Written.
        mean: (C,) float64. Written.
        std: (C,) float64. Written.
        zeros: (C,) float64. Written.
        nan: (C,) int64. Written.
        inf: (C,) int64. Written.

    Raises:
        TypeError, ValueError, MemoryError: as for channel_range.
    """

def shrink(maps: Any, vmin: Any, vmax: Any, out: Any) -> None:
    """Clamp maps to the ranges of their channels, and make them smaller; see channels.values.shrink.

    Args:
        maps: (C, H, W), as for render_strip.
        vmin: (C,) float32.
        vmax: (C,) float32.
        out: (C, height, width) float32, C-contiguous, an array or a tensor; 1 <= height <= H, 1 <= width <= W. Written.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit.
        MemoryError: there is no memory for a copy of 16 channels, where one is needed.
    """

def survey(values: NDArray[Any]) -> tuple[float, float, float, int, int, int]:
    """Find what one pass over (n,) float32 or float64 `values` shows; see kernels.numba_values.survey.

    Raises:
        TypeError: `values` has another dtype or number of dimensions, or is not contiguous.
    """

def spread(values: NDArray[Any], mean: float, edges: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the sum of squared distances from the mean, and write the counts of a histogram.

    Args:
        values: (n,) float32 or float64, each finite and in [edges[0], edges[-1]].
        mean: from which distances are measured.
        edges: (bins + 1,) float64, see kernels.numba_values.spread.
        counts: (bins,) int64. Added to.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit, or the edges do not ascend.
    """

def count_values(
    values: NDArray[np.float32], pages: NDArray[np.int64], counts: NDArray[np.int64], missing: NDArray[np.bool_]
) -> None:
    """Count values in buckets; see kernels.numba_sketch.count.

    Args:
        values: (C, n) float32, C-contiguous.
        pages: (512,) int64. First column of each octave in `counts`, or -1.
        counts: (C, columns) int64, C-contiguous. Added to.
        missing: (512,) bool. Set where an octave has values but no page.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit, or a page lies outside `counts`.
    """

def gather_nonzero(
    counts: NDArray[np.int64], columns: NDArray[np.int64], place: NDArray[np.int64], count: NDArray[np.int64]
) -> None:
    """Gather the counts in some columns that are not 0; see kernels.numba_sketch.nonzero.

    Args:
        counts: (C, n) int64, C-contiguous.
        columns: (W,) int64, each in [0, n - 1].
        place: (M,) int64. Written: positions in `columns`, row by row.
        count: (M,) int64. Written: the counts.

    Raises:
        TypeError: an array has another dtype or number of dimensions.
        ValueError: a size does not fit, or a column lies outside `counts`.
    """

def vector_level() -> str:
    """Return the level of vector instructions in use: "scalar"; "avx2" or "avx512"; or "neon".

    The fastest this processor has, unless the environment variable CNNVIZ_NO_SIMD is 1 when the module is imported.
    """

def vector_levels() -> list[str]:
    """Return the levels this processor has, slowest first."""

def set_vector_level(name: str) -> None:
    """Choose the level for all later calls of this process, for tests. The results are the same at every level.

    Raises:
        ValueError: this processor does not have it.
    """
