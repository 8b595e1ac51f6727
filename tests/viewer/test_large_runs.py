"""Runs of thousands of images: the server reads of them what is looked at, and keeps next to nothing."""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.loopback import DIRECT
from support.runs import make_images, small_model

import cnnviz_fast as cf
from cnnviz_fast.formats.atlas import parse_atlas
from cnnviz_fast.viewer.collection import PAGE
from cnnviz_fast.viewer.opening import open_collection

IMAGES, LAYERS = 5000, 5

MOST_KB = 300_000
"""Of the memory of a server; importing torch alone would take more."""

VIEW_S, JUMP_S = 1.0, 0.15
"""Of a processor, for the first view and for any image; the clock of a busy machine tells little."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5,000 images and 5 layers: the rows of one image over and over, under other names."""
    folder = tmp_path_factory.mktemp("large")
    make_images(folder / "photos", 1)
    cf.run(small_model(), str(folder / "photos"), ["0"], folder / "run", save="atlases", readers=0, progress="none")
    row = json.loads((folder / "run" / "index.jsonl").read_text())
    with open(folder / "run" / "index.jsonl", "w") as index:
        for image in range(IMAGES):
            for layer in range(LAYERS):
                names = {"key": f"photos/{image}.png", "image": f"{image}.png", "layer": f"layer{layer}"}
                index.write(json.dumps({**row, **names, "part": [layer, LAYERS]}) + "\n")
    return folder / "run"


def test_large_run_is_shown_and_jumped_through_in_little_time(large: Path) -> None:
    begun = time.process_time()
    shown = open_collection([large])
    catalogue = shown.catalogue("server", PAGE)
    assert time.process_time() - begun < VIEW_S
    (run,) = catalogue["runs"]
    assert (run["image_count"], len(run["images"]), len(run["layers"])) == (IMAGES, PAGE, LAYERS)
    assert [image["name"] for image in shown.images(0, 4998)] == ["4998.png", "4999.png"]
    for image in random.Random(0).choices(range(IMAGES), k=20):
        begun = time.process_time()
        for layer in range(LAYERS):
            assert shown.content(f"a-0-{layer}-{image}") is not None
        assert time.process_time() - begun < JUMP_S


LOOKED_AT = """
import sys
from pathlib import Path
from cnnviz_fast.viewer.collection import bytes_of
from cnnviz_fast.viewer.opening import open_collection
from cnnviz_fast.viewer.photos import Photos
apart = []
compute = lambda function, *given: apart.append(function.__name__) or b"made apart"
shown = open_collection([sys.argv[1]], Photos(Path(sys.argv[2])), compute=compute)
(run,) = shown.catalogue("server")["runs"]
keys = ["p-0-0", *(score["key"] for score in run["images"][0]["attribution"])]
keys += [key for layer in run["layers"] for key in (f"a-0-{layer['id']}-0", layer["statistics"]) if key]
keys += ["o-0-0", "x-0-0-0"]
print("".join(key[0] for key in keys if bytes_of(shown.content(key))), apart, "torch" in sys.modules)
"""


def test_what_a_run_holds_is_read_without_torch(tmp_path: Path) -> None:
    make_images(tmp_path / "photos", 4)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({f"p{n:04d}.png": "ab"[n % 2] for n in range(4)}))
    cf.run(
        small_model(), str(tmp_path / "photos"), ["0"], tmp_path / "run", save="atlases,statistics,top,attribution",
        target=["2@0"], labels=str(labels), readers=0, progress="none",
    )  # fmt: skip
    argv = [sys.executable, "-c", LOOKED_AT, str(tmp_path / "run"), str(tmp_path / "photos")]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert found == "paasasox ['similarity', 'patches'] False\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory of a process is read from /proc")
@pytest.mark.parametrize("is_drawn", [False, pytest.param(True, marks=pytest.mark.long)])  # which loads torch elsewhere
def test_server_of_a_large_run_stays_small(large: Path, is_drawn: bool) -> None:
    argv = [sys.executable, "-m", "cnnviz_fast", "view", str(large), "--no-open", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()

            def most_kb() -> int:
                found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
                assert found is not None
                return int(found[1])

            def get(target: str) -> bytes:
                with DIRECT.open(f"{address}{target}") as answer:
                    return bytes(answer.read())

            get("")
            before = most_kb()
            atlas = get("data/a-0-0-0")
            torch.manual_seed(0)
            for image in torch.randint(IMAGES, (100,)).tolist():
                assert get(f"data/a-0-{image % LAYERS}-{image}") == atlas
            get("images/0?first=4000")
            if is_drawn:
                assert len(get("data/o-0-1")) > 0
                read = parse_atlas(atlas, "")
                sheet = cf.render(read.maps, colormap="magma", normalize="layer", provenance=read.provenance).pil()
                with Image.open(io.BytesIO(get("sheet/a-0-1-4999?colormap=magma&normalize=layer"))) as drawn:
                    assert drawn.convert("RGB").tobytes() == sheet.convert("RGB").tobytes()
            assert most_kb() < MOST_KB
            assert most_kb() - before < MOST_KB // 20
        finally:
            server.kill()
