"""State outside of modules: in objects, classes and functions of one's own, and in networks that the first pass makes.

A capture in each step of a training changes no bit of its losses, wherever a forward counts and remembers.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import itertools
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.activations.passes import saved_values
from cnnviz_fast.activations.passes.own_objects import counter_at, is_own, next_of


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Scaled(nn.Module):
    """A model whose output is scaled by what `count` returns, which changes from pass to pass."""

    def __init__(self, count: Callable[[nn.Module, torch.Tensor], Any], **state: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        vars(self).update(state, count=count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y * (1 + torch.as_tensor(self.count(self, y.detach())).float().mean() / 8)


@dataclasses.dataclass
class State:
    step: int = 0
    mean: torch.Tensor | None = None
    seen: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    step: int = 0


class Slots:
    __slots__ = ("__hidden", "late", "mean", "step")

    def __init__(self) -> None:
        self.step = 0
        self.mean = torch.zeros(())
        self.__hidden = 1

    def up(self) -> float:
        self.step += 1
        self.__hidden *= 2
        self.late = getattr(self, "late", 0) + 1
        return self.step + self.__hidden + self.late


class Shared:
    total = 0
    ids = itertools.count()
    mean = torch.zeros(())

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inner = types.SimpleNamespace(steps={"a": 0})


def up(holder: Any, name: str, by: float = 1) -> float:
    setattr(holder, name, getattr(holder, name) + by)
    return float(getattr(holder, name))


def of_shared(module: Any, y: torch.Tensor) -> float:
    Shared.total += 1
    Shared.mean = Shared.mean * 0.5 + y.mean()
    module.shared.inner.steps["a"] += 1
    return float(Shared.total + Shared.mean + next(Shared.ids) + module.shared.inner.steps["a"])


def of_state(state: State, y: torch.Tensor) -> Any:
    state.step += 1
    state.mean = y.mean() if state.mean is None else state.mean * 0.9 + y.mean()
    state.seen.append(y.mean())
    return state.mean * state.step + torch.stack(state.seen).sum()


def with_new_attribute(module: Any, y: torch.Tensor) -> float:
    module.state.n = getattr(module.state, "n", 0) + 1
    return float(module.state.n)


def replaced(module: Any, y: torch.Tensor) -> float:
    module.state = dataclasses.replace(module.state, step=module.state.step + 1)
    return float(module.state.step)


def in_place(module: Any, y: torch.Tensor) -> torch.Tensor:
    mean: torch.Tensor = module.state.mean
    return mean.mul_(0.5).add_(y.mean())


class CountsInItsClass(Scaled):
    steps = 0
    ids = itertools.count(3, 2)
    bank = (torch.zeros(()), [0])

    def __init__(self) -> None:
        super().__init__(type(self).up)

    def up(self, y: torch.Tensor) -> float:
        kind = CountsInItsClass
        kind.steps += 1
        kind.bank[0].add_(y.mean())
        kind.bank[1][0] += 1
        return float(kind.steps + next(kind.ids) + kind.bank[0] + kind.bank[1][0])


def around(kind: str) -> nn.Module:
    """Return a model whose functions write the variables around them."""
    steps, mean, counted, ids = 0, torch.zeros(()), [0], itertools.count()
    record = types.SimpleNamespace(n=0)

    def count(module: nn.Module, y: torch.Tensor) -> float:
        nonlocal steps, mean
        steps += 1
        mean = mean * 0.5 + y.mean()
        counted[0] += 1
        record.n += 1
        return float(steps + mean + counted[0] + next(ids) + record.n)

    if kind == "function":
        return Scaled(count)
    if kind == "partial":
        return Scaled(functools.partial(lambda function, *given: function(*given), count))
    if kind == "decorated":
        return Scaled(torch.no_grad()(count))
    if kind == "bound":
        model = Scaled(lambda module, y: module.bound(y), bound=None)
        model.bound = types.MethodType(count, model)
        return model
    if kind == "hook":
        model = Scaled(lambda module, y: 0)
        model.conv.register_forward_hook(
            lambda module, inputs, output: output * (1 + count(module, output.detach()) / 8)
        )
        return model

    class Net(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1 + count(self, x) / 8)

    return Net(lambda module, y: 0)


def counts_on_itself(module: Any, y: torch.Tensor) -> float:
    return up(counts_on_itself, "calls")


counts_on_itself.calls = 0  # type: ignore[attr-defined]


class Byol(nn.Module):
    """Makes its target network in the first forward, and lets it follow from then on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.kind = kind
        if kind == "none":
            self.target: Any = None
        elif kind == "registered":
            self.register_module("target", None)
        elif kind == "hidden":
            self.hidden = [self.halved()]

    def halved(self) -> nn.Module:
        target = copy.deepcopy(self.online).requires_grad_(False)
        with torch.no_grad():
            for p in target.parameters():
                p.mul_(0.5)
        return target

    def followed(self) -> nn.Module:
        if self.kind == "hidden":
            return self.hidden[0]
        if getattr(self, "target", None) is None:
            self.target = self.halved()
        target: nn.Module = self.target
        return target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.followed()
            for p, q in zip(target.parameters(), self.online.parameters(), strict=True):
                p.mul_(0.9).add_(q, alpha=0.1)
            aim = target(x)
        return self.online(x) - aim


