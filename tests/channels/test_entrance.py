"""Maps as callers have them: what is masked takes no part, what is quantised is opened, what is nested is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import assert_equal_planes, assert_same_plane
from support.cases import noise
from support.looping import over
from support.plain import compare, render, render_batch, save_sheet, save_tiles

import cnnviz_fast as cf
from cnnviz_fast.errors import DTypeError, InputError, OptionError, ShapeError

MASKED = np.ma.masked_array([[[0.0, 1.0], [2.0, 1e6]]], mask=[[[0, 0], [0, 1]]])
WAYS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda maps: maps,
    "integers": lambda maps: maps.astype(np.int64),
    "batch of one": lambda maps: maps[None],
    "list of maps": lambda maps: [maps[0]],
    "turned": lambda maps: maps[:, ::-1],
    "strict": lambda maps: np.ma.masked_array(maps.data, mask=maps.mask, hard_mask=True),
}


@over("way", WAYS)
def test_masked_values_are_bad_and_take_no_part(way: str) -> None:
    sheet = render(WAYS[way](MASKED), tile=4)
    (tile,) = sheet.manifest["tiles"]
    assert (tile["min"], tile["max"], tile["nan"]) == (0, 2, 1)
    assert (sheet.index == sheet.colors.bad).any()
    assert float(MASKED.data.max()) == 1e6  # nothing was written into it


def test_masked_values_take_no_part_in_whatever_takes_arrays(tmp_path: Path) -> None:
    report = cf.layer_report(MASKED)
    assert (report.max, report.nonfinite) == (2, [0])
    atlas = cf.read_atlas(cf.save_atlas(MASKED, tmp_path / "a.atlas"))
    assert bool(atlas.maps[0, 1, 1].isnan())
    assert compare(MASKED, MASKED.filled(0), tile=4).manifest["channels"][0]["lost"] == 1


def test_array_without_a_masked_value_is_drawn_as_ever() -> None:
    maps = noise(3, 4, 5).numpy()
    drawn = [render(each, tile=9) for each in (maps, np.ma.masked_array(maps), list(maps))]
    assert_equal_planes(drawn[0].index, drawn[1].index)
    assert_equal_planes(drawn[0].index, drawn[2].index)


@pytest.mark.filterwarnings("ignore:torch.quantize_per")  # which say what to use one day
def test_quantised_maps_are_drawn_as_what_they_stand_for() -> None:
    maps = noise(3, 4, 5)
    quantised = torch.quantize_per_tensor(maps, 0.05, 10, torch.quint8)
    by_channel = torch.quantize_per_channel(maps, torch.full((3,), 0.05), torch.zeros(3), 0, torch.qint8)
    for each in (quantised, by_channel):
        assert_equal_planes(render(each, tile=9).index, render(each.dequantize(), tile=9).index)
    assert_equal_planes(render([quantised] * 2, tile=9).index, render([quantised.dequantize()] * 2, tile=9).index)
    for call in (lambda: list(render_batch(quantised[None])), lambda: cf.render_index(quantised)):
        with pytest.raises(DTypeError, match=r"^maps must hold plain numbers, got torch\.quint8\. Pass maps\.dequ"):
            call()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("ndim", [2, 3])
def test_nested_tensors_are_refused(layout: torch.layout, ndim: int, tmp_path: Path) -> None:
    parts = [noise(*(size, 4, 5)[:ndim]) for size in (2, 3)]
    nested = torch.nested.as_nested_tensor(parts, layout=layout)
    for call in (
        lambda: render(nested), lambda: save_sheet(nested, tmp_path / "a.png"),
        lambda: compare(nested, nested),
        lambda: cf.layer_report(nested), lambda: list(render_batch(nested)), lambda: cf.render_index(nested),
        lambda: cf.LayerStatistics(4).update(nested), lambda: cf.save_atlas(nested, tmp_path / "a.atlas"),
        lambda: save_tiles(nested, tmp_path),
    ):  # fmt: skip
        with pytest.raises(DTypeError, match=r"^maps must be one tensor of one size, got a nested tensor\."):
            call()


def test_view_whose_signs_are_turned_is_drawn_as_its_values() -> None:
    maps = noise(3, 4, 5)
    turned = torch.complex(maps, -maps).conj().imag
    assert turned.is_neg()
    assert_same_plane(render(turned, tile=9).index, render(maps, tile=9).index)
    (sheet,) = render_batch(turned[None], tile=9)
    assert_same_plane(sheet.index, render(maps, tile=9).index)


def test_parameters_and_weights_that_are_trained_are_drawn() -> None:
    maps = torch.nn.Parameter(noise(1, 3, 4, 5))
    (sheet,) = render_batch(maps, tile=9)
    assert_same_plane(sheet.index, render(maps, tile=9).index)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrix_is_drawn_as_the_array_that_it_holds() -> None:
    values = [[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]
    assert_equal_planes(render(np.matrix(values)).index, render(np.array(values)).index)


@over("axes", [None, 5, torch.zeros(3), "n", "chwchw"])
def test_axes_that_are_none_are_refused(axes: Any) -> None:
    with pytest.raises(OptionError, match=r"^axes must be one of auto, chw, hwc, "):
        render(noise(3, 4, 5), axes=axes)


@pytest.mark.parametrize("provenance", ["resnet18", {"model": "resnet18"}, 5])
def test_provenance_that_is_none_is_refused(provenance: Any) -> None:
    with pytest.raises(InputError, match=r"^provenance must be a Provenance, got "):
        render(noise(3, 4, 5), provenance=provenance)


@over("maps", [None, 5, [1, 2], "text", [("a", noise(1, 2, 3, 3), 3)]])
def test_render_batch_of_what_is_no_batch_is_refused(maps: Any) -> None:
    with pytest.raises(DTypeError, match=r"^maps must be a tensor, a mapping or pairs of name and maps, got "):
        list(render_batch(maps))


MAPS = noise(4, 6, 9)
HANDED: dict[str, tuple[Any, dict[str, Any]]] = {
    "batch of one": (MAPS[None], {}),
    "array": (MAPS.numpy(), {}),
    "list": (list(MAPS), {}),
    "list of maps": ([MAPS[:2], MAPS[2:]], {}),
    "channels last": (MAPS.permute(1, 2, 0), {"axes": "hwc"}),
    "channels last in a batch of one": (MAPS.permute(1, 2, 0)[None].numpy(), {"axes": "nhwc"}),
    "volume": (torch.stack([-MAPS, MAPS], dim=1), {"planes": 1}),
    "volume with channels last": (torch.stack([-MAPS, MAPS]).permute(0, 2, 3, 1), {"axes": "dhwc", "planes": 1}),
}


def _functions(folder: Path) -> dict[str, Callable[..., Any]]:
    """Return name -> what a public function makes of maps, as an array, for each that takes those of one sample."""

    def tiles(maps: Any, **how: Any) -> Any:
        return np.stack([np.load(file) for file in save_tiles(maps, folder, name="{channel}.npy", tile=8, **how)])

    return {
        "render": lambda maps, **how: render(maps, tile=8, **how).index,
        "save_sheet": lambda maps, **how: np.load(save_sheet(maps, folder / "sheet.npy", tile=8, **how)),
        "save_tiles": tiles,
        "compare": lambda maps, **how: compare(maps, maps, tile=8, **how).pair.index,
        "save_atlas": lambda maps, **how: cf.read_atlas(cf.save_atlas(maps, folder / "a.atlas", **how)).index,
        "layer_report": lambda maps, **how: np.frombuffer(repr(cf.layer_report(maps, **how)).encode(), np.uint8),
    }


@pytest.mark.parametrize("name", ["render", "save_sheet", "save_tiles", "compare", "save_atlas", "layer_report"])
@over("kind", HANDED)
def test_maps_are_read_alike_by_every_function(name: str, kind: str, tmp_path: Path) -> None:
    made = _functions(tmp_path)[name]
    handed, how = HANDED[kind]
    assert_equal_planes(made(handed, **how), made(MAPS))


@pytest.mark.parametrize("name", ["render", "save_sheet", "save_tiles", "compare", "save_atlas", "layer_report"])
def test_what_looks_like_an_image_is_refused_by_every_function(name: str, tmp_path: Path) -> None:
    made = _functions(tmp_path)[name]
    photo = np.random.default_rng(0).random((20, 30, 3))
    for handed in (photo, photo[None], torch.from_numpy(photo)):
        with pytest.raises(ShapeError, match=r"^maps must have shape \(C, H, W\), got .*, which looks like an image"):
            made(handed)
    assert_equal_planes(made(photo, axes="hwc"), made(photo.transpose(2, 0, 1)))
    made(photo, axes="chw")
    for handed in (noise(2, 4, 6, 9), torch.zeros(2, 2, 4, 6, 9), noise(3, 0, 2)):
        with pytest.raises(ShapeError, match=r"^maps must have (shape|at least)"):
            made(handed)


@pytest.mark.parametrize("name", ["render", "save_sheet", "compare", "save_atlas", "layer_report"])
def test_signals_and_vectors_are_read_alike(name: str, tmp_path: Path) -> None:
    made = _functions(tmp_path)[name]
    signal, vector = noise(5, 40), noise(7)
    assert_equal_planes(made(signal.T, axes="lc"), made(signal))
    for handed, how in ((vector.tolist(), {}), (vector[None], {"axes": "nc"}), (vector[:, None, None], {})):
        assert_equal_planes(made(handed, **how), made(vector))


def test_compared_signals_are_rows() -> None:
    signal = noise(5, 700)
    sheets = compare(signal, signal.flip(1))
    assert sheets.difference.index.shape == render(signal).index.shape == (5 * 8, 700)


def _batches() -> dict[str, tuple[torch.Tensor, dict[str, Any]]]:
    batch = noise(2, 4, 6, 9)
    return {
        "channels last": (batch.permute(0, 2, 3, 1), {"axes": "hwc"}),
        "channels last, named with n": (batch.permute(0, 2, 3, 1), {"axes": "nhwc"}),
        "volumes": (torch.stack([-batch, batch], dim=2), {"planes": 1}),
        "volumes with channels last": (
            torch.stack([-batch, batch], 1).permute(0, 1, 3, 4, 2),
            {"axes": "dhwc", "planes": 1},
        ),
    }


@over("kind", _batches())
def test_batches_are_read_alike(kind: str) -> None:
    batch = noise(2, 4, 6, 9)
    handed, how = _batches()[kind]
    sheets = list(render_batch(handed, tile=8, **how))
    for sheet, expected in zip(sheets, render_batch(batch, tile=8), strict=True):
        assert_equal_planes(sheet.index, expected.index)
    assert sheets[0].manifest["plane"] == how.get("planes")
    expected_planes = cf.render_index(batch, tile=8)
    assert_equal_planes(cf.render_index(handed, tile=8, **how), expected_planes)
    assert_equal_planes(cf.render_index(handed[1], tile=8, **how), expected_planes[1])


def test_signals_in_a_batch_are_rows_each() -> None:
    batch = noise(2, 5, 600)
    planes = cf.render_index(batch, axes="cl", levels=254, background=254, bad=255)
    for handed, axes in ((batch, "ncl"), (batch.mT, "lc")):
        sheets = list(render_batch({"conv": handed}, axes=axes))
        assert [sheet.manifest["layer"] for sheet in sheets] == ["conv", "conv"]
        for sheet, sample, plane in zip(sheets, batch, planes, strict=True):
            assert_equal_planes(sheet.index, render(sample).index)
            assert sheet.index.shape == tuple(plane.shape)


def test_batches_that_look_like_images_are_refused() -> None:
    photos = torch.rand(2, 20, 30, 3)
    with pytest.raises(ShapeError, match=r"^maps of x must have shape \(C, H, W\), got .*, which looks like an image"):
        list(render_batch({"x": photos}))
    for handed in (photos, photos[0]):
        with pytest.raises(ShapeError, match=r"^maps must have shape \(C, H, W\), got .*, which looks like an image"):
            cf.render_index(handed)
    assert cf.render_index(photos, axes="chw", tile=4).shape[0] == 2
    with pytest.raises(ShapeError, match=r"^maps must have shape \(C, L\), or \(N, C, L\) for a batch, got \(2, 20"):
        cf.render_index(photos, axes="cl")
    with pytest.raises(ShapeError, match=r"^maps must have shape \(N, H, W, C\), got \(20, 30, 3\)\. For one sample"):
        list(render_batch(photos[0], axes="hwc"))


@pytest.mark.parametrize("draw", [render, cf.layer_report, cf.save_atlas, compare, save_sheet])
def test_functions_that_draw_refuse_tensors_inside_transforms_of_torch_func(draw: Any, tmp_path: Path) -> None:
    others = {cf.save_atlas: (tmp_path / "a.atlas",), save_sheet: (tmp_path / "a.png",)}
    maps = torch.rand(2, 3, 4, 4)

    def inside(each: torch.Tensor) -> torch.Tensor:
        draw(each, *((each,) if draw is compare else others.get(draw, ())))
        return each.sum()

    for transformed in (torch.vmap(inside), torch.func.grad(lambda x: inside(x[0]))):
        with pytest.raises(DTypeError, match=r"must hold values that can be read, got a tensor inside vmap, grad"):
            transformed(maps)
