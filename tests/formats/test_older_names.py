"""Output folders of the older layout, IMAGE_LAYER.png, are recognised by their manifests; nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cases import noise

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError
from cnnviz_fast.formats.older_names import refuse_older_names

MADE = cf.Provenance(model="resnet50", layer="layer4", image="photos/cat.jpg")


def sheet(path: Path, provenance: cf.Provenance = MADE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cf.save_sheet(noise(2, 3, 3), path, tile=4, provenance=provenance)


def older(folder: Path, kind: str) -> None:
    """Write one output as 0.1 named it."""
    if kind == "tiles":
        cf.save_tiles(noise(2, 3, 3), folder / "cat_layer4", tile=4, provenance=MADE)
    elif kind == "compare":
        comparison = cf.compare(noise(2, 3, 3), noise(2, 3, 3), tile=4, provenance_a=MADE, provenance_b=MADE)
        comparison.save(folder / "cat_layer4.png")
    else:
        sheet(folder / f"cat_layer4.{kind}")


@pytest.mark.parametrize("kind", ["png", "npy", "jpg", "tiles", "compare"])
def test_refuse_older_names_says_what_the_folder_is(kind: str, tmp_path: Path) -> None:
    older(tmp_path, kind)
    name = "cat_layer4_compare" if kind == "compare" else "cat_layer4"
    with pytest.raises(OptionError) as caught:
        refuse_older_names(tmp_path)
    assert str(caught.value) == (
        f"{str(tmp_path)!r} is an output folder of the older layout, IMAGE_LAYER: it holds {name!r}. "
        "Files are LAYER/IMAGE now. Give another folder."
    )


def test_refuse_older_names_of_a_layer_with_an_unsafe_name(tmp_path: Path) -> None:
    sheet(tmp_path / "cat_a-b.png", cf.Provenance(layer="a/b", image="cat.png"))
    with pytest.raises(OptionError, match="older layout"):
        refuse_older_names(tmp_path)


def test_refuse_older_names_takes_everything_else(tmp_path: Path) -> None:
    refuse_older_names(tmp_path / "missing")
    sheet(tmp_path / "layer4" / "cat.png")  # today's
    sheet(tmp_path / "layer4.png")  # named by a user
    sheet(tmp_path / "my_layer4.png", cf.Provenance())  # without an origin
    sheet(tmp_path / "kept_layer4.png", cf.Provenance(layer="layer4", image="cat.jpg", atlas="kept_layer4.atlas"))
    cf.save_tiles(noise(2, 3, 3), tmp_path / "layer4", tile=4, provenance=MADE)
    (tmp_path / "a_b.json").write_text("no JSON")
    (tmp_path / "a_b.png").touch()
    (tmp_path / "a_c.json").write_text(json.dumps(["a list"]))
    (tmp_path / "a_c.png").touch()
    (tmp_path / "cat_layer4.json").write_text(json.dumps({"cnnviz_fast": "0.1", "layer": "layer4", "image": "cat"}))
    (tmp_path / "a_folder").mkdir()
    refuse_older_names(tmp_path)
    (tmp_path / "a_file").touch()
    refuse_older_names(tmp_path / "a_file")
