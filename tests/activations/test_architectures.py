"""Architectures of timm and torchvision: every layer is captured as an independent hook sees it, and is drawn.

The default run takes one with channels last and one of tokens; `-m zoo` takes all, and prints what each gave (with -s).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.architectures import SHALLOWER, TIMM, RepeatedWeights, shrunk
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.activations.axes.evidence import Evidence
from cnnviz_fast.activations.axes.find import find_axes, to_maps
from cnnviz_fast.errors import ShapeError
from cnnviz_fast.models.loaded import example_input

DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn ssdlite320_mobilenet_v3_large ssd300_vgg16 retinanet_resnet50_fpn "
    "fasterrcnn_resnet50_fpn"
)
SEGMENTERS = "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50"
SPECS = [f"timm:{name}" for name in TIMM]
SPECS += [f"torchvision:{name}" for group in (DETECTORS, SEGMENTERS) for name in group.split()]
QUICK = {"timm:mambaout_femto", "timm:deit_tiny_distilled_patch16_224"}

STAGES = ("stem", "patch_embed", "stages", "layers", "blocks", "layer1", "layer2", "layer3", "layer4", "norm")
"""Names that networks of all families give to what lies at the top; the children of a list of stages count too."""

# Layers that are refused for a reason: their cells have no position in the image, or more than one.
# Hiera's tokens are reordered, those of EfficientViM's norm are hidden states. EfficientViT runs convolutions in
# windows, MViT for each head.
REFUSED = {
    "timm:hiera_tiny_224", "timm:efficientvim_m1", "timm:efficientvit_m0", "timm:mvitv2_tiny",
}  # fmt: skip

_rows: list[tuple[str, int, int, int, str]] = []


@pytest.fixture(scope="module", autouse=True)
def _table() -> Any:
    """Print what each model gave, after the last."""
    yield
    print(f"\n{'model':45} tried equal drawn refused, and why")  # noqa: T201
    for model, tried, equal, drawn, why in _rows:
        print(f"{model:45} {tried:5} {equal:5} {drawn:5} {why}")  # noqa: T201


def stages_of(model: nn.Module) -> list[str]:
    """List the stages of a network: what lies at its top, or one below a list of stages."""
    names = []
    for name, module in model.named_modules():
        top, _, below = name.partition(".")
        if top in STAGES and (not below or below.isdigit()) and not isinstance(module, nn.ModuleList):
            names.append(name)
    return names


def small_input(model: cf.LoadedModel) -> torch.Tensor:
    """Return an image of noise, seeded, of 224 px where the model takes more and need not."""
    shape = list(example_input(model).shape)
    if shape[-1] > 256 and not getattr(model.module, "default_cfg", {}).get("fixed_input_size"):
        shape[-2:] = [224, 224]
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def seen_by_hooks(model: nn.Module, batch: torch.Tensor, names: list[str]) -> dict[str, list[torch.Tensor]]:
    """Clone what each call of each layer puts out, with hooks of this test's own."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    modules = dict(model.named_modules(remove_duplicate=False))

    def keep(name: str, output: Any) -> None:
        # XCiT's patches come with their grid; the tensor is what has maps.
        seen[name].append((output if isinstance(output, torch.Tensor) else output[0]).clone())

    handles = [
        modules[name].register_forward_hook(lambda _m, _i, output, name=name: keep(name, output)) for name in names
    ]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("spec", [pytest.param(s, marks=() if s in QUICK else pytest.mark.zoo) for s in SPECS])
def test_architecture_is_listed_captured_and_drawn(spec: str) -> None:
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    with RepeatedWeights():
        arguments = SHALLOWER.get(spec.removeprefix("timm:"))
        model = cf.load_model(spec, weights="none", device="cpu", arguments=arguments)
    shrunk(model.module)
    listed = {layer.name: layer for layer in cf.list_layers(model, example_input(model))}
    convolutions = [name for name, module in model.module.named_modules() if isinstance(module, nn.Conv2d)]
    wanted = dict.fromkeys([*convolutions, *stages_of(model.module)])
    wanted = [name for name in wanted if listed[name].calls and listed[name].shape is not None]
    assert wanted
    batch = small_input(model)
    truth = seen_by_hooks(model.module, batch, wanted)
    captured = cf.capture(model, batch, wanted)
    tried = sum(map(len, truth.values()))
    expected = {
        name if len(calls) == 1 else f"{name}:{k}": call
        for name, calls in truth.items()
        for k, call in enumerate(calls)
    }
    assert set(captured) == set(expected)
    equal = sum(torch.equal(captured[name], expected[name]) for name in expected)

    modules = dict(model.module.named_modules(remove_duplicate=False))
    known = (model.module, tuple(batch.shape), (None, None), tuple(map(id, modules.values())))
    told: list[str] = []
    refused: dict[str, str] = {}
    for name, output in captured.items():
        module = modules[name.partition(":")[0]]
        try:
            axes = find_axes(tuple(output.shape), Evidence(name, module, *known))
        except ShapeError as error:
            refused[name] = str(error)
            continue
        maps = to_maps(output, axes)
        assert maps.ndim == 4
        # A Conv2d has as many channels as it says, wherever in the network it stands.
        if isinstance(module, nn.Conv2d):
            assert maps.shape[1] == module.out_channels
        told.append(name)
    _rows.append((spec, tried, equal, len(told), f"{len(refused)} {next(iter(refused.values()), '')}"))
    assert equal == tried
    assert bool(refused) == (spec in REFUSED), refused
    last = told[-1]
    module = modules[last.partition(":")[0]]
    axes = find_axes(tuple(captured[last].shape), Evidence(last, module, *known))
    sheet = cf.render(to_maps(captured[last], axes)[0], tile=16)
    assert len(sheet.manifest["tiles"]) == to_maps(captured[last], axes).shape[1]
