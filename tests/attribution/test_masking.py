"""Score-CAM and Ablation-CAM beside brute force on small networks, a channel and an image at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from support.assertions import FLOAT32_SUMS, assert_close
from support.heat import ClassToken, Residual, activations_and_gradient, images, made
from torch import nn
from torch.nn.functional import interpolate

import cnnviz_fast as cf

CLASSES = [2, 0, 5]


def scored(model: nn.Module, x: torch.Tensor, index: int) -> float:
    with torch.no_grad():
        return float(model(x)[0, index])


def score_cam(model: nn.Module, batch: torch.Tensor, layer: str, channels_at: int = 1) -> torch.Tensor:
    """Return algorithm 1 of arXiv 1910.01279; a black image's score, which it takes off, changes no softmax."""
    activations, _ = activations_and_gradient(model, batch, layer, CLASSES)
    heat = []
    for n, index in enumerate(CLASSES):
        scores = []
        for maps in activations[n]:
            mask = interpolate(maps[None, None], batch.shape[2:], mode="bilinear", align_corners=False)
            mask = (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else mask * 0
            scores.append(scored(model, batch[n : n + 1] * mask, index))
        weights = torch.tensor(scores).softmax(0)
        heat.append(sum(w * maps for w, maps in zip(weights, activations[n], strict=True)).relu())
    return torch.stack(heat)


def without(model: nn.Module, x: torch.Tensor, layer: str, channel: Any, index: int) -> float:
    """Return the score of an image where a channel of a layer is 0."""

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[channel] = 0
        return changed

    handle = model.get_submodule(layer).register_forward_hook(hook)
    score = scored(model, x, index)
    handle.remove()
    return score


def ablation_weights(model: nn.Module, batch: torch.Tensor, layer: str, channels: list[Any]) -> torch.Tensor:
    rows = []
    for n, index in enumerate(CLASSES):
        whole = scored(model, batch[n : n + 1], index)
        rows.append([(whole - without(model, batch[n : n + 1], layer, c, index)) / whole for c in channels])
    return torch.tensor(rows)


@pytest.mark.parametrize("chunk", [None, 3, 1])
@pytest.mark.parametrize("layer", ["first", "third"])
def test_scorecam_equals_brute_force(layer: str, chunk: int | None) -> None:
    model, batch = made(Residual), images()
    with torch.no_grad():
        model.get_submodule(layer).weight[1] = 0  # a channel that is flat
    heat = cf.attribute(model, batch, "scorecam", layer, torch.tensor(CLASSES), chunk=chunk)
    assert_close(heat, score_cam(model, batch, layer), FLOAT32_SUMS)


@pytest.mark.parametrize("chunk", [None, 3, 1])
@pytest.mark.parametrize("layer", ["first", "second", "third"])
def test_ablationcam_equals_brute_force(layer: str, chunk: int | None) -> None:
    model, batch = made(Residual), images()
    heat = cf.attribute(model, batch, "ablationcam", layer, torch.tensor(CLASSES), chunk=chunk)
    activations, _ = activations_and_gradient(model, batch, layer, CLASSES)
    channels = [(slice(None), c) for c in range(activations.shape[1])]
    weights = ablation_weights(model, batch, layer, channels)
    assert_close(heat, (weights[:, :, None, None] * activations).sum(1).relu(), FLOAT32_SUMS)


def test_ablationcam_channels_of_tokens_are_those_of_every_token() -> None:
    model, batch = made(ClassToken), images()
    heat = cf.attribute(model, batch, "ablationcam", "blocks.0", torch.tensor(CLASSES))
    activations, _ = activations_and_gradient(model, batch, "blocks.0", CLASSES)
    weights = ablation_weights(model, batch, "blocks.0", [(..., c) for c in range(16)])
    expected = (activations[:, 1:] * weights[:, None]).sum(2).relu().reshape(3, 4, 4)
    assert_close(heat, expected, FLOAT32_SUMS)


def counted(model: nn.Module) -> Counter[str]:
    """Count the images that go through each convolution from here on."""
    counts: Counter[str] = Counter()
    for name in ("first", "second", "third"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: counts.update({name: len(output)})
        )
    return counts


def test_ablationcam_runs_only_the_tail() -> None:
    model = made(Residual)
    counts = counted(model)
    cf.attribute(model, images(1), "ablationcam", "second", 1, chunk=2)
    # The image itself, and two copies with which the tail is recorded; it is played for the other 6 channels.
    assert counts == {"first": 3, "second": 3, "third": 3}


class Looking(Residual):
    """Looks at values to decide how to go on, so that what it does for one channel tells nothing of another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.relu(self.first(x)))
        if bool(x[:, 1].abs().sum() > 0):
            x = x * 2
        return self.head(self.third(x).mean((2, 3)))


class Written(Residual):
    """Writes into a tensor from before the layer, and goes on with another view of its memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.relu(self.first(x)))
        skip = x.clone()
        other = skip.flatten(2)
        skip += self.third(x)
        return self.head(self.relu(other).mean(2))


