"""What Grad-CAM costs beside the forward pass of ResNet-50 on eight images, and guided backpropagation beside captum's.

For Grad-CAM peers differentiate the whole network, or keep its graph; ours only what is behind the first of the layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from benchmarks.cases.bench_capture import resnet50
from benchmarks.harness import bars, installed
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Table, cases
from cnnviz_fast.attribution.api import attribute

THREADS = 1
IMAGES, INPUT_PX, TARGET = 8, 224, 281
LAST = "layer4"
LATE = ["layer3", "layer4.0", "layer4.1", "layer4.2.bn2", LAST]
STAGES = ["conv1", "layer1", "layer2", "layer3", LAST]


@cache
def batch() -> torch.Tensor:
    """Make the input: (8, 3, 224, 224) float32."""
    return torch.randn(IMAGES, 3, INPUT_PX, INPUT_PX, generator=torch.Generator().manual_seed(0))


def forward() -> torch.Tensor:
    """Run the model as anybody would who only wants its result."""
    with torch.no_grad():
        return resnet50()(batch())


def ours(layers: Any) -> Any:
    return attribute(resnet50(), batch(), "gradcam", layers, TARGET)


def captum() -> torch.Tensor:
    from captum.attr import LayerGradCam

    model = resnet50()
    found: torch.Tensor = LayerGradCam(model, model.layer4).attribute(batch(), target=TARGET, relu_attributions=True)
    return found[:, 0].detach()


def torchcam() -> torch.Tensor:
    from torchcam.methods import GradCAM

    extractor = GradCAM(resnet50(), LAST)
    (found,) = extractor([TARGET] * IMAGES, resnet50()(batch()), normalized=False)
    extractor.remove_hooks()
    heat: torch.Tensor = found.detach()
    return heat


@dataclass(frozen=True)
class Peer:
    """A library with Grad-CAM. packages: the distributions that it needs."""

    run: Callable[[], torch.Tensor]
    packages: tuple[str, ...]


PEERS = (Peer(captum, ("captum",)), Peer(torchcam, ("torchcam",)))


@cache
def expected() -> torch.Tensor:
    """Return Grad-CAM of the last stage by its definition."""
    stage: list[torch.Tensor] = []
    handle = resnet50().get_submodule(LAST).register_forward_hook(lambda module, inputs, output: stage.append(output))
    score = resnet50()(batch())[:, TARGET].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, stage)
    return (gradient.mean((2, 3), keepdim=True) * stage[0]).sum(1).relu().detach()


def check(heat: torch.Tensor) -> None:
    """Assert that it is Grad-CAM of the last stage."""
    torch.testing.assert_close(heat, expected(), rtol=1e-4, atol=1e-6)


def guided() -> Any:
    return attribute(resnet50(), batch(), "guided", target=TARGET)


def captums_guided() -> torch.Tensor:
    from captum.attr import GuidedBackprop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it sets hooks
        found: torch.Tensor = GuidedBackprop(resnet50()).attribute(batch().clone().requires_grad_(), target=TARGET)
    return found


@cache
def expected_guided() -> torch.Tensor:
    """Return guided backpropagation by its definition: a hook on each rectifier of the graph."""
    leaf = batch().clone().requires_grad_()
    score = resnet50()(leaf)[:, TARGET].sum()
    nodes, seen = [score.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
            if node.name() == "ReluBackward0":
                node.register_hook(lambda gradients, came: (gradients[0].relu(),))
    return torch.autograd.grad(score, leaf)[0]


def check_guided(maps: torch.Tensor) -> None:
    """Assert that it is guided backpropagation."""
    assert torch.equal(maps, expected_guided())


def contender(name: str, run: Callable[[], Any], role: str, right: Callable[[Any], None], **more: Any) -> Contender:
    return Contender(name, run, right, role, 0, threads=THREADS, **more)


def anything(result: Any) -> None:
    """Assert nothing: the pass alone attributes nothing."""


FORWARD = contender("forward pass alone", forward, FLOOR, anything)
TABLES = [
    Table(
        bars.GRADCAM,
        [
            FORWARD,
            contender("attribute", lambda: ours(LAST), OURS, check),
            *(
                contender(peer.run.__name__, peer.run, PEER, check, packages=peer.packages)
                for peer in installed.of(PEERS)
            ),
        ],
        full_only=True,
    ),
    Table(
        bars.GRADCAM_LATE,
        [FORWARD, contender("attribute", lambda: ours(LATE), OURS, lambda heat: check(heat[LAST]))],
        full_only=True,
    ),
    Table(
        bars.GRADCAM_STAGES,
        [FORWARD, contender("attribute", lambda: ours(STAGES), OURS, lambda heat: check(heat[LAST]))],
        full_only=True,
    ),
    Table(
        bars.GUIDED,
        [
            FORWARD,
            contender("attribute", guided, OURS, check_guided),
            *(
                contender("captum", peer.run, PEER, check_guided, packages=peer.packages)
                for peer in installed.of((Peer(captums_guided, ("captum",)),))
            ),
        ],
        full_only=True,
    ),
]


@cases(TABLES)
def bench_attribution(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
