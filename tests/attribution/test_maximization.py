"""`maximize`: what it finds in networks whose best image is known, what it reports, and that the model comes back."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from support.assertions import FLOAT32_SUMS, OPTIMIZED, assert_close, assert_equal_tensors
from torch import nn
from torch.nn import functional

import cnnviz_fast as cf
from cnnviz_fast.attribution import maximization
from cnnviz_fast.attribution.trunk import inside_pass
from cnnviz_fast.diagnostics.demo import PHOTOS
from cnnviz_fast.errors import CaptureError, ModelFailedError, OptionError
from cnnviz_fast.models.loaded import as_given

UNMOVED = {"jitter": 0, "stretch": 0, "rotate": 0}


@cache
def small() -> cf.LoadedModel:
    return cf.load_model("cnnviz:small")


def patterns() -> torch.Tensor:
    """Four patterns of black and white squares in each colour: the image that excites such a filter most is itself."""
    squares = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    return functional.interpolate(squares.float() * 2 - 1, scale_factor=3)


class Planted(nn.Module):
    """Filters of known patterns, rectified by a function, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 4, 15, padding=7, bias=False)
        self.filters.weight.data = patterns()
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.maps(images).mean((2, 3)))
        return scores

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.filters(images), inplace=True)


def test_optimum_of_planted_filters_is_the_planted_pattern() -> None:
    found = cf.maximize(Planted(), "filters", at="center", size=48, **UNMOVED)
    patches = found.images[:, :, 24 - 7 : 24 + 8, 24 - 7 : 24 + 8].flatten(1)
    for patch, pattern in zip(patches, patterns().flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([patch, pattern]))[0, 1] > 0.9


def test_responses_rise_and_end_above_those_of_every_photo() -> None:
    # The photos that the network was trained on show what its channels look for better than any others.
    photos = cf.load_images([PHOTOS / "cat.jpg", PHOTOS / "coffee.jpg"], small())
    found = cf.maximize(small(), "stage4.norm2", "0-5", size=64, steps=24)
    assert (found.responses.diff(dim=0) >= 0).all()
    assert found.steps == (3, 6, 9, 12, 15, 18, 21, 24)
    maps = cf.capture(small(), photos, "stage4.norm2", channels="0-5")["stage4.norm2"]
    assert (found.responses[-1] > maps.mean((2, 3)).amax(0)).all()
    again = cf.capture(small(), found.images, "stage4.norm2")["stage4.norm2"].mean((2, 3))
    assert_close(again.diagonal()[:6], found.responses[-1], OPTIMIZED)


def test_seed_gives_the_same_images_again_whichever_channels_and_chunks() -> None:
    found = cf.maximize(small(), "stage2", "3-5", size=32, steps=4)
    assert cf.maximize(small(), "stage2", [3, 4, 5], size=32, steps=4).digests() == found.digests()
    assert cf.maximize(small(), "stage2", "3-5", size=32, steps=4, seed=1).digests()[0] != found.digests()[0]
    alone = cf.maximize(small(), "stage2", "5,3", size=32, steps=4, chunk=1)
    assert_close(alone.pixels, found.pixels[[2, 0]], OPTIMIZED)


@pytest.mark.parametrize("layer", ["filters", "relu", "body"])
def test_rectified_layers_are_maximised_before_their_rectifier(layer: str) -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Conv2d(3, 2, 3)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return functional.relu_(self.relu(self.filters(images)) - 1)

    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("body", Body())
    images = torch.rand(2, 3, 16, 16)
    name = "body" if layer == "body" else f"body.{layer}"
    before: dict[str, torch.Tensor] = {}

    def work(trunk: object, seen: dict[str, torch.Tensor], batch: torch.Tensor) -> None:
        before.update(seen)

    loaded = as_given(model)
    inside_pass(loaded, images, name, work, before_bends=True)
    plain = functional.conv2d(images, model.body.filters.weight, model.body.filters.bias)
    expected = plain.detach() if layer != "body" else plain.detach().relu() - 1
    assert_close(before[name], expected, FLOAT32_SUMS)


def test_what_comes_out_of_a_rectifier_is_maximised_where_that_is_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU())
    assert model[0].bias is not None
    model[0].bias.data[:] = -1000.0  # so far below zero that no gradient comes back
    before, after = (cf.maximize(model, "1", size=16, steps=8, rectified=rectified) for rectified in (False, True))
    assert before.responses[-1, 0] > before.responses[0, 0]
    assert (after.responses == 0).all()


