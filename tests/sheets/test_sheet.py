"""The finished sheet: what Pillow, OpenCV and numpy read back of every format, its limits, and its display."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.assertions import A_LEVEL, OF_WHOLE_PX, assert_close, assert_equal_planes, assert_similar_image, close_to
from support.looping import over

from cnnviz_fast.errors import EncodeError, InputError, OptionError, WriteError
from cnnviz_fast.formats import picture as formats
from cnnviz_fast.palette import make_palette
from cnnviz_fast.sheets.sheet import LOGGED_PX, NOTEBOOK_PX, Sheet

MakeSheet = Callable[..., Sheet]


def make_sheet(colormap: str = "viridis", size: tuple[int, int] = (60, 90)) -> Sheet:
    """Return a sheet of a smooth surface that shows every level."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(*size, 2)
    surface = (x + y) / (x + y).max() if max(size) > 1 else x
    index = np.floor(surface * 255 + 0.5).astype(np.uint8)
    palette = make_palette(colormap, shows_background=False, shows_bad=False)
    return Sheet(index, palette, {"tiles": [{"channel": 0, "mean": None}]})


def rgb_by_opencv(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


def test_rgb_looks_every_pixel_up_in_the_palette() -> None:
    sheet = make_sheet()
    pixels = sheet.rgb()
    assert pixels.shape == (60, 90, 3)
    assert pixels.dtype == np.uint8
    for y, x in ((0, 0), (59, 89), (13, 40)):
        assert pixels[y, x].tolist() == sheet.palette[sheet.index[y, x]].tolist()


@pytest.mark.parametrize(("colormap", "mode"), [("gray", "L"), ("viridis", "P")])
def test_pil_has_the_mode_and_the_colours(colormap: str, mode: str) -> None:
    sheet = make_sheet(colormap)
    image = sheet.pil()
    assert (image.mode, image.size) == (mode, (90, 60))
    assert_equal_planes(np.asarray(image), sheet.index)
    assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())


def test_save_gray_png_is_gray(tmp_path: Path) -> None:
    sheet = make_sheet("gray")
    path = sheet.save(tmp_path / "sheet.png")
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert_equal_planes(np.asarray(image), sheet.index)
    assert_equal_planes(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), sheet.index)


def test_save_colour_png_is_indexed_with_the_very_palette(tmp_path: Path) -> None:
    sheet = make_sheet("magma")
    path = sheet.save(tmp_path / "sheet.png")
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        assert_equal_planes(np.asarray(image), sheet.index)
        assert image.getpalette() == sheet.palette.ravel().tolist()
    assert_equal_planes(rgb_by_opencv(path), sheet.rgb())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".webp"])
@pytest.mark.parametrize("colormap", ["gray", "viridis"])
def test_save_lossy_formats_look_like_the_sheet(colormap: str, suffix: str, tmp_path: Path) -> None:
    sheet = make_sheet(colormap)
    path = sheet.save(tmp_path / f"sheet{suffix}", quality=95)
    with Image.open(path) as image:
        assert image.format == ("WEBP" if suffix == ".webp" else "JPEG")
        assert image.mode == ("L" if colormap == "gray" and suffix != ".webp" else "RGB")
        assert_similar_image(np.asarray(image.convert("RGB")), sheet.rgb())
    assert_similar_image(rgb_by_opencv(path), sheet.rgb())


def test_save_npy_is_the_index_plane(tmp_path: Path) -> None:
    sheet = make_sheet()
    assert_equal_planes(np.load(sheet.save(tmp_path / "sheet.npy")), sheet.index)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".npy"])
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1)])
def test_save_thin_sheets_keep_their_shape(size: tuple[int, int], suffix: str, tmp_path: Path) -> None:
    sheet = make_sheet(size=size)
    path = sheet.save(tmp_path / f"sheet{suffix}")
    if suffix == ".npy":
        assert np.load(path).shape == size
    else:
        with Image.open(path) as image:
            assert image.size == size[::-1]


