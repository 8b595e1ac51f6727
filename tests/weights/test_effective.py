"""Weights as they are applied: shown beside what they are made of, and equal to what a pass uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command_line import run
from support.looping import over
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import cnnviz_fast as cf
from cnnviz_fast.errors import DTypeError, ModelError
from cnnviz_fast.weights.effective import effective_weights
from cnnviz_fast.weights.parameters import held_tensors


class Doubles(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


def old(name: str) -> Callable[[nn.Module], nn.Module]:
    return lambda module: getattr(nn.utils, name)(module)


WAYS: dict[str, tuple[Callable[[nn.Module], Any], list[str]]] = {
    "weight norm": (
        parametrizations.weight_norm,
        ["weight", "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"],
    ),
    "spectral norm": (
        parametrizations.spectral_norm,
        ["weight", "bias", "parametrizations.weight.original", "parametrizations.weight.0._u",
         "parametrizations.weight.0._v"],
    ),
    "parametrization of the user's": (
        lambda module: parametrize.register_parametrization(module, "weight", Doubles()),
        ["weight", "bias", "parametrizations.weight.original"],
    ),
    "older weight norm": (old("weight_norm"), ["weight", "bias", "weight_g", "weight_v"]),
    "older spectral norm": (old("spectral_norm"), ["weight", "bias", "weight_orig", "weight_u", "weight_v"]),
    "pruning": (
        lambda module: prune.l1_unstructured(module, "weight", 0.5), ["weight", "bias", "weight_orig", "weight_mask"],
    ),
    "pruning twice, and the bias": (
        lambda module: [prune.random_unstructured(module, "weight", 0.5), prune.identity(module, "bias"),
                        prune.ln_structured(module, "weight", 0.5, 2, 0)],
        ["weight", "bias", "weight_orig", "bias_orig", "weight_mask", "bias_mask"],
    ),
}  # fmt: skip


def wrapped(way: str, *, training: bool = True) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 8, 3)
    WAYS[way][0](module)
    return nn.Sequential(module).train(training)


def contents(module: nn.Module) -> list[Any]:
    return [(name, tuple(value.reshape(-1).tolist())) for name, value in module.state_dict().items()]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils")
@over("training", [True, False])
@over("way", WAYS)
def test_parameter_statistics_shows_the_weight_that_a_pass_applies(way: str, training: bool) -> None:
    model = wrapped(way, training=training)
    before, random = contents(model), torch.get_rng_state()
    held = {one.name: one for one in held_tensors(model)}
    assert sorted(held) == sorted(f"0.{name}" for name in WAYS[way][1])
    assert contents(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training is training for module in model.modules())
    kinds = {name: one.kind for name, one in held.items()}
    assert kinds["0.weight"] == next(iter(kinds.values())) == "effective"
    batch = torch.randn(1, 3, 5, 5)
    with torch.no_grad():
        expected = wrapped(way, training=False)(batch)
        bias = held["0.bias"].values
        assert torch.equal(nn.functional.conv2d(batch, held["0.weight"].values, bias), expected)
    infos = {info.name: info for info in cf.parameter_statistics(model)}
    assert json.loads(json.dumps(infos["0.weight"].kind)) == "effective"
    assert infos["0.weight"].shape == (8, 3, 3, 3)


def test_parameter_statistics_half_pruned_convolution_has_half_zeros() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    for module in model:
        prune.l1_unstructured(module, "weight", 0.5)
    zeros = {info.name: info.zeros for info in cf.parameter_statistics(model)}
    assert [zeros[f"{n}.{name}"] for n in range(3) for name in ("weight", "weight_orig")] == [0.5, 0] * 3
    prune.remove(model[0], "weight")
    assert [info.kind for info in cf.parameter_statistics(model, "0")] == ["parameter", "parameter"]


def test_parameter_statistics_plain_models_have_no_effective_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.MultiheadAttention(8, 2))
    assert {info.kind for info in cf.parameter_statistics(model)} == {"parameter", "buffer"}
    assert all(effective_weights(module, "") == {} for module in model.modules())


def test_parameter_statistics_weight_that_cannot_be_computed_is_named() -> None:
    class Fails(nn.Module):
        is_broken = False

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            if self.is_broken:
                raise ValueError("no such device")
            return weight

    model = nn.Sequential(nn.Linear(3, 3))
    parametrize.register_parametrization(model[0], "weight", Fails())
    Fails.is_broken = True
    with pytest.raises(ModelError, match=r"^weight '0\.weight' cannot be computed: ValueError: no such device\.$"):
        cf.parameter_statistics(model)
    with pytest.raises(DTypeError, match="on the meta device"):
        cf.parameter_statistics(wrapped("pruning").to("meta"))


PRUNED = """
from torch import nn
from torch.nn.utils import prune

def make():
    net = nn.Sequential(nn.Conv2d(3, 8, 3))
    prune.l1_unstructured(net[0], "weight", 0.5)
    return net
"""


def test_weights_command_shows_the_effective_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pruned.py").write_text(PRUNED)
    spec = f"{tmp_path / 'pruned.py'}:make"
    assert run("weights", spec, "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[::6] == ["0.weight", "50.0%"]
    drawn = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert drawn == ["0.weight.png", "0.weight_mask.png", "0.weight_orig.png", "histograms.png"]
    assert (tmp_path / "out" / "0.weight.png").read_bytes() != (tmp_path / "out" / "0.weight_orig.png").read_bytes()


# Tensors of other classes


class Packed(torch.Tensor):
    """Quantised as torchao does it: a subclass without a usable memory of its own, which can be dequantised."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> Packed:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)

    def __init__(self, values: torch.Tensor) -> None:
        self.levels = values.mul(4).round().to(torch.int8)

    def dequantize(self) -> torch.Tensor:
        return self.levels.float() / 4

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(f"{function} of a packed weight")


def test_parameter_statistics_quantised_class_gives_dequantised_values() -> None:
    model = nn.Linear(4, 2)
    values = torch.tensor([[0.5, -1.0, 0.0, 0.25], [0.0, 0.0, 2.0, -0.25]])
    model.weight = nn.Parameter(Packed(values), requires_grad=False)
    weight = cf.parameter_statistics(model)[0]
    assert (weight.name, weight.kind, weight.dtype, weight.shape) == ("weight", "parameter", "float32", (2, 4))
    assert (weight.min, weight.max, weight.mean, weight.zeros) == (-1, 2, 0.1875, 0.375)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="torch 2.6 shards nothing on a CPU")
@pytest.mark.filterwarnings("ignore")
def test_parameter_statistics_and_capture_of_sharded_parameters(tmp_path: Path) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    batch = torch.randn(1, 3, 8, 8)
    plain, maps = cf.parameter_statistics(model), cf.capture(model, batch, ["0", "2"])
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for module in (model[0], model[2], model):
            fully_shard(module, mesh=mesh)
        assert hasattr(model[0].weight, "full_tensor")
        assert cf.parameter_statistics(model) == plain
        for _ in range(2):
            found = cf.capture(model, batch, ["0", "2"])
            assert all(torch.equal(found[name], maps[name]) for name in maps)
        model.train()(batch).sum().backward()
        assert model[0].weight.grad is not None
        assert cf.parameter_statistics(model, "0")[0] == plain[0]
    finally:
        distributed.destroy_process_group()
