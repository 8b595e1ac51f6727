"""Capture: what a layer put out, bit for bit, from a model that comes back as it was."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import gc
import json
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from support.architectures import RepeatedWeights
from support.assertions import FLOAT32_SUMS, OTHER_DEVICE, assert_close
from support.memory import resident_bytes
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from cnnviz_fast.activations import listing
from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.activations.listing import list_layers
from cnnviz_fast.activations.passes import snapshot
from cnnviz_fast.activations.passes.snapshot import evaluating
from cnnviz_fast.errors import CaptureError, InputError, LayerNotFoundError
from cnnviz_fast.models.load import load_model


class Small(nn.Module):
    """Convolution, batch norm, the same in-place ReLU twice, dropout, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 2, 1)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.relu(self.last(self.drop(x)))


class Calls(nn.Module):
    """A network that is one function, with named identity layers for it to pass things through."""

    def __init__(self, body: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(self, x)


class Puts(nn.Module):
    """A layer that puts out whatever a function makes of its input."""

    def __init__(self, makes: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.makes = makes

    def forward(self, x: torch.Tensor) -> Any:
        return self.makes(x)


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def puts(makes: Callable[[torch.Tensor], Any]) -> nn.Module:
    return Calls(lambda net, x: (net.odd(x), x)[1], odd=Puts(makes))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Compare memory, so that NaN equals NaN and -0 differs from 0."""
    as_bytes = [np.ascontiguousarray(t.numpy()).view(np.uint8) for t in (a, b)]
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(*as_bytes)


def cloned_outputs(model: nn.Module, batch: torch.Tensor, layers: list[str]) -> dict[str, list[torch.Tensor]]:
    """Clone every output of some layers with plain hooks, in a pass of its own: the independent witness."""
    seen: dict[str, list[torch.Tensor]] = collections.defaultdict(list)
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: (
                seen[name].append(output.clone()) if isinstance(output, torch.Tensor) else None
            )
        )
        for name in layers
    ]
    flags = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        model.eval()(batch)
    for handle in handles:
        handle.remove()
    for module, flag in flags:
        module.training = flag
    return seen


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


# What is captured


def test_capture_layers_give_maps_in_the_order_asked_for(small: Small, batch: torch.Tensor) -> None:
    acts = capture(small, batch, ["last", "conv", -6])
    assert list(acts) == ["last", "conv"]
    assert [tuple(maps.shape) for maps in acts.values()] == [(2, 2, 6, 5), (2, 4, 6, 5)]
    seen = cloned_outputs(small, batch, ["conv", "last"])
    assert all(same_bits(maps, seen[name][0]) for name, maps in acts.items())


def test_capture_single_pattern_needs_no_list(small: Small, batch: torch.Tensor) -> None:
    assert list(capture(small, batch, "conv")) == list(capture(small, batch, 0)) == ["conv"]


def test_capture_bn1_of_resnet50_keeps_negative_values_before_the_inplace_relu() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    assert model.relu.inplace
    acts = capture(model, torch.randn(1, 3, 64, 64), ["bn1", "relu"])
    assert acts["bn1"].min() < 0
    assert acts["relu"].min() == 0
    assert torch.equal(acts["bn1"].clamp(min=0), acts["relu"])


def test_capture_module_that_runs_several_times_names_each_call(small: Small, batch: torch.Tensor) -> None:
    acts = capture(small, batch, "relu")
    assert list(acts) == ["relu:0", "relu:1"]
    seen = cloned_outputs(small, batch, ["relu"])["relu"]
    assert [tuple(maps.shape) for maps in acts.values()] == [(2, 4, 6, 5), (2, 2, 6, 5)]
    assert all(map(same_bits, acts.values(), seen))


def test_capture_call_suffix_gives_only_that_call(small: Small, batch: torch.Tensor) -> None:
    every = capture(small, batch, "relu")
    assert list(capture(small, batch, "relu:1")) == ["relu:1"]
    assert same_bits(capture(small, batch, "relu:1")["relu:1"], every["relu:1"])
    assert list(capture(small, batch, ["relu:1", "relu", "conv:0"])) == ["relu:1", "relu:0", "conv:0"]
    # Only the modules that have a second call answer a pattern for it.
    del small.unused
    assert list(capture(small, batch, "*:1")) == ["relu:1"]


def test_capture_call_beyond_the_number_of_calls_says_how_many(small: Small, batch: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match=r"^layer 'relu' has no call 2: it ran 2 times, counted from 0\.$"):
        capture(small, batch, "relu:2")


def test_capture_shared_module_is_captured_under_the_name_asked_for(batch: torch.Tensor) -> None:
    shared = nn.Conv2d(3, 3, 1)
    net = Calls(lambda net, x: net.second(net.first(x)), first=shared, second=shared)
    acts = capture(net, batch, ["second", "first:0"])
    assert list(acts) == ["second:0", "second:1", "first:0"]
    assert same_bits(acts["second:0"], acts["first:0"])
    assert not same_bits(acts["second:0"], acts["second:1"])


@pytest.mark.parametrize(
    "wrap",
    [lambda x: (x,), lambda x: [x, None], lambda x: {"out": x, "aux": None}, lambda x: ({"deep": [x]}, "text")],
    ids=["tuple", "list", "dict", "nested"],
)
def test_capture_container_with_one_tensor_gives_that_tensor(wrap: Callable[..., Any], batch: torch.Tensor) -> None:
    assert same_bits(capture(puts(wrap), batch, "odd")["odd"], batch)


@pytest.mark.parametrize(
    ("makes", "message"),
    [
        (
            lambda x: (x, x),
            r"^layer 'odd' must put out one tensor, got 2 \(output of type tuple\)\. Name one: 'odd\[0\]', 'odd\[1\]'",
        ),
        (lambda x: None, r"^layer 'odd' must put out one tensor, got 0 \(output of type NoneType\)\.$"),
        (lambda x: x[:, :0], r"^layer 'odd' put out an empty tensor of shape \(2, 0, 6, 5\)\.$"),
        (lambda x: x.to("meta"), r"^layer 'odd' put out a meta tensor, which has no values\."),
    ],
    ids=["several", "none", "empty", "meta"],
)
def test_capture_output_that_is_not_one_tensor_is_refused(
    makes: Callable[..., Any], message: str, batch: torch.Tensor
) -> None:
    net = puts(makes)
    with pytest.raises(CaptureError, match=message):
        capture(net, batch, "odd")
    assert hook_count(net) == 0


def test_capture_vector_output_is_given_as_it_is(batch: torch.Tensor) -> None:
    assert capture(puts(lambda x: x.mean((2, 3))), batch, "odd")["odd"].shape == (2, 3)


def test_capture_layer_that_never_runs_is_refused(small: Small, batch: torch.Tensor) -> None:
    for pattern in ("unused", "unus*", ["conv", "unused"], ["type:Conv2d", "unused"], "unused:0"):
        with pytest.raises(CaptureError, match=r"^layer 'unused' never ran in this pass"):
            capture(small, batch, pattern)


def test_capture_pattern_leaves_out_what_never_ran_with_a_warning(small: Small, batch: torch.Tensor) -> None:
    with pytest.warns(UserWarning, match=r"^left out 1 layers that never ran: 'unused'$") as caught:
        acts = capture(small, batch, "type:Conv2d")
    assert list(acts) == ["conv", "last"]
    assert caught[0].filename == __file__


def test_capture_unknown_layer_fails_before_the_pass(small: Small) -> None:
    with pytest.raises(LayerNotFoundError):
        capture(small, torch.zeros(1, 99, 1, 1), "conf")


# What the caller may do with it


def test_capture_results_are_normal_tensors(small: Small, batch: torch.Tensor) -> None:
    maps = capture(small, batch, "conv")["conv"]
    assert not maps.requires_grad
    assert maps.is_leaf
    assert not maps.is_inference()
    maps.requires_grad_()
    (maps * 2).sum().backward()
    assert torch.equal(maps.grad, torch.full_like(maps, 2))
    maps.detach().mul_(0)
    assert not maps.any()


def test_capture_results_are_normal_tensors_under_inference_mode_too(small: Small, batch: torch.Tensor) -> None:
    def cut_off(net: Small, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return net.conv(x)

    with torch.inference_mode():
        inside = capture(small, batch * 1, "conv")["conv"]
    within = capture(Calls(cut_off, conv=small.conv), batch, "conv")["conv"]
    for maps in (inside, within):
        assert not maps.is_inference()
        assert same_bits(maps, capture(small, batch, "conv")["conv"])


def test_capture_output_that_requires_grad_is_detached(batch: torch.Tensor) -> None:
    class Weight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 2, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight

    net = Calls(lambda net, x: net.weight(x), weight=Weight())
    maps = capture(net, batch, "weight")["weight"]
    assert not maps.requires_grad
    maps.zero_()
    assert net.weight.weight.eq(1).all()


# What must stay as it was


def test_capture_removes_its_hooks_and_keeps_foreign_ones_in_order(small: Small, batch: torch.Tensor) -> None:
    order: list[str] = []
    small.conv.register_forward_hook(lambda *_: order.append("first"))
    small.conv.register_forward_pre_hook(lambda *_: order.append("before"))
    small.conv.register_forward_hook(lambda *_: order.append("second"))
    tables = [dict(module._forward_hooks) for module in small.modules()]
    capture(small, batch, ["conv", "bn", "relu"])
    assert order == ["before", "first", "second"]
    assert [dict(module._forward_hooks) for module in small.modules()] == tables


def test_capture_sees_what_a_foreign_hook_made_of_the_output(small: Small, batch: torch.Tensor) -> None:
    small.conv.register_forward_hook(lambda module, args, output: output.fill_(7))
    assert capture(small, batch, "conv")["conv"].eq(7).all()


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), SystemExit(2)])
def test_capture_model_that_is_interrupted_leaves_nothing_behind(
    small: Small, batch: torch.Tensor, error: BaseException
) -> None:
    def stop(*_: object) -> None:
        raise error

    small.train()
    handle = small.last.register_forward_hook(stop)
    expected = CaptureError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected) as caught:
        capture(small, batch, ["conv", "relu", "last"])
    assert caught.value is error or caught.value.__cause__ is error
    handle.remove()
    assert hook_count(small) == 0
    assert all(module.training for module in small.modules())
    assert torch.is_grad_enabled()
    assert not snapshot._held


def test_capture_mixed_training_flags_are_restored_module_by_module(small: Small, batch: torch.Tensor) -> None:
    flags = {}
    for turn, (name, module) in enumerate(small.named_modules()):
        module.training = flags[name] = turn % 2 == 0
    statistics = copy.deepcopy(small.bn.state_dict())
    acts = capture(small, batch, ["bn", "drop"])
    assert {name: module.training for name, module in small.named_modules()} == flags
    assert all(torch.equal(value, small.bn.state_dict()[key]) for key, value in statistics.items())
    assert same_bits(acts["drop"], acts["bn"].clamp(min=0))


def test_evaluating_does_not_call_a_train_method_of_the_model() -> None:
    class Merges(nn.Module):
        def train(self, mode: bool = True) -> Merges:
            raise AssertionError("train() may do more than set a flag")

    model = Merges()
    with evaluating(dict(model.named_modules())):
        assert not model.training
    assert model.training


def test_evaluating_twice_at_once_restores_with_the_last(small: Small) -> None:
    with evaluating(dict(small.named_modules())):
        with evaluating({"conv": small.conv}):
            assert not small.conv.training
        assert not small.conv.training
    assert small.conv.training
    assert not snapshot._held


def test_capture_leaves_gradients_weights_batch_and_random_state_alone(batch: torch.Tensor) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1), Puts(lambda x: nn.functional.dropout(x, 0.5)))
    net(batch.clone()).sum().backward()
    before = copy.deepcopy([(p.detach(), p.grad) for p in net.parameters()])
    batch_before, random_before = batch.clone(), torch.get_rng_state()
    acts = capture(net, batch, ["0", "2"])
    assert all(torch.equal(p, q) and torch.equal(p.grad, g) for p, (q, g) in zip(net.parameters(), before, strict=True))
    assert torch.equal(batch, batch_before)
    assert torch.equal(torch.get_rng_state(), random_before)
    # The last layer did draw.
    assert acts["2"].eq(0).any()


def test_capture_builds_no_graph_in_the_pass(batch: torch.Tensor) -> None:
    outputs: list[torch.Tensor] = []
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Identity())
    net[0].register_forward_hook(lambda module, args, output: outputs.append(output))
    capture(net, batch.requires_grad_(), 1)
    assert not outputs[0].requires_grad


def test_capture_in_the_middle_of_training_leaves_the_graph_usable(small: Small, batch: torch.Tensor) -> None:
    small.eval()
    expected = torch.autograd.grad(small(batch).sum(), small.conv.weight)[0]
    loss = small(batch.requires_grad_()).sum()
    acts = capture(small, batch, "conv")
    assert not acts["conv"].requires_grad
    assert torch.equal(torch.autograd.grad(loss, small.conv.weight)[0], expected)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_capture_tables_that_a_model_caches_stay_fit_for_training(
    mode: Callable[..., Any], batch: torch.Tensor
) -> None:
    class Caches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1, 1))
            self.table: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.table is None:
                self.table = torch.linspace(0, 1, x.shape[-1])
            return x * self.weight * self.table

    net = nn.Sequential(Caches())
    with mode():
        capture(net, batch, 0)
    net(batch).sum().backward()
    assert net[0].weight.grad is not None


class Ways:
    """The ways out of a pass: each runs a capture of `small` that ends in its own way."""

    @staticmethod
    def normal(small: Small, batch: torch.Tensor) -> None:
        capture(small, batch, ["conv", "relu", "last"])

    @staticmethod
    def error_in_the_model(small: Small, batch: torch.Tensor) -> None:
        with pytest.raises(CaptureError, match="the model failed"):
            capture(small, batch[:, :2], ["conv", "relu"])

    @staticmethod
    def error_in_the_consumer(small: Small, batch: torch.Tensor) -> None:
        def consumer(name: str, maps: torch.Tensor) -> None:
            raise KeyError(name)

        with pytest.raises(KeyError, match="relu"):
            capture_stream(small, batch, "relu", consumer)

    @staticmethod
    def interrupt_in_the_consumer(small: Small, batch: torch.Tensor) -> None:
        def consumer(name: str, maps: torch.Tensor) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            capture_stream(small, batch, "relu", consumer)

    @staticmethod
    def early_stop(small: Small, batch: torch.Tensor) -> None:
        capture(small, batch, "relu:0")

    @staticmethod
    def stop_by_the_consumer(small: Small, batch: torch.Tensor) -> None:
        assert capture_stream(small, batch, ["conv", "last"], lambda name, maps: False) == ["conv"]

    @staticmethod
    def abandoned_generator(small: Small, batch: torch.Tensor) -> None:
        def receiver() -> Generator[None, torch.Tensor, None]:
            for _ in range(2):
                assert (yield).ndim == 4

        receiving = receiver()
        next(receiving)
        # It ends before the layers do.
        with pytest.raises(StopIteration):
            capture_stream(small, batch, ["conv", "bn", "relu"], lambda name, maps: receiving.send(maps))

    @staticmethod
    def abandoned_generator_of_captures(small: Small, batch: torch.Tensor) -> None:
        pending = (capture(small, sample[None], "last") for sample in batch)
        assert list(next(pending)) == ["last"]
        pending.close()

    @staticmethod
    def operation(small: Small, batch: torch.Tensor) -> None:
        capture(small, batch, ["conv.conv2d", "last"])

    @staticmethod
    def refused_output(small: Small, batch: torch.Tensor) -> None:
        with pytest.raises(CaptureError, match="has no part"):
            capture(small, batch, "conv[0]")


WAYS = [getattr(Ways, name) for name in vars(Ways) if not name.startswith("_")]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_capture_every_way_out_leaves_the_model_as_it_was(
    way: Callable[..., None], training: bool, small: Small, batch: torch.Tensor
) -> None:
    small.train(training)
    small.bn.train(not training)
    small(batch).sum().backward()
    small.conv.register_forward_hook(lambda *_: None)
    small.last.register_forward_pre_hook(lambda *_: None)

    def state() -> Any:
        hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in small.modules()]
        return hooks, [m.training for m in small.modules()], torch.is_grad_enabled(), torch.get_rng_state().tolist()

    before, tensors = state(), copy.deepcopy([*small.state_dict().values(), *(p.grad for p in small.parameters())])
    way(small, batch)
    assert state() == before
    now = [*small.state_dict().values(), *(p.grad for p in small.parameters())]
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(tensors, now, strict=True))
    assert not snapshot._held
    assert not torch._C._is_torch_function_mode_enabled()


@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_capture_every_way_out_lets_the_model_go(way: Callable[..., None], batch: torch.Tensor) -> None:
    model = Small()
    way(model, batch)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("turns", [150, pytest.param(500, marks=pytest.mark.long)])
def test_capture_a_thousand_times_grows_the_process_by_less_than_2_mb(turns: int) -> None:
    model = Small()
    large = torch.randn(1, 3, 96, 96)

    def passes(count: int) -> None:
        for turn in range(count):
            side = 64 + turn % 3 * 16
            capture(model, large[..., :side], ["conv", "relu", "last"])
            capture_stream(model, large, "type:Conv2d:0", lambda name, maps: name == "conv")

    passes(20)
    gc.collect()
    before = resident_bytes()
    passes(turns)
    gc.collect()
    assert resident_bytes() - before < 2 * 2**20


# Streams


def test_capture_stream_hands_layers_over_as_they_run(small: Small, batch: torch.Tensor) -> None:
    got: dict[str, torch.Tensor] = {}
    names = capture_stream(small, batch, ["last", "relu", "conv"], got.__setitem__)
    assert names == list(got) == ["conv", "relu", "last", "relu:1"]
    expected = capture(small, batch, ["conv", "relu:0", "last", "relu:1"])
    assert all(same_bits(a, b) for a, b in zip(got.values(), expected.values(), strict=True))


def test_capture_stream_holds_one_layer_at_a_time() -> None:
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(20)))
    kept: list[StorageWeakRef] = []

    def consumer(name: str, maps: torch.Tensor) -> None:
        assert all(earlier.expired() for earlier in kept), name
        kept.append(StorageWeakRef(maps.untyped_storage()))

    capture_stream(model, torch.randn(1, 4, 128, 128), "*", consumer)
    assert len(kept) == 20


def test_capture_stream_of_a_layer_that_never_runs_is_refused(small: Small, batch: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match="'unused' never ran"):
        capture_stream(small, batch, ["conv", "unused"], lambda name, maps: None)
    assert capture_stream(small, batch, ["conv", "unused"], lambda name, maps: False) == ["conv"]


def test_capture_stream_error_is_not_swallowed_by_the_model(batch: torch.Tensor) -> None:
    def forgiving(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(Exception):
            net.odd(x)
        return x

    def consumer(name: str, maps: torch.Tensor) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        capture_stream(Calls(forgiving, odd=nn.Identity()), batch, "odd", consumer)


def test_capture_ends_the_pass_after_the_last_call_asked_for(small: Small, batch: torch.Tensor) -> None:
    ran: list[str] = []
    for name, module in small.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    assert list(capture(small, batch, ["relu:0", "conv:0"])) == ["relu:0", "conv:0"]
    assert ran == ["conv", "bn", "relu"]
    ran.clear()
    # Whether a module runs again is only known at the end.
    capture(small, batch, ["relu", "conv:0"])
    assert ran == ["conv", "bn", "relu", "drop", "last", "relu"]


def test_capture_keeps_only_what_is_asked_for(small: Small, batch: torch.Tensor) -> None:
    maps = capture(small, batch, "conv")["conv"]
    assert torch.equal(capture(small, batch, "conv", channels="2-3")["conv"], maps[:, 2:])
    assert torch.equal(
        capture(small, batch, "conv", channels=[1, 3], reduce="sum")["conv"], maps[:, [1, 3]].sum(1, True)
    )
    assert capture(small, batch, "conv", keep="cpu")["conv"].device.type == "cpu"
    with pytest.raises(CaptureError, match=r"^channels must be 0 to 3 for layer 'conv', got 4\.$"):
        capture(small, batch, "conv", channels=4)


def test_capture_part_of_an_output_that_holds_several(batch: torch.Tensor) -> None:
    @dataclasses.dataclass
    class Output:
        last_hidden_state: torch.Tensor
        hidden_states: tuple[torch.Tensor, ...]

    net = puts(lambda x: Output(x + 1, (x, x + 2)))
    acts = capture(net, batch, ["odd[hidden_states][1]", "odd[last_hidden_state]"])
    assert list(acts) == ["odd[hidden_states][1]", "odd[last_hidden_state]"]
    assert torch.equal(acts["odd[hidden_states][1]"], batch + 2)
    assert torch.equal(acts["odd[last_hidden_state]"], batch + 1)
    twice = Calls(lambda net, x: net.odd(net.odd(x)[1]), odd=Puts(lambda x: (x, x + 1)))
    assert list(capture(twice, batch, "odd[1]")) == ["odd:0[1]", "odd:1[1]"]
    with pytest.raises(
        CaptureError, match=r"^layer 'odd' has no part \[pooler\] in its Output: it has \[last_hidden_st"
    ):
        capture(net, batch, "odd[pooler]")


# Devices, dtypes, bad input


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_capture_batch_is_brought_to_the_dtype_of_the_model(
    small: Small, batch: torch.Tensor, dtype: torch.dtype
) -> None:
    maps = capture(small.to(dtype), batch, "conv")["conv"]
    assert maps.dtype == dtype
    assert torch.equal(maps, cloned_outputs(small, batch.to(dtype), ["conv"])["conv"][0])


def test_capture_integer_batch_stays_integer() -> None:
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    assert capture(net, torch.tensor([[1, 2, 3]]), 0)["0"].shape == (1, 3, 4)


def test_capture_under_autocast_keeps_the_dtype_of_the_layer(small: Small, batch: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert capture(small, batch, "conv")["conv"].dtype == torch.bfloat16


def test_capture_channels_last_keeps_values(small: Small, batch: torch.Tensor) -> None:
    plain = capture(small, batch, "conv")["conv"]
    turned = capture(small.to(memory_format=torch.channels_last), batch.to(memory_format=torch.channels_last), "conv")
    assert_close(turned["conv"], plain, FLOAT32_SUMS)


@pytest.mark.gpu
def test_capture_on_a_gpu_moves_the_batch_and_keeps_the_random_state(small: Small, batch: torch.Tensor) -> None:
    net = nn.Sequential(small, Puts(lambda x: nn.functional.dropout(x, 0.5))).cuda()
    before = torch.cuda.get_rng_state()
    maps = capture(net, batch, "0.conv")["0.conv"]
    assert maps.is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert_close(maps, capture(small.cpu(), batch, "conv")["conv"], OTHER_DEVICE)


def test_capture_model_that_fails_says_the_shape_and_keeps_the_cause(small: Small) -> None:
    with pytest.raises(
        CaptureError, match=r"^the model failed on an input of shape \(1, 5, 8, 8\): RuntimeError: "
    ) as caught:
        capture(small, torch.zeros(1, 5, 8, 8), "conv")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "\n" not in str(caught.value)
    assert hook_count(small) == 0


def test_capture_batch_that_is_no_tensor_is_an_input_error(small: Small) -> None:
    with pytest.raises(InputError, match=r"must be a \(N, C, H, W\) tensor, got ndarray"):
        capture(small, np.zeros((1, 3, 8, 8)), "conv")


def test_capture_model_without_weights_in_memory_is_refused(batch: torch.Tensor) -> None:
    with pytest.raises(CaptureError, match="meta tensor, which has no values"):
        capture(Small().to("meta"), batch, "conv")


def test_capture_from_eight_threads_at_once_never_mixes_maps(small: Small) -> None:
    small.train()
    inputs = [torch.full((1, 3, 8, 8), float(n)) for n in range(8)]
    expected = [capture(small, x, "*elu")["relu:0"] for x in inputs]
    start = threading.Barrier(8)
    wrong: list[int] = []

    def work(n: int) -> None:
        start.wait()
        for _ in range(25):
            acts = capture(small, inputs[n], ["relu", "conv"])
            if list(acts) != ["relu:0", "relu:1", "conv"] or not same_bits(acts["relu:0"], expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hook_count(small) == 0
    assert all(module.training for module in small.modules())


# Against a cloning hook, over a zoo

BIG_INPUT = {"vit_h_14": 70, "maxvit_t": 224, "inception_v3": 96}
"""px. 64 does for all others; MaxViT is built for one size, Inception needs 75."""
QUICK = ["densenet121", "googlenet", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"]


def equal_layers(name: str) -> int:
    """Compare the convolutions, stages and blocks of a torchvision model with cloning hooks; return how many."""
    torch.manual_seed(0)
    size = BIG_INPUT.get(name, 64)
    built_for = {"image_size": size} if name.startswith("vit_") else {}
    with warnings.catch_warnings(), RepeatedWeights():
        # GoogLeNet and Inception announce a change of their initialisation.
        warnings.simplefilter("ignore", FutureWarning)
        model = torchvision.models.get_model(name, weights=None, **built_for)
    batch = torch.randn(1, 3, size, size)
    convs = [layer for layer, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    stages = [layer for layer, _ in model.named_modules() if layer and layer.count(".") <= 2]
    seen = cloned_outputs(model, batch, list(dict.fromkeys([*convs, *stages])))
    asked = ["type:Conv2d", *(stage for stage in stages if stage in seen)]
    with warnings.catch_warnings():
        # Heads that only train, such as Inception's aux.
        warnings.filterwarnings("ignore", "left out")
        acts = capture(model, batch, asked)
    expected = {
        layer if len(calls) == 1 else f"{layer}:{call}": maps
        for layer, calls in seen.items()
        for call, maps in enumerate(calls)
    }
    assert set(acts) == set(expected)
    assert [key for key, maps in acts.items() if not same_bits(maps, expected[key])] == []
    return len(acts)


@pytest.mark.parametrize("name", QUICK)
def test_capture_torchvision_models_equal_a_cloning_hook(name: str) -> None:
    assert equal_layers(name) > 10


@pytest.mark.zoo
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_capture_every_torchvision_classifier_equals_a_cloning_hook(name: str) -> None:
    assert equal_layers(name) > 10


# Listing


@contextlib.contextmanager
def no_real_pass(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail where anything but a meta tensor goes through a model."""
    run = listing.run_pass

    def meta_only(model: nn.Module, batch: torch.Tensor, *rest: Any) -> None:
        assert batch.is_meta
        run(model, batch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(listing, "run_pass", meta_only)
        yield


def test_list_layers_resnet50_gives_shapes_calls_and_parameters() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet50(weights=None)
    start = time.process_time()  # whatever else the machine does
    listed = list_layers(model)
    assert time.process_time() - start < 1
    assert [info.name for info in listed] == [name for name, _ in model.named_modules()][1:]
    assert [info.index for info in listed] == list(range(len(listed)))
    by_name = {info.name: info for info in listed}
    assert dataclasses.astuple(by_name["conv1"])[1:] == ("conv1", "Conv2d", (1, 64, 112, 112), 1, 64 * 3 * 49)
    assert by_name["layer1.0.relu"].calls == 3
    assert by_name["layer1.0.relu"].shape == (1, 64, 56, 56)
    assert by_name["layer4"].shape == (1, 2048, 7, 7)
    assert by_name["fc"].shape == (1, 1000)
    total = sum(by_name[name].parameters for name, _ in model.named_children())
    assert total == sum(p.numel() for p in model.parameters())
    assert json.loads(json.dumps([dataclasses.asdict(info) for info in listed]))[0]["shape"] == [1, 64, 112, 112]


def test_list_layers_says_what_capture_gives(small: Small, batch: torch.Tensor) -> None:
    listed = {info.name: info for info in list_layers(small, batch)}
    assert (listed["unused"].calls, listed["unused"].shape) == (0, None)
    assert listed["relu"].calls == 2
    acts = capture(small, batch, ["conv", "relu", "drop"])
    assert listed["relu"].shape == tuple(acts["relu:0"].shape)
    assert listed["conv"].shape == tuple(acts["conv"].shape)


def test_list_layers_output_without_one_tensor_has_no_shape() -> None:
    assert [info.shape for info in list_layers(puts(lambda x: (x, x)))] == [None]
    assert [info.shape for info in list_layers(puts(lambda x: (x, None)))] == [(1, 3, 224, 224)]


def test_list_layers_runs_on_a_twin_and_does_not_touch_the_model(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.bn.eval()
    small.note = torch.ones(3) * nn.Parameter(torch.ones(3))
    fired: list[str] = []
    small.conv.register_forward_hook(lambda *_: fired.append("forward"))
    small.conv.register_forward_pre_hook(lambda *_: fired.append("before"))
    state, hooks = copy.deepcopy(small.state_dict()), hook_count(small)
    with no_real_pass(monkeypatch):
        list_layers(small)
    assert fired == []
    assert hook_count(small) == hooks
    assert not small.bn.training
    assert small.conv.training
    assert all(torch.equal(value, small.state_dict()[key]) for key, value in state.items())


def test_list_layers_channels_of_the_first_convolution_need_no_real_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_real_pass(monkeypatch):
        assert list_layers(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)))[0].shape == (1, 8, 222, 222)


def test_list_layers_size_and_channels_of_the_default_input() -> None:
    model = nn.Sequential(nn.Conv2d(7, 2, 1))
    assert list_layers(model, size=32)[0].shape == (1, 2, 32, 32)
    assert list_layers(model, size=(16, 48))[0].shape == (1, 2, 16, 48)
    assert list_layers(nn.Sequential(nn.ReLU()))[0].shape == (1, 3, 224, 224)


def test_list_layers_half_model_needs_no_real_pass(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_real_pass(monkeypatch):
        assert list_layers(small.half())[0].shape == (1, 4, 224, 224)


def test_list_layers_tied_and_shared_modules_stay_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = nn.Conv2d(3, 3, 1)
    net = Calls(lambda net, x: net.second(net.first(x)), first=shared, second=shared)
    with no_real_pass(monkeypatch):
        (info,) = list_layers(net)
    assert (info.name, info.calls) == ("first", 2)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(puts(lambda x: x if x.sum() >= 0 else x[:1]), id="looks at values"),
        pytest.param(Calls(lambda net, x: net.odd(x), odd=nn.ReLU(), lock=Puts(lambda x: x)), id="cannot be copied"),
    ],
)
def test_list_layers_model_that_cannot_run_on_meta_is_run_for_real(model: nn.Module) -> None:
    if hasattr(model, "lock"):
        model.lock.held = threading.Lock()
    info = list_layers(model)[0]
    assert (info.name, info.shape, info.calls) == ("odd", (1, 3, 224, 224), 1)
    assert model.training
    assert hook_count(model) == 0


def test_list_layers_model_that_cannot_run_at_all_says_why() -> None:
    with pytest.raises(
        CaptureError, match=r"^the model failed on an input of shape \(1, 3, 224, 224\): RuntimeError: .*mat1"
    ):
        list_layers(nn.Sequential(nn.Flatten(), nn.Linear(5, 5)))


def test_list_layers_interrupt_ends_it_at_once() -> None:
    passes: list[torch.device] = []

    def stop(x: torch.Tensor) -> None:
        passes.append(x.device)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list_layers(puts(stop))
    assert passes == [torch.device("meta")]


@pytest.mark.zoo
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_list_layers_every_torchvision_classifier_runs_on_meta(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(name, weights="none", device="meta")
    with no_real_pass(monkeypatch):
        listed = list_layers(model)
    assert listed[0].calls == 1 or name == "maxvit_t"
    assert sum(info.type == "Conv2d" and info.shape is not None for info in listed) > 0
