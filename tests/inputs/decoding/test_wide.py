"""Samples of more than 8 bits: read once, in bands, whatever their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from support.assertions import EXACT, assert_close

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_file
from cnnviz_fast.inputs.decoding import wide
from cnnviz_fast.inputs.decoding.tiff_rows import Rows
from cnnviz_fast.inputs.decoding.wide import Extremes, Samples
from cnnviz_fast.options.reading import MAX_PIXELS, ImageOptions

RNG = np.random.default_rng(0)


def test_decode_file_reads_each_row_of_samples_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RNG.random((50, 40, 3)).astype("f4"), photometric="rgb")
    read: list[int] = []
    call = Rows.__call__
    monkeypatch.setattr(
        Rows, "__call__", lambda self, first, last: read.extend(range(first, last)) or call(self, first, last)
    )
    monkeypatch.setattr(wide, "BAND_VALUES", 280)
    decode_file(tmp_path / "a.tif", MAX_PIXELS)
    assert read == list(range(50))


@pytest.mark.parametrize("value", [3e38, -3e38, np.inf, np.nan, 1.001, -0.001])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_decode_file_floats_outside_their_scale_are_refused_or_cut_off(
    tmp_path: Path, dtype: str, value: float
) -> None:
    image = RNG.random((5, 4, 3)).astype(dtype)
    image[2, 2, 1] = value
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    with pytest.raises(ImageError, match="must hold values from 0 to 1"):
        decode_file(tmp_path / "a.tif", MAX_PIXELS)
    drawn = np.asarray(decode_file(tmp_path / "a.tif", MAX_PIXELS, ImageOptions(input_range=(0, 1))))
    assert drawn[2, 2, 1] == (255 if value > 1 else 0)


def test_band_of_half_floats_is_that_of_doubles() -> None:
    codes = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # all of 0 to 1
    bands = []
    for values in (codes, codes.astype(np.float64)):
        samples = Samples((len(codes), 1), "L", lambda first, last, values=values: values[None][first:last], 1.0)
        bands.append(np.asarray(samples.band(0, (0.0, 1.0), Extremes())))
    assert_close(*bands, EXACT)
    assert (bands[0].min(), bands[0].max()) == (0, 255)


def test_extremes_are_those_of_the_colours_and_nan_where_any_is() -> None:
    values = RNG.random((6, 5, 4)).astype(np.float32)
    values[..., 3] = 7
    seen = Extremes()
    samples = Samples((5, 6), "RGBA", lambda first, last: values[first:last], 1.0)
    samples.band(0, samples.whole, seen)
    assert seen.ends == (values[..., :3].min(), values[..., :3].max())
    values[1, 1, 1] = np.nan
    samples.band(0, samples.whole, seen)
    assert np.isnan(seen.ends).all()
