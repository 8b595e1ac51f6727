"""`cnnviz bench`: what is timed was checked, ways take turns, and the table says what came out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import OF_A_SAMPLE, close_to
from support.command_line import error_of, run

from cnnviz_fast.cli import main as cli
from cnnviz_fast.diagnostics import bench, bench_cases, stopwatch
from cnnviz_fast.diagnostics.stopwatch import Row, Way, timed
from cnnviz_fast.errors import KernelError, OptionError

pytestmark = pytest.mark.usefixtures("quick_collections")  # what is timed begins with a collection

WHAT = ("render", "save_sheet", "save_tiles", "encode", "index planes")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything small, the model too, and run it once."""
    load = bench_cases.load_model
    monkeypatch.setattr(bench_cases, "load_model", lambda _, **options: load("resnet18", **options))
    for name, size in {"CHANNELS": 20, "TILE_PX": 14, "FILE_TILE_PX": 28, "FILES": 6, "CPU_IMAGES": 1}.items():
        monkeypatch.setattr(bench_cases, name, size)
    monkeypatch.setattr(stopwatch, "LEAST", 1)
    monkeypatch.setattr(stopwatch, "MOST", 1)
    monkeypatch.setattr(bench_cases, "LIMIT_S", 600.0)  # the machine of the tests may be busy


# How it is measured.


def test_timed_checks_first_and_then_alternates() -> None:
    log: list[str] = []

    def way(name: str) -> Way:
        return Way(name, lambda: log.append(name), lambda _: log.append(f"{name}?") is None)

    seconds = timed([way("a"), way("b")], lambda: log.append("wait"), budget_s=0)
    assert log[:8] == ["wait", "a", "wait", "a?", "wait", "b", "wait", "b?"]
    assert log[8:] == ["wait", "a", "wait", "wait", "b", "wait"] * stopwatch.LEAST
    assert [len(each) for each in seconds] == [stopwatch.LEAST] * 2
    assert all(second >= 0 for each in seconds for second in each)


def test_timed_wrong_result_is_not_timed() -> None:
    log: list[str] = []
    wrong = Way("ours", lambda: log.append("ran"), lambda _: False)
    with pytest.raises(KernelError, match="ours gives a wrong result on this machine, so nothing was timed"):
        timed([wrong], lambda: log.append("wait"))
    assert log == ["wait", "ran", "wait"]


def test_timed_runs_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first run takes 1 s and those that are timed 9, 2, 3 and 4 s, breaks 5 s.
    clock = iter(np.cumsum([0, 1, 5, 9, 5, 2, 5, 3, 5, 4]).tolist())
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(clock))
    assert timed([Way("a", dict, lambda _: True)], dict, budget_s=13) == [[9, 2, 3]]


def test_timed_takes_the_first_run_where_no_time_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.0, 3.0, 5.0, 9.0]
    for left, runs in ((6.9, 1), (7.1, 2)):
        clock = iter([*times, 10.0, 11.0, 12.0, 13.0])
        monkeypatch.setattr(stopwatch.time, "perf_counter", lambda clock=clock: next(clock))
        seconds_left = iter([left, 0.0, 0.0])
        ways = [Way(name, dict, lambda _: True) for name in "ab"]
        found = timed(ways, dict, left_s=lambda left=seconds_left: next(left))
        assert found == ([[3.0], [4.0]] if runs == 1 else [[1.0], [1.0]])


def test_row_rate_is_amount_by_time() -> None:
    assert Row("a", 0.5, 3, "files").rate == 6


