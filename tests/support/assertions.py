"""The only home of tolerances. `test_assertions` plants faults that these must catch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cnnviz_fast.geometry import Strip

if TYPE_CHECKING:
    from cnnviz_fast.sheets.plan import Plan

LARGEST_DIFFERENCE_LEVELS = 1
LEAST_SHARE_EQUAL = 0.999


class Tolerance(NamedTuple):
    """How far a number may lie from the one that is expected: `rtol` times that, and `atol` more."""

    rtol: float
    atol: float = 0.0


SUMMED = Tolerance(1e-12, 1e-12)
"""float64, summed in two orders."""

ROUNDED = Tolerance(1e-12)
"""float64, of values that are not near 0."""

MERGED = Tolerance(1e-9)
"""float64 statistics of many batches, merged in two orders."""

FLOAT32 = Tolerance(1e-6, 1e-6)
"""float32, rounded in two ways: a few units in the last place."""

FLOAT32_RATIO = Tolerance(1e-6)
"""The same, of values that are not near 0."""

FLOAT32_SUMS = Tolerance(1.3e-6, 1e-5)
"""float32, summed in two orders: what torch.testing allows float32."""

PRINTED = Tolerance(1e-7)
"""float32, through text."""

OPTIMIZED = Tolerance(1e-3, 1e-3)
"""What an optimisation in float32 ends at, with other images beside it or seen in another pass."""

MEASURED = Tolerance(0.1, 0.1)
"""Statistics measured of a few random images, beside those that they were drawn with."""

NO_FLOAT64 = Tolerance(1e-5, 1e-6)
"""Statistics on a device that has no float64."""

NO_FLOAT64_MEAN = Tolerance(1e-4)
"""Their means of values of both signs."""

OTHER_DEVICE = Tolerance(1e-2, 1e-2)
"""A convolution on a GPU, which may take TF32, beside the CPU's."""

VIEW_PX = Tolerance(0.0, 0.2)
"""Edges of what a model's input shows of a photo, by rule and as measured, in pixels of the one or the other,
whichever are larger."""

RESAMPLED_LEVELS = 4.0
"""Mean difference of soft pixels that two filters have resampled; shifted by a pixel they differ by twice as much."""

ONE_LEVEL = Tolerance(0.0, 1.0)
"""Pixels of 0 to 255, rounded in two ways."""

FEW_LEVELS = Tolerance(0.0, 3.0)
"""Pixels of 0 to 255 that were resized in two ways."""

BY_EYE = Tolerance(0.15)
"""What is read off a spectrum of few cells."""

DEGREES_BY_EYE = Tolerance(0.0, 8.0)
"""The direction of a frequency that is read off the same, in degrees."""

OF_A_SAMPLE = Tolerance(0.2)
"""The standard deviation of some thousand random weights, or a share of as many values."""

OF_WHOLE_PX = Tolerance(0.0, 0.01)
"""The ratio of two sides of some hundred px, each rounded to whole px."""

SLOPES = Tolerance(1e-5, 1e-9)
"""Finite differences in float64 of a score that is linear nearby, beside gradients that were rounded to float32."""

COMPLETE = Tolerance(1e-3)
"""Integrated gradients of 256 steps, added up, beside the difference of the scores."""

COMPLETE_OF_A_FEW = Tolerance(2e-3)
"""The same of a network of so few rectifiers that each changes the slope by much."""

SLOPES_OF_A_ZOO = Tolerance(1e-3)
"""The same of whole networks, with some rectifiers that change within the step."""

FLOAT32_PIXELS = Tolerance(0.0, 1e-6)
"""Pixels in [0, 1], as float32."""

FLOAT32_NORMALISED = Tolerance(0.0, 1e-5)
"""The same after mean and deviation, which is 0.2 or more."""

EXACT = Tolerance(0.0)
"""What is the same to the last bit."""

A_LEVEL = Tolerance(0.0, 1.0)
"""Whole levels or px, rounded in two ways."""

TWO_LEVELS = Tolerance(0.0, 2.0)
"""The same, rounded twice on the way: through another colour space, premultiplied alpha, a longer palette, or JPEG; or
twice as wide."""

A_LEVEL_AS_COLOUR = Tolerance(0.0, 3.0)
"""A level of a palette in its colours: one is up to 3 of a colour's 256."""

OTHER_FONTS = Tolerance(0.0, 6.0)
"""Mean of a page in a browser whose words are set in another font: they are a few hundredths of it."""

FINE_JPEG = Tolerance(0.0, 8.0)
"""Levels at the edges of blocks of one colour, in a JPEG of quality 100 without subsampling."""

LOSSY_NOISE = Tolerance(0.0, 8.0)
"""Levels, on average, of noise in a lossy format, which keeps least of that."""

DITHERED = Tolerance(0.0, 6.0)
"""Levels, on average, of a photo in 64 colours of its own beside the photo."""