def test_save_returns_its_path_and_writes_the_manifest_beside_it(tmp_path: Path) -> None:
    sheet = make_sheet()
    assert sheet.save(str(tmp_path / "layer4.2.png")) == tmp_path / "layer4.2.png"
    assert json.loads((tmp_path / "layer4.2.json").read_text()) == sheet.manifest
    assert sorted(file.name for file in tmp_path.iterdir()) == ["layer4.2.json", "layer4.2.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_save_quality_changes_the_size(suffix: str, tmp_path: Path) -> None:
    sheet = make_sheet(size=(200, 200))
    sizes = [sheet.save(tmp_path / f"{q}{suffix}", quality=q).stat().st_size for q in (1, 50, 100)]
    assert sizes == sorted(set(sizes))
    default = sheet.save(tmp_path / f"default{suffix}").read_bytes()
    assert default == sheet.save(tmp_path / f"90{suffix}", quality=90).read_bytes()


@pytest.mark.parametrize("quality", [0, 101, -1, 50.5, "90", None])
def test_save_quality_out_of_range_is_refused(quality: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^quality must be a whole number from 1 to 100, got "):
        make_sheet().save(tmp_path / "sheet.jpg", quality=quality)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sheet.pgn", r"^the file's suffix must be one of \.png, \.jpg, .*, got 'sheet\.pgn'\. Closest: '\.png'"),
        ("sheet", r"^the file's suffix must be one of .*, got 'sheet'\.$"),
        ("sheet.tiff", r"got 'sheet\.tiff'\."),
    ],
)
def test_save_unknown_suffix_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        make_sheet().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "limit_px"), [(".jpg", 65_500), (".jpeg", 65_500), (".webp", 16_383)])
@pytest.mark.parametrize("upright", [False, True])
def test_save_over_the_limit_is_refused_before_writing(
    suffix: str, limit_px: int, upright: bool, tmp_path: Path
) -> None:
    size = (limit_px + 1, 1) if upright else (1, limit_px + 1)
    shape = f"{size[0]:,} x {size[1]:,}"
    message = rf"^a (JPEG|WEBP) holds at most {limit_px:,} px a side, got a sheet of {shape} px\. Make tile or scale "
    with pytest.raises(EncodeError, match=message):
        make_sheet(size=size).save(tmp_path / f"sheet{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "limit_px"), [(".jpg", 65_500), (".webp", 16_383)])
def test_save_at_the_limit_is_written_by_the_library(suffix: str, limit_px: int, tmp_path: Path) -> None:
    # So the limits are those of the libraries, not ours.
    path = make_sheet(size=(1, limit_px)).save(tmp_path / f"sheet{suffix}")
    with Image.open(path) as image:
        assert image.size == (limit_px, 1)


def test_check_size_png_ends_at_31_bits() -> None:
    assert formats.check_size(Path("a.png"), 2**31 - 1, 1).name == "PNG"
    with pytest.raises(EncodeError, match=r"^a PNG holds at most 2,147,483,647 px a side"):
        formats.check_size(Path("a.png"), 1, 2**31)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".npy"])
def test_save_into_a_folder_that_is_missing_is_a_write_error(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"^cannot write .*sheet.*: No such file or directory\.$"):
        make_sheet().save(tmp_path / "missing" / f"sheet{suffix}")


@pytest.mark.parametrize("colormap", ["gray", "viridis"])
def test_repr_png_small_sheet_is_shown_as_it_is(colormap: str) -> None:
    sheet = make_sheet(colormap)
    with Image.open(io.BytesIO(sheet._repr_png_())) as image:
        assert image.format == "PNG"
        assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())


