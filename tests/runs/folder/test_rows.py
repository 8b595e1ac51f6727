"""A row of the index: what is left out, what stays though it is nothing, and the order of what is there."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cnnviz_fast.runs.folder.index import image_lines, read_line
from cnnviz_fast.runs.folder.rows import IndexRow

LEAST = IndexRow(image="a", layer="conv", shape=(3, 4, 5), dtype="float32", min=None, max=None, dead=0, nonfinite=0)
NEEDED = ["image", "layer", "shape", "dtype", "min", "max", "dead", "nonfinite", "files"]


def test_index_row_leaves_out_what_is_not_known_but_the_range() -> None:
    row = LEAST.to_json()
    assert list(row) == NEEDED
    assert (row["min"], row["max"], row["files"]) == (None, None, ())


@pytest.mark.parametrize(("name", "value"), [
    ("sheet", (10, 20)), ("grid", {"rows": 2}), ("tiles", ["0", "sum"]), ("report", {"dead": []}),
    ("strongest", []), ("shard", "0000.tar"), ("end", 0),
])  # fmt: skip
def test_index_row_keeps_what_is_given_in_the_order_of_the_fields(name: str, value: object) -> None:
    row = dataclasses.replace(LEAST, **{name: value}).to_json()
    assert row[name] == value
    assert list(row) == [field.name for field in dataclasses.fields(IndexRow) if field.name in {*NEEDED, name}]


def test_index_row_is_a_line_of_the_index_and_comes_back() -> None:
    row = dataclasses.replace(LEAST, min=-1.5, max=2.0, files=["conv/a.png"], shard="0000.tar", end=1536)
    read = read_line(image_lines("key", "a", [row.to_json()]))
    assert read == {"key": "key", "stem": "a", "part": [0, 1], **json.loads(json.dumps(row.to_json()))}


def test_index_row_cannot_be_changed_or_given_by_position() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LEAST.min = 3.0
    with pytest.raises(TypeError):
        IndexRow("a", "conv", (1, 1, 1), "float32", None, None, 0, 0)
