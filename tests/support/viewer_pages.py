"""A page of the viewer over maps that are made up, small enough to be worked out by hand, and tabs to open it in."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save

import cnnviz_fast as cf
from cnnviz_fast.palette import make_palette
from cnnviz_fast.viewer import html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Error, Page

CHANNELS = 6

NO_WEBGL = """for (const kind of [HTMLCanvasElement, OffscreenCanvas]) {
    const getContext = kind.prototype.getContext;
    kind.prototype.getContext = function (name, ...rest) {
        return name === "webgl2" ? null : getContext.call(this, name, ...rest);
    };
}"""
"""A script for a tab: drawn on the CPU, WebGL2 takes most of a test's time; `test_drawing` has it."""


def maps_of(image: int) -> torch.Tensor:
    """Return maps of the layer `stem` for an image: (6, 4, 4) float32, of which 1 is dead, 2 flat and 3 holds a NaN.

    Channels 0 and 4 are alike, 5 is the opposite of 0; means of the alive are 0: 7.5, 4: 15, 5: -7.5 plus the image.
    """
    ramp = torch.arange(16.0).reshape(4, 4)
    maps = torch.stack([ramp, 0 * ramp, 0 * ramp + 3, ramp.flip(0), 2 * ramp, -ramp])
    maps[3, 1, 2] = torch.nan
    maps[[0, 4, 5]] += image
    return maps


def demo(
    folder: Path, *, store: str = "inline", names: tuple[str, str] = ("cat.jpg", "dog.jpg")
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a catalogue of two runs of two images and four layers, and its payloads.

    Args:
        folder: for files on the way.
        store: where the catalogue says that payloads lie.
        names: of the images.
    """
    payloads: dict[str, bytes] = {}
    layer_names = ["stem", "body.0.conv", "body.0.norm", "body.1"]
    layers = [
        {
            "id": n, "name": name, "channels": CHANNELS, "height": 4, "width": 4, "axes": "nchw", "align": "center",
            "field": {"size": [8, 8], "stride": [4, 4], "offset": [2, 2]},
            "statistics": "s" if n == 0 else None, "patches": "q" if n == 0 else None,
            "kernels": "k" if n == 0 else None, "similarity": "y" if n == 0 else None,
        }
        for n, name in enumerate(layer_names)
    ]  # fmt: skip
    images = []
    for i, name in enumerate(names):
        photo = io.BytesIO()
        Image.new("RGB", (16, 16), ("teal", "orange")[i]).save(photo, "PNG")
        payloads |= {f"p-{run}-{i}": photo.getvalue() for run in (0, 1)}
        payloads[f"t-{i}"] = _atlas(torch.arange(-2.0, 2.0).reshape(1, 2, 2), folder)
        for n in range(len(layers)):
            payloads |= {f"a-{run}-{n}-{i}": _atlas(maps_of(i + 10 * run) * (n + 1), folder) for run in (0, 1)}
        attribution = [{"layer": None, "name": f"score {s}", "key": f"t-{i}", "channel": 0} for s in "xy"]
        images.append(
            {
                "id": i,
                "name": name,
                "width": 16,
                "height": 16,
                "photo": f"p-0-{i}",
                "absent": [3] if i else [],
                "attribution": attribution,
            }
        )
    payloads["s"] = _tensors(min=-np.ones(CHANNELS), max=20 * np.ones(CHANNELS), selectivity=np.arange(CHANNELS)[::-1])
    payloads["k"] = zlib.compress(save({"kernel": np.full((CHANNELS, 3, 2, 2), 200, np.uint8)}))
    payloads["y"] = zlib.compress(
        save({"order": np.array([5, 3, 1, 0, 2, 4], np.int32), "columns": np.array([2], np.int32)})
    )
    strip = io.BytesIO()
    Image.new("RGB", (24, 8), "red").save(strip, "JPEG")
    payloads |= {f"q-{c}": strip.getvalue() for c in range(CHANNELS)}
    command = {
        "shell": "cnnviz render net {image} --layer {layer}{options}",
        "python": "render({image}, {layer}{options})",
    }
    runs = [
        {
            "id": n,
            "name": f"run {n}",
            "model": "net",
            "layers": layers,
            "images": images,
            "image_count": len(names),
            "command": command,
        }
        for n in (0, 1)
    ]
    colors = ("viridis", "gray", "coolwarm")
    palettes = {
        name: base64.b64encode(make_palette(name, shows_background=False, shows_bad=False).colors.tobytes()).decode()
        for name in colors
    }
    catalogue = {
        "version": 1,
        "package": "0",
        "title": "net",
        "store": store,
        "palettes": palettes,
        "notes": [],
        "runs": runs,
        **({"images_at_once": 50} if store == "server" else {}),
    }
    return catalogue, payloads


def _atlas(maps: torch.Tensor, folder: Path) -> bytes:
    return cf.save_atlas(maps, folder / "one.atlas").read_bytes()


def _tensors(**columns: Any) -> bytes:
    return zlib.compress(save({name: np.asarray(column, np.float32) for name, column in columns.items()}))


def page_of(catalogue: dict[str, Any], payloads: dict[str, bytes]) -> str:
    """Return a page, with payloads inside it where there are any."""
    return b"".join(html.page(catalogue, payloads.items())).decode()


def catalogue_in(path: Path) -> dict[str, Any]:
    """Return the catalogue of a page, as a browser finds it."""
    found = re.search(r'<script type="application/json" id="catalogue">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def payload_in(path: Path, key: str) -> bytes:
    """Return a payload of a page of one file."""
    found = re.search(rf'<script type="text/plain" id="{key}">([^<]*)</script>', path.read_text())
    assert found is not None, key
    return base64.b64decode(found[1], validate=True)


def tab_of(browser: Browser) -> Iterator[Page]:
    """Return a tab for tests that follow each other."""
    context = browser.new_context()
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def empty(tab: Page) -> None:
    """Make a tab as new, of 1400 x 900 px, which takes a third of what a new one does."""
    tab.goto("about:blank")
    tab.unroute_all()
    tab.context.clear_permissions()
    tab.set_viewport_size({"width": 1400, "height": 900})
    tab.emulate_media(color_scheme="light")


@contextlib.contextmanager
def without_faults(tab: Page) -> Iterator[Page]:
    """Fail where a tab throws something or logs an error meanwhile."""
    faults: list[str] = []

    def thrown(error: Error) -> None:
        faults.append(str(error))

    def logged(message: ConsoleMessage) -> None:
        if _is_fault(message):
            faults.append(message.text)

    tab.on("pageerror", thrown)
    tab.on("console", logged)
    yield tab
    tab.evaluate("0")  # which is answered behind all that was thrown
    tab.remove_listener("pageerror", thrown)
    tab.remove_listener("console", logged)
    assert faults == [], faults


def _is_fault(message: ConsoleMessage) -> bool:
    """Return whether the page logged an error; the browser itself logs each answer of a server that is a refusal."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")
