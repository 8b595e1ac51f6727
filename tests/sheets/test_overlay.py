"""Maps over a photo: the kernels, every output of a sheet, what the model saw, and the command line."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import (
    A_LEVEL,
    LOSSY_NOISE,
    OF_A_SAMPLE,
    assert_close,
    assert_close_on_average,
    assert_equal_planes,
    assert_same_plane,
    assert_similar_image,
    close_to,
)
from support.cases import NAN
from support.command_line import without_notes
from support.kernel_jobs import MODULES
from support.looping import over
from support.overlay_jobs import GRIDS, Bytes, blend_job, mixed, random_bytes, under_tiles
from support.plain import render, save_sheet, save_tiles, visualize
from torchvision import transforms
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.video import R3D_18_Weights

from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import DTypeError, ImageError, OptionError, ShapeError
from cnnviz_fast.formats import png
from cnnviz_fast.geometry import Grid, Strip
from cnnviz_fast.kernels import reference, torch_ops
from cnnviz_fast.models.preprocess import as_clips, as_image, imagenet_preset
from cnnviz_fast.palette import make_palette
from cnnviz_fast.sheets.overlay import read_overlay

# The kernels.


@over(
    ("weight", "color", "under", "expected"),
    [(0, 255, 7, 7), (256, 7, 255, 7), (128, 0, 255, 128), (128, 10, 20, 15), (128, 10, 21, 16), (1, 255, 0, 1),
     (1, 127, 0, 0), (64, 255, 255, 255), (255, 0, 128, 1)],
)  # fmt: skip
def test_over_by_hand(weight: int, color: int, under: int, expected: int) -> None:
    assert reference.over(weight, color, under) == expected


@over("name", GRIDS)
@over("backend", MODULES)
def test_blend_strip_every_grid_and_strip_equals_numpy(backend: str, name: str) -> None:
    index, colors, weights, photo, expected = blend_job(name)
    grid = GRIDS[name]
    before = [array.copy() for array in (index, colors, weights, photo)]
    for start in range(grid.height):
        for stop in range(start + 1, grid.height + 1):
            memory = np.full((stop - start + 2, grid.width, 3), 0xA5, np.uint8)
            strip = Strip(start, stop)
            MODULES[backend].blend_strip(index[start:stop], colors, weights, photo, grid, strip, memory[1:-1])
            assert_equal_planes(memory[1:-1], expected[start:stop])
            assert (memory[[0, -1]] == 0xA5).all(), "written beside `out`"
    for array, copy in zip((index, colors, weights, photo), before, strict=True):
        assert (array == copy).all(), "input modified"


@pytest.mark.parametrize("backend", [name for name in MODULES if name != "reference"])
def test_blend_strip_every_weight_and_colour_equals_reference(backend: str) -> None:
    # One tile that holds every entry over every value of the photo, for weights at and beside both ends and between.
    grid = Grid(1, 1, 1, 256, 256)
    index = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 256)).copy()
    photo = np.repeat(index.T[..., None], 3, axis=2).copy()
    colors = np.stack([np.arange(256), 255 - np.arange(256), np.roll(np.arange(256), 7)], axis=1).astype(np.uint8)
    for weight in (0, 1, 77, 128, 255, 256):
        weights, out = np.full(256, weight, np.uint16), np.empty((256, 256, 3), np.uint8)
        MODULES[backend].blend_strip(index, colors, weights, photo, grid, Strip(0, 256), out)
        assert_equal_planes(out, mixed(colors[index], photo, weight / 256))


def test_blend_strip_torch_takes_and_fills_tensors_too() -> None:
    *arrays, expected = blend_job("last_row_not_full")
    grid = GRIDS["last_row_not_full"]
    out = torch.empty(expected.shape, dtype=torch.uint8)
    torch_ops.blend_strip(*map(torch.from_numpy, arrays), grid, Strip(0, grid.height), out)
    assert_equal_planes(out, expected)


@pytest.mark.gpu
def test_blend_strip_on_cuda_equals_numpy() -> None:
    for name, grid in GRIDS.items():
        index, *arrays, expected = blend_job(name)
        out = torch.empty(expected.shape, dtype=torch.uint8, device="cuda")
        torch_ops.blend_strip(torch.from_numpy(index).cuda(), *arrays, grid, Strip(0, grid.height), out)
        assert_equal_planes(out.cpu(), expected)


# Sheets.


@pytest.fixture
def photo(photo: Path) -> Bytes:
    """Return the photo, squeezed to the shape of the maps: 50 x 70 px."""
    with Image.open(photo) as image:
        return np.asarray(image.resize((70, 50)))


def expected_rgb(maps: torch.Tensor, photo: Bytes, alpha: float, **options: Any) -> Bytes:
    """Compute the sheet from the plain one, with Pillow's resize and numpy."""
    plain = render(maps, **options)
    grid = Grid(**{k: v for k, v in plain.manifest["sheet"].items() if k not in ("height", "width")})
    resized = np.asarray(Image.fromarray(photo).resize((grid.tile_w, grid.tile_h), Image.Resampling.BILINEAR))
    under, inside = under_tiles(resized, grid)
    alphas = np.where(inside & (plain.index < plain.manifest["palette"]["levels"]), alpha, 1.0)
    return mixed(plain.rgb(), under, alphas[..., None])


