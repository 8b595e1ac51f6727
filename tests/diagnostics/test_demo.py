"""What the demo draws of models that are not the usual ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.diagnostics.demo import make_demo
from cnnviz_fast.formats.output_folders import output_folder


def three_frames(image: Any) -> torch.Tensor:
    """Make a clip of the corner of an image: (3, 3, 16, 16) float32."""
    frame = torch.from_numpy(np.asarray(image)[:16, :16] / np.float32(255))
    return frame.permute(2, 0, 1)[:, None].repeat(1, 3, 1, 1)


def test_make_demo_of_clips_lays_one_time_step_over_the_photos(tmp_path: Path) -> None:
    model = cf.load_model(nn.Sequential(nn.Conv3d(3, 2, (1, 3, 3))), preprocess=three_frames)
    made = list(make_demo(model, ["0"], output_folder(tmp_path, overwrite=True)))
    sheets = [each.path.relative_to(tmp_path).as_posix() for each in made]
    steps = sheets[:9]
    assert len({path.split("/")[0] for path in steps}) == 3, "a folder for each time step"
    assert [path.split("/")[1] for path in steps] == ["chart.png", "cat.png", "coffee.png"] * 3
    assert sheets[9:] == [
        "patches.png", "overlay/cat.png", "overlay/coffee.png", "cat_coffee_compare.png", "cat_coffee_difference.png",
    ]  # fmt: skip
