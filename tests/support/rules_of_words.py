"""What the rules of words look at, read from sources. `test_rules` plants faults that these must find."""

from __future__ import annotations

import ast
import re

from support.rules import nodes_of

VAGUE = ("Say", "Tell", "Give", "Word", "Let", "Have")
"""Verbs that docstrings do not begin with: Return, Check, Format, Wait say more."""

NAMES = r"write_picture|\bformats[.]picture\b|import picture as formats|benchmarks/pictures|FOLDER = .*|\(\"pictures\","
"""Where the word stays: a module and a function of the package, a folder of the README, and a key of older runs."""


def vague_docstrings_of(source: str) -> list[str]:
    """Return the docstrings that begin with a verb that says little, as `line: first line`.

    Args:
        source: of the module.

    Returns:
        Those of functions, methods and classes.
    """
    found = []
    for node in nodes_of(source):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            docstring = ast.get_docstring(node) or ""
            if docstring.startswith(tuple(f"{verb} " for verb in VAGUE)):
                found.append(f"{node.lineno}: {docstring.splitlines()[0]}")
    return found


def old_words_in(source: str) -> list[str]:
    """Return the lines that speak of pictures, as `number: line`: images go into a model, sheets and tiles come out.

    Args:
        source: of the module.

    Returns:
        The lines, names and comments too.
    """
    lines = enumerate(source.splitlines(), 1)
    return [f"{number}: {line.strip()}" for number, line in lines if "picture" in re.sub(NAMES, "", line).lower()]
