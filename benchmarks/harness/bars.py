"""The bars that speed is held to: the one home of all of them, as data.

They hold for two cores, and ratios are of two figures in one run. A missed bar is reported with its profile, not
softened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from benchmarks.harness.history import Record
from benchmarks.harness.workloads import DEAD, HUGE, LAYER4, LAYER4_SMALL


class Figure(NamedTuple):
    """A figure in a record: a field of a contender of a table."""

    table: str
    contender: str
    field: str = "median_s"

    def of(self, record: Record) -> float | None:
        """Look the figure up; None where the record has no such row."""
        value = record["tables"].get(self.table, {}).get(self.contender, {}).get(self.field)
        return None if value is None else float(value)


RELATIONS: dict[str, Callable[[float, float], float]] = {
    "times faster than": lambda ours, other: other / ours,
    "times": lambda ours, other: ours / other,
    "of": lambda ours, other: ours / other,
    "at the speed of": lambda ours, other: other / ours,
    "more than": lambda ours, other: ours - other,
    "": lambda ours, _: ours,
}
SCALES = {"x": 1.0, "s": 1.0, "GB/s": 1.0, "MB": 1e-6, "%": 100.0}


@dataclass(frozen=True)
class Bar:
    """One bar.

    what: of ours is measured.
    ours: the figure.
    relation: of our figure to the other, a key of RELATIONS.
    other: the figure of a peer or floor; None where the bar is on our figure alone.
    beside: what that other figure is.
    at_least: whether the bar is a least value, not a greatest.
    limit: in `unit`.
    unit: a key of SCALES.
    head: whether the README shows it.
    note: where the time goes and what was tried; RESULTS.md shows it while the bar is missed.
    """

    what: str
    ours: Figure
    relation: str
    other: Figure | None
    beside: str
    at_least: bool
    limit: float
    unit: str
    head: bool = False
    note: str = ""

    def value(self, record: Record) -> float | None:
        """Return what was measured, in `unit`; None where the record lacks a figure."""
        ours, other = self.ours.of(record), self.other.of(record) if self.other else 1.0
        if ours is None or other is None:
            return None
        return RELATIONS[self.relation](ours, other) * SCALES[self.unit]

    def reached(self, value: float) -> bool:
        """Check whether a value reaches the bar."""
        return value >= self.limit if self.at_least else value <= self.limit


def _faster(what: str, ours: Figure, contender: str, beside: str, limit: float, head: bool = False) -> Bar:
    """Make a bar of "at least so many times faster than another contender of the same table"."""
    return Bar(what, ours, "times faster than", Figure(ours.table, contender), beside, True, limit, "x", head)


def _at_most(what: str, ours: Figure, limit: float, unit: str, head: bool = False) -> Bar:
    return Bar(what, ours, "", None, "", False, limit, unit, head)


def _capture(table: str, limit: float) -> Bar:
    """Make a bar of "the pass with capture takes at most so many times what it takes alone"."""
    return Bar(
        table, Figure(table, "capture"), "times", Figure(table, "forward pass alone"), "the forward pass alone", False,
        limit, "x",
    )  # fmt: skip


def _keeps_up(table: str, save: str, limit: float) -> Bar:
    """Make a bar of "at least so much of the speed of reading the photos and running the model alone"."""
    return Bar(
        f"{table}: {save}", Figure(table, f"cf.run, {save}"), "at the speed of", Figure(table, "load_images + forward"),
        "reading and forward pass alone, one process", True, limit, "%", head=True,
    )  # fmt: skip


RENDER = f"render {LAYER4.name}"
WRITE = f"write {LAYER4.name}"
WRITE_SMALL = f"write {LAYER4_SMALL.name}"
WRITE_HUGE = f"write {HUGE.name}, a sheet of 20,000 px"
ENCODE = f"encode {LAYER4.name}"
ENCODE_DEAD = f"encode {DEAD.name}"
FILES = f"{LAYER4.channels} files of {LAYER4.tile_px} px"
WEIGHTS = "weights of ResNet-152"
RENDER_CUDA = f"render {LAYER4.name} on CUDA"
BATCH_CUDA = f"render 64 images of {LAYER4.name} on CUDA"
LOOK_CUDA = "look into ResNet-50, batch 64, on CUDA"
START, MAIN_JOB = "start-up", "the main job as a command"
CAPTURE_ONE, CAPTURE_ALL = "capture one layer of ResNet-50", "capture all 53 convolutions of ResNet-50"
RUN = "240 photos through ResNet-18, layer4 at 56 px"
RUN_STAGES = "240 photos through ResNet-18, conv1 to layer4 at 56 px"
ARTICLE = "2048 files of 96 px and their sum (article 003)"

_render = Figure(RENDER, "numba, 2 threads")
_write = Figure(WRITE, "save_sheet, 2 threads")
_write_small = Figure(WRITE_SMALL, "save_sheet, 2 threads")
_files = Figure(FILES, "save_tiles, 2 threads")

_UNSTEADY = (
    "With two threads the rounds of one run lie between 4.1 and 7 ms, with one within 0.2 ms of 6.5: what varies is "
    "when the second core takes part. Minima are 1.95 to 2.25 x the fill's. The kernels of the run of 04:12, which "
    "reached both bars, take the same times when both are measured in turns."
)

_RENDERED = "render 2048x7x7 to tiles of 224 px (104 MB)"
_WRITTEN = "tensor to PNG file, the same sheet"
_ENCODED = "encoder alone, one thread"
_MANY = "2048 PNG files of 224 px"
_SMALL = "2048 tiles of 56 px to one PNG"

BARS = (
    # Issue 1 of 6: the main job.
    _faster(_RENDERED, _render, "F.interpolate + make_grid", "F.interpolate + make_grid", 50, head=True),
    _faster(_RENDERED, _render, "cv2.resize loop", "a loop of cv2.resize", 4),
    Bar(_RENDERED, _render, "times", Figure(RENDER, "fill"), "filling the same memory", False, 4, "x"),
    _at_most("cnnviz --help", Figure(START, "cnnviz --help"), 0.25, "s"),
    _at_most("import cnnviz_fast", Figure(START, "import cnnviz_fast"), 0.15, "s"),
    # Issue 2 of 6: pixels and files at memory speed.
    replace(
        Bar(_RENDERED, _render, "times", Figure(RENDER, "fill"), "filling the same memory", False, 2, "x", head=True),
        note=_UNSTEADY,
    ),
    replace(_faster(_RENDERED, _render, "cv2.resize loop", "a loop of cv2.resize", 8, head=True), note=_UNSTEADY),
    _faster(_WRITTEN, _write, "cv2.resize loop + cv2.imwrite", "cv2.resize + cv2.imwrite", 10, head=True),
    _faster(_WRITTEN, _write, "Pillow, default (drawn beforehand)", "Pillow's default save alone", 60, head=True),
    Bar(
        "size of that file", _write._replace(field="file_bytes"), "times",
        Figure(WRITE, "cv2.resize loop + cv2.imwrite", "file_bytes"), "OpenCV's", False, 1, "x",
    ),
    Bar(_ENCODED, Figure(ENCODE, "native", "gb_per_s"), "", None, "", True, 1, "GB/s", head=True),
    _at_most(f"{_ENCODED}: size", Figure(ENCODE, "native", "file_bytes"), 30, "MB"),
    Bar(f"{_ENCODED}: all zero", Figure(ENCODE_DEAD, "native", "gb_per_s"), "", None, "", True, 3, "GB/s"),
    Bar(
        f"{_ENCODED}: size of all zero", Figure(ENCODE_DEAD, "native", "file_bytes"), "times",
        Figure(ENCODE_DEAD, "native", "bytes"), "its pixels", False, 0.2, "%",
    ),
    _faster(_MANY, _files, "cv2.imwrite (drawn beforehand)", "a loop of cv2.imwrite alone", 4, head=True),
    _faster(_MANY, _files, "Pillow, default (drawn beforehand)", "Pillow's default save alone", 25),
    _faster(_SMALL, _write_small, "matplotlib, all 2048 subplots", "matplotlib's subplots", 1000, head=True),
    _faster(_SMALL, _write_small, "F.interpolate + make_grid + save_image", "make_grid + save_image", 50, head=True),
    _at_most(
        "peak memory of save_sheet on a sheet of 20,000 px",
        Figure(WRITE_HUGE, "save_sheet, 2 threads", "peak_bytes"), 64, "MB", head=True,
    ),
    replace(
        _faster("save_sheet by 2 workers", _write, "save_sheet, 1 thread", "1 worker", 1.7, head=True),
        note="Drawing and encoding alone scale by 1.77 (34.8 to 19.7 ms). Serial around them are the plan (0.5 ms), "
        "the manifest (1.7 ms) and two files; the writer is a third thread on two cores. Tried: the manifest made in "
        "a thread beside the workers (no gain, it holds the interpreter's lock), strips of 2^18 to 2^22 px (2^21 is "
        "best).",
    ),
    Bar(
        "cnnviz render", Figure(MAIN_JOB, "cnnviz render"), "more than",
        Figure(MAIN_JOB, "import torch and torchvision, build, forward pass"), "imports, model and forward pass alone",
        False, 0.5, "s", head=True,
        note="Loading numba and its cached kernels takes 0.26 s, of which 0.2 s are numba's own registries; the rest "
        "is capture, plan, file and a longer interpreter exit. Done: the garbage collector is paused while packages "
        "load (0.3 s less), kernels compile ahead in a process of their own. Ending by os._exit would save more and "
        "skip others' exit handlers.",
    ),
    # Issue 3 of 6: any model, any layer.
    replace(
        _capture(CAPTURE_ONE, 1.02),
        note="Of 0.6 to 0.9 ms, 0.5 are Python before the pass: the layers, training flags, the pattern, hooks. "
        "Hot that is 0.2 ms; a pass leaves none of it in the caches. The rest is the copy. Done: the model is walked "
        "twice instead of six times, by a walk of our own; the batch is copied into memory that is used again.",
    ),
    replace(
        _capture(CAPTURE_ALL, 1.15),
        note="44 MB are copied while they are in no cache; cloning hooks, in fresh memory, take 18 to 24 % more.",
    ),
    # Issue 4 of 6: the five articles.
    _faster(
        "2048 files of 96 px and their sum", Figure(ARTICLE, "save_tiles, 2 threads"), "the article's loop",
        "article 003's loop (2 of 2048 files)", 1000, head=True,
    ),
    Bar(
        "all parameters of ResNet-152: statistics, histograms, their sheet as a file",
        Figure(WEIGHTS, "statistics, histograms, file, 2 threads"), "times",
        Figure(WEIGHTS, "torch.histc alone"), "torch.histc alone", False, 10, "x", head=True,
    ),
    # Issue 6 of 6: large image batches.
    _keeps_up(RUN, "sheets", 95),
    _keeps_up(RUN, "atlases", 95),
    _keeps_up(RUN_STAGES, "sheets", 85),
    _keeps_up(RUN_STAGES, "atlases", 90),
    _keeps_up(RUN_STAGES, "sheets,atlases", 80),
)  # fmt: skip


def _bandwidth(what: str, table: str, contender: str, head: bool = False) -> Bar:
    """Make a bar of "at least 70 % of the bandwidth of a fill"."""
    return Bar(
        what, Figure(table, contender, "gb_per_s"), "of", Figure(table, "fill, device time", "gb_per_s"),
        "filling the same memory there", True, 70, "%", head,
    )  # fmt: skip


# Issue 5 of 6: the GPU path. Of the newest run on a machine with a CUDA device.
GPU_BARS = (
    _bandwidth("CUDA: render 2048x7x7 to tiles of 224 px", RENDER_CUDA, "kernel, device time", head=True),
    _bandwidth("CUDA: the same for a batch of 64 images", BATCH_CUDA, "render_index, device time"),
    Bar(
        "CUDA: ResNet-50, batch 64, and planes of five stages at 56 px",
        Figure(LOOK_CUDA, "capture and render five stages"), "times", Figure(LOOK_CUDA, "forward pass alone"),
        "the forward pass alone", False, 1.15, "x",
    ),
    _faster(
        "CUDA: render 2048x7x7 to tiles of 224 px", Figure(RENDER_CUDA, "kernel, device time"),
        "F.interpolate + make_grid, device time", "F.interpolate + make_grid there", 30,
    ),
)  # fmt: skip
