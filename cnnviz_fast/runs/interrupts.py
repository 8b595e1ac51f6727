"""Ctrl-C and SIGTERM during a run: the first one lets it finish what is under way, the second one ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def softened(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Turn the first of SIGNALS in the block into an event; later ones raise KeyboardInterrupt at once.

    Only the main thread gets signals; in other threads nothing changes.

    Args:
        stop: set by the first signal.
        say: called with a message about what the signal does.

    Raises:
        KeyboardInterrupt: at the end of the block, where it was interrupted; at once with the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        stop.set()
        say("stopping after what is under way; once more to stop at once")

    interrupted = threading.Event()
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted.is_set():
        raise KeyboardInterrupt
