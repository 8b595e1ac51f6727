"""Warnings for whoever calls this package: they name the caller's own line."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


class Note(UserWarning):
    """What is said in passing: nothing has failed, and the command line shows it as a line of its own."""


def warn_caller(message: str, category: type[Note] = Note) -> None:
    """Warn of something that is no error, at the line outside this package that made the call.

    Args:
        message: one line.
        category: of the note.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
