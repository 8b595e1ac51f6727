"""What attribution leaves behind, which is nothing, however it ends, and the callers and models it works for."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import random
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import BFLOAT16, FLOAT32_SUMS, assert_close
from support.attention import FORMS, transformer
from support.heat import Residual, images, made
from support.memory import resident_bytes
from support.quick import in_turns
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError, ModelFailedError


def gradcam(model: nn.Module, target: Any = 2, layer: Any = "third", **how: Any) -> torch.Tensor:
    heat = cf.attribute(model, images(), "gradcam", layer, target, **how)
    assert isinstance(heat, torch.Tensor)
    return heat


def state_of(model: nn.Module) -> list[Any]:
    """Return what a call must leave as it was."""
    own = [
        (module.training, list(module._forward_hooks), list(module._forward_pre_hooks), list(module._backward_hooks))
        for module in model.modules()
    ]
    tensors = [*model.parameters(), *model.buffers()]
    return [
        own,
        [(one.requires_grad, None if one.grad is None else one.grad.sum().item()) for one in tensors],
        [one.sum().item() for one in tensors],
        [one._version for one in tensors],
        torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes(),
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
    ]  # fmt: skip


def interrupt(output: torch.Tensor) -> torch.Tensor:
    raise KeyboardInterrupt


def fail(output: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError("my own")


class Drawing(Residual):
    """Draws random numbers, and fails on an image of ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand(3), random.random(), np.random.rand()
        if bool((x == 1).all()):
            raise ValueError("no ones")
        return super().forward(x)


ENDS: dict[str, tuple[Any, type[BaseException] | None]] = {
    "result": (2, None),
    "error in the target": (fail, ZeroDivisionError),
    "interrupt": (interrupt, KeyboardInterrupt),
    "unit": (("norm", 1), None),
}


LEAVE = [
    "gradcam", "scorecam", "ablationcam", "eigencam", "cam", "gradient", "smoothgrad", "integrated-gradients", "guided",
]  # fmt: skip


@pytest.mark.parametrize(("end", "method"), in_turns(ENDS, LEAVE))
def test_attribute_leaves_everything_as_it_was(end: str, method: str) -> None:
    target, error = ENDS[end]
    if method == "eigencam" or (method == "cam" and end == "unit"):
        target, error = None if method == "eigencam" else 2, None
    model = made(Drawing).train()
    model(images()).sum().backward()
    model.norm.requires_grad_(False)
    before = state_of(model)
    layer = {"cam": "relu:2"}.get(method, "third" if "cam" in method else None)
    if error is None:
        cf.attribute(model, images(), method, layer, target)
    else:
        with pytest.raises(error):
            cf.attribute(model, images(), method, layer, target)
    assert state_of(model) == before


@pytest.mark.parametrize(("form", "end"), in_turns(FORMS, ENDS))
def test_attribute_attention_leaves_everything_as_it_was(form: str, end: str) -> None:
    target, error = ENDS[end]
    model = transformer(form).train()
    model(images()).sum().backward()
    model.head.requires_grad_(False)
    before = state_of(model)
    for method in ("attention", "rollout"):
        cf.attribute(model, images(), method)
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            cf.attribute(model, images(), method, "blocks.1", ("blocks.2", 1) if end == "unit" else target)
    assert state_of(model) == before


def test_attribute_error_in_the_model_leaves_everything_as_it_was() -> None:
    model = made(Drawing)
    before = state_of(model)
    with pytest.raises(ModelFailedError, match="no ones"):
        cf.attribute(model, torch.ones(1, 3, 32, 32), "gradcam", "third", 1)
    assert state_of(model) == before


def test_attribute_frozen_model_and_every_caller_get_the_same() -> None:
    model = made(Residual)
    expected = gradcam(model)
    with torch.no_grad():
        assert torch.equal(gradcam(model), expected)
    with torch.inference_mode():
        assert torch.equal(gradcam(model), expected)
        assert torch.equal(cf.attribute(model, images(), "gradcam", "third", 2), expected)  # of an inference tensor
    batch = images().requires_grad_()
    assert torch.equal(cf.attribute(model, batch, "gradcam", "third", 2), expected)
    assert batch.grad is None
    assert torch.equal(gradcam(nn.DataParallel(model), layer="module.third"), expected)
    assert torch.equal(gradcam(model.train()), expected)
    assert torch.equal(gradcam(model.requires_grad_(False)), expected)
    assert torch.equal(gradcam(torch.compile(model, backend="eager")), expected)


def test_attribute_inside_a_forward_without_gradients() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = made(Residual)

        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    assert torch.equal(gradcam(Frozen(), layer="inner.third"), gradcam(made(Residual)))


