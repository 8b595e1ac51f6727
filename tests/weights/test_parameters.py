"""Parameters of a model: which, what is said of each, and article 004's table and histograms for its own model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import assert_same_statistics
from support.looping import over
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import DTypeError, InputError, LayerNotFoundError, OptionError

ALEXNET = """
import torch
from torch import nn
from torchvision.models import AlexNet

def make():
    with torch.device("meta"):
        net = AlexNet(num_classes=5)
    net.features.to_empty(device="cpu")
    net.classifier[1], net.classifier[4], net.classifier[6] = nn.Linear(9216, 128), nn.Linear(128, 64), nn.Linear(64, 5)
    return net
"""
"""Article 004's model with 5 classes, but for two layers that hold 54 of its 57 million weights: they are narrower."""


@pytest.fixture
def alexnet(tmp_path: Path) -> cf.LoadedModel:
    """Article 004's model: trained elsewhere, saved as a state dict, loaded here."""
    names: dict[str, Any] = {}
    exec(ALEXNET, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        trained = names["make"]()
        for parameter in trained.parameters():
            nn.init.normal_(parameter, std=0.02)
    torch.save(trained.state_dict(), tmp_path / "AlexNet.pth")
    (tmp_path / "alexnet_model.py").write_text(ALEXNET)
    return cf.load_model(f"{tmp_path / 'alexnet_model.py'}:make", weights=tmp_path / "AlexNet.pth", device="cpu")


def test_article_004_statistics_and_histograms_of_every_parameter(alexnet: cf.LoadedModel, tmp_path: Path) -> None:
    infos = cf.parameter_statistics(alexnet)
    state = torch.load(tmp_path / "AlexNet.pth", weights_only=True)
    assert [info.name for info in infos] == list(state)
    for info in infos:
        values = state[info.name].numpy()
        # As the article: numpy, n - 1, 50 bins. It prints the largest value as the minimum and the other way round.
        assert info.min == values.min()
        assert info.max == values.max()
        assert info.min < info.max
        wide = values.astype(np.float64)
        assert_same_statistics(np.array([info.mean, info.std]), [wide.mean(), wide.std(ddof=1)])
        counts, edges = np.histogram(wide.reshape(-1), bins=50)
        assert info.histogram == tuple(counts)
        assert info.edges == (edges[0], edges[-1])
        assert (info.shape, info.count, info.kind) == (values.shape, values.size, "parameter")


class Net(nn.Module):
    """Every kind of tensor that a module may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.tensor([[[1.0, -3.0, 5.0]]]))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.tied = nn.Linear(4, 2)
        self.tied.weight = self.head.weight
        self.register_buffer("grid", torch.arange(4.0))
        self.register_buffer("hidden", torch.arange(4.0), persistent=False)
        self.register_parameter("absent", None)
        self.scale = nn.Parameter(torch.tensor(7.0))


NAMES = [
    "token", "scale", "grid", "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.1.running_mean",
    "body.1.running_var", "head.weight", "head.bias", "tied.bias",
]  # fmt: skip


def test_parameter_statistics_walks_the_state_dict_without_counters() -> None:
    model = Net()
    names = [info.name for info in cf.parameter_statistics(model)]
    left_out = {"body.1.num_batches_tracked", "tied.weight"}
    assert names == [name for name in model.state_dict() if name not in left_out] == NAMES


def test_parameter_statistics_says_what_is_a_buffer() -> None:
    kinds = {info.name: info.kind for info in cf.parameter_statistics(Net())}
    assert [name for name, kind in kinds.items() if kind == "buffer"] == [
        "grid", "body.1.running_mean", "body.1.running_var",
    ]  # fmt: skip


def test_parameter_statistics_of_one_element_has_a_standard_deviation_of_0() -> None:
    scale = next(info for info in cf.parameter_statistics(Net()) if info.name == "scale")
    assert (scale.mean, scale.std, scale.min, scale.max) == (7, 0, 7, 7)
    assert (scale.shape, scale.count, scale.edges) == ((), 1, (6.5, 7.5))
    assert scale.histogram == tuple(np.histogram([7.0], 50)[0])


def test_parameter_statistics_of_a_constant_parameter() -> None:
    weight = next(info for info in cf.parameter_statistics(Net()) if info.name == "body.1.weight")
    assert (weight.mean, weight.std, weight.zeros, weight.edges) == (1, 0, 0, (0.5, 1.5))
    assert weight.histogram == tuple(np.histogram(np.ones(4), 50)[0])


def test_parameter_statistics_by_hand() -> None:
    token = cf.parameter_statistics(Net())[0]
    assert (token.mean, token.std, token.min, token.max, token.zeros) == (1, 4, -3, 5, 0)


def test_parameter_statistics_counts_what_is_not_finite() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[float("nan"), 1, 0, 3], [float("inf"), -float("inf"), 0, 0]]))
        model.bias.fill_(float("nan"))
    weight, bias = cf.parameter_statistics(model)
    assert (weight.nan, weight.inf, weight.zeros) == (1, 2, 3 / 8)
    assert (weight.mean, weight.min, weight.max) == (4 / 5, 0, 3)
    assert weight.histogram == tuple(np.histogram([1, 0, 3, 0, 0], 50)[0])
    assert (bias.mean, bias.std, bias.min, bias.max, bias.nan, bias.edges) == (None, None, None, None, 2, (0, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_parameter_statistics_of_other_dtypes(dtype: torch.dtype) -> None:
    model = nn.Linear(40, 30).to(dtype)
    weight = cf.parameter_statistics(model)[0]
    values = model.weight.detach().double().numpy()
    assert weight.dtype == str(dtype).removeprefix("torch.")
    assert_same_statistics(np.array([weight.mean, weight.std]), [values.mean(), values.std(ddof=1)])
    assert weight.histogram == tuple(np.histogram(values, 50)[0])


def test_parameter_statistics_of_integer_parameters_and_empty_ones() -> None:
    model = nn.Module()
    model.whole = nn.Parameter(torch.tensor([1, 2, 6], dtype=torch.int8), requires_grad=False)
    model.empty = nn.Parameter(torch.empty(0, 3))
    whole, empty = cf.parameter_statistics(model)
    assert (whole.mean, whole.min, whole.max, whole.dtype) == (3, 1, 6, "int8")
    assert (empty.count, empty.mean, empty.zeros, sum(empty.histogram)) == (0, None, None, 0)


def test_parameter_statistics_leaves_the_model_alone() -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cf.parameter_statistics(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@over(
    ("layers", "expected"),
    [
        ("body", [name for name in NAMES if name.startswith("body")]),
        (["body.1", "type:Linear"], NAMES[5:]),
        ("tied", ["tied.weight", "tied.bias"]),
        (-1, ["tied.weight", "tied.bias"]),
        (["body.0", "body"], NAMES[3:9]),
    ],
)
def test_parameter_statistics_of_some_layers(layers: str | int | list[str], expected: list[str]) -> None:
    assert [info.name for info in cf.parameter_statistics(Net(), layers)] == expected


def test_parameter_statistics_of_a_compiled_model_has_plain_names() -> None:
    model = Net()
    model.body = torch.compile(model.body)
    assert [info.name for info in cf.parameter_statistics(torch.compile(model))] == NAMES


def test_parameter_statistics_are_json() -> None:
    infos = cf.parameter_statistics(Net())
    loaded = json.loads(json.dumps([dataclasses.asdict(info) for info in infos], allow_nan=False))
    assert [record["name"] for record in loaded] == NAMES
    assert all(sum(record["histogram"]) == record["count"] for record in loaded)


def _complex() -> nn.Module:
    model = nn.Module()
    model.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    return model


def _sparse() -> nn.Module:
    model = nn.Module()
    model.table = nn.Parameter(torch.eye(3).to_sparse())
    return model


def _quantised() -> nn.Module:
    model = nn.Module()
    values = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    model.steps = nn.Parameter(values, requires_grad=False)
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "complex": (_complex, r"^parameter 'phase' must hold real numbers densely, got torch.complex64\. "),
    "sparse": (_sparse, r"^parameter 'table' must hold .* got torch.float32 in torch.sparse_coo\. "),
    "quantised": (_quantised, r"^parameter 'steps' must hold .* got torch.qint8 in torch.per_tensor_affine\. "),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), r"^parameter 'weight' .* got one on the meta device\. Load"),
    "lazy": (lambda: nn.LazyLinear(2), r"^parameter 'weight' .* got a lazy one without a shape\. Run the model once"),
}


@over("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore:Lazy modules")
def test_parameter_statistics_of_what_holds_no_numbers_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(DTypeError, match=message):
        cf.parameter_statistics(make())


@over(
    ("layers", "error", "message"),
    [
        ("hed", LayerNotFoundError, "no layer 'hed' in the model. Closest: 'head'"),
        ("body.2", OptionError, "layers must name a layer with parameters, got 'body.2'"),
        ("head:1", OptionError, "layers must name modules where their parameters are meant, got 'head:1'"),
        ("head[0]", OptionError, r"got 'head\[0\]'. Leave the call or the part of its output away: 'head'"),
    ],
)
def test_parameter_statistics_wrong_layers_are_refused(layers: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cf.parameter_statistics(Net(), layers)


def test_parameter_statistics_of_no_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"must be a torch\.nn\.Module"):
        cf.parameter_statistics("resnet50")  # type: ignore[arg-type]
    assert cf.parameter_statistics(nn.ReLU()) == []
