"""The user's own code: loaded from files and packages, and every way in which it can fail."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.factories import find_factory

NET = """
from __future__ import annotations
import dataclasses
from torch import nn

@dataclasses.dataclass
class Config:
    width: int = 4

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, Config().width, 3)

def make():
    return Net()

"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A model file."""
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


@pytest.mark.parametrize("name", ["make", "Net"])
def test_find_factory_file_gives_function_or_class(net: Path, name: str) -> None:
    module = find_factory(str(net), name)()
    assert type(module).__name__ == "Net"
    assert module.conv.out_channels == 4


def test_find_factory_relative_path_is_found(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(net.parent)
    assert isinstance(find_factory("net.py", "make")(), nn.Module)
    assert isinstance(find_factory(os.path.join(".", "net.py"), "make")(), nn.Module)


def test_find_factory_objects_of_a_file_pickle(net: Path) -> None:
    module = find_factory(str(net), "make")()
    assert type(pickle.loads(pickle.dumps(module))) is type(module)


def test_find_factory_edited_file_is_read_again_and_leaves_no_bytecode(net: Path) -> None:
    first = find_factory(str(net), "make")()
    net.write_text(NET.replace("width: int = 4", "width: int = 5"))
    second = find_factory(str(net), "make")()
    assert (first.conv.out_channels, second.conv.out_channels) == (4, 5)
    assert type(first) is not type(second)
    assert [entry.name for entry in net.parent.iterdir()] == ["net.py"]


def test_find_factory_file_imports_its_neighbours_at_any_time(net: Path) -> None:
    (net.parent / "cnnviz_neighbour.py").write_text("WIDTH = 6")
    (net.parent / "cnnviz_later.py").write_text("KERNEL = 5")
    net.write_text(
        "from torch import nn\nfrom cnnviz_neighbour import WIDTH\n"
        "def make():\n    from cnnviz_later import KERNEL\n    return nn.Conv2d(1, WIDTH, KERNEL)\n"
    )
    before = list(sys.path)
    module = find_factory(str(net), "make")()
    assert tuple(module.weight.shape) == (6, 1, 5, 5)
    assert sys.path == before


def test_find_factory_package_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "cnnviz_test_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(find_factory("cnnviz_test_package.nets", "make")(), nn.Module)
    assert sys.path == before


def test_find_factory_module_written_a_moment_ago_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        find_factory("cnnviz_written", "make")
    before = tmp_path.stat()
    (tmp_path / "cnnviz_written.py").write_text(NET)
    os.utime(
        tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # a clock too coarse to show that the folder changed
    assert isinstance(find_factory("cnnviz_written", "make")(), nn.Module)


def test_find_factory_installed_package_is_found() -> None:
    module = find_factory("torchvision.models", "squeezenet1_1")()
    assert type(module).__name__ == "SqueezeNet"


def test_find_factory_missing_name_names_the_nearest(net: Path) -> None:
    with pytest.raises(ModelError, match=r"no factory 'mkae' in '.*net\.py'\. Closest: 'make'\."):
        find_factory(str(net), "mkae")


def test_find_factory_missing_file_or_module_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file '.*absent\.py'"):
        find_factory(str(tmp_path / "absent.py"), "make")
    for source in ("cnnviz_absent", "cnnviz_absent.nets", "torchvision.absent"):
        with pytest.raises(ModelError, match=rf"no model source or Python module '{source}'\. A model is NAME,"):
            find_factory(source, "make")
    for source in ("", ".relative", "not a name"):
        with pytest.raises(ModelError):
            find_factory(source, "make")


@pytest.mark.parametrize(("code", "said"), [
    ("import cnnviz_absent", r"ModuleNotFoundError: No module named 'cnnviz_absent'"),
    ("def make(:", r"SyntaxError: "),
    ("1 / 0", r"ZeroDivisionError: division by zero"),
    ("import sys; sys.exit(2)", r"SystemExit: 2"),
    ("raise ValueError('one line\\nanother')", r"ValueError: one line\.$"),
    ("raise KeyError", r"failed: KeyError\.$"),
])  # fmt: skip
def test_find_factory_file_that_fails_is_one_line_with_its_cause(net: Path, code: str, said: str) -> None:
    net.write_text(code)
    before = set(sys.modules)
    with pytest.raises(ModelError, match=said) as caught:
        find_factory(str(net), "make")
    assert str(net) in str(caught.value)
    assert caught.value.__cause__ is not None
    assert not {name for name in set(sys.modules) - before if name.startswith("cnnviz_model")}


def test_find_factory_package_that_fails_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cnnviz_broken.py").write_text("import cnnviz_absent")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"module 'cnnviz_broken' cannot be imported: ModuleNotFoundError") as caught:
        find_factory("cnnviz_broken", "make")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(("code", "said"), [
    ("def make():\n    raise KeyError('width')", r"factory '.*net\.py:make' failed: KeyError: 'width'\.$"),
    ("def make(width):\n    pass", r"failed: TypeError: make\(\) missing 1 required positional argument: 'width'"),
    ("def make():\n    raise SystemExit", r"failed: SystemExit\.$"),
    ("def make():\n    return 3", r"must return a torch\.nn\.Module, got int"),
    ("def make():\n    pass", r"must return a torch\.nn\.Module, got NoneType"),
    ("make = 3", r"must be a function or class that makes the model, got a ready-made int"),
    ("from torch import nn\nmake = nn.ReLU()", r"got a ready-made ReLU"),
])  # fmt: skip
def test_find_factory_factory_that_fails_is_one_line(net: Path, code: str, said: str) -> None:
    net.write_text(code)
    with pytest.raises(ModelError, match=said) as caught:
        find_factory(str(net), "make")()
    assert "\n" not in str(caught.value)


def test_find_factory_interrupt_is_not_swallowed(net: Path) -> None:
    net.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        find_factory(str(net), "make")


def test_find_factory_every_call_makes_another_module(net: Path) -> None:
    make = find_factory(str(net), "make")
    first, second = make(), make()
    assert first is not second
    assert not torch.equal(first.conv.weight, second.conv.weight)
