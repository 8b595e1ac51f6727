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
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.ray_classes import Counted, Dangerous, Deadly
from support.runs import COUNT, LAYERS, assert_same_outcome, digests, make_images, rows, small_model
from support.waiting import wait_until
from torch.utils.data import DataLoader

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
from cnnviz_fast.inputs.images import usual_spec
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.options.reading import AxesOptions
from cnnviz_fast.options.runs import RunOptions
from cnnviz_fast.runs.batches import FailedImage, FinishedImage, ImageId, Outcome
from cnnviz_fast.runs.folder.rows import IndexRow
from cnnviz_fast.runs.images import images_of
from cnnviz_fast.runs.local import run_here
from cnnviz_fast.runs.ranks import Ranks
from cnnviz_fast.runs.ray import chunks as ray_chunks
from cnnviz_fast.runs.ray import engine as ray_engine
from cnnviz_fast.runs.ray.actor import NOTES, BatchResult
from cnnviz_fast.runs.ray.chunks import ATTEMPTS, UNDER_WAY, batch_results
from cnnviz_fast.runs.ray.cluster import ActorPool
from cnnviz_fast.runs.ray.engine import RayEngine
from cnnviz_fast.runs.spec import RunSpec, RunSummary

QUICK: dict[str, Any] = {"batch": 4, "tile": 12, "progress": "none", "save": "sheets,atlases,statistics,top"}
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
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    cf.run(small_model(), images, LAYERS, folder, readers=0, **QUICK)
    return folder


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Return Ray, with a cluster of one machine with two CPUs, that this process is connected to."""
    import ray

    with pytest.MonkeyPatch.context() as patch:  # its processes unpickle classes of tests/support
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
def disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it look as if this process were not connected to Ray; the cluster of the other tests stays."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)


# The same outcome.


@pytest.mark.parametrize("actors", [1, pytest.param(2, marks=pytest.mark.cluster)])  # each takes seconds to begin
def test_actors_come_to_what_a_run_without_ray_does(
    actors: int, ray: Any, images: Path, alone: Path, tmp_path: Path
) -> None:
    told: list[Path] = []
    some = sorted(images.iterdir())[:9]
    cf.run(small_model(), some, LAYERS, tmp_path, readers=0, **QUICK)  # what is there is taken up
    summary = cf.run(
        small_model(), images, LAYERS, tmp_path, engine="ray", readers=actors, on_file=told.append, **QUICK
    )
    assert_same_outcome(tmp_path, alone)
    assert (summary.finished, summary.skipped, summary.failed) == (COUNT - 9, 9, 0)
    assert sorted(told) == sorted(tmp_path / file for row in rows(alone)[18:] for file in row["files"])
    assert set(summary.stages) == {"decode", "forward", "render", "encode", "write"}
    assert not (tmp_path / NOTES).exists()
    assert ray.is_initialized()  # who began it, ends it


@pytest.mark.cluster
def test_actors_make_the_heat_maps_of_a_run_without_ray(ray: Any, images: Path, tmp_path: Path) -> None:
    options = {**QUICK, "save": "attribution,statistics", "target": ("2", 3)}
    cf.run(small_model(), images, ["0"], tmp_path / "alone", readers=0, **options)
    cf.run(small_model(), images, ["0"], tmp_path / "ray", engine="ray", readers=1, **options)
    assert_same_outcome(tmp_path / "ray", tmp_path / "alone")


@pytest.mark.cluster
def test_images_that_fail_or_crash_cost_only_themselves(ray: Any, tmp_path: Path) -> None:
    summary = cf.run(small_model(), Dangerous(), ["0"], tmp_path, engine="ray", readers=1, **QUICK)
    assert (summary.finished, summary.failed) == (8, 2)
    reasons = {row["key"]: row["reason"] for row in rows(tmp_path, "failed")}
    assert reasons["dataset/00000002"] == "ValueError: torn"
    assert "SIGKILL" in reasons["dataset/00000007"]
    assert len(digests(tmp_path)) == 16


@pytest.mark.cluster
def test_error_of_every_image_is_raised_as_without_ray(ray: Any, images: Path, tmp_path: Path) -> None:
    with pytest.raises(LayerNotFoundError, match=r"^no layer 'layer9' in the model\."):
        cf.run(small_model(), images, ["layer9"], tmp_path, engine="ray", readers=1, **QUICK)
    wait_until(lambda: ray.available_resources().get("CPU") == 2)  # its actors are gone


def test_actor_that_dies_is_replaced_by_one_that_goes_on(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mortal:
        """An actor without a model; pickled by value, so that its process imports nothing that takes time."""

        def __init__(self, packed: bytes) -> None:
            self.folder = Path(packed.decode())

        def prepare(self) -> bytes:
            return pickle.dumps(None)

        def do(self, chunk: int, begin: int) -> Iterator[bytes]:
            for batch in range(begin, 3):
                if (begin, batch) == (0, 2):
                    os.kill(os.getpid(), signal.SIGKILL)
                packed = pickle.dumps((batch, begin))
                (self.folder / f"{batch}").write_bytes(packed)
                yield packed

    monkeypatch.setattr(ray_chunks, "Actor", Mortal)
    monkeypatch.setattr(ray_chunks, "_packed", lambda task: bytes(tmp_path))
    task: Any = SimpleNamespace(chunks=[[[0], [1], [2]]], stopped=False, note=lambda _, batch: tmp_path / f"{batch}")
    assert list(batch_results(ActorPool(1, 1, False), task)) == [(0, 0), (1, 0), (2, 2)]


def test_another_cluster_than_the_programs_own_is_refused(ray: Any, images: Path, tmp_path: Path) -> None:
    there = ray.get_runtime_context().gcs_address
    with pytest.raises(OptionError, match=rf"^address must be {there}, which this program is connected to, got 'x:1'"):
        cf.run(small_model(), images, ["0"], tmp_path, engine="ray", address="x:1", **QUICK)


def command(net: Path, images: Path, out: Path, address: str) -> list[str]:
    return [
        "run", f"{net}:make", str(images), "--layer", "conv", "--size",
        "24", "--tile", "12", "--batch", "4", "--out", str(out), "--engine", "ray", "--address", address,
        "--save", "sheets,statistics",
    ]  # fmt: skip


@pytest.mark.cluster
def test_a_signal_stops_it_and_the_same_command_takes_it_up(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    make_images(tmp_path / "in", 400)
    arguments = command(tmp_path / "net.py", tmp_path / "in", tmp_path / "out", ray.get_runtime_context().gcs_address)
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnviz_fast", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    index = tmp_path / "out" / "index.jsonl"
    wait_until(lambda: process.poll() is not None or (index.exists() and index.stat().st_size), 120)
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
    assert "400 images" not in lines[0]
    assert "were done before" in lines[0]


@pytest.mark.cluster
def test_sheets_of_one_scale_are_measured_first_on_ray_too(ray: Any, images: Path, tmp_path: Path) -> None:
    options = {**QUICK, "save": "sheets", "normalize": "dataset"}
    cf.run(small_model(), images, ["0"], tmp_path / "alone", readers=0, **options)
    cf.run(small_model(), images, ["0"], tmp_path / "out", readers=2, engine="ray", **options)
    found, expected = digests(tmp_path / "out"), digests(tmp_path / "alone")
    for number in range(COUNT):
        assert found[f"0/p{number:04d}.png"] == expected[f"0/p{number:04d}.png"]


@pytest.mark.cluster
def test_a_model_that_kills_its_actors_is_given_up(ray: Any, images: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=rf"^Ray's actors died {ATTEMPTS} times over the same \d+ images, "):
        cf.run(Deadly(), images, ["conv"], tmp_path, engine="ray", readers=1, **QUICK)


# What comes back.


def ray_run(images: Path, out: Path, **options: Any) -> RunSummary:
    model = small_model()
    wanted = RunOptions(progress="none", **options)
    spec = RunSpec(["0"], out, "png", 10**6, AxesOptions(), None, wanted, RenderOptions(), Ranks())
    listed = images_of(images, usual_spec(model, 10**6))
    return run_here(RayEngine(ActorPool(2, 1, False)), model, listed, spec)


def test_times_are_added_up_and_grids_are_the_manifests(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = IndexRow(image="", layer="0", shape=[6, 12, 12], dtype="float32", min=0.0, max=1.0, dead=0, nonfinite=0)

    def row(n: int, **facts: Any) -> FinishedImage:
        image = ImageId(f"p{n:04d}.png", f"p{n:04d}.png", f"p{n:04d}")
        return FinishedImage(image, [replace(shown, image=image.name, **facts)])

    def sent(*_: Any) -> Iterator[BatchResult]:
        wide, narrow = {"rows": 1}, {"rows": 2}
        yield BatchResult(Outcome([row(0), row(1, grid=narrow)]), {"0": wide}, {"forward": 1.0})
        yield BatchResult(Outcome([row(2), row(3, grid=wide)]), {"0": narrow}, {"forward": 1.0})

    monkeypatch.setattr(ray_engine, "batch_results", sent)
    summary = ray_run(images, tmp_path)
    assert (summary.finished, summary.stages["forward"]) == (4, 2.0)
    assert [one.get("grid") for one in rows(tmp_path)] == [None, {"rows": 2}, {"rows": 2}, None]
    assert json.loads((tmp_path / "manifest.json").read_text())["layers"]["0"]["grid"] == {"rows": 1}


# The end.


def test_an_error_ends_the_actors_before_it_leaves_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def sent(*_: Any) -> Iterator[BatchResult]:
        try:
            yield BatchResult(Outcome(failed=[FailedImage(ImageId("p", "p", "p"), "torn")]), {}, {})
        finally:
            ended.append(True)

    monkeypatch.setattr(ray_engine, "batch_results", sent)
    with pytest.raises(ImagesFailedError) as caught:
        ray_run(images, tmp_path, strict=True)
    assert ended == [True]
    assert caught.traceback  # which would keep them
    assert not (tmp_path / NOTES).exists()


# What is refused.


def test_a_ray_that_is_not_installed_is_told_how_to_be(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailableError) as caught:
        cf.run(small_model(), images, ["0"], tmp_path, engine="ray", **QUICK)
    assert "runs with engine 'ray' need the package ray, which is not installed." in str(caught.value)
    assert 'pip install "cnnviz_fast[ray]"' in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_cluster_that_is_not_there_is_told_how_to_be(disconnected: None, images: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with pytest.raises(BackendUnavailableError) as caught:
        cf.run(small_model(), images, ["0"], tmp_path, engine="ray", address=address, **QUICK)
    assert str(caught.value) == (
        f"no Ray cluster answers at {address}: Connection refused. Start one there: ray start --head"
    )
    assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["ray://there:10001", "there:port", ":6379"])
def test_an_address_that_is_none_is_refused(address: str, disconnected: None, images: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^address must be HOST:PORT of the head of a Ray cluster, got '"):
        cf.run(small_model(), images, ["0"], tmp_path, engine="ray", address=address, **QUICK)


def test_shards_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"^shards go with engine 'local', got engine 'ray', whose actors write loose"
    ):
        cf.run(small_model(), images, ["0"], tmp_path, engine="ray", shards=1, **QUICK)


def test_a_loader_is_refused(tmp_path: Path) -> None:
    loader: Any = DataLoader([1])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^a DataLoader goes with engine 'local', got engine 'ray'\. Give its Data"):
        cf.run(small_model(), loader, ["0"], tmp_path, engine="ray", **QUICK)


def test_a_device_is_refused_on_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "resnet18", str(images), "--layer", "0", "--out", str(tmp_path), "--engine", "ray"]
    assert cli.main([*arguments, "--device", "cpu"]) == cli.USAGE
    assert "device goes with engine 'local': Ray gives its actors the GPUs that" in capsys.readouterr().err


def test_processes_of_torchrun_are_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"^engine 'ray' shares images out itself, got 2 processes\. Start one\.$"):
        cf.run(small_model(), images, ["0"], tmp_path, engine="ray", **QUICK)


# Several machines. This test comes last, since it disconnects from the cluster that the others share.


@pytest.mark.cluster
def test_a_machine_that_dies_costs_what_was_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    make_images(tmp_path / "in", 600)
    cf.run(small_model(), tmp_path / "in", LAYERS, tmp_path / "alone", readers=0, **QUICK)
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
            model, tmp_path / "in", LAYERS, tmp_path / "out", engine="ray", on_file=kill_one, readers=2, **QUICK
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
