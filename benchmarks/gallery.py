"""Make the sheets of the README, each by one command: `python -m benchmarks.gallery`."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cnnviz_fast.cli import main as cli

FOLDER = Path(__file__).parent / "pictures"
PHOTO = "flower.jpg"


@dataclass(frozen=True)
class Shot:
    """A sheet of the gallery.

    command: as the README has it, without the folder to write to.
    file: which of the files that it writes; the rest is not kept.
    """

    command: str
    file: str


SHOTS = {
    "conv1.png": Shot(f"cnnviz render resnet50 {PHOTO} --weights none --layer conv1 --tile 96 --gap 2", "*.png"),
    "strongest.png": Shot(
        f"cnnviz render resnet50 {PHOTO} --weights none --layer layer1 --topk 12 --rank variance --label --colorbar "
        f"--title '{{layer}}: the channels that vary most' --normalize layer --colormap magma --grid 2x6 --tile 112 "
        f"--gap 4 --margin 8",
        "*.png",
    ),
    "overlay.png": Shot(
        f"cnnviz render resnet50 {PHOTO} --weights none --layer layer2 --reduce sum,mean,max,strongest --overlay "
        f"--alpha 0.6 --label --grid 1x4 --tile 168 --gap 4",
        "*.png",
    ),
    "compare.png": Shot(
        f"cnnviz compare resnet18 {PHOTO} --weights none --against-seed 1 --layer conv1 --channels 0-17 --grid 3x6 "
        f"--tile 56 --gap 2",
        "*_compare.png",
    ),
    "histograms.png": Shot(
        "cnnviz weights resnet18 --weights none --layer type:Conv2d --kernels none", "histograms.png"
    ),
}


def photo() -> Path:
    """Return the path of a photo of a flower, 640 x 427 px, that comes with scikit-learn."""
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / PHOTO


def make(name: str, target: Path) -> None:
    """Draw one sheet."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [str(photo()) if word == PHOTO else word for word in shlex.split(SHOTS[name].command)[1:]]
        if code := cli.main([*argv, "--out", folder]):
            raise SystemExit(code)
        (drawn,) = Path(folder).rglob(SHOTS[name].file)
        shutil.move(drawn, target)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SHOTS:
        make(name, FOLDER / name)
