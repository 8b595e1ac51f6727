"""Files of any command on systems that take names for the same which differ in case or in how letters are composed."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import run
from support.shards import png

from cnnviz_fast.runtime.windows import fault_of

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.Conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.nul = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.head(self.nul(self.Conv(self.conv(x))).mean((2, 3)))
"""
IMAGES = ["cat.png", "Cat.png", "caf\u00e9.png", "cafe\u0301.png", "aux.png", "a:b.png", "b. .png", "other/CAT.png"]
LAYERS = ["conv", "Conv", "nul"]
DRAWN = ["NET", "PHOTOS", "--layer", *LAYERS, "--size", "16"]
COMMANDS = {
    "sheets": ["render", *DRAWN, "--tile", "4"],
    "tiles": ["render", *DRAWN, "--tile", "4", "--each"],
    "heat": ["attribute", *DRAWN, "--target", "0"],
    "weights": ["weights", "NET"],
    "inverted": ["invert", *DRAWN, "--steps", "1"],
    "maximized": ["maximize", "NET", "--layer", *LAYERS, "--steps", "1", "--size", "16"],
    "run": ["run", *DRAWN, "--tile", "4", "--save", "sheets,maps,top", "--readers", "0"],
    "packed": ["run", *DRAWN, "--save", "atlases", "--readers", "0"],
    "atlases": ["atlas", "PACKED", "--tile", "4"],
    "page": ["page", *DRAWN],
    "compared": ["compare", "NET", "PAIR", "--layer", *LAYERS, "--size", "16", "--tile", "4"],
    "patches": ["patches", "RUN", "--layer", *LAYERS, "--channels", "0-1", "--each", "--tile", "9"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what all commands have made of images and layers that are called almost the same."""
    home = tmp_path_factory.mktemp("names")
    (home / "net.py").write_text(NET)
    photos = [home / "photos" / name for name in IMAGES]
    for number, photo in enumerate(photos):
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(png(20 * number))
    meant = {
        "NET": [f"{home / 'net.py'}:Net"], "PHOTOS": list(map(str, photos)), "PAIR": list(map(str, photos[:2])),
        "RUN": [str(home / "out" / "run")], "PACKED": [str(home / "out" / "packed")],
    }  # fmt: skip
    for out, command in COMMANDS.items():
        filled = [part for word in command for part in meant.get(word, [word])]
        assert run(*filled, "--quiet", "--out", str(home / "out" / out)) == 0, out
    return home / "out"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fold", [str.lower, str.upper, str.casefold])
def test_command_makes_no_two_files_that_are_one_elsewhere(
    command: str, fold: Callable[[str], str], made: Path
) -> None:
    names = [path.relative_to(made / command).as_posix() for path in (made / command).rglob("*")]
    for form in ("NFC", "NFD"):
        assert len({unicodedata.normalize(form, fold(name)) for name in names}) == len(names)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_makes_files_that_windows_takes(command: str, made: Path) -> None:
    made_files = list((made / command).rglob("*"))
    assert made_files
    for path in made_files:
        assert fault_of(path.relative_to(made)) == ""


@pytest.mark.parametrize("command", [
    "render {net} {photos}/cat.png --layer {c}onv --size 16 --tile 4",
    "render {net} {photos}/cat.png --layer {c}onv --size 16 --tile 4 --each",
    "render {net} {photos}/{c}at.png --layer conv --size 16 --tile 4",
    "attribute {net} {photos}/cat.png --layer {c}onv --size 16 --target 0",
    "compare {net} {photos}/{c}at.png {photos}/aux.png --layer conv --size 16 --tile 4",
    "invert {net} {photos}/{c}at.png --layer conv --size 16 --steps 1",
    "maximize {net} --layer {c}onv --size 16 --steps 1",
    "patches {run} --layer {c}onv --channels 0-1 --tile 9",
    "weights {net} --layer {c}onv",
])  # fmt: skip
def test_command_keeps_what_differs_in_case_alone(
    command: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(letter: str, *more: str) -> int:
        net, photos = f"{made.parent / 'net.py'}:Net", made.parent / "photos"
        filled = command.format(net=net, photos=photos, run=made / "run", c=letter)
        return run(*filled.split(), "--quiet", "--out", tmp_path / "out", *more)

    def contents() -> dict[Path, bytes]:
        files = [path for path in (tmp_path / "out").rglob("*.*") if path.stem.lower() != "histograms"]  # of all layers
        return {path: path.read_bytes() for path in files if path.is_file()}

    assert call("c") == 0
    without_case(tmp_path / "out")
    before = contents()
    assert call("C") == 2
    assert re.search("of 'c(onv|onv.weight|at)' for 'C.*or add --overwrite", capsys.readouterr().err)
    assert contents() == before
    assert call("c") == 0
    assert call("C", "--overwrite") == 0


def test_file_that_is_named_is_replaced_whatever_it_is_of(made: Path, tmp_path: Path) -> None:
    drawn = ["render", f"{made.parent / 'net.py'}:Net", made.parent / "photos" / "cat.png", "--size", 16, "--tile", 4]
    for layer in ("conv", "Conv"):
        assert run(*drawn, "--layer", layer, "--quiet", "--out", tmp_path / "sheet.png") == 0


def without_case(folder: Path) -> None:
    """Make a folder as it is on a file system without case: all that is in it is found by a capital too."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if (capital := path.with_name(path.name.capitalize())) != path:
            capital.symlink_to(path.name)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_commands_make_files_and_folders_that_others_may_read_as_the_umask_says(made: Path) -> None:
    os.umask(umask := os.umask(0))
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in made.rglob("*")}
    assert modes == {(True, 0o777 & ~umask), (False, 0o666 & ~umask)}
