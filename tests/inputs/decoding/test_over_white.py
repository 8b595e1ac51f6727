"""Transparency over white, against Pillow's own composition of all colours and all alphas."""

from __future__ import annotations

import numpy as np
from PIL import Image
from support.assertions import EXACT, assert_close

from cnnviz_fast.inputs.decoding.over_white import over_white


def test_over_white_is_alpha_composite_for_every_colour_and_alpha() -> None:
    alpha, level = np.mgrid[0:256, 0:256].astype(np.uint8)
    image = Image.fromarray(np.stack([level, 255 - level, level // 2, alpha], -1))
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert_close(np.asarray(over_white(image)), np.asarray(expected), EXACT)
