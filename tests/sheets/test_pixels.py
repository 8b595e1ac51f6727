"""Sheets and files of maps on a device that works late: the same bytes as on the CPU, and no remains of a fault."""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import A_LEVEL, assert_close, assert_same_colours
from support.fake_device import DEVICE_ERROR, FakeDevice, device_copies
from support.plain import compare, render, render_batch, save_sheet, save_tiles
from support.waiting import PATIENCE_S, watch_waiting

import cnnviz_fast as cf
from cnnviz_fast.errors import KernelError, WriteError
from cnnviz_fast.geometry import Strip
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.sheets import device_bands as bands
from cnnviz_fast.sheets import native_file
from cnnviz_fast.sheets import pixels as drawing
from cnnviz_fast.sheets.overlay import read_overlay
from cnnviz_fast.sheets.plan import Plan, plan_sheet

if TYPE_CHECKING:
    from cnnviz_fast.palette import Palette

MAIN_PATH = importlib.import_module("cnnviz_fast.sheets.render")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"tile": 40},
    "shrunk": {"scale": 0.6, "normalize": "layer"},
    "with gaps": {"tile": 36, "gap": 3, "margin": 5, "background": "white", "colormap": "gray"},
    "annotated": {"tile": 40, "label": True, "title": "maps", "colorbar": True, "gap": 2},
    "reduced": {"tile": 64, "reduce": "sum,max", "beside": True, "sort": True},
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """Make tensors of the CPU look as if they lay on a device, and fetch sheets in small bands."""
    fake = FakeDevice()
    draw_tiles = Plan.draw_tiles

    def drawn_on_a_stream(plan: Plan, strip: Strip, out: Any) -> None:
        fake.active_stream()
        draw_tiles(plan, strip, out)

    monkeypatch.setattr(Plan, "draw_tiles", drawn_on_a_stream)
    monkeypatch.setattr(drawing, "device_at", lambda _: fake)
    monkeypatch.setattr(native_file, "takes", lambda plan: False)  # which draws what the CPU can read
    monkeypatch.setattr(drawing, "WHOLE_STRIP_PX", 1 << 12)
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 14)
    monkeypatch.setattr("cnnviz_fast.geometry.SMALLEST_STRIP_PX", 1 << 12)
    return fake


@pytest.fixture
def image() -> np.ndarray:
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
    save_sheet(maps, folder / "sheet.png", overlay=overlay, **options)
    render(maps, overlay=overlay, **options).save(folder / "rendered.png")
    if "label" not in options and "gap" not in options:
        save_tiles(maps, folder / "tiles", overlay=overlay, **options)
        for path in (folder / "tiles").iterdir():
            path.rename(folder / f"tile {path.name}")
        (folder / "tiles").rmdir()
    return files_in(folder)


@pytest.mark.parametrize(
    ("name", "over", "threads"),
    [  # by default all pairs: each option with and without an overlay, on one thread and on several
        pytest.param(name, over, threads, marks=() if over == (n % 2 == (threads == 1)) else pytest.mark.long)
        for (n, name), over, threads in itertools.product(enumerate(OPTIONS), (False, True), (1, 3))
    ],
)
def test_what_is_fetched_is_byte_for_byte_what_is_drawn_on_the_host(
    name: str, over: bool, threads: int, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS[name], "threads": threads, "backend": "torch"}
    overlay = image if over else None
    monkeypatch.setattr("cnnviz_fast.geometry.SMALLEST_STRIP_PX", 1 << 12)
    expected = made(tmp_path / "host", overlay, **options)
    fake = FakeDevice()
    monkeypatch.setattr(drawing, "device_at", lambda _: fake)
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 14)
    assert made(tmp_path / "device", overlay, **options) == expected
    assert len(device_copies(fake)) >= 3
    assert not fake.pending


def test_a_lost_device_leaves_no_half_file(device: FakeDevice, tmp_path: Path) -> None:
    save_sheet(maps_of(), tmp_path / "first.png", tile=40, backend="torch")
    device.lost_at_copy = len(device_copies(device)) + 2
    with pytest.raises(KernelError, match="was lost"):
        save_sheet(maps_of(), tmp_path / "second.png", tile=40, backend="torch")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "first.png"]
    with Image.open(tmp_path / "first.png") as file:
        file.load()


