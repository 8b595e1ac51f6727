"""Operations: what they are named, that what they put out is captured, and that modules win."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.activations.passes.operations import watching
from cnnviz_fast.errors import CaptureError, LayerNotFoundError


class Net(nn.Module):
    """Operators and functions of many kinds, and a module whose name is a function's."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Conv2d(3, 3, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.block(x))
        y += x
        y = torch.relu(2 * y + x)
        y = 1 - torch.cat([y, y], 1)
        return y[:, :2].flatten(1)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def names_of(model: nn.Module, batch: torch.Tensor) -> list[str]:
    names: list[str] = []
    with torch.no_grad(), watching(model, lambda name, output: names.append(name)):
        model(batch)
    return names


def test_watching_names_operations_as_fx_does(net: Net, batch: torch.Tensor) -> None:
    own = [name for name in names_of(net, batch) if not name.startswith(("block.", "relu."))]
    # The second relu is not the module's, and `+=`, `+` are one function.
    assert own[:5] == ["add", "mul", "add_1", "relu_1", "cat"]
    assert own[5:] == ["sub", "getitem", "flatten"]


@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0",
        pytest.param("densenet121", marks=pytest.mark.zoo),
    ],
)  # fmt: skip
def test_watching_finds_every_node_that_fx_names(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    modules = dict(model.named_modules())
    nodes = [node for node in get_graph_node_names(model)[1] if node != "x"]
    functions = {node for node in nodes if node not in modules and node.rpartition("_")[0] not in modules.keys() - {""}}
    assert functions
    assert functions <= set(names_of(model, torch.randn(1, 3, 64, 64)))


def test_capture_operation_equals_what_a_feature_extractor_gives() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    batch = torch.randn(1, 3, 64, 64)
    acts = capture(model, batch, ["layer4.1.add", "layer4.1.bn2", "layer4.*.add"])
    assert list(acts) == ["layer4.1.add", "layer4.1.bn2", "layer4.0.add"]
    extractor = create_feature_extractor(model, ["layer4.1.add"])
    with torch.no_grad():
        assert torch.equal(acts["layer4.1.add"], extractor(batch)["layer4.1.add"])
    # The in-place ReLU that follows has not written into it.
    assert acts["layer4.1.add"].min() < 0


def test_capture_operation_and_layers_in_one_pass_with_foreign_hooks(net: Net, batch: torch.Tensor) -> None:
    passes: list[int] = []
    net.block.register_forward_hook(lambda *_: passes.append(1))
    tables = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in net.modules()]
    acts = capture(net, batch, ["relu", "add"])
    assert passes == [1]
    assert torch.equal(acts["add"], acts["relu"] + batch)
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in net.modules()] == tables


def test_capture_name_of_a_module_is_never_an_operations(net: Net, batch: torch.Tensor) -> None:
    acts = capture(net, batch, ["relu", "relu_1"])
    assert torch.equal(acts["relu"], net.block(batch).detach().relu())
    assert torch.equal(acts["relu_1"], (2 * (acts["relu"] + batch) + batch).relu())


def test_capture_unknown_operation_names_the_nearest(batch: torch.Tensor) -> None:
    model = torchvision.models.resnet18(weights=None)
    with pytest.raises(LayerNotFoundError, match=r"^no layer 'layer4.1.adt' in the model\. Closest: 'layer4.1.add'"):
        capture(model, torch.randn(1, 3, 64, 64), "layer4.1.adt")


def test_capture_operation_behind_control_flow_that_looks_at_values(batch: torch.Tensor) -> None:
    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp() if x.sum() > 0 else x.neg()

    net = nn.Sequential(Looks())
    assert torch.equal(capture(net, batch.abs(), "0.exp")["0.exp"], batch.abs().exp())
    assert torch.equal(capture(net, -batch.abs(), "0.neg")["0.neg"], batch.abs())


def test_capture_operations_are_listed_once_for_a_model(
    net: Net, batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(net, batch, "add")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("cnnviz_fast.activations.capture"), "observe", None)
        assert list(capture(net, batch, "*mul")) == ["mul"]
    net.relu.forward = lambda x: x.exp()  # the list is made again before a name is refused
    assert list(capture(net, batch, "relu.exp")) == ["relu.exp"]


def test_capture_part_of_an_operation(batch: torch.Tensor) -> None:
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.split(x, [1, 2], 1)

    net = nn.Sequential(Halves())
    assert torch.equal(capture(net, batch, "0.split[1]")["0.split[1]"], batch[:, 1:])
    with pytest.raises(CaptureError, match=r"Name one: '0.split\[0\]', '0.split\[1\]'\."):
        capture(net, batch, "0.split")


def test_capture_operation_ends_the_pass_with_it(net: Net, batch: torch.Tensor) -> None:
    ended: list[str] = []
    net.register_forward_hook(lambda *_: ended.append("whole"))
    capture(net, batch, "mul")
    assert ended == []


def test_capture_stream_gives_operations_in_order(net: Net, batch: torch.Tensor) -> None:
    assert capture_stream(net, batch, ["cat", "add", "block"], lambda name, maps: None) == ["block", "add", "cat"]


def test_watching_sees_its_own_thread_only(net: Net, batch: torch.Tensor) -> None:
    alone = names_of(net, batch)
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.extend(names_of(net, batch) for _ in range(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [alone] * 40


def test_watching_keeps_count_of_modules_that_fail(batch: torch.Tensor) -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError

    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Fails()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                return self.first(x)
            except ValueError:
                return x

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tries = Tries()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tries(x) * 2

    assert names_of(Outer(), batch) == ["mul"]