@over(("size", "colormap"), [
    ((1500, 2000), "viridis"), ((1, 2_500_000), "gray"), ((5000, 500), "gray"),
])  # fmt: skip
def test_repr_png_large_sheet_is_scaled_down(size: tuple[int, int], colormap: str) -> None:
    sheet = make_sheet(colormap, size=size)
    with Image.open(io.BytesIO(sheet._repr_png_())) as image:
        assert image.width * image.height <= NOTEBOOK_PX == 2_000_000
        # Scaled, not cut: the corners are those of the sheet.
        assert_similar_image(np.asarray(image.convert("RGB"))[[0, -1], [0, -1]], sheet.rgb()[[0, -1], [0, -1]])


def test_repr_png_sheet_at_the_limit_is_not_scaled() -> None:
    with Image.open(io.BytesIO(make_sheet(size=(1000, 2000))._repr_png_())) as image:
        assert image.size == (2000, 1000)


@over("colormap", ["gray", "viridis"])
@over("size", [(1501, 2003), (4000, 3), (3, 4000), (997, 1009)])
def test_rgb_of_at_most_is_the_mean_colour_of_each_box(size: tuple[int, int], colormap: str) -> None:
    sheet = make_sheet(colormap, size=size)
    most_px = sheet.index.size // 7
    scaled = sheet._rgb_of_at_most(most_px)
    height, width = scaled.shape[:2]
    assert height * width <= most_px
    # In one piece, by Pillow: no seam shows where bands meet.
    whole = Image.fromarray(sheet.rgb()).resize((width, height), Image.Resampling.BOX)
    assert_close(scaled, np.asarray(whole), A_LEVEL)


def test_rgb_of_at_most_whole_factors_are_plain_means() -> None:
    sheet = make_sheet(size=(60, 90))
    means = sheet.rgb().reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert_close(sheet._rgb_of_at_most(600), means, A_LEVEL)


def test_repr_png_keeps_thin_gaps_evenly_visible() -> None:
    # Lines of 1 px every 50 px of a sheet that is shown at a third of its size: all of them show, none stronger by far.
    index = np.full((4200, 4300), 200, np.uint8)
    index[:, ::50] = 0
    sheet = Sheet(index, make_palette("gray", shows_background=False, shows_bad=False), {})
    with Image.open(io.BytesIO(sheet._repr_png_())) as image:
        shown = np.asarray(image.convert("L"))
    assert not np.ptp(shown, axis=0).any()
    factor = shown.shape[1] / 4300
    darkest = [shown[0, max(0, int(x * factor) - 1) : int(x * factor) + 2].min() for x in range(0, 4300, 50)]
    assert 80 < min(darkest) <= max(darkest) < 170


class Writer:
    """Takes images as a SummaryWriter does."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def add_image(self, tag: str, image: Any, global_step: Any = None, *, dataformats: str = "CHW") -> None:
        self.calls.append((tag, image, global_step, dataformats))


@pytest.mark.parametrize("colormap", ["gray", "viridis"])
def test_to_tensorboard_adds_the_sheet(colormap: str) -> None:
    sheet, writer = make_sheet(colormap), Writer()
    sheet.to_tensorboard(writer, "layer4", 7)
    sheet.to_tensorboard(writer, "layer4")
    (tag, image, step, axes), (_, _, no_step, _) = writer.calls
    assert (tag, step, no_step, axes) == ("layer4", 7, None, "HWC")
    assert_equal_planes(image, sheet.rgb())


def test_to_tensorboard_scales_large_sheets_down() -> None:
    sheet, writer = make_sheet(size=(2500, 2000)), Writer()
    sheet.to_tensorboard(writer, "a")
    sheet.to_tensorboard(writer, "b", largest_px=10_000)
    sheet.to_tensorboard(writer, "c", largest_px=5_000_000)
    for (_, image, _, _), most_px in zip(writer.calls, (LOGGED_PX, 10_000, 5_000_000), strict=True):
        height, width, _ = image.shape
        assert most_px * 0.97 < height * width <= most_px
        assert width / height == close_to(0.8, OF_WHOLE_PX)
        assert image.dtype == np.uint8
    assert LOGGED_PX == 4_000_000


@over("writer", [None, "log", object(), types.SimpleNamespace(add_image=3)])
def test_to_tensorboard_refuses_what_is_no_writer(writer: object) -> None:
    kind = type(writer).__name__
    with pytest.raises(InputError, match=rf"^writer must have add_image, as a SummaryWriter has, got {kind}\.$"):
        make_sheet().to_tensorboard(writer, "layer4")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a run of a package `board` that has an Image, as wandb's has; its class lives in a part of the package."""
    board = types.ModuleType("board")
    board.Image = lambda image: ("image", image)

    class Run:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def log(self, record: dict[str, Any], step: int | None = None) -> None:
            self.calls.append((record, step))

    Run.__module__ = "board.sdk.run"
    monkeypatch.setitem(sys.modules, "board", board)
    return Run()


