"""The state dict and the prefix under which most names of a module fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.looping import over
from torch import nn

from cnnviz_fast.models.checkpoint_files import StateDict
from cnnviz_fast.models.matching import fits
from cnnviz_fast.models.stored_tensors import in_memory

MODULE = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
SHAPES: dict[str, Any] = {name: value.shape for name, value in MODULE.state_dict().items()}


def state(key: str = "", *prefixes: str, without: str = "-") -> StateDict:
    values = {
        prefix + name: in_memory(value)
        for prefix in prefixes or ("",)
        for name, value in MODULE.state_dict().items()
        if not name.startswith(without)
    }
    return StateDict(key, values)


@over(
    "prefix",
    [
        "", "net.", "backbone.", "model.encoder.", "encoder_q.", "student.", "module.", "_orig_mod.",
        "module.backbone.", "backbone.module.", "model._orig_mod.", "a.module.b._orig_mod.", "_fsdp_wrapped_module.",
    ],
)  # fmt: skip
def test_fits_finds_any_prefix(prefix: str) -> None:
    found = state("", prefix)
    found.values |= {"criterion.weight": in_memory(torch.ones(3)), "queue": in_memory(torch.ones(2))}
    best = fits([found], SHAPES)[0]
    assert best.count == len(SHAPES)
    assert list(best.values)[: len(SHAPES)] == list(SHAPES)


def test_fits_wrappers_inside_of_names_do_not_count() -> None:
    inside = {name.replace("0.", "0.module.", 1): value for name, value in state().values.items()}
    assert fits([StateDict("", inside)], SHAPES)[0].count == len(SHAPES)


def test_fits_module_that_has_a_part_called_module_keeps_it() -> None:
    parallel = nn.DataParallel(MODULE)
    shapes: dict[str, Any] = {name: value.shape for name, value in parallel.state_dict().items()}
    assert list(fits([state("")], shapes)[0].values) == list(shapes)
    assert list(fits([state("", "module.")], shapes)[0].values) == list(shapes)


@over(
    ("states", "path"),
    [
        ([state("state_dict"), state("state_dict_ema")], "state_dict_ema"),
        ([state("model"), state("model_ema", "module.")], "model_ema"),
        ([state("params"), state("params_ema")], "params_ema"),
        ([state("student", "backbone."), state("teacher", "backbone.")], "teacher.backbone"),
        ([state("", "student.", "teacher.")], "teacher"),
        ([state("", "encoder_k.", "encoder_q.")], "encoder_q"),
        ([state("discriminator"), state("generator")], "generator"),
        ([state("first"), state("second")], "first"),
        ([state("ema", without="1.bias"), state("model")], "model"),
    ],
)
def test_fits_of_several_the_best_comes_first_and_all_are_listed(states: list[StateDict], path: str) -> None:
    found = fits(states, SHAPES)
    assert found[0].path == path
    assert len(found) == 2


def test_fits_shapes_decide_between_equal_names() -> None:
    wider = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)).state_dict()
    other = StateDict("model", {name: in_memory(value) for name, value in wider.items()})
    assert [fit.path for fit in fits([other, state("net")], SHAPES)] == ["net"]


@pytest.mark.parametrize(
    ("key", "path"),
    [("student", "student.backbone"), ("student.backbone", "student.backbone"), ("teacher", "teacher.backbone")],
)
def test_fits_a_key_is_a_dict_or_a_prefix(key: str, path: str) -> None:
    for states in (
        [state("student", "backbone."), state("teacher", "backbone.")],
        [state("", "student.backbone.", "teacher.backbone.")],
    ):
        assert [fit.path for fit in fits(states, SHAPES, key)] == [path]


def test_fits_of_a_key_that_is_not_there_is_nothing() -> None:
    assert fits([state("model")], SHAPES, "mod") == []


def test_fits_names_of_a_million_dots_take_no_time() -> None:
    found = state("", "net.")
    found.values["." * 1_000_000] = in_memory(torch.ones(1))
    assert fits([found], SHAPES)[0].prefix == "net."
