"""Targets: classes, functions and units, how they are written, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import FLOAT32_SUMS, assert_close
from support.heat import ClassToken, Residual, images, made
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.api import attribution
from cnnviz_fast.attribution.targets import parse_targets
from cnnviz_fast.errors import InputError, OptionError, ShapeError
from cnnviz_fast.models.loaded import as_given

NAMES = ("tabby, tabby cat", "crane", "tiger cat", "Crane", "cup", "egyptian cat, tabby")


def heat(target: Any, model: nn.Module | cf.LoadedModel | None = None) -> torch.Tensor:
    found = cf.attribute(model or made(Residual), images(), "hirescam", "second", target)
    assert isinstance(found, torch.Tensor)
    return found


def named() -> cf.LoadedModel:
    model = as_given(made(Residual))
    return cf.LoadedModel(model.module, model.preprocess, "own", "seed 0", NAMES)


def test_target_class_is_index_text_or_name() -> None:
    expected = heat(2)
    for target in ("2", np.int64(2), torch.tensor(2), "tiger cat", "TIGER Cat"):
        assert torch.equal(heat(target, named()), expected)
    assert torch.equal(heat("tabby cat", named()), heat(0))


def test_target_top_is_that_of_each_image() -> None:
    best = made(Residual)(images()).topk(3).indices
    assert torch.equal(heat("top"), heat(best[:, 0]))
    assert torch.equal(heat("top3"), heat(best))
    assert torch.equal(heat("top3"), heat(best.tolist()))
    assert heat("top1").shape == (3, 1, 8, 8)


def test_target_list_has_an_axis_of_its_own() -> None:
    several = heat([2, "top2", ("third", 4)])
    assert several.shape == (3, 4, 8, 8)
    for t, target in enumerate([2, None, None, ("third", 4)]):
        if target is not None:
            assert_close(several[:, t], heat(target), FLOAT32_SUMS)


def test_target_function_is_called_with_the_output() -> None:
    assert torch.equal(heat(lambda output: output[:, 2]), heat(2))
    assert torch.equal(heat(lambda output: output[:, [2, 5]]), heat([2, 5]))

    class Segments(Residual):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.third(self.relu(self.second(self.relu(self.first(x)))))}

    pixel = heat(lambda output: output["out"][:, 3, 4, 5], made(Segments))
    assert_close(pixel, heat(("third", 3, 4, 5)), FLOAT32_SUMS)


def test_target_unit_ends_the_pass_behind_its_layer() -> None:
    model = made(Residual)
    model.norm.register_forward_hook(lambda *seen: pytest.fail("the network goes on"))
    unit = heat("third@3,4,5", model)
    assert torch.equal(unit, heat(("third", 3, 4, 5)))
    # A convolution of 3x3 sees no further: the map of the unit is 0 elsewhere.
    assert set(map(tuple, unit[0].nonzero().tolist())) <= {(y, x) for y in (3, 4, 5) for x in (4, 5, 6)}
    channel = heat(("third", 3))
    every = heat([("third", 3, y, x) for y in range(8) for x in range(8)])
    assert_close(channel, every.mean(1), FLOAT32_SUMS)


def test_target_unit_of_tokens_is_one_of_their_maps() -> None:
    model = made(ClassToken)
    found = cf.attribute(model, images(), "hirescam", "blocks.0", ("blocks.1", 5, 2, 3))
    expected = cf.attribute(
        model, images(), "hirescam", "blocks.0", lambda output: output[:, 1 + 2 * 4 + 3, 5], forward=tokens_of
    )
    assert_close(found, expected, FLOAT32_SUMS)


def tokens_of(model: ClassToken, x: torch.Tensor) -> torch.Tensor:
    tokens = torch.cat([model.class_token.expand(len(x), -1, -1), model.cut(x).flatten(2).mT], 1)
    out: torch.Tensor = model.blocks(tokens)
    return out


def test_target_logits_are_found_among_several_outputs() -> None:
    class Several(Residual):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = super().forward(x)
            return {"features": scores.tanh(), "logits": scores}

    assert torch.equal(heat(2, made(Several)), heat(2))


def test_target_labels_are_indices_names_and_units() -> None:
    found, single = attribution(named(), images(), "gradcam", "second", [2, "top", "third@1"])
    assert not single
    best = made(Residual)(images()).argmax(1).tolist()
    assert found.scores is not None
    assert found.scores.labels == tuple(("2 tiger cat", f"{top} {NAMES[top]}", "third@1") for top in best)
    assert_close(found.scores.values[:, 0], made(Residual)(images())[:, 2], FLOAT32_SUMS)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "a class that is not there": (6, OptionError, "a class from 0 to 5 for this model, got 6"),
    "a negative class": (-1, OptionError, "target must be a class"),
    "no class at all": (1.5, OptionError, r"target must be a class \(index or name\).*, got 1.5"),
    "more than all": ("top7", OptionError, "at most top6 for this model, got top7"),
    "a name of several": ("crane", OptionError, "'crane' names 2: 1, 3. Give the index"),
    "a part of the names of several": ("tabby", OptionError, "'tabby' names 2: 0, 5"),
    "a misspelt name": (
        "tigre cat",
        OptionError,
        "no class 'tigre cat' in the model. Closest: 'tiger cat'.* Its 6 classes begin with: tabby",
    ),
    "no targets": ([], OptionError, "got an empty list"),
    "rows of another batch": ([[1], [2]], ShapeError, "for each of 3 images, got 2 rows of 1"),
    "an array of another batch": (torch.tensor([1, 2]), ShapeError, "for each of 3 images, got 2 rows of 1"),
    "rows of several lengths": ([[1], [2, 3], [1]], ShapeError, "got 3 rows of 1, 2"),
    "rows of tops": ([["top"]] * 3, OptionError, "must be classes where each image has its own"),
    "a tuple of classes": ((1, 2), OptionError, r"\(layer, channel\), .* Several targets are a list"),
    "a channel that is not there": (("third", 8), OptionError, "8 channels of 8x8, got third@8"),
    "a place that is not there": (("third", 1, 8, 0), OptionError, "8 channels of 8x8, got third@1,8,0"),
    "a function that returns none": (lambda output: 3.0, InputError, "must return a tensor of scores.*, got float"),
    "scores of another batch": (lambda output: output[:2, 0], ShapeError, r"\(3,\) or \(3, T\), got \(2,\)"),
    "scores that are no floats": (lambda output: output.argmax(1), ShapeError, "got .* torch.int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_target_that_is_none_is_refused(case: str) -> None:
    target, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        heat(target, named())


def test_target_name_without_names_is_refused() -> None:
    with pytest.raises(OptionError, match="as this model's classes have no names, got 'tabby'"):
        heat("tabby")


def test_target_without_a_class_axis_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(ShapeError, match=r"must be a function of the output .* puts out \(3, 2, 30, 30\)"):
        cf.attribute(model, images(), "gradcam", "0")
    assert cf.attribute(model, images(), "gradcam", "0", lambda output: output[:, 0, 4, 5]).shape == (3, 30, 30)


def test_parse_targets_takes_a_class_by_the_name_of_a_unit() -> None:
    assert parse_targets("cup@3", None, 1).layers == ("cup",)
    assert parse_targets("top", NAMES, 1).single
    assert not parse_targets(["top"], NAMES, 1).single
