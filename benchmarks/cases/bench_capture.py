"""What capture adds to the forward pass of ResNet-50 on one image: one layer, and all 53 convolutions (44 MB)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Table, cases
from cnnviz_fast.activations.capture import capture, capture_stream

INPUT_PX = 224
THREADS = 2


@cache
def resnet50() -> torch.nn.Module:
    """Make the model, in eval mode, with seeded random weights."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet50(weights=None).eval()


@cache
def batch() -> torch.Tensor:
    """Make the input: (1, 3, 224, 224) float32."""
    return torch.randn(1, 3, INPUT_PX, INPUT_PX, generator=torch.Generator().manual_seed(0))


def forward() -> torch.Tensor:
    """Run the model as anybody would who only wants its result."""
    with torch.no_grad():
        return resnet50()(batch())


def cloning_hooks(layers: list[str]) -> dict[str, torch.Tensor]:
    """Capture as most scripts do: a hook on each layer that clones into fresh memory."""
    return cloned(resnet50(), batch(), layers)


def cloned(model: torch.nn.Module, images: torch.Tensor, layers: list[str]) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}

    def hook_of(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.__setitem__(name, output.clone())

    handles = [model.get_submodule(name).register_forward_hook(hook_of(name)) for name in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


@cache
def bytes_of() -> dict[str, int]:
    """Return what layer4 and each convolution put out, in bytes, from a pass without values."""
    import torchvision

    with torch.device("meta"):
        model, images = torchvision.models.resnet50(weights=None), torch.empty(1, 3, INPUT_PX, INPUT_PX)
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)]
    return {name: maps.nbytes for name, maps in cloned(model.eval(), images, ["layer4", *names]).items()}


def convolutions() -> list[str]:
    """List the names of the convolutions."""
    return [name for name in bytes_of() if name != "layer4"]


@cache
def expected() -> dict[str, torch.Tensor]:
    """Make what every contender must give."""
    return cloning_hooks(["layer4", *convolutions()])


def check(acts: Any) -> None:
    """Assert that the activations are those of a cloning hook, bit for bit."""
    assert acts
    assert all(torch.equal(maps, expected()[name]) for name, maps in acts.items())


def streamed() -> dict[str, torch.Tensor]:
    """Hand each convolution to a consumer that keeps its largest value only."""
    largest: dict[str, torch.Tensor] = {}
    capture_stream(resnet50(), batch(), "type:Conv2d", lambda name, maps: largest.__setitem__(name, maps.amax()))
    return largest


def check_largest(largest: dict[str, torch.Tensor]) -> None:
    """Assert that the largest values are those of all convolutions."""
    assert len(largest) == len(convolutions())
    assert all(torch.equal(value, expected()[name].amax()) for name, value in largest.items())


def contender(
    name: str, run: Callable[[], Any], role: str, right: Callable[[Any], None], layers: list[str]
) -> Contender:
    moved_bytes = sum(bytes_of()[layer] for layer in layers)
    return Contender(name, run, right, role, moved_bytes, threads=THREADS)


def anything(result: Any) -> None:
    """Assert nothing: the pass alone gives no activations."""


def table(name: str, pattern: str, layers: list[str]) -> Table:
    """The pass alone, the pass with capture, and the pass with cloning hooks."""
    return Table(
        name,
        [
            contender("forward pass alone", forward, FLOOR, anything, []),
            contender("capture", lambda: capture(resnet50(), batch(), pattern), OURS, check, layers),
            contender("cloning hooks", lambda: cloning_hooks(layers), PEER, check, layers),
        ],
        full_only=True,
    )


TABLES = [
    table("capture one layer of ResNet-50", "layer4", ["layer4"]),
    table("capture all 53 convolutions of ResNet-50", "type:Conv2d", convolutions()),
]
TABLES[1].contenders = [
    *TABLES[1].contenders,
    contender("capture_stream, largest values", streamed, OURS, check_largest, convolutions()),
]


@cases(TABLES)
def bench_capture(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
