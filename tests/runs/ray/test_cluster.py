"""The cluster: how it is shared out among actors, and how a program connects to it and leaves it."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from cnnviz_fast.errors import OptionError
from cnnviz_fast.runs.ray.cluster import ActorPool, connected, pool_of


@pytest.mark.parametrize(
    ("nodes", "readers", "pool"),
    [
        ([{"CPU": 2.0}], None, ActorPool(1, 2, False)),
        ([{"CPU": 2.0}], 2, ActorPool(2, 1, False)),
        ([{"CPU": 1.0}], None, ActorPool(1, 1, False)),
        ([{}, {"CPU": 4.0}, {"CPU": 4.0}], None, ActorPool(4, 2, False)),
        ([{"CPU": 4.0}, {"CPU": 4.0}], 3, ActorPool(3, 2, False)),  # three CPUs would not go twice into four
        ([{"CPU": 64.0}], None, ActorPool(8, 8, False)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}], None, ActorPool(2, 8, True)),
        ([{"CPU": 16.0, "GPU": 8.0}] * 2, 4, ActorPool(4, 8, True)),
    ],
)
def test_pool_of_shares_the_cluster_out(nodes: list[dict[str, float]], readers: int | None, pool: ActorPool) -> None:
    assert pool_of(nodes, readers) == pool


@pytest.mark.parametrize(
    ("nodes", "readers", "message"),
    [
        ([{"CPU": 2.0}], 3, r"^readers must be from 1 to the CPUs of the Ray cluster, which are 2, got 3\.$"),
        ([{"CPU": 2.0}], 0, r"got 0\.$"),
        ([{"CPU": 2.0, "GPU": 1.0}], 2, r"from 1 to the GPUs, with a CPU each, of the Ray cluster, which are 1, got 2"),
        ([{}], None, r"which are 0, got 1\.$"),
    ],
)
def test_pool_of_more_than_there_is_is_refused(
    nodes: list[dict[str, float]], readers: int | None, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        pool_of(nodes, readers)


def test_signals_are_left_to_the_program() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ours = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **_: signal.signal(signal.SIGTERM, lambda *_: None),
        shutdown=lambda: None,
    )
    with connected(ours, "local"):
        assert signal.getsignal(signal.SIGTERM) == before


def test_a_start_that_is_interrupted_is_taken_back() -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    ended = []
    ours = SimpleNamespace(is_initialized=lambda: False, init=interrupted, shutdown=lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt), connected(ours, "local"):
        pass
    assert ended == [True]
