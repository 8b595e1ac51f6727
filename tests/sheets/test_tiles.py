"""One file per channel: the files are the tiles of the sheet, in any format, and errors name their file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import LOSSY_NOISE, assert_close_on_average
from support.looping import over
from support.plain import render, save_tiles

import cnnviz_fast as cf
from cnnviz_fast.errors import EncodeError, OptionError, WriteError
from cnnviz_fast.formats import png


@pytest.fixture
def maps() -> torch.Tensor:
    maps = torch.randn(37, 7, 5, generator=torch.Generator().manual_seed(3))
    maps[4] = 0
    maps[9, 2, 3] = torch.nan
    return maps


@pytest.fixture(params=["native", "zlib"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take both ways of making files: in batches by the compiled encoder, and one by one without it."""
    if request.param == "zlib":
        monkeypatch.setattr(png, "native", lambda: (None, "switched off"))
    elif png.native()[0] is None:
        pytest.skip("the native encoder is not built")
    return str(request.param)


@pytest.mark.parametrize("colormap", ["gray", "viridis"])
@pytest.mark.parametrize("threads", [1, 3])
def test_save_tiles_files_are_the_tiles_of_the_sheet(
    maps: torch.Tensor, tmp_path: Path, encoder: str, colormap: str, threads: int
) -> None:
    options = {"tile": 31, "colormap": colormap, "align": "left"}
    paths = save_tiles(maps, tmp_path / "new" / "folder", threads=threads, **options)
    assert [path.name for path in paths] == [f"{c}.png" for c in range(37)]
    assert sorted(os.listdir(paths[0].parent)) == sorted([*(p.name for p in paths), "manifest.json"])
    sheet = render(maps, grid="x1", **options)
    for c, path in enumerate(paths):
        with Image.open(path) as image:
            assert image.size == (22, 31)
            assert (np.asarray(image.convert("RGB")) == sheet.rgb()[c * 31 : c * 31 + 31]).all()


def test_save_tiles_of_many_channels_in_batches(tmp_path: Path) -> None:
    maps = torch.rand(2048, 7, 7, generator=torch.Generator().manual_seed(0))
    paths = save_tiles(maps, tmp_path, tile=56)
    assert len(paths) == len(set(paths)) == 2048
    sheet = render(maps, tile=56, grid="x1").rgb()
    for c in (0, 1, 777, 2046, 2047):
        with Image.open(paths[c]) as image:
            assert (np.asarray(image.convert("RGB")) == sheet[c * 56 : c * 56 + 56]).all()


