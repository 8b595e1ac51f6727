"""Axes: outputs of every order become the maps that they hold, and ambiguous ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from support.token_models import Attention, Mixer, PooledKeys, Tokens, TokensFirst, Unfolded, Windows
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.video.mvit import MSBlockConfig, MViT

import cnnviz_fast as cf
from cnnviz_fast.activations.axes.evidence import Evidence
from cnnviz_fast.activations.axes.find import find_axes, to_maps
from cnnviz_fast.activations.axes.record import Axes
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import DTypeError, OptionError, ShapeError
from cnnviz_fast.options.reading import AxesOptions
from cnnviz_fast.pipeline import visualize

INPUT = (1, 3, 32, 32)


class Mixed(nn.Module):
    """A network with a patch embedding, so that its layers may put out tokens and channels last."""

    def __init__(self, prefix: int = 1, patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, 5, patch_size, patch_size)
        self.norm = nn.LayerNorm(5)
        self.act = nn.GELU()
        self.mix = nn.Linear(64, 64)
        if prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, prefix, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        if hasattr(self, "cls_token"):
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        return self.act(self.norm(tokens))


def told(shape: tuple[int, ...], layer: str, model: nn.Module | None = None, given: tuple[int, ...] = INPUT) -> Axes:
    model = model or Mixed()
    return find_axes(shape, Evidence(layer, dict(model.named_modules())[layer], model, given))


@pytest.mark.parametrize("name", ["nchw", "nhwc", "tokens", "tokens of a clip", "ncthw", "nthwc"])
def test_to_maps_every_value_lies_where_it_belongs(name: str) -> None:
    n, c, t, h, w, prefix = 2, 5, 3, 4, 6, 2
    shape = {"nchw": (n, c, h, w), "nhwc": (n, h, w, c), "tokens": (n, prefix + h * w, c),
             "tokens of a clip": (n, prefix + t * h * w, c),
             "ncthw": (n, c, t, h, w), "nthwc": (n, t, h, w, c)}[name]  # fmt: skip
    output = torch.arange(torch.Size(shape).numel()).reshape(shape)
    step = 1 if name in ("ncthw", "nthwc", "tokens of a clip") else 0
    grid = (h, w) if name.startswith("tokens") else None
    maps = to_maps(output, Axes(name.partition(" ")[0], t if step else 1, prefix if grid else 0, grid), step)
    assert maps.shape == (n, c, h, w)
    for i, k, y, x in [(0, 0, 0, 0), (1, 4, 3, 5), (0, 2, 1, 4), (1, 0, 2, 3)]:
        place = {"nchw": (i, k, y, x), "nhwc": (i, y, x, k), "tokens": (i, prefix + y * w + x, k),
                 "tokens of a clip": (i, prefix + (step * h + y) * w + x, k),
                 "ncthw": (i, k, step, y, x), "nthwc": (i, step, y, x, k)}[name]  # fmt: skip
        assert maps[i, k, y, x] == output[place]


@pytest.mark.parametrize("axes", ["tokens:2:4x6:3", "tnc:2:4x6:3", "nct:2:4x6:3", "tnc:0:3x4x6", "nct:1:3x4x6:2"])
def test_to_maps_tokens_of_every_order_are_the_same_maps(axes: str) -> None:
    name, prefix, grid = AxesOptions(axes=axes).parts
    assert prefix is not None
    assert grid is not None
    n, c, (rows, columns), steps = 2, 5, grid[-2:], grid[0] if len(grid) == 3 else 1
    cells = torch.arange(n * c * steps * rows * columns).reshape(n, steps * rows * columns, c)
    ends = [torch.full((n, count, c), -1) for count in (prefix, AxesOptions(axes=axes).suffix)]
    tokens = torch.cat([ends[0], cells, ends[1]], 1)
    output = tokens.permute({"tokens": (0, 1, 2), "tnc": (1, 0, 2), "nct": (0, 2, 1)}[name])
    found = find_axes(tuple(output.shape), None, axes)
    assert found == Axes(name, steps, prefix, (rows, columns))
    for step in range(steps):
        expected = cells.reshape(n, steps, rows, columns, c)[:, step].permute(0, 3, 1, 2)
        assert torch.equal(to_maps(output, found, step), expected)


def test_to_maps_matrix_is_a_map_for_each_head() -> None:
    heads = torch.rand(2, 3, 5, 7)
    assert to_maps(heads, Axes("matrix")) is heads
    assert torch.equal(to_maps(heads[:, 0], Axes("matrix")), heads[:, :1])


def test_to_maps_sparse_output_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"maps must be dense, got layout torch\.sparse_coo"):
        to_maps(torch.zeros(1, 2, 3, 4).to_sparse(), Axes("nchw"))


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_tokens_are_the_maps_of_the_patch_embedding(prefix: int) -> None:
    model = Mixed(prefix).eval()
    batch = torch.rand(2, 3, 24, 40)
    maps = cf.capture(model, batch, "proj")["proj"]
    seen: list[torch.Tensor] = []
    model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(batch)
    axes = told(tuple(seen[0].shape), "norm", model, (2, 3, 24, 40))
    assert axes == Axes("tokens", 1, prefix, (6, 10))
    assert torch.equal(to_maps(seen[0], axes), maps)


@pytest.mark.parametrize(("shape", "layer", "expected"), [
    ((1, 5, 8, 8), "proj", Axes("nchw")),
    ((1, 8, 8, 8), "proj", Axes("nchw")),       # the class of the layer decides
    ((1, 5, 5, 5), "norm", Axes("nhwc")),
    ((1, 8, 8, 5), "norm", Axes("nhwc")),
    ((1, 8, 8, 9), "act", Axes("nhwc")),        # the aspect does
    ((1, 9, 8, 8), "act", Axes("nchw")),
    ((1, 9, 1, 1), "act", Axes("nchw")),
    ((1, 65, 7), "act", Axes("tokens", 1, 1, (8, 8))),
    ((1, 64, 7), "act", Axes("tokens", 1, 0, (8, 8))),
    ((1, 17, 7), "act", Axes("tokens", 1, 1, (4, 4))),
    ((1, 65, 64), "norm", Axes("tokens", 1, 1, (8, 8))),
])  # fmt: skip
def test_find_axes_by_class_and_shapes_together(shape: tuple[int, ...], layer: str, expected: Axes) -> None:
    if expected.prefix_tokens == 1 and shape[2] == 64:
        with pytest.raises(ShapeError, match="both its last axes fit a grid"):
            told(shape, layer)
    else:
        assert told(shape, layer) == expected


@pytest.mark.parametrize(("shape", "layer", "said"), [
    ((1, 8, 8, 8), "act", r"both \(N, C, H, W\) and \(N, H, W, C\) fit an image of 32x32"),
    ((1, 4, 64, 5), "act", r"neither \(N, C, H, W\) nor \(N, H, W, C\) fits"),
    ((1, 4, 64, 5), "norm", r"neither"),           # heads x tokens: a norm over channels, but no map
    ((1, 64, 64), "mix", "both its last axes fit a grid"),
    ((1, 50, 7), "act", "no grid of its 50 tokens fits"),
    ((1, 81, 7), "act", "no grid"),                # 9x9 is a grid, but not one of 8x8 patches
    ((4, 8, 8, 5), "norm", r"it makes 4 entries \(windows or regions\) of the 1 images"),
])  # fmt: skip
def test_find_axes_what_is_ambiguous_is_refused_and_names_the_option(
    shape: tuple[int, ...], layer: str, said: str
) -> None:
    with pytest.raises(ShapeError, match=said) as caught:
        told(shape, layer)
    assert f"layer {layer!r} puts out {shape}" in str(caught.value)
    assert "Name them: axes='" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_find_axes_tokens_in_another_order_are_refused() -> None:
    class HieraBlock(nn.Identity):
        pass

    model = Mixed()
    model.block = HieraBlock()
    with pytest.raises(ShapeError, match="tokens that HieraBlock does not keep row by row"):
        told((1, 64, 7), "block", model)


def test_find_axes_plain_convolutional_model_is_channels_first_whatever_the_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    for shape in [(1, 8, 8, 8), (1, 7, 7, 8), (1, 4, 64, 5)]:
        assert told(shape, "1", model) == Axes("nchw")
    assert find_axes((2, 7, 7, 8)) == Axes("nchw")
    assert find_axes((2, 7, 3, 7, 8)) == Axes("ncthw", 3)
    with pytest.raises(ShapeError, match="nothing says that its three axes are tokens of an image"):
        told((1, 64, 7), "1", model)


def test_find_axes_vectors_have_one_cell_an_entry() -> None:
    assert told((1, 1000), "act") == find_axes((1, 1000)) == Axes("nc")
    output = torch.randn(2, 7)
    maps = to_maps(output, Axes("nc"))
    assert maps.shape == (2, 7, 1, 1)
    assert torch.equal(maps[:, :, 0, 0], output)


@pytest.mark.parametrize("shape", [(), (7,), (1, 2, 3, 4, 5, 6)])
def test_find_axes_other_numbers_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"layer 'act' puts out .*; only outputs of 2 to 5 axes can be drawn"):
        told(shape, "act")


@pytest.mark.parametrize(("axes", "shape", "expected"), [
    ("nchw", (1, 8, 8, 8), Axes("nchw")),
    ("NHWC", (4, 8, 9, 5), Axes("nhwc")),
    ("tokens", (1, 65, 64), Axes("tokens", 1, 1, (8, 8))),
    ("tokens:1", (1, 65, 64), Axes("tokens", 1, 1, (8, 8))),
    ("tokens:3:2x5", (1, 13, 64), Axes("tokens", 1, 3, (2, 5))),
    ("tokens:1:3x2x5", (1, 31, 64), Axes("tokens", 3, 1, (2, 5))),
    ("ncthw", (1, 2, 3, 4, 4), Axes("ncthw", 3)),
    ("nthwc", (1, 2, 3, 4, 4), Axes("nthwc", 2)),
    ("nc", (1, 9), Axes("nc")),
    ("tokens:1:8x8:5", (1, 70, 64), Axes("tokens", 1, 1, (8, 8))),
    ("tokens:0:2x3x4:2", (1, 26, 9), Axes("tokens", 2, 0, (3, 4))),
    ("tnc", (65, 1, 9), Axes("tnc", 1, 1, (8, 8))),
    ("tnc:2", (66, 1, 9), Axes("tnc", 1, 2, (8, 8))),
    ("TNC:1:2x5:3", (14, 1, 9), Axes("tnc", 1, 1, (2, 5))),
    ("nct:0:2x5", (1, 9, 10), Axes("nct", 1, 0, (2, 5))),
    ("nct:1:2x5:1", (1, 9, 12), Axes("nct", 1, 1, (2, 5))),
    ("matrix", (1, 3, 9, 5), Axes("matrix")),
    ("matrix", (1, 9, 9), Axes("matrix")),
])  # fmt: skip
def test_find_axes_as_given(axes: str, shape: tuple[int, ...], expected: Axes) -> None:
    model = Mixed()
    assert find_axes(shape, Evidence("act", model.act, model, INPUT), axes) == expected


@pytest.mark.parametrize(("axes", "said"), [
    ("nchw", r"must put out \(N, C, H, W\) for axes 'nchw', got \(1, 13, 64\)"),
    ("tokens:1:2x5", "its 13 tokens are not one grid"),
    ("tokens:1:4x2x2", "its 13 tokens are not one grid"),
    ("tokens", "its 13 tokens are not one grid"),
    ("tokens:1:2x5:3", "its 13 tokens are not one grid"),
    ("nct:1:2x5", "its 64 tokens are not one grid"),
    ("tnc:1:2x5", "its 1 tokens are not one grid"),
    ("ncthw", r"must put out \(N, C, T, H, W\)"),
])  # fmt: skip
def test_find_axes_as_given_that_does_not_fit_is_refused(axes: str, said: str) -> None:
    model = Mixed()
    with pytest.raises(ShapeError, match=said):
        find_axes((1, 13, 64), Evidence("act", model.act, model, INPUT), axes)


@pytest.mark.parametrize(
    "axes",
    [
        "nchv",
        "tokens:",
        "tokens:1:14",
        "tokens:a",
        "nchw:1",
        4,
        "tokens:1:0x4",
        "tokens:1:2x2x2x2",
        "tokens:1:2x2:",
        "tokens:1:2x2:a",
        "tokens:1:2x2:1:1",
        "tnc:1:4",
        "matrix:1",
        "ntc",
    ],
)
def test_find_axes_unknown_name_is_refused(axes: object) -> None:
    with pytest.raises(OptionError, match="axes must be one of auto, nchw, nhwc, tokens"):
        find_axes((1, 2, 3, 4), None, axes)  # type: ignore[arg-type]


SMALL_VIT = """
from torchvision.models import VisionTransformer

