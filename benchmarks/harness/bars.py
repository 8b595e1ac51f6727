"""The bars that speed is held to: the one home of all of them, as data.

They hold for two cores, and ratios are of two figures in one run. A missed bar is reported with its profile, not
softened.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness.bar import Bar, EveryPeer, Figure
from benchmarks.harness.workloads import CONV1, DEAD, HUGE, LAYER1, LAYER4, LAYER4_SMALL, WORKLOADS, Workload


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
        "reading and forward pass alone, one process", True, limit, "%", head=save == "sheets",
    )  # fmt: skip


def _patches(table: str) -> Bar:
    """Make a bar of "at most one and a half times what it takes to decode the photos once"."""
    return Bar(
        table, Figure(table, "patch_sheet, 2 threads"), "times", Figure(table, "decoding the photos, 2 threads"),
        "decoding those photos once", False, 1.5, "x",
    )  # fmt: skip


def _gradcam(table: str, limit: float) -> Bar:
    """Make a bar of "at most so many times what the forward pass takes alone"."""
    return Bar(
        table, Figure(table, "attribute"), "times", Figure(table, "forward pass alone"), "the forward pass alone",
        False, limit, "x",
    )  # fmt: skip


def render_of(workload: Workload) -> str:
    """Return the name of the table of drawing a workload."""
    return f"render {workload.name}"


def write_of(workload: Workload) -> str:
    """Return the name of the table of writing a workload into a file."""
    return f"write {workload.name}"


RENDER, WRITE, WRITE_SMALL = render_of(LAYER4), write_of(LAYER4), write_of(LAYER4_SMALL)
WRITE_HUGE = f"write {HUGE.name}, a sheet of 20,000 px"
ENCODE, ENCODE_SMALL = f"encode {LAYER4.name}", f"encode {LAYER1.name}"
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
PATCHES = "512 channels x 9 patches of 96 px from 1000 photos of 1600x1200 px"
PATCHES_SMALL = "512 channels x 9 patches of 96 px from 1000 photos of 500x375 px"
GRADCAM = "Grad-CAM of the last stage of ResNet-50"
GRADCAM_LATE = "Grad-CAM of five layers of ResNet-50's last two stages"
GRADCAM_STAGES = "Grad-CAM of ResNet-50, conv1 to layer4"
GUIDED = "guided backpropagation of ResNet-50"
VIEWER_PAGE = "a page of 2048x7x7"
VIEWER_SERVER = "a server over 5,000 images x 5 layers"
VIEWER_LIVE = "an image dropped on ResNet-18"
ARTICLE = "2048 files of 96 px and their sum (article 003)"

_render = Figure(RENDER, "native, 2 threads")
_write = Figure(WRITE, "save_sheet, 2 threads")
_write_small = Figure(WRITE_SMALL, "save_sheet, 2 threads")
_files = Figure(FILES, "save_tiles, 2 threads")

_RENDERED = "render 2048x7x7 to tiles of 224 px (104 MB)"
_WRITTEN = "tensor to PNG file, the same sheet"
_ENCODED = "encoder alone, one thread"
_MANY = "2048 PNG files of 224 px"
_SMALL_WRITTEN = "256x56x56 at 112 px to a PNG file"
_SMALL = "2048 tiles of 56 px to one PNG"


def wall_of(workload: Workload) -> str:
    """Return the name of the table of what is done on the page of a workload."""
    return f"the wall of {workload.channels}x{workload.map_px}x{workload.map_px} at 1400x900"


def _walls(workload: Workload) -> list[Bar]:
    """Make the bars of what is done on the page of a workload, without a graphics card."""
    table = wall_of(workload)
    limits_ms = {
        "opened, first wall": 300, "other colours": 33, "range of the layer": 33, "range by percentile": 33,
        "sorted": 50,
    }  # fmt: skip
    return [_at_most(f"{table}: {name}", Figure(table, name), limit, "ms") for name, limit in limits_ms.items()]


def _drawing(workload: Workload) -> list[Bar]:
    """Make the bars of drawing a shape: by one thread, and for a sheet that two can share by two."""
    what, table = f"draw {workload.name}", render_of(workload)
    one, two = Figure(table, "native, 1 thread"), Figure(table, "native, 2 threads")
    loop = "cv2.resize loop, 1 thread"
    made = [
        Bar(f"{what}, one thread", one._replace(field="gb_per_s"), "", None, "", True, 5, "GB/s"),
        _faster(f"{what}, one thread", one, loop, "a loop of cv2.resize", 4),
    ]
    if workload.sheet_px >= SHARED_PX:
        made.append(Bar(f"{what}, two threads", two, "times", one, "one thread", False, 0.6, "x"))
    return made


def _saving(workload: Workload) -> Bar:
    """Make the bar of what `save_sheet` adds to the pixels of a shape."""
    table = write_of(workload)
    return Bar(
        f"save_sheet of {workload.name}", Figure(table, "save_sheet, 2 threads"), "times",
        Figure(table, "drawing and encoding alone, 2 threads"), "drawing and encoding alone", False, 2, "x",
    )  # fmt: skip


SHARED_PX = 6e6
"""Pixels of a sheet from which on two threads have to be worth their start."""

_write_layer1 = Figure(write_of(LAYER1), "save_sheet, 2 threads")
_fill = Figure(RENDER, "fill")
_FILLED = "filling the same memory"

BARS = (
    # Issue 1 of 6: the main job.
    _faster(_RENDERED, _render, "F.interpolate + make_grid", "F.interpolate + make_grid", 50, head=True),
    _at_most("cnnviz --help", Figure(START, "cnnviz --help"), 0.25, "s"),
    _at_most("import cnnviz_fast", Figure(START, "import cnnviz_fast"), 0.15, "s"),
    # Issue 2 of 6: pixels and files at memory speed.
    _faster(_RENDERED, _render, "cv2.resize loop, 2 threads", "a loop of cv2.resize", 8, head=True),
    _faster(_WRITTEN, _write, "cv2.resize loop + cv2.imwrite", "cv2.resize + cv2.imwrite", 10, head=True),
    _faster(_WRITTEN, _write, "Pillow, default (drawn beforehand)", "Pillow's default save alone", 60),
    Bar(
        "size of that file", _write._replace(field="file_bytes"), "times",
        Figure(WRITE, "cv2.resize loop + cv2.imwrite", "file_bytes"), "OpenCV's", False, 1, "x",
    ),
    Bar(f"{_ENCODED}: all zero", Figure(ENCODE_DEAD, "native", "gb_per_s"), "", None, "", True, 3, "GB/s"),
    Bar(
        f"{_ENCODED}: size of all zero", Figure(ENCODE_DEAD, "native", "file_bytes"), "times",
        Figure(ENCODE_DEAD, "native", "bytes"), "its pixels", False, 0.2, "%",
    ),
    _faster(_MANY, _files, "cv2.imwrite (drawn beforehand)", "a loop of cv2.imwrite alone", 4),
    _faster(_MANY, _files, "Pillow, default (drawn beforehand)", "Pillow's default save alone", 25),
    _faster(_SMALL, _write_small, "matplotlib, all 2048 subplots", "matplotlib's subplots", 1000, head=True),
    _faster(_SMALL, _write_small, "F.interpolate + make_grid + save_image", "make_grid + save_image", 50),
    _at_most(
        "peak memory of save_sheet on a sheet of 20,000 px",
        Figure(WRITE_HUGE, "save_sheet, 2 threads", "peak_bytes"), 64, "MB", head=True,
    ),
    _faster("save_sheet by 2 workers", _write, "save_sheet, 1 thread", "1 worker", 1.7),
    Bar(
        "cnnviz render", Figure(MAIN_JOB, "cnnviz render"), "more than",
        Figure(MAIN_JOB, "import torch and torchvision, build, forward pass"), "imports, model and forward pass alone",
        False, 0.5, "s", head=True,
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
    # Issue 4 of 9: speed on every shape.
    *(bar for workload in WORKLOADS for bar in _drawing(workload)),
    Bar(f"{_RENDERED}, one thread", Figure(RENDER, "native, 1 thread"), "times", _fill, _FILLED, False, 2.2, "x"),
    Bar(_RENDERED, _render, "times", _fill, _FILLED, False, 1.5, "x", head=True),
    *map(_saving, WORKLOADS),
    Bar(_WRITTEN, _write, "times", Figure(WRITE, "copy"), "numpy.copyto of its pixels", False, 3, "x"),
    _at_most(_SMALL_WRITTEN, _write_layer1, 3, "ms"),
    _faster(_SMALL_WRITTEN, _write_layer1, "cv2.resize loop + cv2.imwrite", "cv2.resize + cv2.imwrite", 12, head=True),
    Bar(
        "cnnviz render, first time in a new environment",
        Figure(MAIN_JOB, "cnnviz render, first time in a new environment"), "times", Figure(MAIN_JOB, "cnnviz render"),
        "the second time", False, 1.15, "x", head=True,
    ),
    # What it was before: 19.0 to 19.3 times as fast as OpenCV's in four runs, and chunks of 18.5816 MB.
    _faster(_ENCODED, Figure(ENCODE, "native"), "OpenCV, default", "OpenCV's encoder", 19),
    _at_most(f"{_ENCODED}: size", Figure(ENCODE, "native", "file_bytes"), 18.582, "MB"),
    EveryPeer("drawing, every shape", tuple(map(render_of, WORKLOADS)), head=True),
    EveryPeer("tensor to PNG file, every shape", tuple(map(write_of, WORKLOADS)), head=True),
    EveryPeer("encoder, large and small sheets", (ENCODE, ENCODE_SMALL, ENCODE_DEAD), head=True),
    # Issue 6 of 6: large image batches.
    _keeps_up(RUN, "sheets", 95),
    _keeps_up(RUN, "atlases", 95),
    _keeps_up(RUN_STAGES, "sheets", 85),
    _keeps_up(RUN_STAGES, "atlases", 90),
    _keeps_up(RUN_STAGES, "sheets,atlases", 80),
    # Issue 6 of 9: what each channel looks for.
    Bar(
        f"{RUN_STAGES}: top", Figure(RUN_STAGES, "cf.run, top"), "times", Figure(RUN_STAGES, "load_images + forward"),
        "reading and forward pass alone, one process", False, 1.1, "x",
    ),
    _patches(PATCHES),
    replace(
        _patches(PATCHES_SMALL),
        note="Photos of 0.2 megapixels are decoded in 1.5 ms. Pillow takes 0.2 ms to resample each of the 4.6 patches "
        "that a photo holds, and what is written of them another 0.1.",
    ),
    # Issue 7 of 9: attribution.
    _gradcam(GRADCAM, 1.05),
    _gradcam(GRADCAM_LATE, 1.3),
    replace(
        _gradcam(GRADCAM_STAGES, 1.3),
        note="The gradient at conv1 has come through every other layer, which takes as long as the forward pass.",
    ),
    Bar(
        GUIDED, Figure(GUIDED, "attribute"), "times", Figure(GUIDED, "captum"), "captum's, in the same run", False, 1,
        "x",
    ),
)  # fmt: skip


# Issue 8 of 9: the viewer, in Chromium on the CPU. Of the newest run on a machine with a browser.
VIEWER_BARS = (
    _at_most(f"{VIEWER_PAGE}: file", Figure(VIEWER_PAGE, "save_page", "file_bytes"), 0.22, "MB"),
    _at_most(
        "the viewer's program and style, gzip", Figure(VIEWER_PAGE, "program and style, gzip", "file_bytes"), 0.06, "MB"
    ),
    *(bar for workload in (LAYER4, CONV1) for bar in _walls(workload)),
    _at_most(f"{VIEWER_SERVER}: first view", Figure(VIEWER_SERVER, "first view"), 1, "s"),
    _at_most(f"{VIEWER_SERVER}: memory", Figure(VIEWER_SERVER, "first view", "peak_bytes"), 300, "MB"),
    _at_most(f"{VIEWER_SERVER}: jump to an image", Figure(VIEWER_SERVER, "jump to an image"), 150, "ms"),
    Bar(
        f"{VIEWER_LIVE}: to its wall", Figure(VIEWER_LIVE, "dropped, to its wall"), "times",
        Figure(VIEWER_LIVE, "1.5 x the forward pass + 100 ms"), "1.5 x the forward pass + 100 ms", False, 1, "x",
    ),
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
