"""Plants faults that `support/rules.py` and the tests of the code base must find, and what they must let pass."""

from __future__ import annotations

import pytest
from support import rules, rules_of_tests, rules_of_words
from support.looping import over
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
        'importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))',
        'importlib.import_module(f"PIL.{stem}ImagePlugin")',
        'version("cnnviz_fast")',
        '"""What cnnviz_fast.runs.api draws."""',
    ],
)
def test_imports_of_what_stands_below_pass(planted: str) -> None:
    assert not faults(planted)


def test_prints_are_found() -> None:
    assert rules.prints_of("def f():\n    print(1)")
    assert not rules.prints_of("stream.print(1)\npprint(1)")


@pytest.mark.parametrize(
    "planted",
    [
        "assert np.abs(ours - theirs).max() < 1e-5",
        "assert (ours - theirs).abs().max() <= 1",
        "assert abs(ours - theirs).mean() < 8",
        "assert not np.abs(ours - theirs).max() > limit",
        "assert (np.abs(ours.astype(int) - theirs) <= 1).all()",
        "assert (np.abs(ours - theirs).max(axis=-1) > 4).mean() < 0.001",
        "assert abs(width / height - 0.8) < 0.01",
        "assert -0.01 < width / height - 0.8 < 0.01",
        "assert np.linalg.norm(ours - theirs) < 0.1",
        "assert np.subtract(ours, theirs).max() < 1",
        "assert torch.dist(ours, theirs) < 1",
        "assert np.ptp(middle) < 5",
        "assert 0.4 < (maps == 0).mean() < 0.6",
        "assert errors.max() < 2.5e-3",
        "assert max(errors) < 2.0**-7",
        "difference = np.abs(ours - theirs)\nassert difference.max() <= 1",
        "difference = abs(ours - theirs)\nworst = float(difference.max())\nassert worst <= 1",
        "def differ(a, b):\n    return float(np.abs(a - b).max())\nassert differ(ours, theirs) < 1e-5",
        "assert round(value, 3) == 0.125",
        "assert value == pytest.approx(0.125)",
        "from pytest import approx as near",
        "assert np.allclose(ours, theirs)",
        "assert math.isclose(a, b)",
        "np.testing.assert_allclose(ours, theirs)",
        "np.testing.assert_array_almost_equal(ours, theirs)",
        "torch.testing.assert_close(ours, theirs)",
        "from torch.testing import assert_close\nassert_close(ours, theirs)",
        "compare(ours, theirs, atol=1)",
        "assert_close(ours, theirs, Tolerance(0.1))",
        "assert value == close_to(1, assertions.Tolerance(0.1))",
    ],
)
def test_tolerances_without_a_name_are_found(planted: str) -> None:
    assert rules_of_tests.tolerances_of(f"def test_it() -> None:\n{indented(planted)}")


@pytest.mark.parametrize(
    "planted",
    [
        "from support.assertions import assert_close\nassert_close(ours, theirs, A_LEVEL)",
        "assert value == close_to(1, FLOAT32)",
        "assert np.abs(ours - theirs).max() > 0",
        "assert (np.diff(edges) > 0).all()",
        "assert np.abs(np.diff(outer)).mean() > 3 * np.abs(np.diff(inner)).mean()",
        "assert time.monotonic() - started < QUICK_S",
        "assert stop - start <= 3",
        "assert sheet.index.max() <= 253",
        "assert len(paths) - 1 == 4",
        "assert max(sizes) < 1 << 20",
        "assert vmin >= -0.5",
        "nearest = np.round(values * 255)",
    ],
)
def test_bounds_that_are_no_tolerances_pass(planted: str) -> None:
    assert not rules_of_tests.tolerances_of(f"def test_it() -> None:\n{indented(planted)}")


@pytest.mark.parametrize(
    "planted",
    [
        "time.sleep(0.3)",
        "time.sleep(seconds)",
        "from time import sleep",
        "from time import sleep as rest",
        "asyncio.run(asyncio.sleep(1))",
        "while not done:\n    time.sleep(0.001)",
        "slow = lambda: time.sleep(0.35)",
        "release.wait(0.2)",
        "thread.join(timeout=0.5)",
        'SCRIPT = """\nimport time\ntime.sleep(60)\n"""',
        'SCRIPT = """\nwhile True:\n    time.sleep(0.1)\n"""',
        'subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"])',
    ],
)
def test_waits_for_a_fixed_time_are_found(planted: str) -> None:
    assert rules_of_tests.fixed_waits_of(f"def test_it() -> None:\n{indented(planted)}")


@pytest.mark.parametrize(
    "planted",
    [
        "wait_until(lambda: made == [0])",
        "assert done.wait(PATIENCE_S)",
        "together.wait(10)",
        'os.path.join("a", "0.5")',
        "torch.cuda._sleep(50_000_000)",
        'SCRIPT = """\nimport signal\nsignal.pause()\n"""',
        'SCRIPT = """\nwhile os.getppid() == parent:\n    time.sleep(0.01)\n"""',
        '"""Nothing waits, or may sleep(1) in what is no program."""',
    ],
)
def test_waits_for_what_is_to_happen_pass(planted: str) -> None:
    assert not rules_of_tests.fixed_waits_of(f"def test_it() -> None:\n{indented(planted)}")


def test_docstrings_that_begin_with_a_vague_verb_are_found() -> None:
    for planted in (
        'def f():\n    """Give a model."""',
        'class C:\n    def f(self):\n        """\n        Let it be."""',
    ):
        assert rules_of_words.vague_docstrings_of(planted)
    for passes in ('def f():\n    """Return a model."""', 'def f():\n    """Given that."""', "def f(): ..."):
        assert not rules_of_words.vague_docstrings_of(passes)


def test_pictures_are_found_and_names_of_the_package_pass() -> None:
    for planted in ("# a picture", "pictures = 3", "def test_two_pictures() -> None:", "write_picture(picture)"):
        assert rules_of_words.old_words_in(planted)
    for passes in ("write_picture(plan, path)", "from cnnviz_fast.formats import picture as formats", "image = 3"):
        assert not rules_of_words.old_words_in(passes)


def test_over_names_the_case_that_fails() -> None:
    tried = []

    @over(("of", "by"), [(6, 3), (1, 0), (4, 2)])
    def whole(of: int, by: int) -> None:
        tried.append(of // by)

    with pytest.raises(AssertionError, match=r"^1, 0: .*by zero"):
        whole()
    assert tried == [2]


def indented(planted: str) -> str:
    """Return lines as the body of a function."""
    return "".join(f"    {line}\n" for line in planted.splitlines())
