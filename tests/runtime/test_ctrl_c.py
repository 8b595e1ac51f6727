"""Processes that work for another hear no Ctrl-C, from their first moment on; the program itself does."""

from __future__ import annotations

import multiprocessing
import signal

import pytest

from cnnviz_fast.runtime import ctrl_c


class InterruptedBy:
    """Raises a signal where it is read from a pickle: in a process that has not begun what it is to run."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, ...]:
        return signal.raise_signal, (self.number,)


def run(_: object, early: bool) -> None:
    if early:
        signal.raise_signal(signal.SIGINT)
    ctrl_c.ignore()
    signal.raise_signal(signal.SIGINT)


# A fork server's process may be interrupted before it begins; see start_unheard.
@pytest.mark.parametrize(("method", "early"), [("fork", True), ("spawn", True), ("forkserver", False)])
def test_a_process_hears_no_ctrl_c_from_its_first_moment(
    method: str, early: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context(method)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    process = context.Process(target=run, args=(InterruptedBy(signal.SIGINT) if early else None, early))
    ctrl_c.start_unheard(process, context)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    process.join(60)
    assert process.exitcode == 0
    assert capfd.readouterr() == ("", "")


def test_what_the_caller_holds_back_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure_running() -> None:  # as that of multiprocessing ends where it has started the tracker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    monkeypatch.setattr(ctrl_c.resource_tracker, "ensure_running", ensure_running)
    context = multiprocessing.get_context("spawn")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = context.Process(target=run, args=(None, False))
        ctrl_c.start_unheard(process, context)
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        process.join(60)
        assert process.exitcode == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_ctrl_c_that_comes_while_a_process_starts_comes_to_the_program() -> None:
    class Interrupted(multiprocessing.Process):
        def start(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ctrl_c.start_unheard(Interrupted(), multiprocessing.get_context("fork"))
