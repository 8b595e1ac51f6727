"""Lazy layers: initialised under the seed when a model is loaded; a user's module stays lazy when it is listed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.command_line import run
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError
from cnnviz_fast.models import lazy
from cnnviz_fast.models.expected import GUESS, ExpectedInput, expected_of
from cnnviz_fast.models.layers import has_lazy, meta_copy
from cnnviz_fast.models.loaded import untrained

pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules")

NET = """
from torch import nn

def make():
    return nn.Sequential(
        nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
    )

def pooled():
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))

class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3)

    def forward(self, x):
        x = self.conv(x)
        return x if x.sum() > -1e9 else -x

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3)
        self.last = nn.LazyConv2d(4, 3)

    def forward(self, x, mask):
        return self.last(self.conv(x) * mask)
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "lazy_net.py").write_text(NET)
    return f"{tmp_path / 'lazy_net.py'}:make"


def small_batch() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def state_of(model: cf.LoadedModel) -> list[torch.Tensor]:
    return list(model.module.state_dict().values())


def same(a: cf.LoadedModel, b: cf.LoadedModel) -> bool:
    return all(map(torch.equal, state_of(a), state_of(b)))


def test_load_model_initialises_lazy_layers_under_the_seed(net: str) -> None:
    random = torch.get_rng_state()
    first, again = (cf.load_model(net, seed=3, device="cpu") for _ in range(2))
    other = cf.load_model(net, seed=4, device="cpu")
    assert torch.equal(torch.get_rng_state(), random)
    assert [type(module).__name__ for module in first.module] == ["Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear"]
    assert first.module[4].in_features == 8 * 224 * 224
    assert same(first, again)
    assert not torch.equal(first.module[0].weight, other.module[0].weight)
    assert not first.module.training
    assert not first.module[0]._forward_pre_hooks


def test_load_model_on_the_meta_device_has_the_shapes(net: str) -> None:
    module = cf.load_model(net, device="meta", preprocess=cf.PreprocessOptions(size=(16, 24))).module
    assert module[4].weight.shape == (10, 8 * 16 * 24)
    assert all(value.is_meta for value in module.state_dict().values())
    given = nn.Sequential(nn.LazyConv2d(4, 3))
    assert cf.load_model(given, device="meta").module[0].weight.shape == (4, 3, 3, 3)
    assert has_lazy(given)


def test_load_model_module_that_is_lazy_is_initialised_in_place() -> None:
    module = nn.Sequential(nn.LazyConv2d(4, 3))
    assert cf.load_model(module, seed=2).module is module
    assert module[0].weight.shape == (4, 3, 3, 3)
    again = cf.load_model(nn.Sequential(nn.LazyConv2d(4, 3)), seed=2)
    assert torch.equal(again.module[0].weight, module[0].weight)


def test_capture_input_of_another_size_gives_what_loading_for_that_size_gives(net: str) -> None:
    batch = small_batch()
    models = [cf.load_model(net, seed=1, device="cpu") for _ in range(2)]
    models.append(cf.load_model(net, seed=1, device="cpu", preprocess=cf.PreprocessOptions(size=32)))
    with pytest.warns(UserWarning, match="^the lazy layers of the model have new weights.* for inputs of 3x32x32: "):
        maps = [cf.capture(model, batch, ["0", "4"]) for model in models]
    assert all(torch.equal(found[name], maps[0][name]) for found in maps for name in ("0", "4"))
    assert all(same(model, models[2]) for model in models)
    assert models[0].module[4].in_features == 8 * 32 * 32
    # And back.
    with pytest.warns(UserWarning, match="new weights"):
        cf.capture(models[0], torch.zeros(1, 3, 224, 224), "0")
    assert same(models[0], cf.load_model(net, seed=1, device="cpu"))


