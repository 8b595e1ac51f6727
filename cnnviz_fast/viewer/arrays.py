"""Arrays of a run: how its model took them, and which plane of a volume or step of a clip its layers are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ..models.expected import ExpectedInput
from ..models.own_preprocess import ArrayPreprocess
from ..options.reading import MAX_PIXELS

_PLANE = re.compile(r"(.*)@[td](\d{1,6})", re.DOTALL)


def array_preprocess_in(described: Any) -> ArrayPreprocess | None:
    """Return the preprocessing of a run that read arrays; None for one of photos, and of signals.

    Args:
        described: JSON of `runs.folder.fingerprint`, which may be anybody's.
    """
    if not isinstance(described, dict) or not str(described.get("is")).endswith(".ArrayPreprocess"):
        return None
    with suppress(TypeError, ValueError, LookupError, OverflowError):
        facts, size = described["expected"], described["size"]
        axes = int(facts["spatial_axes"])
        expected = ExpectedInput(int(facts["channels"]), axes, bool(facts["channel_axis"]), bool(facts["is_known"]))
        sides = None if size is None else tuple(map(int, size))
        mean, std = (tuple(map(float, described[name])) for name in ("mean", "std"))
        if axes in (2, 3) and all(0 < side <= MAX_PIXELS ** (1 / axes) for side in sides or ()):
            return ArrayPreprocess(expected, sides, mean, std)
    return None


def planes_of(layers: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return of those layers of an image that are planes or steps, which they are, and of how many.

    Args:
        layers: names of all that there are of the image.
    """
    found = {name: place for name in layers if (place := _PLANE.fullmatch(name))}
    counts = Counter(place[1] for place in found.values())
    return {name: (int(place[2]), counts[place[1]]) for name, place in found.items()}
