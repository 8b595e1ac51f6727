"""The benchmarks themselves: tables and bars hold together, the tables in the documents are those of the newest run."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import OF_A_SAMPLE, ROUNDED, close_to

from benchmarks import ROOT, arm_instructions, report, run
from benchmarks.cases import bench_encode, bench_gpu, bench_render, bench_startup, bench_write
from benchmarks.harness import bars, calm, compare, drawing_peers, history, installed, measure, outputs, processes
from benchmarks.harness.bar import SCALES, Bar, EveryPeer, Figure
from benchmarks.harness.drawing import FASTEST, Drawing
from benchmarks.harness.measure import FLOOR, OURS, PEER, SHORT, Contender, Effort, Inside, Table
from benchmarks.harness.workloads import DEAD, HUGE, LAYER4, TINY, WORKLOADS, Workload, maps_of

pytestmark = pytest.mark.usefixtures("quick_collections")  # what is timed begins with a collection

TABLES: list[Table] = [t for name in run.CASES for t in importlib.import_module(f"benchmarks.cases.{name}").TABLES]
RUNS = history.runs()


def record_of(**tables: dict[str, Any]) -> history.Record:
    """Return a record with these tables."""
    machine = {"class": "machine", "cpu": "CPU", "cores": 2, "vectors": "scalar", "system": "-", "files_in": "memory"}
    head = {"date": "2000-01-01T00:00", "commit": "0", "machine": machine, "second_core": [1, 0.99], "versions": {}}
    return {**head, "tables": tables}


def entry(seconds: float, role: str = OURS, **more: float | str) -> dict[str, Any]:
    """Return a contender's figures in a record."""
    return {"role": role, "median_s": seconds, "min_s": seconds, "iqr_s": 0.0, "rounds": 3, **more}


OLD = record_of(
    render={"numba": entry(0.01), "fill": entry(0.005, FLOOR), "other way": entry(0.1, PEER)},
    write={"save_sheet": entry(0.05, file_bytes=100), "OpenCV": entry(0.5, PEER, file_bytes=120)},
)


def changed(table: str, contender: str, **figures: float) -> history.Record:
    """Return the old run with some figures changed."""
    new = copy.deepcopy(OLD)
    new["tables"][table][contender].update(figures)
    return new


# What is measured


def test_tables_have_names_of_their_own_and_something_to_beat() -> None:
    names = [table.name for table in TABLES]
    assert len(set(names)) == len(names)
    for table in TABLES:
        contenders = [c.name for c in table.contenders]
        assert len(set(contenders)) == len(contenders)
        roles = {c.role for c in table.contenders}
        assert OURS in roles, table.name
        assert roles & {PEER, FLOOR}, f"{table.name} has no ratio to compare"
        assert roles <= {OURS, PEER, FLOOR}


def test_tables_say_how_they_extrapolate() -> None:
    for contender in (c for table in TABLES for c in table.contenders):
        assert 1 <= contender.ran <= contender.of
        assert contender.role != OURS or contender.factor == 1, "what is ours is never extrapolated"


def test_short_form_holds_every_stage() -> None:
    modules = {name: importlib.import_module(f"benchmarks.cases.{name}").TABLES for name in run.CASES}
    assert {name for name, tables in modules.items() if not all(t.full_only for t in tables)} == set(run.SHORT_CASES)
    short = {table.name for table in TABLES if not table.full_only}
    assert {bars.RENDER, bars.WRITE_SMALL, bars.ENCODE, bars.FILES, bars.START} == short


@pytest.mark.parametrize("module", run.CASES)
def test_every_file_of_cases_is_run(module: str) -> None:
    files = {path.stem for path in Path(run.__file__).parent.glob("cases/bench_*.py")}
    assert set(run.CASES) == files


def test_workloads_are_realistic_and_seeded() -> None:
    for workload in (TINY, *WORKLOADS):
        maps = maps_of(workload)
        assert maps.shape == (workload.channels, workload.map_px, workload.map_px)
        assert (maps == 0).float().mean() == close_to(0.5, OF_A_SAMPLE)
        assert 100 * int((maps.amax((1, 2)) == 0).sum()) <= len(maps), "hardly a channel is dead"
    maps_of.cache_clear()
    assert np.array_equal(maps, maps_of(workload))
    assert not maps_of(DEAD).any()


