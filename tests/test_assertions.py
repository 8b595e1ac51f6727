"""Plants faults that `assertions` must catch, and what they must let pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.assertions import (
    LOSSY_NOISE,
    assert_apart,
    assert_close_on_average,
    assert_equal_planes,
    assert_plane_within_a_level,
    assert_same_colours,
    assert_same_floats,
    assert_same_palette,
    assert_same_plane,
    assert_same_range,
    assert_same_statistics,
    assert_similar_image,
    assert_within_half_a_level,
)

import cnnviz_fast as cf

TILE_PX = 32
Plane = NDArray[np.uint8]


def drawn(maps: torch.Tensor, **options: object) -> Plane:
    """Draw four channels as a row of four tiles."""
    return cf.render(maps, plain=True, tile=TILE_PX, grid="1x", backend="torch", **options).index


@pytest.fixture
def square() -> torch.Tensor:
    return torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def plane(square: torch.Tensor) -> Plane:
    return drawn(square)


def rejected(actual: object, expected: object, **arguments: object) -> None:
    with pytest.raises(AssertionError):
        assert_same_plane(actual, expected, **arguments)


def one_level_off(plane: Plane, count: int) -> Plane:
    """Move `count` pixels, spread over the plane, by one level."""
    moved = plane.copy().ravel()
    places = np.linspace(0, moved.size - 1, count).astype(int)
    moved[places] = np.where(moved[places] > 0, moved[places] - 1, 1)
    return moved.reshape(plane.shape)


def test_assert_same_plane_equal_planes_pass(square: torch.Tensor, plane: Plane) -> None:
    assert_same_plane(drawn(square), plane)
    assert_equal_planes(drawn(square), plane)


def test_assert_same_plane_height_and_width_swapped_is_caught(square: torch.Tensor, plane: Plane) -> None:
    rejected(drawn(square.transpose(1, 2)), plane)


def test_assert_same_plane_one_channel_shifted_by_a_pixel_is_caught(plane: Plane) -> None:
    shifted = plane.copy()
    shifted[:, 2 * TILE_PX : 3 * TILE_PX] = np.roll(shifted[:, 2 * TILE_PX : 3 * TILE_PX], 1, axis=1)
    rejected(shifted, plane)


def test_assert_same_plane_channels_in_another_order_is_caught(square: torch.Tensor, plane: Plane) -> None:
    rejected(drawn(square[[0, 2, 1, 3]]), plane)


@pytest.mark.parametrize("factor", [255, 256])
def test_assert_same_plane_rounding_down_is_caught(square: torch.Tensor, factor: int) -> None:
    low, high = square.amin((1, 2), keepdim=True), square.amax((1, 2), keepdim=True)
    values = ((square - low) / (high - low)).flatten(1).numpy()
    rounded = np.floor(values * 255 + 0.5).astype(np.uint8)
    rejected(np.floor(values * factor).clip(max=255).astype(np.uint8), rounded)


@pytest.mark.parametrize("align", ["left", "corners"])
def test_assert_same_plane_other_alignment_is_caught(square: torch.Tensor, plane: Plane, align: str) -> None:
    rejected(drawn(square, align=align), plane)


def test_assert_same_plane_one_pixel_two_levels_off_is_caught(plane: Plane) -> None:
    off = plane.copy()
    off[5, 7] += 2 if off[5, 7] < 254 else -2
    rejected(off, plane)


def test_assert_same_plane_counts_wrapped_around_are_caught() -> None:
    rejected(np.full((40, 40), 255, np.uint8), np.zeros((40, 40), np.uint8))


def test_assert_same_plane_share_is_bounded_at_one_in_a_thousand(plane: Plane) -> None:
    assert plane.size == 4096
    assert_same_plane(one_level_off(plane, 4), plane)
    rejected(one_level_off(plane, 5), plane)


@pytest.mark.parametrize(("pixels", "allowed"), [(99, 0), (100, 1), (1999, 1), (2000, 2)])
def test_assert_same_plane_small_planes_may_differ_in_few_pixels(pixels: int, allowed: int) -> None:
    expected = np.arange(pixels).astype(np.uint8)[None]
    assert_same_plane(one_level_off(expected, allowed), expected)
    rejected(one_level_off(expected, allowed + 1), expected)


def test_assert_same_plane_background_for_the_last_level_is_caught() -> None:
    expected = np.full((40, 40), 253, np.uint8)
    expected[0, 0] = 254
    actual = np.full((40, 40), 253, np.uint8)
    assert_same_plane(actual, expected)
    rejected(actual, expected, levels=254)
    rejected(expected, actual, levels=254)


def test_assert_same_plane_bad_for_background_is_caught() -> None:
    expected = np.full((40, 40), 100, np.uint8)
    actual = expected.copy()
    expected[3, 3], actual[3, 3] = 254, 255
    rejected(actual, expected, levels=254)


@pytest.mark.parametrize("check", [assert_same_plane, assert_equal_planes])
def test_assert_planes_other_shape_or_dtype_is_caught(check: object, plane: Plane) -> None:
    for actual in (plane.T, plane[None], plane[:, :-1], plane.astype(np.int16), np.empty((0, 4), np.uint8)):
        with pytest.raises(AssertionError):
            check(actual, plane)
    with pytest.raises(AssertionError):
        check(np.empty((0, 4), np.uint8), np.empty((0, 4), np.uint8))


def test_assert_plane_within_a_level_two_levels_and_bad_for_a_value_are_caught(plane: Plane) -> None:
    assert_plane_within_a_level(one_level_off(plane, plane.size), plane)
    two = plane.copy()
    two[5, 5] = two[5, 5] - 2 if two[5, 5] > 1 else two[5, 5] + 2
    bad, value = np.full((3, 3), 253, np.uint8), np.full((3, 3), 252, np.uint8)
    for actual, expected, levels in ((two, plane, 256), (bad, value, 253), (bad, bad + np.uint8(1), 253)):
        with pytest.raises(AssertionError):
            assert_plane_within_a_level(actual, expected, levels=levels)


def test_assert_equal_planes_one_level_is_caught(plane: Plane) -> None:
    with pytest.raises(AssertionError):
        assert_equal_planes(one_level_off(plane, 1), plane)


def test_assert_same_range_last_bit_nan_order_and_dtype_are_caught() -> None:
    vmin = np.array([-1.5, 0, np.nan], np.float32)
    vmax = np.array([2.5, 0, np.nan], np.float32)
    assert_same_range((torch.from_numpy(vmin), vmax.copy()), (vmin, vmax))
    next_up = np.nextafter(vmin, np.float32(np.inf))
    for wrong in (next_up, np.nan_to_num(vmin), vmin[:2], vmin.astype(np.float64), np.full(3, np.nan, np.float32)):
        with pytest.raises(AssertionError):
            assert_same_range((wrong, vmax), (vmin, vmax))
    with pytest.raises(AssertionError):
        assert_same_range((vmax, vmin), (vmin, vmax))


def test_assert_same_palette_two_steps_are_caught() -> None:
    colors = np.full((256, 3), 100, np.uint8)
    assert_same_palette(colors + np.uint8(1), colors)
    wrong = colors.copy()
    wrong[200, 2] = 102
    with pytest.raises(AssertionError):
        assert_same_palette(wrong, colors)


@pytest.mark.parametrize("check", [assert_same_statistics, assert_same_floats])
def test_assert_numbers_divisor_nan_and_dtype_are_caught(check: object) -> None:
    dtype, other = (np.float64, np.float32) if check is assert_same_statistics else (np.float32, np.float64)
    expected = np.array([1.0, np.nan, 3.0], dtype)
    check(expected.copy(), expected)
    for wrong in (expected * dtype(49 / 50), np.nan_to_num(expected), expected.astype(other)):
        with pytest.raises(AssertionError):
            check(wrong, expected)


def test_assert_similar_image_swapped_colours_and_shift_are_caught() -> None:
    y, x = np.mgrid[0:64, 0:64]
    image = np.stack([x * 4, y * 4, 128 + 0 * x], axis=-1).astype(np.uint8)
    assert_similar_image(image, image)
    for wrong in (image[..., ::-1], np.roll(image, 2, axis=1), image.transpose(1, 0, 2)):
        with pytest.raises(AssertionError):
            assert_similar_image(wrong, image)


def test_assert_close_on_average_swapped_colours_and_another_shape_are_caught() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    assert_close_on_average(np.clip(noise, 8, 247), noise, LOSSY_NOISE)
    for wrong in (noise[..., ::-1], noise[::-1], noise.transpose(1, 0, 2), noise ^ np.uint8(16)):
        with pytest.raises(AssertionError):
            assert_close_on_average(wrong, noise, LOSSY_NOISE)


def test_assert_same_colours_two_levels_of_one_pixel_in_a_hundred_are_caught() -> None:
    colors = np.full((100, 100, 3), 100, np.uint8)
    few, many = colors + np.uint8(4), colors + np.uint8(4)
    few[:10, 0, 1] = 120
    many[:, 0, 1] = 120
    assert_same_colours(few, colors)
    with pytest.raises(AssertionError):
        assert_same_colours(many, colors)


def test_assert_apart_rounding_and_another_shape_are_caught() -> None:
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert_apart(values[::-1], values)
    for wrong in (values, values * np.float32(1 + 1e-6), values[::-1, :1]):
        with pytest.raises(AssertionError):
            assert_apart(wrong, values)


def test_assert_within_half_a_level_a_level_and_a_shifted_channel_are_caught() -> None:
    values = np.linspace(0, 1, 24).reshape(2, 3, 4)
    low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    step = ((high - low) / 252)[:, None, None]
    kept = (low[:, None, None] + np.round((values - low[:, None, None]) / step) * step).astype(np.float32)
    values[0, 1, 1] = np.nan
    assert_within_half_a_level(kept, values, (low, high), 253)
    for wrong in (kept + step.astype(np.float32), kept[::-1], kept[:, :, :3]):
        with pytest.raises(AssertionError):
            assert_within_half_a_level(wrong, values, (low, high), 253)
