"""Comparisons: ranges, colours and figures of a pair against numpy; what is not finite, equal, or of another shape."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import (
    A_LEVEL,
    FLOAT32_RATIO,
    ROUNDED,
    TWO_LEVELS,
    assert_close,
    assert_equal_planes,
    assert_same_floats,
    assert_same_plane,
    assert_same_statistics,
    close_to,
)
from support.cases import INF, LARGEST, NAN, SMALLEST, noise
from support.plain import compare, render

import cnnviz_fast as cf
from cnnviz_fast.errors import DTypeError, InputError, OptionError, ShapeError
from cnnviz_fast.options.drawing import SINGLE_SHEETS, RenderOptions
from cnnviz_fast.sheets.look import SCREEN_PX

MODULE = importlib.import_module("cnnviz_fast.sheets.comparison")  # the package's own `compare` is the function
Floats = NDArray[np.floating[Any]]
ONE_TO_ONE = {"tile": (5, 7)}


@pytest.fixture
def other(maps: torch.Tensor) -> torch.Tensor:
    """Return maps of the same shape whose values go further on both sides in some channels."""
    return maps * torch.linspace(0.5, 2, 6)[:, None, None] + 0.3


def tiles_of(sheet: cf.Sheet, of: str | None = None) -> NDArray[np.uint8]:
    """Cut out all tiles, or those of a or of b, by their boxes in the manifest."""
    boxes = [tile["box"] for tile in sheet.manifest["tiles"] if of is None or tile["of"] == of]
    return np.stack([sheet.index[y0:y1, x0:x1] for y0, x0, y1, x1 in boxes])


def joint_range(a: Floats, b: Floats, normalize: str) -> tuple[Floats, Floats]:
    """Work out the range of each channel from the values of both, by numpy."""
    both = np.concatenate([a.reshape(len(a), -1), b.reshape(len(b), -1)], axis=1)
    both = np.where(np.isfinite(both), both, np.nan)
    if normalize == "percentile":
        low, high = np.nanpercentile(both, [10, 90], axis=1)
        return low, high
    low, high = np.nanmin(both, axis=1), np.nanmax(both, axis=1)
    if normalize == "layer":
        return np.full_like(low, low.min()), np.full_like(high, high.max())
    if normalize == "symmetric":
        greatest = np.maximum(-low, high)
        return -greatest, greatest
    if normalize == "channel":
        return low, high
    ends = {"sigmoid": (0, 1), "fixed": (-1.5, 2.5)}[normalize]
    return np.full_like(low, ends[0]), np.full_like(high, ends[1])


def drawn(values: Floats, low: Floats, high: Floats, levels: int, bad: int = 255) -> NDArray[np.uint8]:
    """Draw maps 1:1 on a range, (C, H, W) uint8, by numpy."""
    low, high = low[:, None, None], high[:, None, None]
    share = ((np.where(np.isfinite(values), values, 0) - low) / (high - low)).clip(0, 1)
    return np.where(np.isfinite(values), np.floor(share * (levels - 1) + 0.5), bad).astype(np.uint8)


NORMALIZE: dict[str, dict[str, Any]] = {
    "channel": {}, "layer": {}, "symmetric": {}, "sigmoid": {}, "percentile": {"percentile": "10,90"},
    "fixed": {"vmin": -1.5, "vmax": 2.5},
}  # fmt: skip


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_compare_pair_is_drawn_on_the_range_of_both(normalize: str, maps: torch.Tensor, other: torch.Tensor) -> None:
    maps[1, 2, 3], other[4, 0, 0] = NAN, -INF
    pair = compare(maps, other, normalize=normalize, **NORMALIZE[normalize], **ONE_TO_ONE).pair
    low, high = joint_range(maps.numpy(), other.numpy(), normalize)
    levels, bad = pair.manifest["palette"]["levels"], pair.manifest["palette"]["bad"]
    for of, values in {"a": maps, "b": other}.items():
        tiles = [tile for tile in pair.manifest["tiles"] if tile["of"] == of]
        assert_same_floats(np.float32([tile["vmin"] for tile in tiles]), low.astype(np.float32))
        assert_same_floats(np.float32([tile["vmax"] for tile in tiles]), high.astype(np.float32))
        shown = values.where(values.isinf(), values.sigmoid()) if normalize == "sigmoid" else values
        assert_same_plane(
            tiles_of(pair, of).reshape(-1, 7), drawn(shown.double().numpy(), low, high, levels, bad).reshape(-1, 7)
        )


def test_compare_pair_lies_side_by_side(maps: torch.Tensor, other: torch.Tensor) -> None:
    pair = compare(maps, other, grid="2x4", gap=10, margin=3, **ONE_TO_ONE).pair
    one = render(maps, grid="2x4", gap=10, margin=3, **ONE_TO_ONE)
    height, width = one.index.shape
    assert pair.index.shape == (height, width + 20 + width)
    assert pair.index.flags.c_contiguous
    background = pair.manifest["palette"]["background"]
    assert pair.palette[background].tolist() == [0, 0, 0]
    assert (pair.index[:, width : width + 20] == background).all()
    assert [t["channel"] for t in pair.manifest["tiles"]] == [*range(6), *range(6)]
    assert [t["box"] for t in pair.manifest["tiles"][:6]] == [t["box"] for t in one.manifest["tiles"]]
    moved = np.array([t["box"] for t in pair.manifest["tiles"][6:]]) - [0, width + 20, 0, width + 20]
    assert moved.tolist() == [t["box"] for t in one.manifest["tiles"]]
    assert pair.manifest["sheet"]["width"] == 2 * width + 20
    assert pair.manifest["sheet"]["between"] == 20
    # Wherever there is no tile there is background.
    covered = np.zeros(pair.index.shape, dtype=bool)
    for y0, x0, y1, x1 in (t["box"] for t in pair.manifest["tiles"]):
        covered[y0:y1, x0:x1] = True
    assert (pair.index[~covered] == background).all()


def test_compare_pair_without_gap_is_still_told_apart(maps: torch.Tensor, other: torch.Tensor) -> None:
    pair = compare(maps, other, grid="2x3", colormap="gray", **ONE_TO_ONE).pair
    assert pair.index.shape == (10, 21 + MODULE.BETWEEN_PX + 21)
    assert pair.colors.is_gray


def test_compare_difference_is_b_less_a_with_zero_in_the_middle(maps: torch.Tensor, other: torch.Tensor) -> None:
    comparison = compare(maps, other, gap=2, grid="2x3", normalize="percentile", **ONE_TO_ONE)
    difference = comparison.difference
    values = other.double().numpy() - maps.double().numpy()
    largest = np.full(6, np.abs(values).max())
    levels = difference.manifest["palette"]["levels"]
    assert levels == 255
    assert_same_plane(tiles_of(difference).reshape(-1, 7), drawn(values, -largest, largest, levels).reshape(-1, 7))
    assert {tile["vmax"] for tile in difference.manifest["tiles"]} == {np.float32(largest[0])}
    assert difference.index.shape == render(maps, gap=2, grid="2x3", **ONE_TO_ONE).index.shape
    # coolwarm: blue where b is less, red where it is greater, nearly grey in the middle.
    low, middle, high = (difference.palette[entry].astype(int) for entry in (0, 127, 254))
    assert low[2] > low[0] + 100
    assert high[0] > high[2] + 100
    assert_close(middle, np.full(3, middle.mean()), TWO_LEVELS)


def test_compare_diverging_names_the_colormap_of_the_difference(maps: torch.Tensor, other: torch.Tensor) -> None:
    comparison = compare(maps, other, diverging="RdBu_r", colormap="gray", **ONE_TO_ONE)
    assert_equal_planes(comparison.difference.palette, render(maps, colormap="RdBu_r", **ONE_TO_ONE).palette)
    assert comparison.pair.colors.is_gray
    with pytest.raises(OptionError, match=r"^no colormap 'RdBuu'"):
        compare(maps, other, diverging="RdBuu")


@pytest.mark.parametrize("gap", [0, 1])
def test_compare_equal_maps_differ_nowhere(maps: torch.Tensor, gap: int) -> None:
    comparison = compare(maps, maps.clone(), gap=gap, grid="2x3", **ONE_TO_ONE)
    levels = comparison.difference.manifest["palette"]["levels"]
    assert levels == 256 - gap
    assert set(tiles_of(comparison.difference).ravel()) == {int(np.floor((levels - 1) / 2 + 0.5))}
    assert_equal_planes(tiles_of(comparison.pair, "a"), tiles_of(comparison.pair, "b"))
    assert comparison.manifest["most_changed"] == []
    for channel in comparison.manifest["channels"]:
        assert (channel["mean_abs"], channel["max_abs"], channel["rms"], channel["lost"]) == (0, 0, 0, 0)
        assert channel["correlation"] == close_to(1, ROUNDED)


def test_compare_planted_change_is_ranked_first(maps: torch.Tensor) -> None:
    changed = maps + 0.01
    changed[4] += 0.5
    changed[2, 1, 1] += 1
    assert compare(maps, changed, tile=20).manifest["most_changed"][:2] == [4, 2]


def test_compare_channels_that_changed_equally_are_ranked_by_number() -> None:
    maps = torch.zeros(30, 2, 2)
    changed = maps.clone()
    changed[5:] = 1
    changed[12, 0, 0] = NAN
    found = compare(maps, changed, tile=2).manifest["most_changed"]
    assert found == [12, 5, 6, 7, 8, 9, 10, 11, 13, 14]
    assert len(found) == MODULE.MOST_CHANGED


def test_compare_figures_equal_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = noise(7, 6, 5), noise(7, 6, 5) * 1.5 + noise(1, 6, 5)
    a[1, 2, 3], b[1, 0, 0], b[1, 2, 3] = NAN, INF, NAN
    a[2] = NAN
    b[3] = 0.1  # flat, and its mean in floating point is not 0.1
    a[4] = b[4] = 7
    b[5] *= 1e30

    def check() -> None:
        channels = compare(a, b, tile=10).manifest["channels"]
        assert [channel["channel"] for channel in channels] == list(range(7))
        for c, channel in enumerate(channels):
            x, y = a[c].double().numpy(), b[c].double().numpy()
            finite = np.isfinite(x), np.isfinite(y)
            assert channel["lost"] == np.logical_xor(*finite).sum()
            x, y = (values[finite[0] & finite[1]] for values in (x, y))
            if not len(x):
                assert [channel[name] for name in ("mean_abs", "max_abs", "rms", "correlation")] == [None] * 4
                continue
            gone = np.abs(y - x)
            expected = [gone.mean(), gone.max(), np.sqrt((gone**2).mean())]
            assert_same_statistics([channel[name] for name in ("mean_abs", "max_abs", "rms")], expected)
            if np.ptp(x) == 0 or np.ptp(y) == 0:
                assert channel["correlation"] is None
            else:
                assert_same_statistics([channel["correlation"]], [np.corrcoef(x, y)[0, 1]])

    check()
    monkeypatch.setattr(MODULE, "BLOCK_VALUES", 60)  # two channels a block, one in the last
    check()


def test_compare_shows_what_is_not_finite_as_bad() -> None:
    a, b = noise(3, 4, 5), noise(3, 4, 5)
    a[0, 0, 0], a[1, 1, 1], a[2, 3, 4] = NAN, INF, -INF
    b[0, 2, 2], b[1, 1, 1], b[2, 3, 4] = -INF, INF, INF
    comparison = compare(a, b, tile=(4, 5), bad="white")
    bad = 255
    for sheet in (comparison.pair, comparison.difference):
        assert sheet.palette[bad].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(tiles_of(comparison.pair, "a") == bad, ~np.isfinite(a.numpy()))
    np.testing.assert_array_equal(tiles_of(comparison.pair, "b") == bad, ~np.isfinite(b.numpy()))
    np.testing.assert_array_equal(tiles_of(comparison.difference) == bad, ~np.isfinite((b - a).numpy()))
    assert [channel["lost"] for channel in comparison.manifest["channels"]] == [2, 0, 0]
    json.dumps(comparison.manifest, allow_nan=False)


def test_compare_maps_without_a_finite_value() -> None:
    comparison = compare(torch.full((2, 2, 2), NAN), torch.full((2, 2, 2), INF), tile=2)
    assert (tiles_of(comparison.pair) == comparison.pair.manifest["palette"]["bad"]).all()
    assert (tiles_of(comparison.difference) == comparison.difference.manifest["palette"]["bad"]).all()
    assert comparison.manifest["most_changed"] == []


def test_compare_difference_beyond_float32_is_infinite() -> None:
    a, b = torch.tensor([LARGEST, 0.0]).reshape(1, 1, 2), torch.tensor([-LARGEST, LARGEST]).reshape(1, 1, 2)
    difference = compare(a, b, tile=(1, 2)).difference
    assert difference.manifest["tiles"][0]["inf"] == 1
    assert difference.index.tolist() == [[255, 254]]


def test_compare_smallest_difference_is_drawn_over_the_whole_range() -> None:
    a = torch.zeros(1, 1, 3)
    b = torch.tensor([[[SMALLEST, 0, -SMALLEST]]])
    assert compare(a, b, tile=(1, 3)).difference.index.tolist() == [[255, 128, 0]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (5, 1, 1)])
def test_compare_small_maps(shape: tuple[int, ...]) -> None:
    a = noise(*shape)
    comparison = compare(a, a + 1, tile=shape[1:])
    assert (tiles_of(comparison.difference) == comparison.difference.manifest["palette"]["levels"] - 1).all()
    assert comparison.manifest["channels"][0]["rms"] == close_to(1, FLOAT32_RATIO)


def test_compare_takes_any_real_dtype_and_layout(maps: torch.Tensor, other: torch.Tensor) -> None:
    maps, other = maps.half(), other.bfloat16()
    expected = compare(maps.float(), other.float(), tile=20)
    strided = torch.empty(7, 5, 12, dtype=torch.bfloat16)[:, :, ::2].permute(2, 1, 0).copy_(other)
    for a, b in (
        (maps, other),
        (maps.numpy(), other.double().numpy()),
        (maps.float().numpy().astype(">f4"), strided),
        (maps.float().numpy()[::-1][::-1], other.clone().requires_grad_()),
    ):
        comparison = compare(a, b, tile=20)
        assert_equal_planes(comparison.pair.index, expected.pair.index)
        assert_equal_planes(comparison.difference.index, expected.difference.index)
    manifest = compare(maps, other.double().numpy(), tile=20).manifest
    assert (manifest["a"]["dtype"], manifest["b"]["dtype"]) == ("float16", "float64")


def test_compare_leaves_the_maps_as_they_were(maps: torch.Tensor, other: torch.Tensor) -> None:
    before = maps.clone(), other.clone()
    compare(maps, other, tile=3, normalize="sigmoid")
    assert torch.equal(maps, before[0])
    assert torch.equal(other, before[1])


@pytest.mark.gpu
def test_compare_on_two_devices_equals_on_one(maps: torch.Tensor, other: torch.Tensor) -> None:
    expected = compare(maps, other, tile=20)
    for a, b in ((maps.cuda(), other), (maps, other.cuda()), (maps.cuda(), other.numpy())):
        comparison = compare(a, b, tile=20)
        assert_same_plane(comparison.pair.index, expected.pair.index)
        assert comparison.manifest["most_changed"] == expected.manifest["most_changed"]


@pytest.mark.parametrize("backend", ["reference", "torch", "numba", "native"])
def test_compare_backends_agree(backend: str, maps: torch.Tensor, other: torch.Tensor) -> None:
    expected = compare(maps, other, tile=20, backend="reference", gap=1)
    comparison = compare(maps, other, tile=20, backend=backend, gap=1, threads=2)
    assert_same_plane(comparison.pair.index, expected.pair.index, levels=255)
    assert_same_plane(comparison.difference.index, expected.difference.index, levels=255)
    assert comparison.pair.manifest["backend"] == backend


def test_compare_channels_are_those_asked_for(maps: torch.Tensor, other: torch.Tensor) -> None:
    comparison = compare(maps, other, channels="4,0-1", normalize="layer", **ONE_TO_ONE)
    low, high = joint_range(maps[[4, 0, 1]].numpy(), other[[4, 0, 1]].numpy(), "layer")
    for tiles in (comparison.pair.manifest["tiles"], comparison.manifest["channels"]):
        assert [tile["channel"] for tile in tiles[:3]] == [4, 0, 1]
        assert (tiles[0]["vmin"], tiles[0]["vmax"]) == (low[0], high[0])
    assert [tile["channel"] for tile in comparison.difference.manifest["tiles"]] == [4, 0, 1]
    largest = (other - maps)[[4, 0, 1]].abs().max()
    assert comparison.difference.manifest["tiles"][0]["vmax"] == largest
    assert set(comparison.manifest["most_changed"]) == {4, 0, 1}
    with pytest.raises(OptionError, match=r"^channels must lie in 0\.\.5, got 6\."):
        compare(maps, other, channels="6")


def test_compare_options_reach_both_sheets(maps: torch.Tensor, other: torch.Tensor) -> None:
    plain = compare(maps, other, tile=30)
    for name, value in {"align": "corners", "upsampling": "nearest", "tile": 8, "grid": "1x", "margin": 4}.items():
        changed = compare(maps, other, **{"tile": 30, name: value})
        for before, after in ((plain.pair, changed.pair), (plain.difference, changed.difference)):
            assert before.index.shape != after.index.shape or (before.index != after.index).any(), name
    scaled = compare(maps, other, scale=2, grid="2x3")
    assert scaled.difference.index.shape == (20, 42)
    white = compare(maps, other, tile=30, background="white")
    assert white.pair.palette[white.pair.manifest["palette"]["background"]].tolist() == [255, 255, 255]


def test_compare_maps_of_other_shapes_are_refused(maps: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"^a and b must have the same shape, got \(6, 5, 7\) and \(6, 7, 5\)\.$"):
        compare(maps, maps.mT)
    with pytest.raises(ShapeError, match=r"^maps must have shape \(C, H, W\), got \(2, 6, 5, 7\)"):
        compare(maps, torch.stack([maps, maps]))
    with pytest.raises(DTypeError, match=r"^maps must be a tensor or a numpy array, got str\."):
        compare("a.npy", maps)


GIVEN = {
    "topk": 2, "sort": True, "rank": "mean", "reduce": "sum", "beside": True, "report": True,
}  # fmt: skip
COMPANIONS = {"rank": "topk", "beside": "reduce"}


def test_compare_every_option_of_single_sheets_has_a_case() -> None:
    assert set(GIVEN) == set(SINGLE_SHEETS)


@pytest.mark.parametrize("name", SINGLE_SHEETS)
def test_compare_options_of_single_sheets_are_refused(name: str, maps: torch.Tensor) -> None:
    needed = COMPANIONS.get(name)
    given = {name: GIVEN[name], **({needed: GIVEN[needed]} if needed else {})}
    with pytest.raises(
        OptionError, match=rf"^({name}|{needed}) belongs to single sheets; a comparison has none\. Leave"
    ):
        compare(maps, maps, **given)


def test_compare_shows_the_options_that_it_takes() -> None:
    own = {"a", "b", "axes", "planes", "provenance_a", "provenance_b", "field", "diverging"}
    shown = set(inspect.signature(cf.compare).parameters) - own
    assert shown == {field.name for field in dataclasses.fields(RenderOptions)} - set(SINGLE_SHEETS)
    assert "        colormap: " in (cf.compare.__doc__ or "")
    assert "        topk: " not in (cf.compare.__doc__ or "")


def test_compare_labels_title_and_colorbar_leave_the_tiles_as_they_are(maps: torch.Tensor, other: torch.Tensor) -> None:
    options = {"tile": 40, "normalize": "layer", "background": "white", "colormap": "gray"}
    plain = compare(maps, other, **options)
    sides = {
        "provenance_a": cf.Provenance(layer="conv1", image="a rather long name of a photo.jpg"),
        "provenance_b": cf.Provenance(layer="conv1", image="b.jpg", model="net"),
    }
    written = compare(maps, other, label=True, title="{layer} {image} {model}", colorbar=True, **sides, **options)
    for before, after in ((plain.pair, written.pair), (plain.difference, written.difference)):
        assert_close(tiles_of(after), tiles_of(before), TWO_LEVELS)  # the ink of the text takes an entry
        tops = {tile["channel"]: tile["box"][0] for tile in after.manifest["tiles"]}
        assert all(tops[tile["channel"]] == tile["box"][0] for tile in after.manifest["tiles"])  # side by side
        assert after.index.shape[0] > before.index.shape[0]
    assert written.pair.manifest["options"]["title"] == "{layer} {image} {model}"


@pytest.mark.parametrize("title", ["{model}", "{layer}: {image}", "the same on both sides"])
@pytest.mark.parametrize("known", [{}, {"model": "net"}, {"image": " ", "layer": "x\ny"}])
def test_compare_title_that_only_one_side_can_fill_stands_on_both(
    title: str, known: dict[str, str], maps: torch.Tensor, other: torch.Tensor
) -> None:
    comparison = compare(maps, other, tile=9, title=title, provenance_b=cf.Provenance(**known))
    boxes = [[t["box"][0] for t in comparison.pair.manifest["tiles"] if t["of"] == side] for side in "ab"]
    assert boxes[0] == boxes[1]


def test_compare_manifest_knows_the_size_where_one_title_is_wider(maps: torch.Tensor, other: torch.Tensor) -> None:
    sides = {"provenance_a": cf.Provenance(model="net"), "provenance_b": cf.Provenance(model="net " * 30)}
    pair = cf.compare(maps, other, tile=9, **sides).pair
    assert (pair.manifest["sheet"]["height"], pair.manifest["sheet"]["width"]) == pair.index.shape
    assert pair.index.shape[1] > 2 * max(tile["box"][3] for tile in pair.manifest["tiles"] if tile["of"] == "a")


def test_compare_titles_name_the_side_and_the_difference() -> None:
    a, b = cf.Provenance(layer="conv", image="cat"), cf.Provenance(layer="conv", image="dog", model="net")
    titled = MODULE._titled(a, b)
    shown = [(each.layer, each.image, each.model) for each in titled]
    assert shown == [("conv", "cat", "a"), ("conv", "dog", "net"), ("conv", "dog - cat", "net - a")]


def test_compare_of_what_is_no_provenance_is_refused(maps: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"^provenance must be a Provenance, got 'resnet18'\."):
        compare(maps, maps, provenance_a="resnet18")


def test_comparison_is_one_line_and_html_in_a_notebook(maps: torch.Tensor, other: torch.Tensor) -> None:
    comparison = compare(maps, other, tile=9)
    assert repr(comparison).startswith("Comparison(6 channels, most changed [")
    assert "\n" not in repr(comparison)
    html = comparison._repr_html_()
    assert html.count("<img src=") == 2
    assert ("<figcaption>a | b<" in html, "<figcaption>b - a<" in html) == (True, True)
    assert comparison == comparison
    assert comparison != compare(maps, other, tile=9)


def test_compare_manifests_name_both_sources(maps: torch.Tensor, other: torch.Tensor) -> None:
    provenances = [
        cf.Provenance(model="resnet18", weights=f"random, seed {seed}", layer="conv1", categories=("cat", "dog"))
        for seed in (0, 1)
    ]
    comparison = compare(maps, other, provenance_a=provenances[0], provenance_b=provenances[1], tile=9)
    for manifest in (comparison.manifest, comparison.pair.manifest, comparison.difference.manifest):
        for side, provenance in zip("ab", provenances, strict=True):
            known = {
                name: value
                for name, value in dataclasses.asdict(provenance).items()
                if name not in ("categories", "field")
            }
            assert manifest[side] == {**known, "dtype": "float32"}  # not a thousand names of classes
        assert "model" not in manifest
        assert manifest["cnnviz_fast"] == cf.__version__
    assert comparison.difference.manifest.items() >= comparison.manifest.items()
    assert [tile["channel"] for tile in comparison.difference.manifest["tiles"]] == list(range(6))
    assert compare(maps, other, tile=9).manifest["a"]["model"] is None


def test_save_writes_both_sheets_with_their_manifests(maps: torch.Tensor, other: torch.Tensor, tmp_path: Path) -> None:
    comparison = compare(maps, other, tile=9)
    paths = comparison.save(tmp_path / "layer4.2.png")
    assert paths == (tmp_path / "layer4.2_compare.png", tmp_path / "layer4.2_difference.png")
    for path, sheet in zip(paths, (comparison.pair, comparison.difference), strict=True):
        with Image.open(path) as image:
            assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())
        assert json.loads(path.with_suffix(".json").read_text()) == json.loads(json.dumps(sheet.manifest))
    assert len(list(tmp_path.iterdir())) == 4


def test_comparison_cannot_be_changed(maps: torch.Tensor) -> None:
    comparison = compare(maps, maps, tile=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        comparison.pair = comparison.difference


@pytest.mark.parametrize("lost", [NAN, 2.0])
def test_compare_vectors_has_two_bars_of_one_size(lost: float) -> None:
    """A list of strongest entries would be of another length on the side that has a NaN, and of another width."""
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-20000.5, 1.0, lost])
    comparison = compare(a, b, colormap="gray")
    sheet = comparison.pair.manifest["sheet"]
    assert comparison.pair.index.shape == (sheet["height"], sheet["width"]) == (16, 3 * 16 + 16 + 3 * 16)
    assert "strongest" not in comparison.pair.manifest
    levels = comparison.pair.manifest["palette"]["levels"] - 1
    cells = [comparison.pair.index[y0, x0] for y0, x0, _, _ in (t["box"] for t in comparison.pair.manifest["tiles"])]
    expected = [np.floor((value + 20000.5) / 20003.5 * levels + 0.5) for value in [*a.tolist(), *b.tolist()[:2]]]
    assert_close(cells[:5], expected, A_LEVEL)
    if lost != lost:
        assert cells[5] == comparison.pair.manifest["palette"]["bad"]


def test_compare_refuses_the_range_of_a_data_set(maps: torch.Tensor) -> None:
    message = "^normalize 'dataset' belongs to single sheets: a comparison draws on the range of both"
    with pytest.raises(OptionError, match=message):
        compare(maps, maps, normalize="dataset")


@pytest.mark.parametrize(("shape", "tile"), [((48, 112, 112), 112), ((192, 14, 14), 64), ((3, 9, 9), 224)])
def test_compare_both_halves_fit_a_screen_together(shape: tuple[int, int, int], tile: int) -> None:
    a, b = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    found = cf.compare(a, b)
    assert max(found.pair.index.shape) <= SCREEN_PX
    assert found.pair.manifest["options"]["tile"] == tile
    grids = [sheet.manifest["sheet"] for sheet in (found.pair, found.difference)]
    assert len({(grid["rows"], grid["cols"], grid["tile_w"]) for grid in grids}) == 1
