"""Names of the files that come out: safe on any file system, and no two alike."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from .errors import OptionError

NAME_BYTES = 200
"""Longest stem of a file name; file systems end at 255 bytes, and suffixes and temporary names need some."""


def safe_name(name: str) -> str:
    """Make a file name of a picture's or a layer's name.

    Args:
        name: any string.

    Returns:
        The name with all but letters, digits, dots, blanks, _ and - replaced by -, at most NAME_BYTES long; a digest
        stands for what is cut, so that different long names stay different.
    """
    safe = re.sub(r"[^\w. -]", "-", name).strip(". ") or "_"
    raw = safe.encode()
    if len(raw) <= NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return raw[: NAME_BYTES - 13].decode(errors="ignore") + "-" + digest


def distinct_stems(names: Sequence[str]) -> list[str]:
    """Make the stem of a file name of each of some names, all different.

    Args:
        names: any strings.

    Returns:
        Stems as safe_name makes them; of several that are the same, the second ends in -2.
    """
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = base = safe_name(name)
        count = 1
        # File systems that ignore case would overwrite Cat with cat.
        while stem.casefold() in taken:
            count += 1
            stem = f"{base}-{count}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def layer_stem(stem: str, layer: str) -> str:
    """Make the stem of what shows one layer for one picture.

    Args:
        stem: of the picture.
        layer: its name.

    Returns:
        PICTURE_LAYER, as safe_name makes it.
    """
    return safe_name(f"{stem}_{layer}")


def refuse_same_names(stems: Sequence[str], layers: Iterable[str]) -> None:
    """Refuse outputs of which one would overwrite another, before any is written.

    Args:
        stems: of the pictures.
        layers: names of the layers that are drawn for each.

    Raises:
        OptionError: two have one name, such as layer `b_c` for the picture `a` and layer `c` for the picture `a_b`.
    """
    taken: dict[str, tuple[str, str]] = {}
    for layer in layers:
        for stem in stems:
            name = layer_stem(stem, layer).casefold()
            if name in taken:
                (first, other) = taken[name]
                raise OptionError(
                    f"layer {layer!r} of {stem!r} and layer {other!r} of {first!r} would both be written as {name!r}. "
                    f"Draw them into folders of their own."
                )
            taken[name] = (stem, layer)
