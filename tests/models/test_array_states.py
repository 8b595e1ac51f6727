"""Weights of Keras, TensorFlow and Caffe find their places in a module, by names or by order, and axes are turned."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from support.architectures import RepeatedWeights
from torch import nn

from cnnviz_fast import load_model
from cnnviz_fast.errors import ModelError, OptionError
from cnnviz_fast.models.checkpoints import classes_of, load_checkpoint, read_checkpoint
from cnnviz_fast.models.notes import ModelNote

Arrays = dict[str, np.ndarray[Any, Any]]


def trunk() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, (1, 3), padding=1), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3)
    )


class Network(nn.Module):
    """Three convolutions and two dense layers behind maps that are flattened without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.features = trunk()
        self.first, self.last = nn.Linear(5 * 4, 7), nn.Linear(7, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.adaptive_avg_pool2d(self.features(batch), 2)
        result: torch.Tensor = self.last(self.first(maps.view(len(maps), -1)).relu())
        return result


def seeded(make: Callable[[], nn.Module], seed: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = make().eval()
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5) if name.endswith("var") else buffer.normal_()
    return module


def kernels(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear))


def last(part: nn.Module) -> np.ndarray[Any, Any]:
    """The kernel of a part as TensorFlow keeps it."""
    weight = part.weight.detach()
    if weight.ndim == 2 and weight.shape[1] == 20:  # its inputs are (2, 2, 5) there
        weight = weight.reshape(-1, 5, 4).transpose(1, 2).reshape(weight.shape)
    turned = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T
    return turned.contiguous().numpy()


def write_h5(path: Path, arrays: Arrays, **orders: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for name, order in orders.items():
            file.attrs[name] = [each.encode() for each in order]
    return path


def write_npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


def write_archive(path: Path, arrays: Arrays) -> Path:
    inside = write_h5(path.with_suffix(".inside"), arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(inside, "model.weights.h5")
    return path


def of_keras(module: nn.Module) -> Arrays:
    found: Arrays = {}
    for index, (_, part) in enumerate(kernels(module), 9):  # so that 10 comes behind 9
        found[f"block_{index}/block_{index}/kernel:0"] = last(part)
        found[f"block_{index}/block_{index}/bias:0"] = part.bias.detach().numpy()
    return found


def of_keras_3(module: nn.Module) -> Arrays:
    found: Arrays = {}
    for index, (_, part) in enumerate(kernels(module)):
        kind = "conv2d" if isinstance(part, nn.Conv2d) else "dense"
        found[f"layers/{kind}_{index}/vars/0"] = last(part)
        found[f"layers/{kind}_{index}/vars/1"] = part.bias.detach().numpy()
    return found | {"optimizer/vars/1": last(next(kernels(module))[1])}


def of_caffe(module: nn.Module) -> Arrays:
    found: Arrays = {}
    for index, (_, part) in enumerate(kernels(module), 1):
        found[f"conv{index}_b"], found[f"conv{index}_W"] = part.bias.detach().numpy(), part.weight.detach().numpy()
    return found


def of_theano(module: nn.Module) -> Arrays:
    return {name: array.T if array.ndim == 2 else array for name, array in of_caffe(module).items()}


def numbered(module: nn.Module) -> Arrays:
    arrays = [array for _, part in kernels(module) for array in (last(part), part.bias.detach().numpy())]
    return {f"arr_{index}": array for index, array in enumerate(arrays)}


def loaded(path: Path, make: Callable[[], nn.Module] = Network, **options: Any) -> nn.Module:
    module = seeded(make, 2)
    load_checkpoint(module, read_checkpoint(path, **options))
    return module


def assert_same(module: nn.Module, other: nn.Module) -> None:
    mine, theirs = module.state_dict(), other.state_dict()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("write", [write_h5, write_npz, write_archive])
@pytest.mark.parametrize(
    ("arrays_of", "said"),
    [
        (of_keras, r"3 kernels \(3, 2, 0, 1\), 2 dense \(1, 0\), inputs of first from \(H, W, 5\) to \(5, H, W\)"),
        (of_keras_3, r"3 kernels \(3, 2, 0, 1\), 2 dense \(1, 0\), inputs of first from \(H, W, 5\) to \(5, H, W\)"),
        (of_caffe, "3 kernels as they are, 2 dense as they are"),
        (of_theano, r"3 kernels as they are, 2 dense \(1, 0\)"),
        (numbered, r"3 kernels \(3, 2, 0, 1\), 2 dense \(1, 0\), inputs of first"),
    ],
)
def test_arrays_in_order_fill_a_module_with_their_axes_turned(
    tmp_path: Path, write: Callable[[Path, Arrays], Path], arrays_of: Callable[[nn.Module], Arrays], said: str
) -> None:
    module = seeded(Network)
    path = write(tmp_path / {write_h5: "w.h5", write_npz: "w.npz"}.get(write, "w.keras"), arrays_of(module))
    with pytest.warns(ModelNote, match=rf"w\.\w+': by the order of its names: {said}[^;]*\.$"):
        assert_same(module, loaded(path))


def test_layer_names_of_keras_order_layers_and_weight_names_what_is_in_them(tmp_path: Path) -> None:
    module = nn.Sequential(*(nn.Conv2d(3, 3, (1, 3)) for _ in range(4)))
    arrays = {f"{'zyx'[index]}/{name}": value for index, (_, part) in enumerate(list(kernels(module))[:3])
              for name, value in (("kernel:0", last(part)), ("bias:0", part.bias.detach().numpy()))}  # fmt: skip
    arrays |= {"inner/a/kernel:0": last(module[3]), "inner/a/bias:0": module[3].bias.detach().numpy()}
    path = write_h5(tmp_path / "w.h5", arrays, layer_names0=["z", "y"], layer_names1=["x", "inner"])
    with pytest.warns(ModelNote, match=r"by the order of its layer_names: 4 kernels"):
        assert_same(module, loaded(path, lambda: nn.Sequential(*(nn.Conv2d(3, 3, (1, 3)) for _ in range(4)))))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        for index, name in enumerate("cb"):
            file[f"net/{name}/kernel:0"] = last(module[index])
        file["net"].attrs["weight_names"] = [b"c/kernel:0", b"b/kernel:0"]
    with pytest.warns(ModelNote, match="by the order of its layer_names"):
        found = loaded(tmp_path / "v.h5", lambda: nn.Sequential(*(nn.Conv2d(3, 3, (1, 3), bias=False),) * 1,
                                                              nn.Conv2d(3, 3, (1, 3), bias=False)))  # fmt: skip
    assert torch.equal(found[0].weight, module[0].weight)
    assert torch.equal(found[1].weight, module[1].weight)


@pytest.mark.parametrize("name_of", [
    lambda name: name,
    lambda name: name.replace(".", "/"),
    lambda name: name.replace(".", "_"),
    lambda name: f"model/net/{name.replace('.', '/')}",
])  # fmt: skip
def test_names_of_the_model_decide_whatever_stands_between_their_parts(
    tmp_path: Path, name_of: Callable[[str], str]
) -> None:
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)))
    arrays = {name_of(name): value.numpy() for name, value in module.state_dict().items()}
    with pytest.warns(ModelNote, match="9 arrays by their names: 2 kernels as they are"):
        found = loaded(write_h5(tmp_path / "w.h5", arrays), lambda: nn.Sequential(
            nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3)))  # fmt: skip
    assert_same(module, found)


