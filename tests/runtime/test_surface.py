"""The net around the public functions: whatever is thrown at them comes back as one line of this package's own."""

from __future__ import annotations

import inspect
import json
import pickle
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
from cnnviz_fast.errors import MOST_CHARACTERS, CallError, CnnvizError, OptionError, ShapeError, UnknownOptionError
from cnnviz_fast.options.declared import takes
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.runtime import surface
from cnnviz_fast.runtime.surface import public

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, about layouts of tensors; and about untrained weights

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
MAPS = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0))
PHOTO = np.zeros((8, 8, 3), np.uint8)
IMAGE = torch.zeros(1, 3, 8, 8)


def len_of(layer: str, activations: torch.Tensor) -> int:
    """Take what capture_stream hands over."""
    return len(activations)


def mean_of(output: torch.Tensor) -> torch.Tensor:
    """Return a score of each image."""
    return output.mean((1, 2, 3))


VALID: dict[str, dict[str, Any]] = {
    "attribute": {"model": NET, "batch": IMAGE, "layer": "0", "target": mean_of},
    "capture": {"model": NET, "batch": IMAGE, "layers": "0"},
    "capture_stream": {"model": NET, "batch": IMAGE, "layers": "0", "consumer": len_of},
    "compare": {"a": MAPS, "b": MAPS, "tile": 4},
    "invert": {"model": NET, "of": IMAGE, "layers": "0", "steps": 1},
    "layer_report": {"maps": MAPS},
    "list_layers": {"model": NET},
    "load_images": {"images": PHOTO},
    "load_model": {"spec": NET},
    "maximize": {"model": NET, "layer": "0", "channels": "0", "size": 8, "steps": 1},
    "parameter_statistics": {"model": NET},
    "patch_sheet": {"top": "none"},
    "read_atlas": {"path": "none.atlas"},
    "read_statistics": {"path": "none.safetensors"},
    "read_top": {"path": "none.safetensors"},
    "receptive_field": {"model": NET, "layer": "0", "input_size": 8},
    "render": {"maps": MAPS, "tile": 4},
    "render_batch": {"maps": MAPS[None], "tile": 4},
    "render_index": {"maps": MAPS, "tile": 4},
    "run": {"model": NET, "images": [IMAGE[0]], "layers": "0", "out": "run", "readers": 0, "tile": 4,
            "progress": "none"},
    "save_atlas": {"maps": MAPS, "path": "a.atlas"},
    "save_page": {"maps": MAPS, "path": "a.html"},
    "save_sheet": {"maps": MAPS, "path": "a.png", "tile": 4},
    "save_tiles": {"maps": MAPS, "folder": "tiles", "tile": 4},
    "view": {"maps": MAPS},
    "visualize": {"model": NET, "images": [IMAGE[0]], "layers": "0", "tile": 4},
}  # fmt: skip

DATA = {"maps", "a", "b", "batch", "images", "input", "inputs", "model", "spec", "layers", "provenances"}
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
        if name != "patch_sheet" and not name.startswith("read_"):  # there is no file
            assert thrown_by(name, arguments) is None, name


def throw(name: str, data: st.DataObject) -> None:
    """Put junk in the place of one or two arguments of a public function."""
    parameters = sorted(set(inspect.signature(getattr(cf, name)).parameters) - PROCESSES)
    chosen = data.draw(st.lists(st.sampled_from(parameters), min_size=1, max_size=2, unique=True))
    thrown = {each: data.draw(junk(without_end=each not in DATA)) for each in chosen}
    check_own(thrown_by(name, {**VALID[name], **thrown}), f"{name}({', '.join(thrown)})")


ANY_TIME = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=6, derandomize=True, **ANY_TIME)
@given(data=st.data())
def test_surface_turns_whatever_is_thrown_at_it_into_one_line_of_its_own(
    name: str, data: st.DataObject, folder: Path
) -> None:
    throw(name, data)


@pytest.mark.long
@pytest.mark.parametrize("name", VALID)
@settings(max_examples=300, **ANY_TIME)
@given(data=st.data())
def test_surface_turns_thousands_of_values_into_one_line_of_its_own(
    name: str, data: st.DataObject, folder: Path
) -> None:
    throw(name, data)


def test_public_function_keeps_its_signature_its_docstring_and_its_place(folder: Path) -> None:
    for name in VALID:
        function = getattr(cf, name)
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__doc__ == function.__wrapped__.__doc__
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)


@public
def parses(maps: object, *, layers: str = "") -> object:
    """Fail in the standard library, with what is handed in."""
    return json.loads(str(layers))


@pytest.fixture
def as_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this module count as a library, not as the caller's code."""
    monkeypatch.setattr(surface, "LIBRARIES", surface.LIBRARIES | {__name__.partition(".")[0]})


def test_public_foreign_error_is_chained_and_names_the_arguments(as_library: None) -> None:
    with pytest.raises(CallError) as caught:
        parses(MAPS, layers="[")
    said = "parses failed on (maps: Tensor, layers: str): JSONDecodeError: Expecting value"
    assert str(caught.value).startswith(said)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


