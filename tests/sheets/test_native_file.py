"""Sheets that the native module draws, encodes and writes in one call: the same bytes, and nothing left of failures."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.cases import INF, NAN, noise
from support.looping import over
from support.native_module import load_native
from support.plain import render, save_sheet
from support.processes import Python
from support.waiting import wait_until

from cnnviz_fast.errors import WriteError
from cnnviz_fast.formats import png
from cnnviz_fast.sheets import native_file
from cnnviz_fast.sheets.plan import Plan

native = load_native()


def odd_maps() -> torch.Tensor:
    maps = noise(37, 9, 7)
    maps[1] = 2
    maps[2, 0, 0], maps[3, 1, 1], maps[4] = NAN, INF, NAN
    return maps


PHOTO = np.random.default_rng(0).integers(0, 256, (36, 28, 3), np.uint8)

SHEETS: dict[str, dict[str, Any]] = {
    "plain": {"tile": 300},
    "small": {"tile": 3},
    "grey": {"tile": 60, "colormap": "gray"},
    "apart": {"tile": 61, "gap": 3, "margin": 5, "grid": (7, 6)},
    "nearest": {"tile": (91, 40), "upsampling": "nearest", "align": "left"},
    "shrunk": {"tile": (5, 5)},
    "lettered": {"tile": 90, "label": True, "title": "all of {layer}", "colorbar": True, "normalize": "layer"},
    "over a photo": {"tile": 80, "overlay": PHOTO, "alpha": 0.3},
    "lettered over a photo": {"tile": 80, "overlay": PHOTO, "label": True, "title": "a title", "gap": 2},
}


def written(path: Path, monkeypatch: pytest.MonkeyPatch, *, natively: bool, **options: Any) -> bytes:
    calls: list[object] = []
    whole = native_file.write_png
    with monkeypatch.context() as patch:
        patch.setattr(native_file, "takes", lambda plan: natively)
        patch.setattr(native_file, "write_png", lambda *arguments: (calls.append(arguments), whole(*arguments))[1])
        save_sheet(odd_maps(), path, backend="native", **options)
    assert bool(calls) == natively
    return path.read_bytes()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", SHEETS)
def test_file_is_the_one_that_workers_write(
    name: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SHEETS[name]
    expected = written(tmp_path / "expected.png", monkeypatch, natively=False, **options)
    found = written(tmp_path / "found.png", monkeypatch, natively=True, threads=threads, **options)
    assert found == expected
    assert sorted(os.listdir(tmp_path)) == ["expected.json", "expected.png", "found.json", "found.png"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8])
def test_maps_of_other_dtypes_make_the_file_of_the_same_values(dtype: torch.dtype, tmp_path: Path) -> None:
    maps = (noise(20, 6, 5) * 40).clamp(0, 255).to(dtype)
    for values, name in ((maps, "a"), (maps.float(), "b"), (maps[None].to(memory_format=torch.channels_last)[0], "c")):
        save_sheet(values, tmp_path / f"{name}.png", tile=40)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_sheets_of_many_callers_at_once_are_all_right(tmp_path: Path) -> None:
    expected = save_sheet(odd_maps(), tmp_path / "expected.png", tile=90, threads=1).read_bytes()
    barrier = threading.Barrier(6)

    def save(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            save_sheet(odd_maps(), tmp_path / f"{number}-{turn}.png", tile=90, threads=1 + number)

    callers = [threading.Thread(target=save, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    files = list(tmp_path.glob("*-*.png"))
    assert len(files) == 30
    assert all(file.read_bytes() == expected for file in files)


def save_to(descriptor: int, **changed: Any) -> None:
    """Write the strips of a sheet of four tiles to a descriptor."""
    maps = np.zeros((4, 2, 2), np.float32)
    ends, index, fraction = np.zeros(4, np.float32), np.zeros(300, np.int32), np.zeros(300, np.float32)
    sound: dict[str, Any] = {
        "height": 600, "width": 600, "maps": maps, "vmin": ends, "vmax": ends,
        "row_index": index, "row_fraction": fraction, "col_index": index, "col_fraction": fraction,
        "grid": (2, 300, 300, 300, 300, 0, 0), "paint": (256, 0, 255), "flat": 0.0,
        "colors": np.zeros((256, 3), np.uint8), "photo": None, "blocks": [], "strip_rows": 7, "threads": 3,
    }  # fmt: skip
    native.write_sheet(descriptor, **sound | changed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_the_error_of_the_system() -> None:
    with open("/dev/full", "wb") as file, pytest.raises(OSError, match="No space left"):
        save_to(file.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        save_to(-1)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sheet.png").write_bytes(b"old")
    whole = native.write_sheet

    class Full:
        """The module, on a disk that is full."""

        @staticmethod
        def write_sheet(_: int, *arguments: Any) -> object:
            with open("/dev/full", "wb") as file:
                return whole(file.fileno(), *arguments)

    monkeypatch.setattr(native_file, "native", lambda: (Full, ""))
    with pytest.raises(WriteError, match=r"cannot write .*sheet\.png: .*No space left"):
        save_sheet(odd_maps(), tmp_path / "sheet.png", backend="native", manifest=False)
    assert os.listdir(tmp_path) == ["sheet.png"]
    assert (tmp_path / "sheet.png").read_bytes() == b"old"


@pytest.mark.parametrize("threads", [1, 3])
def test_the_caller_does_something_else_once_while_others_begin(threads: int, tmp_path: Path) -> None:
    callers: list[int] = []
    with open(tmp_path / "a", "wb") as file:
        save_to(file.fileno(), threads=threads, meanwhile=lambda: callers.append(threading.get_ident()))
    with open(tmp_path / "b", "wb") as file:
        save_to(file.fileno(), threads=threads)
    assert callers == [threading.get_ident()]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_threads_write_all_while_the_caller_is_busy(tmp_path: Path) -> None:
    with open(tmp_path / "whole", "wb") as file:
        save_to(file.fileno())
    whole, alone = os.path.getsize(tmp_path / "whole"), tmp_path / "alone"

    def wait() -> None:
        wait_until(lambda: os.path.getsize(alone) == whole)

    with open(alone, "wb") as file:
        save_to(file.fileno(), meanwhile=wait)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_the_caller_meets_meanwhile_leaves_nothing(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError("no room for the manifest")

    monkeypatch.setattr(Plan, "manifest_json", fail)
    with pytest.raises(MemoryError, match="no room for the manifest"):
        save_sheet(odd_maps(), tmp_path / "sheet.png", backend="native", tile=90, threads=threads)
    assert os.listdir(tmp_path) == []


@over(
    ("name", "value"),
    [
        ("blocks", [(599, 0, np.zeros((2, 3), np.uint8))]),
        ("blocks", [(0, 598, np.zeros((2, 3), np.uint8))]),
        ("blocks", [(2**63, 2**63, np.zeros((2, 3), np.uint8))]),
        ("strip_rows", 0),
        ("height", 0),
        ("colors", np.zeros((255, 3), np.uint8)),
        ("photo", (np.full(256, 300, np.uint16), np.zeros((300, 300, 3), np.uint8))),
        ("photo", (np.zeros(256, np.uint16), np.zeros((300, 299, 3), np.uint8))),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, value: Any) -> None:
    with open(os.devnull, "wb") as file, pytest.raises(ValueError, match="must"):
        save_to(file.fileno(), **{name: value})


def test_ctrl_c_is_noticed_between_strips() -> None:
    def ring(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        # 60 GB of pixels, which no machine writes in the time that the test has.
        index, fraction = np.zeros(2**20, np.int32), np.zeros(2**20, np.float32)
        with open(os.devnull, "wb") as file, pytest.raises(KeyboardInterrupt):
            save_to(
                file.fileno(), height=2**21, row_index=index, row_fraction=fraction, width=30_000, strip_rows=64,
                col_index=index[:15_000], col_fraction=fraction[:15_000],
                grid=(2, 2**20, 15_000, 2**20, 15_000, 0, 0),
            )  # fmt: skip
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own(tmp_path: Path) -> None:
    code = f"""
