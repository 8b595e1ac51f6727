"""Long runs, of minutes each (select with -m long): kills at any moment, memory, damage among thousands of images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.runs import (
    LAYERS,
    NET,
    VERB,
    assert_same_statistics,
    digests,
    make_images,
    rows,
    small_model,
    sorted_rows,
)
from support.waiting import await_random_moment, wait_until

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics

pytestmark = pytest.mark.long

BATCH = 16
KILLS = 30
MANY = 3000

COUNTED = (
    NET
    + '''

class Counted(nn.Sequential):
    """Writes down how many images each pass is of, where no kill can undo it."""

    def forward(self, batch):
        import os

        with open(os.environ["PASSES"], "ab", buffering=0) as file:
            file.write(b"%d\\n" % len(batch))
        return super().forward(batch)


def counted():
    return Counted(*make())
'''
)


# Kills.


def whole_rows(out: Path) -> dict[str, dict[str, list[str]]]:
    """Return the rows of the index behind which there is a line's end: key -> layer -> files."""
    found: dict[str, dict[str, list[str]]] = {}
    if (out / "index.jsonl").exists():
        for line in (out / "index.jsonl").read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                found.setdefault(row["key"], {})[row["layer"]] = row["files"]
    return {key: layers for key, layers in found.items() if len(layers) == len(LAYERS)}


def index_bytes(out: Path) -> int:
    return (out / "index.jsonl").stat().st_size if (out / "index.jsonl").exists() else 0


def assert_all_can_be_read(folder: Path, since_ns: int) -> None:
    """Assert that files of images that have changed since are whole, by others' decoders."""
    for path in folder.glob("*/*"):
        if path.name.startswith(".") or path.stat().st_mtime_ns < since_ns:
            continue
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        else:
            assert cf.read_atlas(path).index.ndim == 3


def is_there(group: int) -> bool:
    """Check whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Killed:
    """A command that is begun and killed, again and again, and what each kill left."""

    def __init__(self, arguments: list[str], out: Path, environment: dict[str, str]) -> None:
        self.arguments, self.out, self.environment = arguments, out, environment
        self.most_begun = 0
        self.groups: list[int] = []

    def once(self, grown: int, random: np.random.Generator) -> None:
        """Begin, let the index grow by so many bytes and then some time pass, kill, and look at what is there."""
        before = whole_rows(self.out)
        stamps = self.stamps(before)
        enough = index_bytes(self.out) + grown
        begun_ns = time.time_ns()
        process = subprocess.Popen(
            self.arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=self.environment,
        )  # fmt: skip
        wait_until(lambda: index_bytes(self.out) >= enough or process.poll() is not None, 120)
        await_random_moment(random, 0.1)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
        self.groups.append(process.pid)
        after = whole_rows(self.out)
        assert before.items() <= after.items()
        assert self.stamps(before) == stamps, "files of finished images were written again"
        assert_all_can_be_read(self.out, begun_ns)
        finished = {Path(file) for layers in after.values() for files in layers.values() for file in files}
        there = {path.relative_to(self.out) for path in self.out.glob("*/[!.]*")}
        assert finished <= there
        self.most_begun = max(self.most_begun, len({path.stem for path in there - finished}))

    def stamps(self, known: dict[str, dict[str, list[str]]]) -> dict[str, int]:
        files = (file for layers in known.values() for files in layers.values() for file in files)
        return {file: (self.out / file).stat().st_mtime_ns for file in files}


def test_thirty_kills_leave_what_a_run_alone_makes(tmp_path: Path) -> None:
    make_images(tmp_path / "in", MANY)
    (tmp_path / "net.py").write_text(COUNTED)

    def command(out: str) -> tuple[list[str], dict[str, str]]:
        arguments = [
            sys.executable, "-m", "cnnviz_fast", VERB, f"{tmp_path / 'net.py'}:counted", str(tmp_path / "in"),
            "--layer", *LAYERS, "--size", "24", "--tile", "12", "--batch", str(BATCH), "--readers", "2",
            "--save", "sheets,atlases,statistics", "--out", str(tmp_path / out),
        ]  # fmt: skip
        return arguments, os.environ | {"PASSES": str(tmp_path / f"{out}.passes")}

    arguments, environment = command("alone")
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    arguments, environment = command("out")
    killed = Killed(arguments, tmp_path / "out", environment)
    random = np.random.default_rng(7)
    for kill in range(KILLS):
        left_bytes = index_bytes(tmp_path / "alone") - index_bytes(tmp_path / "out")
        killed.once(int(random.uniform(0, 1.9) * left_bytes / (KILLS - kill + 1)), random)
    subprocess.run(arguments, env=environment, check=True, capture_output=True)

    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert sorted_rows(tmp_path / "out") == sorted_rows(tmp_path / "alone")
    found = read_statistics(tmp_path / "out" / "statistics.safetensors")
    assert {statistics.images for statistics in found.values()} == {MANY}
    assert_same_statistics(found, tmp_path / "alone")
    assert killed.most_begun <= BATCH
    # Readers look every few seconds whether the process that began them is there.
    wait_until(lambda: not any(map(is_there, killed.groups)), 20)
    # Two batches a kill: the one that the model is at, and the one whose files are written.
    passes = {name: (tmp_path / f"{name}.passes").read_bytes().count(b"\n") for name in ("out", "alone")}
    assert passes["out"] - passes["alone"] <= 2 * KILLS


# Memory.

RUN = """
import json, re, sys
from pathlib import Path
from support.runs import LAYERS, small_model
import cnnviz_fast as cf

