"""The five articles, each by one command here, against the article's own arithmetic written anew.

Equal within one level wherever an article is right; where it is wrong, its fault is shown beside the right value.
"""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from support.architectures import RepeatedWeights
from support.assertions import A_LEVEL, ROUNDED, assert_apart, assert_close, close_to
from support.plain import render
from torchvision import transforms as T

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli

Floats = Any

MODELS = '''
import torch
import torchvision


class Features(torch.nn.Module):
    """The trunk of VGG16, as article 000 takes it."""

    def __init__(self):
        super().__init__()
        self.features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])

    def forward(self, x):
        return self.features(x)


class Siamese(torch.nn.Module):
    """As article 003's: a ResNet-50 inside another class, its last stage without a stride."""

    def __init__(self):
        super().__init__()
        self.model = torchvision.models.resnet50(num_classes=701)
        self.model.layer4[0].conv2.stride = (1, 1)
        self.model.layer4[0].downsample[0].stride = (1, 1)

    def forward(self, x):
        return self.model(x)


def alexnet():
    return torchvision.models.alexnet(num_classes=5)


def resnet34():
    return torchvision.models.resnet34(num_classes=5)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one's own models, and their weights in the articles' form: a state dict by torch.save."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "models.py").write_text(MODELS)
    return folder


def save_weights(folder: Path, make: str, file: str) -> torch.nn.Module:
    """Make a model of `models.py` with seeded weights, save them, and return it, ready to run."""
    namespace: dict[str, Any] = {}
    exec(MODELS, namespace)
    torch.manual_seed(7)
    with RepeatedWeights():
        model = namespace[make]()
    torch.save(model.state_dict(), folder / file)
    return model.eval()


def run(command: str, **places: Any) -> list[Path]:
    """Run a command as it stands in the documents, and return the files of its layers in {out}."""
    argv = [part.format(**places) for part in shlex.split(command)]
    assert argv[0] == "cnnviz"
    assert cli.main([*argv[1:], "--plain"]) == cli.DONE
    return sorted(path for folder in Path(places["out"]).iterdir() for path in folder.iterdir())


def decoded(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def manifest_of(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return manifest


def seen(model: torch.nn.Module, batch: torch.Tensor, layers: list[torch.nn.Module]) -> list[Floats]:
    """Return what layers put out, (C, H, W) each, as a plain script would: a hook that clones."""
    found: list[Floats] = []
    handles = [
        layer.register_forward_hook(lambda _m, _i, output: found.append(output[0].clone().numpy())) for layer in layers
    ]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


# 000: one channel of VGG16 through a sigmoid


def test_000_one_channel_through_a_sigmoid(folder: Path, photo: Path, tmp_path: Path) -> None:
    model = save_weights(folder, "Features", "vgg16.pth")
    resized = cv2.resize(cv2.imread(str(photo)), (224, 224))
    Image.fromarray(resized[..., ::-1]).save(tmp_path / "tu.png")  # the article's own resize; ours has nothing to do
    command = (
        "cnnviz render {own}/models.py:Features {tmp}/tu.png --weights {own}/vgg16.pth --layer features.5 --channels 0 "
        "--normalize sigmoid --colormap gray --size 224 --scale 1 --out {out}"
    )
    _, written = run(command, own=folder, tmp=tmp_path, out=tmp_path / "out")

    values = np.float32(resized)[..., ::-1].transpose(2, 0, 1) / 255
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        values[channel] = (values[channel] - mean) / std
    x = torch.from_numpy(np.ascontiguousarray(values))[None]
    with torch.no_grad():
        for index, layer in enumerate(model.features):
            x = layer(x)
            if index == 5:
                break
    feature = x[0, 0].numpy()
    expected = np.round(1 / (1 + np.exp(-feature)) * 255)
    assert expected.std() > 1
    assert_close(decoded(written), expected, A_LEVEL)


# 001: every convolution of ResNet-34 by hooks


def grid_gray_image(maps: Floats, each_row: int) -> Floats:
    """Join maps as article 001 does: the remainder of the last row is dropped, and a flat map is divided by 0."""
    rows = []
    for i in range(len(maps) // each_row):
        line = maps[i * each_row : (i + 1) * each_row]
        rows.append(np.hstack([(tile - tile.min()) / (tile.max() - tile.min()) for tile in line]))
    return np.vstack(rows)


@pytest.fixture(scope="module")
def resnet34(folder: Path) -> torch.nn.Module:
    torch.manual_seed(3)
    with RepeatedWeights():
        model = torchvision.models.resnet34(weights=None).eval()
    torch.save(model.state_dict(), folder / "resnet34.pth")
    return model


@pytest.mark.parametrize(
    ("picked", "cols"),
    [
        ([0, 15, 35], 8),
        pytest.param([0, 1, 6], 8, marks=pytest.mark.long),
        pytest.param([15, 28, 35], 16, marks=pytest.mark.long),
    ],
)
def test_001_chosen_convolutions_in_grey_grids(
    picked: list[int], cols: int, resnet34: torch.nn.Module, folder: Path, photo: Path, tmp_path: Path
) -> None:
    command = (
        "cnnviz render resnet34 {photo} --weights {own}/resnet34.pth --layer type:Conv2d#{picked} --size 224 --scale 1 "
        "--mean 0,0,0 --std 1,1,1 --colormap gray --grid x{cols} --out {out}"
    )
    run(command, own=folder, photo=photo, picked=",".join(map(str, picked)), cols=cols, out=tmp_path)

    transform = T.Compose([T.Resize((224, 224)), T.ToTensor()])
    convolutions = [layer for layer in resnet34.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 36
    outputs = seen(resnet34, transform(Image.open(photo))[None], convolutions)
    names = [name for name, layer in resnet34.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    for number in picked:
        sheet = decoded(tmp_path / names[number] / f"{photo.stem}.png")
        assert_close(sheet, grid_gray_image(outputs[number], cols) * 255, A_LEVEL)


def test_001_nothing_is_dropped_and_a_dead_channel_is_not_divided_by_0() -> None:
    maps = np.random.default_rng(0).random((10, 5, 5), dtype=np.float32)
    maps[3] = 0
    with np.errstate(invalid="ignore"):
        article = grid_gray_image(maps, 8)
    assert article.shape == (5, 40)  # two maps are gone
    assert np.isnan(article[:, 15:20]).all()
    sheet = render(maps, scale=1, grid="x8", colormap="gray")
    assert sheet.index.shape == (10, 40)
    right = np.ones(40, dtype=bool)
    right[15:20] = False
    assert_close(sheet.index[:5, right], article[:, right] * 255, A_LEVEL)
    assert (sheet.index[:5, 15:20] == 0).all()
    assert sheet.manifest["tiles"][3]["flags"] == ["flat", "dead"]
    for c in (8, 9):
        expected = (maps[c] - maps[c].min()) / (maps[c].max() - maps[c].min()) * 255
        assert_close(sheet.index[5:, (c - 8) * 5 : (c - 7) * 5], expected, A_LEVEL)


def test_001_forgets_eval_mode_and_ours_does_not(resnet34: torch.nn.Module) -> None:
    # In training mode batch norm takes the statistics of the one image: all but the first convolution see others.
    batch = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    convolutions = [resnet34.conv1, resnet34.layer1[0].conv1]
    right = seen(resnet34, batch, convolutions)
    resnet34.train()
    try:
        kept = {key: value.clone() for key, value in resnet34.state_dict().items()}
        acts = cf.capture(resnet34, batch, ["conv1", "layer1.0.conv1"])
        assert all(np.array_equal(maps[0], expected) for maps, expected in zip(acts.values(), right, strict=True))
        assert_apart(seen(resnet34, batch, convolutions)[1], right[1])
        resnet34.load_state_dict(kept)
    finally:
        resnet34.eval()


# 002: the trunk of ResNet-101, the first 20 maps, and their sum


def test_002_first_20_maps_and_their_sum(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Loaded once for all commands: that a command loads what it names, 001 shows.
    with RepeatedWeights():
        models = {"resnet101": (loaded := cf.load_model("resnet101", weights="none"))}
    monkeypatch.setattr("cnnviz_fast.models.load.load_model", lambda spec, **settings: models[spec])
    places = {"photo": photo, "out": tmp_path / "maps"}
    command = "cnnviz render resnet101 {photo} --weights none --layer layer4 --channels 0-19 --scale 1 --out {out}"
    _, maps = run(command, **places)
    _, both = run(f"{command} --reduce sum --beside --grid 3x7", **{**places, "out": tmp_path / "both"})

    trunk = torch.nn.Sequential(*list(loaded.module.children())[:-2]).eval()
    with torch.no_grad():
        feature = trunk(cf.load_images(photo, loaded))[0].permute(1, 2, 0).numpy()
    split = [feature[:, :, i] for i in range(20)]

    def as_shown(values: Floats) -> Floats:
        """Normalise as imshow does; a flat map is all 0."""
        return (values - values.min()) / ((values.max() - values.min()) or 1) * 255

    sheet = decoded(maps)
    tiles = manifest_of(maps)["tiles"]
    assert [tile["channel"] for tile in tiles] == list(range(20))
    for tile, values in zip(tiles, split, strict=True):
        y0, x0, y1, x1 = tile["box"]
        assert_close(sheet[y0:y1, x0:x1], as_shown(values), A_LEVEL)
    y0, x0, y1, x1 = manifest_of(both)["tiles"][0]["box"]
    assert_close(decoded(both)[y0:y1, x0:x1], as_shown(sum(split)), A_LEVEL)
    assert len(manifest_of(both)["tiles"]) == 21


# 003: one's own model and checkpoint, 2048 files by x8 bilinear, and the sum


def enlarged_as_in_003(values: Floats, rate: int, align: str) -> Floats:
    """Enlarge one map as article 003 does, in floats: its uint8 cast would overflow."""
    source_h, source_w = values.shape
    goal = np.zeros((round(source_h * rate), round(source_w * rate)))

    def position(d: int, source: int, size: int) -> float:
        at = d * (source / size) if align == "left" else (d + 0.5) * (source / size) - 0.5
        return min(max(at + 0.001, 0.0), float(source - 1))

    for i in range(goal.shape[0]):
        y = position(i, source_h, goal.shape[0])
        y2, y1 = math.ceil(y), int(y)
        for j in range(goal.shape[1]):
            x = position(j, source_w, goal.shape[1])
            x2, x1 = math.ceil(x), int(x)
            goal[i, j] = (
                values[y1, x1] * (x2 - x) * (y2 - y)
                + values[y1, x2] * (x - x1) * (y2 - y)
                + values[y2, x1] * (x2 - x) * (y - y1)
                + values[y2, x2] * (x - x1) * (y - y1)
            )
    return goal


@pytest.mark.parametrize("align", ["center", pytest.param("left", marks=pytest.mark.long)])
def test_003_every_channel_as_a_file_and_the_sum(align: str, folder: Path, photo: Path, tmp_path: Path) -> None:
    model = save_weights(folder, "Siamese", "net_120.pth")
    command = (
        "cnnviz render {own}/models.py:Siamese {photo} --weights {own}/net_120.pth --layer model.layer4 --size 384x384 "
        "--interpolation bicubic --each --scale 8 --align {align} --reduce sum --beside "
        "--name {{channel}}_{{suffix}}.png --suffix drone --colormap gray --out {out}"
    )
    (tiles,) = run(command, own=folder, photo=photo, align=align, out=tmp_path)
    assert tiles == tmp_path / "model.layer4" / "tiles"
    written = tiles / photo.stem
    names = {path.name for path in written.iterdir()}
    assert names == {f"{c}_drone.png" for c in range(2048)} | {"sum_drone.png", "manifest.json"}

    transform = T.Compose([
        T.Resize((384, 384), interpolation=T.InterpolationMode.BICUBIC),
        T.ToTensor(),
        T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    (feature_map,) = seen(model, transform(Image.open(photo).convert("RGB"))[None], [model.model.layer4])
    assert feature_map.shape == (2048, 24, 24)
    planes = {"7": feature_map[7], "2047": feature_map[2047], "sum": feature_map.sum(axis=0)}
    for name, values in planes.items():
        shown = (values - values.min()) / (values.max() - values.min()) * 255
        article = enlarged_as_in_003(shown, 8, align)
        ours = decoded(written / f"{name}_drone.png")
        # Where a position was clamped, and with "left" in the last rows, both of the article's weights are 0.
        inside = slice(4, -4) if align == "center" else slice(0, -8)
        assert_close(ours[inside, inside], article[inside, inside], A_LEVEL)


def test_003_frame_is_black_and_ours_is_not() -> None:
    constant = np.full((7, 7), 200.0)
    article = enlarged_as_in_003(constant, 8, "center")
    assert np.mean(article == 0) == close_to(1 - (48 / 56) ** 2, ROUNDED)  # 26.5 %
    sheet = render(constant[None], scale=8, normalize="fixed", vmin=0, vmax=255, colormap="gray")
    assert (sheet.index == 200).all()


def test_003_cast_overflows_and_the_sum_is_added_into_channel_0() -> None:
    maps = np.random.default_rng(1).random((4, 3, 3), dtype=np.float32) * 300
    assert (maps.astype(np.int64).astype(np.uint8) < maps - 1).any()  # values from 256 on come out darker
    before = maps.copy()
    total = maps[0, :, :]
    for channel in maps[1:]:
        total += channel
    assert not np.array_equal(maps[0], before[0])  # the article's own map is gone
    maps = before.copy()
    sheet = render(maps, reduce="sum", scale=1, colormap="gray")
    assert np.array_equal(maps, before)
    expected = before.sum(axis=0)
    assert_close(sheet.index, (expected - expected.min()) / (expected.max() - expected.min()) * 255, A_LEVEL)


# 004: AlexNet and ResNet-34 with one's own weights, maps and kernel weights


def test_004_feature_maps_of_own_weights(folder: Path, photo: Path, tmp_path: Path) -> None:
    model = save_weights(folder, "alexnet", "AlexNet.pth")
    command = (
        "cnnviz render {own}/models.py:alexnet {photo} --weights {own}/AlexNet.pth --layer features.0 features.3 "
        "features.6 --channels 0-11 --grid 3x4 --scale 1 --size 224 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 "
        "--colormap gray --out {out}"
    )
    run(command, own=folder, photo=photo, out=tmp_path)
    transform = T.Compose([T.Resize((224, 224)), T.ToTensor(), T.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    wanted = [model.features[i] for i in (0, 3, 6)]
    for index, maps in zip((0, 3, 6), seen(model, transform(Image.open(photo))[None], wanted), strict=True):
        path = tmp_path / f"features.{index}" / f"{photo.stem}.png"
        sheet = decoded(path)
        _, height, width = maps.shape
        assert sheet.shape == (3 * height, 4 * width)
        for i in range(12):
            row, col = divmod(i, 4)
            tile = sheet[row * height : (row + 1) * height, col * width : (col + 1) * width]
            shown = (maps[i] - maps[i].min()) / (maps[i].max() - maps[i].min()) * 255
            assert_close(tile, shown, A_LEVEL)


@pytest.mark.long  # what it adds to the others is the colormap that is not named
def test_004_resnet34_with_own_classes_in_the_default_colormap(folder: Path, photo: Path, tmp_path: Path) -> None:
    save_weights(folder, "resnet34", "resNet34.pth")
    command = (
        "cnnviz render {own}/models.py:resnet34 {photo} --weights {own}/resNet34.pth --layer layer1 --channels 0-11 "
        "--grid 3x4 --out {out}"
    )
    _, written = run(command, own=folder, photo=photo, out=tmp_path)
    assert manifest_of(written)["options"]["colormap"] == "viridis"
    assert manifest_of(written)["weights"] == "resNet34.pth"
    with Image.open(written) as image:
        assert image.mode == "P"
