"""Sheets of weights, decoded by Pillow and compared with values worked out anew from the weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import A_LEVEL, FLOAT32_RATIO, assert_close, close_to
from support.looping import over
from torch import nn

from cnnviz_fast.errors import DTypeError, OptionError, ShapeError
from cnnviz_fast.geometry import Strip
from cnnviz_fast.options.weights import KernelOptions
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.weights import kernel_sheets
from cnnviz_fast.weights.kernel_sheets import RgbPlan, kernels_of, plan_kernels, write_kernels
from cnnviz_fast.weights.parameters import held_tensors

BETWEEN = 0x20
"""Red, green and blue between tiles."""


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def draw(weight: torch.Tensor, folder: Path, **options: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Write a sheet; return its pixels, (H, W, 3) uint8, and its manifest."""
    options = {"colormap": "gray", **options}
    plan = plan_kernels(weight, KernelOptions(**options), name="body.weight", provenance=Provenance("net", "seeded"))
    path = write_kernels(plan, folder / "weight.png")
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert (manifest["parameter"], manifest["model"]) == ("body.weight", "net")
    assert manifest["shape"] == list(weight.shape)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[:2] == (manifest["sheet"]["height"], manifest["sheet"]["width"])
    return pixels, manifest


def levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Bring values on a range to 0..255 in float32, as the pixel rules say."""
    values, low, high = values.astype(np.float32), np.float32(low), np.float32(high)
    return np.floor(((values - low) / (high - low)).clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def enlarged(values: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


def test_grid_rows_are_outputs_and_columns_inputs(tmp_path: Path) -> None:
    weight = noise(5, 4, 3, 2)
    pixels, manifest = draw(weight, tmp_path, kernels="grid", scale=3)
    largest = weight.abs().max().item()
    assert (manifest["shows"], manifest["vmin"], manifest["vmax"]) == ("grid", -largest, largest)
    assert pixels.shape == (5 * 9 + 4, 4 * 6 + 3, 3)
    expected = levels(weight.numpy(), -largest, largest)
    for o in range(5):
        for i in range(4):
            tile = pixels[o * 10 : o * 10 + 9, i * 7 : i * 7 + 6]
            np.testing.assert_array_equal(tile, np.stack([enlarged(expected[o, i], 3)] * 3, axis=2))
    assert (pixels[9::10] == BETWEEN).all()
    assert (pixels[:, 6::7] == BETWEEN).all()


def test_auto_of_three_inputs_is_in_colour_each_kernel_on_its_own_range(tmp_path: Path) -> None:
    weight = noise(7, 3, 4, 4) * torch.arange(1.0, 8.0)[:, None, None, None]
    pixels, manifest = draw(weight, tmp_path, scale=2)
    assert manifest["shows"] == "rgb"
    cols = manifest["sheet"]["cols"]
    for o, kernel in enumerate(weight.numpy()):
        assert (manifest["vmin"][o], manifest["vmax"][o]) == (kernel.min(), kernel.max())
        y, x = o // cols * 9, o % cols * 9
        expected = levels(kernel, kernel.min(), kernel.max()).transpose(1, 2, 0)
        np.testing.assert_array_equal(pixels[y : y + 8, x : x + 8], enlarged(expected, 2))
    assert (pixels[8::9] == BETWEEN).all()
    assert (pixels[-8:, -8:] == BETWEEN).all()  # no tile: black could be one


def test_colour_shows_a_pixel_that_is_not_finite_as_bad_and_a_flat_kernel_as_black(tmp_path: Path) -> None:
    weight = noise(3, 3, 2, 2)
    weight[0, 1, 0, 1] = float("nan")
    weight[1] = 4.0
    weight[2] = float("inf")
    pixels, manifest = draw(weight, tmp_path, scale=1)
    assert manifest["sheet"]["cols"] == 2
    assert pixels[0, 1].tolist() == [255, 0, 255]
    first = weight[0].numpy()
    low, high = np.nanmin(first), np.nanmax(first)
    assert manifest["vmin"][0] == low
    # The bad colour takes an entry of each plane's palette: 255 levels are left, within 1 of 256.
    assert_close(pixels[0, 0], levels(first[:, 0, 0], low, high), A_LEVEL)
    assert not pixels[0:2, 3:5].any()
    assert (pixels[3:5, 0:2] == [255, 0, 255]).all()
    assert (manifest["vmin"][2], manifest["vmax"][2]) == (None, None)


@pytest.mark.parametrize("kernels", ["auto", "grid", "norm", "mean"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1), (1, 6, 5)])
def test_matrices_are_one_tile(kernels: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    weight = noise(6, 5).reshape(shape)
    pixels, manifest = draw(weight, tmp_path, kernels=kernels, scale=4)
    largest = weight.abs().max().item()
    assert manifest["shows"] == "matrix"
    expected = enlarged(levels(weight.reshape(6, 5).numpy(), -largest, largest), 4)
    np.testing.assert_array_equal(pixels[..., 0], expected)


@pytest.mark.parametrize("kernels", ["norm", "mean"])
def test_reduced_over_the_inputs_is_one_tile_an_output(kernels: str, tmp_path: Path) -> None:
    weight = noise(4, 7, 3, 3)
    pixels, manifest = draw(weight, tmp_path, kernels=kernels, scale=2)
    values = weight.double().numpy()
    reduced = np.sqrt((values**2).sum(axis=1)) if kernels == "norm" else values.mean(axis=1)
    largest = abs(reduced).max()
    assert manifest["vmax"] == close_to(largest, FLOAT32_RATIO)
    expected = levels(reduced, 0 if kernels == "norm" else -largest, largest)
    assert pixels.shape == (13, 13, 3)
    for o in range(4):
        y, x = o // 2 * 7, o % 2 * 7
        tile = pixels[y : y + 6, x : x + 6, 0]
        assert_close(tile, enlarged(expected[o], 2), A_LEVEL)


def test_auto_of_depthwise_kernels_is_one_tile_each(tmp_path: Path) -> None:
    weight = noise(9, 1, 3, 3)
    pixels, manifest = draw(weight, tmp_path, scale=1)
    largest = weight.abs().max().item()
    assert (manifest["shows"], manifest["sheet"]["rows"], manifest["sheet"]["cols"]) == ("single", 3, 3)
    np.testing.assert_array_equal(pixels[4:7, 8:11, 0], levels(weight[5, 0].numpy(), -largest, largest))


def test_auto_takes_the_norm_where_the_grid_is_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = noise(6, 5, 3, 3)
    assert draw(weight, tmp_path)[1]["shows"] == "grid"
    monkeypatch.setattr(kernel_sheets, "GRID_PX", 6 * 4 * 5 * 4 - 1)
    assert draw(weight, tmp_path)[1]["shows"] == "norm"
    assert draw(weight, tmp_path, kernels="grid")[1]["shows"] == "grid"


@pytest.mark.parametrize(
    ("shape", "shows", "size"),
    [
        ((4, 5, 3), "grid", (7, 19)),  # Conv1d: 4 rows of 5 kernels of 1 x 3
        ((4, 5, 2, 3, 3), "grid", (15, 39)),  # Conv3d: 4 rows of 5 inputs x 2 time steps
        ((4, 3, 2, 3, 3), "rgb", (11, 11)),  # Conv3d on colour: 4 outputs x 2 time steps on a grid of 3 x 3
        ((2, 3, 5, 1, 3, 3), "grid", (23, 19)),
        ((7, 1, 1), "matrix", (7, 1)),
    ],
)
def test_other_shapes_are_read_as_kernels(
    shape: tuple[int, ...], shows: str, size: tuple[int, int], tmp_path: Path
) -> None:
    pixels, manifest = draw(noise(*shape), tmp_path, scale=1)
    assert manifest["shows"] == shows
    assert pixels.shape[:2] == size


def test_kernels_of_three_dimensions_lie_output_by_time_step(tmp_path: Path) -> None:
    weight = noise(2, 3, 2, 2, 2)
    pixels, manifest = draw(weight, tmp_path, scale=1)
    kernel = weight[1, :, 0].numpy()  # the third tile: output 1, time step 0
    low, high = kernel.min(), kernel.max()
    assert manifest["vmin"][2] == low
    np.testing.assert_array_equal(pixels[3:5, 0:2], levels(kernel, low, high).transpose(1, 2, 0))


def test_default_scale_is_whole_and_fits_the_screen(tmp_path: Path) -> None:
    assert draw(noise(4, 3, 5, 5), tmp_path)[1]["sheet"]["tile_h"] == 5 * 16
    sheet = draw(noise(100, 90, 3, 3), tmp_path)[1]["sheet"]
    assert sheet["tile_h"] == 18
    assert sheet["height"] <= 2048 < 100 * (7 * 3 + 1)
    assert draw(noise(2048, 2), tmp_path)[1]["sheet"]["tile_h"] == 2048


def nearness(count: int, px: int) -> NDArray[np.float64]:
    """Return how much each of `count` weights takes part in each of `px` fewer pixels, (px, count), in sums of 1."""
    scale = count / px
    middles = (np.arange(px) + 0.5) * scale
    near = (1 - np.abs(np.arange(count) + 0.5 - middles[:, None]) / scale).clip(0)
    return near / near.sum(axis=1, keepdims=True)


def test_large_matrices_are_reduced_to_means_of_near_weights(tmp_path: Path) -> None:
    weight = noise(3000, 2500)
    pixels, manifest = draw(weight, tmp_path)
    assert manifest["shape"] == [3000, 2500]
    assert pixels.shape == (2048, 2048, 3)
    rows, cols = (scipy.sparse.csr_array(nearness(side, 2048)) for side in (3000, 2500))
    mean = rows @ weight.double().numpy() @ cols.T
    largest = weight.abs().max().item()
    assert_close(pixels[..., 0], levels(mean, -largest, largest), A_LEVEL)
    pixels, _ = draw(noise(4096, 3), tmp_path)
    assert pixels.shape == (2048, 3, 3)


def test_large_matrices_are_drawn_whole_with_a_scale(tmp_path: Path) -> None:
    weight = noise(2050, 2)
    pixels, _ = draw(weight, tmp_path, scale=1)
    largest = weight.abs().max().item()
    np.testing.assert_array_equal(pixels[..., 0], levels(weight.numpy(), -largest, largest))


def test_zero_weights_are_the_middle_and_zero_norms_the_lower_end(tmp_path: Path) -> None:
    assert set(draw(torch.zeros(4, 5), tmp_path, scale=1)[0].ravel()) == {128}
    assert set(draw(torch.zeros(4, 5, 3, 3), tmp_path, kernels="norm")[0].ravel()) == {0, BETWEEN}


def test_values_that_are_not_finite_are_bad_and_take_no_part_in_the_range(tmp_path: Path) -> None:
    weight = noise(4, 5)
    weight[1, 2], weight[3, 3] = float("nan"), -float("inf")
    pixels, manifest = draw(weight, tmp_path, scale=1)
    assert manifest["vmax"] == weight[weight.isfinite()].abs().max().item()
    assert (pixels[[1, 3], [2, 3]] == [255, 0, 255]).all()
    assert draw(torch.full((2, 2), float("nan")), tmp_path)[1]["vmax"] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_other_dtypes_are_widened(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = (noise(4, 5, 3, 3) * 20).to(dtype)
    expected = draw(weight.float(), tmp_path)[0]
    np.testing.assert_array_equal(draw(weight, tmp_path)[0], expected)


def test_colours_are_those_of_the_colormap(tmp_path: Path) -> None:
    import matplotlib

    values = torch.tensor([[-2.0, 0.0, 2.0]])
    pixels, _ = draw(values, tmp_path, colormap=None, scale=1)
    expected = matplotlib.colormaps["coolwarm"]([0.0, 128 / 255, 1.0], bytes=True)[:, :3]
    assert_close(pixels[0], expected, A_LEVEL)


def test_a_quarter_million_kernels_have_no_record_each(tmp_path: Path) -> None:
    pixels, manifest = draw(noise(512, 512, 3, 3), tmp_path)
    assert pixels.shape == (2047, 2047, 3)
    assert (tmp_path / "weight.json").stat().st_size < 1000
    assert manifest["sheet"]["count"] == 512 * 512


def test_kernels_of_transposed_convolutions_put_outputs_first() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 8, 2), nn.ConvTranspose2d(8, 6, 2, groups=2), nn.Conv2d(6, 7, 1))
    weights = [kernels_of(held) for held in held_tensors(model) if held.name.endswith("weight")]
    assert [tuple(weight.shape[:2]) for weight in weights] == [(8, 3), (8, 3), (7, 6)]
    assert torch.equal(weights[0], model[0].weight.transpose(0, 1))


def test_threads_do_not_change_the_file(tmp_path: Path) -> None:
    for weight in (noise(40, 40, 3, 3), noise(64, 3, 7, 7)):
        files = []
        for threads in (1, 3):
            draw(weight, tmp_path, threads=threads)
            files.append((tmp_path / "weight.png").read_bytes())
        assert files[0] == files[1]


def test_rgb_plan_draws_any_strip() -> None:
    plan = plan_kernels(noise(9, 3, 5, 5), KernelOptions())
    assert isinstance(plan, RgbPlan)
    whole = plan.draw(Strip(0, 40), np.empty((40, plan.grid.width, 3), np.uint8))
    part = plan.draw(Strip(13, 29), np.empty((16, plan.grid.width, 3), np.uint8))
    np.testing.assert_array_equal(whole[13:29], part)


@over(
    ("weight", "options", "error", "message"),
    [
        (torch.zeros(5), {}, ShapeError, r"weight must have at least 2 dimensions and a value, got shape \(5,\)"),
        (torch.zeros(0, 3), {}, ShapeError, r"got shape \(0, 3\)"),
        (torch.zeros(2, 3, dtype=torch.complex64), {}, DTypeError, "must be of a real dtype, got torch.complex64"),
        (torch.zeros(2, 3, device="meta"), {}, DTypeError, "got the meta device"),
        (
            torch.zeros(2, 3),
            {"kernels": "none"},
            OptionError,
            "kernels must name a kind of sheet, got 'none'. Take auto.",
        ),
        (torch.zeros(2, 3), {"scale": 10**10}, OptionError, "a sheet holds at most"),
        (torch.zeros(2, 3), {"colormap": "virids"}, OptionError, "no colormap 'virids'. Closest: 'viridis'"),
    ],
)
def test_plan_kernels_wrong_input_is_refused(
    weight: torch.Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_kernels(weight, KernelOptions(**options))


def test_kernel_options_are_checked() -> None:
    with pytest.raises(OptionError, match=r"kernels must be one of auto, grid, norm, mean, none, got 'gird'\. Closest"):
        KernelOptions(kernels="gird")
    with pytest.raises(OptionError, match="scale must be a whole number of at least 1, got 0"):
        KernelOptions(scale=0)
