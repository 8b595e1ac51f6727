"""`cnnviz atlas` as a user meets it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.assertions import PRINTED, assert_close, assert_equal_planes
from support.cases import mixed, noise
from support.command_line import error_of, run, without_notes
from support.quick import quick
from support.runs import LAYERS, make_images, small_model

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import AtlasError
from cnnviz_fast.options.reading import AxesOptions, PreprocessOptions
from cnnviz_fast.options.runs import RunOptions

SOURCE = cf.Provenance("resnet50", "none", "layer4", "photos/cat.jpg", "nchw")


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """An atlas of one channel of every kind, in a folder of its own."""
    (tmp_path / "atlases").mkdir()
    return cf.save_atlas(mixed(), tmp_path / "atlases" / "cat_layer4.atlas", provenance=SOURCE)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sheets"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run over three images twice: in loose files, and in a tar."""
    folder = tmp_path_factory.mktemp("runs")
    make_images(folder / "in", 3)
    for name, shards in (("loose", None), ("tars", 1)):
        cf.run(small_model(), folder / "in", LAYERS, folder / name, save="atlases,statistics", shards=shards)
    return folder


SHEETS = [f"{layer}/p{n:04d}.png" for layer in LAYERS for n in range(3)]


def pixels_of(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def sheets_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar file; the names of its members may be any."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def test_atlas_draws_a_sheet_that_says_where_it_came_from(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("atlas", atlas, "--out", out, "--tile", "40") == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'layer4' / 'cat_layer4.png'}\n"
    assert without_notes(captured.err) == ""
    assert sorted(os.listdir(out / "layer4")) == ["cat_layer4.json", "cat_layer4.png"]
    direct = cf.render(cf.read_atlas(atlas).maps, tile=40, provenance=SOURCE)
    assert_equal_planes(pixels_of(out / "layer4" / "cat_layer4.png"), direct.index)
    manifest = json.loads((out / "layer4" / "cat_layer4.json").read_text())
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
def test_atlas_takes_the_drawing_options(options: dict[str, str | None], atlas: Path, out: Path) -> None:
    given = [part for name, value in options.items() for part in (f"--{name}", value) if part is not None]
    assert run("atlas", atlas, "--out", out, *given) == cli.DONE
    read = cf.read_atlas(atlas)
    direct = cf.render(
        read.maps, provenance=read.provenance, **{name: value or True for name, value in options.items()}
    )
    manifest = json.loads((out / "layer4" / "cat_layer4.json").read_text())
    assert manifest == json.loads(json.dumps(direct.manifest))
    assert_equal_planes(pixels_of(out / "layer4" / "cat_layer4.png"), direct.index)


def test_atlas_takes_folders_and_keeps_equal_names_apart(
    atlas: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cf.save_atlas(noise(3, 2, 2), tmp_path / "CAT_layer4.atlas", provenance=SOURCE)
    for name in ("b.atlas", "a.atlas"):
        cf.save_atlas(noise(3, 2, 2), atlas.parent / name, provenance=SOURCE)
    (atlas.parent / "notes.txt").write_text("no atlas")
    (atlas.parent / ".hidden.atlas").write_text("no atlas")
    argv = ["atlas", other, atlas.parent, atlas, "--tile", "9", "--out", out]
    assert run(*argv) == cli.DONE
    stems = capsys.readouterr().out.split()
    assert [Path(stem).name[:-13] for stem in (stems[0], stems[3])] == ["CAT_layer4", "cat_layer4"]
    assert stems[1:3] == [str(out / "layer4" / "a.png"), str(out / "layer4" / "b.png")]
    assert sorted(map(str, out.glob("*/*.png"))) == sorted(stems)


def test_atlas_names_files_by_layer_whatever_is_given(runs: Path, out: Path) -> None:
    loose, tars = runs / "loose", runs / "tars"
    for given in ([loose / "0" / "p0000.atlas", loose / "2" / "p0000.atlas"], [loose / "0", loose / "2"], [tars]):
        together, apart = out / given[0].name / "together", out / given[0].name / "apart"
        assert run("atlas", *given, "--out", together, "--tile", "9") == cli.DONE
        for each in given:
            assert run("atlas", each, "--out", apart, "--tile", "9") == cli.DONE
        assert sheets_in(together) == sheets_in(apart) == [sheet for sheet in SHEETS if sheet in sheets_in(apart)]
        assert len(sheets_in(apart)) == (2 if len(given[0].suffix) else 6)


def test_atlas_of_a_vector_with_names_of_classes_is_named_by_its_layer(out: Path, tmp_path: Path) -> None:
    names = [f"class {n * n:x}" for n in range(5000)]
    made = dataclasses.replace(SOURCE, layer="fc", categories=names)
    path = cf.save_atlas(noise(5000, 1, 1), tmp_path / "cat.atlas", provenance=made)
    assert run("atlas", path, "--out", out) == cli.DONE
    assert sheets_in(out) == ["fc/cat.png"]


def test_atlas_reads_little_of_each_file_before_the_first_is_drawn(
    runs: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnviz_fast.formats.atlas_files import AtlasFile

    original, read = AtlasFile.content, []

    def spy(self: AtlasFile, limit: int = -1) -> bytes:
        read.append(limit)
        return original(self, limit)

    monkeypatch.setattr(AtlasFile, "content", spy)
    assert run("atlas", runs / "loose", "--out", out, "--tile", "9") == cli.DONE
    assert read == [4096] * 6 + [-1] * 6


def test_atlas_of_a_clip_names_files_by_step(out: Path, tmp_path: Path) -> None:
    for step in (0, 1):
        made = dataclasses.replace(SOURCE, time_step=step)
        (tmp_path / "clip" / f"t{step}").mkdir(parents=True)
        cf.save_atlas(noise(3, 2, 2), tmp_path / "clip" / f"t{step}" / "cat.atlas", provenance=made)
        assert run("atlas", tmp_path / "clip" / f"t{step}", "--out", out, "--tile", "9") == cli.DONE
    assert sheets_in(out) == ["layer4-t0/cat.png", "layer4-t1/cat.png"]


def test_atlas_without_a_layer_is_named_by_its_folder(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        cf.save_atlas(noise(3, 2, 2), tmp_path / folder / "cat.atlas")
        monkeypatch.chdir(tmp_path / folder)
        assert run("atlas", "cat.atlas", "--out", out, "--tile", "9") == cli.DONE
    assert sheets_in(out) == ["one/cat.png", "two/cat.png"]


def test_atlas_keeps_the_layers_of_a_run_apart(runs: Path, out: Path) -> None:
    assert run("atlas", runs / "loose", "--out", out, "--tile", "9") == cli.DONE
    assert sheets_in(out) == SHEETS
    manifest = json.loads((out / SHEETS[-1]).with_suffix(".json").read_text())
    assert (manifest["layer"], Path(manifest["image"]).stem) == ("2", "p0002")


def test_atlas_draws_a_tar_of_a_run_and_a_run_in_tars(runs: Path, out: Path) -> None:
    expected = out / "expected"
    assert run("atlas", runs / "loose", "--out", expected, "--tile", "9") == cli.DONE
    for provenance in (runs / "tars" / "shard-000000.tar", runs / "tars"):
        assert run("atlas", provenance, "--out", out / provenance.name, "--tile", "9") == cli.DONE
        assert sheets_in(out / provenance.name) == SHEETS
        for sheet in SHEETS:
            assert_equal_planes(pixels_of(out / provenance.name / sheet), pixels_of(expected / sheet))
    manifest = json.loads((out / "tars" / SHEETS[0]).with_suffix(".json").read_text())
    assert manifest["atlas"] == str(runs / "tars" / "shard-000000.tar" / "0" / "p0000.atlas")


def test_atlas_keeps_what_a_tar_names_below_out(atlas: Path, out: Path, tmp_path: Path) -> None:
    names = [
        "/etc/a.atlas", "../../b.atlas", "x/../../c.atlas", "x/./c.atlas", "x\\..\\d.atlas", "con/e.atlas", "A/f.atlas",
        "a/f.atlas", ".git/g.atlas", "x/._h.atlas", "../...atlas", "x:y/i.atlas", "x-y/i.atlas", "j.atlas/notes.txt",
    ]  # fmt: skip
    tar = pack(tmp_path / "hostile.tar", dict.fromkeys(names, atlas.read_bytes()))
    before = set(tmp_path.rglob("*"))
    assert run("atlas", tar, "--out", out, "--tile", "9") == cli.DONE
    assert all(path.is_relative_to(out) for path in set(tmp_path.rglob("*")) - before)
    drawn = sheets_in(out)
    assert len({name.casefold() for name in drawn}) == 10
    assert {Path(name).parent.name for name in drawn} == {"layer4"}
    assert {"layer4/a.png", "layer4/b.png", "layer4/x-..-d.png", "layer4/e.png"} <= set(drawn)
    assert len([name for name in drawn if name.startswith("layer4/c-")]) == 2


@pytest.mark.parametrize("layer", ["../../up", "/etc", "..", "con", ""])
def test_atlas_keeps_what_an_atlas_calls_its_layer_below_out(layer: str, out: Path, tmp_path: Path) -> None:
    made = dataclasses.replace(SOURCE, layer=layer)
    cf.save_atlas(noise(3, 2, 2), tmp_path / "a.atlas", provenance=made)
    before = set(tmp_path.rglob("*"))
    assert run("atlas", tmp_path / "a.atlas", "--out", out, "--tile", "9") == cli.DONE
    assert all(path.is_relative_to(out) for path in set(tmp_path.rglob("*")) - before)
    (drawn,) = sheets_in(out)
    assert drawn.count("/") == 1


def test_atlas_keeps_folders_of_a_tar_below_out(out: Path, tmp_path: Path) -> None:
    content = cf.save_atlas(noise(3, 2, 2), tmp_path / "a.atlas").read_bytes()
    names = ["/etc/a.atlas", "../../b.atlas", "x:y/c.atlas", "x-y/c.atlas", "a.atlas"]
    tar = pack(tmp_path / "hostile.tar", dict.fromkeys(names, content))
    before = set(tmp_path.rglob("*"))
    assert run("atlas", tar, "--out", out, "--tile", "9") == cli.DONE
    assert all(path.is_relative_to(out) for path in set(tmp_path.rglob("*")) - before)
    assert len({name.casefold() for name in sheets_in(out)}) == 5
    assert {"etc/a.png", "hostile.tar/a.png"} <= set(sheets_in(out))


def test_atlas_draws_what_a_damaged_tar_holds_before_the_damage(
    atlas: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = atlas.read_bytes()
    tar = pack(tmp_path / "cut.tar", {"0/a.atlas": content, "0/b.atlas": content[:-9], "0/c.atlas": content})
    with open(tar, "r+b") as file:
        file.truncate(3 * (512 + -(-len(content) // 512) * 512) - 512)
    assert run("atlas", tar, "--out", out, "--tile", "9") == cli.PARTLY
    assert sheets_in(out) == ["layer4/a.png"]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"cnnviz: atlas '{tar}/0/b.atlas' is damaged")
    assert said[1] == f"cnnviz: tar '{tar}' cannot be read to its end: '0/c.atlas' is cut off."
    assert said[2:] == ["cnnviz: 2 of 3 atlases failed."]


def test_atlas_says_how_to_unpack_a_compressed_tar(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    assert run("atlas", tmp_path / "a.tar", "--out", out) == cli.FAILED
    assert "Unpack it once: gunzip a.tar." in error_of(capsys)


@pytest.mark.parametrize("each", [False, True])
def test_atlas_draws_on_the_ranges_of_a_data_set(each: bool, runs: Path, out: Path) -> None:
    path = runs / "loose"
    argv = ["atlas", path, "--out", out, "--tile", "9", *(["--each"] if each else [])]
    assert run(*argv, "--normalize", "dataset", "--statistics", path, "--percentile", "5,95") == cli.DONE
    for layer, statistics in cf.read_statistics(path).items():
        file = out / layer / ("tiles/p0001/manifest.json" if each else "p0001.json")
        tiles = json.loads(file.read_text())["tiles"]
        vmin, vmax = statistics.drawing_range((5.0, 95.0))
        assert_close([tile["vmin"] for tile in tiles], vmin, PRINTED)
        assert_close([tile["vmax"] for tile in tiles], vmax, PRINTED)


def test_atlas_statistics_that_do_not_suit_are_refused(
    atlas: Path, runs: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "loose" / "statistics.safetensors"
    for more, said in (
        (["--normalize", "dataset", "--statistics", path], "cat_layer4.atlas: statistics have no layer 'layer4'."),
        (["--normalize", "dataset", "--statistics", atlas], f"statistics '{atlas}' cannot be read"),
        (["--normalize", "dataset"], "of the data set. Give them with --statistics RUN.\n"),
    ):
        assert run("atlas", atlas, "--out", out, *more) == cli.USAGE
        assert said in error_of(capsys)
    argv = ["atlas", runs / "loose" / "0", "--out", out, "--statistics", path]
    assert run(*argv) == cli.USAGE
    assert "statistics go with normalize 'dataset'" in error_of(capsys)
    assert os.listdir(out) == []


def test_atlas_each_writes_single_files(atlas: Path, out: Path) -> None:
    argv = ["atlas", atlas, "--out", out, "--each", "--scale", "2"]
    assert run(*argv, "--name", "{channel:02d}{suffix}.png", "--suffix", "b") == cli.DONE
    folder = out / "layer4" / "tiles" / "cat_layer4"
    assert sorted(os.listdir(folder)) == [*(f"{c:02d}b.png" for c in range(8)), "manifest.json"]
    tiles = cf.save_tiles(cf.read_atlas(atlas).maps, out / "direct", scale=2)
    assert_equal_planes(pixels_of(folder / "07b.png"), pixels_of(tiles[7]))


def test_atlas_over_an_image(atlas: Path, out: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(photo)
    argv = ["atlas", atlas, "--out", out, "--tile", "32", "--overlay", photo, "--alpha", "0.3"]
    assert run(*argv, "--max-pixels", 48 * 64) == cli.DONE
    direct = cf.render(cf.read_atlas(atlas).maps, tile=32, overlay=photo, alpha=0.3, provenance=SOURCE)
    assert_equal_planes(pixels_of(out / "layer4" / "cat_layer4.png"), direct.rgb())


def test_atlas_json_and_report_name_atlas_image_and_layer(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["atlas", atlas, "--out", out, "--format", "jpg", "--tile", "9", "--report"]
    of = {"atlas": str(atlas), "image": "photos/cat.jpg", "layer": "layer4"}
    assert run(*argv, "--json") == cli.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == [{**of, "path": str(out / "layer4" / "cat_layer4.jpg")}]
    assert document["failed"] == []
    assert {key: document["reports"][0][key] for key in of} == of
    assert document["reports"][0]["dead"] == [1]
    assert run(*argv) == cli.DONE
    assert capsys.readouterr().err.splitlines()[0] == f"{atlas}, photos/cat.jpg, layer4:"


def test_atlas_one_bad_file_does_not_stop_the_others(
    atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = atlas.with_name("bad.atlas")
    bad.write_bytes(atlas.read_bytes()[:-9])
    assert run("atlas", atlas.parent, "--out", out, "--tile", "9", "--json") == cli.PARTLY
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [file["path"] for file in document["files"]] == [str(out / "layer4" / "cat_layer4.png")]
    assert [failure["atlas"] for failure in document["failed"]] == [str(bad)]
    said = captured.err.splitlines()
    assert said[0].startswith(f"cnnviz: atlas '{bad}' is damaged")
    assert said[1:] == ["cnnviz: 1 of 2 atlases failed."]
    with pytest.raises(AtlasError):
        run("atlas", bad, "--out", out, "--debug")


def test_atlas_only_bad_files_fails(atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = atlas.parents[1] / "empty"
    (empty / ".hidden").mkdir(parents=True)
    shutil.copy(atlas, empty / ".hidden")
    pack(empty.with_suffix(".tar"), {"a.png": b"no atlas"})
    for argument, said in (
        (atlas.with_name("absent.atlas"), "No such file"),
        (atlas.with_name("absent.tar"), "absent.tar' cannot be read to its end: No such file or directory."),
        (empty, f"folder '{empty}' holds no atlases"),
        (empty.with_suffix(".tar"), f"tar '{empty}.tar' holds no atlases"),
    ):
        assert run("atlas", argument, "--out", out) == cli.FAILED
        assert said in error_of(capsys)
    assert not out.exists() or os.listdir(out) == []


WRONG = {
    "max-pixels": (["--max-pixels", "64"], "max-pixels goes with overlay here, as an atlas holds no image."),
    "overlay": (["--overlay"], "overlay needs the path of an image here, as an atlas holds none."),
    "name": (["--name", "{channel}.png"], "name and suffix go with each"),
    "device": (["--device", "moon"], "device must be auto, cpu or a device that is there, got 'moon'"),
    "format": (["--format", "gif"], "must be one of .png"),
    "colormap": (["--colormap", "viridas"], "Closest: 'viridis'"),
    "channels": (["--channels", "0-8"], "cat_layer4.atlas: channels must lie in 0..7, got 8"),
    "single files of a sheet's": (["--each", "--gap", "2"], "cat_layer4.atlas: gap belongs to sheets"),
}


@pytest.mark.parametrize("case", WRONG)
def test_atlas_wrong_option_says_so_in_one_line(
    case: str, atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, said = WRONG[case]
    assert run("atlas", atlas, "--out", out, *more) == cli.USAGE
    assert said in error_of(capsys)
    assert not out.exists() or os.listdir(out) == []


def options_of(*records: type) -> list[str]:
    return [field.name for record in records for field in dataclasses.fields(record)]


OF_A_MODEL = ["layer", "weights", "seed", *options_of(PreprocessOptions, AxesOptions, RunOptions)]
OF_A_MODEL.remove("statistics")
OF_A_MODEL.remove("top_k")  # which is an atlas's own, spelt in another way
OF_A_MODEL = [name.replace("_", "-") for name in OF_A_MODEL]


@pytest.mark.parametrize("name", quick(OF_A_MODEL, OF_A_MODEL[::5]))
def test_atlas_refuses_every_option_of_a_model_and_of_a_run(
    name: str, atlas: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("atlas", atlas, "--out", out, f"--{name}", "2")
    assert exit_.value.code == cli.USAGE
    said = capsys.readouterr().err
    assert said.startswith(f"cnnviz atlas has no option --{name}: it belongs to 'cnnviz ")
    assert said.splitlines()[1:] == ["usage: cnnviz atlas ATLAS... [options]"]
    assert not out.exists()


def test_atlas_model_and_image_are_no_atlases(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("atlas", "resnet50", "cat.jpg", "--out", out) == cli.FAILED
    assert "atlas 'resnet50' cannot be read: No such file or directory." in capsys.readouterr().err