@pytest.mark.parametrize(("suffix", "format_"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_save_tiles_other_formats(maps: torch.Tensor, tmp_path: Path, suffix: str, format_: str) -> None:
    paths = save_tiles(maps, tmp_path, tile=64, name=f"c{{channel:04d}}.{suffix}", channels="0-3")
    assert [path.name for path in paths] == [f"c{c:04d}.{suffix}" for c in range(4)]
    sheet = render(maps, tile=64, grid="x1", channels="0-3").rgb()
    for c, path in enumerate(paths):
        with Image.open(path) as image:
            assert image.format == format_
            shown = np.asarray(image.convert("RGB"))
        assert_close_on_average(shown, sheet[c * 64 : c * 64 + 64], LOSSY_NOISE)


def test_save_tiles_npy_holds_the_index_plane(maps: torch.Tensor, tmp_path: Path) -> None:
    paths = save_tiles(maps, tmp_path, scale=3, name="{channel}.npy", channels=[5])
    assert (np.load(paths[0]) == render(maps, scale=3, channels=[5]).index).all()


def test_save_tiles_manifest_says_which_file_is_which(maps: torch.Tensor, tmp_path: Path) -> None:
    paths = save_tiles(maps, tmp_path, tile=9, channels="9,4", provenance=cf.Provenance(layer="layer4"))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["layer"] == "layer4"
    assert [(t["file"], t["channel"]) for t in manifest["tiles"]] == [("9.png", 9), ("4.png", 4)]
    assert manifest["tiles"][0]["flags"] == ["nonfinite"]
    assert manifest["tiles"][1]["flags"] == ["flat", "dead"]
    assert [path.name for path in paths] == ["9.png", "4.png"]


def test_save_tiles_names_of_article_003(maps: torch.Tensor, tmp_path: Path) -> None:
    options = {"name": "{channel}_{suffix}.png", "suffix": "drone", "reduce": "sum", "beside": True, "scale": 8}
    paths = save_tiles(maps, tmp_path, **options)
    assert [path.name for path in paths] == ["sum_drone.png", *(f"{c}_drone.png" for c in range(37))]
    sheet = render(maps, scale=8, reduce="sum", beside=True, grid="x1").rgb()
    for position in (0, 1, 38 - 1):
        with Image.open(paths[position]) as image:
            assert (np.asarray(image.convert("RGB")) == sheet[position * 56 : position * 56 + 56]).all()
    tiles = json.loads((tmp_path / "manifest.json").read_text())["tiles"]
    assert [(t["file"], t["channel"], t["reduce"]) for t in tiles[:2]] == [
        ("sum_drone.png", None, "sum"),
        ("0_drone.png", 0, None),
    ]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"name": "{channel:04d}.png", "reduce": "max", "beside": True, "channels": [7]}, ["max.png", "0007.png"]),
        ({"name": "{channel:>4}.png", "reduce": "sum,strongest"}, ["sum.png", "strongest.png"]),
        ({"name": "all_{suffix}.png", "suffix": "a {b}", "reduce": "sum"}, ["all_a {b}.png"]),
        ({"name": "one.png", "topk": 1}, ["one.png"]),
        ({"name": "{{{channel}}}.png", "channels": "3,5"}, ["{3}.png", "{5}.png"]),
    ],
)
def test_save_tiles_name_is_filled_in(
    maps: torch.Tensor, tmp_path: Path, options: dict[str, object], names: list[str]
) -> None:
    assert [path.name for path in save_tiles(maps, tmp_path, tile=9, **options)] == names
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "manifest.json"])


def test_save_tiles_topk_decides_the_files_and_their_order(maps: torch.Tensor, tmp_path: Path) -> None:
    order = [c for c in maps.double().numpy().max(axis=(1, 2)).argsort()[::-1].tolist() if c != 9]  # 9 holds a NaN
    paths = save_tiles(maps, tmp_path, tile=9, channels=[c for c in range(37) if c != 9], topk=5, rank="max")
    assert [path.name for path in paths] == [f"{c}.png" for c in order[:5]]
    assert sorted(os.listdir(tmp_path)) == sorted([*(path.name for path in paths), "manifest.json"])
    tiles = json.loads((tmp_path / "manifest.json").read_text())["tiles"]
    assert [(t["file"], t["channel"], t["rank"]) for t in tiles] == [
        (f"{c}.png", c, maps[c].max().item()) for c in order[:5]
    ]