class Normed(nn.Module):
    """A network whose layers have the names that the tests give those of Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, groups=4)
        self.bn2 = nn.BatchNorm2d(4)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.bn2(self.deep(self.bn1(self.conv1(batch))))
        return maps


WORDS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def normed(module: Normed, *names: str) -> Arrays:
    layers = dict(zip(names, (module.conv1, module.bn1, module.deep, module.bn2), strict=True))
    depthwise = module.deep.weight.detach().permute(2, 3, 0, 1).contiguous().numpy()
    arrays = {f"{names[0]}/kernel:0": last(module.conv1), f"{names[2]}/depthwise_kernel:0": depthwise}
    arrays[f"{names[2]}/bias:0"] = module.deep.bias.detach().numpy()
    for name in (names[1], names[3]):
        arrays |= {f"{name}/{name}/{word}:0": getattr(layers[name], part).detach().numpy()
                   for part, word in WORDS.items()}  # fmt: skip
    return arrays


@pytest.mark.parametrize(("names", "said"), [
    (("conv1", "bn1", "deep", "bn2"), r"11 arrays by their names: 1 kernels \(3, 2, 0, 1\), 1 kernels \(2, 3, 0, 1\)"),
    (("c_1", "n_1", "c_2", "n_2"), r"names: 1 kernels \(3, 2, 0, 1\), 1 kernels \(2, 3, 0, 1\), 2 normalisations"),
])  # fmt: skip
def test_words_of_keras_for_normalisations_and_depthwise_kernels_are_known(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    module = seeded(Normed)
    assert isinstance(module, Normed)
    with pytest.warns(ModelNote, match=said):
        assert_same(module, loaded(write_h5(tmp_path / "w.h5", normed(module, *names)), Normed))


def test_four_numbered_vectors_of_one_length_are_a_normalisation(tmp_path: Path) -> None:
    module = seeded(Normed)
    assert isinstance(module, Normed)
    arrays = {path: array for path, array in normed(module, "c_1", "n_1", "c_2", "n_2").items() if path[0] == "c"}
    for name, part in (("batch_1", module.bn1), ("batch_2", module.bn2)):
        arrays |= {f"{name}/vars/{i}": getattr(part, word).detach().numpy() for i, word in enumerate(WORDS)}
    with pytest.warns(ModelNote, match="2 normalisations"):
        assert_same(module, loaded(write_h5(tmp_path / "w.h5", arrays), Normed))


def test_a_trunk_alone_fills_a_model_of_torchvision_and_says_what_is_missing_and_left_over(tmp_path: Path) -> None:
    shapes = [tuple(p.weight.shape) for _, p in kernels(load_model("alexnet", weights="none", device="meta").module)]
    arrays: Arrays = {"side/vars/0": np.zeros((1, 1, 64, 1), np.float32)}
    for index, (out, into, *sides) in enumerate(shapes[:5]):
        arrays[f"block{index}/layers/conv2d/vars/0"] = np.full((*sides, into, out), index, np.float32)
        arrays[f"block{index}/layers/conv2d/vars/1"] = np.full(out, index, np.float32)
    path = write_h5(tmp_path / "w.h5", arrays)
    with (
        RepeatedWeights(),
        pytest.warns(
            ModelNote, match=r"5 kernels \(3, 2, 0, 1\); left over: 'side\.vars\.0'; missing.* classifier\.1\.w"
        ),
    ):
        found = load_model("alexnet", weights=path).module
    for index, (_, part) in enumerate(list(kernels(found))[:5]):
        assert bool((part.weight == index).all())
        assert bool((part.bias == index).all())
    with RepeatedWeights(), pytest.raises(ModelError, match="does not fit AlexNet: 6 missing"):
        load_model("alexnet", weights=path, strict_weights=True)


def test_classes_of_arrays_that_differ_by_their_number_alone_is_that_number(tmp_path: Path) -> None:
    module = seeded(Network)
    assert isinstance(module, Network)
    module.last = nn.Linear(7, 9)
    checkpoint = read_checkpoint(write_h5(tmp_path / "w.h5", of_keras(module)))
    assert classes_of(Network(), checkpoint) == 9


def test_kernels_that_fit_in_two_ways_are_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "w.npz", {"a_W": np.zeros((3, 3, 3, 3), np.float32), "a_b": np.zeros(3, np.float32)})
    with pytest.raises(
        ModelError, match=r"two ways: with axes \(0, 1, 2, 3\) and \(3, 2, 0, 1\), such as 'a_W' for 0\."
    ):
        loaded(path, lambda: nn.Sequential(nn.Conv2d(3, 3, 3)))


def test_one_kernel_that_is_not_square_decides_for_the_others(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3))

    module = seeded(make)
    with pytest.warns(ModelNote, match=r"2 kernels \(3, 2, 0, 1\)"):
        assert_same(module, loaded(write_h5(tmp_path / "w.h5", of_keras(module)), make))


def test_kernels_of_another_network_are_refused_by_the_first_that_differs(tmp_path: Path) -> None:
    arrays = of_keras(seeded(Network))
    with pytest.raises(
        ModelError, match=r"'block_10/block_10/kernel:0' \(1, 3, 4, 6\) would have to be 1 \(8, 4, 3, 3\)"
    ):
        loaded(write_h5(tmp_path / "w.h5", arrays), lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)))


def test_weights_key_names_the_part_of_a_file(tmp_path: Path) -> None:
    module = seeded(Network)
    arrays = {f"net/b/{path}": array for path, array in of_keras(module).items()}
    path = write_h5(tmp_path / "w.h5", arrays | {"net/a/kernel": np.zeros((3, 3, 9, 9), np.float32)})
    with pytest.raises(ModelError, match="If another part of the file is meant, name it with weights_key"):
        loaded(path)
    with pytest.warns(ModelNote, match="3 kernels"):
        assert_same(module, loaded(path, key="net.b"))
    with pytest.raises(OptionError, match="weights_key must be where weights lie"):
        loaded(path, key="net.c")


def test_dense_layers_whose_inputs_cannot_be_told_are_left_out(tmp_path: Path) -> None:
    class Failing(Network):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if batch.shape[-1] != 32:
                raise ValueError("of 32 px only")
            return super().forward(batch)

    module = seeded(Failing)
    with pytest.warns(
        ModelNote, match=r"not the dense layers: a pass on zeros does not reach first.*missing.*first\.w"
    ):
        found = loaded(write_h5(tmp_path / "w.h5", of_keras(module)), Failing)
    assert_same(module.features, found.features)
