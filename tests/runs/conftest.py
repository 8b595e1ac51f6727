"""What the tests of runs share: a folder of images, a finished run over them, and a file with a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import COUNT, LAYERS, NET, QUICK, make_images, small_model

import cnnviz_fast as cf


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of COUNT images, which no test changes."""
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, COUNT)
    return folder


@pytest.fixture(scope="session")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was left alone, which no test changes: sheets, atlases and statistics."""
    folder = tmp_path_factory.mktemp("alone")
    cf.run(small_model(), images, LAYERS, folder, save="sheets,atlases,statistics", **QUICK)
    return folder


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Return a file that makes the small model."""
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"
