"""Options that nobody has: the right one is named, in one line and one of usage."""

from __future__ import annotations

import functools

import pytest
from support.command_line import run

from cnnviz_fast.cli import main as cli
from cnnviz_fast.runtime.misspelt import ELSEWHERE, known_as, nearest, unknown_option

MEANT = {
    "--cmap": "--colormap", "--cmaps": "--colormap", "--colourmap": "--colormap", "--Colour_Map": "--colormap",
    "--color-map": "--colormap", "--normalise": "--normalize", "--layers": "--layer",
    "--colour-bar": "--colorbar", "--colourbar": "--colorbar", "--titles": "--title", "--channel": "--channels",
    "--output": "--out", "--outdir": "--out", "--top_k": "--topk", "--max_pixels": "--max-pixels",
    "--maxpixels": "--max-pixels", "--model_args": "--model-args", "--batch_size": "--batch", "--weight": "--weights",
    "--ckpt": "--weights", "--img_size": "--size", "--nrow": "--grid", "--padding": "--gap", "--gpu": "--device",
    "--TILE": "--tile", "--opacity": "--alpha", "--silent": "--quiet",
}  # fmt: skip


@pytest.mark.parametrize("option", list(MEANT))
def test_known_as_names_what_is_meant(option: str) -> None:
    everywhere = [name for parser in _commands().values() for name in parser.options()]
    assert known_as(option, [*everywhere, *_commands()["render"].options()]) == MEANT[option]


def test_own_option_is_meant_where_another_command_has_one_of_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("render", "atlas"):
        with pytest.raises(SystemExit):
            run(command, "resnet18", "cat.jpg", "--top-k", "3")
        assert f"{command} has no option --top-k: it is called --topk." in capsys.readouterr().err


def test_nearest_names_what_is_spelt_much_like_it() -> None:
    options = _commands()["render"].options()
    assert nearest("--colormp", options)[0] == "--colormap"
    assert nearest("--upsamplng", options) == ["--upsampling"]
    assert nearest("--interp", options) == ["--interpolation"]
    assert nearest("--zzz", options) == []


@pytest.mark.parametrize("command", ["render", "run", "atlas", "compare"])
def test_misspelt_option_is_refused_in_two_lines(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(command, "--cmap", "gray")
    assert exit_.value.code == cli.USAGE
    said, usage = capsys.readouterr().err.splitlines()
    assert said == f"cnnviz {command} has no option --cmap: it is called --colormap."
    assert usage.startswith(f"usage: cnnviz {command} ")


def test_misspelt_command_is_refused_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("rendr", "resnet18", "cat.jpg")
    assert exit_.value.code == cli.USAGE
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("cnnviz: no command 'rendr'. Closest: 'render', 'run'. There are render, run, ")
    assert said[1].startswith("usage: cnnviz ")
    assert len(said) == 2


def test_names_of_other_tools_stand_for_options_that_there_are() -> None:
    options = {name for parser in _commands().values() for name in parser.options()}
    assert {f"--{name}" for name in ELSEWHERE.values()} <= options
    # Maps are enlarged by "interpolation" in other tools; here photos are.
    assert {f"--{name}" for name in ELSEWHERE} & options == {"--interpolation"}


@functools.cache
def _commands() -> dict[str, cli.CommandParser]:
    return cli._parser()._subparsers._group_actions[0].choices


def test_unknown_option_knows_what_others_call_it() -> None:
    known = ["maps", "colormap", "grid", "gap"]
    assert str(unknown_option("render", "cmap", known)) == "render has no option 'cmap'. Closest: 'colormap'."
    assert str(unknown_option("render", "cmap", ["maps"])) == "render has no option 'cmap'. Closest: 'maps'."
    assert str(unknown_option("render", "qq", known)) == "render has no option 'qq'. See help(cnnviz_fast.render)."
