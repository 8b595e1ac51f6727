"""The images of a run: data sets and loaders of a program, and folders in which runs have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.runs import (
    COUNT,
    LAYERS,
    QUICK,
    Small,
    digests,
    make_images,
    rows,
    small_model,
)
from torch.utils.data import DataLoader, Dataset

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError


class Tensors(Dataset[Any]):
    """A data set of a program: pairs of an image and a label."""

    def __init__(self, images: Path) -> None:
        self.paths = sorted(images.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self.paths[index]) as image:
            return image.convert("RGB"), 7


def test_a_data_set_and_a_loader_give_the_same_sheets(images: Path, alone: Path, tmp_path: Path) -> None:
    model = small_model()
    cf.run(model, Tensors(images), LAYERS, tmp_path / "set", **QUICK)
    prepared = torch.stack([model.preprocess(image) for image, _ in (Tensors(images)[n] for n in range(COUNT))])
    loader = DataLoader(torch.utils.data.TensorDataset(prepared), batch_size=6)
    cf.run(model, loader, LAYERS, tmp_path / "loader", **QUICK)
    expected = {
        name[2:-4]: digest for name, digest in digests(alone).items() if name.startswith("0/") and "png" in name
    }
    for folder in ("set", "loader"):
        made = digests(tmp_path / folder)
        assert [made[f"0/{n:08d}.png"] for n in range(COUNT)] == [expected[f"p{n:04d}"] for n in range(COUNT)]
    assert rows(tmp_path / "loader")[0]["key"] == "dataset/00000000"
    assert cf.run(model, loader, LAYERS, tmp_path / "loader", **QUICK).finished == 0


class Random(Small):
    """Images that are others each time."""

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.rand(3, 24, 24)


def test_a_data_set_of_chance_can_be_taken_up(tmp_path: Path) -> None:
    for skipped in (0, 12):
        assert cf.run(small_model(), Random(0), ["0"], tmp_path, **QUICK).skipped == skipped


def test_a_loader_that_shuffles_is_refused(tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.rand(4, 3, 24, 24))
    with pytest.raises(OptionError, match=r"got one that shuffles\. Set shuffle=False\.$"):
        cf.run(small_model(), DataLoader(data, batch_size=2, shuffle=True), ["0"], tmp_path, **QUICK)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(0, 3, 24, 24))
    with pytest.raises(cf.CnnvizError, match=r"at least one image, got an empty data set\.$"):
        cf.run(small_model(), data, ["0"], tmp_path, **QUICK)


@pytest.mark.parametrize("where", ["in", "in/*.png", "in/**/*.png"])
def test_what_a_run_has_made_is_not_taken_for_images(where: str, tmp_path: Path) -> None:
    make_images(tmp_path / "in", 5)
    for skipped in (0, 5):
        summary = cf.run(small_model(), str(tmp_path / where), ["0"], tmp_path / "in" / "out", **QUICK)
        assert (summary.images, summary.skipped) == (5, skipped)


def test_what_another_run_has_made_is_not_taken_for_images(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 5)
    for out in ("a", "b"):
        assert cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "in" / out, **QUICK).images == 5
    assert cf.run(small_model(), tmp_path / "in" / "a" / "0", ["0"], tmp_path / "c", **QUICK).images == 5  # as named


def test_a_folder_below_out_may_hold_the_images(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 5)
    for where in ("in", "in/*.png"):
        assert cf.run(small_model(), str(tmp_path / where), ["0"], tmp_path, **QUICK).images == 5


def test_a_folder_that_is_searched_is_no_out(tmp_path: Path) -> None:
    make_images(tmp_path, 5)
    with pytest.raises(OptionError, match=r"^out must not be a folder that is searched for images, got '.*'\. Give a"):
        cf.run(small_model(), tmp_path, ["0"], tmp_path, **QUICK)
