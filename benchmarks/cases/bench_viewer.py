"""The viewer: how large pages are, and how soon they show what is asked for, in Chromium without a graphics card."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import cnnviz_fast as cf
from benchmarks.cases.bench_startup import photo
from benchmarks.harness import bars, browser, outputs, processes
from benchmarks.harness.drawing import anything
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Inside, Table, cases
from benchmarks.harness.workloads import CONV1, LAYER4, Workload, maps_of

STATIC = Path(cf.__file__).parent / "viewer" / "static"
IMAGES = 5000
LAYERS = ["relu", "layer1", "layer2", "layer3", "layer4"]
MODEL = "resnet18"


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    """Close what was opened: the browser, which holds an event loop, and servers."""
    yield
    browser.close()
    _servers.close()


_servers = contextlib.ExitStack()


# Pages


@cache
def page_of(workload: Workload) -> str:
    """Write the page of a workload, and return its address."""
    return save(workload).as_uri()


def save(workload: Workload) -> Path:
    """Write the page of a workload."""
    origin = cf.Provenance(model="resnet50", layer="layer")
    path: Path = cf.save_page(maps_of(workload), outputs.path(f"{workload.channels}.html"), provenance=origin)
    return path


def bundle() -> bytes:
    """Return the program and its style as they may be sent, each compressed."""
    return b"".join(gzip.compress((STATIC / name).read_bytes(), 9) for name in ("viewer.js", "viewer.css"))


def page_table() -> Table:
    """The page of 2048x7x7 as a file, beside the atlas that it holds."""
    page, atlas = outputs.path(f"{LAYER4.channels}.html"), outputs.path("layer4.atlas")
    return Table(
        bars.VIEWER_PAGE,
        [
            Contender("save_page", lambda: save(LAYER4), anything, OURS, 0, output=lambda: page),
            Contender("program and style, gzip", bundle, anything, OURS, 0, size=len),
            Contender(
                "save_atlas", lambda: cf.save_atlas(maps_of(LAYER4), atlas), anything, FLOOR, 0, output=lambda: atlas
            ),
        ],
        full_only=True,
    )  # fmt: skip


# What is done on a page


@cache
def tab_of(workload: Workload) -> Any:
    """Open the page of a workload once."""
    return browser.settled(page_of(workload))


PUT = """() => timed(() => {
    const canvas = document.querySelector(".wall canvas");
    canvas.getContext("2d").putImageData(new ImageData(canvas.width, canvas.height), 0, 0);
})"""


def choice(workload: Workload, label: str, value: str, other: str) -> Callable[[], Inside]:
    """Return what chooses a value of a field after another one, and tells the time until the wall shows it."""
    script = f"async () => (await choose({label!r}, {other!r}), choose({label!r}, {value!r}))"
    return lambda: Inside(browser.timed(tab_of(workload), script))


def wall_table(workload: Workload) -> Table:
    """What a user does on the page of a workload, beside putting as many pixels on the screen."""
    return Table(
        bars.wall_of(workload),
        [
            Contender(
                "opened, first wall", lambda: Inside(browser.first_wall(page_of(workload))), is_time, OURS, 0
            ),
            Contender("other colours", choice(workload, "Colours", "magma", "gray"), is_time, OURS, 0),
            Contender("range of the layer", choice(workload, "Range", "layer", "channel"), is_time, OURS, 0),
            Contender("range by percentile", choice(workload, "Range", "percentile", "channel"), is_time, OURS, 0),
            Contender("sorted", choice(workload, "Sort", "variance", "mean"), is_time, OURS, 0),
            Contender("putImageData", lambda: Inside(browser.timed(tab_of(workload), PUT)), is_time, FLOOR, 0),
        ],
        prepare=browser.skip_without,
        full_only=True,
    )  # fmt: skip


def is_time(found: Inside) -> None:
    """Assert that something was drawn."""
    assert found.seconds > 0


# Servers


def address_of(*arguments: str) -> tuple[str, int]:
    """Start `cnnviz view`, and return its address and the number of its process once it listens."""
    argv = [sys.executable, "-m", "cnnviz_fast", "view", *arguments, "--no-open", "--port", "0"]
    server = _servers.enter_context(
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=processes.variables())
    )
    _servers.callback(server.kill)
    assert server.stdout is not None
    return server.stdout.readline().strip(), server.pid


@cache
def large_run() -> Path:
    """Make a run of 5,000 images and 5 layers of ResNet-18: the rows of one image over and over, under other names."""
    folder = outputs.path("large-run")
    model = cf.load_model(MODEL, weights="none")
    cf.run(model, str(photo()), LAYERS, folder, save="atlases", readers=0, progress="none")
    rows = list(map(json.loads, (folder / "index.jsonl").read_text().splitlines()))
    with open(folder / "index.jsonl", "w") as index:
        for image in range(IMAGES):
            for row in rows:
                index.write(json.dumps({**row, "key": f"photos/{image}.jpg", "image": f"{image}.jpg"}) + "\n")
    return folder


def peak_bytes(process: int) -> int:
    """Return the most memory that a process has held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) * 1024