@over(
    ("options", "said"),
    [
        ({"name": "tile.png"}, "name must hold {channel}, so that each of 37 tiles has a file, got 'tile.png'"),
        ({"name": "{suffix}.png", "suffix": "a"}, "name must hold {channel}"),
        ({"name": "tile.png", "reduce": "sum,mean"}, "so that each of 2 tiles has a file"),
        ({"name": "{{channel}}.png"}, "name must hold {channel}"),
        ({"name": "{channel}_{suffix}.png"}, "name holds {suffix} where suffix is given"),
        ({"name": "{channel}_{suffix}.png", "suffix": None}, "suffix must be text, got None."),
        ({"suffix": "drone"}, "where suffix is given, got name '{channel}.png' and suffix 'drone'"),
        ({"name": "{channel}_{type}.png"}, "name may hold {channel} and {suffix} and nothing else in braces"),
        ({"name": "{channel.real}.png"}, "nothing else in braces"),
        ({"name": "{channel:{type}}.png"}, "nothing else in braces"),
        ({"name": "{channel:z}.png"}, "nothing else in braces"),
        ({"name": "{0}.png"}, "nothing else in braces"),
        ({"name": "{}.png"}, "nothing else in braces"),
        ({"name": "{channel"}, "nothing else in braces"),
        ({"name": None}, "nothing else in braces"),
        ({"name": "{channel}_{suffix}.png", "suffix": "../a"}, "without a folder, got '0_../a.png'"),
        ({"name": "{channel}_{suffix}.png", "suffix": "a\\b"}, "without a folder"),
        ({"name": "sub/{channel}.png", "topk": 1}, "without a folder, got 'sub/"),
        ({"name": "{channel:c}.png", "channels": "0"}, "without a folder"),
        ({"name": "{channel:c}.png"}, "without a folder"),
        ({"name": "{channel:c}.png", "channels": "6,36,4,36"}, "every file must have a name of its own, got '$.png' 2"),
        ({"reduce": "sum", "beside": True, "channels": "4,4"}, "got '4.png' 2 times. Leave out repeated channels."),
        ({"topk": 38}, "topk must be at most the 37 channels"),
        ({"name": "../{channel}.png"}, "without a folder"),
        ({"name": "/tmp/{channel}.png"}, "without a folder"),
        ({"name": "{channel}.gif"}, "must be one of .png"),
        ({"gap": 1}, "gap belongs to sheets; single tiles have none. Leave it out."),
        ({"margin": 1}, "margin belongs to sheets"),
        ({"grid": "6x7"}, "grid belongs to sheets"),
        ({"label": True}, "label belongs to sheets"),
        ({"title": "{layer}"}, "title belongs to sheets"),
        ({"colorbar": True}, "colorbar belongs to sheets"),
        ({"channels": "1,1"}, "every file must have a name of its own, got '1.png' 2 times"),
    ],
)
def test_save_tiles_wrong_argument_writes_nothing(
    maps: torch.Tensor, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        save_tiles(maps, tmp_path / "out", tile=9, **options)
    assert not (tmp_path / "out").exists()


def test_save_tiles_names_that_differ_only_in_case_count_as_one(tmp_path: Path) -> None:
    maps = torch.rand(98, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(OptionError, match=r"^every file must have a name of its own, got 'a\.png' 2 times\."):
        save_tiles(maps, tmp_path / "out", tile=9, name="{channel:c}.png", channels=[65, 97])  # A and a
    assert not (tmp_path / "out").exists()


def test_save_tiles_too_large_for_the_format_writes_nothing(maps: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="16,383"):
        save_tiles(maps[:1], tmp_path / "out", tile=16_384, name="{channel}.webp")
    assert not (tmp_path / "out").exists()


def test_save_tiles_failure_names_the_file_and_leaves_whole_ones(
    maps: torch.Tensor, tmp_path: Path, encoder: str
) -> None:
    (tmp_path / "20.png").mkdir()  # a folder where a file should go
    (tmp_path / "20.png" / "kept").touch()
    with pytest.raises(WriteError, match=r"cannot write .*20\.png: "):
        save_tiles(maps, tmp_path, tile=31, threads=2)
    left = [entry for entry in os.listdir(tmp_path) if entry != "20.png"]
    assert all(entry.endswith(".png") for entry in left), left
    for entry in left:
        with Image.open(tmp_path / entry) as image:
            image.load()


def test_save_tiles_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # Python ignores the signal for it
    try:
        with pytest.raises(WriteError, match=r"^cannot write .*File too large"):
            save_tiles(torch.rand(64, 50, 50), tmp_path, tile=400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["{channel:{0}}.png", "{channel:{suffix}}.png", "{channel:{}}.png", "{channel:>9999999999}.png", "{0}.png",
     "{channel:0999d}.png", "{channel:.200f}.png", "{channel[0]}.png", "{channel.real}.png", "{channel:", "{}.png"],
)  # fmt: skip
def test_save_tiles_pattern_of_another_form_is_refused(name: str, maps: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"^name may hold \{channel\} and \{suffix\} and nothing else in braces, got "
    ):
        save_tiles(maps, tmp_path / "out", tile=9, name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["\ud800{channel}.png", "a\0{channel}.png"])
def test_save_tiles_names_that_no_file_can_have_are_refused(name: str, maps: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises((OptionError, WriteError)):
        save_tiles(maps, tmp_path / "out", tile=9, name=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", [3, None, b"out"])
def test_save_tiles_folder_that_is_no_path_is_refused(folder: Any, maps: torch.Tensor) -> None:
    with pytest.raises(OptionError, match=r"^folder must be a path, got "):
        save_tiles(maps, folder, tile=9)
