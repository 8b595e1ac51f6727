"""Runs on Ray: the same files, rows and statistics as without it, whatever dies meanwhile; and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from support.runs import COUNT, LAYERS, assert_same_outcome, digests, make_pictures, rows, small_model
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import (
    BackendError,
    BackendUnavailableError,
    ImagesFailedError,
    LayerNotFoundError,
    OptionError,
)
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.options.reading import AxesOptions
from cnnviz_fast.options.runs import RunOptions
from cnnviz_fast.runs.batches import FailedImage, FinishedImage, ImageId, Outcome, OutputSpec
from cnnviz_fast.runs.images import images_of
from cnnviz_fast.runs.local import run_here
from cnnviz_fast.runs.outputs import outputs_of
from cnnviz_fast.runs.ranks import Ranks
from cnnviz_fast.runs.ray import actor as ray_actor
from cnnviz_fast.runs.ray import engine as ray_engine
from cnnviz_fast.runs.ray.actor import ATTEMPTS, NOTES, STOP, UNDER_WAY, Actor, ActorTask, Returned
from cnnviz_fast.runs.ray.cluster import ActorPool, connected, pool_of, threads_ended
from cnnviz_fast.runs.ray.engine import CHUNK_BATCHES, RayRunner, chunks_of
from cnnviz_fast.runs.spec import RunSpec, RunSummary

# Ray 2.60 warns of options of its own when it makes its record of them.
pytestmark = pytest.mark.filterwarnings(r"ignore:.use_\w+. is deprecated")

QUICK: dict[str, Any] = {"batch": 4, "tile": 12, "progress": "none", "save": "sheets,atlases,statistics"}
STORE_BYTES = 80_000_000  # Ray takes no less

NET = '''
"""A net whose class is defined in a file that no other process can import."""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)

    def forward(self, batch):
        return self.conv(batch)


def make():
    torch.manual_seed(0)
    return Net()
'''


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of COUNT pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    cf.run(small_model(), pictures, LAYERS, folder, workers=0, **QUICK)
    return folder


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Return Ray, with a cluster of one machine with two CPUs, that this process is connected to."""
    import ray

    with pytest.MonkeyPatch.context() as patch:  # its processes unpickle classes of this file
        patch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[2])]))
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield ray
    ray.shutdown()


@pytest.fixture
def disconnected() -> None:
    """Disconnect from Ray."""
    import ray

    ray.shutdown()


# The same outcome.


def test_two_actors_come_to_what_a_run_without_ray_does(ray: Any, pictures: Path, alone: Path, tmp_path: Path) -> None:
    told: list[Path] = []
    some = sorted(pictures.iterdir())[:9]
    cf.run(small_model(), some, LAYERS, tmp_path, workers=0, **QUICK)  # what is there is taken up
    summary = cf.run(small_model(), pictures, LAYERS, tmp_path, engine="ray", workers=2, on_file=told.append, **QUICK)
    assert_same_outcome(tmp_path, alone)
    assert (summary.finished, summary.skipped, summary.failed) == (COUNT - 9, 9, 0)
    assert sorted(told) == sorted(tmp_path / file for row in rows(alone)[18:] for file in row["files"])
    assert set(summary.stages) == {"decode", "forward", "render", "encode", "write"}
    assert not (tmp_path / NOTES).exists()
    assert ray.is_initialized()  # who began it, ends it


