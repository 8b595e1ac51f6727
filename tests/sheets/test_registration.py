"""Alignment by receptive field: the samples of maps lie at the centres of their fields in the input."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from support.command_line import error_of, run
from support.looping import case, over
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import OptionError
from cnnviz_fast.geometry import Lattice, sampling_positions
from cnnviz_fast.options.drawing import ALIGNMENTS, UPSAMPLINGS

SIZE = 64
UNPADDED = """
import torch
import torch.nn.functional as F
from torch import nn


class Reads(nn.Conv2d):
    # A convolution without padding that hands on what lies under the middle of its kernel.
    def __init__(self, channels, kernel, stride):
        super().__init__(channels, 1, kernel, stride, bias=False)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[..., kernel // 2, kernel // 2] = 1


class Cut(nn.Module):
    # Leaves out a border, of other widths on all sides.
    def forward(self, x):
        return x[:, :, 5:-2, 1:-4]


class Halved(nn.Module):
    def forward(self, x):
        return F.interpolate(x, scale_factor=0.5)


def make():
    return nn.Sequential(Reads(3, 7, 2), nn.ReLU(), Reads(1, 5, 2))


def cut():
    return nn.Sequential(Cut(), Reads(3, 3, 2), Halved())
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a file with networks that read pixels off the middle of their fields."""
    path = tmp_path / "unpadded.py"
    path.write_text(UNPADDED)
    return path


def impulse(y: int, x: int) -> torch.Tensor:
    """Return an image that is black but for one pixel."""
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[..., y, x] = 1
    return image


def brightest(sheet: cf.Sheet) -> tuple[int, ...]:
    """Return the (y, x) of the middle of the brightest pixels of a sheet of one tile."""
    return tuple(np.argwhere(sheet.index == sheet.index.max()).mean(0).astype(int))


@pytest.mark.parametrize("upsampling", UPSAMPLINGS[1:])
@over("stride", [1, 2, 3, 4, 7, 8, 16, 32])
def test_positions_of_padded_networks_are_those_of_left_bit_for_bit(stride: int, upsampling: str) -> None:
    for n in (1, 2, 5, 7, 14, 56):
        for size in (1, 3, 7, 56, 96, 100, 224, 999):
            for after in {n, min(n, size)}:
                on_input = Lattice(n * stride / stride, 0.0 / stride).shrunk(n, after)
                left = sampling_positions(after, size, "left", upsampling)
                field = sampling_positions(after, size, "field", upsampling, on_input)
                assert np.array_equal(left.index, field.index)
                assert np.array_equal(left.fraction, field.fraction)


def test_sheets_of_a_resnet_are_those_of_left() -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet18().eval()
    for layer in ("conv1", "layer1", "layer3", "layer4"):
        field = cf.receptive_field(model, layer, 224)
        side = 224 // int(field.stride[0])  # type: ignore[union-attr]
        maps = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
        for tile in (16, 56, 224):
            with case(layer, tile):
                drawn = cf.render(maps, tile=tile, align="field", field=field)
                assert np.array_equal(drawn.index, cf.render(maps, tile=tile, align="left").index)
                assert drawn.manifest["field"]["stride"] == list(field.stride)  # type: ignore[union-attr]


@pytest.mark.parametrize("make", ["make", "cut"])
def test_impulse_lies_where_it_was_planted_in_a_network_without_padding(file: Path, make: str) -> None:
    model = cf.load_model(f"{file}:{make}", weights="none")
    last = str(len(model.module) - 1)  # type: ignore[arg-type]
    field = cf.receptive_field(model, last, SIZE)
    assert isinstance(field, cf.ReceptiveField)
    unit = (4, 7)
    planted = tuple(int(start + step * at) for start, step, at in zip(field.offset, field.stride, unit, strict=True))
    maps = cf.capture(model, impulse(*planted), last)[last][0]
    assert maps[0, unit[0], unit[1]] == maps.max() == 3  # of three colours

    def drawn(align: str, **more: Any) -> tuple[int, ...]:
        sheet = cf.render(maps, tile=(SIZE, SIZE), align=align, plain=True, **more)  # type: ignore[arg-type]
        return brightest(sheet)

    assert drawn("field", field=field) == planted
    assert drawn("left") != planted
    assert drawn("center") != planted
    provenance = cf.Provenance(layer=last, field=field.to_json())
    assert drawn("field", provenance=provenance) == planted
    photo = np.zeros((SIZE, SIZE, 3), np.uint8)
    over = cf.render(
        maps, tile=(SIZE, SIZE), align="field", field=field, plain=True, colormap="gray", overlay=photo, alpha=0.5
    )
    blended = over.rgb().astype(int).sum(2)
    assert tuple(np.argwhere(blended == blended.max()).mean(0).astype(int)) == planted


def test_visualize_and_compare_know_the_field_of_the_model(file: Path) -> None:
    model = cf.load_model(f"{file}:make", weights="none")
    field = cf.receptive_field(model, "2", SIZE)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    (sheet,) = cf.visualize(model, image, "2", tile=(SIZE, SIZE), align="field", plain=True)
    maps = cf.capture(model, image, "2")["2"][0]
    assert np.array_equal(sheet.index, cf.render(maps, tile=(SIZE, SIZE), align="field", plain=True, field=field).index)
    both = cf.compare(maps, 2 * maps, field=field, align="field", plain=True, tile=(SIZE, SIZE))
    left = cf.compare(maps, 2 * maps, align="left", plain=True, tile=(SIZE, SIZE))
    assert not np.array_equal(both.difference.index, left.difference.index)
    other = cf.Provenance(field=field.to_json() | {"stride": [1.0, 1.0]})  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="must have one receptive field for a and b"):
        cf.compare(maps, maps, align="field", provenance_a=other, provenance_b=cf.Provenance(field=field.to_json()))  # type: ignore[union-attr]


def test_files_of_all_kinds_are_drawn_by_the_field(file: Path, tmp_path: Path) -> None:
    model = cf.load_model(f"{file}:make", weights="none")
    field = cf.receptive_field(model, "2", SIZE)
    maps = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1))
    drawn = cf.render(maps, tile=SIZE, align="field", field=field)
    path = cf.save_sheet(maps, tmp_path / "sheet.png", tile=SIZE, align="field", field=field)
    assert json.loads(path.with_suffix(".json").read_text())["field"] == json.loads(json.dumps(field.to_json()))  # type: ignore[union-attr]
    with Image.open(path) as written:
        assert np.array_equal(np.asarray(written), drawn.index)
    tiles = cf.save_tiles(maps, tmp_path / "tiles", tile=SIZE, align="field", field=field)
    with Image.open(tiles[1]) as written:
        y0, x0, y1, x1 = drawn.manifest["tiles"][1]["box"]
        shown = drawn.index[y0:y1, x0:x1]
        assert np.array_equal(np.asarray(written) == 0, shown == 0)


def test_batches_are_drawn_by_the_fields_of_their_layers(file: Path) -> None:
    model = cf.load_model(f"{file}:make", weights="none")
    fields = cf.receptive_field(model, ["0", "2"], SIZE)
    assert isinstance(fields, dict)
    seen = cf.capture(model, torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)), ["0", "2"])
    look: dict[str, Any] = {"tile": SIZE, "align": "field", "plain": True}
    expected = [cf.render(sample, field=fields[layer], **look).index for layer, maps in seen.items() for sample in maps]
    assert not np.array_equal(expected[0], cf.render(seen["0"][0], tile=SIZE, plain=True).index)
    several = [sheet.index for sheet in cf.render_batch(seen, field=fields, **look)]
    one = [sheet.index for layer in seen for sheet in cf.render_batch(seen[layer], field=fields[layer], **look)]
    record = [sheet.index for sheet in cf.render_batch(seen["0"], field=fields["0"].to_json(), **look)]
    assert all(map(np.array_equal, several, expected))
    assert all(map(np.array_equal, one, expected))
    assert all(map(np.array_equal, record, expected))
    with pytest.raises(OptionError, match="needs the receptive field of the maps, got maps without"):
        list(cf.render_batch(seen, field={"0": fields["0"]}, **look))


def test_drawings_without_a_field_do_not_show_the_choice() -> None:
    shown = inspect.signature(cf.render_index).parameters
    for name, values in (("align", ALIGNMENTS), ("upsampling", UPSAMPLINGS)):
        for value in values:
            if value in get_args(shown[name].annotation):
                cf.render_index(torch.rand(1, 4, 4), **{name: value})
            else:
                with pytest.raises(OptionError, match=value):
                    cf.render_index(torch.rand(1, 4, 4), **{name: value})


def test_run_keeps_fields_in_atlases_which_are_drawn_by_them(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    spec = [f"{file}:make", str(tmp_path / "a.png"), "--layer", "2", "--size", str(SIZE), "--tile", str(SIZE)]
    assert run("run", *spec, "--save", "atlases,sheets", "--align", "field", "--out", str(tmp_path / "run")) == cli.DONE
    assert run("render", *spec, "--align", "field", "--out", str(tmp_path / "one")) == cli.DONE
    assert run("render", *spec, "--align", "left", "--out", str(tmp_path / "left")) == cli.DONE
    atlas = ["atlas", str(tmp_path / "run" / "2" / "a.atlas"), "--tile", str(SIZE), "--out", str(tmp_path / "drawn")]
    assert run(*atlas, "--align", "field") == cli.DONE
    pixels = {}
    for kind in ("run", "one", "left", "drawn"):
        with Image.open(tmp_path / kind / "2" / "a.png") as sheet:
            pixels[kind] = np.asarray(sheet.convert("RGB")).astype(int)
    assert np.array_equal(pixels["run"], pixels["one"])
    assert np.abs(pixels["drawn"] - pixels["one"]).max() < np.abs(pixels["left"] - pixels["one"]).max()


def test_atlas_without_a_field_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cf.save_atlas(torch.rand(2, 4, 4), tmp_path / "a.atlas")
    assert run("atlas", str(tmp_path / "a.atlas"), "--align", "field", "--out", str(tmp_path / "out")) == cli.USAGE
    said = error_of(capsys)
    assert "needs the receptive field of the maps, got maps without" in said
    assert "Take align 'center', or 'left'" in said


def test_layer_that_sees_the_whole_image_says_what_to_use(tmp_path: Path) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return F.relu(y * y.mean((2, 3), keepdim=True))

    with pytest.raises(OptionError) as caught:
        cf.visualize(Gated(), torch.rand(1, 3, 32, 32), "output", align="field")
    assert "maps of 'output' whose units may see all of it (mean over rows and columns)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_field_that_is_none_is_named() -> None:
    maps = torch.rand(2, 4, 4)
    with pytest.raises(OptionError, match="Pass field=receptive_field"):
        cf.render(maps, align="field")
    with pytest.raises(OptionError, match="field must be a ReceptiveField, got 3"):
        cf.render(maps, align="field", field=3)
    for bad in (
        {},
        {"whole": True},
        {"stride": [1, 1], "offset": [0, 0], "input_size": None},
        {"stride": [1, 1, 1], "offset": [0, 0], "input_size": [8, 8]},
        {"stride": [1e-320, 1], "offset": [0, 0], "input_size": [8, 8]},
        {"stride": "ab", "offset": [0, 0], "input_size": [8, 8]},
    ):
        with pytest.raises(OptionError, match="field must tell stride, offset and input_size"):
            cf.render(maps, align="field", field=bad)
    with pytest.raises(OptionError, match="belongs to render"):
        cf.render_index(maps, align="field")


def test_vectors_are_bars_and_lie_nowhere() -> None:
    vector = torch.rand(8)
    assert np.array_equal(cf.render(vector, align="field").index, cf.render(vector).index)


def test_signals_are_drawn_over_their_whole_height() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 5, stride=2))
    field = cf.receptive_field(model, "0", images=torch.zeros(1, 1, 65))
    maps = torch.rand(2, 31)
    assert cf.render(maps, align="field", field=field).index.shape == cf.render(maps).index.shape
