"""What goes into a model: told by the first convolution that runs, not by the first that is listed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.looping import over
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError
from cnnviz_fast.models.expected import GUESS, IMAGE, ExpectedInput, expected_of
from cnnviz_fast.models.loaded import LoadedModel, as_given, example_input, expected_input


class Own(nn.Module):
    """A module with a forward of its own."""

    def __init__(self, forward: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.run(self, x)
        return result


def with_coordinates(module: Any, x: torch.Tensor) -> torch.Tensor:
    places = torch.zeros(len(x), 2, *x.shape[2:], device=x.device)
    result: torch.Tensor = module.stem(torch.cat([x, places], 1))
    return result


MODULES: dict[str, tuple[nn.Module, ExpectedInput]] = {
    "colour": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)), IMAGE),
    "grey": (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)), ExpectedInput(1)),
    "bands": (nn.Conv2d(13, 4, 3), ExpectedInput(13)),
    "a head before the stem": (
        Own(lambda m, x: m.head(m.stem(x)), head=nn.Conv2d(8, 2, 1), stem=nn.Conv2d(4, 8, 3)),
        ExpectedInput(4),
    ),
    "a head for three channels before a grey stem": (
        Own(lambda m, x: m.head(m.stem(x)), head=nn.Conv2d(3, 2, 1), stem=nn.Conv2d(1, 3, 3)),
        ExpectedInput(1),
    ),
    "a stem behind pixel_unshuffle": (
        Own(lambda m, x: m.stem(nn.functional.pixel_unshuffle(x, 4)), stem=nn.Conv2d(48, 8, 3)),
        IMAGE,
    ),
    "a stem with coordinates": (Own(with_coordinates, stem=nn.Conv2d(5, 8, 3)), IMAGE),
    "one size only": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)),
        ExpectedInput(2),
    ),
    "no convolution": (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), GUESS),
    "a signal": (nn.Sequential(nn.Conv1d(2, 4, 3)), ExpectedInput(2, 1)),
    "a volume": (nn.Sequential(nn.Conv3d(1, 4, 3)), ExpectedInput(1, 3)),
    "a depth map": (
        Own(lambda m, x: m.stem(x[:, None] if x.ndim == 3 else x.nope), stem=nn.Conv2d(1, 8, 3)),
        ExpectedInput(1, channel_axis=False),
    ),
    "a sound": (
        Own(lambda m, x: m.stem(x[:, None] if x.ndim == 2 else x.nope), stem=nn.Conv1d(1, 8, 3)),
        ExpectedInput(1, 1, channel_axis=False),
    ),
    "values looked at": (
        Own(lambda m, x: m.stem(x * float(x.sum())), stem=nn.Conv2d(4, 8, 3)),
        ExpectedInput(4),
    ),
}


@over("name", MODULES)
def test_expected_of_is_what_the_first_convolution_that_runs_takes(name: str) -> None:
    module, expected = MODULES[name]
    assert expected_of(module) == expected
    assert expected_of(module) is expected_of(module)  # a pass is needed only once


def test_expected_of_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    expected_of(module)
    assert module.training
    assert not module[0]._forward_hooks
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_expected_input_comes_from_the_models_own_preprocessing_first() -> None:
    def grey(image: Any) -> torch.Tensor:
        return torch.zeros(1, 28, 28)

    assert expected_input(LoadedModel(nn.Conv2d(5, 1, 1), grey, "own", "none")) == ExpectedInput(1)
    assert expected_input(as_given(nn.Conv2d(5, 1, 1))) == ExpectedInput(5)
    assert expected_input(cf.load_model("r3d_18", weights="none", device="meta")) == ExpectedInput(3, 3)


@over(("module", "size", "shape"), [
    (nn.Conv2d(1, 2, 3), None, (1, 1, 224, 224)),
    (nn.Conv2d(13, 2, 3), None, (1, 13, 224, 224)),
    (nn.Conv2d(13, 2, 3), (20, 30), (1, 13, 20, 30)),
    (nn.Conv1d(2, 2, 3), None, (1, 2, 1024)),
    (nn.Conv1d(2, 2, 3), 64, (1, 2, 64)),
    (nn.Conv3d(1, 2, 3), None, (1, 1, 32, 32, 32)),
    (nn.Conv3d(1, 2, 3), (8, 9, 10), (1, 1, 8, 9, 10)),
    (nn.Linear(3, 2), 20, (1, 3, 20, 20)),
])  # fmt: skip
def test_example_input_has_the_channels_and_axes_of_the_model(
    module: nn.Module, size: Any, shape: tuple[int, ...]
) -> None:
    assert example_input(as_given(module), size).shape == shape


def test_list_layers_takes_the_first_input_that_runs() -> None:
    """The stem takes three channels beside one for depth that the forward adds, and a convolution says four."""
    module = Own(lambda m, x: m.stem(torch.cat([x, x[:, :1]], 1)), stem=nn.Conv2d(4, 8, 3), extra=nn.Conv2d(9, 1, 1))
    (stem, _) = cf.list_layers(module)
    assert stem.shape == (1, 8, 222, 222)


@pytest.mark.parametrize("name", ["tresnet_m", pytest.param("csatv2", marks=pytest.mark.zoo)])
def test_list_layers_of_models_whose_first_convolution_is_not_the_stem(name: str) -> None:
    model = cf.load_model(f"timm:{name}", weights="none", device="meta")
    assert any(layer.shape for layer in cf.list_layers(model))


def test_list_layers_that_nothing_fits_says_what_to_do() -> None:
    module = Own(lambda m, x: m.stem(x[:, :, 1000:]), stem=nn.Conv2d(4, 8, 3))
    with pytest.raises(CaptureError, match=r"failed on an input of shape \(1, 4, 224, 224\).*input=torch\.zeros"):
        cf.list_layers(module)
    assert cf.list_layers(module, torch.zeros(1, 4, 1010, 10))[0].shape == (1, 8, 8, 8)