@pytest.mark.parametrize("workload", [TINY, LAYER4, HUGE, *WORKLOADS], ids=lambda w: w.name)
def test_drawing_counts_the_bytes_of_its_sheet(workload: Workload) -> None:
    grid = Drawing(workload).plan().grid
    assert Drawing(workload).bytes == grid.height * grid.width


def test_huge_sheet_is_20_000_px_a_side() -> None:
    grid = Drawing(HUGE).plan().grid
    assert min(grid.height, grid.width) >= 20_000


TWO_ROWS = Workload(5, 7, 28)  # a sheet of 2 x 3 tiles with an empty cell


@pytest.mark.parametrize("make", [bench_render.render_table, bench_encode.encode_table, bench_write.write_table])
def test_contenders_of_small_sheets_are_right(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_render, "ON_THE_CPU", (FASTEST,))  # numba would be compiled
    table = make(TWO_ROWS)
    table.measure(None, leave_out_slow=False)
    assert {name: measured.error for name, measured in table.results.items() if measured.error} == {}


def test_peers_that_draw_something_else_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_render, "ON_THE_CPU", (FASTEST,))
    right = drawing_peers.lay_out
    monkeypatch.setattr(drawing_peers, "lay_out", lambda tiles, cols, out: right(tiles[::-1], cols, out))
    table = bench_render.render_table(TWO_ROWS)
    table.measure(None, leave_out_slow=False)
    wrong = {name for name, measured in table.results.items() if isinstance(measured.error, AssertionError)}
    assert {"F.interpolate, 1 thread", "torchvision's resize of uint8, 2 threads"} <= wrong
    assert not any(table.contender(name).role == OURS for name in wrong)


def test_peers_are_rows_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "version_of", {"kornia": "1.2", "fpng": "0.1"}.get)
    made = (bench_render.render_table(TWO_ROWS), bench_encode.encode_table(TWO_ROWS))
    rows = {c.name: c.packages for table in made for c in table.contenders if c.packages}
    named = {"kornia's resize, 1 thread": ("kornia",), "kornia's resize, 2 threads": ("kornia",)}
    assert rows == {**named, "fpng, as RGB": ("fpng",)}
    assert installed.versions_of(("kornia", "fpng")) == "kornia 1.2, fpng 0.1"
    assert installed.versions_of(("kornia", "isal")) is None


def test_first_render_is_by_a_copy_that_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    def render(PYTHONPATH: str, **environment: str) -> Path:
        assert not list(Path(PYTHONPATH).rglob("__pycache__"))
        assert not Path(environment["NUMBA_CACHE_DIR"]).exists()
        show = "import cnnviz_fast; print(cnnviz_fast.__file__)"
        return Path(processes.run("-c", show, PYTHONPATH=PYTHONPATH, **environment).stdout.strip())

    ran: list[Path] = []
    monkeypatch.setattr(bench_startup, "render", render)
    monkeypatch.setattr(bench_startup, "is_sheet", ran.append)
    for _ in range(2):
        assert bench_startup.render_first().seconds > 0
    assert ran[0] != ran[1]
    assert not ran[1].exists(), "copies are removed"


def test_first_render_notices_that_another_copy_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_startup, "render", lambda **_: Path())
    monkeypatch.setattr(bench_startup, "is_sheet", lambda _: None)
    with pytest.raises(AssertionError, match="another copy"):
        bench_startup.render_first()