class Reading(Residual):
    """Reads values as numbers, which no operation shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.relu(self.first(x)))
        return self.head(self.third(x).mean((2, 3))) * torch.tensor(x.abs().mean((1, 2, 3)).tolist())[:, None]


class Remembering(Residual):
    """Scales by a buffer that it writes in each pass, after which it gets its old value back."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scale.fill_(2)
        return super().forward(x) * self.scale


class Overwriting(Residual):
    """Writes into a tensor from before the layer that it has used behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.relu(self.first(x)))
        skip = x.clone()
        x = skip + self.third(x)
        skip += x
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Looking, Written, Reading, Remembering, Overwriting])
def test_ablationcam_network_whose_tail_changes_equals_brute_force(kind: type[nn.Module]) -> None:
    model, batch = made(kind), images()
    with torch.no_grad():
        model.head.bias.fill_(3)  # so that no score is near 0: it is divided by
    layer = "third" if kind in (Written, Overwriting) else "second"
    heat = cf.attribute(model, batch, "ablationcam", layer, torch.tensor(CLASSES), chunk=1)
    activations, _ = activations_and_gradient(model, batch, layer, CLASSES)
    weights = ablation_weights(model, batch, layer, [(slice(None), c) for c in range(8)])
    assert_close(heat, (weights[:, :, None, None] * activations).sum(1).relu(), FLOAT32_SUMS)


def test_ablationcam_network_that_draws_draws_in_each_pass_what_it_draws_in_the_first() -> None:
    class Drawing(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.third(self.second(self.relu(self.first(x))))
            return self.head(nn.functional.dropout(x.mean((2, 3)), training=True))

    model, state = made(Drawing), torch.get_rng_state()
    first = cf.attribute(model, images(1), "ablationcam", "third", 1, chunk=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(cf.attribute(model, images(1), "ablationcam", "third", 1, chunk=1), first)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_memory_that_runs_out_halves_the_chunks(method: str) -> None:
    class Small(Residual):
        most = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError("out of memory")
            self.most = max(self.most, len(x))
            return super().forward(x)

    model = made(Small)
    heat = cf.attribute(model, images(), method, "third", torch.tensor(CLASSES), chunk=8)
    assert model.most == 3  # the batch; of 8 variants 2 fit
    assert_close(heat, cf.attribute(made(Residual), images(), method, "third", torch.tensor(CLASSES)), FLOAT32_SUMS)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_several_layers_and_targets(method: str) -> None:
    model, batch = made(Residual), images()
    heat = cf.attribute(model, batch, method, ["first", "third"], [1, ("norm", 2)])
    assert {name: tuple(maps.shape) for name, maps in heat.items()} == {"first": (3, 2, 16, 16), "third": (3, 2, 8, 8)}
    for layer, maps in heat.items():
        assert_close(maps[:, 0], cf.attribute(model, batch, method, layer, 1), FLOAT32_SUMS)
        assert_close(maps[:, 1], cf.attribute(model, batch, method, layer, "norm@2"), FLOAT32_SUMS)


def test_scorecam_of_signals_and_volumes() -> None:
    signals = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    batch = torch.randn(2, 2, 40, generator=torch.Generator().manual_seed(0))
    assert cf.attribute(signals.eval(), batch, "scorecam", "0", 1).shape == (2, 1, 38)
    volumes = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    batch = torch.randn(2, 1, 6, 10, 12, generator=torch.Generator().manual_seed(0))
    assert cf.attribute(volumes.eval(), batch, "scorecam", "0", 1).shape == (2, 4, 8, 10)