DITHERED_FROM_AFAR = Tolerance(0.0, 2.0)
"""The same, of the means of 4 x 4 px: what the eye takes in."""

MORE_INSTRUCTIONS = 1.03
"""How many times the instructions recorded of a program it may take: a few per cent of a page rounded to 0.1."""

PEERS = Tolerance(0.0, 1e-4)
"""Heat maps of whole networks in float32, summed in other orders, on the scale of their largest value."""

FLOAT16 = Tolerance(1e-3, 1e-6)
"""Between values rounded to float16, whose steps are 2^-10 of them, from some that differ by last bits in float32."""

BFLOAT16 = Tolerance(0.1, 0.02)
"""What a network of a few layers computes in bfloat16, of values about 1, beside float32."""

APART = 0.01
"""What other values have at least somewhere: far more than rounding makes of values about 1."""


def close_to(expected: Any, tolerance: Tolerance) -> Any:
    """Return what equals a number, or each of several, within a tolerance."""
    return pytest.approx(expected, rel=tolerance.rtol, abs=tolerance.atol)


def assert_close(actual: Any, expected: Any, tolerance: Tolerance, name: str = "") -> None:
    """Compare arrays or tensors within a tolerance; NaN and infinities have to be at the same places.

    Args:
        actual: (...) real dtype.
        expected: (...) real dtype.
        tolerance: one of those above.
        name: of what is compared, for the message.
    """
    ours, theirs = (
        np.asarray(each.detach().cpu() if isinstance(each, torch.Tensor) else each) for each in (actual, expected)
    )
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=tolerance.rtol, atol=tolerance.atol, err_msg=name)


def assert_close_on_average(actual: Any, expected: Any, tolerance: Tolerance) -> None:
    """Compare images within a mean difference.

    Args:
        actual: (H, W) or (H, W, 3) uint8.
        expected: the same shape, uint8.
        tolerance: one of those above; its `atol` counts.
    """
    actual, expected = _as_planes(actual, expected)
    mean = np.abs(actual.astype(np.int16) - expected).mean()
    assert mean <= tolerance.atol, f"{mean:.2f} apart on average, at most {tolerance.atol:g} may be"


def assert_apart(actual: Any, expected: Any) -> None:
    """Check that two arrays of one shape hold other values, not only values that were rounded in another way.

    Args:
        actual: (...) float32.
        expected: the same shape, float32.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() > APART


def assert_within_half_a_level(actual: Any, expected: Any, ends: Any, levels: int) -> None:
    """Compare values that were kept as levels of their channel's range, and what float32 makes of them on either way.

    Args:
        actual: (C, H, W) float32.
        expected: (C, H, W) float64, NaN where nothing is compared.
        ends: low and high, each (C,) float64.
        levels: from low to high, both counted.
    """
    step = ((ends[1] - ends[0]) / (levels - 1))[:, None, None]
    most = step / 2 * (1 + 1e-4) + np.abs(expected) * 2.0**-23 + np.finfo(np.float32).smallest_subnormal
    assert actual.shape == expected.shape
    compared = np.isfinite(expected)
    assert (np.abs(actual - expected) <= most)[compared].all()


def assert_same_plane(actual: Any, expected: Any, *, levels: int = 256) -> None:
    """Compare two index planes as the design states: within 1 level everywhere, and 99.9 % of the pixels equal.

    The share leaves planes of less than 1000 px no pixel at all, so one may differ from 100 px on: a value can lie on a
    tie of the rounding.

    Args:
        actual: (H, W) uint8.
        expected: (H, W) uint8.
        levels: entries from here on are no values but background and bad, which have to be the very same.
    """
    actual, expected = _as_planes(actual, expected)
    places = np.nonzero(actual != expected)  # few, if any: so all else looks at these alone
    ours, theirs = actual[places], expected[places]
    difference = np.abs(ours.astype(np.int16) - theirs)
    assert difference.max(initial=0) <= LARGEST_DIFFERENCE_LEVELS, (
        f"{difference.max()} levels apart at {tuple(int(axis[difference.argmax()]) for axis in places)}: "
        f"{ours[difference.argmax()]}, expected {theirs[difference.argmax()]}"
    )
    allowed = max(int(expected.size * (1 - LEAST_SHARE_EQUAL)), 1 if expected.size >= 100 else 0)
    assert len(ours) <= allowed, f"{len(ours)} of {expected.size} px differ, at most {allowed} may"
    assert not (np.maximum(ours, theirs) >= levels).any(), "background and bad pixels differ"


def assert_plane_within_a_level(actual: Any, expected: Any, *, levels: int = 256) -> None:
    """Compare index planes of values that lie up to half a level of an atlas apart: within 1 level everywhere.

    An atlas has 253 levels and a palette 256 at most: half a level is 0.506 of a palette's, and rounding makes 1 of it.

    Args:
        actual: (H, W) uint8.
        expected: (H, W) uint8.
        levels: entries from here on are no values but background and bad, which have to be the very same.
    """
    actual, expected = _as_planes(actual, expected)
    difference = np.abs(actual.astype(np.int16) - expected)
    assert difference.max() <= 1, f"{difference.max()} levels apart"
    np.testing.assert_array_equal(actual >= levels, expected >= levels, err_msg="background and bad pixels")
    np.testing.assert_array_equal(actual[actual >= levels], expected[expected >= levels])


def assert_equal_planes(actual: Any, expected: Any) -> None:
    """Compare two index planes, or images in RGB, that have to be the same to the last bit.

    Args:
        actual: (H, W) or (H, W, 3) uint8.
        expected: the same shape, uint8.
    """
    actual, expected = _as_planes(actual, expected)
    np.testing.assert_array_equal(actual, expected)


def assert_strips_of_any_height_give_the_same(plan: Plan) -> None:
    """Draw a planned sheet in strips of every height, over what is no pixel of it, and as a whole."""
    height, width = plan.grid.height, plan.grid.width
    expected = plan.draw(Strip(0, height), np.full((height, width), 0xA5, np.uint8))
    for rows in range(1, height):
        for strip in plan.grid.strips(rows):
            out = plan.draw(strip, np.full((strip.stop - strip.start, width), 0xA5, np.uint8))
            assert_equal_planes(out, expected[strip.start : strip.stop])


def assert_same_range(actual: Any, expected: Any) -> None:
    """Compare two results of `channel_range`: exactly, NaN at the same places.

    Args:
        actual: (vmin, vmax), each (C,) float32.
        expected: (vmin, vmax), each (C,) float32.
    """
    assert len(actual) == len(expected) == 2
    for name, ours, theirs in zip(("vmin", "vmax"), actual, expected, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.dtype == theirs.dtype == np.float32, name
        assert ours.shape == theirs.shape, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def assert_equal_tensors(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare two tensors that have to be the same: values, dtype and device, NaN at the same places.

    Args:
        actual: (...) any dtype.
        expected: the same shape and dtype.
    """
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def assert_same_palette(actual: Any, expected: Any) -> None:
    """Compare two colour tables, of which one may round down where the other rounds: within 1 in every component.

    Args:
        actual: (N, 3) uint8, RGB.
        expected: (N, 3) uint8, RGB.
    """
    actual, expected = _as_planes(actual, expected)
    difference = np.abs(actual.astype(np.int16) - expected)
    assert difference.max() <= 1, f"{difference.max()} apart at entry {difference.max(axis=1).argmax()}"