def test_attribute_gradients_that_the_model_cuts_are_said() -> None:
    class Frozen(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                x = self.third(self.second(self.first(x)))
            return self.head(x.mean((2, 3)))

    with pytest.raises(CaptureError, match=r"or the model cuts gradients in between\. Name another one\."):
        gradcam(made(Frozen))


def test_attribute_halves_are_added_up_in_float32() -> None:
    expected = gradcam(made(Residual))
    for heat in (gradcam(made(Residual).bfloat16()), autocast()):
        assert heat.dtype == torch.float32
        assert_close(heat, expected, BFLOAT16)


def autocast() -> torch.Tensor:
    model = made(Residual)
    with torch.autocast("cpu", torch.bfloat16):
        heat = gradcam(model)
        loss = model(images()).sum()
    loss.backward()  # the casts of a pass without gradients must not be kept for this one
    assert model.first.weight.grad is not None
    return heat


def test_attribute_operations_inputs_and_parts_are_layers_too() -> None:
    model = made(Residual)
    whole = gradcam(model, layer="relu:2")
    assert torch.equal(gradcam(model, layer="input:norm").relu(), gradcam(model, layer="add"))
    assert whole.shape == (3, 8, 8)

    class Pair(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Two()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, other = self.pair(self.second(self.relu(self.first(x))))
            return self.head(self.third(first)[:, :, 0, 0] + 2 * other["deep"].mean((2, 3)))

    model = made(Pair)
    both = cf.attribute(model, images(), "hirescam", ["pair[0]", "pair[1][deep]"], 2)
    deep = cf.capture(model, images(), "pair[1][deep]")["pair[1][deep]"]
    expected = (deep * 2 * model.head.weight[2][:, None, None] / 64).sum(1)
    assert_close(both["pair[1][deep]"], expected, FLOAT32_SUMS)
    assert both["pair[0]"].any()


def test_attribute_layer_whose_tensor_cannot_be_replaced_is_refused() -> None:
    @dataclasses.dataclass
    class Held:
        maps: torch.Tensor

    class Holding(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.hold = Holder(Held)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.hold(x).maps)

    with pytest.raises(CaptureError, match="'hold' puts out a Held, in which no tensor can be replaced"):
        gradcam(made(Holding), layer="hold")


class Holder(nn.Module):
    """Puts out an object."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        return self.kind(x)


def test_attribute_records_nothing_before_the_first_layer() -> None:
    model, recorded = made(Residual), {}
    for name in ("first", "second", "norm"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: recorded.update({name: output.requires_grad})
        )
    cf.attribute(model, images(), "gradcam", ["third", "norm"], 2)
    assert recorded == {"first": False, "second": False, "norm": True}


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return x.relu(), {"deep": x.tanh()}


def test_attribute_model_gets_other_inputs_and_another_forward() -> None:
    class Scaled(Residual):
        def scaled(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * by

    model, by = made(Scaled), torch.tensor([[1.0], [2.0], [3.0]])
    heat = gradcam(model, inputs={"by": by}, forward="scaled")
    assert_close(heat, gradcam(model) * by[:, :, None], FLOAT32_SUMS)
    for method in ("scorecam", "ablationcam"):
        given = {"inputs": {"by": by}, "forward": "scaled"}
        assert cf.attribute(model, images(), method, "third", 2, **given).shape == (3, 8, 8)


@pytest.mark.usefixtures("quick_collections")
def test_attribute_many_calls_do_not_grow() -> None:
    model, batch = made(Residual), images(1)

    def objects_after(calls: int) -> int:
        for _ in range(calls):
            cf.attribute(model, batch, "gradcam", "third", [1, ("norm", 2)])
            cf.attribute(model, batch, "deconvolution", target=[1, ("norm", "all", "max")])
        gc.collect()
        return len(gc.get_objects())

    first = objects_after(5)
    assert objects_after(20) <= first + 10


@pytest.mark.filterwarnings("ignore:integrated gradients add up")  # four steps do not suffice
@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("calls", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_attribute_a_thousand_times_grows_the_process_by_less_than_2_mb(calls: int) -> None:
    model, batches = made(Residual), [images(1)[..., :side] for side in (24, 28, 32)]
    ways: list[dict[str, Any]] = [
        {"method": "gradcam", "layer": "third"}, {"method": "guided"}, {"method": "integrated-gradients", "steps": 4},
    ]  # fmt: skip

    def attribute(count: int) -> None:
        for turn in range(count):
            cf.attribute(model, batches[turn % 3], **ways[turn // 3 % 3], target=1)

    attribute(20)
    gc.collect()
    before = resident_bytes()
    attribute(calls)
    gc.collect()
    assert resident_bytes() - before < 2 * 2**20
