"""What an eval-mode forward writes is undone: a capture between the steps of a training changes no bit of it."""

from __future__ import annotations

import array
import collections
import copy
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.activations.capture import capture
from cnnviz_fast.activations.passes import saved_values, snapshot
from cnnviz_fast.activations.passes.snapshot import evaluating


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def bits(tensor: torch.Tensor) -> bytes:
    # A copy: memory that numpy has seen cannot be resized any more.
    return tensor.detach().clone().reshape(-1).view(torch.uint8).numpy().tobytes()


class BatchNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.bn(self.conv(x)).relu()).mean((2, 3))


class Contrast(nn.Module):
    """MoCo: a key encoder that follows the query encoder, and a queue of keys, both written in every forward."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", nn.functional.normalize(torch.randn(4, 16), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = self.query(x)
        with torch.no_grad():
            for mine, followed in zip(self.key.parameters(), self.query.parameters(), strict=True):
                if self.in_place:
                    mine.data.mul_(0.9).add_(followed.data, alpha=0.1)
                else:
                    mine.data = mine.data * 0.9 + followed.data * 0.1
            key = self.key(x)
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ self.queue.clone()], 1)
        with torch.no_grad():
            at = int(self.pointer)
            self.queue[:, at : at + len(key)] = key.T
            self.pointer[0] = (at + len(key)) % self.queue.shape[1]
        return logits


class Codebook(nn.Module):
    """Vectors that move towards what they stand for, by exponential averages; some buffers are replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("codes", torch.randn(8, 4))
        self.register_buffer("counts", torch.ones(8))
        self.register_buffer("begun", torch.tensor(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.conv(x).permute(0, 2, 3, 1).reshape(-1, 4)
        if not self.begun:
            self.codes.data.copy_(flat[:8].detach())
            self.begun.fill_(True)
        nearest = torch.cdist(flat, self.codes).argmin(1)
        one_hot = nn.functional.one_hot(nearest, 8).to(flat.dtype)
        self.counts = self.counts * 0.9 + one_hot.sum(0) * 0.1
        self.codes.mul_(0.9).add_(0.1 * (one_hot.T @ flat.detach()))
        return flat + (self.codes[nearest] - flat).detach()


class Counter(nn.Module):
    """Its output depends on how often it ran, and on what it put out before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.steps = 0
        self.rate = 1.0
        self.has_run = False
        self.hidden = torch.zeros(4)
        self.state = (torch.zeros(4), 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.rate *= 0.5
        out = self.conv(x).mean((2, 3)) * (self.rate + self.steps) + self.hidden + self.state[0]
        if self.has_run:
            out = out * 2
        self.has_run = True
        self.hidden.mul_(0.5).add_(out.detach().mean(0))
        self.state = (out.detach().mean(0), self.steps)
        return out


class Resizes(nn.Module):
    """Writes a buffer of another size, as observers of one channel each do in their first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("least", torch.zeros(0))
        self.register_buffer("noise", torch.full((2,), float("nan")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        if self.least.numel() == 0:
            self.least.resize_(4).copy_(out.detach().amin((0, 2, 3)))
        else:
            self.least.copy_(torch.minimum(self.least, out.detach().amin((0, 2, 3))))
        return out - self.least[:, None, None]


class Schedules(BatchNorms):
    """Writes numbers of torch's own layers, as a rate of dropout that grows with each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.norm.momentum = 0.9 * (self.norm.momentum or 0)
        self.drop.p = min(0.5, 1.5 * self.drop.p)
        out: torch.Tensor = self.drop(self.norm(self.conv(x)))
        return out


class Backward(nn.Module):
    """Runs backward in its forward, as adversarial training and Grad-CAM do, and clears gradients."""

    def __init__(self, clears: bool) -> None:
        super().__init__()
        self.conv, self.clears = nn.Conv2d(3, 4, 1), clears

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            self.conv(x).square().mean().backward()
        if self.clears:
            self.conv.weight.grad = None
        out: torch.Tensor = self.conv(x)
        return out


def quantised(prepare: str) -> nn.Module:
    """Make a model with the observers, or the fake quantisation, of torch.ao."""
    from torch.ao import quantization

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    # deprecated in favour of torchao, and what people have
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if prepare == "qat":
            model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
            return quantization.prepare_qat(model.train())
        model.qconfig = quantization.get_default_qconfig("fbgemm")
        return quantization.prepare(model.eval()).train()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": BatchNorms,
    "fake quantisation": lambda: quantised("qat"),
    "observers": lambda: quantised("ptq"),
    "key encoder, replaced": lambda: Contrast(in_place=False),
    "key encoder, in place": lambda: Contrast(in_place=True),
    "codebook": Codebook,
    "counter": Counter,
    "resized buffer": Resizes,
    "numbers of torch's layers": Schedules,
    "backward in forward": lambda: Backward(clears=False),
    "gradients that are cleared": lambda: Backward(clears=True),
}


def trained(make: Callable[[], nn.Module], batch: torch.Tensor, *, between: Callable[[nn.Module], object]) -> Any:
    """Train a model for some steps; return its losses and its state."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(4):
        between(model)
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        between(model)
        loss.backward()
        between(model)
        optimizer.step()
        losses.append(bits(loss))
    numbers = {
        (name, own): value
        for name, module in model.named_modules()
        for own, value in vars(module).items()
        if isinstance(value, (int, float))
    }
    return losses, {name: (value.shape, bits(value)) for name, value in model.state_dict().items()}, numbers


@pytest.mark.filterwarnings("ignore:.*torch.ao")
@pytest.mark.filterwarnings("ignore:Please use quant_min")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_capture_between_the_steps_of_a_training_changes_no_bit(
    make: Callable[[], nn.Module], batch: torch.Tensor
) -> None:
    expected = trained(make, batch, between=lambda model: None)
    # On other images, so that what they leave behind would show.
    assert trained(make, batch, between=lambda model: capture(model, batch * 3 + 1, 0)) == expected
    assert trained(make, batch, between=lambda model: cf.list_layers(model, batch)) == expected


def test_capture_leaves_objects_memory_and_versions_of_the_state(batch: torch.Tensor) -> None:
    for make in (lambda: Contrast(False), lambda: Contrast(True), Codebook, Resizes, Counter):
        model = make()

        def facts(model: nn.Module = model) -> list[Any]:
            tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            return [
                (name, id(one), one.data_ptr(), one.shape, one._version, bits(one)) for name, one in tensors.items()
            ]

        before = facts()
        capture(model, batch, 0)
        assert facts() == before


def test_capture_graph_that_holds_a_written_buffer_can_still_run_backward(batch: torch.Tensor) -> None:
    class Scales(Codebook):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.conv(x) * self.counts[:4, None, None]
            with torch.no_grad():
                self.counts.add_(1)
            return out

    model = Scales()
    out = model.conv(batch) * model.counts[:4, None, None]
    capture(model, batch, "conv")
    out.sum().backward()
    assert model.conv.weight.grad is not None


def test_capture_trained_weight_that_the_model_writes_is_said_once(batch: torch.Tensor) -> None:
    class Clamps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.is_clamped = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.is_clamped:
                with torch.no_grad():
                    self.conv.weight.clamp_(-0.01, 0.01)
                self.is_clamped = True
            return self.conv(x)

    model = Clamps()
    with pytest.warns(UserWarning, match=r"^the model changed 1 of its weights in a pass in eval mode, which cannot be "
                      r"undone: 'conv\.weight'$") as caught:  # fmt: skip
        capture(model, batch, "conv")
    assert caught[0].filename == __file__
    assert model.is_clamped  # or the model would do it again
    capture(model, batch, "conv")


def test_capture_trained_weight_whose_memory_is_replaced_gets_it_back(batch: torch.Tensor) -> None:
    class Normalises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.conv.weight.data = nn.functional.normalize(self.conv.weight.data, dim=1)
            return self.conv(x)

    model = Normalises()
    before, place = model.conv.weight.detach().clone(), model.conv.weight.data_ptr()
    maps = capture(model, batch, "conv")["conv"]
    assert torch.equal(model.conv.weight, before)
    assert model.conv.weight.data_ptr() == place
    assert torch.equal(maps, nn.functional.conv2d(batch, nn.functional.normalize(before, dim=1), model.conv.bias))


def test_capture_model_that_fuses_itself_stays_fused(batch: torch.Tensor) -> None:
    class Fuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.extra = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.is_fused = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.is_fused:
                del self.extra
                self.is_fused = True
            return self.conv(x)

    model = Fuses()
    capture(model, batch, "conv")
    assert model.is_fused
    assert model(batch).shape == (4, 4, 8, 8)


class Keeps(Counter):
    """Writes all that a model may keep beside buffers: in place, and in place of what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = [1]
        self.nested = {"bank": [torch.zeros(2)], "state": (torch.zeros(2), [3])}
        self.ordered = collections.OrderedDict(a=1, b=2)
        self.counts = collections.Counter("abba")
        self.grouped = collections.defaultdict(list, {0: [1]})
        self.sizes = {8}
        self.codes = np.zeros((3, 2), np.float32)
        self.named = np.array(["a", None], dtype=object)
        self.packed, self.numbers = bytearray(b"ab"), array.array("d", [1.5, float("nan")])
        self.replaced: list[int] = [1]
        self.mode = "fresh"
        self.own, self.shuffled = torch.Generator(), random.Random(0)
        self.draws, self.older = np.random.default_rng(0), np.random.RandomState(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        self.nested["bank"].append(x)
        self.nested["bank"][0].add_(1)
        self.nested["state"][0].data = torch.ones(5)
        self.nested["state"][1].clear()
        self.nested["late"] = []
        self.ordered.move_to_end("a")
        self.counts["a"] += 1
        self.grouped[1].append(2)
        self.sizes.add(int(x.shape[-1]) * 2)
        self.codes += 1
        self.named[0] = "b"
        self.packed[0] += 1
        self.numbers[0] += 1
        self.replaced = [*self.replaced, 2]
        self.mode = "used"
        noise = torch.rand((), generator=self.own).item() + self.shuffled.random() + self.draws.random()
        return super().forward(x) * (noise + self.older.rand())

    def kept(self) -> Any:
        """Return all of it, as values that stay as they are."""
        attributes = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        attributes["own"] = self.own.get_state().tolist()
        attributes["shuffled"] = self.shuffled.getstate()
        attributes["draws"], attributes["older"] = self.draws.bit_generator.state, self.older.get_state()[1].tolist()
        return copy.deepcopy(repr(attributes))


def test_capture_takes_back_what_a_model_keeps_beside_buffers(batch: torch.Tensor) -> None:
    model = Keeps()
    before, seen, state = model.kept(), model.seen, model.nested["state"][0]
    maps = [capture(model, batch, "output")["output"] for _ in range(2)]
    assert model.kept() == before
    assert model.seen is seen
    assert model.nested["state"][0] is state
    assert torch.equal(*maps)


class Begins(Counter):
    """Keeps a carried state and a bank that begin with the first pass, and notes what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: torch.Tensor | None = None
        self.bank: list[torch.Tensor] = []
        self.cells: dict[str, Any] = {}
        self.seen: list[int] = []
        self.named: dict[str, list[int]] = {"a": []}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        self.carried = y if self.carried is None else 0.5 * self.carried.detach() + y
        self.bank.append(x.mean().detach())
        self.cells = {"h": [self.carried]}
        self.new = 5
        self.seen.append(len(x))
        self.named["a"].append(1)
        return self.carried + torch.stack(self.bank).sum()


def test_capture_takes_back_a_state_that_begins_with_it(batch: torch.Tensor) -> None:
    model = Begins()
    maps = [capture(model, batch, "output")["output"] for _ in range(2)]
    assert torch.equal(*maps)
    assert (model.carried, model.bank, model.cells) == (None, [], {})
    assert capture(model, batch[:1, :, :5], "output")["output"].shape[0] == 1


def test_capture_what_a_model_notes_stays(batch: torch.Tensor) -> None:
    model = Begins()
    for _ in range(2):
        capture(model, batch, "conv")
    assert (model.seen, model.named, model.new, model.steps) == ([4, 4], {"a": [1, 1]}, 5, 0)


def test_capture_large_tables_and_arrays_are_looked_over_not_through(batch: torch.Tensor) -> None:
    model = Keeps()
    model.words = {str(n): [n] for n in range(20_000)}
    model.fixed = np.zeros(3)
    model.fixed.flags.writeable = False
    model.around = [model.seen]
    model.around.append(model.around)
    model.nested["around"] = model.around
    capture(model, batch, "conv")
    assert model.seen == [1]
    assert len(model.words) == 20_000
    assert model.around[1] is model.around


def test_capture_frozen_backbone_is_not_copied(batch: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    whole = saved_values.SavedValues.__init__

    def counting(self: Any, tensors: Any, *rest: Any) -> None:
        tensors = list(tensors)
        copied.append(sum(tensor.numel() for tensor in tensors))
        whole(self, tensors, *rest)

    monkeypatch.setattr(saved_values.SavedValues, "__init__", counting)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)).requires_grad_(False)
    capture(nn.Sequential(backbone, nn.Flatten(), nn.Linear(64, 2)), batch, "0.0")
    assert copied == [8 + 8 + 1]


def test_saved_values_are_kept_up_to_their_limit(monkeypatch: pytest.MonkeyPatch, batch: torch.Tensor) -> None:
    tensors = [torch.zeros(100), torch.zeros(1000), torch.zeros(100), torch.zeros(1).expand(5)]
    kept = saved_values.SavedValues(tensors, most_bytes=1000)
    for tensor in tensors[:3]:
        tensor.add_(1)
    kept.put_back()
    assert [float(tensor[0]) for tensor in tensors] == [0, 1, 0, 0]
    assert [id(one) for one in kept.left_out] == [id(tensors[1]), id(tensors[3])]
    monkeypatch.setattr(saved_values, "MOST_SAVED_BYTES", 0)
    monkeypatch.setattr(saved_values.SavedValues.__init__, "__defaults__", (0,))
    with pytest.warns(UserWarning, match=r"^the model changed 2 of its weights .*: 'queue', 'pointer'$"):
        capture(Contrast(True), batch, "query.0")


def test_saved_values_of_large_and_of_odd_tensors_come_back() -> None:
    with torch.inference_mode():
        inference = torch.zeros(3)
    tensors = [
        torch.zeros(100_000),
        torch.zeros(100, 300, dtype=torch.bfloat16).t(),
        torch.zeros(5, dtype=torch.complex128),
        torch.tensor(True),
        torch.full((3,), float("nan")),
        torch.zeros(2, 3)[:, ::2],
        torch.zeros(0),
        torch.zeros(4, dtype=torch.float8_e4m3fn),
        inference,
    ]
    before = [bits(tensor) for tensor in tensors]
    kept = saved_values.SavedValues(tensors)
    for tensor in tensors:
        with torch.inference_mode(tensor.is_inference()):
            tensor.copy_(torch.ones(()).to(tensor.dtype))
    assert [bits(tensor) for tensor in tensors] != before
    kept.put_back()
    assert [bits(tensor) for tensor in tensors] == before


def test_capture_models_on_the_meta_device_and_of_odd_tensors_run(batch: torch.Tensor) -> None:
    model = BatchNorms()
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    model.register_buffer("shared", torch.zeros(1).expand(7))
    model.register_buffer("absent", None)
    assert capture(model, batch, "conv")["conv"].shape == (4, 4, 8, 8)
    assert [info.name for info in cf.list_layers(BatchNorms().to("meta"), batch)] == ["conv", "bn", "drop"]


def test_evaluating_overlapping_passes_restore_with_the_last_of_them(batch: torch.Tensor) -> None:
    model = Contrast(in_place=True)
    before = {name: bits(value) for name, value in model.state_dict().items()}
    modules = dict(model.named_modules())
    with evaluating(modules):
        with evaluating({"query": model.query}), torch.no_grad():
            model(batch)
        assert bits(model.queue) != before["queue"]
        assert not model.query.training
    assert {name: bits(value) for name, value in model.state_dict().items()} == before
    assert model.query.training
    assert not snapshot._held


def test_capture_from_threads_restores_the_state(batch: torch.Tensor) -> None:
    model = Contrast(in_place=True)
    before = {name: bits(value) for name, value in model.state_dict().items()}
    threads = [threading.Thread(target=lambda: [capture(model, batch, "query") for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: bits(value) for name, value in model.state_dict().items()} == before
    assert not snapshot._held


class Adapted(nn.Linear):
    """A frozen layer with a trained adapter, which the first forward in eval mode merges into the weight."""

    def __init__(self) -> None:
        super().__init__(8, 4)
        self.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(4, 2))
        self.is_merged = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training or self.is_merged):
            self.weight.data += self.up.data @ self.down.data
            self.is_merged = True
        merged = 0 if self.is_merged else x @ self.down.T @ self.up.T
        return super().forward(x) + merged


def test_capture_adapter_that_is_merged_in_eval_mode_comes_apart_again(batch: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Adapted())
    weight = bits(model[0].weight)
    expected = model(batch)
    maps = [capture(model, batch, "0")["0"] for _ in range(2)]
    assert not model[0].is_merged
    assert bits(model[0].weight) == weight
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(model(batch), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_capture_beside_torchscript_that_holds_buffers_restores_the_rest(batch: torch.Tensor) -> None:
    model = nn.Sequential(Counter().conv, torch.jit.script(nn.Sequential(nn.BatchNorm2d(4))), nn.Flatten(2), Counter())
    model[3].conv = nn.Identity()
    model[3].forward = lambda x, counter=model[3]: (setattr(counter, "steps", counter.steps + 1), x)[1]
    capture(model, batch, "0")
    assert model[3].steps == 0
    assert all(module.training for module in model.modules())


def test_list_layers_shallow_copies_of_a_layer_are_counted_once(batch: torch.Tensor) -> None:
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.store = [copy.copy(self.conv)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.is_meta:
                raise ValueError("needs values")
            return self.conv(x) + self.store[0](x)

    assert [info.calls for info in cf.list_layers(Shares(), batch)] == [1]
    assert list(capture(Shares(), batch, "conv")) == ["conv"]


class Recalibrates(BatchNorms):
    """Takes the statistics of its batch norm from every batch, in eval mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.bn.train()
        return super().forward(x)


def test_capture_batch_norm_that_the_model_trains_is_restored_in_training_and_said_in_eval(
    batch: torch.Tensor,
) -> None:
    model = Recalibrates()
    before = {name: bits(value) for name, value in model.state_dict().items()}
    capture(model, batch, "bn")
    assert {name: bits(value) for name, value in model.state_dict().items()} == before
    model.eval()
    with pytest.warns(
        UserWarning, match=r"^the model changed 3 of its weights .*: 'bn.running_mean', 'bn.running_var', "
    ):
        capture(model, batch, "bn")
    assert not model.bn.training


def test_capture_batch_norm_of_a_follower_is_restored_in_eval_mode_too(batch: torch.Tensor) -> None:
    class Follows(Contrast):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for mine, followed in zip(self.key.buffers(), self.query.buffers(), strict=True):
                mine.data.copy_(followed.data + 1)
            return super().forward(x)

    model = Follows(in_place=True).eval()
    before = {name: bits(value) for name, value in model.state_dict().items()}
    capture(model, batch, "query")
    assert {name: bits(value) for name, value in model.state_dict().items()} == before


def test_capture_parameters_that_the_model_replaces_are_put_back(batch: torch.Tensor) -> None:
    class Replaces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.is_scaled = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.is_scaled:
                self.conv.weight = nn.Parameter(self.conv.weight * 2)
                self.is_scaled = True
            return self.conv(x)

    model = Replaces()
    weight, before = model.conv.weight, bits(model.conv.weight)
    maps = [capture(model, batch, "conv")["conv"] for _ in range(2)]
    assert model.conv.weight is weight
    assert bits(weight) == before
    assert not model.is_scaled
    assert torch.equal(maps[0], maps[1])


class Draws(nn.Module):
    """Keeps a queue of what it saw, and draws from the generators of Python and numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 4, 3)
        self.queue = collections.deque([torch.zeros(4)], maxlen=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.net(x)
        self.queue.append(y.mean((0, 2, 3)))
        return y * random.random() + float(np.random.rand())


def test_capture_restores_queues_and_the_random_states_of_python_and_numpy(batch: torch.Tensor) -> None:
    model = Draws()
    before = random.getstate(), np.random.get_state(legacy=True), list(model.queue)
    capture(model, batch, "net")
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state(legacy=True)[1], before[1][1])
    assert np.random.get_state(legacy=True)[2:] == before[1][2:]
    assert len(model.queue) == 1
    assert model.queue[0] is before[2][0]
    assert model.queue.maxlen == 3
