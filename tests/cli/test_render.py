"""cnnviz render: what it prints where, what each option does to the sheet, and what it refuses in one line."""

from __future__ import annotations

import json
import os
import resource
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.assertions import assert_equal_planes
from support.command_line import TINY, error_of, run, without_notes

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.options.reading import AxesOptions, PreprocessOptions
from cnnviz_fast.sheets.input_image import LEAST_PX


def test_render_prints_the_path_of_each_file(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", model, cat, "--layer", "conv", "--out", out, "--plain", "--tile", "20") == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'conv' / 'cat.png'}\n"
    assert without_notes(captured.err) == ""
    assert os.listdir(out) == ["conv"]
    assert sorted(os.listdir(out / "conv")) == ["cat.json", "cat.png"]
    manifest = json.loads((out / "conv" / "cat.json").read_text())
    assert manifest["image"] == str(cat)
    assert manifest["model"] == model
    assert manifest["layer"] == "conv"
    assert [tile["channel"] for tile in manifest["tiles"]] == list(range(6))
    with Image.open(out / "conv" / "cat.png") as image:
        assert image.size == (3 * 20, 2 * 20)


@pytest.mark.parametrize("more", [(), ("--each",)], ids=["sheets", "tiles"])
def test_render_keeps_what_another_model_made_unless_told_otherwise(
    more: tuple[str, ...], model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cat.with_name("other.py")
    other.write_text(TINY)

    def render(spec: object, *options: str) -> int:
        return run("render", spec, cat, "--layer", "conv", "--out", out, "--tile", "9", *more, *options)

    assert render(model) == render(model) == cli.DONE
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    capsys.readouterr()
    assert render(f"{other}:make") == 2
    assert "out must not hold what another model made where this one's goes" in without_notes(capsys.readouterr().err)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    assert render(f"{other}:make", "--overwrite") == cli.DONE
    (manifest,) = out.rglob("*.json")
    assert json.loads(manifest.read_text())["model"] == f"{other}:make"


def test_render_json_lists_files_and_failures(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = cat.with_name("bad.png")
    bad.write_text("no image")
    assert run("render", model, cat, bad, "--layer", "conv", "--out", out, "--json") == cli.PARTLY
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [f["path"] for f in document["files"]] == [str(out / "conv" / "cat.png")]
    assert [f["image"] for f in document["failed"]] == [str(bad)]
    assert str(bad) in captured.err
    assert "1 of 2 images failed" in captured.err


def test_render_one_bad_image_does_not_stop_the_others(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cat.parent / "zero.png").write_bytes(b"")
    (cat.parent / "cut.png").write_bytes(cat.read_bytes()[:200])
    images = [cat.with_name("zero.png"), cat, cat.with_name("cut.png")]
    assert run("render", model, *images, "--layer", "conv", "--out", out, "--tile", "9") == cli.PARTLY
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'conv' / 'cat.png'}\n"
    assert "zero.png" in captured.err
    assert "cut.png" in captured.err
    assert sorted(os.listdir(out / "conv")) == ["cat.json", "cat.png"]


def test_render_only_bad_images_fails(model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cat.write_bytes(b"")
    assert run("render", model, cat, "--layer", "conv", "--out", out) == cli.FAILED
    assert "cat.png" in error_of(capsys)
    assert os.listdir(out) == []


@pytest.mark.parametrize("command", ["render", "run"])
def test_same_name_in_two_folders_keeps_both(command: str, model: str, cat: Path, out: Path) -> None:
    other = cat.parent / "other" / "CAT.png"
    other.parent.mkdir()
    Image.new("RGB", (40, 40)).save(other)
    second = other if command == "render" else other.parent
    assert run(command, model, cat, second, "--layer", "conv", "--out", out, "--tile", "9") == cli.DONE
    assert len(list((out / "conv").glob("[cC][aA][tT]-????????.png"))) == 2


CHANGES = {
    # One run a parameter: what is given (None for a switch), and what of the manifest it must change.
    "tile": ("13", lambda m: (m["sheet"]["tile_h"], m["sheet"]["tile_w"])),
    "scale": ("3", lambda m: m["sheet"]["tile_h"]),
    "grid": ("1x6", lambda m: (m["sheet"]["rows"], m["sheet"]["cols"])),
    "plain": (None, lambda m: m["sheet"]["head"]),
    "gap": ("3", lambda m: m["sheet"]["height"]),
    "margin": ("4", lambda m: m["sheet"]["height"]),
    "normalize": ("layer", lambda m: m["tiles"][0]["vmin"]),
    "percentile": ("10,90", lambda m: m["tiles"][0]["vmin"]),
    "vmin": ("-1", lambda m: m["tiles"][0]["vmin"]),
    "vmax": ("1", lambda m: m["tiles"][0]["vmax"]),
    "channels": ("1,3-4", lambda m: [t["channel"] for t in m["tiles"]]),
    "topk": ("2", lambda m: len(m["tiles"])),
    "sort": (None, lambda m: [t["channel"] for t in m["tiles"]]),
    "rank": ("variance", lambda m: [t["rank"] for t in m["tiles"]]),
    "reduce": ("sum,max", lambda m: [t.get("reduce") for t in m["tiles"]]),
    "beside": (None, lambda m: len(m["tiles"])),
    "report": (None, lambda m: "report" in m),
    "label": (None, lambda m: m["sheet"]["label_h"]),
    "title": ("", lambda m: m["sheet"]["head"]),
    "no-marks": (None, None),
    "colorbar": (None, lambda m: m["sheet"]["foot"]),
    "backend": ("torch", lambda m: m["backend"]),
    "align": ("left", None),
    "upsampling": ("nearest", None),
    "colormap": ("gray", None),
    "background": ("red", None),
    "bad": ("blue", None),
    "threads": ("1", None),
    "axes": ("nhwc", lambda m: m["axes"]),
    "size": ("32", lambda m: m["maps"]["shape"]),
    "interpolation": ("nearest", None),
    "mean": ("0,0,0", None),
    "std": ("1,1,1", None),
    "channel-order": ("bgr", None),
}


COMPANIONS = {
    "percentile": ["--normalize", "percentile"],
    "vmin": ["--normalize", "fixed", "--vmax", "2"],
    "vmax": ["--normalize", "fixed", "--vmin", "-2"],
    "scale": [],
    "rank": ["--tile", "9", "--sort"],
    "beside": ["--tile", "9", "--reduce", "mean"],
    "background": ["--gap", "2", "--tile", "9"],
    "interpolation": ["--size", "40", "--tile", "40"],
}


ODD = {
    # Models with what the option is about: a channel that is not a number, one that is dead.
    "bad": "m.conv.bias.data[2] = float('nan')",
    "no-marks": "m.conv.weight.data[2] = m.conv.bias.data[2] = 0",
}


def test_changes_cover_every_option() -> None:
    fields = {f for record in (RenderOptions, PreprocessOptions, AxesOptions) for f in record.__dataclass_fields__}
    assert {name.removeprefix("no-").replace("-", "_") for name in CHANGES} == fields - {
        "planes"
    }  # which volumes have, see activations/test_signals_and_volumes.py


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return a folder with a model and an image, and what was drawn of them before any option was given."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("make", *ODD):
        odd = f"def make():\n    m = made()\n    {ODD[name]}\n    return m\n" if name in ODD else ""
        (folder / f"{name}.py").write_text(f"{TINY.replace('def make', 'def made')}\n{odd}" if odd else TINY)
    levels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "cat.png")
    return SimpleNamespace(folder=folder, before={})


@pytest.mark.parametrize("name", CHANGES)
def test_render_option_reaches_the_sheet(name: str, shared: SimpleNamespace) -> None:
    value, look = CHANGES[name]
    common = COMPANIONS.get(name, [] if name in ("tile", "scale") else ["--tile", "40"])

    def sheet(*more: str) -> tuple[dict[str, object], bytes]:
        model = f"{shared.folder / (name if name in ODD else 'make')}.py:make"
        out = shared.folder / "sheets"
        argv = ["render", model, shared.folder / "cat.png", "--layer", "conv", "--out", out, "--overwrite"]
        assert run(*argv, *common, *more) == cli.DONE
        with Image.open(out / "conv" / "cat.png") as image:
            return json.loads((out / "conv" / "cat.json").read_text()), image.convert("RGB").tobytes()

    needed = {"percentile": "1,99", "vmin": "-2", "vmax": "2"}.get(name)
    first = [f"--{name}", needed] if needed else []
    drawn = (name if name in ODD else "", *common, *first)
    if drawn not in shared.before:
        shared.before[drawn] = sheet(*first)
    before, pixels_before = shared.before[drawn]
    after, pixels_after = sheet(f"--{name}", *([] if value is None else [value]))
    if name == "threads":
        assert pixels_before == pixels_after
        assert (before["options"]["threads"], after["options"]["threads"]) == (None, 1)
    elif look is None:
        assert pixels_before != pixels_after
    else:
        assert look(before) != look(after)


def test_render_as_users_see_it_is_labelled_titled_and_apart(model: str, cat: Path, out: Path) -> None:
    def sheet(*more: str) -> dict[str, Any]:
        assert run("render", model, cat, "--layer", "conv", "--size", "64", "--out", out, *more) == cli.DONE
        manifest: dict[str, Any] = json.loads((out / "conv" / "cat.json").read_text())
        return manifest

    usual = sheet()
    # Maps of 8 x 8: the largest tiles fit a screen, and cells of 28 px are shown as they are.
    wanted = {"tile_h": 224, "tile_w": 224, "gap": 4, "margin": 8}
    assert {name: usual["sheet"][name] for name in wanted} == wanted
    assert usual["sheet"]["label_h"] > 0
    assert usual["sheet"]["head"] > 0
    assert (usual["options"]["label"], usual["options"]["upsampling"]) == (True, "nearest")
    assert sheet("--label")["sheet"] == usual["sheet"]
    assert sheet("--no-label")["sheet"]["label_h"] == 0
    assert sheet("--title", "")["sheet"]["head"] == 0
    plain = sheet("--plain")
    names = ("tile_h", "tile_w", "gap", "margin", "label_h", "head", "foot", "rows", "cols")
    assert [plain["sheet"][name] for name in names] == [224, 224, 0, 0, 0, 0, 0, 2, 3]
    assert plain["options"]["upsampling"] == "bilinear"
    assert sheet("--plain", "--gap", "2", "--label")["sheet"]["gap"] == 2
    assert sheet("--plain", "--label")["sheet"]["label_h"] == usual["sheet"]["label_h"]


def test_render_plain_is_the_sheet_of_the_maps_alone(model: str, cat: Path, out: Path) -> None:
    assert run("render", model, cat, "--layer", "conv", "--out", out, "--plain", "--tile", "30") == cli.DONE
    loaded = cf.load_model(model)
    maps = cf.capture(loaded, cf.load_images(cat, loaded), "conv")["conv"][0]
    with Image.open(out / "conv" / "cat.png") as image:
        assert_equal_planes(np.asarray(image), cf.render_index(maps, tile=30).numpy())


def test_render_title_leaves_out_the_folders_of_the_models_file(model: str, cat: Path, out: Path) -> None:
    deep = cat.parent / ("long" * 20) / "tiny.py"
    deep.parent.mkdir()
    deep.write_text(TINY)
    sheets = []
    for spec in (model, f"{deep}:make"):
        assert run("render", spec, cat, "--layer", "conv", "--tile", "9", "--out", out, "--overwrite") == cli.DONE
        with Image.open(out / "conv" / "cat.png") as image:
            sheets.append(np.asarray(image))
    assert_equal_planes(*sheets)


@pytest.mark.parametrize("layer", ["conv", "head"])
def test_render_input_stands_above_the_grid(layer: str, model: str, cat: Path, out: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(cat)
    sizes = []
    for more in ([], ["--input"]):
        argv = ["--layer", layer, "--tile", "9", "--title", "", "--out", out, *more]
        assert run("render", model, cat, *argv) == cli.DONE
        with Image.open(out / layer / "cat.png") as image:
            sizes.append(image.size)
            pixels = np.asarray(image.convert("RGB"))
    assert sizes[1][1] > sizes[0][1] + LEAST_PX
    assert (pixels[8 : 8 + LEAST_PX, 8 : 8 + LEAST_PX] == [255, 0, 0]).all()


def test_render_input_where_it_means_nothing_is_refused(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", model, cat, "--layer", "conv", "--out", out, "--input"]
    assert run(*argv, "--each") == cli.USAGE
    assert "input belongs to sheets; single tiles have none. Leave it out." in error_of(capsys)
    assert run(*argv, "--overlay", cat) == cli.USAGE
    assert "overlay and the input above the grid must be one image, got two." in error_of(capsys)
    signals = cat.with_name("signals.py")
    signals.write_text("import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3))\n")
    np.save(cat.with_name("signal.npy"), np.zeros((1, 9), np.float32))
    argv[1:5] = [f"{signals}:make", cat.with_name("signal.npy"), "--layer", "0"]
    assert run(*argv) == cli.USAGE
    assert "overlay and input go with images and volumes; this model takes signals." in error_of(capsys)
    assert not list(out.rglob("*.png"))


def test_render_format_decides_the_file(model: str, cat: Path, out: Path) -> None:
    for name, magic in {"png": b"\x89PNG", "jpg": b"\xff\xd8", "webp": b"RIFF", "npy": b"\x93NUMPY"}.items():
        argv = ["render", model, cat, "--layer", "conv", "--out", out, "--tile", "9"]
        assert run(*argv, "--format", name) == cli.DONE
        assert (out / "conv" / f"cat.{name}").read_bytes().startswith(magic)


def test_render_report_is_told_on_stderr(model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", model, cat, "--layer", "conv", "--out", out, "--tile", "9", "--report") == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'conv' / 'cat.png'}\n"
    lines = without_notes(captured.err).splitlines()
    assert lines[0] == f"{cat}, conv:"
    assert lines[1] == "channels   6"
    assert [line.split()[0] for line in lines[2:]] == [
        "values", "sparsity", "dead", "flat", "saturated", "nonfinite", "ranges",
    ]  # fmt: skip
    report = json.loads((out / "conv" / "cat.json").read_text())["report"]
    assert lines[-1].split()[1:11] == [str(count) for count in report["ranges"]["counts"]]


def test_render_report_with_json_is_in_the_document(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", model, cat, "--layer", "conv", "--out", out, "--tile", "9", "--json"]
    assert run(*argv, "--report") == cli.DONE
    captured = capsys.readouterr()
    assert without_notes(captured.err) == ""
    manifest = json.loads((out / "conv" / "cat.json").read_text())
    assert json.loads(captured.out)["reports"] == [{"image": str(cat), "layer": "conv", **manifest["report"]}]
    assert run(*argv) == cli.DONE
    assert sorted(json.loads(capsys.readouterr().out)) == ["failed", "files"]


def test_render_report_of_a_vector_with_json_has_records_of_the_strongest(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", model, cat, "--layer", "head", "--out", out, "--json", "--report") == cli.DONE
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["strongest"] == json.loads((out / "head" / "cat.json").read_text())["strongest"]
    assert len(report["strongest"]) == 4


def test_render_seed_and_weights_change_the_maps(cat: Path, tmp_path: Path) -> None:
    def ranges(folder: str, *more: str) -> list[float]:
        argv = ["render", "squeezenet1_1", cat, "--layer", "features.0", "--out", tmp_path / folder, "--tile", "9"]
        assert run(*argv, *more) == cli.DONE
        manifest = json.loads((tmp_path / folder / "features.0" / "cat.json").read_text())
        return [tile["vmin"] for tile in manifest["tiles"]]

    seed_0 = ranges("0", "--weights", "none")
    assert seed_0 == ranges("0 again", "--weights", "none", "--seed", "0")
    assert seed_0 != ranges("1", "--weights", "none", "--seed", "1")


def test_render_device_cuda_without_one_is_refused(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert run("render", model, cat, "--layer", "conv", "--out", out, "--device", "cuda") == cli.USAGE
    assert "device" in error_of(capsys)
    assert run("render", model, cat, "--layer", "conv", "--out", out, "--device", "cpu", "--tile", "9") == cli.DONE


def test_render_max_pixels_limits_the_image(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["render", model, cat, "--layer", "conv", "--out", out, "--tile", "9", "--max-pixels"]
    assert run(*argv, 64 * 96 - 1) == cli.FAILED
    error = error_of(capsys)
    assert "6,144" in error or "6144" in error
    assert run(*argv, 64 * 96) == cli.DONE


BAD_USAGE = {
    "unknown layer": (["--layer", "convv"], cli.USAGE, "no layer 'convv' in the model. Closest: 'conv'"),
    "layer index out of range": (["--layer", "7"], cli.USAGE, "got 7"),
    "vector as maps": (["--layer", "head", "--axes", "nchw"], cli.USAGE, "'head' must put out (N, C, H, W) for"),
    "unknown colormap": (["--colormap", "viridas"], cli.USAGE, "Closest: 'viridis'"),
    "unknown backend": (["--backend", "numbra"], cli.USAGE, "Closest: 'numba'"),
    "unknown normalize": (["--normalize", "chanel"], cli.USAGE, "Closest: 'channel'"),
    "unknown colour": (["--background", "blurple"], cli.USAGE, "background must be the name of a colour"),
    "unknown format": (["--format", "gif"], cli.USAGE, "must be one of .png"),
    "small grid": (["--grid", "2x2"], cli.USAGE, "grid must hold all 6 channels, got 2x2 = 4 cells"),
    "tile 0": (["--tile", "0"], cli.USAGE, "tile must be a whole number of at least 1, got 0"),
    "tile negative": (["--tile", "-3"], cli.USAGE, "tile must be a whole number of at least 1, got -3"),
    "tile word": (["--tile", "big"], cli.USAGE, "tile must be a whole number of at least 1, got 'big'"),
    "scale 0": (["--scale", "0"], cli.USAGE, "scale must be a number above 0"),
    "tile and scale": (["--tile", "9", "--scale", "2"], cli.USAGE, "tile and scale"),
    "topk 0": (["--topk", "0"], cli.USAGE, "topk must be a whole number of at least 1, got 0"),
    "topk too large": (["--topk", "7"], cli.USAGE, "topk must be at most the 6 channels to choose from, got 7"),
    "unknown rank": (["--topk", "2", "--rank", "men"], cli.USAGE, "Closest: 'mean'"),
    "rank of what is reduced": (["--rank", "mean", "--reduce", "sum"], cli.USAGE, "rank goes with topk or sort"),
    "unknown reduce": (["--reduce", "summ"], cli.USAGE, "Closest: 'sum'"),
    "beside alone": (["--beside"], cli.USAGE, "beside goes with reduce"),
    "sort of nothing": (["--sort", "--reduce", "sum"], cli.USAGE, "with reduce none are drawn. Add beside"),
    "channel out of range": (["--channels", "0-6"], cli.USAGE, "channels must lie in 0..5, got 6"),
    "sheet too large for jpg": (["--tile", "40000", "--format", "jpg"], cli.FAILED, "Make tile or scale smaller"),
    "second layer too large for jpg": (
        ["--layer", "conv", "head", "--tile", "4090", "--grid", "x1", "--channels", "0-3", "--format", "webp"],
        cli.FAILED,
        "a WEBP holds at most 16,383 px a side",
    ),
    "second layer has too few channels": (
        ["--layer", "conv", "head", "--topk", "5"],
        cli.USAGE,
        "cnnviz: head: topk must be at most the 4 channels to choose from, got 5",
    ),
    "name for one of the layers": (
        ["--layer", "mean", "conv", "--each", "--name", "x.png"],
        cli.USAGE,
        "cnnviz: conv: name must hold {channel}, so that each of 6 tiles has a file, got 'x.png'",
    ),
    "name of another format": (
        ["--each", "--name", "{channel}.png", "--format", "jpg"],
        cli.USAGE,
        "name must end as format 'jpg' does, got '{channel}.png'",
    ),
    "vector over the image": (["--layer", "conv", "head", "--overlay"], cli.USAGE, "cnnviz: head: maps of single"),
    "threads 0": (["--threads", "0"], cli.USAGE, "threads must be"),
    "mean of two": (["--mean", "0,0"], cli.USAGE, "mean must have 3 numbers for this model, got 2"),
}


@pytest.mark.parametrize("case", BAD_USAGE)
def test_render_wrong_option_says_so_in_one_line(
    case: str, model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, code, said = BAD_USAGE[case]
    layer = [] if "--layer" in more else ["--layer", "conv"]
    assert run("render", model, cat, "--out", out, *layer, *more) == code
    assert said in error_of(capsys)
    assert not out.exists() or os.listdir(out) == []


class Evil:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


BAD_INPUT = {
    "missing image": (["{model}", "nowhere.png"], "nowhere.png"),
    "folder without images": (["run", "{model}", "{empty}"], "empty"),
    "unknown model": (["resnet5O", "{cat}"], "resnet50"),
    "missing factory": (["{model}r", "{cat}"], "make"),
    "failing factory": (["{broken}", "{cat}"], "no such thing"),
    "missing file": (["nowhere.py:make", "{cat}"], "nowhere.py"),
    "checkpoint that is not one": (["{model}", "{cat}", "--weights", "{model_file}"], "tiny.py"),
    "missing checkpoint": (["{model}", "{cat}", "--weights", "nowhere.pth"], "nowhere.pth"),
    "checkpoint of another model": (["{model}", "{cat}", "--weights", "{checkpoint}"], "conv.weight"),
    "pickle with code": (["{model}", "{cat}", "--weights", "{evil}"], "evil.pth"),
    "output is a file": (["{model}", "{cat}", "--out", "{cat}"], "cat.png"),
    "output cannot be made": (["{model}", "{cat}", "--out", "{cat}/sheets"], "sheets"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_render_bad_input_says_so_in_one_line(
    case: str, model: str, cat: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    (tmp_path / "empty").mkdir()
    torch.save({"other.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save({"conv.weight": Evil(tmp_path / "trace")}, tmp_path / "evil.pth")
    known = {
        "model": model, "cat": cat, "empty": tmp_path / "empty", "broken": model.replace(":make", ":broken"),
        "model_file": tmp_path / "tiny.py", "checkpoint": tmp_path / "other.pth", "evil": tmp_path / "evil.pth",
    }  # fmt: skip
    argv, said = BAD_INPUT[case]
    argv = [part.format(**known) for part in argv]
    command = [] if argv[0] == "run" else ["render"]
    folder = [] if "--out" in argv else ["--out", out]
    assert run(*command, *argv, "--layer", "conv", *folder) == cli.FAILED
    assert said in error_of(capsys)
    assert not (tmp_path / "trace").exists()
    assert not out.exists() or os.listdir(out) == []


def test_render_full_disk_leaves_no_sheet(model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Python ignores the signal that this limit is told by, so that a write fails as on a full disk.
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    try:
        code = run("render", model, cat, "--layer", "conv", "--out", out, "--scale", 900, "--backend", "torch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    said = capsys.readouterr().err
    assert code == cli.FAILED, said
    assert "cannot write" in said
    assert "too large" in said
    assert [path for path in out.rglob("*") if path.is_file()] == []


SETS = {
    "a folder of images": "{folder}/folder.tgz",
    "a pattern for images": "{folder}/*.png",
    "a list of images": "{folder}/list.txt",
    "a tar file of images": "{folder}/a.tar",
    "a table of images": "{folder}/a.parquet",
    "a list on standard input": "-",
}


@pytest.mark.parametrize("kind", SETS)
def test_render_refuses_a_data_set_and_shows_the_command_for_it(
    kind: str, model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("list.txt", "a.tar", "a.parquet"):
        cat.with_name(name).touch()
    cat.with_name("folder.tgz").mkdir()
    given = SETS[kind].format(folder=cat.parent)
    assert run("render", model, cat, given, "--layer", "conv", "head", "--out", out) == cli.USAGE
    shown = f"cnnviz run {model} {cat} {shlex.quote(given)} --layer conv head --out {out}"
    assert error_of(capsys) == f"cnnviz: {given!r} is {kind}. Draw data sets with: {shown}\n"
    assert not out.exists()


@pytest.mark.parametrize("ending", [".tgz", ".tar.gz", ".TAR.ZST", ".txz"])
def test_render_says_that_a_compressed_tar_has_to_be_unpacked(
    ending: str, model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = cat.with_name(f"a{ending}")
    shard.touch()
    assert run("render", model, shard, "--layer", "conv", "--out", out) == cli.USAGE
    shown = f"cnnviz run {model} {cat.with_name('a.tar')} --layer conv --out {out}"
    said = f"cnnviz: {str(shard)!r} is a compressed tar file of images. Unpack it once. Then draw data sets with: "
    assert error_of(capsys) == f"{said}{shown}\n"


@pytest.mark.parametrize("last", [[], ["--", "-"]])
def test_render_shows_a_command_for_a_data_set_with_all_that_was_given(
    last: list[str], model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [cat.parent, cat] if not last else []
    options = ["--weights", "none", "--seed", "3", "--layer", "conv", "head", "--format", "jpg", "--title", "a b"]
    tiles = ["--name", "{channel}{suffix}.jpg", "--each", "--suffix=x", "--out", out]
    assert run("render", model, *images, *options, *tiles, *last) == cli.USAGE
    shown = error_of(capsys).partition("Draw data sets with: ")[2]
    given = ["cnnviz", "run", model, *images, *options, "--save", "tiles", "--out", out, *last]
    assert shlex.split(shown) == list(map(str, given))
    cli._parser().parse_args(shlex.split(shown)[1:])


def test_render_takes_a_file_with_the_name_of_a_pattern(model: str, cat: Path, out: Path) -> None:
    odd = cat.rename(cat.with_name("cat[1].png"))
    assert run("render", model, odd, "--layer", "conv", "--out", out, "--tile", "9") == cli.DONE
    assert (out / "conv" / "cat-1-.png").is_file()


def test_render_reads_damaged_and_narrow_images_where_that_is_asked_for(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = cat.with_name("dark.png")
    Image.fromarray(np.array([[0, 273, 4095]] * 3, np.uint16)).save(dark)
    cut = cat.with_name("cut.bmp")
    with Image.open(cat) as image:
        image.save(cut)
    cut.write_bytes(cut.read_bytes()[:9000])
    call = ("render", model, dark, cut, "--layer", "conv", "--out", out, "--tile", "9")
    assert run(*call) == cli.PARTLY
    said = without_notes(capsys.readouterr().err)
    assert "dark.png' is near black: its values reach 4095 of 65535" in said
    assert "UserWarning" not in said
    assert run(*call, "--truncated", "allow", "--input-range", "0:4095") == cli.DONE
    said = without_notes(capsys.readouterr().err)
    assert said.startswith("cnnviz: image ")
    assert said.count("\n") == 1
    assert "cut.bmp' is damaged, " in said


def test_render_image_named_before_the_model_says_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", tmp_path / "cat.png", "squeezenet1_1") == cli.FAILED
    assert "an image. The model comes first: cnnviz render MODEL IMAGE." in error_of(capsys)
