"""A linear probe of each stage of the small network, on parts of the photos that training never saw."""

from __future__ import annotations

import numpy as np
import torch

from cnnviz_fast.models.small_networks import CATEGORIES, SmallNetwork

from .photos import UNNAMED, windows
from .small import VIEW_PX, as_input

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
SIDES_PX = (64, 112)
CLEAR = 0.7
"""Share of a window that its category must cover."""

RIDGE = 0.1
"""Penalty of the probe's weights, for one window; activations have a deviation of 1."""


def crops(count: int, *, held_out: bool, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Cut windows that show one category, without augmentation.

    Args:
        count: of windows that are cut; those that show several categories are left out.
        held_out: whether they come from the parts of the photos that training never saw.
        seed: of their places.

    Returns:
        (N, 3, VIEW_PX, VIEW_PX) float32 input of the network, and (N,) indices in CATEGORIES.
    """
    images, labels = windows(count, SIDES_PX, VIEW_PX, held_out=held_out, seed=seed)
    shares = np.array([np.bincount(label.ravel(), minlength=UNNAMED + 1) for label in labels]) / VIEW_PX**2
    is_clear = shares[:, :UNNAMED].max(1) >= CLEAR
    return as_input(images[is_clear]), shares[is_clear].argmax(1)


def accuracies(network: SmallNetwork, count: int, seed: int = 0) -> dict[str, float]:
    """Measure how many held-out windows a linear probe of each stage puts into the right category.

    Args:
        network: in eval mode.
        count: of windows to fit the probe on, cut where training was; half as many are held out.
        seed: of the windows.

    Returns:
        Stage, and "head" for the network's own head without a probe -> share of the windows held out, 0 to 1.
    """
    seen, seen_categories = crops(count, held_out=False, seed=seed)
    held, held_categories = crops(count // 2, held_out=True, seed=seed + 1)
    here, there = activations(network, seen), activations(network, held)
    found = {
        stage: float((_probe(here[stage], seen_categories, there[stage]) == held_categories).mean()) for stage in STAGES
    }
    return found | {"head": float((there["head"].argmax(1) == held_categories).mean())}


@torch.no_grad()
def activations(network: SmallNetwork, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the mean of every channel of the stages, and the scores of the head, each (N, channels) float32."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in (*STAGES, "head")}
    for batch in images.split(64):
        maps = batch.contiguous(memory_format=torch.channels_last)
        for stage in STAGES:
            maps = getattr(network, stage)(maps)
            found[stage].append(maps.mean((2, 3)))
        found["head"].append(network.head(found["stage5"][-1]))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _probe(x: np.ndarray, categories: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Fit a linear classifier by ridge regression on the categories as one-hot vectors, and return what it tells."""
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x, held = ((values - mean) / deviation for values in (x, held))
    wanted = np.eye(len(CATEGORIES), dtype=np.float32)[categories]
    offset = wanted.mean(0)
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (wanted - offset))
    return (held @ weights + offset).argmax(1)
