"""Loading models: specs, weights, a real download from a server on this machine, devices."""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
import urllib.error
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from support.architectures import RepeatedWeights
from support.assertions import FLOAT32_RATIO, OF_A_SAMPLE, close_to
from support.looping import over
from torch import nn

from cnnviz_fast.activations.capture import capture
from cnnviz_fast.errors import InputError, ModelError, OptionError
from cnnviz_fast.models import download
from cnnviz_fast.models import torchvision_zoo as zoo
from cnnviz_fast.models.load import load_model, resolve_device
from cnnviz_fast.models.loaded import LoadedModel, example_input, module_of
from cnnviz_fast.options.reading import PreprocessOptions

SQUEEZE = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1

NET = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
"""


def same(left: nn.Module, right: nn.Module | dict[str, torch.Tensor]) -> bool:
    ours = left.state_dict()
    theirs = right.state_dict() if isinstance(right, nn.Module) else right
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def seeded(name: str, seed: int, **arguments: Any) -> nn.Module:
    """Build a model as torchvision does, independently of the code under test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torchvision.models.get_model(name, weights=None, **arguments).eval()


@pytest.fixture
def net(tmp_path: Path) -> str:
    """The spec of a factory in a file."""
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:make"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serve weights from this machine: a function that puts a file there and points an enum's member at it."""
    (tmp_path / "www").mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "www"))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def publish(member: Any, state: dict[str, torch.Tensor], digest: str | None = None) -> str:
        path = tmp_path / "www" / "new.pth"
        torch.save(state, path)
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        path.rename(path.with_name(f"weights-{digest}.pth"))
        monkeypatch.setattr(member.value, "url", f"http://127.0.0.1:{server.server_port}/weights-{digest}.pth")
        return f"weights-{digest}.pth"

    yield publish
    server.shutdown()
    server.server_close()
    thread.join()