@cache
def served_run() -> tuple[str, int]:
    """Start a server over the large run, once."""
    return address_of(str(large_run()))


@cache
def tab_of_run() -> Any:
    """Open the large run, once."""
    return browser.settled(served_run()[0])


def first_view() -> Inside:
    """Open the page of the server, and tell the time from the request to the first wall, and the server's memory."""
    address, process = served_run()
    start = time.perf_counter()
    tab = browser.opened(address)
    seconds = time.perf_counter() - start
    tab.close()
    return Inside(seconds, {"peak_bytes": peak_bytes(process)})


_somewhere = random.Random(0)


def jump() -> Inside:
    """Go to any image of the run by its address; the part of the list that it stands in comes with the first."""
    script = "(number) => timed(() => (location.hash = `#1;i=${number}`))"
    return Inside(browser.timed(tab_of_run(), script, _somewhere.randrange(1, IMAGES)))


def server_table() -> Table:
    """A run of thousands of images in the browser, beside reading the atlas that is shown."""
    atlas = "relu/flower.atlas"
    return Table(
        bars.VIEWER_SERVER,
        [
            Contender("first view", first_view, is_time, OURS, 0, threads=2),
            Contender("jump to an image", jump, is_time, OURS, 0, threads=2),
            Contender("reading its atlas", lambda: (large_run() / atlas).read_bytes(), anything, FLOOR, 0),
        ],
        prepare=browser.skip_without,
        full_only=True,
    )  # fmt: skip


# A model


@cache
def live_tab() -> Any:
    """Start a server with ResNet-18, and open its page."""
    return browser.opened(address_of("--model", MODEL, "--weights", "none")[0])


DROP = """(text) => timed(() => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], "flower.jpg", { type: "image/jpeg" }));
    window.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
})"""


def drop() -> Inside:
    """Drop a photo on the page, and tell the time until its wall is drawn."""
    return Inside(browser.timed(live_tab(), DROP, base64.b64encode(photo().read_bytes()).decode()))


@cache
def model_and_batch() -> tuple[cf.LoadedModel, torch.Tensor]:
    """Load the model here, and the photo as it takes it."""
    model = cf.load_model(MODEL, weights="none")
    return model, cf.load_images(photo(), model)


def allowed() -> Inside:
    """Return one and a half times the forward pass, and 100 ms for all else."""
    model, batch = model_and_batch()
    with torch.inference_mode():
        start = time.perf_counter()
        model.module(batch)
        return Inside(1.5 * (time.perf_counter() - start) + 0.1)


def live_table() -> Table:
    """From an image that is dropped to its wall, beside what the pass takes."""
    return Table(
        bars.VIEWER_LIVE,
        [
            Contender("dropped, to its wall", drop, is_time, OURS, 0, threads=2),
            Contender("1.5 x the forward pass + 100 ms", allowed, is_time, PEER, 0, threads=2),
        ],
        prepare=browser.skip_without,
        full_only=True,
    )


TABLES = [page_table(), wall_table(LAYER4), wall_table(CONV1), server_table(), live_table()]


@cases(TABLES)
def bench_viewer(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
