"""Ctrl-C, which a terminal sends to every process of a program: those that work for another leave it to that one."""

from __future__ import annotations

import signal
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess


def start_unheard(process: BaseProcess, context: BaseContext) -> None:
    """Start a process that hears no Ctrl-C, from its first moment on; what it runs has to call `ignore` at its start.

    Otherwise one that has just been forked, or that still imports, would print what it was interrupted at. Those of a
    fork server still do: holding the signal back there would hold it back from processes of the program's own, too.
    The program itself may be interrupted in here, even after the start, since its other threads hear the signal.
    """
    method = context.get_start_method()
    if method == "forkserver" or not hasattr(signal, "pthread_sigmask"):
        process.start()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # of this thread, and of what it starts
    try:
        if method == "spawn":
            resource_tracker.ensure_running()  # which lets the signal through, where it has yet to be started
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Hear no Ctrl-C in this process, nor one that was held back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
