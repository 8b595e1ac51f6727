"""Arguments that several commands take: each command refuses the same output folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cases import noise
from support.command_line import error_of, run
from support.runs import NET, digests, make_images

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli

OLDER = json.loads((Path(__file__).parents[1] / "formats" / "older_outputs.json").read_text())


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, list[object]]:
    """Return the arguments of every command that writes files, without --out."""
    (tmp_path / "net.py").write_text(NET)
    model = f"{tmp_path / 'net.py'}:make"
    first, second = make_images(tmp_path / "in", 2)
    atlas = cf.save_atlas(noise(2, 3, 3), tmp_path / "p0000.atlas", provenance=cf.Provenance(layer="0"))
    size = ["--size", 24, "--tile", 9]
    return {
        "render": [model, first, "--layer", "0", *size],
        "atlas": [atlas, "--tile", 9],
        "compare": [model, first, second, "--layer", "0", *size],
        "weights": [model],
        "demo": ["--layer", "conv1", "--tile", 9],
        "run": [model, first, "--layer", "0", *size, "--readers", 0],
    }


@pytest.mark.parametrize("name", ["render", "atlas", "compare", "weights", "demo"])
def test_output_folder_of_a_run_takes_no_other_files(
    name: str, commands: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("run", *commands["run"], "--out", out) == cli.DONE
    before = digests(out)
    capsys.readouterr()
    assert run(name, *commands[name], "--out", out) == cli.USAGE
    assert "out must not be the folder of a run" in error_of(capsys)
    assert run("run", *commands["run"], "--out", out) == cli.DONE
    (said,) = capsys.readouterr().err.splitlines()  # and nothing of the time that nothing took
    assert said.endswith("; 1 were done before")
    assert digests(out) == before


def test_output_folder_of_render_takes_no_run(
    commands: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheets"
    assert run("render", *commands["render"], "--out", out) == cli.DONE
    before = digests(tmp_path)
    capsys.readouterr()
    assert run("run", *commands["run"], "--out", out) == cli.USAGE
    assert "where another command wrote '0/p0000'" in error_of(capsys)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", ["render", "atlas", "compare", "weights", "demo", "run"])
def test_output_folder_of_the_older_layout_is_refused_by_every_command(
    name: str, commands: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = tmp_path / "out" / "cat_conv1" / "manifest.json"
    older.parent.mkdir(parents=True)
    older.write_text(json.dumps(OLDER["each/cat_conv1/manifest.json"]))
    assert run(name, *commands[name], "--out", tmp_path / "out") == cli.USAGE
    assert "is an output folder of the older layout" in error_of(capsys)
    assert list((tmp_path / "out").rglob("*")) == [older.parent, older]