class Builds(nn.Module):
    """Makes weights from the first batch: parameters, buffers and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.scale: Any = None
        self.register_parameter("shift", None)
        self.register_buffer("mean", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        if self.scale is None:
            self.scale = nn.Parameter(1 / y.detach().std())
            self.shift = nn.Parameter(-y.detach().mean())
            self.mean = y.detach().mean()
            self.register_buffer("codes", y.detach()[:2].mean((2, 3)), persistent=False)
            self.head = nn.Linear(4, 2)
        y = (y + self.shift) * self.scale + self.mean
        return self.head(y.mean((2, 3)) + self.codes.sum())


def fresh_class(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model, with what is shared by all as it is at the start."""
    Shared.total, Shared.ids, Shared.mean = 0, itertools.count(), torch.zeros(())
    CountsInItsClass.steps, CountsInItsClass.ids = 0, itertools.count(3, 2)
    CountsInItsClass.bank = (torch.zeros(()), [0])
    counts_on_itself.calls = 0  # type: ignore[attr-defined]
    return make()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "namespace": lambda: Scaled(lambda m, y: up(m.state, "step"), state=types.SimpleNamespace(step=0)),
    "namespace, a new attribute": lambda: Scaled(with_new_attribute, state=types.SimpleNamespace()),
    "namespace, a tensor in place": lambda: Scaled(in_place, state=types.SimpleNamespace(mean=torch.zeros(()))),
    "dataclass": lambda: Scaled(lambda m, y: of_state(m.state, y), state=State()),
    "dataclass in a dict in a list": lambda: Scaled(lambda m, y: of_state(m.held[0]["a"], y), held=[{"a": State()}]),
    "dataclass in a tuple": lambda: Scaled(lambda m, y: of_state(m.held[1], y), held=(1, State())),
    "frozen dataclass, replaced": lambda: Scaled(replaced, state=Frozen()),
    "slots": lambda: Scaled(lambda m, y: m.state.up(), state=Slots()),
    "counter": lambda: Scaled(lambda m, y: next(m.ids), ids=itertools.count(1)),
    "counter in a list": lambda: Scaled(lambda m, y: next(m.ids[0]), ids=[itertools.count(0.5, 0.25)]),
    "counter in a dict": lambda: Scaled(
        lambda m, y: next(m.ids["a"]), ids=collections.OrderedDict(a=itertools.count())
    ),
    "counter in an object": lambda: Scaled(lambda m, y: next(m.s.ids), s=types.SimpleNamespace(ids=itertools.count())),
    "class of an object": lambda: Scaled(of_shared, shared=Shared()),
    "class of the model": CountsInItsClass,
    "variables around a function": lambda: around("function"),
    "variables around a partial function": lambda: around("partial"),
    "variables around a decorated function": lambda: around("decorated"),
    "variables around a bound function": lambda: around("bound"),
    "variables around a hook": lambda: around("hook"),
    "variables around forward": lambda: around("forward"),
    "attribute of a function": lambda: Scaled(counts_on_itself),
    "target network": lambda: Byol("none"),
    "target network, registered": lambda: Byol("registered"),
    "target network, a new attribute": lambda: Byol("new"),
    "target network, hidden": lambda: Byol("hidden"),
    "weights from the first batch": Builds,
}


def trained(make: Callable[[], nn.Module], batch: torch.Tensor, between: Callable[[nn.Module], object]) -> Any:
    """Train a model for some steps; return its losses, and what it holds in the end."""
    torch.manual_seed(0)
    model = fresh_class(make)
    losses = []
    for _ in range(4):
        between(model)
        loss = model(batch).square().mean()
        between(model)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
                    p.grad = None
        losses.append(loss.detach().numpy().tobytes())
    return losses, {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:the model builds layers in its first forward")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_capture_between_the_steps_of_a_training_changes_no_bit(
    make: Callable[[], nn.Module], batch: torch.Tensor
) -> None:
    expected = trained(make, batch, lambda model: None)
    assert len(set(expected[0])) == 4
    assert trained(make, batch, lambda model: cf.capture(model, batch * 3 + 1, "output")) == expected