images, out, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
listed = [str(path) for path in sorted(images.iterdir())[:int(sys.argv[4])]]
summary = cf.run(small_model(), listed, LAYERS, out, batch=16, tile=12, progress="none", **options)
assert summary.finished == len(listed)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peak_bytes(images: Path, out: Path, count: int, options: dict[str, Any]) -> int:
    """Run over some images in a process of its own; return the most memory that was resident in it."""
    arguments = [sys.executable, "-c", RUN, str(images), str(out), json.dumps(options), str(count)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1]) * 1024


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 5,000 images."""
    folder = tmp_path_factory.mktemp("many")
    make_images(folder, 5000)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, which knows the high-water mark")
@pytest.mark.parametrize(
    "options",
    [
        {"save": "sheets,statistics"},
        {"save": "sheets,statistics", "shards": 1},
        {"save": "top", "top_random": 4, "top_bands": 3, "labels": "folders"},
    ],
)
def test_memory_does_not_grow_with_the_images(options: dict[str, Any], many: Path, tmp_path: Path) -> None:
    few, all_of_them = (peak_bytes(many, tmp_path / str(count), count, options) for count in (500, 5000))
    assert all_of_them < 1.05 * few


# Damage.


def in_format(good: bytes, name: str) -> bytes:
    with Image.open(BytesIO(good)) as image, BytesIO() as file:
        image.save(file, name)
        return file.getvalue()


def text_file(good: bytes) -> bytes:
    return b"this is a text that somebody has given the name of an image\n"


def larger_than_its_file(good: bytes) -> bytes:
    """Claim 50,000 x 50,000 px, with a right check sum."""
    import zlib

    head = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + good[24:29]
    return good[:12] + head + zlib.crc32(head).to_bytes(4, "big") + good[33:]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda good: b"",
    lambda good: good[:8],
    lambda good: good[: len(good) // 2],
    lambda good: good[: len(good) * 4 // 5],
    lambda good: good[:45] + bytes(60) + good[105:],
    lambda good: os.urandom(len(good)),
    lambda good: in_format(good, "JPEG")[:150],
    lambda good: in_format(good, "GIF")[:40],
    text_file,
    larger_than_its_file,
]


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


@pytest.mark.parametrize("shards", [None, 1])
def test_exactly_the_damaged_images_fail(shards: int | None, tmp_path: Path) -> None:
    paths = make_images(tmp_path / "in", 5000)
    for n, position in enumerate(np.random.default_rng(3).choice(5000, 100, replace=False).tolist()):
        paths[position].write_bytes(DAMAGES[n % len(DAMAGES)](paths[position].read_bytes()))
        paths[position] = paths[position].with_suffix(".damaged")
    good = [path for path in paths if path.suffix == ".png"]
    summary = cf.run(
        small_model(), tmp_path / "in", LAYERS, tmp_path / "out", batch=BATCH, tile=12, progress="none", shards=shards,
        save="sheets,statistics",
    )  # fmt: skip
    assert (summary.images, summary.finished, summary.failed) == (5000, 4900, 100)
    failed = rows(tmp_path / "out", "failed")
    assert {Path(row["image"]).stem for row in failed} == {path.stem for path in paths} - {path.stem for path in good}
    assert len(failed) == 100
    assert all(row["reason"] for row in failed)
    assert {row["image"] for row in rows(tmp_path / "out")} == set(map(str, good))
    made = {name for path in sorted((tmp_path / "out").glob("*.tar")) for name in names_in(path)}
    assert (made or set(digests(tmp_path / "out"))) == {f"{layer}/{path.stem}.png" for path in good for layer in LAYERS}
    assert read_statistics(tmp_path / "out" / "statistics.safetensors")["0"].images == 4900
