"""The fingerprint of a run: the same in another process, another where a pixel may be another."""

from __future__ import annotations

import enum
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.processes import Python
from torch import nn
from torchvision.transforms import v2

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.preprocess import imagenet_preset
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.options.reading import PreprocessOptions
from cnnviz_fast.runs.folder.differences import differences
from cnnviz_fast.runs.folder.fingerprint import described, fingerprint_of


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


MAKE = """
import json, sys
import torch
from cnnviz_fast.runs.folder.fingerprint import fingerprint_of
from cnnviz_fast.models.load import load_model
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.options.reading import PreprocessOptions
model = load_model("resnet18", weights="none", seed=3, preprocess=PreprocessOptions(size=64, mean=(0.5, 0.5, 0.5)))
assert [hash("a")] != [int(sys.argv[1])]  # as in any process that Python begins
print(json.dumps(fingerprint_of(model, ["layer1"], {"render": RenderOptions(tile=56), "names": {"b", "a", "c"}})))
"""


def test_fingerprint_is_the_same_in_other_processes() -> None:
    process = Python("-c", MAKE, str(hash("a")))
    assert process.end() == 0, process.said
    first = json.loads(process.printed)
    model = load_model("resnet18", weights="none", seed=3, preprocess=PreprocessOptions(size=64, mean=(0.5, 0.5, 0.5)))
    here = fingerprint_of(model, ["layer1"], {"render": RenderOptions(tile=56), "names": {"c", "b", "a"}})
    assert differences(here, first) == []
    assert first["model"] == "torchvision:resnet18"
    assert first["layers"] == ["layer1"]
    assert "+" not in first["torch"]


def test_fingerprint_tells_everything_apart_that_changes_pixels() -> None:
    def of(
        module: nn.Module, layers: tuple[str, ...] = ("0",), preprocess: Any = None, **options: Any
    ) -> dict[str, Any]:
        record = LoadedModel(module, preprocess or imagenet_preset(), "mine", "as given")
        return fingerprint_of(record, layers, {"render": RenderOptions(**options)})

    torch.manual_seed(0)
    stride = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), *small()[1:])
    stride.load_state_dict(small().state_dict())
    base = of(small(), tile=56)
    assert differences(base, of(small(), tile=56)) == []
    for other, said in (
        (of(small(1), tile=56), "weights: "),
        (of(stride, tile=56), "structure: "),
        (of(small(), ("1",), tile=56), 'layers: ["0"] here, ["1"] there'),
        (of(small(), tile=64), "render.fields.tile: 56 here, 64 there"),
        (of(small(), preprocess=v2.Resize(3), tile=56), "preprocess.is: "),
    ):
        assert any(text.startswith(said.replace("fields.", "")) for text in differences(base, other)), differences(
            base, other
        )


def test_fingerprint_of_a_model_without_values_is_refused() -> None:
    with pytest.raises(ModelError, match="must have values"):
        fingerprint_of(load_model("resnet18", weights="none", device="meta"), [], {})


class Colour(enum.Enum):
    RED = 1


@dataclass
class Scale:
    by: float


class Plain:
    def __init__(self, value: object) -> None:
        self._value = value

    def method(self, image: object) -> object:
        return image


def scaled(by: float) -> Any:
    return lambda image: image * by


def keyword(image: object, *, by: int = 3) -> object:
    return image


def holds_itself() -> list[Any]:
    part: list[Any] = [1]
    part.append(part)
    return part


DIFFERENT = [
    None, True, 2, 2.5, "2", [2], {"a": 2}, Colour.RED, Scale(2), Scale(3), Plain(2), Plain(3), Plain(2).method,
    Plain(3).method, scaled(2), scaled(3), keyword, functools.partial(keyword, by=2), functools.partial(keyword, by=4),
    len, Plain, b"2", torch.float32, torch.zeros(2), torch.zeros(3), np.zeros(2), lambda image: image + 1,
    lambda image: image + 2, lambda image, by=1: image + by, lambda image: [p for p in image if p],
    lambda image: [p for p in image if not p], v2.Resize(7), v2.Resize(8), v2.Compose([v2.Resize(7)]),
    nn.Sequential(v2.Resize(7)), nn.Sequential(v2.Resize(8)), imagenet_preset(), Path("2/3"), {3, 4},
    holds_itself(), complex(1, 2),
]  # fmt: skip


def test_described_values_are_told_apart() -> None:
    texts = [json.dumps(described(value)) for value in DIFFERENT]
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if " at 0x" in text]


def test_described_the_same_twice_is_the_same() -> None:
    assert described(scaled(2)) == described(scaled(2))
    assert described(Plain([Scale(1.0)])) == described(Plain((Scale(1.0),)))
    assert described(imagenet_preset()) == described(imagenet_preset())
    assert described(v2.Compose([v2.Resize(7)])) == described(v2.Compose([v2.Resize(7)]))
    assert described({"b", "a"}) == ["a", "b"]
    assert described(RenderOptions(tile=7)) == described(RenderOptions(tile=7)) != described(RenderOptions(tile=8))
    assert described({Path("a"): Path("b/c")}) == {"a": "b/c"}


def test_described_preset_names_its_steps() -> None:
    preset = described(imagenet_preset())
    assert preset["is"] == "torchvision.transforms._presets.ImageClassification"
    assert (preset["crop_size"], preset["resize_size"]) == ([224], [256])
    assert preset["interpolation"] == "InterpolationMode.BILINEAR"


def test_described_image_processor_of_transformers() -> None:
    import transformers

    first, same, other = (transformers.ViTImageProcessor(size={"height": px, "width": px}) for px in (64, 64, 32))
    assert described(first) == described(same) != described(other)
    json.dumps(described(first))


def test_described_object_that_does_not_pickle_is_its_class() -> None:
    import threading

    assert described(threading.Lock()) == {"is": "_thread.lock"}
