"""Options of drawing: what each takes and in which words it refuses, and the rules between them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.looping import over

from cnnviz_fast.errors import InputError, OptionError
from cnnviz_fast.options.drawing import RenderOptions

GRID = "grid must be 'auto', 'ROWSxCOLS', 'ROWSx', 'xCOLS' or (rows, cols)"
PIXELS = "tile must be pixels: N, HEIGHTxWIDTH or (height, width)"
WHOLE = "tile must be a whole number of at least 1"
TITLE = "title may hold {model}, {weights}, {layer}, {image} and {shape} and nothing else in braces"
PERCENTILE = "percentile must be two percentages LOW,HIGH with 0 <= LOW < HIGH <= 100"


def held(field: str, value: Any) -> Any:
    """Return what a record of render options holds for a value, with what else that option asks for."""
    needed: dict[str, Any] = {
        "percentile": {"normalize": "percentile"},
        "vmin": {"normalize": "fixed", "vmax": 1e9},
        "vmax": {"normalize": "fixed", "vmin": -1e9},
        "rank": {"sort": True},
        "beside": {"reduce": "sum"},
    }
    return getattr(RenderOptions(**{**needed.get(field, {}), field: value}), field)


@over(
    ("field", "value", "expected"),
    [
        ("tile", 7, 7),
        ("tile", " 7 ", 7),
        ("tile", "+7", 7),
        ("tile", np.int64(7), 7),
        ("tile", "7x9", (7, 9)),
        ("tile", (7, 9), (7, 9)),
        ("tile", [7, "9"], (7, 9)),
        ("tile", None, None),
        ("scale", 2, 2.0),
        ("scale", "0.5", 0.5),
        ("scale", np.float32(1.5), 1.5),
        ("grid", "auto", (0, 0)),
        ("grid", "3x4", (3, 4)),
        ("grid", "3x", (3, 0)),
        ("grid", "x4", (0, 4)),
        ("grid", " 10x20 ", (10, 20)),
        ("grid", (3, 4), (3, 4)),
        ("grid", (3, None), (3, 0)),
        ("grid", [0, 4], (0, 4)),
        ("gap", 0, 0),
        ("gap", "3", 3),
        ("margin", 5, 5),
        ("normalize", "layer", "layer"),
        ("vmin", "-1.5", -1.5),
        ("vmin", "-1e-3", -1e-3),
        ("vmax", 3, 3.0),
        ("percentile", "2,98.5", (2.0, 98.5)),
        ("percentile", (0, 100), (0.0, 100.0)),
        ("percentile", ["5", 95], (5.0, 95.0)),
        ("align", "corners", "corners"),
        ("upsampling", "nearest", "nearest"),
        ("colormap", " gray ", "gray"),
        ("background", "#ffffff", "#ffffff"),
        ("bad", "red", "red"),
        ("channels", "0-3,8", (0, 1, 2, 3, 8)),
        ("channels", "8, 2-2", (8, 2)),
        ("channels", 5, (5,)),
        ("channels", "5", (5,)),
        ("channels", [3, "1-2", np.int64(7)], (3, 1, 2, 7)),
        ("channels", range(2, 5), (2, 3, 4)),
        ("channels", None, None),
        ("topk", 12, 12),
        ("topk", "12", 12),
        ("topk", None, None),
        ("sort", True, True),
        ("rank", "abs-mean", "abs-mean"),
        ("rank", None, "mean"),
        ("reduce", "sum", ("sum",)),
        ("reduce", "max, sum", ("max", "sum")),
        ("reduce", ["strongest", "mean"], ("strongest", "mean")),
        ("reduce", None, None),
        ("beside", True, True),
        ("report", True, True),
        ("label", True, True),
        ("title", " {layer} of {model} ", "{layer} of {model}"),
        ("title", "{{braces}}", "{{braces}}"),
        ("title", None, None),
        ("title", " ", ""),
        ("colorbar", True, True),
        ("backend", "torch", "torch"),
        ("threads", "2", 2),
        ("threads", None, None),
    ],
)
def test_render_options_accepted_forms_are_held_as_one(field: str, value: Any, expected: Any) -> None:
    result = held(field, value)
    assert result == expected
    assert type(result) is type(expected)


@over(
    ("field", "value", "message"),
    [
        ("tile", 0, f"{WHOLE}, got 0."),
        ("tile", -5, f"{WHOLE}, got -5."),
        ("tile", "-5", f"{WHOLE}, got -5."),
        ("tile", 7.5, f"{WHOLE}, got 7.5."),
        ("tile", True, f"{WHOLE}, got True."),
        ("tile", "big", f"{WHOLE}, got 'big'."),
        ("tile", "7x0", f"{WHOLE}, got 0."),
        ("tile", "7x8x9", f"{PIXELS}, got '7x8x9'."),
        ("tile", "7x", f"{PIXELS}, got '7x'."),
        ("tile", (7,), f"{PIXELS}, got (7,)."),
        ("scale", 0, "scale must be a number above 0, got 0."),
        ("scale", "-2", "scale must be a number above 0, got '-2'."),
        ("scale", "two", "scale must be a number, got 'two'."),
        ("scale", "inf", "scale must be a finite number, got inf."),
        ("scale", float("nan"), "scale must be a finite number, got nan."),
        ("scale", False, "scale must be a number, got False."),
        ("scale", [2], "scale must be a number, got [2]."),
        ("grid", "x", f"{GRID}, got 'x'."),
        ("grid", "3", f"{GRID}, got '3'."),
        ("grid", "3X4", f"{GRID}, got '3X4'."),
        ("grid", "-3x4", f"{GRID}, got '-3x4'."),
        ("grid", "0x4", f"{GRID} with numbers from 1 on, got '0x4'."),
        ("grid", "3x00", f"{GRID} with numbers from 1 on, got '3x00'."),
        ("grid", (1, 2, 3), f"{GRID}, got (1, 2, 3)."),
        ("grid", 3, f"{GRID}, got 3."),
        ("grid", (-1, 3), "grid must be a whole number of at least 0, got -1."),
        ("gap", -1, "gap must be a whole number of at least 0, got -1."),
        ("gap", None, "gap must be a whole number of at least 0, got None."),
        ("margin", "1.5", "margin must be a whole number of at least 0, got '1.5'."),
        (
            "normalize",
            "percentil",
            "normalize must be one of channel, layer, percentile, symmetric, sigmoid, fixed, dataset, got 'percentil'. "
            "Closest: 'percentile'.",
        ),
        ("vmin", "low", "vmin must be a number, got 'low'."),
        ("vmin", "-inf", "vmin must be a finite number, got -inf."),
        ("vmin", "-1e300", "vmin must be a number that float32 can hold, got -1e+300."),
        ("vmax", "nan", "vmax must be a finite number, got nan."),
        ("percentile", "99,1", f"{PERCENTILE}, got '99,1'."),
        ("percentile", "5,5", f"{PERCENTILE}, got '5,5'."),
        ("percentile", "-1,50", f"{PERCENTILE}, got '-1,50'."),
        ("percentile", "1,101", f"{PERCENTILE}, got '1,101'."),
        ("percentile", (1, 2, 3), f"{PERCENTILE}, got (1, 2, 3)."),
        ("percentile", 5, f"{PERCENTILE}, got 5."),
        ("percentile", "1,high", "percentile must be a number, got 'high'."),
        ("align", None, "align must be one of left, center, corners, field, got None."),
        ("align", "centre", "align must be one of left, center, corners, field, got 'centre'. Closest: 'center'."),
        ("upsampling", 3, "upsampling must be one of auto, bilinear, nearest, got 3."),
        ("colormap", "", "colormap must be a name, got ''."),
        ("colormap", 3, "colormap must be a name, got 3."),
        ("background", "  ", "background must be a name, got '  '."),
        ("bad", None, "bad must be a name, got None."),
        ("channels", "", "channels must be a whole number of at least 0, got ''."),
        ("channels", [], "channels must be at least one channel, got []."),
        ("channels", "5-2", "channels must be ranges that go upwards, got '5-2'."),
        ("channels", "-3", "channels must be a whole number of at least 0, got -3."),
        ("channels", [0, -1], "channels must be a whole number of at least 0, got -1."),
        ("channels", [1.5], "channels must be a whole number of at least 0, got 1.5."),
        ("channels", "1;2", "channels must be a whole number of at least 0, got '1;2'."),
        ("channels", True, "channels must be a whole number of at least 0, got True."),
        ("channels", 1.5, "channels must be channels such as '0-63,128', got 1.5."),
        ("topk", 0, "topk must be a whole number of at least 1, got 0."),
        ("topk", "all", "topk must be a whole number of at least 1, got 'all'."),
        ("sort", "yes", "sort must be True or False, got 'yes'."),
        ("rank", 3, "rank must be one of mean, abs-mean, max, variance, nonzero, norm, got 3."),
        (
            "rank",
            "Norm",
            "rank must be one of mean, abs-mean, max, variance, nonzero, norm, got 'Norm'. Closest: 'norm'.",
        ),
        ("reduce", "min", "reduce must be one of sum, mean, max, strongest, got 'min'. Closest: 'mean'."),
        ("reduce", "sum,sum", "reduce must be different ones of sum, mean, max, strongest, got 'sum,sum'."),
        ("reduce", [], "reduce must be different ones of sum, mean, max, strongest, got []."),
        ("reduce", 3, "reduce must be one of sum, mean, max, strongest, got 3."),
        ("beside", 1, "beside must be True or False, got 1."),
        ("report", None, "report must be True or False, got None."),
        ("label", "yes", "label must be True or False, got 'yes'."),
        ("colorbar", 1, "colorbar must be True or False, got 1."),
        ("title", 3, "title must be a line of text, got 3."),
        ("title", "{name}", f"{TITLE}, got '{{name}}'."),
        ("title", "{}", f"{TITLE}, got '{{}}'."),
        ("title", "{0}", f"{TITLE}, got '{{0}}'."),
        ("title", "x" * 1001, "title must have at most 1,000 characters, got 1,001."),
        ("title", "{layer", f"{TITLE}, got '{{layer'."),
        ("title", "layer}", f"{TITLE}, got 'layer}}'."),
        ("title", "{layer!r}", f"{TITLE}, got '{{layer!r}}'."),
        ("title", "{layer:>9999}", f"{TITLE}, got '{{layer:>9999}}'."),
        ("title", "{layer.__class__}", f"{TITLE}, got '{{layer.__class__}}'."),
        (
            "backend",
            "nmba",
            "backend must be one of auto, reference, torch, numba, native, triton, got 'nmba'. Closest: 'numba'.",
        ),
        ("threads", 0, "threads must be a whole number of at least 1, got 0."),
        ("threads", "many", "threads must be a whole number of at least 1, got 'many'."),
    ],
)
def test_render_options_wrong_value_is_refused_in_one_line(field: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        held(field, value)
    assert str(caught.value) == message
    assert isinstance(caught.value, InputError)


@over(
    ("given", "implied"),
    [
        ({"vmin": -1, "vmax": 1, "percentile": None}, {"normalize": "fixed"}),
        ({"percentile": "10,90"}, {"normalize": "percentile"}),
        ({"percentile": "10,90", "normalize": "dataset"}, {"normalize": "dataset"}),
        ({"rank": "max"}, {"sort": True}),
        ({"rank": "max", "topk": 3}, {"sort": False}),
        ({"rank": "max", "reduce": "sum", "beside": True}, {"sort": True}),
    ],
)
def test_render_options_imply_their_mode(given: dict[str, Any], implied: dict[str, Any]) -> None:
    options = RenderOptions(**given)
    assert options == RenderOptions(**given, **{name: implied[name] for name in implied if name not in given})
    assert {name: getattr(options, name) for name in implied} == implied
    assert dataclasses.replace(options, gap=1) == RenderOptions(**given, gap=1)


@over(
    ("given", "message"),
    [
        ({"tile": 9, "scale": 2}, "tile and scale both set the tile size. Give one of them."),
        ({"normalize": "fixed"}, "normalize 'fixed' needs vmin and vmax. Give both."),
        ({"normalize": "fixed", "vmin": 0}, "normalize 'fixed' needs vmin and vmax. Give both."),
        ({"normalize": "fixed", "vmin": 1, "vmax": 1}, "vmin must be less than vmax in float32, got 1 and 1."),
        ({"normalize": "fixed", "vmin": 2, "vmax": -1.5}, "vmin must be less than vmax in float32, got 2 and -1.5."),
        ({"normalize": "fixed", "vmin": 1, "vmax": 1 + 1e-12}, "vmin must be less than vmax in float32, got 1 and 1."),
        ({"channels": "0-99999999999"}, "channels must be channel numbers of at most 1048575, got '0-99999999999'."),
        ({"vmin": 0}, "normalize 'fixed' needs vmin and vmax. Give both."),
        (
            {"vmin": 0, "vmax": 1, "normalize": "channel"},
            "vmin and vmax go with normalize 'fixed', got normalize 'channel'.",
        ),
        ({"normalize": "layer", "vmax": 0}, "vmin and vmax go with normalize 'fixed', got normalize 'layer'."),
        ({"rank": "max", "sort": False}, "rank goes with topk or sort, got rank 'max' alone."),
        ({"beside": True}, "beside goes with reduce. Say what the channels are to be reduced to."),
        ({"reduce": "sum", "sort": True}, "topk and sort order channels, and with reduce none are drawn. Add beside."),
        ({"reduce": "sum", "topk": 1}, "topk and sort order channels, and with reduce none are drawn. Add beside."),
        (
            {"percentile": (1, 99), "normalize": "channel"},
            "percentile goes with normalize 'percentile' or 'dataset', got normalize 'channel'.",
        ),
        (
            {"normalize": "dataset", "reduce": "sum,strongest"},
            "normalize 'dataset' has ranges of channels, not of their sum, mean or max, got reduce 'sum,strongest'. "
            "Leave reduce out, or draw the strongest.",
        ),
    ],
)
def test_render_options_that_contradict_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        RenderOptions(**given)
    assert str(caught.value) == message


def test_render_options_defaults_are_those_of_the_design() -> None:
    assert dataclasses.asdict(RenderOptions()) == {
        "plain": False,
        "tile": None,
        "scale": None,
        "grid": (0, 0),
        "gap": 4,
        "margin": 8,
        "normalize": "channel",
        "vmin": None,
        "vmax": None,
        "percentile": None,
        "align": "center",
        "upsampling": "auto",
        "colormap": "viridis",
        "background": "#202020",
        "bad": "magenta",
        "channels": None,
        "topk": None,
        "sort": False,
        "rank": None,
        "reduce": None,
        "beside": False,
        "label": None,
        "title": None,
        "colorbar": False,
        "marks": True,
        "report": False,
        "backend": "auto",
        "threads": None,
    }


def test_render_options_percentile_defaults_with_its_normalization() -> None:
    assert RenderOptions(normalize="percentile").percentile == (1.0, 99.0)
    assert RenderOptions(normalize="dataset").percentile is None


@pytest.mark.parametrize("given", [{"topk": 3}, {"sort": True}])
def test_render_options_rank_defaults_where_channels_are_ranked(given: dict[str, Any]) -> None:
    assert RenderOptions(**given).rank == "mean"


def test_render_options_a_record_made_again_is_equal() -> None:
    made = RenderOptions(tile="7x9", grid="3x", normalize="percentile", channels="0-2", topk=2)
    assert dataclasses.replace(made) == made
    assert RenderOptions(**dataclasses.asdict(made)) == made