import os, sys, numpy as np, cnnviz_fast as cf
maps = np.random.default_rng(0).random((16, 5, 5), np.float32)
cf.save_sheet(maps, {str(tmp_path / "parent.png")!r}, plain=True, tile=200, threads=3)
child = os.fork()
if not child:
    cf.save_sheet(maps, {str(tmp_path / "child.png")!r}, plain=True, tile=200, threads=3)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    with Python("-c", code) as forking:
        assert forking.end(120) == 0, forking.said
    assert (tmp_path / "child.png").read_bytes() == (tmp_path / "parent.png").read_bytes()


def test_stages_are_recorded(tmp_path: Path) -> None:
    from cnnviz_fast.runtime.stage_times import Stages, watched

    stages = Stages()
    with watched(stages):
        save_sheet(odd_maps(), tmp_path / "sheet.png", tile=100, backend="native")
    seconds = stages.seconds()
    assert min(seconds["render"], seconds["encode"], seconds["write"]) > 0


def test_takes_only_where_the_encoder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "native", lambda: (None, "switched off"))
    expected = render(odd_maps(), tile=50).pil().convert("RGB")
    save_sheet(odd_maps(), tmp_path / "sheet.png", tile=50)
    from PIL import Image

    with Image.open(tmp_path / "sheet.png") as image:
        assert image.convert("RGB").tobytes() == expected.tobytes()
