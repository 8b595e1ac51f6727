"""Make the pictures of the README, each by one command: `python -m benchmarks.gallery`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cnnviz_fast import cli

FOLDER = Path(__file__).parent / "pictures"

# Picture -> what is given to `cnnviz render`. The photo comes with scikit-learn.
COMMANDS = {
    "conv1.png": "resnet50 {photo} --weights none --layer conv1 --tile 96 --gap 2",
}


def photo() -> Path:
    """Return the path of a photo of a flower, 640 x 427 px."""
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg"


def make(name: str, target: Path) -> None:
    """Draw one picture."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [part.format(photo=photo()) for part in COMMANDS[name].split()]
        if code := cli.main(["render", *argv, "--out", folder]):
            raise SystemExit(code)
        (drawn,) = Path(folder).glob("*.png")
        shutil.move(drawn, target)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in COMMANDS:
        make(name, FOLDER / name)
