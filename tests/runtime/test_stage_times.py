"""Stages: seconds go to the innermost watcher, each stage without those within it, of all threads together."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from cnnviz_fast.runtime import stage_times
from cnnviz_fast.runtime.stage_times import Stages, stage, watched


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock of one number, which a test moves on."""
    seconds = [0.0]
    monkeypatch.setattr(stage_times, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    return seconds


def test_stage_without_a_watcher_counts_nothing(clock: list[float]) -> None:
    stages = Stages()
    with stage("read"):
        clock[0] += 1
    assert stages.seconds() == {}
    with watched(stages):
        pass
    with stage("read"):
        clock[0] += 1
    assert stages.seconds() == {}


def test_stage_is_without_the_stages_within_it(clock: list[float]) -> None:
    stages = Stages()
    with watched(stages):
        for _ in range(2):
            with stage("run"):
                clock[0] += 1
                with stage("draw"):
                    clock[0] += 2
                    with stage("write"):
                        clock[0] += 4
                with stage("write"):
                    clock[0] += 8
                clock[0] += 16
        with stage("draw"):
            clock[0] += 32
    assert stages.seconds() == {"run": 2 * 17.0, "draw": 2 * 2.0 + 32.0, "write": 2 * 12.0}


def test_stage_that_fails_counts_too_and_the_error_goes_on(clock: list[float]) -> None:
    stages = Stages()

    def tear() -> None:
        with stage("run"), stage("read"):
            clock[0] += 1
            raise ValueError("torn")

    with watched(stages), pytest.raises(ValueError, match="torn"):
        tear()
    assert stages.seconds() == {"run": 0.0, "read": 1.0}


def test_watched_innermost_watcher_gets_the_seconds_and_the_outer_one_is_back(clock: list[float]) -> None:
    outer, inner = Stages(), Stages()
    with watched(outer):
        with watched(inner), stage("read"):
            clock[0] += 1
        with stage("read"):
            clock[0] += 2
    assert (outer.seconds(), inner.seconds()) == ({"read": 2.0}, {"read": 1.0})


def test_stages_of_threads_are_added_and_never_within_one_another(clock: list[float]) -> None:
    stages = Stages()
    both_inside = threading.Barrier(2, action=lambda: clock.__setitem__(0, clock[0] + 1))

    def work() -> None:
        with stage("draw"):
            both_inside.wait()

    with watched(stages):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stages.seconds() == {"draw": 2.0}