def test_class_by_name_is_its_score() -> None:
    found = cf.maximize(small(), classes="cat,19-20", steps=2, size=48)
    assert found.layer == "output"
    assert found.labels == ("2 cat", "19 tripod", "20 wood")
    scores = cf.capture(small(), found.images, "output")["output"]
    assert_close(scores[[0, 1, 2], [2, 19, 20]], found.responses[-1], OPTIMIZED)


def test_unit_is_where_it_was_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1))
    model[0].weight.data[:] = 1
    found = cf.maximize(model, "0", at="2,9", size=16, steps=8, **UNMOVED)
    change = (found.pixels[0].mean(0) - 0.45).flatten()
    assert divmod(int(change.argmax()), 16) == (2, 9)


def test_colours_of_ones_own_images_are_taken() -> None:
    like = torch.zeros(1, 3, 32, 32)
    like[:, 0] = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) * 4
    found = cf.maximize(small(), "stage1", [0], size=32, steps=4, like=like)
    spread = found.pixels[0].flatten(1).std(1)
    assert spread[0] > 10 * spread[1:].max()


def test_model_and_gradients_are_left_as_they_were() -> None:
    model = Planted().train()
    model.filters.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones(2, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        cf.maximize(model, "filters", [1], size=16, steps=2)
    assert all(module.training for module in model.modules())
    assert [weight.requires_grad for weight in model.parameters()] == [False, True, True]
    assert all(weight.is_leaf for weight in model.parameters())
    assert model.filters.weight.grad is None
    assert_equal_tensors(model.head.weight.grad, torch.ones(2, 4))
    assert not model.filters._forward_hooks
    assert_equal_tensors(torch.random.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert_equal_tensors(value, before[name])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_model_is_left_as_it_was_after_an_error_on_the_way(error: type[BaseException]) -> None:
    model = Planted().train()
    calls = []

    def fail(module: nn.Module, inputs: object) -> None:
        calls.append(module)
        if len(calls) > 3:
            raise error

    handle = model.filters.register_forward_pre_hook(fail)
    with pytest.raises(ModelFailedError if error is ValueError else error):
        cf.maximize(model, "filters", [1], size=16, steps=9)
    handle.remove()
    assert model.training
    assert not model.filters._forward_hooks
    assert not model.filters._forward_pre_hooks


def test_network_ends_behind_the_layer() -> None:
    class Ends(Planted):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.maps(images)
            # An ordinary pass shows how often the layer runs; none of the others comes here.
            assert not torch.is_grad_enabled()
            return maps

    assert len(cf.maximize(Ends(), "filters", [0], size=16, steps=3).images) == 1


def test_chunks_are_halved_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    respond = maximization.Adam.step

    def step(self: object, gradient: torch.Tensor) -> None:
        sizes.append(len(gradient))
        if len(gradient) > 2:
            raise MemoryError
        respond(self, gradient)

    monkeypatch.setattr(maximization.Adam, "step", step)
    found = cf.maximize(Planted(), "filters", size=16, steps=1)
    assert sizes == [4, 2, 2]
    assert len(found.images) == 4


class Cut(nn.Module):
    """A model without gradients behind its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            maps: torch.Tensor = self.conv(images)
        return maps


@pytest.mark.parametrize(
    ("model", "asked", "error", "says"),
    [
        (Planted, {"layer": "filters", "channels": "4"}, OptionError, "0 to 3 for layer 'filters'"),
        (Planted, {"layer": "filters", "at": "99,0", "size": 8}, OptionError, "a map of 8x8"),
        (Planted, {"layer": "filters", "classes": [0]}, OptionError, "Give layer, or classes"),
        (Planted, {}, OptionError, "Give layer, or classes"),
        (Planted, {"classes": "cat"}, OptionError, "have no names"),
        (Planted, {"classes": []}, OptionError, "classes must name at least one"),
        (Planted, {"classes": 99}, OptionError, "classes must be 0 to"),
        (Planted, {"layer": "filters", "seed": -1}, OptionError, "seed must be a whole number"),
        (Planted, {"layer": "filters", "seed": 1.5}, OptionError, "seed must be a whole number"),
        (Planted, {"classes": "top"}, OptionError, "named or numbered"),
        (Planted, {"layer": ["filters", "head"]}, CaptureError, "Name one of them"),
        (Cut, {"layer": "conv", "size": 8}, CaptureError, "cuts them before"),
    ],
)
def test_what_cannot_be_maximised_is_said(
    model: type[nn.Module], asked: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        cf.maximize(model(), **{"steps": 1, "size": 16, **asked})


def test_size_is_the_models_own_where_it_takes_no_other() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 4, stride=4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[2:] == (224, 224)
            maps: torch.Tensor = self.conv(images)
            return maps

    assert cf.maximize(Fixed(), "conv", steps=1).images.shape == (1, 3, 224, 224)