def test_capture_input_of_another_size_leaves_weights_that_fit_or_were_trained(net: str) -> None:
    model = cf.load_model(net.replace("make", "pooled"), device="cpu")
    before = list(model.module.parameters())
    cf.capture(model, small_batch(), "0")
    assert all(a is b for a, b in zip(before, model.module.parameters(), strict=True))
    for load in (False, True):
        trained = cf.load_model(net, device="cpu")
        if load:
            trained.module.load_state_dict(cf.load_model(net, seed=9, device="cpu").module.state_dict(), assign=True)
        else:
            with torch.no_grad():
                trained.module[0].weight.add_(1)
        weight = trained.module[0].weight.clone()
        with pytest.raises(
            CaptureError, match=r"^the model failed on an input of shape \(2, 3, 32, 32\): RuntimeError:"
        ):
            cf.capture(trained, small_batch(), "0")
        assert torch.equal(trained.module[0].weight, weight)


def test_capture_input_that_fits_nothing_leaves_the_weights(net: str) -> None:
    model = cf.load_model(net, device="cpu")
    before = list(model.module.parameters())
    with pytest.raises(CaptureError, match="the model failed on an input of shape"):
        cf.capture(model, torch.zeros(1, 3, 8), "0")
    assert all(a is b for a, b in zip(before, model.module.parameters(), strict=True))


def test_load_model_that_cannot_run_on_the_example_stays_lazy(net: str) -> None:
    model = cf.load_model(net.replace("make", "Two"), device="cpu")
    assert has_lazy(model.module)
    acts = cf.capture(model, small_batch(), "last", inputs=[torch.ones(1)])
    assert acts["last"].shape == (2, 4, 28, 28)


def test_load_model_checkpoint_gives_lazy_layers_their_shapes(net: str, tmp_path: Path) -> None:
    trained = cf.load_model(net, seed=5, device="cpu", preprocess=cf.PreprocessOptions(size=32))
    torch.save(trained.module.state_dict(), tmp_path / "tuned.pth")
    loaded = cf.load_model(net, weights=tmp_path / "tuned.pth", device="cpu")
    assert same(loaded, trained)
    batch = small_batch()
    assert torch.equal(cf.capture(loaded, batch, "4")["4"], cf.capture(trained, batch, "4")["4"])
    assert same(loaded, trained)


def test_commands_on_a_lazy_net_work(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", net, "--size", "32") == 0
    assert capsys.readouterr().out.splitlines()[5].split() == ["4", "4", "Linear", "1", "1x10", "81,930"]
    assert run("layers", net.replace("make", "Looks"), "--size", "32") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["0", "conv", "Conv2d", "1", "1x4x30x30", "112"]
    assert run("weights", net) == 0
    assert "8x3x3x3" in capsys.readouterr().out


def test_run_and_compare_of_a_lazy_net_work(net: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / "a.png"
    Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(40, 40, 3)).save(image)
    summary = cf.run(cf.load_model(net, device="cpu"), tmp_path / "images", "0", tmp_path / "out", progress="none")
    assert summary.images == 1
    out = tmp_path / "difference.png"
    assert run("compare", net, image, "--weights", "none", "--against-seed", "1", "--layer", "0", "--out", out) == 0


@pytest.mark.parametrize("kind", ["plain", "looks at values"])
def test_list_layers_leaves_a_users_module_lazy(kind: str) -> None:
    class Looks(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = super().forward(x)
            return x if kind == "plain" or x.sum() > -1e9 else -x

    module = Looks(nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))
    hooks = [len(part._forward_pre_hooks) for part in module]
    random = torch.get_rng_state()
    listed = cf.list_layers(module, size=8)
    assert [info.shape for info in listed] == [(1, 8, 8, 8), (1, 8, 8, 8), (1, 512), (1, 10)]
    assert [info.parameters for info in listed] == [8 * 28, 16, 0, 5130]
    assert has_lazy(module)
    assert [type(part).__name__ for part in module] == ["LazyConv2d", "LazyBatchNorm2d", "Flatten", "LazyLinear"]
    assert [len(part._forward_pre_hooks) for part in module] == hooks
    assert torch.equal(torch.get_rng_state(), random)
    assert module(torch.zeros(2, 5, 4, 4)).shape == (2, 10)


def test_list_layers_lazy_layer_that_never_runs_is_listed() -> None:
    class Skips(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[0](x)

    listed = cf.list_layers(Skips(nn.LazyConv2d(8, 3), nn.LazyLinear(3)), size=8)
    assert [(info.calls, info.parameters) for info in listed] == [(1, 224), (0, 0)]


@pytest.mark.parametrize("training", [True, False])
def test_capture_users_lazy_module_is_initialised_by_its_first_pass(training: bool) -> None:
    module = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d()).train(training)
    assert cf.capture(module, small_batch(), "0")["0"].shape == (2, 8, 30, 30)
    assert (module[0].in_channels, module[1].num_features) == (3, 8)
    assert not has_lazy(module)
    # No model of load_model, so no seed: another size does not change it.
    weight = module[0].weight
    cf.capture(module, torch.zeros(1, 3, 8, 8), "0")
    assert module[0].weight is weight


def test_meta_copy_of_a_lazy_module_is_lazy_and_can_be_initialised() -> None:
    module = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d())
    twin = meta_copy(module)
    assert has_lazy(twin)
    twin(torch.zeros(1, 3, 8, 8, device="meta"))
    assert twin[0].weight.is_meta
    assert not has_lazy(twin)
    assert has_lazy(module)


