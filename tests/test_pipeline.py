"""The main job on a real photo: every channel of ResNet-50's stages, tile by tile, against torch's interpolation."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_same_plane
from support.memory import needs_peaks
from support.plain import render, save_sheet, visualize
from support.processes import Python
from support.waiting import wait_until

import cnnviz_fast as cf
from cnnviz_fast import pipeline
from cnnviz_fast.cli import main as cli
from cnnviz_fast.formats import png

STAGES = {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}


def tiles_by_torch(maps: torch.Tensor, tile_px: int, levels: int) -> NDArray[np.uint8]:
    """Draw (C, H, W) as (C, tile_px, tile_px) uint8, with nothing of the package's own."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    values = torch.where(high > low, (maps - low) / (high - low), 0)
    tiles = torch.nn.functional.interpolate(values[None], size=(tile_px, tile_px), mode="bilinear", align_corners=False)
    return tiles[0].mul_(levels - 1).add_(0.5).to(torch.uint8).numpy()  # never negative, so this rounds down


@pytest.fixture(scope="module")
def model() -> cf.LoadedModel:
    return cf.load_model("resnet50", weights="none", seed=0)


@pytest.fixture(scope="module")
def activations(model: cf.LoadedModel, photo: Path) -> dict[str, torch.Tensor]:
    return cf.capture(model, cf.load_images(photo, model), list(STAGES))


@pytest.mark.parametrize("stage", STAGES)
def test_main_job_every_tile_equals_torch(stage: str, activations: dict[str, torch.Tensor]) -> None:
    maps = activations[stage][0]
    sheet = render(maps, tile=224)
    assert [tile["channel"] for tile in sheet.manifest["tiles"]] == list(range(STAGES[stage]))
    if stage == "layer4":
        assert sheet.index.shape == (10_080, 10_304)
    levels = sheet.manifest["palette"]["levels"]
    shown = np.zeros(sheet.index.shape, dtype=bool)
    # In portions, which stay in the caches.
    for first in range(0, len(maps), 16):
        portion = sheet.manifest["tiles"][first : first + 16]
        drawn = []
        for tile in portion:
            y0, x0, y1, x1 = tile["box"]
            drawn.append(sheet.index[y0:y1, x0:x1])
            shown[y0:y1, x0:x1] = True
        assert_same_plane(np.stack(drawn), tiles_by_torch(maps[first : first + 16], 224, levels))
    assert (sheet.index[~shown] == sheet.manifest["palette"]["background"]).all()


