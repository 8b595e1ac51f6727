"""Options of a run: what each takes and in which words it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from support.looping import over

from cnnviz_fast.errors import OptionError
from cnnviz_fast.options.runs import RunOptions


@over(
    ("field", "value", "expected"),
    [
        ("save", "sheets,statistics", ("sheets", "statistics")),
        ("save", ["maps", "sum"], ("maps", "sum")),
        ("batch", "8", 8),
        ("batch", None, None),
        ("readers", 0, 0),
        ("timeout", "2.5", 2.5),
        ("shards", "512", 512),
        ("statistics", " a.safetensors ", "a.safetensors"),
        ("progress", "json", "json"),
        ("engine", "ray", "ray"),
        ("save", "top", ("top",)),
    ],
)
def test_run_options_accepted_forms_are_held_as_one(field: str, value: Any, expected: Any) -> None:
    assert getattr(RunOptions(**{field: value}), field) == expected


@over(
    ("given", "message"),
    [
        (
            {"save": "sheet"},
            "save must be one of sheets, tiles, atlases, maps, sum, mean, max, statistics, top, attribution, got ",
        ),
        ({"save": "maps,maps"}, "save must be different ones of sheets, tiles, atlases, maps, sum, mean, max, "),
        ({"batch": 0}, "batch must be a whole number of at least 1, got 0."),
        ({"readers": -1}, "readers must be a whole number of at least 0, got -1."),
        ({"timeout": 0}, "timeout must be a number above 0, got 0."),
        ({"strict": "yes"}, "strict must be True or False, got 'yes'."),
        ({"engine": "dask"}, "engine must be one of local, ray, got 'dask'."),
        ({"address": "host:1"}, "address goes with engine 'ray', got engine 'local'."),
        ({"top_k": 5}, "top_k goes with save 'top', got save 'sheets'."),
        ({"labels": "folders", "save": "maps,sum"}, "labels goes with save 'top', got save 'maps,sum'."),
        ({"save": "top", "top_k": 0}, "top_k must be a whole number of at least 1, got 0."),
        ({"save": "top", "top_by": "sum"}, "top_by must be one of max, mean, min, got 'sum'."),
        ({"save": "top", "top_bands": 4}, "top_bands go with top_random, the images of each band. Give both."),
    ],
)
def test_run_options_wrong_value_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        RunOptions(**given)
    assert str(caught.value).startswith(message)


def test_run_options_address_goes_with_ray() -> None:
    assert RunOptions(engine="ray", address="host:6379").address == "host:6379"
