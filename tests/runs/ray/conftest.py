"""What the tests of runs on Ray share."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runs import COUNT, make_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of COUNT images."""
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, COUNT)
    return folder