def test_load_model_default_weights_are_downloaded_and_loaded(
    served: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = seeded("squeezenet1_1", 7)
    name = served(SQUEEZE, trained.state_dict())
    model = load_model("squeezenet1_1")
    assert same(model.module, trained)
    assert not any(module.training for module in model.module.modules())
    assert model.spec == "torchvision:squeezenet1_1"
    assert model.weights == "IMAGENET1K_V1"
    assert len(model.categories) == 1000
    assert model.categories[0] == "tench"
    assert [entry.name for entry in (tmp_path / "cache" / "hub" / "checkpoints").iterdir()] == [name]
    said = capfd.readouterr()
    assert said.out == ""  # stdout belongs to results
    assert said.err == ""  # and a progress bar to terminals


def test_load_model_cached_weights_need_no_server(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained = seeded("squeezenet1_1", 7)
    name = served(SQUEEZE, trained.state_dict())
    load_model("torchvision:squeezenet1_1", weights="DEFAULT")
    monkeypatch.setattr(SQUEEZE.value, "url", f"http://127.0.0.1:1/{name}")
    for weights in ("DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1", SQUEEZE):
        assert same(load_model("torchvision:squeezenet1_1", weights=weights).module, trained)


def test_load_model_weights_name_chooses_the_weights_and_their_preprocessing(served: Callable[..., str]) -> None:
    enum = torchvision.models.MobileNet_V3_Large_Weights
    assert repr(enum.IMAGENET1K_V1.transforms()) != repr(enum.IMAGENET1K_V2.transforms())
    for seed, member in enumerate([enum.IMAGENET1K_V1, enum.IMAGENET1K_V2]):
        trained = seeded("mobilenet_v3_large", seed)
        served(member, trained.state_dict())
        model = load_model("MobileNet_V3_Large", weights=member.name)
        assert same(model.module, trained)
        assert repr(model.preprocess) == repr(member.transforms())
        assert model.weights == member.name
    assert load_model("mobilenet_v3_large").weights == "IMAGENET1K_V2"


def test_load_model_googlenet_file_by_path_equals_its_download(served: Callable[..., str], tmp_path: Path) -> None:
    with RepeatedWeights():
        trained = seeded("googlenet", 3, aux_logits=True, transform_input=True, init_weights=False)
        name = served(torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1, trained.state_dict())
        downloaded = load_model("googlenet")
        by_path = load_model("googlenet", weights=tmp_path / "www" / name)
    assert same(downloaded.module, by_path.module)
    assert "aux1" not in dict(downloaded.module.named_modules())
    batch = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(downloaded.module(batch), by_path.module(batch))
        assert torch.equal(downloaded.module(batch), trained(batch))


def check_download_error(caught: pytest.ExceptionInfo[ModelError]) -> None:
    message = str(caught.value)
    assert "weights IMAGENET1K_V1 of squeezenet1_1 cannot be downloaded from http://127.0.0.1:" in message
    assert "weights='none'" in message
    assert "weights=PATH" in message
    assert "\n" not in message
    assert caught.value.__cause__ is not None


def test_load_model_unreachable_server_names_the_ways_out(
    served: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(SQUEEZE.value, "url", f"http://127.0.0.1:{free.getsockname()[1]}/weights-00000000.pth")
        with pytest.raises(ModelError) as caught:
            load_model("squeezenet1_1")
    check_download_error(caught)
    assert isinstance(caught.value.__cause__, urllib.error.URLError)


def test_load_model_silent_server_is_given_up(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(SQUEEZE.value, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/weights-00000000.pth")
        with pytest.raises(ModelError, match="timed out") as caught:
            load_model("squeezenet1_1")
    check_download_error(caught)


def test_load_model_missing_file_on_the_server_names_the_ways_out(
    served: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served(SQUEEZE, {})
    monkeypatch.setattr(SQUEEZE.value, "url", SQUEEZE.url.replace("weights-", "absent-"))
    with pytest.raises(ModelError, match="404") as caught:
        load_model("squeezenet1_1")
    with caught.value.__cause__:  # closes the server's answer, which the error holds
        check_download_error(caught)


def test_load_model_download_of_another_hash_is_refused_and_not_kept(
    served: Callable[..., str], tmp_path: Path
) -> None:
    served(SQUEEZE, seeded("squeezenet1_1", 7).state_dict(), digest="0123abcd")
    with pytest.raises(ModelError, match="invalid hash value") as caught:
        load_model("squeezenet1_1")
    check_download_error(caught)
    assert list((tmp_path / "cache" / "hub" / "checkpoints").iterdir()) == []


def test_load_model_cache_that_cannot_be_written_is_one_line(served: Callable[..., str], tmp_path: Path) -> None:
    served(SQUEEZE, seeded("squeezenet1_1", 7).state_dict())
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ModelError) as caught:
        load_model("squeezenet1_1")
    check_download_error(caught)


def test_load_model_damaged_file_in_the_cache_says_delete_it(served: Callable[..., str], tmp_path: Path) -> None:
    name = served(SQUEEZE, seeded("squeezenet1_1", 7).state_dict())
    cached = tmp_path / "cache" / "hub" / "checkpoints" / name
    cached.parent.mkdir(parents=True)
    cached.write_bytes((tmp_path / "www" / name).read_bytes()[:1000])
    with pytest.raises(
        ModelError, match=r"cannot be loaded from '.*weights-.*If the file is damaged, delete it"
    ) as caught:
        load_model("squeezenet1_1")
    assert "\n" not in str(caught.value)


def test_load_model_none_is_seeded_and_leaves_the_random_state() -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    model = load_model("squeezenet1_1", weights="none", seed=5)
    assert torch.equal(torch.rand(3), expected)
    assert same(model.module, seeded("squeezenet1_1", 5))
    assert not same(model.module, seeded("squeezenet1_1", 6))
    assert same(load_model("squeezenet1_1", weights="none").module, seeded("squeezenet1_1", 0))
    assert model.weights == "random, seed 5"
    assert model.categories is None
    assert not model.module.training


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_load_model_none_of_the_inceptions_warns_of_nothing_and_is_initialised(name: str) -> None:
    # Warnings are errors here. 0.01 and 0.1 are the deviations that torchvision initialises with.
    weight = load_model(name, weights="none").module.get_parameter(
        "conv1.conv.weight" if name == "googlenet" else "Conv2d_1a_3x3.conv.weight"
    )
    assert weight.std().item() == close_to(0.01 if name == "googlenet" else 0.1, OF_A_SAMPLE)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_model_checkpoint_by_path(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    trained = seeded("squeezenet1_1", 7)
    path = tmp_path / f"best{suffix}"
    state = {f"module.{name}": value for name, value in trained.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    for weights in (path, str(path)):
        model = load_model("squeezenet1_1", weights=weights)
        assert same(model.module, trained)
        assert model.weights == f"best{suffix}"
        assert model.categories is None
        assert not model.module.training


@pytest.mark.parametrize(
    "name",
    ["resnet18", "squeezenet1_1", "mobilenet_v2", pytest.param("alexnet", marks=pytest.mark.long)],  # 228 MB
)
def test_load_model_checkpoint_of_ones_own_classes_by_path(name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    trained = seeded(name, 7, num_classes=5)
    save_file({f"module.{key}": value for key, value in trained.state_dict().items()}, tmp_path / "five.safetensors")
    model = load_model(name, weights=tmp_path / "five.safetensors", device="cpu")
    assert same(model.module, trained)
    assert model.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_load_model_checkpoint_of_another_model_is_one_line(tmp_path: Path) -> None:
    torch.save(seeded("squeezenet1_0", 1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        ModelError, match=r"checkpoint '.*other\.pth' does not fit SqueezeNet: .*of another shape"
    ) as caught:
        load_model("squeezenet1_1", weights=tmp_path / "other.pth")
    assert "\n" not in str(caught.value)


def test_load_model_checkpoint_that_is_missing_is_said() -> None:
    with pytest.raises(ModelError, match=r"no checkpoint file 'absent\.pth'"):
        load_model("squeezenet1_1", weights="absent.pth")


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "vit_b_16"])
def test_load_model_preprocessing_is_that_of_the_default_weights(name: str, tmp_path: Path) -> None:
    expected = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert repr(load_model(name, weights="none", device="meta").preprocess) == repr(expected)
    if name == "resnet18":
        torch.save(seeded(name, 1).state_dict(), tmp_path / "best.pth")
        assert repr(load_model(name, weights=tmp_path / "best.pth").preprocess) == repr(expected)
    if name == "inception_v3":
        assert expected.crop_size == [299]


def test_load_model_preprocess_options_are_applied(net: str) -> None:
    from PIL import Image

    image = Image.new("RGB", (50, 40), (51, 102, 255))
    options = PreprocessOptions(size=(8, 9), mean=(0, 0, 0), std=(1, 1, 1))
    for model in (
        load_model("squeezenet1_1", weights="none", preprocess=options),
        load_model(net, preprocess=options),
        load_model(nn.Identity(), preprocess=options),
    ):
        batch = model.preprocess(image)
        assert batch.shape == (3, 8, 9)
        assert batch[:, 0, 0].tolist() == close_to([0.2, 0.4, 1.0], FLOAT32_RATIO)


def test_load_model_factory_runs_under_the_seed_and_in_eval_mode(net: str) -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    first, second, third = load_model(net), load_model(net, weights="DEFAULT"), load_model(net, weights="none", seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert same(first.module, second.module)
    assert not same(first.module, third.module)
    assert not any(module.training for module in first.module.modules())
    assert first.spec == net
    assert (first.weights, third.weights) == ("as built, seed 0", "as built, seed 1")
    assert first.preprocess.crop_size == [224]


def test_load_model_factory_takes_a_checkpoint_but_no_name(net: str, tmp_path: Path) -> None:
    trained = load_model(net, seed=7).module
    torch.save({"model": trained.state_dict()}, tmp_path / "best.pt")
    model = load_model(net, weights=tmp_path / "best.pt")
    assert same(model.module, trained)
    assert model.weights == "best.pt"
    with pytest.raises(
        ModelError, match=r"weights must be DEFAULT, none or the path of a checkpoint for '.*net\.py:make'"
    ):
        load_model(net, weights="IMAGENET1K_V1")


def test_load_model_package_factory_is_loaded() -> None:
    model = load_model("torchvision.models:squeezenet1_1")
    assert same(model.module, seeded("squeezenet1_1", 0))
    assert model.spec == "torchvision.models:squeezenet1_1"


def test_load_model_module_is_taken_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).double()
    weight = module[0].weight.clone()
    model = load_model(module)
    assert model.module is module
    assert not module[1].training
    assert torch.equal(module[0].weight, weight)
    assert (model.spec, model.weights, model.categories) == ("Sequential", "as given", None)
    assert load_model(module, device="cpu").module is module


@pytest.mark.parametrize("weights", ["DEFAULT", "none", "best.pt"])
def test_load_model_module_with_weights_is_refused(weights: str) -> None:
    with pytest.raises(ModelError, match="weights must not be given with a module"):
        load_model(nn.Identity(), weights=weights)


def test_load_model_module_on_meta_is_a_copy() -> None:
    module = nn.Conv2d(3, 4, 3)
    model = load_model(module, device="meta")
    assert model.module.weight.device.type == "meta"
    assert module.weight.device.type == "cpu"


@over(("spec", "said"), [
    ("resnet5o", r"no model 'resnet5o' in torchvision .*Closest: 'resnet50'"),
    ("torchvision:resnet5o", r"no model 'resnet5o' in torchvision .*Closest: 'resnet50'"),
    ("", r"no model '' in torchvision"),
    ("quantized_resnet50", r"no model 'quantized_resnet50'"),
    ("timm:resnet5o", r"no model 'resnet5o' in timm .*Closest: 'resnet50'"),
    ("timm:resnet50.none", r"no weights 'none' of resnet50 in timm .*\. There are .*a1_in1k"),
    ("elsewhere:resnet50", r"no model source or Python module 'elsewhere'"),
    ("net.py", r"names no factory\. Name the function that makes it: file\.py:FUNCTION"),
    ("C:\\models\\net.py", r"names no factory"),
    ("net.py:", r"names no factory"),
    ("absent.py:make", r"no model file 'absent\.py'"),
    ("C:\\models\\absent.py:make", r"no model file 'C:\\\\models\\\\absent\.py'"),
])  # fmt: skip
def test_load_model_spec_that_cannot_be_used_is_one_line(spec: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)


def test_load_model_unknown_weights_list_the_valid_ones() -> None:
    with pytest.raises(
        ModelError, match=r"no weights 'IMAGENET1K_V9' for resnet18\. There are none, IMAGENET1K_V1, DEFAULT"
    ):
        load_model("resnet18", weights="IMAGENET1K_V9")


def test_load_model_spec_of_another_type_is_refused() -> None:
    with pytest.raises(InputError, match=r"model must be a spec such as 'resnet50' or a torch\.nn\.Module, got int"):
        load_model(50)


@over("seed", [-1, 2**64, 1.5, "x"])
def test_load_model_seed_that_cannot_be_used_is_refused(seed: object) -> None:
    with pytest.raises(OptionError, match="seed must be"):
        load_model("squeezenet1_1", weights="none", seed=seed)


def test_resolve_device_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto") == torch.device(name)
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@over("device", ["tpu", "", "cuda:99", "cpu:-3"])
def test_resolve_device_that_is_not_there_is_one_line(device: str) -> None:
    with pytest.raises(OptionError, match=r"device must be auto, cpu or a device that is there, got '") as caught:
        resolve_device(device)
    assert "\n" not in str(caught.value)


def test_load_model_device_that_is_not_there_is_said_before_anything_is_built(net: str) -> None:
    with pytest.raises(OptionError, match=r"device must be .*, got 'tpu': torch knows no such device"):
        load_model("absent.py:make", device="tpu")


@pytest.mark.gpu
def test_load_model_on_cuda_leaves_its_random_state(net: str) -> None:
    torch.cuda.manual_seed_all(3)
    before = torch.cuda.get_rng_state()
    model = load_model("squeezenet1_1", weights="none", seed=5, device="cuda")
    assert {value.device.type for value in model.module.state_dict().values()} == {"cuda"}
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert same(model.module.cpu(), seeded("squeezenet1_1", 5))
    assert next(load_model(net).module.parameters()).device.type == "cuda"
    assert next(load_model(nn.Conv2d(1, 1, 1)).module.parameters()).device.type == "cpu"


META = ["resnet18", "regnet_y_400mf", "swin_v2_t", "inception_v3", "fasterrcnn_mobilenet_v3_large_320_fpn"]
LIKE_THEM = ["googlenet", "maxvit_t"]
"""As inception_v3, which has weights of its own at first, and as swin_v2_t, which has indices of positions."""


@pytest.mark.parametrize("name", [*META, *(pytest.param(name, marks=pytest.mark.zoo) for name in LIKE_THEM)])
def test_load_model_on_meta_has_the_structure_of_the_real_one(name: str) -> None:
    model = load_model(name, weights="none", device="meta")
    assert {value.device.type for value in model.module.state_dict().values()} == {"meta"}
    with RepeatedWeights():
        real = load_model(name, weights="none", device="cpu").module.state_dict()
    assert {n: v.shape for n, v in model.module.state_dict().items()} == {n: v.shape for n, v in real.items()}


def test_load_model_on_meta_takes_no_memory_even_for_a_regnet() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = load_model("regnet_y_128gf", weights="none", device="meta")
    assert sum(value.numel() for value in model.module.parameters()) > 600_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; the weights are 2.6 GB


def test_load_model_factory_that_looks_at_values_is_built_and_moved_to_meta(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    return nn.Conv2d(1, int(torch.ones(3).sum()), 1)\n"
        "def loads():\n    net = nn.Conv2d(1, 1, 1)\n"
        "    net.load_state_dict({'weight': torch.tensor([[[[1.]]]]), 'bias': torch.tensor([1.])})\n    return net\n"
    )
    assert load_model(f"{tmp_path / 'net.py'}:make", device="meta").module.weight.shape == (3, 1, 1, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loads = load_model(f"{tmp_path / 'net.py'}:loads", device="meta")
    assert loads.module.weight.device.type == "meta"
    assert not caught  # torch warns that values loaded into a module on meta go nowhere


def test_load_model_on_meta_still_checks_a_checkpoint(tmp_path: Path, net: str) -> None:
    torch.save(load_model(net).module.state_dict(), tmp_path / "own.pth")
    own = load_model(net, weights=tmp_path / "own.pth", device="meta")
    assert {value.device.type for value in own.module.state_dict().values()} == {"meta"}
    torch.save(seeded("squeezenet1_1", 1).state_dict(), tmp_path / "good.pth")
    model = load_model("squeezenet1_1", weights=tmp_path / "good.pth", device="meta")
    assert {value.device.type for value in model.module.state_dict().values()} == {"meta"}
    torch.save(seeded("squeezenet1_0", 1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelError, match="does not fit"):
        load_model("squeezenet1_1", weights=tmp_path / "other.pth", device="meta")


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.known_models())
def test_load_model_on_meta_every_model_of_torchvision(name: str) -> None:
    model = load_model(name, weights="none", device="meta")
    assert {value.device.type for value in model.module.state_dict().values()} == {"meta"}


def test_module_of_takes_records_and_modules() -> None:
    module = nn.Identity()
    assert module_of(module) is module
    assert module_of(load_model(module)) is module


@over("model", ["resnet50", None, 3, nn.Identity])
def test_module_of_anything_else_is_refused(model: object) -> None:
    with pytest.raises(InputError, match=r"model must be a torch\.nn\.Module or a record of load_model, got "):
        module_of(model)


def test_loaded_model_is_frozen_and_short_to_print() -> None:
    model = load_model("squeezenet1_1", weights="none", seed=3)
    assert repr(model) == "LoadedModel(spec='torchvision:squeezenet1_1', weights='random, seed 3')"
    with pytest.raises(AttributeError):
        model.spec = "other"
    assert isinstance(model, LoadedModel)


def test_models_import_loads_neither_torch_nor_torchvision() -> None:
    code = (
        "import sys; import cnnviz_fast.models.load; print([n for n in ('torch', 'torchvision') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_load_model_video_image_becomes_a_clip_of_equal_frames() -> None:
    model = load_model("r3d_18", weights="none", device="meta")
    preset = torchvision.models.video.R3D_18_Weights.DEFAULT.transforms()
    image = Image.effect_noise((90, 70), 60).convert("RGB")
    frames = torchvision.transforms.functional.pil_to_tensor(image).expand(16, -1, -1, -1)
    assert torch.equal(model.preprocess(image), preset(frames))
    resized = load_model("r3d_18", weights="none", device="meta", preprocess=PreprocessOptions(size=(20, 30)))
    assert resized.preprocess(image).shape == (3, 16, 20, 30)
    assert example_input(model).shape == (1, 3, 16, 112, 112)


@pytest.mark.parametrize(("name", "size_px"), [("inception_v3", 299), ("resnet18", 224), ("fcn_resnet50", 520)])
def test_example_input_has_the_size_of_the_models_own_preprocessing(name: str, size_px: int) -> None:
    model = load_model(name, weights="none", device="meta")
    assert example_input(model).shape == (1, 3, size_px, size_px)
    assert example_input(model, (20, 30)).shape == (1, 3, 20, 30)


def test_example_input_has_the_channels_of_the_first_convolution() -> None:
    assert example_input(load_model(nn.Conv2d(7, 2, 1))).shape == (1, 7, 224, 224)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_load_model_torchscript_is_refused() -> None:
    scripted = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 8, 8))
    for use in (load_model, module_of):
        with pytest.raises(InputError, match="got TorchScript, which runs no hooks inside"):
            use(scripted)


def test_load_model_exported_program_keeps_its_layers() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    batch = torch.rand(2, 3, 8, 8)
    model = load_model(torch.export.export(module, (batch,), strict=False), device="cpu")
    maps = capture(model, batch, ["0", "1"])
    assert torch.equal(maps["0"], module[0](batch))
    assert torch.equal(maps["1"], module(batch))
