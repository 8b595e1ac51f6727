"""The kinds of files of a run, and their names, whatever images and layers are called."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.assertions import FLOAT32_SUMS, assert_close
from support.runs import (
    LAYERS,
    QUICK,
    digests,
    members,
    rows,
    small_model,
)

import cnnviz_fast as cf


@pytest.mark.parametrize(
    ("save", "files"),
    [
        ("sheets", {"0/p0000.jpg"}),
        ("tiles", {"0/tiles/p0000/0.jpg", "0/tiles/p0000/5.jpg", "0/tiles/p0000/manifest.json"}),
        ("maps,sum,mean,max", {"0/p0000.safetensors", "0/sum/p0000.safetensors", "0/max/p0000.safetensors"}),
        ("statistics", set()),
    ],
)
def test_what_comes_out_is_what_save_names(save: str, files: set[str], images: Path, tmp_path: Path) -> None:
    cf.run(small_model(), images / "p0000.png", ["0"], tmp_path, save=save, format="jpg", **QUICK)
    made = set(digests(tmp_path))
    assert files <= made
    assert bool(made) == bool(files)
    assert (tmp_path / "statistics.safetensors").exists() == (save == "statistics")


def test_maps_and_what_they_are_reduced_to_are_the_models_own(images: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = small_model()
    cf.run(model, images / "p0003.png", ["2"], tmp_path, save="maps,sum", **QUICK)
    maps = cf.capture(model, cf.load_images(images / "p0003.png", model), ["2"])["2"][0]
    assert torch.equal(load_file(tmp_path / "2" / "p0003.safetensors")["2"], maps)
    total = load_file(tmp_path / "2" / "sum" / "p0003.safetensors")["2"]
    assert_close(total, maps.double().sum(0, keepdim=True).float(), FLOAT32_SUMS)


@pytest.mark.parametrize("drawn", [{}, {"channels": "1,3"}, {"backend": "reference"}], ids=repr)
def test_atlases_hold_all_channels_as_they_are_whatever_is_drawn(
    drawn: dict[str, Any], images: Path, tmp_path: Path
) -> None:
    """What is measured for the sheets serves the atlases only where it is the same."""
    model = small_model()
    cf.run(model, images / "p0003.png", ["2"], tmp_path, save="sheets,atlases", **QUICK, **drawn)
    maps = cf.capture(model, cf.load_images(images / "p0003.png", model), ["2"])["2"][0]
    atlas = cf.read_atlas(tmp_path / "2" / "p0003.atlas")
    alone = cf.save_atlas(maps, tmp_path / "alone.atlas", provenance=replace(atlas.provenance, atlas=None))
    assert (tmp_path / "2" / "p0003.atlas").read_bytes() == alone.read_bytes()


def test_images_whose_names_look_like_files_of_a_run_do_not_meet(images: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n, name in enumerate(("cat.png", "cat.sum.png", "cat.png.png", "sum.png", "tiles.png", "cat.atlas.png")):
        (tmp_path / "in" / name).write_bytes((images / f"p000{n}.png").read_bytes())
    save = "sheets,tiles,atlases,maps,sum,max"
    cf.run(small_model(), tmp_path / "in", LAYERS, tmp_path / "out", save=save, **QUICK)
    named = [file for row in rows(tmp_path / "out") for file in row["files"]]
    assert len(set(map(str.casefold, named))) == len(named)
    assert set(named) == set(digests(tmp_path / "out"))


HOSTILE = [
    "n" * 250, "a\nb", "a\x1b[31m", "Case", "case", "CON", "-rf", "a\\..\\b", "$(x)", "{channel}", "%s", "e\u0301",
    "\xe9", "\udcff",
]  # fmt: skip


class OddlyNamed(torch.nn.Module):
    """A model whose layers have names that no file can have, or that become the same."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("a/b", "a-b", "A-B", "/etc", "x" * 300, "y" * 300 + "1", "y" * 300 + "2", " ", "\n", "con"):
            self._modules[name] = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(batch) for layer in self._modules.values()])


@pytest.mark.parametrize("shards", [None, 1])
def test_names_of_images_and_layers_stay_inside_and_apart(shards: int | None, images: Path, tmp_path: Path) -> None:
    content = (images / "p0000.png").read_bytes()
    (tmp_path / "in").mkdir()
    for name in HOSTILE:
        with open(os.path.join(tmp_path, "in", f"{name}.png"), "wb") as file:
            file.write(content)
    out = tmp_path / "out"
    summary = cf.run(OddlyNamed(), tmp_path / "in", "*", out, save="sheets,tiles,atlases,maps", shards=shards, **QUICK)
    assert summary.finished == len(HOSTILE)
    found = rows(out)
    assert len(found) == len(HOSTILE) * 10
    files = [file for row in found for file in row["files"]]
    assert len({file.casefold() for file in files}) == len(files)
    assert set(files) == set(members(out) if shards else digests(out))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert not any(".." in Path(file).parts or Path(file).is_absolute() for file in files)