@pytest.mark.usefixtures("quick_collections")
def test_initialised_models_are_forgotten_with_the_model(net: str) -> None:
    gc.collect()  # models of other tests
    model: Any = cf.load_model(net, device="cpu")
    count = len(lazy._initialised)
    del model
    gc.collect()
    assert len(lazy._initialised) == count - 1


class Two(nn.Module):
    """Takes a vector beside the image, so that it cannot run on an image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.beside = nn.LazyConv2d(4, 3), nn.LazyLinear(4)

    def forward(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.beside(vector)[:, :, None, None]

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.mark.parametrize(
    "more", [{"inputs": lambda batch: (batch, batch.mean((2, 3)))}, {"forward": "encode"}], ids=["inputs", "forward"]
)
def test_capture_first_pass_of_a_loaded_model_is_under_its_seed(more: dict[str, Any]) -> None:
    def maps(seed: int, before: int) -> torch.Tensor:
        model = cf.load_model(Two(), seed=seed, device="cpu")
        torch.manual_seed(before)
        state = torch.get_rng_state()
        found = cf.capture(model, small_batch(), ["conv"], **more)["conv"]
        assert torch.equal(torch.get_rng_state(), state)
        return found

    assert torch.equal(maps(3, 0), maps(3, 1))
    assert not torch.equal(maps(3, 0), maps(4, 0))


FIRST = """
from torch import nn

def signal():
    return nn.Sequential(nn.LazyConv1d(4, 3), nn.ReLU(), nn.LazyConv1d(2, 3))

def image():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.LazyConv2d(2, 3))

def fixed():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Conv2d(4, 2, 3))

def volume():
    return nn.Sequential(nn.LazyConv3d(4, 3), nn.LazyBatchNorm3d())

def known():
    return nn.Sequential(nn.Conv2d(5, 4, 3), nn.LazyConv2d(2, 3))
