"""Make the sheets of the README and of the page beside them, each by one command: `python -m benchmarks.gallery`."""

from __future__ import annotations

import io
import shlex
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cnnviz_fast.cli import main as cli
from cnnviz_fast.diagnostics.demo import PHOTOS

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

FOLDER = Path(__file__).parent / "pictures"


@dataclass(frozen=True)
class Shot:
    """A sheet of the gallery.

    command: as the document has it, without the folder to write to.
    file: which of the files that it writes; the rest is not kept.
    before: the command that makes the run that it draws, `run/`.
    page: the document that shows it.
    optimised: whether its images are found step by step, which takes half a minute.
    address: of a page in the browser, the hash that says what of it is shown; None for sheets.
    """

    command: str
    file: str
    before: str | None = None
    page: str = "README.md"
    optimised: bool = False
    address: str | None = None

    @property
    def out(self) -> str:
        """Return where the document writes it."""
        return "sheets/" if self.address is None else "page.html"


MORE = "benchmarks/pictures/README.md"

WINDOW_PX: ViewportSize = {"width": 1360, "height": 780}
"""Of the browser in which pages are shown."""

SHOTS = {
    "stage1.png": Shot("cnnviz render cnnviz:small cat.jpg --layer stage1 --tile 96 --input", "*.png"),
    "strongest.png": Shot(
        "cnnviz render cnnviz:small cat.jpg --layer stage5 --topk 12 --rank variance --normalize layer --colorbar "
        "--colormap magma --grid 2x6 --tile 112",
        "*.png",
    ),
    "overlay.png": Shot(
        "cnnviz render cnnviz:small coffee.jpg --layer stage5 --topk 8 --rank variance --overlay --grid 2x4 --tile 144",
        "*.png",
    ),
    "gradcam.png": Shot(
        "cnnviz attribute cnnviz:small coffee.jpg --target cup wood --layer stage5 --size 320x480 --tile 200x300",
        "*.png",
    ),
    "patches.png": Shot(
        "cnnviz patches run/ --layer stage5 --channels 43,60,110,128 --per-channel 3 --deconvolve --tile 80",
        "*.png",
        "cnnviz run cnnviz:small cat.jpg coffee.jpg --layer stage5 --size 320x480 --save top --top-k 4 --top-repeat 4",
    ),
    "compare.png": Shot(
        "cnnviz compare cnnviz:small cat.jpg coffee.jpg --layer stage5 --channels 43,51,128,163,60,65,110,144 "
        "--grid 2x4 --tile 96",
        "*_compare.png",
    ),
    "inverted.png": Shot(
        "cnnviz invert cnnviz:small cat.jpg --layer stage2 stage3 stage4 stage5 --tile 128 --grid 1x5",
        "*.png",
        optimised=True,
    ),
    "page.png": Shot(
        "cnnviz page cnnviz:small cat.jpg coffee.jpg --attribute gradcam --similarity",
        "*.html",
        address="#1;l=stage5;c=43;s=-variance",
    ),
    "difference.png": Shot(
        "cnnviz page cnnviz:small cat.jpg coffee.jpg --layer stage4",
        "*.html",
        address="#1;b=0,1;d=difference;s=-difference;m=coolwarm",
    ),
    "filters.png": Shot("cnnviz weights cnnviz:filters --layer conv --scale 8", "conv.weight.png"),
    "kernels.png": Shot(
        "cnnviz patches run/ --layer stage1 --channels 1,2,4,6,7 --per-channel 3 --deconvolve --tile 80",
        "*.png",
        "cnnviz run cnnviz:small cat.jpg coffee.jpg --layer stage1 --size 320x480 --save top --top-k 4 --top-repeat 4",
        page=MORE,
    ),
    "units.png": Shot(
        "cnnviz attribute cnnviz:small cat.jpg --method guided --target stage5@128-131,max --grid 1x4 --tile 160",
        "*.png",
        page=MORE,
    ),
    "maximized.png": Shot(
        "cnnviz maximize cnnviz:small --layer stage3 --channels 1,2,5,10 --at center --tile 128",
        "*.png",
        page=MORE,
        optimised=True,
    ),
    "beside.png": Shot(
        "cnnviz patches run/ --layer stage3 --channels 1,2,5,10 --per-channel 5 --tile 80",
        "*.png",
        "cnnviz run cnnviz:small cat.jpg coffee.jpg --layer stage3 --size 320x480 --save top --top-k 5 --top-repeat 5",
        page=MORE,
    ),
}


def make(name: str, target: Path) -> None:
    """Draw one sheet."""
    shot = SHOTS[name]
    with tempfile.TemporaryDirectory() as folder:
        run, drawn = Path(folder, "run"), Path(folder, "drawn")
        if shot.before is not None:
            _call(shot.before, run, run)
        _call(shot.command, drawn if shot.address is None else drawn / shot.out, run)
        (found,) = drawn.rglob(shot.file)
        if shot.address is None:
            shutil.move(found, target)
        else:
            with ThreadPoolExecutor(1) as thread:  # Playwright may be at work in this one
                thread.submit(_photograph, found, shot.address, target).result()


def _photograph(page: Path, address: str, target: Path) -> None:
    """Open a page in Chromium as somebody would who likes it dark, and keep what the window shows, in 256 colours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=WINDOW_PX, color_scheme="dark", reduced_motion="reduce")
        tab.goto(f"{page.as_uri()}{address}")
        tab.wait_for_load_state("networkidle")
        shown = tab.screenshot()
        browser.close()
    Image.open(io.BytesIO(shown)).convert("RGB").quantize().save(target, optimize=True)


def _call(command: str, out: Path, run: Path) -> None:
    """Run a command as a document has it, on the photos of the package."""
    words = [str(run) if word == "run/" else word for word in shlex.split(command)[1:]]
    argv = [str(PHOTOS / word) if word.endswith(".jpg") else word for word in words]
    if code := cli.main([*argv, "--out", str(out)]):
        raise SystemExit(code)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SHOTS:
        make(name, FOLDER / name)
