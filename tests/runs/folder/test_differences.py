"""Where two fingerprints differ, in words for a message."""

from __future__ import annotations

import json

from cnnviz_fast.runs.folder.differences import differences


def test_differences_are_worded_with_both_values() -> None:
    here = {"tile": 56, "same": [1], "render": {"gap": 1, "grid": None}, "gone": 3, "text": "a b"}
    there = {"tile": 224, "same": [1], "render": {"gap": 2, "grid": None}, "new": {}, "text": "ab"}
    assert differences(here, there) == [
        "tile: 56 here, 224 there", "render.gap: 1 here, 2 there", "gone: 3 here, none there",
        "text: a b here, ab there", "new: none here, {} there",
    ]  # fmt: skip
    assert differences(here, json.loads(json.dumps(here))) == []
    assert differences({"a": (1, 2), "b": float("nan")}, {"a": [1, 2], "b": float("nan")}) == []


def test_differences_of_long_values_show_where_they_differ() -> None:
    layers = [f"layer{i}" for i in range(100)]
    (said,) = differences({"layers": layers}, {"layers": [*layers[:70], "x", *layers[71:]]})
    assert len(said) < 240
    assert '"layer69", "layer70", "layer71"' in said
    assert '"layer69", "x", "layer71"' in said
    (said,) = differences({"layers": layers}, {"layers": layers[:99]})
    assert said.endswith("there")
    assert '"layer98", "layer99"] here' in said
    assert '"layer98"] there' in said
    (said,) = differences({"a": "x" * 64}, {"a": "y" * 64})
    assert said == f"a: {'x' * 64} here, {'y' * 64} there"


def test_differences_digests_are_told_by_their_first_digits() -> None:
    assert differences({"weights": "ab" * 32}, {"weights": "cd" * 32}) == ["weights: abababab here, cdcdcdcd there"]