class Own(Exception):
    """An error of the caller's own code."""


def fails(*_: object, **__: object) -> None:
    raise Own("mine")


class Model(nn.Module):
    """A model that fails."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise Own("mine")


class Dataset:
    """A data set that fails."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: int) -> object:
        raise Own("mine")


def endings() -> Iterator[tuple[str, torch.Tensor]]:
    yield "a", MAPS[None]
    raise Own("mine")


def test_surface_lets_errors_of_the_callers_own_code_pass(folder: Path) -> None:
    with pytest.raises(Own, match=r"^mine$"):
        cf.capture_stream(NET, IMAGE, "0", fails)
    with pytest.raises(Own, match=r"^mine$"):
        cf.run(NET, [IMAGE[0]], "0", "a", on_file=fails, readers=0, tile=4, progress="none")
    with pytest.raises(Own, match=r"^mine$"):
        list(cf.render_batch(endings(), tile=4))
    with pytest.raises(CnnvizError, match=r"the model failed on an input of shape \(1, 3, 8, 8\): Own: mine") as caught:
        cf.capture(nn.Sequential(Model()), IMAGE, "0")
    assert isinstance(caught.value.__cause__, Own)


UNCHANGED = [MemoryError("full"), torch.OutOfMemoryError("full"), UserWarning("said"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", UNCHANGED, ids=lambda error: type(error).__name__)
def test_surface_lets_a_full_memory_warnings_and_interrupts_pass(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, as_library: None
) -> None:
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cnnviz_fast.sheets.render.plan_sheet", raising)
    with pytest.raises(type(error)) as caught:
        cf.render(MAPS)
    assert caught.value is error


def test_surface_knows_the_libraries_that_the_package_uses() -> None:
    assert {"cnnviz_fast", "torch", "numpy", "PIL", "json"} <= surface.LIBRARIES
    assert not {"__main__", "tests", "pytest"} & surface.LIBRARIES


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cf.render(MAPS, cmap="gray"), "render has no option 'cmap'. Closest: 'colormap'."),
        (lambda: cf.render(MAPS, normalise="layer"), "render has no option 'normalise'. Closest: 'normalize'."),
        (lambda: cf.save_sheet(MAPS, "a.png", nrow=3), "save_sheet has no option 'nrow'. Closest: 'grid'."),
        (lambda: cf.capture(NET, IMAGE, layer="0"), "capture has no option 'layer'. Closest: 'layers'."),
        (lambda: cf.load_model("resnet18", wieghts=None), "load_model has no option 'wieghts'. Closest: 'weights'."),
        (lambda: cf.RenderOptions(cmap="gray"), "RenderOptions has no option 'cmap'. Closest: 'colormap'."),
        (lambda: cf.PreprocessOptions(sise=9), "PreprocessOptions has no option 'sise'. Closest: 'size'."),
        (lambda: cf.render(MAPS, qqqqq=1), "render has no option 'qqqqq'. See help(cnnviz_fast.render)."),
        (lambda: cf.run(NET, [], "0", "a", bacth=4), "run has no option 'bacth'. Closest: 'batch'."),
    ],
)
def test_misspelt_argument_names_the_right_one(call: Any, said: str) -> None:
    with pytest.raises(UnknownOptionError) as caught:
        call()
    assert str(caught.value) == said
    assert isinstance(caught.value, TypeError)  # which Python raises for other functions
    assert isinstance(caught.value, OptionError)


def test_wrong_call_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'maps'") as caught:
        cf.render()
    assert not isinstance(caught.value, CnnvizError)


def test_names_that_a_function_takes_without_showing_them_reach_it(folder: Path) -> None:
    with pytest.raises(OptionError, match=r"^readers and workers are one option, got both\."):
        cf.run(NET, [IMAGE[0]], "0", "a", workers=0, readers=0)
    with pytest.raises(OptionError, match=r"^topk belongs to single sheets"):
        cf.compare(MAPS, MAPS, topk=2)

    @public
    @takes(RenderOptions, without=["gap"])
    def draws(**options: object) -> RenderOptions:
        """Return the options."""
        return RenderOptions.of(options)

    assert draws(tile=4, gap=2).gap == 2


def test_generator_fails_with_an_error_of_this_package(folder: Path) -> None:
    drawn = cf.render_batch([("a", MAPS[None]), ("b", MAPS[0])], tile=4, plain=True)
    assert next(drawn).index.shape == (6, 8)
    with pytest.raises(ShapeError, match=r"^maps of b must have shape \(N, C, H, W\)"):
        list(drawn)
    freed = MAPS[None].clone()
    freed.untyped_storage().resize_(0)  # as sharded parameters are between passes
    with pytest.raises(CallError, match=r"^render_batch failed: RuntimeError: .* Compare with help"):
        list(cf.render_batch(freed, tile=4))