def assert_same_statistics(actual: Any, expected: Any) -> None:
    """Compare float64 results of two orders of summation; NaN at the same places."""
    actual = np.asarray(actual)
    assert actual.dtype == np.float64
    assert_close(actual, expected, SUMMED)


def assert_same_floats(actual: Any, expected: Any) -> None:
    """Compare float32 results of two ways of rounding, a few units in the last place apart; NaN at the same places."""
    actual = np.asarray(actual)
    assert actual.dtype == np.float32
    assert_close(actual, expected, FLOAT32)


def assert_same_quantiles(actual: Any, expected: Any) -> None:
    """Compare quantiles of a sketch with exact ones: within 2^-7 of each, or 2^-133 where it is subnormal.

    Args:
        actual: (...) float32.
        expected: the same shape, of the values sorted.
    """
    actual = np.asarray(actual)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=2.0**-7, atol=2.0**-133)


def assert_same_colours(actual: Any, expected: Any) -> None:
    """Compare two drawings of one sheet in its colours: 99.9 % of the pixels within 4, a level under an overlay.

    Args:
        actual: (H, W, 3) uint8.
        expected: (H, W, 3) uint8.
    """
    actual, expected = _as_planes(actual, expected)
    differing = (np.abs(actual.astype(np.int16) - expected).max(axis=-1) > 4).mean()
    assert differing <= 1 - LEAST_SHARE_EQUAL, f"{differing:.2%} of the pixels differ"


def assert_similar_image(actual: Any, expected: Any) -> None:
    """Compare an image that went through a lossy format with the one that went in.

    Args:
        actual: (H, W) or (H, W, 3) uint8.
        expected: the same shape, uint8.
    """
    actual, expected = _as_planes(actual, expected)
    difference = np.abs(actual.astype(np.int16) - expected)
    assert difference.max() <= 40, f"{difference.max()} apart"
    assert difference.mean() <= 3, f"{difference.mean():.2f} apart on average"


def _as_planes(actual: Any, expected: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype == np.uint8, f"{actual.dtype} and {expected.dtype}"
    assert actual.shape == expected.shape, f"{actual.shape}, expected {expected.shape}"
    assert expected.size > 0
    return actual, expected
