"""Notes: what loading a model has to say though nothing is wrong, such as a head that is left out."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


class ModelNote(UserWarning):
    """Something about a loaded model that its user should know. The command line prints it in one line."""


def note(message: str) -> None:
    """Warn whoever called this package of something about a model.

    Args:
        message: one line.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ModelNote, stacklevel=level)