@pytest.mark.parametrize("layer", ["layer1", pytest.param("layer4", marks=pytest.mark.long)])
def test_main_job_file_holds_what_render_gives(
    layer: str, photo: Path, tmp_path: Path, activations: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["render", "resnet50", photo, "--weights", "none", "--layer", layer, "--plain", "--out", tmp_path]
    assert cli.main([*map(str, argv)]) == cli.DONE
    sheet = render(activations[layer][0])
    # The 104 megapixels of layer4 are above the 89 at which Pillow suspects a bomb.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(tmp_path / layer / f"{photo.stem}.png") as image:
        assert image.mode == "P"
        assert (np.asarray(image) == sheet.index).all()
        assert image.getpalette() == sheet.palette.ravel().tolist()
    manifest = json.loads((tmp_path / layer / f"{photo.stem}.json").read_text())
    assert manifest["tiles"] == sheet.manifest["tiles"]


def test_visualize_gives_the_sheets_it_writes(photo: Path, tmp_path: Path) -> None:
    model = cf.load_model("squeezenet1_1", weights="none")
    sheets = visualize(model, [photo, photo], ["features.0", "features.12"], tmp_path, tile=32)
    assert [sheet.manifest["layer"] for sheet in sheets] == ["features.0", "features.12"] * 2
    for layer, drawn in (("features.0", sheets[::2]), ("features.12", sheets[1::2])):
        paths = sorted((tmp_path / layer).glob("*.png"))
        assert all(re.fullmatch(rf"{photo.stem}-[0-9a-f]{{8}}", path.stem) for path in paths)
        assert len(paths) == 2
        for path, sheet in zip(paths, drawn, strict=True):
            with Image.open(path) as image:
                assert (np.asarray(image.convert("RGB")) == sheet.rgb()).all()
    assert visualize(model, photo, "features.0", tile=32)[0].index.shape == sheets[0].index.shape


def test_visualize_refuses_a_layer_that_cannot_be_drawn_before_a_file_is_made(photo: Path, tmp_path: Path) -> None:
    from cnnviz_fast.errors import ShapeError

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=16), torch.nn.Flatten(0))
    with pytest.raises(ShapeError, match=r"layer '1' puts out \(784,\); only outputs of 2 to 5 axes can be drawn"):
        visualize(model, photo, ["0", "1"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_visualize_layers_of_one_file_name_get_folders_of_their_own(photo: Path, tmp_path: Path) -> None:
    model = torch.nn.Sequential()
    model.add_module("a/b", torch.nn.Conv2d(3, 2, 3, stride=16))
    model.add_module("a-b", torch.nn.ReLU())
    assert [sheet.manifest["layer"] for sheet in visualize(model, photo, ["a/b", "a-b"], tmp_path)] == ["a/b", "a-b"]
    manifests = [json.loads(path.read_text()) for path in sorted(tmp_path.glob(f"a-b-????????/{photo.stem}.json"))]
    assert {manifest["layer"] for manifest in manifests} == {"a/b", "a-b"}
    assert len(list(tmp_path.iterdir())) == 2


def test_visualize_refuses_a_folder_of_the_older_layout(photo: Path, tmp_path: Path) -> None:
    from cnnviz_fast.errors import OptionError

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=16))
    (sheet,) = visualize(model, photo, "0")
    sheet.save(tmp_path / f"{photo.stem}_0.png")
    visualize(model, photo, "0", tmp_path)  # today's sheet, however it is called
    manifest = tmp_path / f"{photo.stem}_0.json"
    manifest.write_text(manifest.read_text().replace('"axes"', '"layout"'))  # as 0.1 called them
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        OptionError, match=rf"older layout, IMAGE_LAYER: it holds '{photo.stem}_0'\. Files are LAYER/IM"
    ):
        visualize(model, photo, "0", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_visualize_leaves_a_module_of_ones_own_as_it_was(photo: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.BatchNorm2d(4))
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    (sheet,) = visualize(module, photo, "1", tile=16)
    assert sheet.manifest["model"] == "Sequential"
    assert [child.training for child in (module, *module)] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_save_sheet_interrupted_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    target.write_bytes(b"old")
    code = f"""
import torch, cnnviz_fast as cf
maps = torch.rand(512, 7, 7)
while True:
    cf.save_sheet(maps, {str(target)!r}, plain=True, tile=2000)
"""
    with Python("-c", code) as process:
        wait_until(lambda: len(os.listdir(tmp_path)) > 1)  # it has begun to write
        process.send(signal.SIGINT)
        process.end()
        assert process.said.rstrip().endswith("KeyboardInterrupt")
    assert os.listdir(tmp_path) == ["sheet.png"]
    assert target.read_bytes() == b"old"


def test_save_sheet_failing_worker_leaves_no_file_and_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = png.encode_strip
    calls = itertools.count()

    def fail_later(*arguments: object) -> object:
        if next(calls) == 5:
            raise RuntimeError("planted")
        return encode(*arguments)

    monkeypatch.setattr(png, "encode_strip", fail_later)
    (tmp_path / "sheet.png").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="planted"):
        save_sheet(torch.rand(512, 7, 7), tmp_path / "sheet.png", threads=3, backend="numba")
    assert os.listdir(tmp_path) == ["sheet.png"]
    assert (tmp_path / "sheet.png").read_bytes() == b"old"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cnnviz")]