@pytest.mark.parametrize("backend", MODULES)
@pytest.mark.parametrize(
    "options",
    [
        {"tile": (10, 14)},
        {"tile": 21, "gap": 3, "margin": 2, "background": "orange", "grid": "x4"},
        {"tile": (25, 35), "colormap": "gray", "gap": 2, "grid": "x4"},
        {"scale": 1, "normalize": "layer", "upsampling": "nearest"},
    ],
)
def test_render_overlay_equals_pillow_and_numpy(
    maps: torch.Tensor, photo: Bytes, backend: str, options: dict[str, Any]
) -> None:
    sheet = render(maps, overlay=photo, alpha=0.25, backend=backend, **options)
    assert_equal_planes(sheet.rgb(), expected_rgb(maps, photo, 0.25, backend=backend, **options))
    assert_equal_planes(sheet.index, render(maps, backend=backend, **options).index)


@pytest.mark.parametrize("alpha", [0, 0.1, 0.3, 1 / 3, 0.499, 0.5, 0.9, 1])
def test_render_any_alpha_is_within_a_level_of_the_formula(maps: torch.Tensor, photo: Bytes, alpha: float) -> None:
    sheet = render(maps, tile=(50, 70), overlay=photo, alpha=alpha)
    expected = expected_rgb(maps, photo, alpha, tile=(50, 70))
    assert_close(sheet.rgb(), expected, A_LEVEL)
    assert sheet.manifest["overlay"]["alpha"] == alpha


def test_render_overlay_nan_stays_the_bad_colour(maps: torch.Tensor, photo: Bytes) -> None:
    maps[2, 3, 4] = NAN
    options = {"tile": (5, 7), "gap": 1, "bad": "#ff8000", "background": "#0080ff"}
    for alpha in (0, 0.5):
        sheet = render(maps, overlay=photo, alpha=alpha, **options)
        assert_equal_planes(sheet.rgb(), expected_rgb(maps, photo, alpha, **options))
        y0, x0, *_ = sheet.manifest["tiles"][2]["box"]
        assert sheet.rgb()[y0 + 3, x0 + 4].tolist() == [0xFF, 0x80, 0]
        assert sheet.rgb()[5, 0].tolist() == [0, 0x80, 0xFF]


@pytest.mark.parametrize("make", [str, Path, Image.open, lambda path: np.asarray(Image.open(path))])
def test_render_overlay_of_every_kind_is_the_same(maps: torch.Tensor, photo: Bytes, tmp_path: Path, make: Any) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    sheet = render(maps, tile=(10, 14), overlay=make(path))
    assert_equal_planes(sheet.rgb(), expected_rgb(maps, photo, 0.5, tile=(10, 14)))
    source = str(path) if make in (str, Path) else None
    expected = {"alpha": 0.5, "source": source, "size": [50, 70], "drawn_at": [10, 14]}
    assert sheet.manifest["overlay"] == expected