def test_a_lost_device_leaves_the_single_files_that_were_finished(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnviz_fast.formats.png.STRIP_PX", 8 * 100 * 78)  # eight tiles a batch
    device.lost_at_copy = 3
    with pytest.raises(KernelError, match="was lost"):
        save_tiles(maps_of(64), tmp_path, tile=100, threads=1, backend="torch")
    left = list(tmp_path.iterdir())
    assert len(left) == 3 * 8
    for path in left:
        with Image.open(path) as file:
            file.load()


def test_sheets_in_memory_arrive_in_bands_and_keep_no_staging_buffer(device: FakeDevice) -> None:
    sheet = render(maps_of(), tile=40, backend="torch")
    assert len(device.stagings) == bands.STAGING_BUFFERS
    for staging in device.stagings:
        assert staging.numel() <= bands.BAND_BYTES < sheet.index.size
        assert not np.shares_memory(staging.numpy(), sheet.index)


# Faults: wherever a device reports one, an error of this package is raised.

FAULTS = [
    DEVICE_ERROR("CUDA error: an illegal memory access was encountered\nmore of it"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
]
CALLS: dict[str, Callable[[torch.Tensor, Path], object]] = {
    "render": lambda maps, _: render(maps),
    "save_sheet": lambda maps, folder: save_sheet(maps, folder / "sheet.png"),
    "save_tiles": lambda maps, folder: save_tiles(maps, folder),
    "render_batch": lambda maps, _: list(render_batch(maps[None])),
    "compare": lambda maps, _: compare(maps, maps),
}


def raises(error: Exception) -> Callable[..., Any]:
    def work(*_: Any, **__: Any) -> Any:
        raise error

    return work


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_a_fault_while_measuring_is_reported(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sheets.samples", "channels.selection"):
        monkeypatch.setattr(f"cnnviz_fast.{module}.channel_statistics", raises(error))
    with pytest.raises(KernelError, match=r"^cpu was lost while it worked: .* an illegal memory access was"):
        CALLS[name](maps_of(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fault_while_changes_are_measured_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("cnnviz_fast.sheets.comparison"), "measure_change", raises(FAULTS[0]))
    with pytest.raises(KernelError, match="was lost"):
        compare(maps_of(), maps_of())


@pytest.mark.parametrize("name", CALLS)
def test_memory_that_runs_out_while_measuring_is_reported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sheets.samples", "channels.selection"):
        full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore of it")
        monkeypatch.setattr(f"cnnviz_fast.{module}.channel_statistics", raises(full))
    with pytest.raises(
        MemoryError, match=r"^cpu has too little memory: CUDA out of memory\. Tried to allocate 2 GiB\.$"
    ):
        CALLS[name](maps_of(), tmp_path)


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_a_fault_while_drawing_is_reported(
    name: str, error: Exception, device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "draw_tiles", raises(error))
    with pytest.raises(KernelError, match=r"^cpu was lost while it worked: .* an illegal memory access was"):
        CALLS[name](maps_of(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [save_sheet, save_tiles, render], ids=["save_sheet", "save_tiles", "render"])
def test_an_error_over_the_first_strip_ends_workers_that_wait_for_later_bands(
    save: Callable[..., Any], device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = watch_waiting(monkeypatch, bands)

    def late(plan: Plan, strip: Strip, out: Any) -> None:
        if strip.start == 0:
            for _ in range(5):  # the other workers, for bands that are queued once this one is given back
                assert waiting.acquire(timeout=PATIENCE_S)
            raise ZeroDivisionError("in the letters")

    monkeypatch.setattr(Plan, "annotate", late)
    monkeypatch.setattr("cnnviz_fast.formats.png.STRIP_PX", 1 << 12)
    monkeypatch.setattr(bands, "BAND_BYTES", 1)  # one strip a band
    where = [] if save is render else [tmp_path / "to.png"]
    caught: list[BaseException] = []

    def work() -> None:
        try:
            save(maps_of(40), *where, tile=40, threads=6, backend="torch")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert [type(error) for error in caught] == [ZeroDivisionError]
    assert not device.pending


def test_an_error_of_the_disk_is_not_hidden_by_a_device_that_is_lost_too(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        device.lost_at_copy = 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cnnviz_fast.formats.png.encode_strip", full)
    with pytest.raises(WriteError, match="No space left"):
        save_sheet(maps_of(), tmp_path / "sheet.png", tile=40, backend="torch", threads=1)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing_pending(
    device: FakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnviz_fast.formats.png.encode_strip", raises(OSError(28, "No space left on device")))
    with pytest.raises(WriteError, match="No space left"):
        save_sheet(maps_of(), tmp_path / "sheet.png", tile=40, backend="torch", threads=1)
    assert len(device_copies(device)) > 1
    assert not device.pending


def test_a_lost_device_is_reported_by_render(device: FakeDevice) -> None:
    device.lost_at_copy = 1
    with pytest.raises(KernelError, match="was lost"):
        render(maps_of(), tile=40, backend="torch")


def test_a_device_with_little_memory_draws_the_same(device: FakeDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.most_bytes = 1 << 13
    scarce = render(maps_of(), tile=40, backend="torch")
    assert ("give back",) in device.log
    monkeypatch.undo()
    assert np.array_equal(scarce.index, render(maps_of(), tile=40, backend="torch").index)


def test_draw_on_device_is_the_plane_of_the_sheet() -> None:
    options = RenderOptions(plain=True, tile=36, gap=3, margin=5, backend="torch")
    index = drawing.draw_on_device(plan_sheet(maps_of(), options, cf.Provenance()))
    assert index is not None
    assert np.array_equal(index.numpy(), render(maps_of(), **vars(options)).index)


@pytest.mark.parametrize(
    ("options", "encoded_there"), [({}, True), ({"title": "maps"}, False), ({"overlay": True}, False)]
)
def test_a_jpeg_of_a_plain_sheet_on_cuda_is_encoded_there(
    options: dict[str, Any], encoded_there: bool, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def encode(path: Path, index: torch.Tensor, palette: Palette) -> None:
        given.append(index)

    asked: list[str] = []
    monkeypatch.setattr("cnnviz_fast.formats.device_jpeg.takes", lambda height, width, device: not asked.append(device))
    monkeypatch.setattr("cnnviz_fast.formats.picture.write_device_jpeg", encode)
    backdrop = read_overlay(image, None) if options.get("overlay") else None
    options = {name: value for name, value in options.items() if name != "overlay"}
    plan = plan_sheet(
        maps_of(), RenderOptions(plain=True, tile=36, backend="torch", **options), cf.Provenance(), backdrop
    )
    plan = replace(plan, device=torch.device("cuda:1"))
    monkeypatch.setattr(drawing, "device_at", lambda _: FakeDevice())
    monkeypatch.setattr(MAIN_PATH, "draw_on_device", lambda plan: torch.zeros(2, 2, dtype=torch.uint8))
    MAIN_PATH.write_sheet(plan, tmp_path / "sheet.jpg")
    assert len(given) == encoded_there
    assert asked == ["cuda:1"] * encoded_there
    assert (tmp_path / "sheet.json").exists()


def jpeg_plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return the plan of a sheet whose JPEG could be encoded on a device; the device is the CPU."""
    monkeypatch.setattr("cnnviz_fast.formats.device_jpeg.takes", lambda height, width, device: True)
    there = FakeDevice()
    for module in (drawing, MAIN_PATH):
        monkeypatch.setattr(module, "device_at", lambda _: there)
    plan = plan_sheet(maps_of(), RenderOptions(plain=True, tile=36, backend="torch"), cf.Provenance())
    return replace(plan, device=torch.device("cuda"))


def test_a_jpeg_of_a_sheet_that_does_not_fit_on_the_device_is_encoded_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = jpeg_plan(monkeypatch)
    monkeypatch.setattr(torch, "empty", raises(torch.OutOfMemoryError("CUDA out of memory.")))
    assert drawing.draw_on_device(plan) is None
    monkeypatch.undo()
    plan = jpeg_plan(monkeypatch)
    monkeypatch.setattr(MAIN_PATH, "draw_on_device", lambda plan: None)
    MAIN_PATH.write_picture(plan, tmp_path / "sheet.jpg")
    save_sheet(maps_of(), tmp_path / "host.jpg", tile=36, backend="torch")
    assert (tmp_path / "sheet.jpg").read_bytes() == (tmp_path / "host.jpg").read_bytes()


@pytest.mark.parametrize("place", ["draw_on_device", "formats.write_device_jpeg", "device_jpeg.takes"])
@pytest.mark.parametrize("error", FAULTS)
def test_a_fault_while_a_jpeg_is_made_is_reported(
    place: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = jpeg_plan(monkeypatch)
    monkeypatch.setattr(MAIN_PATH, "draw_on_device", lambda plan: torch.zeros(2, 2, dtype=torch.uint8))
    *_, name = place.split(".")
    monkeypatch.setattr(MAIN_PATH if name == place else getattr(MAIN_PATH, place.split(".")[0]), name, raises(error))
    with pytest.raises(KernelError, match="was lost"):
        MAIN_PATH.write_picture(plan, tmp_path / "sheet.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_files_of_maps_on_cuda_show_what_those_of_the_cpu_show(
    name: str, over: bool, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 1 << 14)
    overlay = image if over else None
    sheets = [tmp_path / "cpu.png", tmp_path / "cuda.png"]
    for path, maps in zip(sheets, (maps_of(), maps_of().cuda()), strict=True):
        save_sheet(maps, path, overlay=overlay, **OPTIONS[name])
    here, there = (np.asarray(Image.open(path).convert("RGB")) for path in sheets)
    assert_same_colours(there, here)


@pytest.mark.gpu
def test_sheets_of_a_stream_of_the_callers_own_wait_for_it() -> None:
    maps = maps_of()
    expected = render(maps, tile=40).index
    own = torch.cuda.Stream()
    with torch.cuda.stream(own):
        torch.cuda._sleep(50_000_000)
        late = torch.zeros_like(maps, device="cuda").copy_(maps.pin_memory(), non_blocking=True)
        drawn = render(late, tile=40).index
    assert_close(drawn, expected, A_LEVEL)
