"""Help, usage and options of other commands: what the parser shows and what it refuses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.command_line import error_of, run

from cnnviz_fast.cli import main as cli
from cnnviz_fast.cli.parser import GROUPS


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["paint"], ["render"], ["render", "resnet50"], ["render", "resnet50", "cat.png", "--tile"]):
        with pytest.raises(SystemExit) as exit_:
            run(*argv)
        assert exit_.value.code == cli.USAGE
        assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "said"), [
    ([], "cnnviz: no command given. Begin with: cnnviz demo. All commands: cnnviz --help"),
    (["maximize", "vgg16", "cat.jpg", "--layer", "3"],
     "cnnviz maximize has no place for 'cat.jpg'. See: cnnviz maximize --help"),
    (["demo", "cat.jpg"], "cnnviz demo has no place for 'cat.jpg'. See: cnnviz demo --help"),
])  # fmt: skip
def test_arguments_too_few_or_too_many_are_refused_with_what_to_do(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(*argv)
    assert capsys.readouterr().err.splitlines()[0] == said


FOREIGN = {
    "of a run": ("render", ["--save", "tiles"], "render has no option --save: it belongs to 'cnnviz run'."),
    "of a run, with =": ("render", ["--save=tiles"], "render has no option --save: it belongs to 'cnnviz run'."),
    "of two": ("atlas", ["--size", "9"], "atlas has no option --size: it belongs to 'cnnviz render', 'cnnviz run', "
               "'cnnviz page', 'cnnviz view', 'cnnviz patches', 'cnnviz compare', 'cnnviz attribute', 'cnnviz invert', "
               "'cnnviz maximize' and 'cnnviz layers'."),
    "of images, for an atlas": ("atlas", ["--input"], "atlas has no option --input: it belongs to 'cnnviz render', "
                                "'cnnviz run' and 'cnnviz attribute'."),
    "of images, for two": ("compare", ["--input"], "compare has no option --input: it belongs to 'cnnviz render', "
                           "'cnnviz run' and 'cnnviz attribute'."),
    "of sheets, for weights": ("weights", ["--plain"], "weights has no option --plain: it belongs to 'cnnviz render', "
                               "'cnnviz run', 'cnnviz atlas', 'cnnviz compare', 'cnnviz attribute', 'cnnviz invert' "
                               "and 'cnnviz maximize'."),
    "of single files": ("run", ["--each"], "run has no option --each: it belongs to 'cnnviz render', "
                        "'cnnviz atlas' and 'cnnviz patches'. Here single files are: --save tiles"),
    "of a draft": ("render", ["--from-atlas", "x"], "render has no option --from-atlas: atlases are drawn with: "
               "cnnviz atlas ATLAS... --out DIR"),
    "of another name": ("run", ["--layout", "nhwc"], "run has no option --layout: it is called --axes."),
    "of another name and command": ("layers", ["--layout", "nchw"], "layers has no option --layout: it is called "
                                    "--axes, and it belongs to 'cnnviz render', 'cnnviz run', 'cnnviz page', "
                                    "'cnnviz compare', 'cnnviz attribute' and 'cnnviz maximize'."),
    "of another name, with =": ("atlas", ["x", "--layout=nchw"], "atlas has no option --layout: it is called --axes, "
                                "and it belongs to 'cnnviz render', 'cnnviz run', 'cnnviz page', 'cnnviz compare', "
                                "'cnnviz attribute' and 'cnnviz maximize'."),
    "misspelt, of another command": ("render", ["--egnine", "ray"], "render has no option --egnine. Closest: --engine, "
                                     "which belongs to 'cnnviz run'."),
    "misspelt, of a comparison": ("render", ["--againstseed", "1"], "render has no option --againstseed: it is called "
                                  "--against-seed, and it belongs to 'cnnviz compare'."),
    "misspelt, closer to another's": ("render", ["--savee", "x"], "render has no option --savee. Closest: --save, "
                                      "which belongs to 'cnnviz run'."),
    "misspelt": ("render", ["--tlie", "9"], "render has no option --tlie. Closest: --tile, --title."),
    "of nobody": ("layers", ["--xyz"], "layers has no option --xyz. See: cnnviz layers --help"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_option_of_another_command_is_refused_in_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, more, said = FOREIGN[case]
    with pytest.raises(SystemExit) as exit_:
        run(command, *more)
    assert exit_.value.code == cli.USAGE
    said_line, usage = capsys.readouterr().err.splitlines()
    assert said_line == f"cnnviz {said}"
    assert usage.startswith(f"usage: cnnviz {command} ")
    assert usage.endswith("[options]")


def test_what_follows_two_dashes_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["render", "resnet50", "--layer", "conv1", "--out", "out", "--", "--save"]
    assert cli._parser().parse_args(argv).images == ["--save"]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as exit_:
        run(*filter(None, [command]), "--help")
    assert exit_.value.code == cli.DONE
    return capsys.readouterr().out.splitlines()


MOST_LINES = {
    "": 36, "render": 80, "run": 117, "atlas": 70, "patches": 70, "compare": 79, "attribute": 86, "demo": 20,
    "weights": 40, "layers": 27, "doctor": 24, "bench": 24, "invert": 61, "maximize": 72, "page": 60, "view": 44,
}  # fmt: skip


@pytest.mark.parametrize("command", MOST_LINES)
def test_help_fits(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_of(command, capsys)
    assert len(lines) <= MOST_LINES[command]
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("command", [name for name in MOST_LINES if name])
def test_help_has_its_groups_in_order(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(command, capsys)
    assert lines[0].startswith(f"usage: cnnviz {command} ")
    headings = [line for line in lines[1:] if line.endswith(":") and not line.startswith(" ")]
    assert headings == [heading for heading in [*filter(None, GROUPS.values()), "Examples:"] if heading in headings]
    assert "Where and how it runs:" in headings


@pytest.mark.parametrize("command", [
    "render", "run", "atlas", "page", "view", "patches", "compare", "attribute", "weights", "demo",
])  # fmt: skip
def test_help_ends_with_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = help_of(command, capsys)
    examples = lines[lines.index("Examples:") + 1 :]
    assert len(examples) == (2 if command == "demo" else 3)
    for line in examples:
        name, *argv = shlex.split(line)
        assert (name, argv[0]) == ("cnnviz", command)
        cli._parser().parse_args(argv)


def test_help_shows_every_argument_once_and_only_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command, parser in cli._parser()._subparsers._group_actions[0].choices.items():
        parser.options()  # declares them
        heads = [re.match(r"  ((-[\w-]+, )*-[\w-]+)", line) for line in help_of(command, capsys)]
        shown = [name for head in heads if head for name in head[1].split(", ")]
        assert len(set(shown)) == len(shown)
        for action in filter(lambda action: action.option_strings, parser._actions):
            assert set(shown) & set(action.option_strings), action
        assert set(shown) <= set(parser.options())


@pytest.mark.parametrize(("command", "offered"), [
    ("render", False), ("compare", False), ("attribute", False), ("run", True), ("atlas", True),
])  # fmt: skip
def test_help_offers_normalize_dataset_where_it_is_taken(
    command: str, offered: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = help_of(command, capsys)
    for option in ("--normalize", "--percentile"):
        start = next(n for n, line in enumerate(lines) if line.startswith(f"  {option} "))
        end = next(n for n, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith("     "))
        assert ("dataset" in " ".join(lines[start:end])) is offered, option


@pytest.mark.parametrize("command", ["render", "compare"])
def test_normalize_dataset_belongs_to_run_and_atlas(
    command: str, model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, model, cat, "--layer", "conv", "--out", out, "--normalize", "dataset") == cli.USAGE
    assert "normalize 'dataset' belongs to 'cnnviz run' and 'cnnviz atlas'" in error_of(capsys)
    assert not out.exists()


@pytest.mark.parametrize("columns", ["1", "25", "40", "no number"])
def test_help_in_a_narrow_terminal_is_wrapped_and_whole(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as ended:
        cli.main(["render", "--help"])
    assert ended.value.code == 0
    text, _, examples = capsys.readouterr().out.partition("Examples:")
    assert "--layer" in text
    assert examples
    if columns == "40":
        assert not [line for line in text.splitlines()[1:] if len(line) > 40 and " " in line.strip() and line[0] != " "]
