"""Receptive fields that are looked up: one pass finds those of all layers."""

from __future__ import annotations

from typing import Any

import pytest

import cnnviz_fast as cf
from cnnviz_fast.activations.fields import known
from cnnviz_fast.activations.fields.find import receptive_field
from cnnviz_fast.activations.fields.known import known_field

SHAPE = (2, 3, 64, 64)
LAYERS = ["stage1", "stage2", "stage3"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The layers that each pass was asked for."""
    passes: list[list[str]] = []

    def counted(model: Any, layers: list[str], **how: Any) -> Any:
        passes.append(layers)
        return receptive_field(model, layers, **how)

    monkeypatch.setattr(known, "receptive_field", counted)
    return passes


def test_known_field_finds_the_fields_of_all_layers_in_one_pass(asked: list[list[str]]) -> None:
    model = cf.load_model("cnnviz:small")
    found = [known_field(model, layer, SHAPE, LAYERS) for layer in LAYERS]
    assert asked == [LAYERS]
    assert found == [receptive_field(model, layer, SHAPE[2:]) for layer in LAYERS]


def test_known_field_beside_a_layer_that_does_not_run_is_found_alone(asked: list[list[str]]) -> None:
    model, layers = cf.load_model("cnnviz:small"), ["stage1", "stage1:7"]
    found = [known_field(model, layer, SHAPE, layers) for layer in layers]
    assert asked == [layers, ["stage1"], ["stage1:7"]]
    assert found == [receptive_field(model, "stage1", SHAPE[2:]), None]
