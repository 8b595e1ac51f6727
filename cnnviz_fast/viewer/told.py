"""Files as pages call them: by their names, without their folders, since pages are sent to others."""

from __future__ import annotations

import ntpath
import posixpath
import re

_QUOTED = re.compile(r"""(['"])((?:/|[A-Za-z]:[\\/]|\\\\).*?)\1""", re.DOTALL)
_BARE = re.compile(r"""(?<![\w/\\'".])(?:/(?!/)|[A-Za-z]:\\|\\\\)[^\s'",;:()]+""")
"""A path from the root in a sentence, in quotes and without."""


def told(path: str) -> str:
    """Return what a page calls a file: its name, where a path begins at the root."""
    if posixpath.isabs(path):
        return posixpath.basename(path)
    return ntpath.basename(path) if ntpath.isabs(path) else path  # a run may have been made on another system


def told_model(spec: str) -> str:
    """Return what a page calls a model, which may be a file or a folder, with arguments behind it."""
    name, bracket, arguments = spec.partition("(")
    prefix = "hf:" if name.startswith("hf:") else ""
    return prefix + told(name.removeprefix(prefix)) + told_in(bracket + arguments)


def told_in(sentence: str) -> str:
    """Return a sentence in which files are called by their names."""
    quoted = _QUOTED.sub(lambda found: f"{found[1]}{told(found[2].rstrip('/'))}{found[1]}", sentence)
    return _BARE.sub(lambda found: told(found[0]), quoted)
