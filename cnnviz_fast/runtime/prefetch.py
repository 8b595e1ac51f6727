"""Stage 6 of 7: an iterator whose next item is made while this one is worked on."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any


class Ahead(Iterator[Any]):
    """Items of an iterator that a thread of its own works through, one of them ahead.

    The next one is begun when the one before is taken, so that none waits beside it: what waits takes memory, is lost
    with a kill, and makes nothing faster but stages whose times vary much.
    """

    _END = object()

    def __init__(self, items: Iterator[Any]) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._taken = threading.Semaphore(0)
        self._closed = threading.Event()
        self._items = items
        self._thread = threading.Thread(target=self._work, name="cnnviz-forward", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        item = self._queue.get()
        self._taken.release()
        if item is self._END:
            self._queue.put(item)
            raise StopIteration
        if isinstance(item, BaseException):
            self._queue.put(self._END)
            raise item
        return item

    def stop(self) -> None:
        """Let the thread end with the item that it is at."""
        self._closed.set()
        self._taken.release()
        with contextlib.suppress(queue.Empty):
            self._queue.get_nowait()

    def close(self) -> None:
        """Let the thread end, and wait for it."""
        while self._thread.is_alive():
            self.stop()
            self._thread.join(0.01)

    def _work(self) -> None:
        try:
            for item in self._items:
                self._queue.put(item)
                del item
                self._taken.acquire()
                if self._closed.is_set():
                    break
        except BaseException as error:  # raised again by whoever takes the next item
            self._queue.put(error)
        else:
            self._queue.put(self._END)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
