"""The test chart of `cnnviz demo`: what each quarter is there for can be found in it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.assertions import BY_EYE, DEGREES_BY_EYE, assert_equal_planes, close_to

from cnnviz_fast.diagnostics.demo_chart import draw_chart

HALF = 224


@pytest.fixture(scope="module")
def chart() -> NDArray[np.uint8]:
    return np.asarray(draw_chart())


def test_draw_chart_is_rgb_of_the_size_asked_for(chart: NDArray[np.uint8]) -> None:
    assert chart.shape == (448, 448, 3)
    assert draw_chart(64).size == (64, 64)
    assert draw_chart(64).mode == "RGB"


def test_draw_chart_is_the_same_every_time(chart: NDArray[np.uint8]) -> None:
    assert_equal_planes(np.asarray(draw_chart()), chart)


@pytest.mark.parametrize("size", range(16, 400, 16))
def test_draw_chart_every_multiple_of_16_works(size: int) -> None:
    assert draw_chart(size).size == (size, size)


def test_draw_chart_gratings_have_their_orientation_and_period(chart: NDArray[np.uint8]) -> None:
    cell = HALF // 4
    for row, angle in enumerate((0, 45, 90, 135)):
        for col, period in enumerate((32, 16, 8, 4)):
            # Grating by grating: the strongest frequency of its spectrum.
            grating = chart[row * cell : row * cell + cell, col * cell : col * cell + cell, 0].astype(float)
            spectrum = np.abs(np.fft.fft2(grating - grating.mean(), s=(256, 256)))
            y, x = np.unravel_index(spectrum[:, :129].argmax(), (256, 129))
            fy, fx = (y - 256 if y > 128 else y) / 256, x / 256
            assert np.hypot(fy, fx) == close_to(1 / period, BY_EYE)
            off = (np.rad2deg(np.arctan2(fy, fx)) - angle + 90) % 180 - 90
            assert off == close_to(0, DEGREES_BY_EYE)


def test_draw_chart_zone_plate_is_round_and_gets_finer(chart: NDArray[np.uint8]) -> None:
    plate = chart[:HALF, HALF:, 0]
    assert_equal_planes(plate, plate.T)
    assert_equal_planes(plate, plate[::-1])
    middle = plate[HALF // 2].astype(int)
    inner, outer = middle[HALF // 2 - 20 : HALF // 2 + 20], middle[-40:]
    assert np.abs(np.diff(outer)).mean() > 3 * np.abs(np.diff(inner)).mean()


def test_draw_chart_patches_are_64_colours_and_a_gray_row(chart: NDArray[np.uint8]) -> None:
    side = HALF // 8
    board = chart[HALF:, :HALF].reshape(8, side, 8, side, 3)
    assert (board == board[:, :1, :, :1]).all()
    colors = board[:, 0, :, 0]
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 64
    assert (colors[7] == colors[7, :, :1]).all()
    assert colors[7, [0, 7], 0].tolist() == [0, 255]


def test_draw_chart_shapes_have_black_white_and_gray(chart: NDArray[np.uint8]) -> None:
    shapes = chart[HALF:, HALF:]
    for level in (0, 128, 255):
        assert 10 * (shapes == level).all(axis=-1).sum() > shapes[..., 0].size
