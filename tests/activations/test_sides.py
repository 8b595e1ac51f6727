"""What goes into a layer, what the model itself puts out, and other functions of a model than its forward."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.activations.listing import list_layers
from cnnviz_fast.activations.patterns import resolve
from cnnviz_fast.errors import CaptureError, LayerNotFoundError, OptionError


class Attends(nn.Module):
    """Takes positional and named arguments, as attention does."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, *, mask: torch.Tensor | None = None) -> torch.Tensor:
        return query * key if mask is None else query * key * mask


class Net(nn.Module):
    """Layers in place, a layer that runs twice, and one with several arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.attends = Attends()
        self.head = nn.Conv2d(4, 2, 1)
        self.unused = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(self.attends(x - 1, x, mask=x.sign()))
        return self.head(x)

    def encode(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        """Run a part of the model, as `encode_image` of CLIP does."""
        y = self.stem(x) * scale
        return {"features": y, "pooled": y.mean((2, 3))}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


# Inputs


def test_capture_input_of_a_layer_is_what_its_forward_got(net: Net, batch: torch.Tensor) -> None:
    acts = capture(net, batch, ["input:stem", "stem", "input:relu", "relu:0", "input:head"])
    assert list(acts) == ["input:stem", "stem", "input:relu:0", "input:relu:1", "relu:0", "input:head"]
    assert torch.equal(acts["input:stem"], batch)
    # Before the in-place layer has written into it.
    assert torch.equal(acts["input:relu:0"], acts["stem"])
    assert acts["input:relu:0"].min() < 0
    assert torch.equal(acts["input:relu:1"].relu(), acts["input:head"])
    assert not net.stem._forward_pre_hooks
    assert not net.stem._forward_pre_hooks_with_kwargs


def test_capture_input_by_call_argument_and_pattern(net: Net, batch: torch.Tensor) -> None:
    every = capture(net, batch, ["input:relu", "relu"])
    assert list(capture(net, batch, "input:relu:1")) == ["input:relu:1"]
    assert torch.equal(capture(net, batch, "input:relu:1")["input:relu:1"], every["input:relu:1"])
    acts = capture(net, batch, ["input:attends[0]", "input:attends[mask]", "input:attends:0[1]"])
    assert torch.equal(acts["input:attends[0]"], every["relu:0"] - 1)
    assert torch.equal(acts["input:attends[mask]"], every["relu:0"].sign())
    assert torch.equal(acts["input:attends:0[1]"], every["relu:0"])
    assert torch.equal(capture(net, batch, "input:head[0]")["input:head[0]"], every["relu:1"])
    asked = ["input:type:Conv2d#0-1", "input:1:0", "input:re:he.*"]
    assert list(capture(net, batch, asked)) == ["input:stem", "input:head", "input:relu:0"]
    assert torch.equal(capture(net, batch, "input:stem", channels="1", reduce="sum")["input:stem"], batch[:, 1:2])


def test_capture_input_that_is_not_one_tensor_names_its_parts(net: Net, batch: torch.Tensor) -> None:
    with pytest.raises(
        CaptureError,
        match=r"^layer 'input:attends' must take in one tensor, got 3 \(input of type dict\)\. Name one: "
        r"'input:attends\[0\]', 'input:attends\[1\]', 'input:attends\[mask\]'\.$",
    ):
        capture(net, batch, "input:attends")
    with pytest.raises(
        CaptureError, match=r"^layer 'attends' has no part \[key\] in its dict: it has \[0\], \[1\], \[mask"
    ):
        capture(net, batch, "input:attends[key]")
    with pytest.raises(CaptureError, match=r"^layer 'input:relu' has no call 2: it ran 2 times, counted from 0\.$"):
        capture(net, batch, "input:relu:2")
    with pytest.raises(CaptureError, match=r"^layer 'input:unused' never ran in this pass"):
        capture(net, batch, "input:unused")
    with pytest.raises(LayerNotFoundError, match=r"^no layer 'input:steam' in the model\. Closest: 'stem'"):
        capture(net, batch, "input:steam")


def test_capture_input_sees_what_hooks_of_the_user_made_of_it(net: Net, batch: torch.Tensor) -> None:
    net.stem.register_forward_pre_hook(lambda module, given: (given[0] + 1,))
    assert torch.equal(capture(net, batch, "input:stem")["input:stem"], batch + 1)


def test_capture_input_ends_the_pass_before_the_layer_runs(net: Net, batch: torch.Tensor) -> None:
    ran: list[str] = []
    net.relu.register_forward_hook(lambda *_: ran.append("relu"))
    assert list(capture(net, batch, "input:relu:0")) == ["input:relu:0"]
    assert ran == []


def test_capture_stream_gives_inputs_before_outputs(net: Net, batch: torch.Tensor) -> None:
    layers = ["output", "head", "input:head", "stem", "input:stem"]
    expected = ["input:stem", "stem", "input:head", "head", "output"]
    assert capture_stream(net, batch, layers, lambda name, maps: None) == expected


def test_capture_layers_called_input_and_output_win(batch: torch.Tensor) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = nn.Conv2d(3, 4, 1)
            self.output = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output(self.input(x)) + 5

    model = Odd()
    acts = capture(model, batch, ["input", "output", "input:0", "input:output"])
    assert list(acts) == ["input", "output", "input:0", "input:output"]
    assert torch.equal(acts["input"], acts["input:0"])
    assert torch.equal(acts["input"], acts["input:output"])
    assert torch.equal(acts["output"], acts["input"].relu())
    numbered = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 1))
    assert torch.equal(capture(numbered, batch, "input:1")["input:1"], batch.relu())
    assert torch.equal(capture(numbered, batch, "input:-1")["input:1"], batch.relu())


# The model's own output


def test_capture_output_is_what_the_model_puts_out(net: Net, batch: torch.Tensor) -> None:
    acts = capture(net, batch, ["output", "head"])
    assert torch.equal(acts["output"], acts["head"])
    assert list(capture(net, batch, "output:0")) == ["output:0"]
    net.register_forward_hook(lambda module, given, output: output + 1)
    assert torch.equal(capture(net, batch, "output")["output"], acts["head"] + 1)
    assert torch.equal(capture(nn.ReLU(), batch, "output")["output"], batch.relu())
    with pytest.raises(CaptureError, match=r"^layer 'output' has no call 1: it ran 1 times"):
        capture(net, batch, "output:1")
    with pytest.raises(LayerNotFoundError, match="outputs"):
        capture(net, batch, "outputs")


def test_capture_part_of_the_models_output(batch: torch.Tensor) -> None:
    @dataclasses.dataclass
    class Outcome:
        logits: torch.Tensor
        hidden: tuple[torch.Tensor, ...]

    class Several(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = self.stem(x)
            return Outcome(y.mean((2, 3)), (x, y))

    model = Several()
    acts = capture(model, batch, ["output[logits]", "output[hidden][1]", "stem"])
    assert list(acts) == ["output[logits]", "output[hidden][1]", "stem"]
    assert torch.equal(acts["output[logits]"], acts["stem"].mean((2, 3)))
    assert torch.equal(acts["output[hidden][1]"], acts["stem"])
    with pytest.raises(CaptureError, match=r"^layer 'output' must put out one tensor, got 3 .* 'output\[logits\]'"):
        capture(model, batch, "output")


def test_resolve_output_and_inputs_say_their_sides(net: Net) -> None:
    targets = resolve(net, ["stem", "input:stem", "output"])
    assert [(t.name, t.side, t.key(None)) for t in targets] == [
        ("stem", "output", "stem"), ("stem", "input", "input:stem"), ("output", "result", "output"),
    ]  # fmt: skip
    assert targets[2].module is net
    assert [t.key(2) for t in targets] == ["stem:2", "input:stem:2", "output:2"]


def test_capture_of_a_transformers_model_captures_its_output_by_name() -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    model = ViTModel(config).train()
    acts = capture(model, torch.randn(1, 3, 16, 16), ["output[last_hidden_state]", "input:layers.0[0]", "layernorm"])
    assert torch.equal(acts["output[last_hidden_state]"], acts["layernorm"])
    assert [maps.shape for maps in acts.values()] == [(1, 5, 8)] * 3


# Other functions than forward


@pytest.mark.parametrize("forward", ["encode", Net.encode, lambda model, x, *more: model.encode(x, *more)])
def test_capture_forward_runs_another_function_of_the_model(forward: Any, net: Net, batch: torch.Tensor) -> None:
    acts = capture(net, batch, ["stem", "output[features]", "output[pooled]"], forward=forward)
    assert torch.equal(acts["stem"], acts["output[features]"])
    assert acts["output[pooled]"].shape == (2, 4)
    doubled = capture(net, batch, "output[features]", forward=forward, inputs=[2.0])["output[features]"]
    assert torch.equal(doubled, acts["stem"] * 2)
    assert capture_stream(net, batch, "stem", lambda name, maps: None, forward=forward) == ["stem"]
    with pytest.raises(CaptureError, match="'head' never ran"):
        capture(net, batch, "head", forward=forward)
    assert net.training


def test_capture_forward_operations_are_those_of_that_function(net: Net, batch: torch.Tensor) -> None:
    assert list(capture(net, batch, "sub")) == ["sub"]
    acts = capture(net, batch, ["mul", "stem"], forward="encode", inputs=[2.0])
    assert torch.equal(acts["mul"], acts["stem"] * 2)
    with pytest.raises(CaptureError, match=r"^layer 'mul' never ran in this pass\.$"):
        capture(net, batch, "mul")


def test_list_layers_forward_lists_the_calls_of_that_function(net: Net, batch: torch.Tensor) -> None:
    calls = {info.name: info.calls for info in list_layers(net, batch, forward="encode")}
    assert calls == {"stem": 1, "relu": 0, "attends": 0, "head": 0, "unused": 0}
    assert list_layers(net, batch)[1].calls == 2


def test_capture_forward_of_a_compiled_model_is_the_plain_one(net: Net, batch: torch.Tensor) -> None:
    compiled = torch.compile(net, backend="eager")
    expected = capture(net, batch, "output[pooled]", forward="encode")["output[pooled]"]
    assert torch.equal(capture(compiled, batch, "output[pooled]", forward="encode")["output[pooled]"], expected)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("encoded", r"^forward must be a method of the Net, got 'encoded'\. Closest: 'encode'"),
        ("training", r"^forward must be a method of the Net, got 'training'\."),
        (3, r"^forward must be the name of a method or a function, got int\."),
    ],
)
def test_capture_forward_that_is_no_function_is_refused(
    forward: Any, message: str, net: Net, batch: torch.Tensor
) -> None:
    with pytest.raises(OptionError, match=message):
        capture(net, batch, "stem", forward=forward)
    with pytest.raises(OptionError, match=message):
        list_layers(net, batch, forward=forward)