def test_capture_keeps_the_objects_themselves(batch: torch.Tensor) -> None:
    state, shared, ids = State(), Shared(), itertools.count()
    model = Scaled(lambda m, y: of_state(m.state, y) + of_shared(m, y), state=state, shared=shared, ids=ids)
    before = (shared.lock, shared.inner, shared.inner.steps)
    cf.capture(model, batch, "output")
    assert model.state is state
    assert (state.step, state.mean, state.seen) == (0, None, [])
    assert model.shared is shared
    assert all(a is b for a, b in zip((shared.lock, shared.inner, shared.inner.steps), before, strict=True))
    assert model.ids is ids
    assert next(ids) == 0


def test_capture_what_hooks_and_functions_collect_stays(batch: torch.Tensor) -> None:
    seen: list[torch.Tensor] = []
    latest: dict[str, torch.Tensor] = {}

    class Recorder:
        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.seen.append(output)

    def collects(module: nn.Module, y: torch.Tensor) -> int:
        seen.append(y)
        latest["y"] = y
        return 0

    recorder, model = Recorder(), Scaled(collects)
    model.conv.register_forward_hook(recorder)
    model.conv.register_forward_hook(recorder.__call__)
    model.conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for n in range(1, 3):
        cf.capture(model, batch * n, "output")
        assert len(seen) == 2 * n
        assert len(recorder.seen) == 2 * n
        assert torch.equal(latest["y"], model.conv(batch * n))
        del seen[-1], recorder.seen[-2:]  # those of the call just made


def test_capture_an_object_that_is_more_than_values_stays_as_the_pass_leaves_it(batch: torch.Tensor) -> None:
    def fuses(module: Any, y: torch.Tensor) -> int:
        module.predictor.is_set_up = True
        module.predictor.model = [copy.deepcopy(module.conv)]
        return 0

    model = Scaled(fuses, predictor=types.SimpleNamespace(is_set_up=False, model=None))
    cf.capture(model, batch, "output")
    assert model.predictor.is_set_up
    assert len(model.predictor.model) == 1


def test_capture_of_what_stands_around_the_model_only_numbers_are_looked_at(
    batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer has data sets, which must not be copied in each pass."""
    found: list[int] = []
    whole = saved_values.SavedValues.__init__

    def counting(self: Any, tensors: Any, *rest: Any) -> None:
        tensors = list(tensors)
        found.append(sum(tensor.numel() for tensor in tensors))
        whole(self, tensors, *rest)

    monkeypatch.setattr(saved_values.SavedValues, "__init__", counting)
    model = Scaled(lambda m, y: up(m.trainer, "step") + up(m.config, "calls"))
    model.trainer = types.SimpleNamespace(model=model, data=torch.zeros(1000), step=0)
    model.config = transformers.PretrainedConfig()  # of an installed package that the model is not of
    model.config.calls, model.config.data = 0, torch.zeros(1000)
    cf.capture(model, batch, "output")
    assert (model.trainer.step, model.config.calls) == (0, 0)
    assert found == [0]


def test_capture_objects_beyond_the_limit_stay(batch: torch.Tensor) -> None:
    model = Scaled(lambda m, y: 0, many=[types.SimpleNamespace(n=n) for n in range(12_000)])
    model.around = types.SimpleNamespace(model=model, itself=None)
    model.around.itself = model.around
    cf.capture(model, batch, "output")
    assert [each.n for each in model.many] == list(range(12_000))


@pytest.mark.parametrize(("kind", "own"), [
    (types.SimpleNamespace, True), (State, True), (Slots, True), (Shared, True), (Scaled, False), (object, False),
    (dict, False), (threading.Thread, False), (torch.device, False), (type("Mine", (threading.Thread,), {}), False),
    (type("Table", (dict,), {}), False),
])  # fmt: skip
def test_is_own_classes_of_users_alone(kind: type[Any], own: bool) -> None:
    assert is_own(kind) is own


@pytest.mark.parametrize(
    "counter", [itertools.count(), itertools.count(5, 2), itertools.count(0.5), itertools.count(-3)]
)
def test_counter_at_counts_on_from_there(counter: Any) -> None:
    next(counter)
    again = counter_at(next_of(counter))
    assert again is not None
    assert next(again) == next(counter)


def test_counter_at_of_odd_numbers_is_none() -> None:
    from fractions import Fraction

    assert counter_at(next_of(itertools.count(Fraction(1, 2)))) is None


def test_layers_that_the_first_forward_builds_are_said(batch: torch.Tensor) -> None:
    model = nn.Sequential(Builds())
    with pytest.warns(UserWarning, match=r"^the model builds layers in its first forward.*: '0\.head'\. To"):
        assert "0.head" not in {layer.name for layer in cf.list_layers(model, batch)}
    model(batch)
    assert "0.head" in {layer.name for layer in cf.list_layers(model, batch)}
