"""A model of one's own, an image and a folder for sheets, for the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import TINY


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model file of one's own."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return f"{path}:make"


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sheets"
