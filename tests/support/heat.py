"""What tests of attribution share: a small network of one's own, and the methods written as their articles have them.

The definitions take the activations of one image (C, h, w) and their gradient, in float64, and go through loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Maps = NDArray[np.float64]


class Residual(nn.Module):
    """Convolutions with a rectifier that works in place and runs several times, a skip connection, and a linear end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.second = nn.Conv2d(5, 8, 3, stride=2, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.relu(self.first(x)))
        skip = x.clone()
        skip += self.third(self.relu(x))
        return self.head(self.relu(self.norm(skip)).mean((2, 3)))


class ClassToken(nn.Module):
    """Two blocks of a ViT, whose head reads the class token only."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 16, 8, 8)
        self.class_token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2)))
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cut(x).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.blocks(tokens)[:, 0])


def made(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """Make a network with seeded weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().eval()


def images(count: int = 3, px: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, px, px, generator=torch.Generator().manual_seed(1))


def activations_and_gradient(
    model: nn.Module, batch: torch.Tensor, layer: str, classes: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a layer puts out, and the gradient of the scores of a class for each image, both as the layer has it.

    By autograd on the whole network. What comes behind the layer gets a copy, so that nothing writes over the original.
    """
    seen: list[torch.Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output)
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(hook)
    scores = model(batch)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[torch.arange(len(batch)), classes].sum(), seen[0])
    return seen[0].detach(), gradient


def gradcam(a: Maps, g: Maps) -> Maps:
    return np.maximum(sum(g[c].mean() * a[c] for c in range(len(a))), 0)


def gradcam_plus_plus(a: Maps, g: Maps) -> Maps:
    """Return equations 7 and 19 of arXiv 1710.11063, where alpha is 0 without a gradient."""
    total = np.zeros(a.shape[1:])
    for c in range(len(a)):
        weight = 0.0
        for y, x in np.ndindex(*a.shape[1:]):
            slope = g[c, y, x]
            if slope > 0:
                weight += slope * slope**2 / (2 * slope**2 + a[c].sum() * slope**3)
        total += weight * a[c]
    return np.maximum(total, 0)


def xgradcam(a: Maps, g: Maps) -> Maps:
    return np.maximum(sum((a[c] * g[c]).sum() / a[c].sum() * a[c] for c in range(len(a)) if a[c].any()), 0)


def hirescam(a: Maps, g: Maps) -> Maps:
    return (a * g).sum(0)


def layercam(a: Maps, g: Maps) -> Maps:
    return np.maximum((a * np.maximum(g, 0)).sum(0), 0)


def eigencam(a: Maps) -> Maps:
    """Return the projection on the first right singular vector, with the sign that makes its sum positive."""
    matrix = a.reshape(len(a), -1).T
    projected = matrix @ np.linalg.svd(matrix)[2][0]
    return (projected * np.sign(projected.sum())).reshape(a.shape[1:])


DEFINITIONS = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "layercam": layercam,
}
"""Name -> the method, of activations and gradients."""
