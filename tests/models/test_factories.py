"""The user's own code: loaded from files and packages, and every way in which it can fail."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
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
    ("def make(width):\n    pass", r"failed: TypeError: .*'width'\. Give them with arguments=\{'width': VALUE\}\.$"),
    ("def make():\n    raise SystemExit", r"failed: SystemExit\.$"),
    ("def make():\n    return 3", r"must return a torch\.nn\.Module, got int"),
    ("def make():\n    pass", r"must return a torch\.nn\.Module, got NoneType"),
    ("make = 3", r"'.*net\.py:make' must be a torch\.nn\.Module, or a function or class that makes one, got int\.$"),
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


WIDE = """
from torch import nn

def make(width, kernel=3):
    return nn.Conv2d(3, width, kernel)

class Wide(nn.Conv2d):
    def __init__(self, *, width=4):
        super().__init__(3, width, 3)

    @classmethod
    def small(cls, width=2):
        return cls(width=width)

ready = nn.Conv2d(3, 6, 3)
"""


@pytest.mark.parametrize(("name", "arguments", "shape"), [
    ("make", {"width": 5}, (5, 3, 3, 3)),
    ("make", {"width": 5, "kernel": 1}, (5, 3, 1, 1)),
    ("Wide", {"width": 7}, (7, 3, 3, 3)),
    ("Wide", None, (4, 3, 3, 3)),
    ("Wide.small", {"width": 3}, (3, 3, 3, 3)),
    ("ready", {}, (6, 3, 3, 3)),
])  # fmt: skip
def test_find_factory_arguments_reach_functions_and_classes(
    net: Path, name: str, arguments: dict[str, int] | None, shape: tuple[int, ...]
) -> None:
    net.write_text(WIDE)
    assert tuple(find_factory(str(net), name, arguments)().weight.shape) == shape


@pytest.mark.parametrize(("name", "arguments", "said"), [
    ("make", {"kernel": 1}, r"make\(kernel=1\)' failed: TypeError.* Give them with arguments=\{'width': VALUE\}\.$"),
    ("make", {"widht": 1}, r"make\(widht=1\)' failed: TypeError: make\(\) got an unexpected keyword argument 'widht'"),
    ("ready", {"width": 1}, r"arguments must not be given for '.*net\.py:ready', which is a ready Conv2d\.$"),
    ("Wide.large", {}, r"no factory 'Wide\.large' in"),
])  # fmt: skip
def test_find_factory_arguments_that_do_not_fit_are_one_line(
    net: Path, name: str, arguments: dict[str, int], said: str
) -> None:
    net.write_text(WIDE)
    with pytest.raises(ModelError, match=said) as caught:
        find_factory(str(net), name, arguments)()
    assert "\n" not in str(caught.value)


def test_find_factory_ready_module_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cnnviz_ready.py").write_text(WIDE)
    monkeypatch.chdir(tmp_path)
    module = find_factory("cnnviz_ready", "ready")()
    theirs = sys.modules["cnnviz_ready"].ready
    assert module is not theirs
    assert torch.equal(module.weight, theirs.weight)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a model file inside a package inside a package, which imports its neighbours by dots."""
    folder = tmp_path / "cnnviz_outer" / "nets"
    folder.mkdir(parents=True)
    for init in (folder.parent / "__init__.py", folder / "__init__.py"):
        init.write_text("")
    (folder.parent / "sizes.py").write_text("WIDTH = 5")
    (folder / "blocks.py").write_text("from torch import nn\nfrom ..sizes import WIDTH\nclass Block(nn.Conv2d): pass")
    (folder / "net.py").write_text(
        "from .blocks import Block\ndef make():\n    from ..sizes import WIDTH\n    return Block(3, WIDTH, 3)"
    )
    return folder / "net.py"


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """Forget the packages that a test has imported."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "cnnviz_outer"]:
        del sys.modules[name]


@pytest.mark.usefixtures("_forgotten")
def test_find_factory_file_in_a_package_imports_its_neighbours_by_dots(package: Path) -> None:
    before = list(sys.path)
    make = find_factory(str(package), "make")
    assert sys.path == before
    assert make().out_channels == 5
    package.write_text("from .blocks import Block\ndef make():\n    return Block(3, 9, 3)")
    assert find_factory(str(package), "make")().out_channels == 9


@pytest.mark.usefixtures("_forgotten")
def test_find_factory_package_of_a_name_that_is_taken_is_refused(package: Path, tmp_path: Path) -> None:
    find_factory(str(package), "make")
    other = tmp_path / "elsewhere" / "cnnviz_outer"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "net.py").write_text(WIDE)
    with pytest.raises(ModelError, match=r"belongs to a package 'cnnviz_outer', but Python has loaded another of that"):
        find_factory(str(other / "net.py"), "make")


def test_find_factory_file_with_dots_outside_a_package_names_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "net.py").write_text("from .blocks import Block")
    with pytest.raises(ModelError, match=r"no known parent package\. Name it nets\.net:FACTORY from the folder above"):
        find_factory(str(folder / "net.py"), "make")
