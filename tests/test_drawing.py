"""Sheets and files of maps on a device that works late: the same bytes as on the CPU, and what a fault leaves."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from fake_device import FakeDevice, device_copies
from PIL import Image

import cnnviz_fast as cf
from cnnviz_fast import bands, drawing
from cnnviz_fast.errors import KernelError
from cnnviz_fast.options import RenderOptions
from cnnviz_fast.overlay import read_overlay
from cnnviz_fast.plan import plan_sheet

if TYPE_CHECKING:
    from cnnviz_fast.palette import Palette

MAIN_PATH = importlib.import_module("cnnviz_fast.render")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"tile": 40},
    "shrunk": {"scale": 0.6, "normalize": "layer"},
    "with gaps": {"tile": 36, "gap": 3, "margin": 5, "background": "white", "colormap": "gray"},
    "annotated": {"tile": 40, "label": True, "title": "maps", "colorbar": True, "gap": 2},
    "reduced": {"tile": 64, "reduce": "sum,max", "beside": True, "sort": True},
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """Let the engine think that tensors of the CPU lie on a device, and fetch sheets in small bands."""
    fake = FakeDevice()
    monkeypatch.setattr(drawing, "device_at", lambda _: fake)
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 14)
    monkeypatch.setattr("cnnviz_fast.layout.SMALLEST_STRIP_PX", 1 << 12)
    return fake


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def maps_of(count: int = 30) -> torch.Tensor:
    maps = torch.randn(count, 7, 9, generator=torch.Generator().manual_seed(3))
    maps[2, 1, 1] = torch.nan
    return maps


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def made(folder: Path, overlay: Any, **options: Any) -> dict[str, bytes]:
    """Make every kind of output, and return the files."""
    folder.mkdir()
    maps = maps_of()
    cf.save_sheet(maps, folder / "sheet.png", overlay=overlay, **options)
    cf.render(maps, overlay=overlay, **options).save(folder / "rendered.png")
    if "label" not in options and "gap" not in options:
        cf.save_tiles(maps, folder / "tiles", overlay=overlay, **options)
        for path in (folder / "tiles").iterdir():
            path.rename(folder / f"tile {path.name}")
        (folder / "tiles").rmdir()
    return files_in(folder)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_fetched_is_byte_for_byte_what_is_drawn_on_the_host(
    name: str, over: bool, threads: int, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS[name], "threads": threads, "backend": "torch"}
    overlay = picture if over else None
    monkeypatch.setattr("cnnviz_fast.layout.SMALLEST_STRIP_PX", 1 << 12)
    expected = made(tmp_path / "host", overlay, **options)
    fake = FakeDevice()
    monkeypatch.setattr(drawing, "device_at", lambda _: fake)
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 14)
    assert made(tmp_path / "device", overlay, **options) == expected
    assert len(device_copies(fake)) >= 3
    assert not fake.pending


def test_a_lost_device_leaves_no_half_file(device: FakeDevice, tmp_path: Path) -> None:
    cf.save_sheet(maps_of(), tmp_path / "first.png", tile=40, backend="torch")
    device.lost_at_copy = len(device_copies(device)) + 2
    with pytest.raises(KernelError, match="was lost"):
        cf.save_sheet(maps_of(), tmp_path / "second.png", tile=40, backend="torch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "first.png"]
    with Image.open(tmp_path / "first.png") as image:
        image.load()


def test_a_lost_device_leaves_the_single_files_that_were_finished(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnviz_fast.encode.png.STRIP_PX", 8 * 100 * 78)  # eight tiles a batch
    device.lost_at_copy = 3
    with pytest.raises(KernelError, match="was lost"):
        cf.save_tiles(maps_of(64), tmp_path, tile=100, threads=1, backend="torch")
    left = list(tmp_path.iterdir())
    assert len(left) == 3 * 8
    for path in left:
        with Image.open(path) as image:
            image.load()


def test_a_lost_device_is_said_by_render(device: FakeDevice) -> None:
    device.lost_at_copy = 1
    with pytest.raises(KernelError, match="was lost"):
        cf.render(maps_of(), tile=40, backend="torch")


def test_a_device_with_little_memory_draws_the_same(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.most_bytes = 1 << 11
    scarce = cf.render(maps_of(), tile=40, backend="torch")
    assert ("give back",) in device.log
    monkeypatch.undo()
    assert np.array_equal(scarce.index, cf.render(maps_of(), tile=40, backend="torch").index)


def test_draw_on_device_is_the_plane_of_the_sheet() -> None:
    options = RenderOptions(tile=36, gap=3, margin=5, backend="torch")
    index = drawing.draw_on_device(plan_sheet(maps_of(), options, cf.Source()))
    assert np.array_equal(index.numpy(), cf.render(maps_of(), **vars(options)).index)


@pytest.mark.parametrize(
    ("options", "encoded_there"), [({}, True), ({"title": "maps"}, False), ({"overlay": True}, False)]
)
def test_a_jpeg_of_a_plain_sheet_on_cuda_is_encoded_there(
    options: dict[str, Any], encoded_there: bool, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def encode(path: Path, index: torch.Tensor, palette: Palette) -> None:
        given.append(index)

    monkeypatch.setattr("cnnviz_fast.encode.device_jpeg.takes", lambda height, width: True)
    monkeypatch.setattr("cnnviz_fast.encode.formats.write_device_jpeg", encode)
    backdrop = read_overlay(picture, None) if options.pop("overlay", False) else None
    plan = plan_sheet(maps_of(), RenderOptions(tile=36, backend="torch", **options), cf.Source(), backdrop)
    plan = replace(plan, device=torch.device("cuda"))
    monkeypatch.setattr(drawing, "device_at", lambda _: FakeDevice())
    monkeypatch.setattr(MAIN_PATH, "draw_on_device", lambda plan: torch.zeros(2, 2, dtype=torch.uint8))
    MAIN_PATH.write_sheet(plan, tmp_path / "sheet.jpg")
    assert len(given) == encoded_there
    assert (tmp_path / "sheet.json").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_files_of_maps_on_cuda_show_what_those_of_the_cpu_show(
    name: str, over: bool, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 14)
    overlay = picture if over else None
    sheets = [tmp_path / "cpu.png", tmp_path / "cuda.png"]
    for path, maps in zip(sheets, (maps_of(), maps_of().cuda()), strict=True):
        cf.save_sheet(maps, path, overlay=overlay, **OPTIONS[name])
    shown = [np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in sheets]
    assert (np.abs(shown[0] - shown[1]).max(axis=-1) > 4).mean() < 0.001


@pytest.mark.gpu
def test_sheets_of_a_stream_of_the_callers_own_wait_for_it() -> None:
    maps = maps_of()
    expected = cf.render(maps, tile=40).index
    own = torch.cuda.Stream()
    with torch.cuda.stream(own):
        torch.cuda._sleep(50_000_000)
        late = torch.zeros_like(maps, device="cuda").copy_(maps.pin_memory(), non_blocking=True)
        drawn = cf.render(late, tile=40).index
    assert (np.abs(drawn.astype(int) - expected) <= 1).all()
