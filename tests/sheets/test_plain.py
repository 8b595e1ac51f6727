"""`plain` sheets are to the last pixel what sheets were before they had a look: what that version drew is kept here."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_equal_planes
from support.looping import over
from support.plain import render, save_sheet, save_tiles

from cnnviz_fast.geometry import tile_size
from cnnviz_fast.options.drawing import PLAIN, PLAIN_TILE_PX, RenderOptions
from cnnviz_fast.sheets.look import settled


def values(*shape: int) -> NDArray[np.float32]:
    """Return seeded values from -0.5 to 0.5, of which each channel has its own share."""
    random = np.random.default_rng(20).random(shape, dtype=np.float32) - np.float32(0.5)
    return random * np.linspace(1, 3, shape[0], dtype=np.float32)[:, None, None]


def odd() -> NDArray[np.float32]:
    """Return a channel of each kind: dead, flat, with a NaN, with an infinity, and one of all values."""
    maps = values(5, 4, 6)
    maps[0], maps[1] = 0, 2.5
    maps[2, 1, 3], maps[3, 2, 2] = np.nan, np.inf
    return maps


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(21).integers(0, 256, (24, 32, 3), dtype=np.uint8)


CASES: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "defaults": (values(3, 5, 7), {}),
    "gap and margin": (values(6, 5, 7), {"tile": 40, "grid": "2x3", "gap": 3, "margin": 5, "background": "white"}),
    "nearest on one range": (values(7, 5, 7), {"tile": 33, "upsampling": "nearest", "normalize": "layer"}),
    "left": (values(4, 5, 7), {"scale": 3.5, "align": "left", "colormap": "gray"}),
    "reductions beside": (values(4, 6, 5), {"tile": (20, 30), "align": "corners", "reduce": "sum,max", "beside": True}),
    "dead, flat and not finite": (odd(), {"tile": 24, "normalize": "symmetric", "colormap": "coolwarm"}),
    "smaller, the first by rank": (values(5, 40, 30), {"tile": 16, "topk": 3, "rank": "variance"}),
    "many halves": (values(70, 3, 3).astype(np.float16), {"tile": 9, "normalize": "fixed", "vmin": -1, "vmax": 0.5}),
    "over an image": (values(3, 6, 8), {"tile": (24, 32), "overlay": image(), "alpha": 0.25, "gap": 2}),
}

DRAWN = {
    "defaults": ("ed63091569a5658a", "10edc97a82e592c2"),
    "gap and margin": ("4e12b0e4b64701a9", "d92e977ee196cb4d"),
    "nearest on one range": ("d77297826beb1f90", "728f7414bc78165d"),
    "left": ("294a388e9699e073", "236b765013f7e1d1"),
    "reductions beside": ("0e8ab33b3c70a39b", "6f92cd29aebc5bc7"),
    "dead, flat and not finite": ("4544627aa4adcc8e", "8e58731aa0f11f9d"),
    "smaller, the first by rank": ("370bbbab240888b7", "34fabbf287f1cca7"),
    "many halves": ("9f87319c219aaaf9", "41633378f8a26083"),
    "over an image": ("0d2389eb3108b511", "32ed924f9fd3aaec"),
}
"""Digests of the index plane and of the file's pixels in colour, as the commit 2bc8adf drew them without `plain`."""


def digest(plane: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(plane.shape).encode() + plane.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", CASES)
def test_plain_sheet_is_the_one_of_the_version_before(name: str, tmp_path: Path) -> None:
    maps, options = CASES[name]
    with Image.open(save_sheet(maps, tmp_path / "sheet.png", **options)) as written:
        shown = np.asarray(written.convert("RGB"))
    assert (digest(render(maps, **options).index), digest(shown)) == DRAWN[name]


def test_plain_single_tiles_are_the_tiles_of_the_sheet(tmp_path: Path) -> None:
    maps, options = CASES["defaults"]
    column = render(maps, grid="x1", **options).rgb()
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in save_tiles(maps, tmp_path, **options)]
    assert_equal_planes(np.concatenate(tiles), column)


@over(
    ("name", "given"),
    [("gap", 3), ("margin", 2), ("upsampling", "nearest"), ("upsampling", "auto"), ("background", "red"),
     ("label", True), ("title", "{layer}"), ("marks", True)],
)  # fmt: skip
def test_plain_gives_way_to_an_option_that_is_given(name: str, given: Any) -> None:
    assert getattr(RenderOptions(plain=True), name) == PLAIN[name] != given
    assert getattr(RenderOptions(plain=True, **{name: given}), name) == given


def test_plain_bundles_what_the_test_above_gives() -> None:
    assert set(PLAIN) == {"gap", "margin", "upsampling", "background", "label", "title", "marks"}
    assert all(PLAIN[field.name] != field.default for field in dataclasses.fields(RenderOptions) if field.name in PLAIN)


def test_plain_false_is_the_default_look() -> None:
    assert RenderOptions(plain=False) == RenderOptions()


@over("count", [1, 2, 12, 300])
def test_plain_tiles_keep_their_size_whatever_their_number(count: int) -> None:
    assert settled(RenderOptions(plain=True), count, 7, 7, over_image=False).tile is None
    assert tile_size(7, 7, None, None) == (PLAIN_TILE_PX, PLAIN_TILE_PX) == (224, 224)
