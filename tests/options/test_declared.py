"""Option records check themselves; `takes` shows their fields in signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from support.looping import over

from cnnviz_fast.errors import OptionError
from cnnviz_fast.options.declared import takes
from cnnviz_fast.options.drawing import EntryOptions, RenderOptions
from cnnviz_fast.options.optimize import InvertOptions, MaximizeOptions
from cnnviz_fast.options.parsers import flag
from cnnviz_fast.options.patches import PatchOptions
from cnnviz_fast.options.reading import AxesOptions, PreprocessOptions
from cnnviz_fast.options.runs import RunOptions
from cnnviz_fast.options.weights import KernelOptions
from cnnviz_fast.sheets.render import render, save_sheet

RECORDS = [
    RenderOptions, EntryOptions, RunOptions, AxesOptions, PreprocessOptions, KernelOptions, InvertOptions,
    MaximizeOptions, PatchOptions,
]  # fmt: skip


@over("record", RECORDS)
def test_option_records_cannot_be_changed_or_given_by_position(record: type) -> None:
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record(), name, 3)
    with pytest.raises(TypeError):
        record(3)


@over("record", RECORDS)
def test_option_records_every_field_has_its_parser_and_its_sentence(record: type) -> None:
    for field in dataclasses.fields(record):
        assert callable(field.metadata["parse"]), field.name
        assert field.metadata["description"], field.name
        assert not field.metadata["description"].endswith("."), field.name
        assert field.metadata["metavar"] or field.metadata["parse"] is flag, field.name


@pytest.mark.parametrize("function", [render, save_sheet])
def test_takes_shows_every_option_in_signature_and_docstring(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(RenderOptions):
        parameter = parameters[field.name]
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default == field.default
        assert f"        {field.name}: {field.metadata['description']}.\n" in function.__doc__
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    assert "**options" not in function.__doc__


def test_takes_leaves_own_parameters_first() -> None:
    @takes(PreprocessOptions)
    def prepare(image: object, *, strict: bool = False, **options: object) -> None:
        """Prepare.

        Args:
            image: what.
            **options: see below.
        """

    assert list(inspect.signature(prepare).parameters) == [
        "image", "strict", "size", "interpolation", "mean", "std", "channel_order",
    ]  # fmt: skip


def test_render_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colourmap"):
        render(np.zeros((1, 2, 2)), colourmap="gray")


def test_of_makes_a_record_once_for_the_same_options_and_tells_equal_values_of_other_types_apart() -> None:
    options = {"tile": 64, "threads": 1, "colormap": "gray"}
    assert RenderOptions.of(options) is RenderOptions.of(dict(options))
    assert RenderOptions.of({**options, "threads": 2}).threads == 2
    with pytest.raises(OptionError, match="got True"):
        RenderOptions.of({**options, "threads": True})
    assert RenderOptions.of({"grid": [2, 3]}) == RenderOptions.of({"grid": (2, 3)})
    # Nothing that may be large is kept, and no -0.0 for 0.0.
    assert RenderOptions.of({"channels": "0-9"}) is not RenderOptions.of({"channels": "0-9"})
    assert str(RenderOptions.of({"vmin": 0.0, "vmax": 1.0}).vmin) == "0.0"
    assert str(RenderOptions.of({"vmin": -0.0, "vmax": 1.0}).vmin) == "-0.0"
