"""Options of reading: what each takes and in which words it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from support.looping import over

from cnnviz_fast.errors import OptionError
from cnnviz_fast.options.reading import AXES, AxesOptions, PreprocessOptions


@over(
    ("field", "value", "expected"),
    [
        ("size", 224, 224),
        ("size", "224x320", (224, 320)),
        ("size", "8,16,16", (8, 16, 16)),
        ("interpolation", "bicubic", "bicubic"),
        ("mean", "0.5,0.4,0.3", (0.5, 0.4, 0.3)),
        ("mean", (0, 0, 0), (0.0, 0.0, 0.0)),
        ("std", ["1", 2, 0.5], (1.0, 2.0, 0.5)),
        ("std", None, None),
        ("channel_order", "bgr", "bgr"),
    ],
)
def test_preprocess_options_accepted_forms_are_held_as_one(field: str, value: Any, expected: Any) -> None:
    assert getattr(PreprocessOptions(**{field: value}), field) == expected


@over(
    ("field", "value", "message"),
    [
        ("size", "0x3", "size must be N, or a length for each axis such as HEIGHTxWIDTH, each at least 1, got '0x3'."),
        ("size", 178_000_001, "size must make at most 178,000,000 px, got 178000001."),
        ("size", "20000x20000", "size must make at most 178,000,000 px, got 20000x20000."),
        ("size", (600, 600, 600), "size must make at most 178,000,000 px, got 600x600x600."),
        ("interpolation", "bilinera", "Closest: 'bilinear'"),
        ("channel_order", "brg", "channel_order must be one of rgb, bgr, got 'brg'."),
        ("size", "2x3x4x5x6", "size must be N, or a length for each axis"),
        ("mean", [], "mean must be a number for each channel, got []."),
        ("mean", 1j, "mean must be a number for each channel, got 1j."),
        ("std", "1,0,1", "std must be numbers above 0, got '1,0,1'."),
        ("std", -1, "std must be numbers above 0, got -1."),
        ("std", "1,x,1", "std must be a number, got 'x'."),
    ],
)
def test_preprocess_options_wrong_value_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        PreprocessOptions(**{field: value})
    assert message in str(caught.value)


def test_one_size_for_both_sides_of_an_image_is_bounded_too() -> None:
    assert PreprocessOptions(size=13_341).image_size == (13_341, 13_341)
    with pytest.raises(OptionError, match="got 13342x13342"):
        _ = PreprocessOptions(size=13_342).image_size


@over(
    ("value", "expected", "parts"),
    [
        ("nhwc", "nhwc", ("nhwc", None, None)),
        (" NCHW ", "nchw", ("nchw", None, None)),
        ("tokens", "tokens", ("tokens", None, None)),
        ("tokens:5", "tokens:5", ("tokens", 5, None)),
        ("tokens:1:7x9", "tokens:1:7x9", ("tokens", 1, (7, 9))),
        ("tokens:0:8x14x14", "tokens:0:8x14x14", ("tokens", 0, (8, 14, 14))),
    ],
)
def test_axes_options_accepted_forms_and_their_parts(value: str, expected: str, parts: tuple[object, ...]) -> None:
    options = AxesOptions(axes=value)
    assert (options.axes, options.parts) == (expected, parts)


@over("value", ["nwhc", "tokens:", "tokens:-1", "tokens:1:7", "tokens:1:0x7", "nchw:1", "", None, 3])
def test_axes_options_wrong_value_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match=rf"^axes must be one of {', '.join(AXES)}, got {value!r}"):
        AxesOptions(axes=value)
