"""The net around the public functions: whatever is thrown at them comes back as one line of this package's own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.junk import junk
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import MOST_CHARACTERS, CnnvizError

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, about layouts of tensors; and about untrained weights

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
MAPS = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
PHOTO = np.zeros((8, 8, 3), np.uint8)
IMAGE = torch.zeros(1, 3, 8, 8)

VALID: dict[str, dict[str, Any]] = {
    "capture": {"model": NET, "batch": IMAGE, "layers": "0"},
    "capture_stream": {"model": NET, "batch": IMAGE, "layers": "0", "consumer": print},
    "compare": {"a": MAPS, "b": MAPS, "tile": 4},
    "layer_report": {"maps": MAPS},
    "list_layers": {"model": NET},
    "load_images": {"source": PHOTO},
    "load_model": {"spec": NET},
    "parameter_statistics": {"model": NET},
    "read_atlas": {"path": "none.atlas"},
    "read_statistics": {"path": "none.safetensors"},
    "render": {"maps": MAPS, "tile": 4},
    "render_batch": {"maps": MAPS[None], "tile": 4},
    "render_index": {"maps": MAPS, "tile": 4},
    "run": {"model": NET, "images": [IMAGE[0]], "layers": "0", "out": "run", "readers": 0, "tile": 4,
            "progress": "none"},
    "save_atlas": {"maps": MAPS, "path": "a.atlas"},
    "save_sheet": {"maps": MAPS, "path": "a.png", "tile": 4},
    "save_tiles": {"maps": MAPS, "folder": "tiles", "tile": 4},
    "visualize": {"model": NET, "images": [IMAGE[0]], "layers": "0", "tile": 4},
}  # fmt: skip

DATA = {"maps", "a", "b", "batch", "images", "source", "input", "inputs", "model", "spec", "layers", "provenances"}
"""Arguments that are read to their end."""

PROCESSES = {"readers", "engine", "address"}
"""Arguments that start processes: tests of the runs try what they take."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder: names that a strategy makes are files in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def thrown_by(name: str, arguments: dict[str, Any]) -> Exception | None:
    """Call a public function, and read to its end what it returns; return its error."""
    try:
        made = getattr(cf, name)(**arguments)
        for _ in made if isinstance(made, Iterator) else ():
            pass
    except Exception as error:
        return error
    return None


def check_own(error: Exception | None, what: str) -> None:
    """Check that an error, if there is one, is of this package, and one line that a terminal can show."""
    if error is not None:
        assert isinstance(error, CnnvizError), f"{what}: {type(error).__name__}: {error}"
        assert 0 < len(str(error)) <= MOST_CHARACTERS, what
        assert str(error).isprintable(), what


def test_surface_has_a_valid_call_of_every_public_function(folder: Path) -> None:
    functions = {name for name in cf.__all__ if inspect.isfunction(getattr(cf, name))}
    assert set(VALID) == functions
    for name, arguments in VALID.items():
        if not name.startswith("read_"):
            assert thrown_by(name, arguments) is None, name


def throw(name: str, data: st.DataObject, number: int) -> None:
    """Put junk in the place of a few arguments of a public function."""
    parameters = sorted(set(inspect.signature(getattr(cf, name)).parameters) - PROCESSES)
    chosen = data.draw(st.lists(st.sampled_from(parameters), min_size=1, max_size=number, unique=True))
    thrown = {each: data.draw(junk(without_end=each not in DATA)) for each in chosen}
    check_own(thrown_by(name, {**VALID[name], **thrown}), f"{name}({', '.join(thrown)})")


NO_LIMIT = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=12, derandomize=True, **NO_LIMIT)
@given(data=st.data())
def test_surface_turns_whatever_is_thrown_at_it_into_one_line_of_its_own(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    os.chdir(tmp_path_factory.getbasetemp())
    throw(name, data, 2)