def make():
    return VisionTransformer(224, 16, num_layers=1, num_heads=2, hidden_dim=32, mlp_dim=64)
"""


def test_torchvision_vit_block_is_drawn_without_its_class_token(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "vit.py").write_text(SMALL_VIT)
    layer, out = "encoder.layers.encoder_layer_0", tmp_path / "sheets"
    argv = ["render", f"{tmp_path / 'vit.py'}:make", str(photo), "--layer", layer, "--out", str(out)]
    assert cli.main([*argv, "--tile", "14", "--channels", "0-3"]) == cli.DONE
    manifest = json.loads(next(out.rglob("*.json")).read_text())
    assert (manifest["axes"], manifest["prefix_tokens"]) == ("tokens", 1)
    assert manifest["maps"]["shape"] == [32, 14, 14]


def test_torchvision_swin_and_convnext_are_channels_last_where_they_are() -> None:
    batch = torch.rand(1, 3, 64, 64)
    swin = torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7])
    convnext = torchvision.models.ConvNeXt([CNBlockConfig(24, 48, 1), CNBlockConfig(48, None, 1)])
    for model, layers in (
        (swin, {"features.1": "nhwc", "features.2.norm": "nhwc", "norm": "nhwc", "permute": "nchw"}),
        (convnext, {
            "features.1": "nchw", "features.1.0.block.0": "nchw", "features.1.0.block.1": "nhwc",
            "features.1.0.block.2": "nhwc", "features.1.0.block.4": "nhwc", "features.1.0.block.6": "nchw",
        }),
    ):  # fmt: skip
        maps = cf.capture(model.eval(), batch, list(layers))
        found = {layer: told(tuple(maps[layer].shape), layer, model, (1, 3, 64, 64)).name for layer in layers}
        assert found == layers


def test_visualize_clip_has_a_sheet_for_each_time_step(photo: Path, tmp_path: Path) -> None:
    model = cf.load_model("r3d_18", weights="none", device="cpu")
    assert cf.load_images(photo, model).shape == (1, 3, 16, 112, 112)
    sheets = visualize(model, photo, ["layer2"], tmp_path, tile=14, channels="0-3")
    assert [sheet.manifest["time_step"] for sheet in sheets] == list(range(8))
    assert {sheet.manifest["axes"] for sheet in sheets} == {"ncthw"}
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    assert files == [Path(f"layer2-t{step}", f"{photo.stem}.png") for step in range(8)]


def test_visualize_tokens_of_a_clip_are_drawn_by_their_grid() -> None:
    block = MSBlockConfig(2, 16, 16, kernel_q=[3, 3, 3], kernel_kv=[3, 3, 3], stride_q=[1, 1, 1], stride_kv=[1, 4, 4])
    model, clip = MViT((64, 64), 16, [block] * 2, False, True, True, True), torch.rand(1, 3, 16, 64, 64)
    with pytest.raises(ShapeError, match=r"its axes are ambiguous.*Name them: axes='tokens:PREFIX:TxHxW', such as"):
        visualize(model, clip, ["blocks.1[0]"])
    sheets = visualize(model, clip, ["blocks.1[0]"], axes="tokens:1:8x16x16", tile=7, channels="0-3")
    assert [sheet.manifest["time_step"] for sheet in sheets] == list(range(8))
    assert {sheet.manifest["prefix_tokens"] for sheet in sheets} == {1}
    assert sheets[0].manifest["maps"]["shape"] == [16, 16, 16]


def test_visualize_axes_are_taken_and_recorded(photo: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3))
    (sheet,) = visualize(model, photo, ["0"], axes="nhwc", tile=20)
    assert sheet.manifest["axes"] == "nhwc"
    assert sheet.manifest["maps"]["shape"] == [222, 6, 222]
    assert sheet.manifest["prefix_tokens"] is None


def test_visualize_axes_that_are_not_named_in_full_are_completed_from_the_pass() -> None:
    model, batch = Tokens(16, 4, 1, 5), torch.rand(1, 3, 32, 32)
    for axes in ("auto", "tokens", "tokens:1", "tokens:1:8x8:5"):
        (sheet,) = visualize(model, batch, ["seen"], axes=axes, tile=8)
        assert sheet.manifest["maps"]["shape"] == [16, 8, 8]
        assert (sheet.manifest["axes"], sheet.manifest["prefix_tokens"]) == ("tokens", 1)
    with pytest.raises(ShapeError, match="its 70 tokens are not one grid"):
        visualize(model, batch, ["seen"], axes="tokens:2")


def test_visualize_tokens_first_are_drawn() -> None:
    model, batch = TokensFirst(), torch.rand(1, 3, 32, 32)
    (sheet,) = visualize(model, batch, ["encoder"], tile=8, overlay=True)
    assert (sheet.manifest["axes"], sheet.manifest["prefix_tokens"]) == ("tnc", 1)
    assert sheet.manifest["maps"]["shape"] == [16, 8, 8]


def test_visualize_attention_matrix_has_a_tile_for_each_head() -> None:
    (sheet,) = visualize(Attention(), torch.rand(1, 3, 32, 32), ["matrix"], tile=64)
    assert sheet.manifest["axes"] == "matrix"
    assert sheet.manifest["maps"]["shape"] == [2, 64, 64]


@pytest.mark.parametrize(("model", "layer", "axes"), [
    (Attention(), "matrix", "auto"),
    (Attention(), "matrix", "matrix"),
    (Attention(), "matrix", "nchw"),
    (Unfolded(), "unfold", "nct:0:8x8"),
    (PooledKeys(), "along", "nct:0:4x4"),
    (PooledKeys(), "pyramid", "tokens:0:5x5"),
    (Windows(), "inside", "tokens:0:4x4"),
    (Windows(), "rolled", "nhwc"),
], ids=lambda value: value if isinstance(value, str) else type(value).__name__)  # fmt: skip
def test_visualize_what_has_no_place_in_the_image_is_never_laid_over_it(
    model: nn.Module, layer: str, axes: str
) -> None:
    batch = torch.rand(1, 3, 32, 32)
    assert visualize(model, batch, [layer], axes=axes, tile=16)
    with pytest.raises(OptionError, match=rf"overlay must go with maps of the image, got layer '{layer}' read as"):
        visualize(model, batch, [layer], axes=axes, tile=16, overlay=True)


def test_visualize_maps_are_laid_over_the_image_in_every_order() -> None:
    batch = torch.rand(1, 3, 32, 32)
    for model, layer in [(Mixer(), "last"), (Windows(), "outside"), (Attention(), "qkv"), (Unfolded(), "fold")]:
        (sheet,) = visualize(model, batch, [layer], tile=16, overlay=True)
        assert sheet.manifest["overlay"]["source"] == "input"