def test_render_overlay_grey_array_is_grey(maps: torch.Tensor, photo: Bytes) -> None:
    grey = photo[:, ::-1, 1]  # not contiguous either
    sheet = render(maps, tile=(50, 70), overlay=grey)
    assert_equal_planes(sheet.rgb(), expected_rgb(maps, np.repeat(grey[..., None], 3, axis=2), 0.5, tile=(50, 70)))


def test_render_without_overlay_has_none_in_the_manifest(maps: torch.Tensor) -> None:
    for none in (None, False):
        assert render(maps, tile=9, overlay=none).manifest["overlay"] is None


@pytest.mark.parametrize(
    ("size", "warned"),
    [((50, 70), False), ((51, 71), False), ((500, 690), False), ((52, 70), True), ((50, 72), True), ((70, 50), True),
     ((1, 1), True)],
)  # fmt: skip
def test_render_overlay_of_another_shape_is_stretched_with_a_warning(
    maps: torch.Tensor, size: tuple[int, int], warned: bool
) -> None:
    overlay = random_bytes(*size, 3)
    message = (
        rf"^the overlay of {size[0]} x {size[1]} px is stretched to tiles of 50 x 70 px\. "
        r"Without a value \(True in Python\) it is the image as the model saw it\.$"
    )
    if warned:
        with pytest.warns(UserWarning, match=message) as caught:
            sheet = render(maps, tile=(50, 70), overlay=overlay)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    else:
        sheet = render(maps, tile=(50, 70), overlay=overlay)
    assert_equal_planes(sheet.rgb(), expected_rgb(maps, overlay, 0.5, tile=(50, 70)))
    assert sheet.manifest["overlay"]["size"] == list(size)


@pytest.mark.parametrize(
    ("overlay", "alpha", "error", "message"),
    [
        ("missing.png", None, ImageError, r"^overlay: no file 'missing.png'\.$"),
        (random_bytes(4, 4, 2), None, ShapeError, r"^overlay: image must have shape \(H, W\) or .* got \(4, 4, 2\)\."),
        (random_bytes(2, 4, 4, 3), None, ShapeError, r"^overlay: image must have shape .*, got \(2, 4, 4, 3\)\."),
        (np.full((4, 4), 2.0), None, DTypeError, r"^overlay: image must be uint8, got float64\."),
        (3, None, ImageError, r"^overlay: image must be a path, .* got int\.$"),
        (True, None, OptionError, r"^overlay True stands for the image that visualize runs a model on\. Pass an image"),
        (random_bytes(4, 4), 1.01, OptionError, r"^alpha must be a number from 0 to 1, got 1\.01\.$"),
        (random_bytes(4, 4), "-0.1", OptionError, r"^alpha must be a number from 0 to 1, got '-0\.1'\.$"),
        (random_bytes(4, 4), NAN, OptionError, r"^alpha must be a finite number, got nan\.$"),
        (random_bytes(4, 4), "half", OptionError, r"^alpha must be a number, got 'half'\.$"),
        (None, 0.5, OptionError, r"^alpha goes with overlay, got alpha 0\.5 alone\.$"),
        (False, 0, OptionError, r"^alpha goes with overlay, got alpha 0 alone\.$"),
    ],
)
def test_overlay_that_cannot_be_used_is_refused_before_anything_is_written(
    maps: torch.Tensor, tmp_path: Path, overlay: Any, alpha: Any, error: type[Exception], message: str
) -> None:
    for call in (
        lambda **o: render(maps, **o),
        lambda **o: save_sheet(maps, tmp_path / "sheet.png", **o),
        lambda **o: save_tiles(maps, tmp_path / "tiles", **o),
    ):
        with pytest.raises(error, match=message):
            call(overlay=overlay, alpha=alpha, tile=9)
    if overlay is not True:
        with pytest.raises(error, match=message):
            visualize(torch.nn.Identity(), random_bytes(9, 9, 3), "0", tmp_path / "v", overlay=overlay, alpha=alpha)
    assert list(tmp_path.iterdir()) == []