"""
GUESSES = {"signal": (1, 1), "image": (3, 2), "fixed": (3, 2), "volume": (1, 3)}


@pytest.fixture
def first(tmp_path: Path) -> str:
    (tmp_path / "lazy_first.py").write_text(FIRST)
    return f"{tmp_path / 'lazy_first.py'}:"


@pytest.mark.parametrize("kind", GUESSES)
def test_load_model_first_layer_that_is_lazy_tells_its_axes_alone(kind: str, first: str) -> None:
    model = cf.load_model(first + kind, device="cpu")
    channels, rank = GUESSES[kind]
    assert expected_of(model.module) == ExpectedInput(channels, rank, is_known=False)
    assert not has_lazy(model.module)
    assert model.module[0].weight.shape[1] == channels
    words = f"{channels} channels" if channels > 1 else "1 channel"
    assert str(untrained(model)).endswith(f"; lazy layers are made for {words}, until the input has others")
    assert [layer.calls for layer in cf.list_layers(model)] == [1] * len(model.module)


def test_load_model_channels_before_a_lazy_layer_are_known(first: str) -> None:
    model = cf.load_model(f"{first}known", device="cpu")
    assert expected_of(model.module) == ExpectedInput(5)
    assert str(untrained(model)).endswith("5 channels")
    given = nn.Sequential(nn.LazyConv2d(4, 3))
    given(torch.zeros(1, 7, 9, 9))
    assert expected_of(given) == ExpectedInput(7)


def test_expected_of_a_lazy_module_that_its_user_runs_is_known_from_then_on(first: str, tmp_path: Path) -> None:
    module = nn.Sequential(nn.LazyConv2d(4, 3))
    assert expected_of(module) == GUESS
    filled = nn.Sequential(nn.LazyConv2d(4, 3))
    filled.load_state_dict(nn.Sequential(nn.Conv2d(5, 4, 3)).state_dict())
    assert expected_of(filled) == ExpectedInput(5)
    module(torch.zeros(1, 5, 9, 9))
    assert expected_of(module) == ExpectedInput(5)


ARRAYS: dict[str, tuple[str, Any, tuple[int, ...]]] = {
    "a signal of 2": ("signal", np.ones((2, 50), np.float32), (1, 2, 50)),
    "a signal, channels last": ("signal", np.ones((50, 2), np.uint16), (1, 2, 50)),
    "a signal of 1": ("signal", np.ones(50, np.float32), (1, 1, 50)),
    "bands": ("image", np.ones((5, 12, 10), np.float32), (1, 5, 12, 10)),
    "bands, channels last": ("image", np.ones((12, 10, 5), np.uint8), (1, 5, 12, 10)),
    "bands of a batch": ("image", np.ones((2, 5, 12, 10), np.float32), (2, 5, 12, 10)),
    "bands as a tensor": ("image", torch.ones(5, 12, 10), (1, 5, 12, 10)),
    "bands of one": ("image", torch.ones(1, 12, 10), (1, 1, 12, 10)),
    "a photo": ("image", np.ones((12, 10, 3), np.uint8), (1, 3, 224, 224)),
    "a grey photo": ("image", np.ones((12, 10), np.uint8), (1, 3, 224, 224)),
    "a volume": ("volume", np.ones((8, 9, 10), np.float32), (1, 1, 8, 9, 10)),
    "a volume of 2": ("volume", np.ones((2, 8, 9, 10), np.uint8), (1, 2, 8, 9, 10)),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.filterwarnings("ignore:the lazy layers of the model have new weights")
def test_inputs_decide_on_the_channels_of_a_lazy_model(name: str, as_file: bool, first: str, tmp_path: Path) -> None:
    kind, given, shape = ARRAYS[name]
    model = cf.load_model(first + kind, device="cpu", seed=4)
    if as_file:
        np.save(tmp_path / "a.npy", np.asarray(given))
    batch = cf.load_images(tmp_path / "a.npy" if as_file else given, model)
    assert batch.shape == shape
    maps = cf.capture(model, batch, "0")["0"]
    assert model.module[0].weight.shape[1] == shape[1]
    again = cf.load_model(first + kind, device="cpu", seed=4)
    assert torch.equal(cf.capture(again, batch, "0")["0"], maps)


def test_a_lazy_model_of_other_channels_is_said_and_runs_everywhere(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = cf.load_model(f"{first}image", device="cpu")
    array = np.random.default_rng(0).random((5, 12, 10)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"^the lazy layers of the model have new weights, .* for inputs of 5x12x10: "):
        (sheet,) = cf.visualize(model, array, "0")
    assert sheet.index.size
    np.save(tmp_path / "a.npy", array)
    model = cf.load_model(f"{first}image", device="cpu")
    with pytest.warns(UserWarning, match="for inputs of 5x12x10"):
        cf.run(model, [tmp_path / "a.npy"], ["0"], tmp_path / "out", readers=0, progress="none")
    assert len(list((tmp_path / "out" / "0").glob("*.png"))) == 1
    run("layers", f"{first}image", "--input-shape", "5x12x10")
    assert "1x4x10x8" in capsys.readouterr().out.replace(", ", "x").replace(" x ", "x")
