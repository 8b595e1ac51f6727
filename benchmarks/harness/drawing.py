"""A workload, planned, with the memory that every contender draws into and the plane that all are held to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.measure import FLOOR, Contender
from benchmarks.harness.png_peers import filtered
from benchmarks.harness.workloads import Workload, maps_of
from cnnviz_fast.kernels.backends import CPU_FAMILIES
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.runtime.native import native
from cnnviz_fast.runtime.workers import in_order
from cnnviz_fast.sheets.pixels import draw_at_once
from cnnviz_fast.sheets.plan import Plan, plan_sheet

Plane = NDArray[np.uint8]

ON_THE_CPU = tuple(name for name in CPU_FAMILIES if name != "native" or native()[0])
"""The backends for the CPU that are here, the one first that is chosen by itself."""
FASTEST = ON_THE_CPU[0]

SPOILT = 7  # neither background nor within a level of it
COLORMAP = "gray"  # what the peers write is grey, so both sides write the same kind of file


@cache
def drawing_of(workload: Workload) -> Drawing:
    """Return the drawing of a workload, one for all tables; its parts are made when they are first used."""
    return Drawing(workload)


class Drawing:
    """See the module. Nothing is made before it is used, so that cases can be listed at once."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.tile_px = workload.tile_px
        self.plan = cache(self._plan)

    @cached_property
    def maps(self) -> torch.Tensor:
        """The maps, (C, H, W) float32."""
        return maps_of(self.workload)

    @cached_property
    def array(self) -> NDArray[np.float32]:
        """The maps as an array, on the same memory."""
        return self.maps.numpy()

    def _plan(self, backend: str = "auto", threads: int = 2) -> Plan:
        options = RenderOptions(tile=self.tile_px, plain=True, colormap=COLORMAP, backend=backend, threads=threads)
        return plan_sheet(self.maps, options, Provenance())

    @property
    def cols(self) -> int:
        """Tiles in a row of the sheet, the same for the peers."""
        return self.plan().grid.cols

    @property
    def bytes(self) -> int:
        """Pixels of the sheet, at a byte each, without making it."""
        return self.workload.sheet_px

    @property
    def tiles_bytes(self) -> int:
        """Pixels of all tiles, without what fills the last row of a sheet."""
        return self.workload.channels * self.tile_px**2

    @cached_property
    def plane(self) -> Plane:
        """Memory that contenders draw into, mapped because it was written once."""
        grid = self.plan().grid
        return np.full((grid.height, grid.width), SPOILT, np.uint8)

    @cached_property
    def expected(self) -> Plane:
        """The plane by the torch backend, which the tests hold to the reference."""
        return self._draw(self.plan("torch"), np.empty_like(self.plane))

    @cached_property
    def tiles(self) -> NDArray[np.uint8]:
        """The expected plane cut into its tiles, (C, tile_px, tile_px) uint8, C-contiguous."""
        grid = self.expected.reshape(-1, self.tile_px, self.cols, self.tile_px).swapaxes(1, 2)
        return np.ascontiguousarray(grid.reshape(-1, self.tile_px, self.tile_px)[: self.workload.channels])

    @cached_property
    def filtered(self) -> Plane:
        """The expected plane as a deflater takes it for a PNG, (height, 1 + width) uint8."""
        return filtered(self.expected)

    def prepare(self) -> None:
        """Make what contenders share, so that none of them pays for it."""
        self.plan()
        self.array, self.plane, self.expected  # noqa: B018  # made when first used

    def _draw(self, plan: Plan, plane: Plane) -> Plane:
        if plan.backend.shares_work:
            draw_at_once(plan, plane)
            return plane
        for _ in in_order(lambda s: plan.draw(s, plane[s.start : s.stop]), plan.strips(), plan.threads):
            pass
        return plane

    def draw(self, backend: str, threads: int) -> Callable[[], Plane]:
        """Return what draws all strips into `plane` by a backend; its first call makes the plan, and is not timed."""
        return lambda: self._draw(self.plan(backend, threads), self.plane)

    def is_expected(self, drawn: Any) -> None:
        """Assert that a plane is the expected one, and spoil it so that the next contender has to draw all of it."""
        assert np.array_equal(drawn, self.expected)
        drawn.fill(SPOILT)

    def is_close(self, drawn: Any) -> None:
        """Assert that a peer's plane is within 1 level: some round before they enlarge, or convert in between."""
        assert drawn.shape == self.expected.shape
        assert cv2.absdiff(np.ascontiguousarray(drawn), self.expected).max() <= 1
        self.plane.fill(SPOILT)

    def file_is_expected(self, path: Path) -> None:
        """Assert that a file shows the expected plane, by OpenCV's decoder."""
        assert np.array_equal(decoded(path), self.expected)

    def file_is_close(self, path: Path) -> None:
        """Assert that a peer's file shows the expected plane within 1 level."""
        self.is_close(decoded(path))

    def fill(self) -> Contender:
        """Return the floor of all drawing: set every byte of the mapped plane."""
        return Contender("fill", lambda: self.plane.fill(SPOILT), anything, FLOOR, self.bytes)

    def copy(self) -> Contender:
        """Return the floor of all reading and writing: copy the sheet into the mapped plane."""
        return Contender("copy", lambda: np.copyto(self.plane, self.expected), anything, FLOOR, self.bytes)


def decoded(path: Path) -> Plane:
    """Read a sheet back as grey values, by OpenCV."""
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def anything(result: Any) -> None:
    """Check nothing: a floor has no pixels to be right or wrong."""
