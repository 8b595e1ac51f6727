"""The README says what is true: its Python runs, its commands exist, its names are those of the package."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.architectures import RepeatedWeights
from support.assertions import A_LEVEL, OTHER_FONTS, assert_close_on_average
from support.quick import quick

import cnnviz_fast as cf
from benchmarks import gallery
from cnnviz_fast.cli import main as cli
from cnnviz_fast.options.attribution import METHOD_NAMES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_python_blocks_run(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "photos/cat.jpg"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    # Everything but the download: the weights would come from a server.
    build = cf.load_model

    def load_model(spec: str) -> cf.LoadedModel:
        with RepeatedWeights():
            return build(spec, weights="none")

    monkeypatch.setattr(cf, "load_model", load_model)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "layer4.png").exists()
    assert (tmp_path / "layer4.json").exists()
    assert len(list((tmp_path / "layer4").glob("*.png"))) == 2048
    assert {path.name for path in (tmp_path / "all").glob("*.safetensors")} == {
        "statistics.safetensors",
        "top.safetensors",
    }


def test_set_up_is_two_commands() -> None:
    section = README.split("## Set up")[1].split("\n## ")[0]
    commands = re.findall(r"```bash\n(.*?)```", section, re.S)
    assert commands == ['pip install . && cnnviz demo\npip install ".[test]" && pytest\n']


def test_commands_parse() -> None:
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.startswith("cnnviz ")]
    assert lines
    for line in lines:
        cli._parser().parse_args(shlex.split(line)[1:])


def test_commands_are_all_named() -> None:
    (commands,) = cli._parser()._subparsers._group_actions
    section = README.split("**Commands**")[1].split("\n- ")[0]
    assert set(commands.choices) <= set(re.findall(r"`(\w+)`", section))


def test_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 220


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_map_of_the_package_is_complete_and_short() -> None:
    rows = README.split("## Where things are")[1].split("\n---\n")[0].strip().splitlines()[2:]
    assert len(rows) <= 20
    named = {
        name for row in rows if row.startswith("| ") for name in re.findall(r"`(\w+(?:/|\.py))`", row.split("|")[1])
    }
    package = ROOT / "cnnviz_fast"
    there = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    there |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert named == there


@pytest.mark.parametrize("name", gallery.SHOTS)
def test_gallery_command_stands_under_its_sheet(name: str) -> None:
    shot = gallery.SHOTS[name]
    place = os.path.relpath(gallery.FOLDER / name, (ROOT / shot.page).parent)
    section = (ROOT / shot.page).read_text().split(f"]({place})", 1)[1]
    block = re.search(r"```bash\n(.*?)```", section, re.S)
    assert block
    before = [] if shot.before is None else [*shlex.split(shot.before), "--out", "run/"]
    shown = shlex.split(block[1].replace("\\\n", " "))
    assert shown == [*before, *shlex.split(shot.command), "--out", shot.out]


def test_gallery_has_no_sheet_that_no_command_draws_and_none_is_large() -> None:
    sizes = {path.name: path.stat().st_size for path in gallery.FOLDER.glob("*.png")}
    assert set(sizes) == set(gallery.SHOTS)
    assert max(sizes.values()) <= 300_000


def test_each_method_of_attribution_has_a_command_beside_the_gallery() -> None:
    commands = re.findall(r"`(cnnviz .+)`", (ROOT / gallery.MORE).read_text())
    parsed = [cli._parser().parse_args(shlex.split(command)[1:]) for command in commands]
    assert {arguments.method for arguments in parsed if "method" in arguments} == set(METHOD_NAMES)


LATER = {name for name, shot in gallery.SHOTS.items() if shot.optimised} | {"difference.png", "kernels.png"}
"""Sheets that take long, and those whose command others have too, on another layer."""


@pytest.mark.parametrize("name", quick(gallery.SHOTS, gallery.SHOTS.keys() - LATER))
def test_gallery_is_what_its_command_draws(name: str, tmp_path: Path) -> None:
    gallery.make(name, tmp_path / name)
    with Image.open(tmp_path / name) as made, Image.open(gallery.FOLDER / name) as kept:
        made_rgb, kept_rgb = (np.asarray(image.convert("RGB")) for image in (made, kept))
    # Another version of torch or Pillow may round the photo and the convolution differently.
    assert_close_on_average(made_rgb, kept_rgb, A_LEVEL if gallery.SHOTS[name].address is None else OTHER_FONTS)
