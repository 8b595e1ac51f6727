"""Sheets of images: each where the manifest says, in its colours, in files and in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.assertions import A_LEVEL, assert_close

from cnnviz_fast.errors import OptionError, UnknownOptionError
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.sheets.rgb import RgbSheet, rgb_sheet


def images() -> NDArray[np.uint8]:
    """Three images of noise; one of them is red all over."""
    made = np.random.default_rng(0).integers(0, 256, (3, 70, 80, 3), dtype=np.uint8)
    made[1] = (255, 0, 0)
    return made


def sheet(**options: object) -> RgbSheet:
    described = {"shows": "noise", "tiles": [{"number": number} for number in range(3)]}
    return rgb_sheet(images(), ["a", "b", "c"], Provenance("net", "seeded", "layer"), described, options)


@pytest.mark.parametrize("options", [{}, {"plain": True}, {"label": False, "background": "white"}])
def test_images_stand_where_the_manifest_says(options: dict[str, object]) -> None:
    drawn = sheet(scale=1, **options)
    assert [tile["number"] for tile in drawn.manifest["tiles"]] == [0, 1, 2]
    for image, tile in zip(images(), drawn.manifest["tiles"], strict=True):
        y0, x0, y1, x1 = tile["box"]
        assert_close(drawn.rgb()[y0:y1, x0:x1].astype(int), image.astype(int), A_LEVEL)


def test_file_holds_what_memory_holds(tmp_path: Path) -> None:
    path = sheet().save(tmp_path / "noise.png")
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), sheet().rgb())
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert (manifest["model"], manifest["shows"]) == ("net", "noise")
    assert sheet()._repr_png_().startswith(b"\x89PNG")
    assert not sheet().save(tmp_path / "bare.jpg", manifest=False).with_suffix(".json").exists()


def test_labels_are_white_in_all_colours() -> None:
    drawn = sheet(scale=1, background="black")
    top = drawn.manifest["tiles"][0]["box"][0]
    above = drawn.rgb()[:top]
    assert (above == 255).any()
    assert (above == above[..., :1]).all()


def test_what_means_nothing_in_colour_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownOptionError, match="colormap"):
        sheet(colormap="magma")
    with pytest.raises(OptionError, match="webp"):
        sheet().save(tmp_path / "plane.npy")
