"""Copies that a model makes of itself while a capture runs, and copies that it runs in place of its own layers."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cnnviz_fast.activations.capture import capture, capture_stream
from cnnviz_fast.activations.passes import snapshot
from cnnviz_fast.activations.passes.copies import PassHook
from cnnviz_fast.errors import CaptureError


class Block(nn.Module):
    """Convolution, batch norm and dropout: training mode shows in what it puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.bn(self.conv(x)))


class Notes(list[Any]):
    """What a model notes for a test: no list of Python's own, which would be taken back."""


class Copies(nn.Module):
    """Runs its block, makes a copy of it in its own way, and may run that too."""

    def __init__(self, make: Callable[[nn.Module], Any], *, runs: bool = True) -> None:
        super().__init__()
        self.block = Block()
        self.make = make
        self.runs = runs
        self.kept, self.seen = Notes(), Notes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        self.kept.append(self.make(self.block))
        if self.runs:
            self.seen.append(self.kept[-1](x))
        return y


def through_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def through_a_file(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class CopiesItself(Block):
    """Defines how it is copied, as GraphModule does."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        twin = type(self)()
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def modules_of(*models: nn.Module) -> list[nn.Module]:
    return [module for model in models for module in model.modules()]


def assert_untouched(model: nn.Module, training: bool = True) -> None:
    """Assert that nothing of a pass is left on a model, and that each module is in this mode."""
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._forward_pre_hooks_with_kwargs
        assert not {"__deepcopy__", "__getstate__", "train"} & set(vars(module))
        assert module.training is training


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [copy.deepcopy, copy.copy, through_pickle, through_a_file], ids=lambda f: f.__name__)
def test_capture_copies_made_in_the_pass_are_as_without_it(
    make: Callable[[nn.Module], Any], training: bool, batch: torch.Tensor
) -> None:
    model = Copies(make, runs=False).train(training)
    acts = capture(model, batch, ["block", "block.conv", "block.bn", "block.drop"])
    assert list(acts) == ["block", "block.conv", "block.bn", "block.drop"]
    (twin,) = model.kept
    assert_untouched(model, training)
    assert_untouched(twin, training)
    assert type(twin) is Block
    assert set(vars(twin)) == set(vars(Block()))
    # Again, with the copy of the first pass about.
    assert torch.equal(capture(model, batch, "block")["block"], acts["block"])
    assert twin(batch).shape == model(batch).shape == batch.shape


def test_capture_copy_runs_in_eval_mode_in_the_pass_and_in_its_own_afterwards(batch: torch.Tensor) -> None:
    model = Copies(copy.deepcopy).train()
    model.block.conv.eval()
    expected = capture(model, batch, "block")["block"]
    assert torch.equal(model.seen[0], expected)
    (twin,) = model.kept
    assert (
        [m.training for m in twin.modules()] == [m.training for m in model.block.modules()] == [True, False, True, True]
    )


def test_capture_copy_of_a_copy_is_cleaned_too(batch: torch.Tensor) -> None:
    model = Copies(lambda block: copy.deepcopy(copy.deepcopy(block))).train()
    expected = capture(model, batch, ["block", "block.bn"])["block"]
    assert torch.equal(model.seen[0], expected)
    assert_untouched(model.kept[0])


@pytest.mark.parametrize("how", ["eval", "train", "requires_grad"])
def test_capture_copy_that_the_model_put_in_a_mode_stays_in_it(how: str, batch: torch.Tensor) -> None:
    def make(block: nn.Module) -> nn.Module:
        twin = copy.deepcopy(block)
        if how == "eval":
            return twin.eval()
        if how == "train":
            return twin.train()
        return twin.requires_grad_(False)

    model = Copies(make).train()
    capture(model, batch, "block")
    assert_untouched(model)
    assert_untouched(model.kept[0], training=how != "eval")


def test_capture_copy_of_a_class_that_copies_itself_is_cleaned_too(batch: torch.Tensor) -> None:
    model = Copies(copy.deepcopy)
    model.block = CopiesItself()
    model.train()
    expected = capture(model, batch, ["block", "block.conv"])["block"]
    assert torch.equal(model.seen[0], expected)
    assert_untouched(model.kept[0])
    traced = Copies(copy.deepcopy)
    traced.block = torch.fx.symbolic_trace(Block())
    capture(traced.train(), batch, ["block", "block.conv"])
    assert_untouched(traced)
    assert_untouched(traced.kept[0])


def test_capture_copy_of_the_whole_model_works_by_itself(batch: torch.Tensor) -> None:
    class Average(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if "average" not in vars(self):
                vars(self)["average"] = [copy.deepcopy(self)]
            return super().forward(x)

    model = Average().train()
    capture(model, batch, ["conv", "bn"])
    (average,) = model.average
    assert_untouched(average)
    assert list(capture(average, batch, "conv")) == ["conv"]


def test_capture_copy_made_in_a_pass_that_fails_is_cleaned_too(batch: torch.Tensor) -> None:
    def fails(block: nn.Module) -> nn.Module:
        model.kept.append(copy.deepcopy(block))
        raise RuntimeError("broken")

    model = Copies(fails).train()
    with pytest.raises(CaptureError, match="broken"):
        capture(model, batch, ["block", "block.conv"])
    assert_untouched(model)
    assert_untouched(model.kept[0])
    stopped = Copies(copy.deepcopy).train()
    capture(stopped, batch, "block:0")
    assert_untouched(stopped)
    assert not snapshot._held


def test_capture_hooks_of_the_user_stay_on_copies(batch: torch.Tensor) -> None:
    calls: list[str] = []
    model = Copies(copy.deepcopy)
    model.block.conv.register_forward_hook(lambda *_: calls.append("after"))
    model.block.conv.register_forward_pre_hook(lambda *_: calls.append("before"))
    capture(model, batch, "block.conv")
    calls.clear()
    model.kept[0](batch)
    assert calls == ["before", "after"]


def test_capture_model_that_clears_or_replaces_hook_tables_is_left_without_ours(batch: torch.Tensor) -> None:
    class Clears(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.conv._forward_hooks.clear()
            self.bn._forward_hooks = type(self.bn._forward_hooks)(self.bn._forward_hooks)
            return super().forward(x)

    model = Clears()
    with pytest.raises(CaptureError, match="'conv' never ran"):
        capture(model, batch, ["conv", "bn"])
    # What the model itself copied into its new table does nothing any more.
    (ours,) = model.bn._forward_hooks.values()
    assert isinstance(ours, PassHook)
    assert model(batch).shape == batch.shape


def test_pass_hook_that_is_over_or_in_another_thread_does_nothing() -> None:
    calls: list[Any] = []
    hook = PassHook(lambda *seen: calls.append(seen), elsewhere=calls.append)
    module = nn.Identity()
    hook(module, 1, 2)
    assert calls == [(module, 1, 2)]
    thread = threading.Thread(target=hook, args=(module, 1, 2))
    thread.start()
    thread.join()
    assert calls[1:] == [module]
    hook.is_over = True
    hook(module, 1, 2)
    assert len(calls) == 2
    assert copy.deepcopy(hook)(module, 1, 2) is None
    assert pickle.loads(pickle.dumps(hook))(module, 1, 2) is None
    assert b"cnnviz" not in pickle.dumps(hook)


def test_capture_from_threads_leaves_copies_clean(batch: torch.Tensor) -> None:
    model = Copies(copy.deepcopy).train()
    threads = [threading.Thread(target=capture, args=(model, batch, ["block", "block.bn"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(model.kept) == 4
    for each in (model, *model.kept):
        assert_untouched(each)
    assert not snapshot._held


# Layers that run as copies only


class Fused(nn.Module):
    """What a detector predicts with: convolutions that have taken in their batch norms."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = copy.deepcopy(body)
        for block in self.body:
            block.bn = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Predictor:
    """Not a module, so that its model is not among the modules of what holds it."""

    def __init__(self, body: nn.Module) -> None:
        self.model = Fused(body).eval()


class Detector(nn.Module):
    """Builds a predictor in its first forward, and runs that."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Block(), Block())
        self.predictor: Predictor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.predictor is None:
            self.predictor = Predictor(self.model)
        return self.predictor.model(x)


def test_capture_detector_that_runs_a_fused_copy_says_what_to_pass_instead(batch: torch.Tensor) -> None:
    detector = Detector().train()
    for _ in range(2):
        with pytest.raises(CaptureError) as caught:
            capture(detector, batch, "model.1.conv")
        assert str(caught.value) == (
            "layer 'model.1.conv' never ran in this pass: the model keeps a copy of it. "
            "Capture 'body.1.conv' from model.predictor.model, with what goes into that."
        )
    assert_untouched(detector)
    assert_untouched(detector.predictor.model, training=False)
    model = detector
    acts = capture(model.predictor.model, batch, "body.1.conv")
    with torch.no_grad():
        expected = model.predictor.model.body[1].conv(model.predictor.model.body[0](batch))
    assert torch.equal(acts["body.1.conv"], expected)
    assert detector(batch).shape == batch.shape
    with pytest.raises(CaptureError) as caught:
        capture(detector, batch, "model.1.bn")
    assert str(caught.value) == (
        "layer 'model.1.bn' never ran in this pass: the model keeps a fused copy of 'model.1', where a batch "
        "normalisation is part of the layer before it. Capture 'body.1' from model.predictor.model, with what goes "
        "into that."
    )
    assert "body.1" in capture(detector.predictor.model, batch, "body.1")


class InPlaceOfItself(nn.Module):
    """Runs a copy of its layer, kept somewhere."""

    def __init__(self, keep: Callable[[Any, nn.Module], None], find: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 4, 3)
        self.keep, self.find = keep, find
        self.store: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.store is None:
            self.keep(self, copy.deepcopy(self.net))
        return self.find(self)(x)


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda twin: [twin], "model.store[0]"),
        (lambda twin: {"fast": twin}, "model.store['fast']"),
        (lambda twin: twin.forward, "model.store.__self__"),
        (lambda twin: (lambda: None, twin), "model.store[1]"),
    ],
)
def test_capture_layer_that_ran_as_a_copy_names_where_it_is_kept(
    wrap: Callable[[nn.Module], Any], path: str, batch: torch.Tensor
) -> None:
    def keep(model: Any, twin: nn.Module) -> None:
        vars(model)["store"] = wrap(twin)
        vars(model)["twin"] = weak = [twin.forward]
        assert weak

    model = InPlaceOfItself(keep, lambda model: model.twin[0])
    with pytest.raises(CaptureError, match=r"^layer 'net' never ran in this pass: the model keeps a copy of it\.") as e:
        capture_stream(model, batch, "net", lambda name, maps: None)
    assert f"Capture 'output' from {path}, with what goes into that." in str(e.value)


def test_capture_layer_that_ran_as_a_copy_that_is_gone_says_so(batch: torch.Tensor) -> None:
    class Forgets(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return copy.deepcopy(self.conv)(x)

    with pytest.raises(CaptureError, match=r"^layer 'conv' never ran in this pass: the model ran a copy of it\."):
        capture(Forgets(), batch, "conv")


class FusesAnew(nn.Module):
    """Fuses a convolution and its norm in each forward, with or without a copy of what holds them."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.block = nn.Sequential()
        self.block.conv, self.block.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.whole = whole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = copy.deepcopy(self.block) if self.whole else self.block
        block.conv.eval(), block.bn.eval()
        fused = fuse_conv_bn_eval(block.conv, block.bn)
        if self.whole:
            block.conv = fused
            del block.bn
        result: torch.Tensor = fused(x)
        return result


@pytest.mark.parametrize("whole", [True, False])
def test_capture_layers_that_are_fused_anew_say_so(whole: bool, batch: torch.Tensor) -> None:
    for layer, said in (
        (
            "bn",
            r"the model ran a fused copy, where a batch normalisation is part of the layer before it\. Capture from",
        ),
        (
            "conv",
            r"the model ran a copy of it with other weights, as a fused one has\. Make such a copy yourself, and c",
        ),
    ):
        with pytest.raises(CaptureError, match=rf"^layer 'block\.{layer}' never ran in this pass: {said}"):
            capture(FusesAnew(whole), batch, f"block.{layer}")


def test_capture_norm_of_a_copy_that_keeps_it_is_not_said_to_be_fused(batch: torch.Tensor) -> None:
    class Averaged(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            twin = copy.deepcopy(self)
            with torch.no_grad():
                twin.conv.weight.mul_(0.5)
            return Block.forward(twin, x)

    with pytest.raises(CaptureError, match=r"^layer 'bn' never ran in this pass: the model ran a copy of it\. Capture"):
        capture(Averaged(), batch, "bn")
    unused = nn.Sequential(nn.Conv2d(3, 4, 3))
    unused[0].bn = nn.BatchNorm2d(4)
    with pytest.raises(CaptureError, match=r"^layer '0\.bn' never ran in this pass, or its forward"):
        capture(unused, batch, "0.bn")


def test_capture_layer_that_never_ran_is_not_taken_for_another_of_its_class(batch: torch.Tensor) -> None:
    class Holds(Block):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Conv2d(3, 7, 1)
            self.helpers = [nn.Sequential(nn.Conv2d(5, 2, 3)), nn.Conv2d(3, 2, 1), nn.Identity()]

    with pytest.raises(
        CaptureError, match=r"^layer 'unused' never ran in this pass, or its forward\(\) was called dir"
    ):
        capture(Holds(), batch, "unused")
