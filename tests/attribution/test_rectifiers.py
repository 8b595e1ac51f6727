"""Guided backpropagation and deconvolution: the rules written as autograd functions, and rectifiers in every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.assertions import FLOAT32_SUMS, OTHER_DEVICE, assert_apart, assert_close
from support.heat import images
from torch import nn
from torch.nn import functional as F

import cnnviz_fast as cf
from cnnviz_fast.attribution.api import attribution
from cnnviz_fast.errors import CaptureError

RULES = ["guided", "deconvolution"]
Rectifier = Callable[[torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Three rectifiers, each written as it is given."""

    def __init__(self, *rectifiers: Rectifier) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3)
        self.head, self.end = nn.Linear(8, 8), nn.Linear(8, 4)
        self.modules_among = nn.ModuleList({each for each in rectifiers if isinstance(each, nn.Module)})
        self.rectifiers = (rectifiers * 3)[:3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two, three = self.rectifiers
        return self.end(three(self.head(two(self.second(one(self.first(x)))).mean((2, 3)))))


def net(*rectifiers: Rectifier) -> Net:
    with torch.random.fork_rng(devices=[]):
        return Net(*rectifiers).eval()


def ruled(rule: str, forward: Rectifier) -> Rectifier:
    """Return a rectifier with a rule for its way back, as an autograd function: the definition."""

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, came: torch.Tensor) -> torch.Tensor:
            if rule == "deconvolution":
                return came.relu()
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                (slope,) = torch.autograd.grad(forward(x).sum(), x)
            return (came * slope).relu()

    return Ruled.apply


def by_definition(rule: str, forward: Rectifier = F.relu) -> torch.Tensor:
    batch = images().requires_grad_()
    (gradient,) = torch.autograd.grad(net(ruled(rule, forward))(batch)[:, 2].sum(), batch)
    return gradient


def attributed(model: nn.Module, method: str, target: Any = 2) -> torch.Tensor:
    maps = cf.attribute(model, images(), method, target=target)
    assert isinstance(maps, torch.Tensor)
    return maps


def maximum_with_zero(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0)


FORMS: dict[str, tuple[Rectifier, ...]] = {
    "modules": (nn.ReLU(), nn.ReLU(), nn.ReLU()),
    "one module in three places": (nn.ReLU(),),
    "in place": (nn.ReLU(inplace=True),),
    "function": (F.relu,),
    "method": (torch.relu_, torch.Tensor.relu, torch.relu),
    "threshold": (nn.Threshold(0.0, 0.0),),
    "clamp": (maximum_with_zero, lambda x: x.clamp_min(0), lambda x: x.clamp_(min=0)),
    "mixed": (nn.ReLU(), F.relu, maximum_with_zero),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_rule_is_its_definition_in_every_form(form: str, rule: str) -> None:
    found, _ = attribution(net(*FORMS[form]), images(), rule, None, 2)
    assert_close(found.maps["input"][:, 0], by_definition(rule), FLOAT32_SUMS)
    assert found.facts == {"rectifiers": 3, "not_covered": {}}


@pytest.mark.parametrize("rule", RULES)
def test_rule_is_not_the_gradient_nor_the_other_rule(rule: str) -> None:
    model, scale = net(F.relu), by_definition(rule).abs().max()
    for other in {"gradient", *RULES} - {rule}:
        assert_apart(attributed(model, rule) / scale, attributed(model, other) / scale)


KIN: dict[str, Rectifier] = {
    "ReLU6": F.relu6,
    "Hardtanh": F.hardtanh,
    "LeakyReLU": lambda x: F.leaky_relu(x, 0.2),
    "RReLU": F.rrelu,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0),
    "clamp to 0..6": lambda x: x.clamp(0, 6),
    "PReLU": lambda x: F.prelu(x, torch.full((1,), 0.3)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KIN)
def test_rule_covers_kin_of_relu(kind: str, rule: str) -> None:
    assert_close(attributed(net(KIN[kind]), rule), by_definition(rule, KIN[kind]), FLOAT32_SUMS)


def test_prelu_with_a_weight_of_its_own_is_covered() -> None:
    model = net(nn.PReLU(init=0.3))
    assert_close(attributed(model, "guided"), by_definition("guided", KIN["PReLU"]), FLOAT32_SUMS)


def test_clamp_at_another_value_is_no_rectifier() -> None:
    model = net(F.relu, lambda x: x.clamp(min=-0.5), F.relu)
    found, _ = attribution(model, images(), "guided", None, 2)
    assert found.facts["rectifiers"] == 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("activation", [F.gelu, F.silu, F.hardswish, F.mish, F.elu, F.softplus])
def test_network_without_rectifiers_is_refused_by_the_name_of_what_it_has(activation: Rectifier, rule: str) -> None:
    with pytest.raises(CaptureError, match=f"{rule} must be of a network with rectifiers .*with 3 [A-Z]") as raised:
        attributed(net(activation), rule)
    assert activation.__name__ in str(raised.value).lower()


def test_linear_network_is_refused() -> None:
    with pytest.raises(CaptureError, match="got one without any"):
        attributed(net(lambda x: x), "guided")


def test_activations_that_are_not_covered_are_named() -> None:
    model = net(F.relu, F.gelu, F.silu)
    with pytest.warns(UserWarning, match="1 were caught. 1 SiLU, 1 GELU go by their gradients"):
        found, _ = attribution(model, images(), "guided", None, 2)
    assert found.facts == {"rectifiers": 1, "not_covered": {"SiLU": 1, "GELU": 1}}


@pytest.mark.parametrize("rule", RULES)
def test_layer_before_any_rectifier_goes_by_its_gradient(rule: str) -> None:
    model = net(F.relu)
    expected = attributed(model, "gradient", ("first", 3))
    assert torch.equal(attributed(model, rule, ("first", 3)), expected)


def test_backward_of_others_is_not_changed_meanwhile() -> None:
    model, batch = net(nn.ReLU()), images().requires_grad_()
    plain = torch.autograd.grad(model(batch)[:, 2].sum(), batch)[0]
    seen: list[torch.Tensor] = []

    def target(output: torch.Tensor) -> torch.Tensor:
        own = images().requires_grad_()
        seen.extend(torch.autograd.grad(net(F.relu)(own)[:, 2].sum(), own))
        return output[:, 2]

    assert_close(attributed(model, "guided", target), by_definition("guided"), FLOAT32_SUMS)
    assert_close(seen[0], plain, FLOAT32_SUMS)
    assert torch.equal(torch.autograd.grad(model(batch)[:, 2].sum(), batch)[0], plain)


@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES)
def test_rule_reaches_the_threads_in_which_autograd_works_on_a_gpu(rule: str) -> None:
    found, _ = attribution(net(nn.ReLU()).cuda(), images(), rule, None, 2)
    scale = by_definition(rule).abs().max()
    assert_close(found.maps["input"][:, 0].cpu() / scale, by_definition(rule) / scale, OTHER_DEVICE)
    assert found.facts["rectifiers"] == 3