def test_read_overlay_max_pixels_holds(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^overlay: image must have at most 15 pixels, got 4 x 4 = 16"):
        read_overlay(random_bytes(4, 4), None, max_pixels=15)


# Outputs.


@pytest.fixture(params=["native", "zlib"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take both ways of making files: with the compiled encoder, and without it."""
    if request.param == "zlib":
        monkeypatch.setattr(png, "native", lambda: (None, "switched off"))
    elif png.native()[0] is None:
        pytest.skip("the native encoder is not built")


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("backend", MODULES)
def test_png_of_sheet_and_of_save_sheet_is_the_rgb(
    maps: torch.Tensor, photo: Bytes, tmp_path: Path, backend: str
) -> None:
    options = {"tile": (20, 28), "gap": 1, "backend": backend, "overlay": photo, "alpha": 0.75}
    sheet = render(maps, **options)
    saved = sheet.save(tmp_path / "saved.png")
    streamed = save_sheet(maps, tmp_path / "streamed.png", **options)
    for path in (saved, streamed):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert_equal_planes(np.asarray(image), sheet.rgb())
    assert json.loads(streamed.with_suffix(".json").read_text()) == json.loads(saved.with_suffix(".json").read_text())


@pytest.mark.parametrize("threads", [1, 3])
def test_save_sheet_of_many_strips_is_the_same_for_any_number_of_workers(
    photo: Bytes, tmp_path: Path, threads: int
) -> None:
    maps = torch.rand(300, 5, 7, generator=torch.Generator().manual_seed(0))
    path = save_sheet(maps, tmp_path / "s.png", tile=(60, 84), gap=1, overlay=photo, threads=threads)
    sheet = render(maps, tile=(60, 84), gap=1, overlay=photo)
    with Image.open(path) as image:
        assert_equal_planes(np.asarray(image), sheet.rgb())
    assert path.read_bytes() == sheet.save(tmp_path / "t.png").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_show_the_photo(maps: torch.Tensor, photo: Bytes, tmp_path: Path, suffix: str) -> None:
    smooth = Image.fromarray(photo).resize((7, 5), Image.Resampling.BOX).resize((140, 100))
    sheet = render(maps, tile=(100, 140), overlay=smooth, colormap="gray")
    streamed = save_sheet(maps, tmp_path / f"b{suffix}", tile=(100, 140), overlay=smooth, colormap="gray")
    for path in (sheet.save(tmp_path / f"a{suffix}", quality=100), streamed):
        with Image.open(path) as image:
            assert_similar_image(np.asarray(image.convert("RGB")), sheet.rgb())


def test_npy_still_holds_the_index_plane(maps: torch.Tensor, photo: Bytes, tmp_path: Path) -> None:
    sheet = render(maps, tile=(10, 14), overlay=photo)
    saved = sheet.save(tmp_path / "a.npy")
    streamed = save_sheet(maps, tmp_path / "b.npy", tile=(10, 14), overlay=photo)
    for path in (saved, streamed):
        assert_equal_planes(np.load(path), render(maps, tile=(10, 14)).index)


@pytest.mark.parametrize("colormap", ["gray", "viridis"])
def test_pil_and_notebook_show_the_photo(maps: torch.Tensor, photo: Bytes, tmp_path: Path, colormap: str) -> None:
    sheet = render(maps, tile=(10, 14), overlay=photo, colormap=colormap)
    assert sheet.pil().mode == "RGB"
    assert_equal_planes(np.asarray(sheet.pil()), sheet.rgb())
    (tmp_path / "shown.png").write_bytes(sheet._repr_png_())
    with Image.open(tmp_path / "shown.png") as image:
        assert_equal_planes(np.asarray(image), sheet.rgb())


def test_notebook_shows_a_large_sheet_over_its_photo_as_a_smaller_one(
    maps: torch.Tensor, photo: Bytes, tmp_path: Path
) -> None:
    large = render(maps[:1], tile=(1250, 1750), overlay=Image.fromarray(photo))
    (tmp_path / "large.png").write_bytes(large._repr_png_())
    with Image.open(tmp_path / "large.png") as image:
        assert image.mode == "RGB"
        assert image.width * image.height <= 2_000_000
        # It is made in bands, and under each lies what lies there of the photo.
        whole = large.pil().resize(image.size, Image.Resampling.BOX)
        assert_close(np.asarray(image), np.asarray(whole), A_LEVEL)


def test_sheet_with_overlay_pickles(maps: torch.Tensor, photo: Bytes) -> None:
    sheet = render(maps, tile=(10, 14), overlay=photo)
    assert_equal_planes(pickle.loads(pickle.dumps(sheet)).rgb(), sheet.rgb())


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("suffix", ["png", "webp", "npy"])
def test_save_tiles_files_are_the_tiles_of_the_sheet(
    maps: torch.Tensor, photo: Bytes, tmp_path: Path, suffix: str
) -> None:
    options = {"tile": (50, 70), "overlay": photo, "alpha": 0.5}
    paths = save_tiles(maps, tmp_path, name=f"{{channel}}.{suffix}", **options)
    sheet = render(maps, grid="x1", **options)
    for c, path in enumerate(paths):
        rows = slice(c * 50, c * 50 + 50)
        if suffix == "npy":
            assert_equal_planes(np.load(path), sheet.index[rows])
            continue
        with Image.open(path) as image:
            assert image.mode == "RGB"
            if suffix == "png":
                assert_equal_planes(np.asarray(image), sheet.rgb()[rows])
            else:
                assert_close_on_average(np.asarray(image), sheet.rgb()[rows], LOSSY_NOISE)
    assert json.loads((tmp_path / "manifest.json").read_text())["overlay"]["drawn_at"] == [50, 70]


# What the model saw.


class Red(torch.nn.Module):
    """A network whose layer puts out the red of its input, as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 1, bias=False)
        self.layer.weight.data = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def quadrant() -> Image.Image:
    """Return a dark image, 600 x 400 px, with a bright upper right quadrant, of which a crop keeps a part."""
    pixels = random_bytes(400, 600, 3) // 4
    pixels[:200, 300:] += 180
    return Image.fromarray(pixels)


def test_visualize_overlay_true_is_the_image_as_the_model_saw_it(quadrant: Image.Image) -> None:
    seen = np.asarray(quadrant.resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240)))
    for tile in (224, 112):
        resized = np.asarray(Image.fromarray(seen).resize((tile, tile), Image.Resampling.BILINEAR))
        (sheet,) = visualize(Red(), quadrant, "layer", overlay=True, alpha=0, tile=tile)
        assert_equal_planes(sheet.rgb(), resized)
        expected = {"alpha": 0, "source": "input", "size": [224, 224], "drawn_at": [tile, tile]}
        assert sheet.manifest["overlay"] == expected


