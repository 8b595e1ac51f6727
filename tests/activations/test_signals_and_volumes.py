"""Models that take no photos: grey images, bands, signals, volumes and depth maps, from the input to the sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import assert_equal_planes
from support.plain import render, visualize
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.activations.axes.evidence import Evidence
from cnnviz_fast.activations.axes.find import find_axes, to_maps
from cnnviz_fast.activations.axes.record import Axes
from cnnviz_fast.activations.maps import frame_of
from cnnviz_fast.errors import OptionError, ShapeError


def convolutions(kind: Any, channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(kind(channels, 8, 3, padding=1), nn.ReLU(), kind(8, 6, 3, padding=1)).eval()


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_visualize_draws_a_sheet_for_each_sample_of_any_number_of_channels(channels: int) -> None:
    model, batch = convolutions(nn.Conv2d, channels), torch.rand(3, channels, 12, 10)
    sheets = visualize(model, batch, ["0", "2"], tile=24)
    alone = [cf.capture(model, each[None], ["0", "2"]) for each in batch]
    expected = [render(maps[layer][0], tile=24) for maps in alone for layer in ("0", "2")]
    assert [sheet.manifest["image"] for sheet in sheets] == ["image0"] * 2 + ["image1"] * 2 + ["image2"] * 2
    for sheet, other in zip(sheets, expected, strict=True):
        assert_equal_planes(sheet.index, other.index)
    (laid_over,) = visualize(model, batch[0], "2", overlay=True, tile=24)
    assert laid_over.rgb().shape == (*laid_over.index.shape, 3)


def test_visualize_volume_has_a_sheet_for_each_plane() -> None:
    model, volume = convolutions(nn.Conv3d, 1), torch.rand(2, 1, 5, 12, 10)
    maps = torch.cat([cf.capture(model, each[None], ["2"])["2"] for each in volume])
    sheets = visualize(model, volume, "2", tile=24)
    assert len(sheets) == 10
    for n, sheet in enumerate(sheets):
        assert_equal_planes(sheet.index, render(maps[n // 5, :, n % 5], tile=24).index)
        assert (sheet.manifest["plane"], sheet.manifest["time_step"], sheet.manifest["axes"]) == (n % 5, None, "ncdhw")


def test_visualize_planes_chooses_some_and_writes_them_apart(tmp_path: Path) -> None:
    model, volume = convolutions(nn.Conv3d, 1), torch.rand(1, 5, 12, 10)
    np.save(tmp_path / "scan.npy", volume.numpy())
    sheets = visualize(model, tmp_path / "scan.npy", "2", tmp_path / "out", planes="1,3-4", tile=24)
    assert [sheet.manifest["plane"] for sheet in sheets] == [1, 3, 4]
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")) == [
        "2-d1/scan.png", "2-d3/scan.png", "2-d4/scan.png",
    ]  # fmt: skip
    with pytest.raises(OptionError, match="planes must be 0 to 4 for layer '2', got 7"):
        visualize(model, volume, "2", planes=7)


def test_visualize_volume_lies_over_its_own_planes() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 1))
    volume = torch.linspace(0, 1, 4)[None, :, None, None].expand(1, 4, 6, 6).contiguous()
    for plane, sheet in enumerate(visualize(model, volume, "0", overlay=True, alpha=0, tile=6)):
        assert int(sheet.rgb()[0, 0, 0]) == round(255 * plane / 3)


@pytest.mark.parametrize(
    ("step", "steps", "plane"), [(None, 1, 0), (0, 4, 1), (1, 4, 3), (3, 4, 7), (7, 8, 7), (0, 1, 4)]
)
def test_frame_of_is_the_plane_in_the_middle_of_what_a_step_covers(step: int | None, steps: int, plane: int) -> None:
    sample = torch.arange(8.0)[None, :, None, None].expand(3, 8, 2, 2)
    assert float(frame_of(sample, step, steps)[0, 0, 0]) == plane
    assert frame_of(sample[:, 0], step, steps).shape == (3, 2, 2)


def test_visualize_signal_draws_a_row_for_each_channel() -> None:
    model, batch = convolutions(nn.Conv1d, 2), torch.randn(3, 2, 700)
    maps = torch.cat([cf.capture(model, each[None], ["2"])["2"] for each in batch])
    sheets = visualize(model, batch, "2")
    assert len(sheets) == 3
    for n, sheet in enumerate(sheets):
        assert_equal_planes(sheet.index, render(maps[n]).index)
        assert sheet.index.shape == (6 * 8, 700)
    with pytest.raises(OptionError, match=r"overlay and .* go with images and volumes; this model takes signals"):
        visualize(model, batch, "2", overlay=True)


def test_run_of_signals_writes_sheets_tiles_and_statistics(tmp_path: Path) -> None:
    model = convolutions(nn.Conv1d, 2)
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).standard_normal((2, 300)).astype(np.float32))
    out = tmp_path / "out"
    summary = cf.run(model, tmp_path, "2", out, save="sheets,tiles,statistics,maps", progress="none", workers=0)
    assert (summary.finished, summary.failed) == (3, 0)
    assert (out / "2" / "0.png").exists()
    assert len(list((out / "2" / "tiles" / "0").glob("*.png"))) == 6
    assert cf.read_statistics(summary.statistics)["2"].images == 3  # type: ignore[arg-type]


def test_run_of_volumes_counts_planes_as_one_image(tmp_path: Path) -> None:
    model = convolutions(nn.Conv3d, 1)
    out = tmp_path / "out"
    summary = cf.run(
        model, torch.rand(2, 1, 4, 6, 6), "2", out, planes="1-2", save="sheets,statistics", progress="none", workers=0
    )
    assert summary.finished == 2
    assert len(list(out.rglob("*.png"))) == 4
    assert cf.read_statistics(summary.statistics)["2"].images == 2  # type: ignore[arg-type]


class Depth(nn.Module):
    """Puts out depth, (N, H, W), as models of depth do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 1, 3, padding=1)
        self.squeeze = nn.Flatten(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        depth: torch.Tensor = self.squeeze(self.net(x))
        return depth


def test_visualize_depth_is_one_map() -> None:
    model, batch = Depth().eval(), torch.rand(2, 3, 10, 12)
    sheets = visualize(model, batch, "squeeze", tile=24)
    maps = torch.cat([cf.capture(model, each[None], ["squeeze"])["squeeze"] for each in batch])
    assert maps.shape == (2, 10, 12)
    for n, sheet in enumerate(sheets):
        assert sheet.manifest["axes"] == "nhw"
        assert_equal_planes(sheet.index, render(maps[n : n + 1], axes="chw", tile=24).index)


@pytest.mark.parametrize(("module", "shape", "input_shape", "axes"), [
    (nn.Conv1d(2, 6, 3), (2, 6, 50), (2, 2, 52), Axes("ncl")),
    (nn.Linear(6, 6), (2, 50, 6), (2, 2, 50), Axes("nlc")),
    (nn.LayerNorm(6), (2, 50, 6), (2, 50), Axes("nlc")),
    (nn.Conv3d(1, 6, 3), (2, 6, 5, 7, 7), (2, 1, 5, 7, 7), Axes("ncdhw", 5)),
    (nn.Conv3d(3, 6, 3), (2, 6, 5, 7, 7), (2, 3, 5, 7, 7), Axes("ncthw", 5)),
])  # fmt: skip
def test_find_axes_follow_the_input(
    module: nn.Module, shape: tuple[int, ...], input_shape: tuple[int, ...], axes: Axes
) -> None:
    evidence = Evidence("x", module, nn.Sequential(module), input_shape)
    assert find_axes(shape, evidence) == axes


@pytest.mark.parametrize(("name", "shape", "maps"), [
    ("ncl", (2, 6, 50), (2, 6, 1, 50)), ("nlc", (2, 50, 6), (2, 6, 1, 50)), ("nhw", (2, 6, 7), (2, 1, 6, 7)),
    ("ncdhw", (2, 6, 5, 7, 8), (2, 6, 7, 8)),
])  # fmt: skip
def test_to_maps_of_named_axes(name: str, shape: tuple[int, ...], maps: tuple[int, ...]) -> None:
    axes = find_axes(shape, axes=name)
    assert to_maps(torch.zeros(shape), axes).shape == maps
    with pytest.raises(ShapeError, match=f"for axes '{name}'"):
        find_axes((2, 3), axes=name)


class AddsTheChannel(nn.Module):
    """Takes (N, H, W) or (N, L), as models of depth maps and of sounds do."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.net = kind(1, 4, 3, padding=1)
        self.axes = 3 if kind is nn.Conv2d else 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim == self.axes
        result: torch.Tensor = self.net(x[:, None])
        return result


@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv2d, (3, 10, 12)), (nn.Conv1d, (3, 600))])
def test_visualize_takes_samples_without_an_axis_of_channels(kind: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    model, batch = AddsTheChannel(kind), torch.rand(shape)
    sheets = visualize(model, batch, "net", tile=(16, 24))
    assert len(sheets) == 3
    assert_equal_planes(visualize(model, batch[1], "net", tile=(16, 24))[0].index, sheets[1].index)
    np.save(tmp_path / "a.npy", batch[2].numpy())
    assert torch.equal(cf.load_images(tmp_path / "a.npy", model), batch[2:])
    assert cf.list_layers(model)[0].calls == 1


def test_visualize_depth_model_takes_photos_and_lies_over_them(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    (sheet,) = visualize(AddsTheChannel(nn.Conv2d), photo, "net", overlay=True)
    assert sheet.rgb().shape[2] == 3


def test_visualize_file_of_several_samples_is_a_batch(tmp_path: Path) -> None:
    batch = np.random.default_rng(0).standard_normal((4, 3, 10, 12)).astype(np.float32)
    np.save(tmp_path / "b.npy", batch)
    model = convolutions(nn.Conv2d, 3)
    sheets = visualize(model, tmp_path / "b.npy", "0", tmp_path / "out", tile=16)
    expected = visualize(model, torch.from_numpy(batch), "0", tile=16)
    assert [sheet.index.tobytes() for sheet in sheets] == [sheet.index.tobytes() for sheet in expected]
    assert len(list((tmp_path / "out" / "0").glob("*.png"))) == 4


def test_load_images_grey_arrays_keep_wide_values(tmp_path: Path) -> None:
    model = nn.Conv2d(1, 2, 3)
    wide = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    np.save(tmp_path / "ct.npy", wide)
    assert torch.equal(cf.load_images(tmp_path / "ct.npy", model)[0, 0], torch.from_numpy(wide / np.float32(65535)))
    np.save(tmp_path / "z.npy", wide - np.float32(1000))
    assert torch.equal(cf.load_images(tmp_path / "z.npy", model)[0, 0], torch.from_numpy(wide - np.float32(1000)))


def test_visualize_planes_of_images_are_refused() -> None:
    with pytest.raises(OptionError, match="planes go with volumes and clips"):
        visualize(convolutions(nn.Conv2d, 3), torch.rand(1, 3, 9, 9), "0", planes="0")


class TurnsWithSize(nn.Module):
    """Puts its channels last where the input is large."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.turn = nn.Conv2d(3, 6, 3, padding=1), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        result: torch.Tensor = self.turn(y.permute(0, 2, 3, 1) if x.shape[-1] > 16 else y)
        return result


def test_visualize_order_that_depends_on_the_size_of_the_input_is_followed_for_each() -> None:
    model = TurnsWithSize()
    for side, axes in ((12, "nchw"), (20, "nhwc"), (14, "nchw"), (24, "nhwc")):
        (sheet,) = visualize(model, torch.rand(1, 3, side, side), "turn")
        assert sheet.manifest["axes"] == axes