def test_to_wandb_logs_an_image_of_the_runs_own_package(run: Any) -> None:
    sheet = make_sheet()
    sheet.to_wandb(run, "layer4", 7)
    sheet.to_wandb(run, "layer4", largest_px=600)
    (record, step), (small, no_step) = run.calls
    assert (list(record), step, no_step) == (["layer4"], 7, None)
    kind, image = record["layer4"]
    assert kind == "image"
    assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())
    assert small["layer4"][1].size == (30, 20)


@over("what", [None, {}, object(), types.SimpleNamespace(log=print), Writer()])
def test_to_wandb_refuses_what_is_no_run(what: object) -> None:
    with pytest.raises(InputError, match=rf"^run must be what wandb\.init returns, got {type(what).__name__}\.$"):
        make_sheet().to_wandb(what, "layer4")


def test_to_wandb_refuses_a_run_without_log(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(run), "log")
    with pytest.raises(InputError, match=r"^run must be what wandb\.init returns, got Run\.$"):
        make_sheet().to_wandb(run, "layer4")


@pytest.mark.parametrize("largest_px", [0, -1, 1.5, "many"])
def test_loggers_refuse_a_limit_that_is_none(largest_px: Any, run: Any) -> None:
    message = r"^largest_px must be a whole number of at least 1, got "
    with pytest.raises(OptionError, match=message):
        make_sheet().to_tensorboard(Writer(), "layer4", largest_px=largest_px)
    with pytest.raises(OptionError, match=message):
        make_sheet().to_wandb(run, "layer4", largest_px=largest_px)
    assert run.calls == []


@over(
    ("manifest", "shown"),
    [
        ({}, "Sheet(0 tiles, 2 x 3 px)"),
        ({"layer": "conv1", "image": None, "tiles": [{}] * 1234}, "Sheet(conv1, 1,234 tiles, 2 x 3 px)"),
        ({"layer": "conv1", "image": "cat.jpg", "tiles": [{}]}, "Sheet(conv1, cat.jpg, 1 tiles, 2 x 3 px)"),
        ({"layer": "a\nb\x1b", "image": None}, r"Sheet(a\nb\x1b, 0 tiles, 2 x 3 px)"),
    ],
)
def test_repr_is_one_line(manifest: dict[str, Any], shown: str) -> None:
    colors = make_palette("gray", shows_background=False, shows_bad=False)
    sheet = Sheet(np.zeros((2, 3), np.uint8), colors, manifest)
    assert repr(sheet) == shown
    assert len(repr(Sheet(sheet.index, colors, {"image": "x" * 9999}))) < 150


def test_sheets_are_equal_if_they_are_one() -> None:
    colors = make_palette("gray", shows_background=False, shows_bad=False)
    first, second = (Sheet(np.zeros((2, 3), np.uint8), colors, {}) for _ in range(2))
    assert first == first
    assert first != second  # which was an error of numpy's
    assert len({first, second}) == 2


@pytest.mark.parametrize("path", [3, None, b"a.png"])
def test_save_to_what_is_no_path_is_refused(path: Any) -> None:
    sheet = Sheet(np.zeros((2, 3), np.uint8), make_palette("gray", shows_background=False, shows_bad=False), {})
    with pytest.raises(OptionError, match=r"^path must be a path, got "):
        sheet.save(path)