# What is measured.


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", bench_cases.cases(bench.setup_of("cpu", 1, Path())), ids=lambda case: case.__name__)
def test_measure_every_case_has_a_floor_or_a_peer(case: Any, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    row = bench.measure(bench.setup_of("cpu", 1, tmp_path), case)
    assert row is not None
    assert row.seconds > 0
    assert row.runs == 1
    assert row.amount > 0
    assert row.beside
    assert all(seconds is not None and seconds > 0 for seconds in row.beside.values())
    assert any(what in row.what for what in WHAT)
    assert torch.get_num_threads() == threads


@pytest.mark.gpu
@pytest.mark.usefixtures("small")
def test_measure_every_case_on_cuda(tmp_path: Path) -> None:
    setup = bench.setup_of("cuda", 1, tmp_path)
    cases = bench.cases(setup)
    assert bench_cases.draw_batch in cases
    rows = [bench.measure(setup, case) for case in cases]
    assert all(row is not None and row.seconds > 0 for row in rows)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", [bench_cases.draw, bench_cases.look_into])
def test_measure_refuses_wrong_pixels(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = bench_cases.render_index, iter(range(100))
    monkeypatch.setattr(bench_cases, "render_index", lambda *a, **o: right(*a, **o) ^ (3 * (next(calls) % 2 == 0)))
    with pytest.raises(KernelError, match="wrong result"):
        bench.measure(bench.setup_of("cpu", 1, tmp_path), case)


def test_close_planes_are_within_one_level() -> None:
    plane = np.array([[0, 255]], np.uint8)
    assert bench_cases._is_close(plane, np.array([[1, 254]], np.uint8))
    assert not bench_cases._is_close(plane, np.array([[2, 255]], np.uint8))
    assert not bench_cases._is_close(plane, np.array([[255, 0]], np.uint8))
    assert not bench_cases._is_close(plane, plane[:, :1])


def test_maps_are_half_zero_and_the_same_each_time(tmp_path: Path) -> None:
    setup = bench.setup_of("cpu", None, tmp_path)
    maps = setup.maps()
    assert maps.shape == (2048, 7, 7)
    assert (maps == 0).float().mean() == close_to(0.5, OF_A_SAMPLE)
    assert torch.equal(maps, setup.maps())
    assert setup.maps(2).shape == (2, 2048, 7, 7)


# The command.


@pytest.mark.usefixtures("small")
def test_bench_prints_the_machine_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "--device", "cpu", "--threads", 1) == cli.DONE
    captured = capsys.readouterr()
    rows = [f"row {number} of {len(WHAT)}" for number in range(1, len(WHAT) + 1)]
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == rows
    head, table = captured.out.split("\n\n")
    for subject in ("device", "backend", "threads", *bench.HEAD):
        assert re.search(rf"^{subject} +\S", head, re.M), subject
    lines = table.splitlines()
    assert lines[0].split() == ["what", "median", "rate", "beside"]
    assert len(lines) == 1 + len(WHAT) + 1, "one of the rows has two ratios"
    assert lines[2].split()[-3:] == ["F.interpolate", "+", "make_grid"]
    for what, line in zip(WHAT, [line for line in lines[1:] if line[0] != " "], strict=True):
        assert re.search(
            rf"{what}.*  [\d.e-]+ m?s  +[\d.,]+ (GB|MB|files|images)/s  +[\d.e+]+ x (faster than|the time of) ",
            line,
        )


@pytest.mark.usefixtures("small")
def test_bench_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "--device", "cpu", "--threads", 1, "--json") == cli.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["machine"]["device"] == "cpu"
    assert [set(row) for row in document["rows"]] == [{"what", "seconds", "amount", "unit", "beside", "runs"}] * len(
        WHAT
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--device", "mps"], "device must be auto, cpu or a device that is there, got 'mps'"),
        (["--device", "nothing"], "device must be auto, cpu or a device that is there, got 'nothing'"),
        (["--device", "meta"], "device must be one that computes, got 'meta'"),
        (["--threads", "0"], "threads must be a whole number of at least 1, got 0"),
    ],
)
def test_bench_refuses_in_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if argv[1] == "mps" and torch.backends.mps.is_available():
        pytest.skip("MPS is there")
    assert run("bench", *argv) == cli.USAGE
    assert message in error_of(capsys)


def test_place_of_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(OptionError, match="got 'cuda'"):
        bench.setup_of("cuda", None, tmp_path)


def test_bench_says_ratios_above_one() -> None:
    from cnnviz_fast.cli.bench import _ratio

    assert _ratio(1.0, 12.0, "Pillow") == "12 x faster than Pillow"
    assert _ratio(1.5, 1.0, "a fill") == "1.5 x the time of a fill"


@pytest.mark.usefixtures("small")
def test_bench_without_time_measures_one_row_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_cases, "LIMIT_S", -1.0)
    monkeypatch.setattr(stopwatch, "LEAST", 3)
    assert run("bench", "--device", "cpu", "--threads", 1) == cli.DONE
    captured = capsys.readouterr()
    assert captured.err.count("is left out: this machine is slow or busy, and the time is over.") == len(WHAT) - 1
    _, first, *others = captured.out.split("\n\n")[1].splitlines()
    assert re.search(r"^render.* \(1 run\)  ", first)
    assert [line.strip() for line in others] == ["F.interpolate + make_grid left out, as it takes long"]


@pytest.mark.usefixtures("small")
def test_look_into_without_time_for_two_passes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_cases, "LIMIT_S", -1.0)
    assert bench.measure(bench.setup_of("cpu", 1, tmp_path), bench_cases.look_into) is None
