"""Completion in the shell: commands, options, choices and models, without loading what is heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cnnviz_fast.cli.completion import CHOICES, models, registered


def completed(line: str, tmp_path: Path) -> list[str]:
    """Return what is offered behind a line, as the shell's function asks for it."""
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_COMP_WORDBREAKS": " ", "COMP_TYPE": "9",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered"),
    }  # fmt: skip
    code = (
        f"import os; os.environ.update({asked!r}); import sys; from cnnviz_fast.cli.main import main;"
        "import atexit; sys.argv = ['cnnviz'];"
        "import argcomplete; end = os._exit;"
        "os._exit = lambda code: end(9 if {'torch', 'numpy', 'torchvision'} & set(sys.modules) else code);"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return [word.strip() for word in (tmp_path / "offered").read_text().splitlines()]


@pytest.mark.parametrize(("line", "offered"), [
    ("cnnviz re", ["render"]),
    ("cnnviz render resnet1", ["resnet18", "resnet101", "resnet152"]),
    ("cnnviz render resnet50 cat.jpg --colorm", ["--colormap"]),
    ("cnnviz run resnet50 photos/ --normalize perc", ["percentile"]),
    ("cnnviz render resnet50 --layer layer4 --align le", ["left"]),
])  # fmt: skip
def test_shell_is_offered_what_could_follow(line: str, offered: list[str], tmp_path: Path) -> None:
    assert set(completed(line, tmp_path)) == set(offered)


def test_registered_lists_the_models_of_a_library_that_is_not_loaded() -> None:
    import torchvision

    there = set(torchvision.models.list_models())
    found = set(registered("torchvision"))
    assert {name for name in there if not name.startswith("quantized_")} <= found | {"s3d"}
    assert registered("no_such_library") == []


def test_models_are_offered_by_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").touch()
    assert models("net") == ["net.py"]
    assert models("timm:convnext_at") == ["timm:convnext_atto", "timm:convnext_atto_ols", "timm:convnext_atto_rms"]
    assert models("tim") == ["timm:"]
    assert models("cnnviz") == ["cnnviz:filters", "cnnviz:small"]
    assert "torchvision:vgg11" in models("torchvision:vgg")


def test_choices_are_taken_by_the_options_that_they_are_offered_for() -> None:
    from cnnviz_fast.formats.picture import format_of
    from cnnviz_fast.options.drawing import RenderOptions
    from cnnviz_fast.palette import make_palette

    for name in CHOICES["--colormap"]:
        make_palette(name, shows_background=True, shows_bad=True)
    for name in CHOICES["--format"]:
        format_of(Path(f"sheet.{name}"))
    for option in ("align", "upsampling", "backend", "reduce"):
        for value in CHOICES[f"--{option}"]:
            RenderOptions(**{option: value})
