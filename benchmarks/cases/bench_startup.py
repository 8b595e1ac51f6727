"""What a user waits for before the first pixel: imports, the command line, the first call of the compiled kernels."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cnnviz_fast
from benchmarks.gallery import photo
from benchmarks.harness import outputs, processes
from benchmarks.harness.drawing import anything, decoded
from benchmarks.harness.measure import FLOOR, OURS, PEER, Contender, Inside, Table, cases

COMMAND = "import sys; from cnnviz_fast.cli.main import main; sys.exit(main())"  # what the installed `cnnviz` runs


def cnnviz(*arguments: str, **environment: str) -> str:
    """Run the command in a new process; return its stdout."""
    return processes.run("-c", COMMAND, *arguments, **environment).stdout


def is_help(text: str) -> None:
    """Assert that this is the help."""
    assert "usage: cnnviz" in text


def startup_table() -> Table:
    """Whole processes, Python's own start included."""
    return Table(
        "start-up",
        [
            Contender("cnnviz --help", lambda: cnnviz("--help"), is_help, OURS, 0),
            Contender("import cnnviz_fast", lambda: processes.run("-c", "import cnnviz_fast"), anything, OURS, 0),
            Contender("python -c pass", lambda: processes.run("-c", "pass"), anything, FLOOR, 0),
        ],
    )


def render(**environment: str) -> Path:
    """Run the main job: a sheet of 10,080 x 10,304 px from a photo and a model with random weights."""
    folder = outputs.path("startup")
    arguments = ["resnet50", str(photo()), "--weights", "none", "--layer", "layer4", "--plain", "--out", str(folder)]
    return Path(cnnviz("render", *arguments, "--device", "cpu", **environment).split("\n")[0])


ENVIRONMENTS = itertools.count()


def render_first() -> Inside:
    """Run the main job by a copy of the package that never ran: Python and numba have compiled nothing of it yet."""
    package, copy = Path(cnnviz_fast.__file__).parent, outputs.path(f"environment-{next(ENVIRONMENTS)}")
    shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    caches = {"NUMBA_CACHE_DIR": str(copy / "numba"), "PYTHONPYCACHEPREFIX": "", "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    sheet = render(PYTHONPATH=str(copy), **caches)
    seconds = time.perf_counter() - start
    is_sheet(sheet)
    assert (copy / package.name / "__pycache__").is_dir(), "another copy of the package ran"
    shutil.rmtree(copy)
    return Inside(seconds)


def is_sheet(path: Path) -> None:
    """Assert that the sheet of layer4 was written."""
    assert decoded(path).shape == (10_080, 10_304)


def main_job_table() -> Table:
    """The main job beside what it cannot do without: the imports, the model, and its forward pass."""
    return Table(
        "the main job as a command",
        [
            Contender("cnnviz render", render, is_sheet, OURS, 0, threads=2, output=lambda: outputs.path("startup")),
            Contender(
                "cnnviz render, first time in a new environment", render_first, anything, OURS, 0, threads=2,
                output=lambda: outputs.path("startup"),
            ),
            Contender(
                "import torch and torchvision, build, forward pass",
                lambda: processes.run("-m", "benchmarks.harness.child", "forward", str(photo())), anything, PEER, 0,
                threads=2,
            ),
        ],
        prepare=photo,  # finding it loads scikit-learn
        full_only=True,
    )  # fmt: skip


def is_cached(cached: bool, loaded: Inside) -> None:
    """Assert that kernels came from the cache, or did not."""
    assert bool(loaded.facts["from_cache"]) == cached


def first_call_table() -> Table:
    """Loading the numba kernels with an empty cache, as after an installation, and with a filled one."""
    numbers = itertools.count()

    def kernels(cache: Callable[[], str]) -> Callable[[], Any]:
        return lambda: processes.measured_child("kernels", NUMBA_CACHE_DIR=str(outputs.path(cache())))

    return Table(
        "first call of the numba kernels",
        [
            Contender("compiled", kernels(lambda: f"numba-{next(numbers)}"), partial(is_cached, False), OURS, 0),
            Contender("from the cache", kernels(lambda: "numba-0"), partial(is_cached, True), OURS, 0),
            Contender("import numba", lambda: processes.run("-c", "import numba"), anything, FLOOR, 0),
        ],
        full_only=True,
    )


TABLES = [startup_table(), main_job_table(), first_call_table()]


@cases(TABLES)
def bench_startup(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