class Dangerous(Dataset[Any]):
    """Pictures of which one cannot be read, and one ends the process that reads it."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, position: int) -> Any:
        if position == 2:
            raise ValueError("torn")
        if position == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return Image.new("RGB", (32, 32), (20 * position, 0, 0))


def test_pictures_that_fail_or_crash_cost_only_themselves(ray: Any, tmp_path: Path) -> None:
    summary = cf.run(small_model(), Dangerous(), ["0"], tmp_path, engine="ray", workers=1, **QUICK)
    assert (summary.finished, summary.failed) == (8, 2)
    reasons = {row["key"]: row["reason"] for row in rows(tmp_path, "failed")}
    assert reasons["dataset/00000002"] == "ValueError: torn"
    assert "SIGKILL" in reasons["dataset/00000007"]
    assert len(digests(tmp_path)) == 16


def test_what_is_wrong_with_every_picture_is_raised_as_without_ray(ray: Any, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(LayerNotFoundError, match=r"^no layer 'layer9' in the model\."):
        cf.run(small_model(), pictures, ["layer9"], tmp_path, engine="ray", workers=2, **QUICK)
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2  # its actors are gone


def test_another_cluster_than_the_programs_own_is_refused(ray: Any, pictures: Path, tmp_path: Path) -> None:
    there = ray.get_runtime_context().gcs_address
    with pytest.raises(OptionError, match=rf"^address must be {there}, which this program is connected to, got 'x:1'"):
        cf.run(small_model(), pictures, ["0"], tmp_path, engine="ray", address="x:1", **QUICK)


LATE = """
import sys, time
from ray._private.worker import global_worker
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from cnnviz_fast import cli

run = StreamingExecutor.run


def late(self):
    ray = global_worker.core_worker
    run(self)
    last = time.monotonic() + 5  # Ray Data waits 2 s for it
    while time.monotonic() < last:
        ray.get_current_job_id()
        time.sleep(0.001)


StreamingExecutor.run = late
sys.exit(cli.main())
"""
"""The command, with a thread of Ray Data that ends as late as on a machine that is busy."""


def command(net: Path, pictures: Path, out: Path, address: str) -> list[str]:
    return [
        "render", f"{net}:make", str(pictures), "--layer", "conv", "--size",
        "24", "--tile", "12", "--batch", "4", "--out", str(out), "--engine", "ray", "--address", address,
        "--save", "sheets,statistics",
    ]  # fmt: skip


@pytest.mark.cluster
def test_a_signal_stops_it_and_the_same_command_takes_it_up(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    make_pictures(tmp_path / "in", 400)
    arguments = command(tmp_path / "net.py", tmp_path / "in", tmp_path / "out", ray.get_runtime_context().gcs_address)
    process = subprocess.Popen(
        [sys.executable, "-c", LATE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    index = tmp_path / "out" / "index.jsonl"
    while process.poll() is None and not (index.exists() and index.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    done = rows(tmp_path / "out")
    assert 0 < len(done) < 400
    assert sorted(printed.splitlines()) == sorted(str(tmp_path / "out" / row["files"][0]) for row in done)
    again = subprocess.run(
        [sys.executable, "-m", "cnnviz_fast", *arguments], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert len(printed.splitlines()) + len(again.stdout.splitlines()) == 400
    assert len({row["key"] for row in rows(tmp_path / "out")}) == len(rows(tmp_path / "out")) == 400
    statistics = read_statistics(tmp_path / "out" / "statistics.safetensors")
    assert statistics["conv"].images == 400
    lines = again.stderr.splitlines()
    assert [line for line in lines if "ray" in line.lower()] == []  # it keeps quiet
    assert "400 pictures" not in lines[0]
    assert "were done before" in lines[0]


@pytest.mark.cluster
def test_sheets_of_one_scale_are_measured_first_on_ray_too(ray: Any, pictures: Path, tmp_path: Path) -> None:
    options = {**QUICK, "save": "sheets", "normalize": "dataset"}
    cf.run(small_model(), pictures, ["0"], tmp_path / "alone", workers=0, **options)
    cf.run(small_model(), pictures, ["0"], tmp_path / "out", workers=2, engine="ray", **options)
    found, expected = digests(tmp_path / "out"), digests(tmp_path / "alone")
    for number in range(COUNT):
        assert found[f"0/p{number:04d}.png"] == expected[f"0/p{number:04d}.png"]


class Deadly(nn.Module):
    """A model that ends the process it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return batch


