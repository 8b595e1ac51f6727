"""Ray's quirks: prevented in the versions that were checked, left alone in all others."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cnnviz_fast.runs.ray.quirks import LOG_LEVEL, is_known, messages_on_stderr, quiet_start

CHECKED, LATER = SimpleNamespace(__version__="2.60.1"), SimpleNamespace(__version__="2.61.0")


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a stand-in for ray._private.worker, which keeps what is printed in `printed`."""
    worker: Any = ModuleType("worker")
    worker.printed = []
    worker.print_to_stdstream = lambda message, **how: worker.printed.append((message, how))
    package: Any = ModuleType("ray._private")
    package.worker = worker
    monkeypatch.setitem(sys.modules, "ray._private", package)
    monkeypatch.setitem(sys.modules, "ray._private.worker", worker)
    return worker


def test_installed_ray_is_one_that_was_checked() -> None:
    import ray

    assert is_known(ray), "check quirks.py with this version of Ray, and move KNOWN"


@pytest.mark.parametrize("version", ["2.59.9", "2.61.0", "3.0.0.dev0", "nightly"])
def test_other_versions_are_not(version: str) -> None:
    assert not is_known(SimpleNamespace(__version__=version))


def test_messages_go_to_stderr_without_those_about_ended_actors(private: Any) -> None:
    before = private.print_to_stdstream
    with messages_on_stderr(CHECKED):
        lines = ["a machine died", "The actor is dead because it was killed by `ray.kill`."]
        private.print_to_stdstream({"lines": lines, "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert private.printed == [
        ({"lines": ["a machine died"], "pid": "raylet", "is_err": True}, {"ignore_prefix": False})
    ]
    assert private.print_to_stdstream is before


def test_messages_of_other_versions_are_left_alone(private: Any) -> None:
    before = private.print_to_stdstream
    with messages_on_stderr(LATER):
        assert private.print_to_stdstream is before


def test_start_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOG_LEVEL, raising=False)
    with quiet_start(CHECKED):
        os.write(2, b"of the C++")
        assert os.environ[LOG_LEVEL] == "fatal"
    os.write(2, b"of the program")
    assert LOG_LEVEL not in os.environ
    assert capfd.readouterr().err == "of the program"


@pytest.mark.parametrize(("version", "level"), [(LATER, None), (CHECKED, "info")])
def test_start_is_left_alone_in_other_versions_and_on_wish(
    version: Any, level: str | None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LOG_LEVEL, raising=False)
    if level is not None:
        monkeypatch.setenv(LOG_LEVEL, level)
    with quiet_start(version):
        os.write(2, b"of the C++")
        assert os.environ.get(LOG_LEVEL) == level
    assert capfd.readouterr().err == "of the C++"
