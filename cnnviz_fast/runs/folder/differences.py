"""Where two fingerprints differ, for a message. Without torch: a folder is refused before a model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 80  # characters of a value in a message
_DIGEST = re.compile("[0-9a-f]{64}")  # of which the first 8 tell one from another


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Describe where two fingerprints differ.

    Args:
        first: of this run.
        second: of the run in the folder.

    Returns:
        "tile: 56 here, 224 there" for each difference; nested names are joined by a dot. Of long values, the part in
        which they differ is shown.
    """
    here, there = dict(_flat(first)), dict(_flat(second))
    names = [*here, *(name for name in there if name not in here)]
    return [
        "{}: {} here, {} there".format(name, *_shortened(here.get(name, "none"), there.get(name, "none")))
        for name in names
        if here.get(name) != there.get(name)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings with dotted names, as text."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _shortened(first: str, second: str) -> tuple[str, str]:
    """Shorten two different texts for a message, to a part that begins a little before where they differ."""
    if max(len(first), len(second)) <= _SHOWN:
        return _part(first, 0), _part(second, 0)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    start = max(0, same - _SHOWN // 4)
    return _part(first, start), _part(second, start)


def _part(text: str, start: int) -> str:
    if _DIGEST.fullmatch(text):
        return text[:8]
    end = start + _SHOWN
    return f"{'...' if start else ''}{text[start:end]}{'...' if len(text) > end else ''}"
