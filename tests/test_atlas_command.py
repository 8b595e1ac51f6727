"""`cnnviz render --from-atlas` as a user meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_equal_planes
from cases import mixed, noise
from command_line import error_of, run
from PIL import Image

import cnnviz_fast as cf
from cnnviz_fast import cli
from cnnviz_fast.errors import AtlasError

SOURCE = cf.Source("resnet50", "none", "layer4", "photos/cat.jpg", "nchw")


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """An atlas of one channel of every kind, in a folder of its own."""
    (tmp_path / "atlases").mkdir()
    return cf.save_atlas(mixed(), tmp_path / "atlases" / "cat_layer4.atlas", source=SOURCE)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sheets"


def pixels_of(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def test_from_atlas_draws_a_sheet_that_says_where_it_came_from(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", "--from-atlas", atlas, "--out", out, "--tile", "40") == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'cat_layer4.png'}\n"
    assert captured.err == ""
    assert sorted(os.listdir(out)) == ["cat_layer4.json", "cat_layer4.png"]
    assert_equal_planes(pixels_of(out / "cat_layer4.png"), cf.render(cf.read_atlas(atlas).maps, tile=40).index)
    manifest = json.loads((out / "cat_layer4.json").read_text())
    wanted = {"model": "resnet50", "layer": "layer4", "image": "photos/cat.jpg", "atlas": str(atlas)}
    assert {key: manifest[key] for key in wanted} == wanted
    assert [tile["inf"] for tile in manifest["tiles"]] == [0, 0, 0, 0, 2, 0, 0, 0]


@pytest.mark.parametrize(
    "options",
    [
        {"scale": "3", "gap": "2", "grid": "2x4", "colormap": "magma", "align": "left"},
        {"normalize": "percentile", "percentile": "10,90", "channels": "0,4-7"},
        {"normalize": "fixed", "vmin": "-1", "vmax": "1", "upsampling": "nearest", "margin": "3", "bad": "red"},
        {"topk": "3", "rank": "variance", "label": None, "colorbar": None, "title": "{layer} of {image}"},
        {"reduce": "sum,max", "beside": None, "backend": "torch", "threads": "1", "report": None},
    ],
)
def test_from_atlas_takes_the_drawing_options(options: dict[str, str | None], atlas: Path, out: Path) -> None:
    given = [part for name, value in options.items() for part in (f"--{name}", value) if part is not None]
    assert run("render", "--from-atlas", atlas, "--out", out, *given) == cli.DONE
    read = cf.read_atlas(atlas)
    direct = cf.render(read.maps, source=read.source, **{name: value or True for name, value in options.items()})
    manifest = json.loads((out / "cat_layer4.json").read_text())
    assert manifest == json.loads(json.dumps(direct.manifest))
    assert_equal_planes(pixels_of(out / "cat_layer4.png"), direct.index)


def test_from_atlas_takes_folders_and_keeps_equal_names_apart(
    atlas: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cf.save_atlas(noise(3, 2, 2), tmp_path / "CAT_layer4.atlas")
    for name in ("b.atlas", "a.atlas"):
        cf.save_atlas(noise(3, 2, 2), atlas.parent / name)
    (atlas.parent / "notes.txt").write_text("no atlas")
    (atlas.parent / ".hidden.atlas").write_text("no atlas")
    argv = ["render", "--tile", "9", "--out", out, "--from-atlas", other, "--from-atlas", atlas.parent]
    assert run(*argv) == cli.DONE
    stems = ["CAT_layer4", "a", "b", "cat_layer4-2"]
    assert capsys.readouterr().out.split() == [str(out / f"{stem}.png") for stem in stems]
    assert sorted(path.stem for path in out.glob("*.png")) == sorted(stems)


def test_from_atlas_each_writes_single_files(atlas: Path, out: Path) -> None:
    argv = ["render", "--from-atlas", atlas, "--out", out, "--each", "--scale", "2"]
    assert run(*argv, "--name", "{channel:02d}{suffix}.png", "--suffix", "b") == cli.DONE
    folder = out / "cat_layer4"
    assert sorted(os.listdir(folder)) == [*(f"{c:02d}b.png" for c in range(8)), "manifest.json"]
    tiles = cf.save_tiles(cf.read_atlas(atlas).maps, out / "direct", scale=2)
    assert_equal_planes(pixels_of(folder / "07b.png"), pixels_of(tiles[7]))


def test_from_atlas_over_a_picture(atlas: Path, out: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(photo)
    argv = ["render", "--from-atlas", atlas, "--out", out, "--tile", "32", "--overlay", photo, "--alpha", "0.3"]
    assert run(*argv, "--max-pixels", 48 * 64) == cli.DONE
    direct = cf.render(cf.read_atlas(atlas).maps, tile=32, overlay=photo, alpha=0.3)
    assert_equal_planes(pixels_of(out / "cat_layer4.png"), direct.rgb())


def test_from_atlas_json_and_report_name_atlas_picture_and_layer(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", "--from-atlas", atlas, "--out", out, "--format", "jpg", "--tile", "9", "--report"]
    of = {"atlas": str(atlas), "image": "photos/cat.jpg", "layer": "layer4"}
    assert run(*argv, "--json") == cli.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == [{**of, "path": str(out / "cat_layer4.jpg")}]
    assert document["failed"] == []
    assert {key: document["reports"][0][key] for key in of} == of
    assert document["reports"][0]["dead"] == [1]
    assert run(*argv) == cli.DONE
    assert capsys.readouterr().err.splitlines()[0] == f"{atlas}, photos/cat.jpg, layer4:"


def test_from_atlas_one_bad_file_does_not_stop_the_others(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = atlas.with_name("bad.atlas")
    bad.write_bytes(atlas.read_bytes()[:-9])
    assert run("render", "--from-atlas", atlas.parent, "--out", out, "--tile", "9", "--json") == cli.PARTLY
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [file["path"] for file in document["files"]] == [str(out / "cat_layer4.png")]
    assert [failure["atlas"] for failure in document["failed"]] == [str(bad)]
    said = captured.err.splitlines()
    assert said[0].startswith(f"cnnviz: atlas '{bad}' is damaged")
    assert said[1:] == ["cnnviz: 1 of 2 atlases failed."]
    with pytest.raises(AtlasError):
        run("render", "--from-atlas", bad, "--out", out, "--debug")


def test_from_atlas_only_bad_files_fails(atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argument, said in ((atlas.with_name("absent.atlas"), "No such file"), (atlas.parents[1], "holds no atlases")):
        assert run("render", "--from-atlas", argument, "--out", out) == cli.FAILED
        assert said in error_of(capsys)
    assert not out.exists() or os.listdir(out) == []


WRONG = {
    "MODEL": (["resnet50"], "MODEL goes with a model, and from-atlas draws what one has put out. Leave it out."),
    "IMAGE": (["resnet50", "cat.jpg"], "MODEL goes with a model"),
    "layer": (["--layer", "conv1"], "layer goes with a model"),
    "weights": (["--weights", "none"], "weights goes with a model"),
    "seed": (["--seed", "3"], "seed goes with a model"),
    "size": (["--size", "64"], "size goes with a model"),
    "layout": (["--layout", "nhwc"], "layout goes with a model"),
    "max-pixels": (["--max-pixels", "64"], "max-pixels goes with a model"),
    "overlay": (["--overlay"], "overlay needs a picture with from-atlas, as an atlas holds none. Give its path."),
    "name": (["--name", "{channel}.png"], "name and suffix go with each"),
    "device": (["--device", "moon"], "device must be auto, cpu or a device that is there, got 'moon'"),
    "format": (["--format", "gif"], "must be one of .png"),
    "colormap": (["--colormap", "viridas"], "Closest: 'viridis'"),
    "channels": (["--channels", "0-8"], "cat_layer4.atlas: channels must lie in 0..7, got 8"),
    "single files of a sheet's": (["--each", "--gap", "2"], "cat_layer4.atlas: gap belongs to sheets"),
}


@pytest.mark.parametrize("case", WRONG)
def test_from_atlas_wrong_option_says_so_in_one_line(
    case: str, atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, said = WRONG[case]
    assert run("render", *more, "--from-atlas", atlas, "--out", out) == cli.USAGE
    assert said in error_of(capsys)
    assert not out.exists() or os.listdir(out) == []


def test_from_atlas_of_one_run_asks_for_a_model_in_the_next(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", "--from-atlas", atlas, "--out", out, "--tile", "9") == cli.DONE
    with pytest.raises(SystemExit) as exit_:
        run("render", "--out", out)
    assert exit_.value.code == cli.USAGE
    assert "the following arguments are required: MODEL, IMAGE, --layer" in capsys.readouterr().err
