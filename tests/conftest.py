"""Switches and fixtures that all tests share."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, is_hypothesis_test, settings

if TYPE_CHECKING:
    import torch

# For `benchmarks`, which some tests import. Behind everything else: the package under test is the installed one, with
# its compiled parts.
sys.path.append(str(Path(__file__).parents[1]))

# Set before anything imports torch: more threads than cores make small operations slower, not faster. Test processes
# that run side by side have a core each, whatever they inherit from the one that started them.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["LANGUAGE"] = "C"  # or argparse looks for translations of itself in 200 files for each command

pytest.register_assert_rewrite("support.assertions")

# No deadline: the reference is slow on purpose. In CI every run has the same examples: a red run can be repeated.
_CI = bool(os.environ.get("CI"))
settings.register_profile(
    "cnnviz_fast",
    settings.get_profile("default"),
    max_examples=30,
    deadline=None,
    derandomize=_CI,
    database=None if _CI else settings.get_profile("default").database,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("cnnviz_fast"), max_examples=150)
settings.load_profile("cnnviz_fast")


def pytest_configure(config: pytest.Config) -> None:
    """With `-m long`, draw as many random examples as take minutes."""
    if _asks_for_long(config):
        settings.load_profile("long")


def _asks_for_long(config: pytest.Config) -> bool:
    return config.getoption("markexpr").split() == ["long"]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect no garbage meanwhile: next to everything that is imported stays, and looking through it takes seconds.

    The second of two processes imports all tests from the last to the first: in a new checkout each process then
    rewrites the assertions of one half, and finds those of the other half on disk.
    """
    gc.disable()
    whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        for path in sorted(Path(__file__).parent.rglob("test_*.py"), reverse=True):
            with contextlib.suppress(pytest.Collector.CollectError, pytest.skip.Exception):  # collecting it tells why
                _ = pytest.Module.from_parent(session, path=path).obj
    yield
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out files, and to one process all files whose tests begin forks of a process that is made once."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "forks" if _forks(config.rootpath / file) else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@functools.cache
def _forks(path: Path) -> bool:
    text = path.read_text()
    return "support.processes" in text or "_not_forked" in text


LONGEST = ("test_public_surface.py", "test_triton.py")
"""Files with a test of half a minute: mypy reads all of torch, Triton's interpreter draws."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the zoo, clusters and what is long unless `-m` names them; skip what needs a CUDA device elsewhere.

    Tests of random examples are among the long ones too, with more of them. Files that take longest begin first: near
    the end one process would wait for the other.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items if _asks_for_long(config) else []:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("long")
    left_out = {"zoo", "cluster", "long"} - set(config.getoption("markexpr").split())
    marks = {item: {mark.name for mark in item.iter_markers()} for item in items}
    config.hook.pytest_deselected(items=[item for item in items if marks[item] & left_out])
    items[:] = [item for item in items if not marks[item] & left_out]
    gpu = [item for item in items if "gpu" in marks[item]]
    if gpu:
        import torch

        for item in gpu:
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"))


LOGGING = pytest.StashKey[Any]()
"""The plugin that collects log records."""

QUICK_S = 0.005
"""Seconds below which `--durations` names no phase of a test."""


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test as pytest does, and report of its setup and teardown only what anybody asks for.

    Between two processes a report takes half a millisecond, and each of 10,000 tests has three.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    with _records_of_logs(item):
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        if report.when == "call" or not report.passed or report.duration >= QUICK_S:
            item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@contextlib.contextmanager
def _records_of_logs(item: pytest.Item) -> Iterator[None]:
    """Make pytest collect log records for a test that asks for them.

    For each test it would add handlers to all of torch's loggers, six times, for 3 ms.
    """
    manager, plugin = item.config.pluginmanager, item.config.stash[LOGGING]
    if "caplog" not in getattr(item, "fixturenames", ()):
        yield
        return
    manager.register(plugin, "logging-plugin")
    yield
    manager.unregister(plugin)


DEAR_S = 4.0
"""CPU seconds beyond which a test is named at the end: share what it loads, make it smaller, or mark it `long`."""


def pytest_runtest_setup() -> None:
    """Begin each test at the same random numbers, whichever ran before it: a red run can be repeated.

    The generator of the CPU alone, from which weights of new models come: `torch.manual_seed` looks for devices.
    """
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note how long a dear test keeps a core busy, in this process and in those that it waits for."""
    begin = sum(os.times()[:4])
    yield
    if (spent := sum(os.times()[:4]) - begin) > DEAR_S and not item.get_closest_marker("long"):
        item.user_properties.append(("cpu_s", spent))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the dear tests."""
    for report in terminalreporter.getreports("passed"):
        for _, spent in (each for each in report.user_properties if each[0] == "cpu_s" and report.when == "call"):
            terminalreporter.write_line(f"DEAR [{spent:.1f} CPU s] {report.nodeid}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Set aside what is there before the first test: a collection of garbage, of which many tests ask for one, then
    looks only at what tests made, in milliseconds, not at all libraries and all 10,000 tests in nearly a second."""
    gc.collect()
    gc.freeze()
    session.config.stash[LOGGING] = session.config.pluginmanager.unregister(name="logging-plugin")


@pytest.fixture
def quick_collections() -> None:
    """Set aside what earlier tests and their imports left, which has become as much again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _outside_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make processes that tests start find the package under test, not the checkout in their working folder."""
    import cnnviz_fast

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        patch.setenv("PYTHONPATH", str(Path(cnnviz_fast.__file__).parents[1]))
        yield


@pytest.fixture(scope="session", autouse=True)
def _files_of_tests_are_trusted() -> Iterator[None]:
    """With a torch that asks for trust in files of its own format, take it as given for those that tests make."""
    import torch

    from cnnviz_fast.models import torch_floor

    version = torch.__version__.split(".")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_floor, "SAFE", min(torch_floor.SAFE, (int(version[0]), int(version[1]))))
        yield


@pytest.fixture(scope="session")
def photo() -> Path:
    """Return the path of a real photo, 640 x 427 px, that comes with scikit-learn."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "images" / "china.jpg"


@pytest.fixture
def maps() -> torch.Tensor:
    """Return maps: (6, 5, 7) float32, finite, values of both signs, each channel on a range of its own."""
    import torch

    ramp = torch.arange(1.0, 7.0)[:, None, None]
    return torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(0)) * ramp
