"""An iterator that is one item ahead: no further, in order, and gone when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.waiting import PATIENCE_S, wait_until, watch_waiting

from cnnviz_fast.runtime import prefetch
from cnnviz_fast.runtime.prefetch import Ahead


class Counted:
    """Numbers, and which of them were begun; `closed` once the iterator was."""

    def __init__(self, count: int) -> None:
        self.begun: list[int] = []
        self.closed = threading.Event()
        self.count = count

    def __iter__(self) -> Iterator[int]:
        try:
            for n in range(self.count):
                self.begun.append(n)
                yield n
        finally:
            self.closed.set()


def test_items_come_in_order_and_then_no_more() -> None:
    ahead = Ahead(iter(Counted(5)))
    assert list(ahead) == [0, 1, 2, 3, 4]
    with pytest.raises(StopIteration):
        next(ahead)


def test_the_next_item_is_begun_when_the_one_before_is_taken_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = watch_waiting(monkeypatch, prefetch)
    counted = Counted(9)
    ahead = Ahead(iter(counted))
    for n in range(4):
        assert waiting.acquire(timeout=PATIENCE_S)
        assert counted.begun == list(range(n + 1))
        assert next(ahead) == n
    ahead.close()


@pytest.mark.parametrize("taken", [0, 1, 9])
def test_close_ends_the_thread_and_closes_the_iterator_in_it(taken: int) -> None:
    counted = Counted(9)
    ahead = Ahead(iter(counted))
    for _ in range(taken):
        next(ahead)
    before = threading.active_count()
    ahead.close()
    assert counted.closed.wait(PATIENCE_S)
    wait_until(lambda: threading.active_count() < before or taken == 9)
    assert len(counted.begun) <= taken + 2


def test_stop_does_not_wait_for_the_item_that_is_being_made() -> None:
    go_on = threading.Event()
    made = []

    def slow() -> Iterator[int]:
        for n in range(3):
            assert go_on.wait(PATIENCE_S)
            made.append(n)
            yield n

    before = threading.active_count()
    ahead = Ahead(slow())
    ahead.stop()
    assert made == []
    go_on.set()
    wait_until(lambda: threading.active_count() == before)
    assert made == [0]


def test_what_the_iterator_raises_is_raised_by_who_takes_the_item() -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("torn")

    ahead = Ahead(fails())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match=r"^torn$"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