def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the tables for a GPU here, by the one backend that fills tensors on any device."""
    monkeypatch.setattr(bench_gpu, "DEVICE", "cpu")
    monkeypatch.setattr(bench_gpu, "BACKEND", "torch")


@pytest.mark.parametrize("make", [bench_gpu.render_table, lambda w: bench_gpu.batch_table(w, 2)])
def test_gpu_tables_give_what_the_cpu_draws(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    table = make(TINY)
    table.measure(Effort(0.0, most=1), leave_out_slow=False)
    for measured in table.results.values():
        assert measured.error is None
        assert len(measured.seconds) == 1


def test_gpu_tables_find_wrong_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    right = bench_gpu.render_index
    monkeypatch.setattr(bench_gpu, "render_index", lambda *a, **o: right(*a, **o).flip(-1))
    monkeypatch.setattr(bench_gpu.OnDevice, "draw", lambda self: None)
    for table in (bench_gpu.render_table(TINY), bench_gpu.batch_table(TINY, 2)):
        table.measure(None, leave_out_slow=False)
        for contender in table.contenders:
            assert isinstance(table.results[contender.name].error, AssertionError) == (contender.role == OURS)


def test_gpu_tables_find_a_peer_that_drew_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    table = bench_gpu.render_table(TINY)
    drawn = bench_gpu.peers.interpolate_make_grid
    grids = iter([lambda grid: grid.flip(-1), lambda grid: grid])  # what is timed is wrong, what comes after it right
    monkeypatch.setattr(bench_gpu.peers, "interpolate_make_grid", lambda *given: next(grids)(drawn(*given)))
    table.measure(None, leave_out_slow=False)
    errors = {c.name: table.results[c.name].error for c in table.contenders if c.role == PEER}
    assert [type(error) for error in errors.values()] == [AssertionError]


@pytest.mark.gpu
def test_work_in_a_graph_is_done_again() -> None:
    source = torch.zeros(4, device="cuda")
    again = bench_gpu.graphed(lambda: source + 1)
    source.fill_(6)
    assert again().tolist() == [7] * 4


def test_gpu_table_of_a_pass_gives_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    table = bench_gpu.look_table(1)
    table.measure(None, leave_out_slow=False)
    assert [measured.error for measured in table.results.values()] == [None, None]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_gpu_cases_are_deselected_and_counted_where_there_is_no_cuda(capsys: pytest.CaptureFixture[str]) -> None:
    # In this process, where all is loaded that a collection needs.
    cases = str(ROOT / "benchmarks" / "cases" / "bench_gpu.py")
    pytest.main([cases, "-q", "--collect-only", "-o", "addopts=", "-p", "no:xdist", "-p", "no:cacheprovider"])
    count = sum(len(table.contenders) for table in bench_gpu.TABLES)
    said = capsys.readouterr()
    assert f"({count} deselected)" in said.out, said.out + said.err


# How it is measured


def contender(name: str, log: list[str], **more: Any) -> Contender:
    """Return a contender that writes down that it ran."""
    return Contender(name, lambda: log.append(name), lambda _: None, more.pop("role", OURS), 0, **more)


def test_measure_contenders_take_turns() -> None:
    log: list[str] = []
    table = Table("t", [contender("a", log), contender("b", log)], prepare=lambda: log.append("prepared"))
    table.measure(Effort(1.0, most=3), leave_out_slow=False)
    assert log == ["prepared", "a", "b", "a", "b", "a", "b", "a", "b"]
    assert [len(m.seconds) for m in table.results.values()] == [3, 3]


def test_measure_runs_at_least_so_often() -> None:
    log: list[str] = []
    Table("t", [contender("a", log)]).measure(Effort(0.0, most=9, least=2), leave_out_slow=False)
    assert log == ["a", "a", "a"]


def test_measure_without_effort_only_checks() -> None:
    log: list[str] = []
    table = Table("t", [contender("a", log), contender("b", log)])
    table.measure(None, leave_out_slow=False)
    assert log == ["a", "b"]
    assert not table.results["a"].seconds


def test_measure_loading_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [0.0]
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock_s[0]))

    def load() -> None:
        clock_s[0] += 10 * measure.SLOW_S

    table = Table("t", [Contender("a", dict, lambda _: None, OURS, 0, load=load)])
    table.measure(SHORT, leave_out_slow=False)
    assert table.results["a"].seconds == [0.0] * SHORT.most


def test_measure_a_wrong_result_is_not_timed() -> None:
    def wrong(_: object) -> None:
        raise AssertionError("wrong")

    log: list[str] = []
    table = Table("t", [Contender("a", dict, wrong, OURS, 0), contender("b", log)])
    table.measure(SHORT, leave_out_slow=False)
    assert str(table.results["a"].error) == "wrong"
    assert not table.results["a"].seconds
    assert len(table.results["b"].seconds) == SHORT.most


def test_measure_slow_is_left_out_of_the_short_form() -> None:
    log: list[str] = []
    Table("t", [contender("a", log, slow=True), contender("b", log)]).measure(SHORT, leave_out_slow=True)
    assert set(log) == {"b"}


def test_measure_extrapolates_and_believes_other_processes(tmp_path: Path) -> None:
    inside = Contender("a", lambda: Inside(0.5, {"peak_bytes": 7.0}), lambda _: None, PEER, 0, ran=2, of=8)
    result, seconds = inside.once()
    assert seconds == 2.0
    assert inside.facts(result) == {"peak_bytes": 7.0}


def test_measure_removes_old_files_and_counts_new_ones(tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    def write() -> None:
        assert not list(folder.iterdir())
        (folder / "a.png").write_bytes(b"12345")
        (folder / "manifest.json").write_text("{}")

    writer = Contender("a", write, lambda _: None, OURS, 0, output=lambda: folder)
    for _ in range(2):
        assert writer.facts(writer.once()[0]) == {"file_bytes": 5}
    (tmp_path / "a.png").touch()
    outputs.remove(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_measure_times_what_runs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [0.0]
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock_s[0]))

    def takes(seconds: float) -> None:
        clock_s[0] += seconds

    runner = Contender("a", lambda: takes(2.0), lambda _: takes(1.0), OURS, 0, output=lambda: takes(4.0) or tmp_path)
    assert runner.once()[1] == 2.0


# Bars


@pytest.mark.parametrize(
    "bar",
    [bar for bar in (*bars.BARS, *bars.VIEWER_BARS, *bars.GPU_BARS) if isinstance(bar, Bar)],
    ids=lambda b: f"{b.what} {b.relation} {b.beside} {b.limit}",
)
def test_bars_name_figures_that_exist(bar: Bar) -> None:
    known = {(t.name, c.name): c for t in TABLES for c in t.contenders}
    for figure in filter(None, (bar.ours, bar.other)):
        if (
            figure.contender == "captum" and importlib.util.find_spec("captum") is None
        ):  # a peer that only the extra `bench` brings
            assert figure.of(RUNS[-1]) is not None
            continue
        assert figure[:2] in known
        measured_inside = {"peak_bytes"} if figure.table in (bars.WRITE_HUGE, bars.VIEWER_SERVER) else set()
        has_file = known[figure[:2]].output or known[figure[:2]].size
        assert figure.field in {"median_s", "gb_per_s", "bytes"} | measured_inside | (
            {"file_bytes"} if has_file else set()
        )
    assert known[bar.ours[:2]].role == OURS
    assert (bar.other is None) == (bar.relation == "")
    assert bar.limit > 0
    assert bar.unit in SCALES
    if bar.other and bar.relation in ("times faster than", "at the speed of", "of"):
        assert bar.at_least
    if bar.other and bar.relation in ("times", "more than"):
        assert not bar.at_least


def test_bars_are_the_ones_asked_for() -> None:
    limits = sorted(bar.limit for bar in bars.BARS if isinstance(bar, Bar))
    asked = [50, 0.25, 0.15, 8, 10, 60, 1, 3, 0.2, 4, 25, 1000, 50, 64, 1.7, 0.5, 1.02, 1.15, 1000, 10]
    asked += [5] * 6 + [4] * 6 + [0.6] * 5 + [2.2, 1.5] + [2] * 6 + [3, 3, 12, 1.15, 19, 18.582]  # of every shape
    asked += [95, 95, 85, 90, 80]
    asked += [1.1, 1.5, 1.5]  # what channels look for
    asked += [1.05, 1.3, 1.3, 1]  # attribution
    assert limits == sorted(asked)
    viewed = [0.22, 0.06] + [300, 33, 33, 33, 50] * 2 + [1, 300, 150, 1]
    assert [bar.limit for bar in bars.VIEWER_BARS] == viewed
    assert [(bar.limit, bar.unit, bar.at_least) for bar in bars.GPU_BARS] == [
        (70, "%", True), (70, "%", True), (1.15, "x", False), (30, "x", True)
    ]  # fmt: skip


def test_bar_value_and_verdict() -> None:
    ours, other = Figure("render", "numba"), Figure("render", "other way")
    faster = Bar("", ours, "times faster than", other, "", True, 8, "x")
    assert faster.value(OLD) == close_to(10, ROUNDED)
    assert faster.reached(8)
    assert not faster.reached(7.9)
    more = Bar("", ours, "more than", other, "", False, 0.5, "s")
    assert more.value(OLD) == close_to(-0.09, ROUNDED)
    bandwidth = Bar("", ours, "of", other, "", True, 70, "%")
    assert bandwidth.value(OLD) == close_to(10, ROUNDED)
    share = Bar("", Figure("write", "save_sheet", "file_bytes"), "", None, "", False, 1, "MB")
    assert share.value(OLD) == close_to(1e-4, ROUNDED)
    assert share.reached(1.0)
    assert not share.reached(1.1)
    assert Bar("", Figure("no table", "x"), "", None, "", False, 1, "s").value(OLD) is None


def test_every_peer_is_held_to_the_one_that_comes_closest() -> None:
    every = EveryPeer("drawing", ("a", "b"))
    assert every.value(OLD) is None
    assert every.held_in(OLD).what == "drawing"
    a = {
        "ours, 1 thread": entry(0.02), "ours, 2 threads": entry(0.01, threads=2), "slower of ours": entry(0.5),
        "fast floor": entry(0.001, FLOOR), "peer, 1 thread": entry(0.018, PEER),
        "peer, 2 threads": entry(0.017, PEER, threads=2), "peer of 3 threads": entry(0.001, PEER, threads=3),
    }  # fmt: skip
    b = {"ours": entry(0.01), "peer": entry(0.03, PEER)}
    only_b = every.held_in(record_of(b=b))
    assert (only_b.value(record_of(b=b)), only_b.beside) == (close_to(3, ROUNDED), "peer (b)")
    both = every.held_in(record_of(a=a, b=b))
    assert (both.ours, both.beside) == (Figure("a", "ours, 1 thread"), "peer, 1 thread (a)")
    assert both.value(record_of(a=a, b=b)) == close_to(0.9, ROUNDED)
    assert not both.reached(0.9)


def test_every_peer_covers_the_tables_of_all_shapes() -> None:
    covered = {table for bar in bars.BARS if isinstance(bar, EveryPeer) for table in bar.tables}
    assert covered <= {table.name for table in TABLES}
    for workload in WORKLOADS:
        assert {bars.render_of(workload), bars.write_of(workload)} <= covered


# Records and comparisons


def test_compare_equal_runs_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.json"
    path.write_text(history.dumps(OLD))
    assert compare.main([str(path), str(path)]) == 0
    assert "4 ratios, 0 worse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (changed("render", "numba", min_s=0.013), "render: time of numba to fill: 2 -> 2.6"),
        (changed("write", "save_sheet", min_s=0.07), "write: time of save_sheet to OpenCV: 0.1 -> 0.14"),
        (changed("write", "save_sheet", file_bytes=130), "write: size of save_sheet to OpenCV: 0.833 -> 1.08"),
    ],
)
def test_compare_planted_regression_fails(
    new: history.Record, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, record in zip(paths, (OLD, new), strict=True):
        path.write_text(history.dumps(record))
    assert compare.main([str(path) for path in paths]) == 1
    assert f"worse: {said}" in capsys.readouterr().out
    assert compare.main([*map(str, paths), "--slack", "1.5"]) == 0


def test_compare_slower_machine_passes() -> None:
    slower = copy.deepcopy(OLD)
    for figures in (e for contenders in slower["tables"].values() for e in contenders.values()):
        figures.update(min_s=figures["min_s"] * 3)
    assert not compare.worse(OLD, slower)


def test_compare_nothing_in_common_is_an_error() -> None:
    with pytest.raises(ValueError, match="no table"):
        compare.worse(OLD, record_of(another={"a": entry(1)}))


def test_compare_best_of_takes_the_faster_round() -> None:
    slow = changed("render", "numba", min_s=0.5)
    assert compare.best_of(slow, OLD)["tables"] == OLD["tables"]
    assert compare.best_of(OLD, record_of())["tables"] == OLD["tables"]


def test_guard_tries_twice_and_fails_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = changed("render", "numba", min_s=0.5)
    monkeypatch.setattr(history, "runs", lambda machine_class="*": [OLD])
    monkeypatch.setattr(run, "measure", lambda short: OLD)
    assert run.guard(slow) == 0
    monkeypatch.setattr(run, "measure", lambda short: slow)
    assert run.guard(slow) == 1
    assert run.guard(changed("render", "numba", min_s=0.01 * run.SHORT_SLACK * 0.9)) == 0


def test_guard_does_not_blame_a_busy_second_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "runs", lambda machine_class="*": [OLD])
    slow = changed("render", "numba", min_s=0.01 * run.SHORT_SLACK * 1.5)
    busy = {**slow, "second_core": [1.0, 0.5]}
    monkeypatch.setattr(run, "measure", lambda short: slow)
    assert run.guard(slow) == 1
    monkeypatch.setattr(run, "measure", lambda short: busy)
    assert run.guard(busy) == 0


def test_guard_other_machine_has_more_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    new = changed("render", "numba", min_s=0.03)
    monkeypatch.setattr(history, "runs", lambda machine_class="*": [OLD] if machine_class == "*" else [])
    monkeypatch.setattr(run, "measure", lambda short: new)
    assert run.guard(new) == 0
    monkeypatch.setattr(history, "runs", lambda machine_class="*": [])
    assert run.guard(new) == 0


def test_record_keeps_what_counts() -> None:
    info = {"table": "t", "contender": "a", "role": OURS, "bytes": 2_000_000, "threads": 1, "ran": 1, "of": 1}
    info["version"] = ""
    stats = {"median": 0.0012345678, "min": 0.001, "iqr": 0.0001, "rounds": 5, "data": [1, 2, 3]}
    record = history.record_of({"benchmarks": [{"extra_info": {**info, "file_bytes": 9}, "stats": stats}]}, [1.0, 0.98])
    assert record["tables"] == {
        "t": {
            "a": {
                "role": "ours", "median_s": 0.001235, "min_s": 0.001, "iqr_s": 0.0001, "rounds": 5, "gb_per_s": 1.62,
                "bytes": 2_000_000, "file_bytes": 9,
            }
        }
    }  # fmt: skip
    assert json.loads(history.dumps(record)) == record


def test_machine_says_nothing_of_whose_it_is() -> None:
    described = history.machine()
    assert set(described) - {"gpu"} == {"class", "cpu", "cores", "vectors", "system", "files_in"}
    assert ("gpu" in described) == torch.cuda.is_available()
    assert described["class"].replace("-", "").isalnum()


# The tables in the documents


def test_history_is_recorded() -> None:
    assert RUNS
    for recorded in RUNS:
        assert (history.FOLDER / recorded["machine"]["class"]).is_dir()
        for contenders in recorded["tables"].values():
            assert any(e["role"] == OURS for e in contenders.values())
            for figures in contenders.values():
                assert {"median_s", "min_s", "iqr_s", "rounds"} <= set(figures)
                assert not any(isinstance(value, list) for value in figures.values())


def test_newest_run_measured_every_bar() -> None:
    assert all(bar.value(RUNS[-1]) is not None for bar in bars.BARS)


def test_results_are_those_of_the_newest_run() -> None:
    assert report.RESULTS.read_text() == report.results(RUNS), "stale: python -m benchmarks.report"


def test_readme_shows_the_newest_run() -> None:
    readme = report.README.read_text()
    assert len(report.MARKERS.findall(readme)) == 1
    assert report.readme_with_table(readme, RUNS) == readme, "stale: python -m benchmarks.report"


def test_report_says_when_the_machine_was_busy() -> None:
    render = {bars.RENDER: {"native, 2 threads": entry(0.02), "fill": entry(0.005, FLOOR)}}
    assert "was busy" not in report.results([record_of(**render)])
    busy = {**record_of(**render), "second_core": [1.0, 0.5]}
    assert "was busy" in report.results([busy])
    assert "was busy" in report.readme_with_table(report.README.read_text(), [busy])


def test_second_core_is_a_share() -> None:
    assert 0 < calm.second_core(rounds=20) < 2


def test_report_states_missed_bars_and_extrapolation_plainly() -> None:
    render = {
        "native, 1 thread": entry(0.01), "native, 2 threads": entry(0.01, threads=2), "fill": entry(0.005, FLOOR),
        "loop": entry(4.0, PEER, ran=2, of=2048, version="looper 1.2"),
    }  # fmt: skip
    text = report.results([record_of(**{bars.RENDER: render})])
    assert "| 2.00 x | at most 1.5 x | **missed** |" in text
    assert "| 2.00 x | at most 2.2 x | reached |" in text
    assert "| 10.0 ms | loop (render 2048x7x7 to 224 px): 4.00 s | 400 x faster | at least 1 x | reached |" in text
    assert "loop (looper 1.2), *extrapolated from 2 of 2,048*" in text
    assert "not measured" in text


def gpu_lines(text: str) -> list[str]:
    """Return the rows of the bars on CUDA."""
    return [line for line in text.splitlines() if line.startswith("| CUDA: ")]


def test_report_leaves_gpu_bars_open_until_a_run_has_a_gpu() -> None:
    text = report.results([OLD])
    assert "No run on a machine with a CUDA device is recorded" in text
    assert len(gpu_lines(text)) == len(bars.GPU_BARS)
    assert all(line.endswith("| not measured |") for line in gpu_lines(text))
    readme = report.readme_with_table(report.README.read_text(), [OLD])
    assert len(gpu_lines(readme)) == 1


def test_report_shows_gpu_bars_of_the_newest_run_with_a_gpu() -> None:
    render = {
        "kernel, device time": entry(0.05, gb_per_s=2000.0),
        "fill, device time": entry(0.03, FLOOR, gb_per_s=2500.0),
        "F.interpolate + make_grid, device time": entry(1.0, PEER),
    }
    there = record_of(**{bars.RENDER_CUDA: render, bars.BATCH_CUDA: {}, bars.LOOK_CUDA: {}})
    del there["tables"][bars.BATCH_CUDA], there["tables"][bars.LOOK_CUDA]
    there["machine"] = {**there["machine"], "gpu": "some GPU"}
    text = report.results([there, OLD])
    shown = gpu_lines(text)
    assert "80.0 % | at least 70 % | reached" in shown[0]
    assert shown[1].endswith("| not measured |")
    assert "20.0 x faster | at least 30 x | **missed**" in shown[3]
    assert "some GPU" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.0, "2.00 s"), (0.0123, "12.3 ms"), (0.5e-3, "500 us"), (123.4, "123 s"), (0.0, "0.00 us")]
)
def test_report_writes_times_in_their_unit(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


# What is counted for ARM

LISTING = """
0000000000000000 <cnnviz::crc32_arm(unsigned int, unsigned char const*, unsigned long)>:
   0:\tmov\tx3, x1
   4:\tldr\tx4, [x3], #8
   8:\tcrc32x\tw0, w0, x4
   c:\tcmp\tx3, x2
  10:\tb.ne\t4 <cnnviz::crc32_arm(unsigned int, unsigned char const*, unsigned long)+0x4>  // b.any
  14:\tret

