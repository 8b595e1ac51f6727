"""The other side of `processes`: what a process of its own does and says about itself, as JSON on stdout.

The commands of `python -m benchmarks.harness.child`:
    sheet save_sheet|cv2 FILE          writes the sheet of 20,000 px: seconds, peak_bytes, file_bytes
    kernels                            loads the numba kernels: seconds, from_cache
    forward PHOTO                      does what `cnnviz render` cannot do without: seconds
    photos FOLDER OUT WAY [LAYER ...]  reads photos, runs a model on them and keeps what a run keeps: seconds
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes(field: str) -> int:
    """Read VmRSS (resident now) or VmHWM (the most so far) of this process, where there is /proc."""
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    assert found
    return int(found[1]) * 1024


def peak_above(action: Callable[[], object]) -> tuple[float, int]:
    """Do something; return its seconds, and the most memory that was resident meanwhile beyond what was before."""
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
        before = resident_bytes("VmRSS")
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    action()
    seconds = time.perf_counter() - start
    if _STATUS.exists():
        return seconds, resident_bytes("VmHWM") - before
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def sheet(way: str, file: str) -> dict[str, float]:
    """Write the huge sheet, after a small one has loaded everything that is loaded once."""
    import cv2
    import numpy as np

    import cnnviz_fast as cf
    from benchmarks.harness import outputs, peers
    from benchmarks.harness.workloads import HUGE, TINY, maps_of

    path = Path(file)
    outputs.remove(path)
    cv2.setNumThreads(2)
    maps, cols = maps_of(HUGE), int(np.ceil(np.sqrt(HUGE.channels)))
    rows = -(-HUGE.channels // cols)

    def opencv() -> None:
        plane = np.zeros((rows * HUGE.tile_px, cols * HUGE.tile_px), np.uint8)
        peers.cv2_sheet(maps.numpy(), HUGE.tile_px, cols, plane, path)

    def ours() -> None:
        cf.save_sheet(maps, path, tile=HUGE.tile_px, plain=True, colormap="gray", threads=2)

    cf.save_sheet(maps_of(TINY), path, tile=TINY.tile_px, plain=True, colormap="gray", threads=2)
    outputs.remove(path)
    seconds, peak = peak_above({"save_sheet": ours, "cv2": opencv}[way])
    return {"seconds": seconds, "peak_bytes": peak, "file_bytes": path.stat().st_size}


def kernels() -> dict[str, float]:
    """Load the numba kernels, which compiles them or reads the cache."""
    start = time.perf_counter()
    from cnnviz_fast.kernels import numba_cpu

    seconds = time.perf_counter() - start
    return {"seconds": seconds, "from_cache": sum(numba_cpu._render_strip.stats.cache_hits.values())}


def forward(photo: str) -> dict[str, float]:
    """Import torch and torchvision, build the model, read the photo, and run the model on it."""
    start = time.perf_counter()
    import torch
    import torchvision
    from PIL import Image

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    preprocess = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
        ]
    )
    with Image.open(photo) as image, torch.inference_mode():
        model(preprocess(image.convert("RGB"))[None])
    return {"seconds": time.perf_counter() - start}


def photos(folder: str, out: str, way: str, *layers: str) -> dict[str, float]:
    """Read photos and run a model on them; see photo_runs."""
    from benchmarks.harness import photo_runs

    return photo_runs.timed(Path(folder), Path(out), way, layers)


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    print(json.dumps({"sheet": sheet, "kernels": kernels, "forward": forward, "photos": photos}[action](*arguments)))
