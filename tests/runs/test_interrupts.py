"""Signals and kills: what they stop, and that the same call takes the run up afterwards."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import error_of, run
from support.processes import Python
from support.runs import (
    NET,
    assert_same_statistics,
    assert_same_top,
    command,
    digests,
    make_images,
    rows,
    sorted_rows,
    wait_for_rows,
)
from support.waiting import await_random_moment, wait_until

from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.runs.folder.journal import Journal


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_the_first_signal_finishes_what_is_under_way(number: signal.Signals, net: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "in", 100)
    arguments = command(net, tmp_path / "in", tmp_path / "out", "--save", "sheets,statistics")
    process = Python("-m", "cnnviz_fast", *arguments)
    wait_for_rows(tmp_path / "out", 16, process)
    process.send(number)
    assert process.end() == 130, process.said
    assert "stopping after what is under way" in process.said
    done = rows(tmp_path / "out")
    assert 16 <= len(done) < 200
    printed = process.printed.splitlines()
    assert len(printed) == len(done)
    assert {str(tmp_path / "out" / row["files"][0]) for row in done} == set(printed)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"] is False
    assert run(*arguments) == 0
    assert len(rows(tmp_path / "out")) == 200
    assert read_statistics(tmp_path / "out" / "statistics.safetensors")["0"].images == 100


HANGING = """
import sys
from pathlib import Path

import torch
from support.runs import LAYERS, small_model
from support.waiting import hang
from torch.utils.data import Dataset

import cnnviz_fast as cf


class Hanging(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, position):
        if position == 20:
            Path(sys.argv[2]).touch()
            hang()
        return torch.zeros(3, 24, 24)


try:
    cf.run(small_model(), Hanging(), LAYERS, sys.argv[1], batch=4, readers=1, progress="none")
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_the_first_signal_does_not_wait_for_an_image_that_hangs(tmp_path: Path) -> None:
    process = Python("-c", HANGING, str(tmp_path / "out"), str(tmp_path / "hangs"))
    wait_until(lambda: (tmp_path / "hangs").exists() and len(rows(tmp_path / "out")) == 40, 120)
    begin = time.monotonic()
    process.send(signal.SIGINT)
    assert process.end() == 130
    assert time.monotonic() - begin < 20
    assert process.said == (
        "cnnviz: stopping after what is under way; once more to stop at once\n"
        "cnnviz: stopped after 20 images; the same call goes on with the others\n"
    )


SLOW_NET = (
    NET.replace("return nn.Sequential(", "return nn.Sequential(Slow(), ")
    + """

class Slow(nn.Module):
    calls = 0

    def forward(self, batch):
        import signal, threading

        Slow.calls += 1  # of the class: what an instance counts is undone after each pass
        if Slow.calls > 4:  # one of them follows the axes
            signal.alarm(60)
            threading.Event().wait()
        return batch
"""
)


def test_the_second_signal_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SLOW_NET)
    make_images(tmp_path / "in", 40)
    arguments = command(tmp_path / "net.py", tmp_path / "in", tmp_path / "out", "--layer", "1")
    process = Python("-m", "cnnviz_fast", *arguments)
    wait_for_rows(tmp_path / "out", 2, process)
    process.send(signal.SIGINT)
    wait_until(lambda: "stopping after" in process.said)
    begin = time.monotonic()
    process.send(signal.SIGINT)
    assert process.end() == 130, process.said
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=pytest.mark.long)])
def test_kills_at_random_moments_leave_what_a_run_alone_makes(kills: int, net: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "in", 60 * kills)
    save = ("--save", "sheets,atlases,statistics,top")
    assert run(*command(net, tmp_path / "in", tmp_path / "alone", *save)) == 0
    arguments = command(net, tmp_path / "in", tmp_path / "out", *save)
    random = np.random.default_rng(5)
    for kill in range(1, kills + 1):
        process = Python("-m", "cnnviz_fast", *arguments)
        wait_for_rows(tmp_path / "out", 40 * kill, process)
        await_random_moment(random, 0.02)
        process.kill()
        assert process.end() == -signal.SIGKILL, "it ended before it was killed"
        (tmp_path / "out" / "0" / f".p0001.png.0123456{kill}.part").write_bytes(b"half")  # as a kill may leave it
        (tmp_path / "out" / "0" / f".cnnviz-{process.pid}-0-0.tmp").write_bytes(b"half")  # and the compiled encoder
        for path in (tmp_path / "out").glob("*/[!.]*.png"):
            with Image.open(path) as image:
                image.load()
    assert run(*arguments) == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
    assert sorted_rows(tmp_path / "out") == sorted_rows(tmp_path / "alone")
    assert_same_statistics(read_statistics(tmp_path / "out" / "statistics.safetensors"), tmp_path / "alone")
    assert_same_top(tmp_path / "out", tmp_path / "alone")


def test_a_folder_that_another_run_is_in_is_refused(
    net: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(tmp_path / "out", {}):
        assert run(*command(net, images, tmp_path / "out")) == 2
        assert "is in use by another run" in error_of(capsys)