SAVED = """
import sys, torch, cnnviz_fast as cf
from support.memory import peak_bytes

path, backend, tile, overlay = sys.argv[1:]
maps, photo = torch.rand(2048, 7, 7), torch.zeros(3, 9, 9, dtype=torch.uint8) if overlay else None

def save(maps, tile):
    cf.save_sheet(maps, path, backend=backend, tile=tile, threads=2, overlay=photo)

save(maps[:8], 20)  # loads what it needs
print(peak_bytes(lambda: save(maps, int(tile))))
"""


@needs_peaks
@pytest.mark.parametrize(
    ("backend", "tile", "overlay"),
    # The whole sheet is 106 MB of entries, and as many of colours from 128 px on: torch lays those over a photo slowly.
    [("native", 224, ""), ("native", 224, "photo"), ("numba", 224, ""), ("torch", 128, "photo")],
)
def test_save_sheet_takes_little_memory_beyond_the_maps(backend: str, tile: int, overlay: str, tmp_path: Path) -> None:
    with Python("-c", SAVED, str(tmp_path / "sheet.png"), backend, str(tile), overlay) as process:
        assert process.end() == 0, process.said
        assert int(process.printed) < 64 * 2**20


@pytest.mark.parametrize("way", ["visualize", "command"])
def test_maps_of_an_image_are_gone_before_the_next_is_looked_at(
    way: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def spy(*arguments: Any) -> list[pipeline.LayerInput]:
        alive.append(sum(reference() is not None for reference in maps))
        found = original(*arguments)
        maps.extend(weakref.ref(layer.maps) for layer in found)
        return found

    original = pipeline.look_at
    monkeypatch.setattr(pipeline, "look_at", spy)
    layers = ["conv1", "layer1", "layer2", "layer3"]
    if way == "visualize":
        visualize(cf.load_model("resnet18", weights="none"), [photo] * 3, layers, tile=2)
    else:
        argv = ["render", "resnet18", photo, photo, photo, "--weights", "none", "--tile", 2, "--out", tmp_path]
        assert cli.main([*map(str, argv), "--layer", *layers]) == 0
    assert len(maps) == 12
    assert max(alive) <= 1  # the one drawn last


@pytest.mark.parametrize("goes_on", [False, True])
def test_planned_layers_goes_on_behind_an_image_that_fails(goes_on: bool, photo: Path, tmp_path: Path) -> None:
    from cnnviz_fast.errors import ImageError
    from cnnviz_fast.options.drawing import RenderOptions
    from cnnviz_fast.options.reading import AxesOptions

    (tmp_path / "bad.png").touch()
    images = pipeline.name_images([photo, tmp_path / "bad.png", photo])
    model = cf.load_model("squeezenet1_1", weights="none")
    failed, seen = [], []
    given = (model, images, ["features.0", "features.3"], 10**9, pipeline.Drawing(RenderOptions(), AxesOptions()))
    layers = pipeline.planned_layers(*given, failed=(lambda *why: failed.append(why)) if goes_on else None)
    with contextlib.nullcontext() if goes_on else pytest.raises(ImageError, match=r"bad\.png"):
        seen += ((layer.image.name, layer.name) for layer in layers)
    wanted = [(str(photo), "features.0"), (str(photo), "features.3")]
    if goes_on:
        assert seen == wanted * 2
        assert [image.name for image, _ in failed] == [str(tmp_path / "bad.png")]
        assert "is empty" in str(failed[0][1])
    else:
        assert (seen, failed) == (wanted, [])


def test_name_images_takes_the_last_part_of_paths_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "normalised", lambda path: path.replace("\\", "/"))
    Image.new("RGB", (4, 4)).save(tmp_path / "photos\\cat.png")
    (named,) = pipeline.name_images(tmp_path / "photos\\cat.png")
    assert (named.name, named.stem) == (f"{tmp_path}/photos/cat.png", "cat")
