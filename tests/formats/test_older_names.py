"""Output folders of drafts before version 0.1 are recognised by their manifests; nothing of today's is taken for one.

`older_outputs.json` holds manifests as a draft wrote them: the command, then the file's path in the folder it made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cases import noise

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError
from cnnviz_fast.formats.older_names import refuse_older_names

MADE = cf.Provenance(model="resnet50", layer="layer4", image="photos/cat.jpg")
OLDER: dict[str, Any] = json.loads((Path(__file__).parent / "older_outputs.json").read_text())

HOLDS = {
    "sheet": "cat_conv1",
    "jpg": "cat_conv1",
    "each": "cat_conv1",
    "compare": "cat_dog_conv1_compare",
    "twice": "cat-2_conv1",
    "unsafe": "cat_a-b -c-",
    "clip": "cat_layer1-t1",
    "atlas": "cat",
    "atlases": "conv1/cat",
    "atlas_each": "cat",
    "atlases_each": "conv1/cat",
}


def sheet(path: Path, provenance: cf.Provenance = MADE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cf.save_sheet(noise(2, 3, 3), path, tile=4, provenance=provenance)


def write_older(name: str, path: Path) -> Path:
    """Write a manifest of a draft, and a file for the sheet that it lay beside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(OLDER[name]))
    if path.name != "manifest.json":
        path.with_suffix(".jpg" if name.startswith("jpg/") else ".png").touch()
    return path


@pytest.mark.parametrize("kind", HOLDS)
def test_refuse_older_names_says_what_the_folder_is(kind: str, tmp_path: Path) -> None:
    for name in OLDER:
        if name.startswith(f"{kind}/"):
            write_older(name, tmp_path / name.partition("/")[2])
    with pytest.raises(OptionError) as caught:
        refuse_older_names(tmp_path)
    assert str(caught.value) == (
        f"{str(tmp_path)!r} is an output folder of the older layout, IMAGE_LAYER: it holds {HOLDS[kind]!r}. "
        "Files are LAYER/IMAGE now. Give another folder."
    )


def test_refuse_older_names_finds_one_among_many_of_today(tmp_path: Path) -> None:
    for name in ("a_layer4", "b_layer4", "layer4/a", "layer4/b"):
        sheet(tmp_path / f"{name}.png")
    refuse_older_names(tmp_path)
    write_older("sheet/cat_conv1.json", tmp_path / "cat_conv1.json")
    with pytest.raises(OptionError, match="it holds 'cat_conv1'"):
        refuse_older_names(tmp_path)


def test_refuse_older_names_takes_what_a_user_named(tmp_path: Path) -> None:
    sheet(tmp_path / "cat_layer4.png")  # as 0.1 would have, but with today's version
    sheet(tmp_path / "layer4.png")
    sheet(tmp_path / "kept_layer4.png", cf.Provenance(layer="layer4", image="cat.jpg", atlas="kept_layer4.atlas"))
    cf.save_tiles(noise(2, 3, 3), tmp_path / "dog_layer4", tile=4, provenance=MADE)
    write_older("by_user.json", tmp_path / "conv1.json")  # by a program that used 0.1
    write_older("atlas/cat.json", tmp_path / "dog.json")
    write_older("sheet/cat_conv1.json", tmp_path / "mine" / "cat_conv1.json")
    refuse_older_names(tmp_path)


def test_refuse_older_names_takes_files_of_others(tmp_path: Path) -> None:
    refuse_older_names(tmp_path / "missing")
    (tmp_path / "a_b.json").write_text('no JSON, but "layout"')
    (tmp_path / "a_c.json").write_text(json.dumps(["layout"]))
    (tmp_path / "a_d.json").write_text(json.dumps({"layout": "nchw", "layer": "d", "image": "a"}))
    (tmp_path / "a_e.json").write_text(json.dumps({"cnnviz_fast": "0.1", "layout": 1, "layer": 5, "image": "a"}))
    for name in "bcde":
        (tmp_path / f"a_{name}.png").touch()
    write_older("sheet/cat_conv1.json", tmp_path / "cat_conv1.json").with_suffix(".png").unlink()
    (tmp_path / "a_folder").mkdir()
    refuse_older_names(tmp_path)
    (tmp_path / "a_file").touch()
    refuse_older_names(tmp_path / "a_file")
