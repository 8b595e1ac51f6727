"""Runs on the command line: exit codes, what is printed where, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.assertions import assert_equal_planes
from support.command_line import run
from support.processes import Python
from support.runs import COUNT, NET, command, make_images, plane_of, rows

import cnnviz_fast as cf
from cnnviz_fast.sheets.input_image import LEAST_PX

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def listed(images: Path, tmp_path: Path) -> Path:
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(images.iterdir()))) + "\nmissing.png\n")
    return tmp_path / "list.txt"


def test_a_list_with_a_missing_image_ends_with_three(net: Path, listed: Path, tmp_path: Path, capfd: Captured) -> None:
    assert run(*command(net, listed, tmp_path / "out", "--readers", "0")) == 3
    printed, said = capfd.readouterr()
    assert len(printed.splitlines()) == 2 * COUNT
    assert f"{COUNT} images in" in said
    assert "1 failed: see" in said
    assert "decode" in said
    (failed,) = rows(tmp_path / "out", "failed")
    assert failed["image"].endswith("missing.png")


def test_json_lines_of_progress_and_a_json_summary(net: Path, images: Path, tmp_path: Path, capfd: Captured) -> None:
    assert run(*command(net, images, tmp_path / "out", "--progress", "json", "--json", "--readers", "0")) == 0
    printed, said = capfd.readouterr()
    summary = json.loads(printed)
    assert (summary["images"], summary["finished"], summary["failed"]) == (COUNT, COUNT, 0)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert lines[-1]["finished"] == COUNT
    assert set(lines[-1]) == {"finished", "failed", "skipped", "total", "per_s", "left_s"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--save", "sheet"], "save must be"),
        (["--address", "here"], "address goes with engine 'ray'"),
        (["--batch", "0"], "batch must be"),
        (["--statistics", "x"], "statistics go with normalize 'dataset'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(
    more: list[str], message: str, net: Path, images: Path, tmp_path: Path, capfd: Captured
) -> None:
    assert run(*command(net, images, tmp_path / "out", *more)) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out" / "0").exists()


def test_a_compressed_shard_is_told_how_to_be_unpacked(net: Path, tmp_path: Path, capfd: Captured) -> None:
    make_images(tmp_path / "in", 2)
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "in" / "p0000.png", "a.png")
    assert run(*command(net, tmp_path / "s.tar.gz", tmp_path / "out")) == 1
    assert "gunzip" in capfd.readouterr().err


def test_a_process_of_torchrun_whose_images_all_failed_does_not_end_the_others(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("missing.png\n")
    arguments = command(net, tmp_path / "list.txt", tmp_path / "out")
    assert run(*arguments) == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert run(*arguments) == 0


def test_an_empty_folder_is_refused(net: Path, tmp_path: Path, capfd: Captured) -> None:
    (tmp_path / "empty").mkdir()
    assert run(*command(net, tmp_path / "empty", tmp_path / "out")) == 1
    assert "holds no" in capfd.readouterr().err


def test_options_of_render_are_told_from_those_of_a_run(
    net: Path, images: Path, tmp_path: Path, capfd: Captured
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*command(net, images, tmp_path / "out", "--name", "{channel}.png"))
    assert caught.value.code == 2
    assert "cnnviz run has no option --name" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tiles_are_a_file_for_each_channel(net: Path, images: Path, tmp_path: Path) -> None:
    assert run(*command(net, images, tmp_path / "out", "--save", "tiles", "--readers", "0")) == 0
    assert (tmp_path / "out" / "0" / "tiles" / "p0000" / "5.png").exists()


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        (["--plain"], {"plain": True}),
        (["--plain", "--gap", "3"], {"plain": True, "gap": 3}),
        (["--title", "", "--no-marks"], {"title": "", "marks": False}),
        (["--title", "", "--label"], {"title": "", "label": True}),
        (["--title", "", "--tile", "70", "--no-label"], {"title": "", "tile": 70, "label": False}),
    ],
)
def test_looks_reach_the_sheets(flags: list[str], same: dict[str, Any], net: Path, tmp_path: Path) -> None:
    net.write_text(
        f"{NET}\ndef dead():\n    net = make()\n    net[0].weight.data[1] = 0\n    net[0].bias.data[1] = 0\n"
    )
    net.write_text(f"{net.read_text()}    return net\n")
    (image,) = make_images(tmp_path / "in", 1)
    argv = command(net, image, tmp_path / "out", "--readers", "0", *flags)
    argv[1] = f"{net}:dead"
    assert run(*argv) == 0
    model = cf.load_model(argv[1], preprocess=cf.PreprocessOptions(size=24))
    maps = cf.capture(model, cf.load_images(image, model), "0")["0"][0]
    assert_equal_planes(plane_of(tmp_path / "out" / "0" / "p0000.png"), cf.render(maps, **{"tile": 12, **same}).index)


def test_each_sheet_shows_its_own_image_with_input(net: Path, tmp_path: Path) -> None:
    colors = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
    for name, color in colors.items():
        Image.new("RGB", (30, 30), color).save(tmp_path / f"{name}.png")
    photos = [str(tmp_path / f"{name}.png") for name in colors]
    more = ["--title", "", "--readers", "0", *photos[1:]]
    assert run(*command(net, Path(photos[0]), tmp_path / "out", "--input", *more)) == 0
    assert run(*command(net, Path(photos[0]), tmp_path / "without", *more)) == 0
    for name, color in colors.items():
        with Image.open(tmp_path / "out" / "0" / f"{name}.png") as sheet:
            above = np.asarray(sheet.convert("RGB"))[8 : 8 + LEAST_PX, 8 : 8 + LEAST_PX]
            height = sheet.height
        assert (above == color).all()
        with Image.open(tmp_path / "without" / "0" / f"{name}.png") as sheet:
            assert sheet.height < height - LEAST_PX


def test_paths_and_the_bar_share_a_terminal(net: Path, images: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, 300, 0, 0))
    process = Python("-m", "cnnviz_fast", *command(net, images, tmp_path / "out"), terminal=terminal)
    os.close(terminal)
    said = b""
    with open(ours, "rb", buffering=0) as file, contextlib.suppress(OSError):  # how Linux reports the end
        while some := file.read(1 << 16):
            said += some
    assert process.end() == 0
    lines = said.decode().replace("\r\n", "\n").split("\n")
    shown = {line.rpartition("\r")[2] for line in lines}  # what is left of a line after the bar was wiped off it
    assert {str(tmp_path / "out" / row["files"][0]) for row in rows(tmp_path / "out")} <= shown
    assert f"/{COUNT} [" in said.decode()


@pytest.mark.parametrize("name", ["--readers", "--workers"])
def test_readers_have_two_names_and_the_summary_counts_them(
    name: str, net: Path, images: Path, tmp_path: Path, capfd: Captured
) -> None:
    assert run(*command(net, images, tmp_path / "out", name, "0")) == 0
    assert "time of all readers and workers: decode " in capfd.readouterr().err
    assert run(*command(net, images, tmp_path / "out", name, "-1")) == 2
    assert "readers must be a whole number" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        run("run", "--help")
    shown = capfd.readouterr().out
    assert "  --readers N" in shown
    assert "--workers" not in shown