def test_visualize_overlay_true_lies_in_register(quadrant: Image.Image) -> None:
    (sheet,) = visualize(Red(), quadrant, "layer", overlay=True, tile=224, colormap="gray")
    (photo_alone,) = visualize(Red(), quadrant, "layer", overlay=True, alpha=0, tile=224, colormap="gray")
    red = photo_alone.rgb()[..., 0]
    assert ((sheet.index > 127) == (red > 120)).all()
    assert (red > 120).mean() == close_to(0.25, OF_A_SAMPLE)
    assert_equal_planes(sheet.rgb(), mixed(sheet.palette[sheet.index], photo_alone.rgb(), 0.5))


def test_visualize_overlay_true_gives_every_image_its_own(quadrant: Image.Image) -> None:
    images = [quadrant, quadrant.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    sheets = visualize(Red(), images, "layer", overlay=True, alpha=0, tile=224)
    assert_equal_planes(sheets[1].rgb()[:, ::-1], sheets[0].rgb())
    assert (sheets[0].rgb() != sheets[1].rgb()).any()


def test_visualize_overlay_true_of_an_oblong_input_says_nothing(quadrant: Image.Image) -> None:
    # A map of 13 x 20 stands for 400 x 600 px: its tile is higher than the image, which is stretched to it.
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.AvgPool2d(30))
    values = transforms.functional.to_tensor(quadrant)
    (sheet,) = visualize(model, values, "1", overlay=True, tile=200)
    assert sheet.manifest["overlay"]["size"] == [400, 600]
    assert sheet.manifest["overlay"]["drawn_at"] == [130, 200]