0000000000000020 <void cnnviz::(anonymous namespace)::put_blocks<32>(cnnviz::BitWriter&)>:
  20:\tldr\tq0, [x1]
  24:\tldr\tq1, [x2]
  28:\tadd\tv0.16b, v0.16b, v1.16b
  2c:\tcbnz\tx3, 24 <void cnnviz::(anonymous namespace)::put_blocks<32>(cnnviz::BitWriter&)+0x4>
  30:\ttbnz\tw5, #3, 20 <void cnnviz::(anonymous namespace)::put_blocks<32>(cnnviz::BitWriter&)>
  34:\tb\t0 <cnnviz::crc32_arm(unsigned int, unsigned char const*, unsigned long)>

0000000000000040 <cnnviz::put_rest(unsigned char*)>:
  40:\tstrb\tw1, [x0], #1
  44:\tcbz\tx2, 40 <cnnviz::put_rest(unsigned char*)>

0000000000000050 <cnnviz::put_all(unsigned char*)>:
  50:\tmovi\tv0.2d, #0x0
  54:\tb\t20 <void cnnviz::(anonymous namespace)::put_blocks<32>(cnnviz::BitWriter&)>
"""
"""As objdump prints them: a loop for CRC-32, one within another, one without vector instructions, and none."""


def test_loops_of_counts_the_innermost_loops_that_have_vector_instructions() -> None:
    assert arm_instructions.loops_of(LISTING) == [("crc32_arm", 4, 1), ("put_blocks<32>", 3, 2)]


def test_page_of_arm_names_every_loop() -> None:
    rows = [line for line in arm_instructions.PAGE.read_text().splitlines() if line.startswith("| ")]
    assert all(cell.strip() for row in rows for cell in row.split("|")[1:-1])
