"""Ctrl-C and SIGTERM while a run is under way: the first lets it finish what it holds, the second ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def softened(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Turn the first of SIGNALS into an event, for the block; later ones raise KeyboardInterrupt as ever.

    In other threads than the main one, which get no signals, nothing changes.

    Args:
        stop: set by the first.
        say: told what that means.

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
