"""Scripts without a main guard. Where processes are not forked, each runs the user's script again before it begins.

That is so on macOS, on Windows and from Python 3.14 on. Without a guard such a process comes to the line that has
started it, and would start more. It ends there without a word, and the process that waits for it says why.
"""

from __future__ import annotations

import multiprocessing
import os

from ..errors import ImageError

READER = "cnnviz reader"
"""Name of the processes that read images."""

RAN_AGAIN = 87
"""Exit code of one that has run the whole script again."""


def no_guard() -> ImageError:
    """Return the error for a script without a main guard."""
    return ImageError(
        "a process that reads images has run the whole script again, which has no main guard. Put what it does under "
        "if __name__ == '__main__': or pass readers=0."
    )


def leave_if_run_again() -> None:
    """End this process where it only runs the user's script again, which must not start the same work.

    It ends at once if it is to become a reader, or the process from which readers are forked. An exception would be
    printed, or come to handlers of the script; and a server of forks tells no exit code but that of os._exit.

    Raises:
        ImageError: it is to become a process of the user's own.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):  # by which multiprocessing itself knows
        return
    if process.name == READER or multiprocessing.parent_process() is None:
        os._exit(RAN_AGAIN)
    raise no_guard()
