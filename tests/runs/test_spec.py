"""What makes a run another run, which a folder that holds one refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import (
    QUICK,
    digests,
    small_model,
)
from torch.utils.data import DataLoader

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError
from cnnviz_fast.runs.spec import split_options


@pytest.fixture(scope="module")
def there(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run, which others leave as it is."""
    folder = tmp_path_factory.mktemp("there")
    cf.run(small_model(), images, ["0"], folder, **QUICK)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": 13}, "tile: 13 here, 12 there"),
        ({"save": "tiles"}, "save"),
        ({"align": "left"}, "align"),
        ({"plain": False}, "plain: false here, true there"),
        ({"gap": 2}, "gap: 2 here, 0 there"),
        ({"label": True}, "label: true here, false there"),
        ({"title": "{image}"}, "title"),
        ({"marks": True}, "marks: true here, false there"),
        ({"upsampling": "nearest"}, "upsampling"),
        ({"show_input": True}, "overlay"),
    ],
)
def test_a_folder_of_another_run_is_refused(change: dict[str, Any], message: str, images: Path, there: Path) -> None:
    before = digests(there)
    with pytest.raises(OptionError, match=message):
        cf.run(small_model(), images, ["0"], there, **{**QUICK, **change})
    assert digests(there) == before


def test_other_weights_are_another_run(images: Path, tmp_path: Path) -> None:
    cf.run(small_model(), images, ["0"], tmp_path, **QUICK)
    other = small_model()
    with torch.no_grad():
        next(other.module.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(OptionError, match="weights"):
        cf.run(other, images, ["0"], tmp_path, **QUICK)


def test_other_images_in_memory_are_another_run(tmp_path: Path) -> None:
    first, second = (torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    cf.run(small_model(), first, ["0"], tmp_path, **QUICK)
    assert cf.run(small_model(), first, ["0"], tmp_path, **QUICK).skipped == 3
    with pytest.raises(OptionError, match="images"):
        cf.run(small_model(), second, ["0"], tmp_path, **QUICK)


class Drawn(torch.utils.data.TensorDataset):
    """A data set that says what it is of."""

    def __repr__(self) -> str:
        return f"Drawn from {self.root}"

    root = "here"


def test_another_data_set_of_the_same_class_is_another_run(tmp_path: Path) -> None:
    zeros, ones = (torch.full((5, 3, 24, 24), float(value)) for value in range(2))
    tensors = torch.utils.data.TensorDataset
    assert cf.run(small_model(), tensors(zeros), ["0"], tmp_path, **QUICK).finished == 5
    assert cf.run(small_model(), tensors(zeros), ["0"], tmp_path, **QUICK).skipped == 5
    for other in (tensors(ones), DataLoader(tensors(ones), batch_size=2), Drawn(zeros)):
        with pytest.raises(OptionError, match="images: "):
            cf.run(small_model(), other, ["0"], tmp_path, **QUICK)


@pytest.mark.parametrize(("old", "new"), [("layout", "axes"), ("pictures", "images")])
@pytest.mark.parametrize("normalize", ["channel", "dataset"])
def test_a_folder_of_a_run_of_an_older_version_is_refused(
    old: str, new: str, normalize: str, images: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), images, ["0"], tmp_path, **QUICK)
    document = json.loads((tmp_path / "run.json").read_text())
    document["fingerprint"][old] = document["fingerprint"].pop(new)
    (tmp_path / "run.json").write_text(json.dumps(document))
    before = digests(tmp_path)
    said = (
        f"folder '{tmp_path}' holds a run of an older version, whose run.json has '{old}' where runs now have '{new}'. "
        f"Give another out."
    )
    with pytest.raises(OptionError, match=f"^{re.escape(said)}$"):
        cf.run(small_model(), images, ["0"], tmp_path, normalize=normalize, **QUICK)
    assert digests(tmp_path) == before
    assert json.loads((tmp_path / "run.json").read_text()) == document
    assert not (tmp_path / ".dataset").exists()


def test_split_options_takes_the_older_name_of_readers() -> None:
    for name in ("readers", "workers"):
        wanted, drawing, _, _ = split_options({name: "3", "tile": 9, "batch": 2})
        assert (wanted.readers, wanted.batch, drawing.tile) == (3, 2, 9)
    with pytest.raises(OptionError, match=r"^readers and workers are one option, got both\. Give readers\.$"):
        split_options({"readers": 1, "workers": 1})
    with pytest.raises(OptionError, match=r"^readers must be a whole number of at least 0, got -1"):
        split_options({"workers": -1})


def test_the_older_name_of_readers_is_the_same_run(images: Path, tmp_path: Path) -> None:
    first = cf.run(small_model(), images, ["0"], tmp_path, **QUICK)
    older = {"workers" if name == "readers" else name: value for name, value in QUICK.items()}
    assert cf.run(small_model(), images, ["0"], tmp_path, **older).skipped == first.finished
