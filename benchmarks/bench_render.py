"""The render kernel on 2048 maps of 7 x 7 px at 224 px, into memory that is mapped already, beside its peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.workloads import LAYER4, maps_of
from cnnviz_fast.manifest import Source
from cnnviz_fast.options import RenderOptions
from cnnviz_fast.render import Plan, plan_sheet
from cnnviz_fast.strips import in_order

MAPS = maps_of(LAYER4)
COLS = 46


def plan(**options: Any) -> Plan:
    return plan_sheet(MAPS, RenderOptions(tile=LAYER4.tile_px, colormap="gray", **options), Source())


@pytest.fixture(scope="module")
def plane() -> np.ndarray:
    """The memory that every contender writes, mapped by writing it once."""
    layout = plan().layout
    return np.ones((layout.height, layout.width), np.uint8)


def draw(drawn: Plan, plane: np.ndarray) -> np.ndarray:
    strips = drawn.strips(drawn.backend.strip_px)
    for _ in in_order(lambda s: drawn.draw(s, plane[s.start : s.stop]), strips, drawn.threads):
        pass
    return plane


@pytest.fixture(scope="module")
def expected(plane: np.ndarray) -> np.ndarray:
    """The plane by the torch backend, which the tests hold to the reference."""
    return draw(plan(backend="torch"), plane.copy())


CONTENDERS: dict[str, Callable[[np.ndarray], object]] = {
    "numba, 1 thread": lambda plane: draw(plan_1, plane),
    "numba, 2 threads": lambda plane: draw(plan_2, plane),
    "fill": lambda plane: plane.fill(7),
    "cv2.resize loop": lambda plane: peers.cv2_loop(MAPS.numpy(), LAYER4.tile_px, COLS, plane),
    "F.interpolate + make_grid": lambda plane: peers.interpolate_make_grid(MAPS, LAYER4.tile_px, COLS),
}
plan_1, plan_2 = plan(backend="numba", threads=1), plan(backend="numba", threads=2)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.benchmark(group=f"render {LAYER4.name}")
def bench_render(benchmark: Any, contender: str, plane: np.ndarray, expected: np.ndarray) -> None:
    run = CONTENDERS[contender]
    plane.fill(1)
    result = run(plane)
    if contender.startswith("numba"):
        assert (plane == expected).all()
    elif contender.startswith("cv2"):
        # OpenCV interpolates before it rounds as we do; single levels differ.
        assert abs(plane.astype(np.int16) - expected).max() <= 1
    elif contender.startswith("F."):
        assert abs(result[0].numpy().astype(np.int16) - expected).max() <= 1
    benchmark.extra_info["bytes"] = plane.nbytes
    slow = "make_grid" in contender
    benchmark.pedantic(run, args=(plane,), rounds=3 if slow else 15, warmup_rounds=0 if slow else 2)


FIRST_CALL = """
import time, json
start = time.perf_counter()
from cnnviz_fast.kernels import numba_cpu
print(json.dumps(time.perf_counter() - start))
"""


@pytest.mark.parametrize("cache", ["empty", "filled"])
@pytest.mark.benchmark(group="first call of the numba kernels, compile included")
def bench_first_call(benchmark: Any, cache: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "numba-cache"

    def first_call() -> float:
        import os

        environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / ("empty" if cache == "empty" else "filled"))}
        done = subprocess.run(
            [sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True, env=environment
        )
        return float(json.loads(done.stdout))

    if cache == "empty":
        benchmark.pedantic(first_call, rounds=1)
        return
    compiled = first_call()
    benchmark.pedantic(first_call, rounds=3)
    assert benchmark.stats.stats.median < compiled, "a second process starts from the cache"
