"""The pool of workers: threads that work on items, with results in order and no thread left at the end."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from .cgroups import allowed_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_threads() -> int:
    """Return the number of cores that this process may run on, or as many as its container lets it keep busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(cores, _allowed_cores()))


_allowed_cores = cache(allowed_cores)  # a small sheet is drawn in less time than these files are read


class _Run:
    """State that the workers of one call share, guarded by `changed`."""

    def __init__(self, total: int, ahead: int) -> None:
        self.changed = threading.Condition()
        self.total = total
        self.ahead = ahead
        self.next_item = 0
        self.delivered = 0
        self.results: dict[int, object] = {}
        self.error: BaseException | None = None
        self.stopped = False

    def take(self) -> int | None:
        """Wait until the consumer is near enough, and return the next position; None if nothing is left to do."""
        with self.changed:
            while not self.stopped and self.next_item < self.total and self.next_item >= self.delivered + self.ahead:
                self.changed.wait()
            if self.stopped or self.next_item >= self.total:
                return None
            self.next_item += 1
            return self.next_item - 1

    def deliver(self, position: int, result: object) -> None:
        """Store a result for the consumer."""
        with self.changed:
            self.results[position] = result
            self.changed.notify_all()

    def stop(self, error: BaseException | None = None) -> None:
        """Stop the workers behind the items that they are working on."""
        with self.changed:
            self.stopped = True
            self.error = self.error or error
            self.changed.notify_all()

    def collect(self, position: int) -> object:
        """Wait for a result, or raise what a worker raised."""
        with self.changed:
            while position not in self.results and self.error is None:
                self.changed.wait()
            if position not in self.results and self.error is not None:
                raise self.error
            self.delivered = position + 1
            self.changed.notify_all()
            return self.results.pop(position)


def in_order(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """Work on items in parallel and yield the results in the order of the items.

    At most `2 * threads` items are being worked on or waiting to be taken, so memory stays bounded however slow the
    consumer is. Workers are threads, so `work` should release the GIL.

    Args:
        work: called once for each item, in a worker.
        items: what to work on.
        threads: number of workers; with 1 everything happens in the calling thread.

    Yields:
        work(item) for each item.

    Raises:
        Whatever `work` raises. However the iterator ends, by an exception, by Ctrl-C or because it is dropped, the
        workers finish their current items, take no others, and end.
    """
    threads = min(threads, len(items))
    if threads <= 1:
        yield from map(work, items)
        return
    run = _Run(len(items), 2 * threads)

    def worker() -> None:
        try:
            while (position := run.take()) is not None:
                run.deliver(position, work(items[position]))
        except BaseException as error:  # raised again in the calling thread
            run.stop(error)

    workers = [threading.Thread(target=worker, name=f"cnnviz-{i}", daemon=True) for i in range(threads)]
    try:
        for thread in workers:
            thread.start()
        for position in range(len(items)):
            yield run.collect(position)  # type: ignore[misc]  # results hold what `work` returned
    finally:
        run.stop()
        for thread in workers:
            if thread.ident is not None:
                thread.join()
