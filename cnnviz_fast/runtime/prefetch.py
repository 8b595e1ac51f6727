"""An iterator that makes its next element while the caller works on the current one."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any


class Ahead(Iterator[Any]):
    """Elements of an iterator, made by a thread of its own, one ahead.

    Each is begun when the one before is taken, so at most one waits. More would take memory and be lost if the process
    is killed, and would help only stages whose times vary much.
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
        """Stop the thread behind the element that it is making."""
        self._closed.set()
        self._taken.release()
        with contextlib.suppress(queue.Empty):
            self._queue.get_nowait()

    def close(self) -> None:
        """Stop the thread, and wait for its end."""
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
        except BaseException as error:  # raised again for the caller that takes the next element
            self._queue.put(error)
        else:
            self._queue.put(self._END)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
