"""Rows of TIFF pages: any rows, from any layout of the file, and no more than are needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_file
from cnnviz_fast.inputs.decoding.tiff_rows import Rows
from cnnviz_fast.options.reading import MAX_PIXELS

RNG = np.random.default_rng(0)
VALUES = RNG.integers(0, 65536, (75, 53, 3)).astype(np.uint16)

LAYOUTS: dict[str, dict[str, Any]] = {
    "raw": {},
    "raw strips": {"rowsperstrip": 7},
    "raw tiles": {"tile": (16, 32)},
    "packed strips": {"rowsperstrip": 7, "compression": "zlib"},
    "packed tiles": {"tile": (16, 32), "compression": "zlib"},
    "packed differences": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "one packed strip": {"rowsperstrip": 75, "compression": "zlib"},
}


def page_of(file: io.BytesIO, order: str, planar: bool, layout: str) -> Any:
    planes = {"planarconfig": "separate"} if planar else {}
    image = np.moveaxis(VALUES, -1, 0) if planar else VALUES
    tifffile.imwrite(file, image, photometric="rgb", byteorder=order, **planes, **LAYOUTS[layout])  # type: ignore[arg-type]
    file.seek(0)
    return tifffile.TiffFile(file).pages[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
def test_rows_are_those_of_the_image_in_any_order(layout: str, order: str, planar: bool) -> None:
    rows = Rows(page_of(io.BytesIO(), order, planar, layout))
    for first, last in [(0, 1), (3, 40), (5, 6), (60, 75), (0, 75), (15, 17)]:
        assert np.array_equal(rows(first, last), VALUES[first:last]), (first, last)


class Counted(io.BytesIO):
    """A file that counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.count += len(content)
        return content


@pytest.mark.parametrize("layout", ["raw", "packed strips", "packed tiles"])
def test_rows_reads_no_more_than_is_needed(layout: str) -> None:
    file = Counted()
    rows = Rows(page_of(file, "<", planar=False, layout=layout))
    before = file.count
    rows(16, 18)
    assert 0 < file.count - before < VALUES.nbytes / 3
    before = file.count
    rows(18, 20)
    assert file.count == before or layout == "raw", "the strips were decoded twice"


@pytest.mark.parametrize("dtype", ["f4", "f2", "u2"])
def test_decode_file_tiff_cut_off_in_its_raw_pixels_is_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.random((3, 50, 40)).astype(dtype), photometric="rgb", planarconfig="separate")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageError, match="truncated"):
        decode_file(path, MAX_PIXELS)
