"""Warnings for whoever calls this package: they name the caller's own line."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import warnings
from collections.abc import Iterator

_PACKAGE = __name__.partition(".")[0]


class Note(UserWarning):
    """What is said in passing: nothing has failed, and the command line shows it as a line of its own."""


_said: contextvars.ContextVar[set[object] | None] = contextvars.ContextVar("said", default=None)


@contextlib.contextmanager
def each_note_once(said: set[object]) -> Iterator[None]:
    """Pass on, in the block, only the first note of each line of code: the next ones tell the same of other images.

    Args:
        said: what was passed on before. Notes are added.
    """
    token = _said.set(said)
    try:
        yield
    finally:
        _said.reset(token)


def warn_caller(message: str, category: type[Note] = Note) -> None:
    """Warn of something that is no error, at the line outside this package that made the call.

    Args:
        message: one line.
        category: of the note.
    """
    if (said := _said.get()) is not None:
        line = sys._getframe(1).f_code, sys._getframe(1).f_lineno
        if line in said:
            return
        said.add(line)
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
