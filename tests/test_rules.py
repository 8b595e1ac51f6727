"""Plants faults that `support/rules.py` and the tests of the code base must find, and what they must let pass."""

from __future__ import annotations

import pytest
from support import rules
from support.rules import PACKAGE, faults_of_imports

RANGES = PACKAGE / "channels" / "ranges.py"


def faults(planted: str) -> list[str]:
    """Return what the rules say of `channels/ranges.py` with a line at its end."""
    source = f"{RANGES.read_text()}\n{planted}\n"
    imported = rules.imports_of(source, "cnnviz_fast.channels.ranges")
    own = {name.removeprefix("cnnviz_fast.") for name in imported if name.startswith("cnnviz_fast.")}
    return [
        *faults_of_imports("channels.ranges", own),
        *rules.imports_by_name_of(source),
    ]


@pytest.mark.parametrize(
    "planted",
    [
        "from cnnviz_fast import render",
        "from cnnviz_fast import errors, render",
        "from cnnviz_fast import *",
        "from .. import save_sheet",
        "from .. import errors, save_sheet",
        "from .. import runs",
        "from ..sheets.render import render",
        "from ..models import layers",
        "import cnnviz_fast",
        "import cnnviz_fast as cf",
        "import cnnviz_fast.errors",
        "import cnnviz_fast.sheets.render as drawing",
        "import numpy, cnnviz_fast",
        "def late():\n    from cnnviz_fast import render",
        "if TYPE_CHECKING:\n    from .. import Sheet",
        "try:\n    from cnnviz_fast import render\nexcept ImportError:\n    pass",
        'importlib.import_module("cnnviz_fast.sheets.render")',
        'importlib.import_module("cnnviz_fast")',
        'import_module(name="cnnviz_fast.errors")',
        'importlib.import_module("..sheets.render", __package__)',
        "importlib.import_module(name, __package__)",
        'importlib.import_module(f"cnnviz_fast.{name}")',
        'importlib.import_module("cnnviz_fast." + name)',
        '__import__("cnnviz_fast.runs.api")',
        '__import__("cnnviz_fast")',
        'pkgutil.resolve_name("cnnviz_fast.runs.api:run")',
        'sys.modules["cnnviz_fast.runs.api"]',
        'home = "cnnviz_fast.runs.api"\nimportlib.import_module(home)',
    ],
)
def test_imports_of_what_stands_above_are_found(planted: str) -> None:
    assert not faults("")
    assert faults(planted)


@pytest.mark.parametrize(
    "planted",
    [
        "from .. import errors",
        "from ..errors import ShapeError",
        "from . import values",
        "from cnnviz_fast.kernels import Paint, backends",
        "import cnnviz_fast.errors as errors",
        "import numpy.linalg",
        'importlib.import_module("torchvision.models")',
        "importlib.import_module(name)",
        'version("cnnviz_fast")',
        '"""What cnnviz_fast.runs.api draws."""',
    ],
)
def test_imports_of_what_stands_below_pass(planted: str) -> None:
    assert not faults(planted)