def test_visualize_another_image_is_read_once_and_warned_of_once(quadrant: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "other.png"
    quadrant.save(path)
    model = torch.nn.Sequential(OrderedDict(red=Red(), pool=torch.nn.AvgPool2d(2)))
    with pytest.warns(UserWarning, match="400 x 600 px is stretched to tiles of 112 x 112 px") as caught:
        sheets = visualize(model, [quadrant, quadrant], ["red.layer", "pool"], overlay=path, alpha=0, scale=0.5)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [sheet.manifest["overlay"]["drawn_at"] for sheet in sheets] == [[112, 112], [56, 56]] * 2
    assert_equal_planes(sheets[3].rgb(), np.asarray(quadrant.resize((56, 56), Image.Resampling.BILINEAR)))


def test_visualize_overlay_true_of_a_clip_is_the_frame_of_its_step() -> None:
    frames = torch.rand(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Conv3d(3, 2, 1)
    sheets = visualize(torch.nn.Sequential(model), frames, "0", overlay=True, alpha=0, tile=8, axes="ncthw")
    assert len(sheets) == 4
    for step, sheet in enumerate(sheets):
        values = frames[0, :, step]
        shown = (values - values.min()) / (values.max() - values.min()) if float(values.max()) > 1 else values
        frame = np.floor(shown.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
        for tile in np.split(sheet.rgb(), 2, axis=1):
            assert_same_plane(tile.reshape(8, -1), frame.reshape(8, -1))


@pytest.mark.parametrize("made", ["torchvision", "compose", "own", "detection"])
def test_as_image_undoes_the_preprocessing(quadrant: Image.Image, made: str) -> None:
    small = quadrant.resize((96, 64))
    to_tensor = transforms.ToTensor()
    preprocess: Any = {
        "torchvision": imagenet_preset(),
        "compose": transforms.Compose([to_tensor, transforms.Normalize((0.1, 0.5, 0.6), (0.9, 0.2, 0.3))]),
        "own": to_tensor,
        "detection": FasterRCNN_ResNet50_FPN_Weights.DEFAULT.transforms(),
    }[made]
    cropped = quadrant.resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    image, expected = (quadrant, cropped) if made == "torchvision" else (small, small)
    assert_equal_planes(as_image(preprocess(image), preprocess), np.asarray(expected))


def test_as_image_undoes_the_preprocessing_of_a_clip(quadrant: Image.Image) -> None:
    preprocess = as_clips(R3D_18_Weights.DEFAULT.transforms())
    frame = preprocess(quadrant)[:, 0]
    mean, std = np.array([0.43216, 0.394666, 0.37645]), np.array([0.22803, 0.22145, 0.216989])
    values = (frame.permute(1, 2, 0).numpy() * std + mean).clip(0, 1)
    assert_same_plane(
        as_image(frame, preprocess).reshape(112, -1), np.floor(values * 255 + 0.5).astype(np.uint8).reshape(112, -1)
    )


def test_as_image_of_unknown_values_spreads_them_and_survives_nan() -> None:
    values = torch.tensor([-3.0, -1.0, NAN, 5.0, float("inf"), 1.0]).reshape(1, 2, 3).expand(3, -1, -1)
    image = as_image(values, lambda image: values)
    assert image[..., 0].tolist() == [[0, 64, 0], [255, 0, 128]]
    flat = as_image(torch.full((3, 2, 2), 7.0), lambda image: values)
    assert not flat.any()
    assert not as_image(torch.full((3, 2, 2), NAN), lambda image: values).any()


# The command line.

MODEL = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=8, padding=1), torch.nn.Conv2d(4, 2, 1))
"""


@pytest.fixture
def command(tmp_path: Path, quadrant: Image.Image) -> list[str]:
    """Return the beginning of a command: a model, an image, its layers and a folder."""
    (tmp_path / "own.py").write_text(MODEL)
    quadrant.save(tmp_path / "cat.png")
    argv = [
        "render",
        f"{tmp_path / 'own.py'}:make",
        str(tmp_path / "cat.png"),
        "--layer",
        "0",
        "1",
        "--tile",
        "56",
        "--plain",
    ]
    return [*argv, "--out", str(tmp_path / "out")]


def test_command_overlay_without_a_value_is_the_image_itself(
    command: list[str], tmp_path: Path, quadrant: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--overlay", "--alpha", "0"]) == cli.DONE
    assert without_notes(capsys.readouterr().err) == ""
    seen = quadrant.resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    tile = np.asarray(seen.resize((56, 56), Image.Resampling.BILINEAR))
    with Image.open(tmp_path / "out" / "1" / "cat.png") as image:
        assert_equal_planes(np.asarray(image), np.concatenate([tile, tile], axis=1))
    assert json.loads((tmp_path / "out" / "1" / "cat.json").read_text())["overlay"]["source"] == "input"


def test_command_overlay_of_another_shape_is_reported_in_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jpg"
    Image.fromarray(random_bytes(30, 50, 3)).save(other)
    assert cli.main([*command, "--overlay", str(other)]) == cli.DONE
    captured = capsys.readouterr()
    assert without_notes(captured.err) == (
        "cnnviz: the overlay of 30 x 50 px is stretched to tiles of 56 x 56 px. "
        "Without a value (True in Python) it is the image as the model saw it.\n"
    )
    assert captured.out.count("\n") == 2
    described = json.loads((tmp_path / "out" / "0" / "cat.json").read_text())["overlay"]
    assert described == {"alpha": 0.5, "source": str(other), "size": [30, 50], "drawn_at": [56, 56]}


def test_command_overlay_with_npy_writes_the_index_plane(command: list[str], tmp_path: Path) -> None:
    assert cli.main([*command, "--format", "npy"]) == cli.DONE
    plain = np.load(tmp_path / "out" / "0" / "cat.npy")
    assert cli.main([*command, "--format", "npy", "--overlay"]) == cli.DONE
    assert_equal_planes(np.load(tmp_path / "out" / "0" / "cat.npy"), plain)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--overlay", "missing.png"], cli.FAILED, "cnnviz: overlay: no file 'missing.png'.\n"),
        (["--overlay", __file__], cli.FAILED, "but it is text.\n"),
        (["--alpha", "0.5"], 2, "cnnviz: alpha goes with overlay, got alpha '0.5' alone.\n"),
        (["--overlay", "--alpha", "50"], 2, "cnnviz: alpha must be a number from 0 to 1, got '50'.\n"),
    ],
)
def test_command_overlay_that_cannot_be_used_writes_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, said: str
) -> None:
    assert cli.main([*command, *more]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(said)
    assert captured.err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["cat.png", "own.py"]


def test_palette_entries_that_are_no_values_are_opaque(photo: Bytes) -> None:
    backdrop = read_overlay(photo, 0.25)
    assert backdrop is not None
    palette = make_palette("viridis", shows_background=True, shows_bad=True)
    overlay = backdrop.under(Grid(1, 1, 1, 5, 7), palette, "numba")
    assert overlay.weights.tolist() == [64] * 254 + [256] * 2
