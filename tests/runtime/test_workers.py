"""The pool of workers: order, bounded look-ahead, and that nothing is left behind on any way out."""

from __future__ import annotations

import gc
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from support.waiting import PATIENCE_S, wait_until, watch_waiting

from cnnviz_fast.runtime import workers as pool
from cnnviz_fast.runtime.workers import default_threads, in_order


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("cnnviz-")]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert workers() == []


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return an event that is set once the workers of a call are told to stop."""
    event = threading.Event()

    class Watched(pool._Run):
        def stop(self, error: BaseException | None = None) -> None:
            super().stop(error)
            event.set()

    monkeypatch.setattr(pool, "_Run", Watched)
    return event


def every_fourth_late(count: int, threads: int) -> Callable[[int], int]:
    """Return work of which every fourth item ends behind the one that follows it, where that is worked on at once."""
    done = [threading.Event() for _ in range(count)]

    def work(item: int) -> int:
        if item % 4 == 0 and item + 1 < count and threads > 1:
            assert done[item + 1].wait(PATIENCE_S)
        done[item].set()
        return item * item

    return work


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 23])
def test_in_order_any_number_of_threads_keeps_the_order(count: int, threads: int) -> None:
    assert list(in_order(every_fourth_late(count, threads), range(count), threads)) == [
        item * item for item in range(count)
    ]


def test_in_order_one_thread_works_in_the_caller() -> None:
    assert set(in_order(lambda _: threading.current_thread(), range(5), 1)) == {threading.current_thread()}


def test_in_order_several_threads_work_at_once() -> None:
    together = threading.Barrier(3)
    assert list(in_order(lambda item: together.wait(PATIENCE_S) >= 0, range(3), 3)) == [True] * 3


def test_in_order_slow_consumer_bounds_the_look_ahead() -> None:
    started: list[int] = []
    taken = 0
    leads: list[int] = []

    def work(item: int) -> int:
        leads.append(item + 1 - taken)
        started.append(item)
        return item

    results = in_order(work, range(100), 3)
    for taken in range(1, 20):  # work looks at it
        next(results)
        wait_until(lambda: len(started) >= taken + 2 * 3)  # noqa: B023
    results.close()
    assert len(started) == 19 + 2 * 3
    assert max(leads) == 2 * 3


def fail_at(position: int) -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == position:
            raise ValueError(f"item {item}")
        return item

    return work


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("position", [0, 7, 19])
def test_in_order_exception_in_a_worker_is_raised_here(position: int, threads: int) -> None:
    taken: list[int] = []
    with pytest.raises(ValueError, match=rf"^item {position}$"):
        taken.extend(in_order(fail_at(position), range(20), threads))
    assert taken == list(range(len(taken)))
    assert len(taken) <= position
    assert workers() == []


def test_in_order_exception_in_a_worker_stops_the_others(stopped: threading.Event) -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        if item == 1:
            raise ValueError("item 1")
        assert stopped.wait(PATIENCE_S)

    with pytest.raises(ValueError, match="item 1"):
        list(in_order(work, range(1000), 2))
    assert sorted(started) == [0, 1]


def test_in_order_exit_in_a_worker_is_raised_here() -> None:
    def work(item: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(10), 2))


@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("threads", [1, 3])
def test_in_order_abandoned_iterator_ends_its_workers(threads: int) -> None:
    started = []
    results = in_order(lambda item: started.append(item), range(1000), threads)
    next(results)
    del results
    gc.collect()
    assert workers() == []
    assert len(started) <= 1 + 2 * threads


def test_in_order_never_started_iterator_starts_nothing() -> None:
    results = in_order(fail_at(0), range(10), 2)
    assert workers() == []
    results.close()


@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_in_order_error_in_the_consumer_ends_its_workers(error: type[BaseException]) -> None:
    def consume() -> None:
        for result in in_order(lambda item: item, range(1000), 3):
            if result == 5:
                raise error

    with pytest.raises(error):
        consume()
    gc.collect()
    assert workers() == []


def test_in_order_interrupt_while_waiting_ends_its_workers(
    stopped: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = watch_waiting(monkeypatch, pool)
    started = []

    def work(item: int) -> None:
        # Ctrl-C comes while the consumer waits for this; the workers then finish what they hold.
        started.append(item)
        if item == 0:
            assert waiting.acquire(timeout=PATIENCE_S)
            for _ in range(PATIENCE_S):  # Python does not notice one that comes just before a thread begins to wait
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                if stopped.wait(1):
                    break
        assert stopped.wait(PATIENCE_S)

    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(1000), 2))
    assert workers() == []
    assert sorted(started) == [0, 1]


def test_default_threads_counts_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_allowed_cores", lambda: math.inf)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert default_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert default_threads() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1


@pytest.mark.parametrize(("allowed", "threads"), [(0.3, 1), (1.5, 2), (2.0, 2), (9.0, 3)])
def test_default_threads_are_no_more_than_a_container_allows(
    allowed: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(pool, "_allowed_cores", lambda: allowed)
    assert default_threads() == threads
