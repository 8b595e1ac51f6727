"""Notes: what loading a model has to say though nothing is wrong, such as a head that is left out."""

from __future__ import annotations

from ..runtime.caller import Note, warn_caller


class ModelNote(Note):
    """Something about a loaded model that its user should know. The command line prints it in one line."""


def note(message: str) -> None:
    """Warn whoever called this package of something about a model.

    Args:
        message: one line.
    """
    warn_caller(message, ModelNote)