@pytest.mark.cluster
def test_a_model_that_kills_its_actors_is_given_up(ray: Any, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=rf"^Ray's actors died {ATTEMPTS} times over the same \d+ pictures, "):
        cf.run(Deadly(), pictures, ["conv"], tmp_path, engine="ray", workers=1, **QUICK)


# An actor by itself.


@pytest.fixture
def shift(pictures: Path, tmp_path: Path) -> ActorTask:
    """Return what an actor has to know: one call of eight pictures, one of four."""
    model = small_model()
    products = outputs_of(("sheets",), "png")
    output_spec = OutputSpec(
        ["0"], AxesOptions(), cf.RenderOptions(tile=12), products, tmp_path,
        ranges=None, backdrop=None, collects=True, batch=16,
    )  # fmt: skip
    (tmp_path / NOTES).mkdir()
    calls = [[range(0, 4), range(4, 8)], [range(8, 12)]]
    listed = images_of(pictures, model.preprocess, 10**6)
    return ActorTask(model, listed, calls, {9: "other"}, output_spec, False, 0, os.getcwd(), 1, False, 60.0)


@pytest.fixture
def call(shift: ActorTask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterator[Any]]:
    """Return what has a new actor do a call, in this process and without Ray."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: reference))

    def results(call: int, shift: ActorTask = shift) -> Iterator[Any]:
        for row in Actor([pickle.dumps(shift)])({"item": [call]}):
            (packed,) = row["returned"]
            yield pickle.loads(packed)

    return results


Call = Callable[..., Iterator[Any]]


def stems(returned: Returned) -> list[str]:
    return [one.picture.stem for one in returned.outcome.finished]


def test_a_call_gives_each_batch_and_says_that_it_is_over(shift: ActorTask, call: Call) -> None:
    first, second, end = call(0)
    assert [one[:2] for one in (first, second, end)] == [(0, 0), (0, 1), (0, None)]
    assert [stems(first), stems(second), stems(end)] == [
        ["p0000", "p0001", "p0002", "p0003"],
        ["p0004", "p0005", "p0006", "p0007"],
        [],
    ]
    assert [one.outcome.statistics["0"].values for one in (first, second)] == [4 * 144] * 2
    assert {"decode", "forward", "render", "encode", "write"} == set(first.seconds)
    assert min(second.seconds.values()) >= 0
    assert sorted(path.name for path in shift.notes.iterdir()) == ["0-0.begun0", "0-0.done", "0-1.done"]


def test_a_call_that_is_done_again_goes_on_behind_what_is_finished(shift: ActorTask, call: Call) -> None:
    died = call(0)
    first = next(died)
    (shift.output_spec.folder / "0" / "p0000.png").unlink()
    again, second, _ = call(0)
    assert again[:2] == (0, 0)
    assert again.outcome.finished == first.outcome.finished
    assert again.outcome.statistics["0"].values == first.outcome.statistics["0"].values
    assert stems(second) == ["p0004", "p0005", "p0006", "p0007"]
    assert not (shift.output_spec.folder / "0" / "p0000.png").exists()  # it was not made again


def test_a_call_that_is_told_to_stop_still_gives_what_was_given_before(shift: ActorTask, call: Call) -> None:
    died = call(0)
    first = next(died)
    (shift.notes / STOP).touch()
    again, end = call(0)  # Ray takes rows for those of before by their count
    assert stems(again) == stems(first)
    assert end.batch is None


def test_stems_that_the_folder_has_already_are_the_senders(shift: ActorTask, call: Call) -> None:
    returned, _ = call(1)
    assert stems(returned) == ["p0008", "other", "p0010", "p0011"]
    assert (shift.output_spec.folder / "0" / "other.png").exists()


def test_an_actor_that_is_told_to_stop_begins_no_batch(shift: ActorTask, call: Call) -> None:
    (shift.notes / STOP).touch()
    (end,) = call(0)
    assert end[:2] == (0, None)
    assert [path.name for path in shift.notes.iterdir()] == [STOP]  # nor does it say that it is at work


def test_a_call_over_which_actors_have_died_is_given_up(shift: ActorTask, call: Call) -> None:
    for attempt in range(ATTEMPTS - 1):
        (shift.notes / f"0-0.begun{attempt}").touch()
    assert stems(next(call(0))) == ["p0000", "p0001", "p0002", "p0003"]
    (shift.notes / "0-0.done").unlink()
    (error,) = call(0)
    assert isinstance(error, BackendError)
    assert "died 4 times over the same 8 pictures, " in str(error)
    assert "p0000.png to " in str(error)
    assert [one.batch for one in call(1)] == [0, None]


def test_deaths_behind_what_was_finished_since_are_counted_anew(shift: ActorTask, call: Call) -> None:
    first = next(call(0))
    for attempt in range(ATTEMPTS):
        (shift.notes / f"0-0.begun{attempt}").touch()
    again, second, _ = call(0)
    assert (stems(again), stems(second)) == (stems(first), ["p0004", "p0005", "p0006", "p0007"])


def test_a_folder_that_an_actor_does_not_see_is_an_error(shift: ActorTask, call: Call) -> None:
    (error,) = call(
        0, dataclasses.replace(shift, output_spec=dataclasses.replace(shift.output_spec, folder=Path("/nowhere/out")))
    )
    assert isinstance(error, OptionError)
    assert "out must lie on a file system that all machines of the cluster share" in str(error)
    assert str(error).endswith("does not see /nowhere/out.")


def test_what_an_actor_cannot_import_is_told_with_its_machine(
    shift: ActorTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ModuleType("only_here")
    exec("class Images(list):\n    pass", vars(elsewhere))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "only_here", elsewhere)
        packed = pickle.dumps(elsewhere.Images())
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: reference))
    (row,) = Actor([packed])({"item": [0]})
    error = pickle.loads(row["returned"][0])
    assert isinstance(error, BackendError)
    assert "cannot load the model or the images: No module named 'only_here'. Install what they need on" in str(error)


def test_an_error_that_does_not_pickle_comes_back_by_its_words(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        pass

    def fail(*_: Any) -> None:
        raise Odd("held together by string", threading.Lock())

    monkeypatch.setattr(ray_actor, "_done", fail)
    (error,) = call(0)
    assert isinstance(error, BackendError)
    assert "held together by string" in str(error)


# The crew.


@pytest.mark.parametrize(
    ("nodes", "workers", "crew"),
    [
        ([{"CPU": 2.0}], None, ActorPool(1, 2, False)),
        ([{"CPU": 2.0}], 2, ActorPool(2, 1, False)),
        ([{"CPU": 1.0}], None, ActorPool(1, 1, False)),
        ([{}, {"CPU": 4.0}, {"CPU": 4.0}], None, ActorPool(4, 2, False)),
        ([{"CPU": 4.0}, {"CPU": 4.0}], 3, ActorPool(3, 2, False)),  # three CPUs would not go twice into four
        ([{"CPU": 64.0}], None, ActorPool(8, 8, False)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}], None, ActorPool(2, 8, True)),
        ([{"CPU": 16.0, "GPU": 8.0}] * 2, 4, ActorPool(4, 8, True)),
    ],
)
def test_crew_of_shares_the_cluster_out(nodes: list[dict[str, float]], workers: int | None, crew: ActorPool) -> None:
    assert pool_of(nodes, workers) == crew


@pytest.mark.parametrize(
    ("nodes", "workers", "message"),
    [
        ([{"CPU": 2.0}], 3, r"^workers must be from 1 to the CPUs of the Ray cluster, which are 2, got 3\.$"),
        ([{"CPU": 2.0}], 0, r"got 0\.$"),
        ([{"CPU": 2.0, "GPU": 1.0}], 2, r"from 1 to the GPUs, with a CPU each, of the Ray cluster, which are 1, got 2"),
        ([{}], None, r"which are 0, got 1\.$"),
    ],
)
def test_crew_of_more_than_there_is_is_refused(
    nodes: list[dict[str, float]], workers: int | None, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        pool_of(nodes, workers)


@pytest.mark.parametrize(
    ("batches", "actors", "sizes"),
    [
        (0, 2, []),
        (15, 1, [15]),
        (15, 2, [5, 4, 2, 2, 1, 1]),
        (3, 8, [1, 1, 1]),
        (2 * CHUNK_BATCHES + 5, 1, [CHUNK_BATCHES, CHUNK_BATCHES, 5]),
    ],
)
def test_calls_of_shares_batches_out_in_order(batches: int, actors: int, sizes: list[int]) -> None:
    calls = chunks_of(range(batches), actors)
    assert [len(call) for call in calls] == sizes
    assert [batch for call in calls for batch in call] == list(range(batches))


# What comes back.


def ray_run(pictures: Path, out: Path, **options: Any) -> RunSummary:
    model = small_model()
    wanted = RunOptions(progress="none", **options)
    job = RunSpec(["0"], out, "png", 10**6, AxesOptions(), None, wanted, RenderOptions(), Ranks())
    listed = images_of(pictures, model.preprocess, 10**6)
    return run_here(model, listed, job, kind=partial(RayRunner, ActorPool(2, 1, False)))


def test_what_comes_twice_is_counted_once_and_grids_are_the_manifests(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(n: int, **facts: Any) -> FinishedImage:
        picture = ImageId(f"p{n:04d}.png", f"p{n:04d}.png", f"p{n:04d}")
        shown = {"image": picture.name, "layer": "0", "shape": [6, 12, 12], "dtype": "float32", "files": []}
        return FinishedImage(picture, [shown | facts])

    def sent(*_: Any) -> Iterator[Returned]:
        wide, narrow = {"rows": 1}, {"rows": 2}
        yield Returned(0, 0, Outcome([row(0), row(1, grid=narrow)]), {"0": wide}, {"forward": 1.0})
        yield Returned(1, 0, Outcome([row(2), row(3, grid=wide)]), {"0": narrow}, {"forward": 1.0})
        yield Returned(0, 0, Outcome([row(0), row(1, grid=narrow)]), {"0": wide}, {"forward": 1.0})
        yield Returned(0, None, Outcome(), {}, {})

    monkeypatch.setattr(ray_engine, "_returned", sent)
    summary = ray_run(pictures, tmp_path)
    assert (summary.finished, summary.stages["forward"]) == (4, 2.0)
    assert [one.get("grid") for one in rows(tmp_path)] == [None, {"rows": 2}, {"rows": 2}, None]
    assert json.loads((tmp_path / "manifest.json").read_text())["layers"]["0"]["grid"] == {"rows": 1}


# The end.


def test_threads_of_ray_data_are_waited_for() -> None:
    late = threading.Thread(target=time.sleep, args=(0.3,), name="StreamingExecutor-0", daemon=True)
    with threads_ended():
        late.start()
    assert not late.is_alive()


def test_an_error_ends_the_actors_before_it_leaves_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def sent(*_: Any) -> Iterator[Returned]:
        try:
            yield Returned(0, 0, Outcome(failed=[FailedImage(ImageId("p", "p", "p"), "torn")]), {}, {})
        finally:
            ended.append(True)

    monkeypatch.setattr(ray_engine, "_returned", sent)
    with pytest.raises(ImagesFailedError) as caught:
        ray_run(pictures, tmp_path, strict=True)
    assert ended == [True]
    assert caught.traceback  # which would keep them
    assert not (tmp_path / NOTES).exists()


def test_signals_are_left_to_the_program() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ours = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **_: signal.signal(signal.SIGTERM, lambda *_: None),
        shutdown=lambda: None,
    )
    with connected(ours, "local"):
        assert signal.getsignal(signal.SIGTERM) == before


def test_a_start_that_is_interrupted_is_taken_back() -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    ended = []
    ours = SimpleNamespace(is_initialized=lambda: False, init=interrupted, shutdown=lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt), connected(ours, "local"):
        pass
    assert ended == [True]


# What is refused.


def test_a_ray_that_is_not_installed_is_told_how_to_be(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailableError) as caught:
        cf.run(small_model(), pictures, ["0"], tmp_path, engine="ray", **QUICK)
    assert "runs with engine 'ray' need the package ray, which is not installed." in str(caught.value)
    assert 'pip install "cnnviz_fast[ray]"' in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_cluster_that_is_not_there_is_told_how_to_be(disconnected: None, pictures: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with pytest.raises(BackendUnavailableError) as caught:
        cf.run(small_model(), pictures, ["0"], tmp_path, engine="ray", address=address, **QUICK)
    assert str(caught.value) == (
        f"no Ray cluster answers at {address}: Connection refused. Start one there: ray start --head"
    )
    assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["ray://there:10001", "there:port", ":6379"])
def test_an_address_that_is_none_is_refused(address: str, disconnected: None, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^address must be HOST:PORT of the head of a Ray cluster, got '"):
        cf.run(small_model(), pictures, ["0"], tmp_path, engine="ray", address=address, **QUICK)


def test_shards_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"^shards go with engine 'local', got engine 'ray', whose actors write loose"
    ):
        cf.run(small_model(), pictures, ["0"], tmp_path, engine="ray", shards=1, **QUICK)


def test_a_loader_is_refused(disconnected: None, tmp_path: Path) -> None:
    loader: Any = DataLoader([1])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^a DataLoader goes with engine 'local', got engine 'ray'\. Give its Data"):
        cf.run(small_model(), loader, ["0"], tmp_path, engine="ray", **QUICK)


def test_a_device_is_refused_on_the_command_line(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["render", "resnet18", str(pictures), "--layer", "0", "--out", str(tmp_path), "--engine", "ray"]
    assert cli.main([*arguments, "--device", "cpu"]) == cli.USAGE
    assert "device goes with engine 'local': Ray gives its actors the GPUs that" in capsys.readouterr().err


def test_processes_of_torchrun_are_refused(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"^engine 'ray' shares pictures out itself, got 2 processes\. Start one\.$"):
        cf.run(small_model(), pictures, ["0"], tmp_path, engine="ray", **QUICK)


# Of several machines. At the end: it disconnects from the one that the others share.


class Counted(nn.Sequential):
    """A model that adds a byte to a file for each batch."""

    def __init__(self, layers: nn.Module, count: Path) -> None:
        super().__init__(*layers.children())
        self.count = count

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        with open(self.count, "ab") as file:
            file.write(b".")
        for layer in self:
            batch = layer(batch)
        return batch


@pytest.mark.cluster
def test_a_machine_that_dies_costs_what_was_under_way(
    disconnected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    make_pictures(tmp_path / "in", 600)
    cf.run(small_model(), tmp_path / "in", LAYERS, tmp_path / "alone", workers=0, **QUICK)
    model, count = small_model(), tmp_path / "count"
    model = dataclasses.replace(model, module=Counted(model.module, count))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[2])]))
    sizes: dict[str, Any] = {"object_store_memory": STORE_BYTES}
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, **sizes})
    try:
        machines = [cluster.add_node(num_cpus=1, **sizes) for _ in range(2)]
        told: list[Path] = []

        def kill_one(path: Path) -> None:
            told.append(path)
            if len(told) == 800:
                cluster.remove_node(machines[0], allow_graceful=False)

        ray.init(address=cluster.address, log_to_driver=False)
        summary = cf.run(
            model, tmp_path / "in", LAYERS, tmp_path / "out", engine="ray", on_file=kill_one, workers=2, **QUICK
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert (summary.finished, summary.failed) == (600, 0)
    assert 150 <= count.stat().st_size <= 150 + UNDER_WAY
    assert len(rows(tmp_path / "out")) == 1200
    for part in (tmp_path / "out").rglob(".*.part"):  # what it was writing
        part.unlink()
    assert_same_outcome(tmp_path / "out", tmp_path / "alone")
