"""Names of the files that come out: safe on any file system, and no two alike."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, OptionError
from ..runtime.compact import Texts

if TYPE_CHECKING:
    import numpy.typing as npt

NAME_BYTES = 200
"""Longest stem of a file name; file systems end at 255 bytes, and suffixes and temporary names need some."""

PART_BYTES = 96
"""Longest part of a name, a picture's or a layer's: two with 25 bytes of digest each and _ leave 12 of 255 bytes."""

# Controls, what turns the direction of writing, lone surrogates, what file systems refuse, and what shells expand.
_UNSAFE = re.compile(
    '[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff/\\\\:*?"<>|@\\[\\]]'
)
_SUFFIX = re.compile(r"(?<=.)\.[^.]*$", re.DOTALL)
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)
_DIGITS = (0, 8, 16, 24)  # hexadecimal ones of SHA-256 behind a stem, one more step for each collision


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


def safe_part(text: str) -> str:
    """Make a part of a file name of any text, the same on any system.

    Args:
        text: any string.

    Returns:
        The text in NFC, what no file name should hold replaced by -, without dots and blanks at its ends, `_` before
        the name of a Windows device, cut at a character to PART_BYTES of UTF-8. Never empty.
    """
    safe = text if text.isascii() else unicodedata.normalize("NFC", text)
    safe = _UNSAFE.sub("-", safe).strip(". ") or "_"
    if _DEVICE.match(safe):
        safe = f"_{safe}"
    if len(safe) * 4 <= PART_BYTES:
        return safe
    return safe.encode()[:PART_BYTES].decode(errors="ignore").rstrip(". ")


def output_stems(keys: Sequence[str]) -> Sequence[str]:
    """Give each picture the stem of its output files, whatever the order of the keys.

    Args:
        keys: of pictures, none twice. Read several times.

    Returns:
        Stems as safe_part makes them of a key's last part without its suffix. Those that are the same where case does
        not count all get - and 8 digits of their key's SHA-256, or more where that is not enough.

    Raises:
        InputError: a key is there twice.
    """
    return _distinct(keys, lambda key: safe_part(_SUFFIX.sub("", key[key.rfind("/") + 1 :])))


def layer_parts(layers: Sequence[str]) -> Sequence[str]:
    """Give each layer the part of a file name, or the name of a folder, as output_stems does for pictures."""
    return _distinct(layers, safe_part)


def _distinct(keys: Sequence[str], part_of: Callable[[str], str]) -> Sequence[str]:
    """Make parts of keys, and put digits of the keys' SHA-256 behind those that are the same, until none are."""
    parts = Texts(map(part_of, keys))
    folded = np.fromiter(map(_folded, parts), np.uint64, len(keys))
    steps = np.zeros(len(keys), np.uint8)
    while (same := _positions_of_repeats(folded)).size:
        if (steps[same] == len(_DIGITS) - 1).all():
            raise InputError(f"keys must be different, got {keys[int(same[0])]!r} twice.")
        steps[same] = np.minimum(steps[same] + 1, len(_DIGITS) - 1)
        changed = np.zeros(len(keys), bool)
        changed[same] = True
        digits = compress(map(_DIGITS.__getitem__, steps.data), changed)
        told = map(told_apart, compress(parts, changed), compress(keys, changed), digits)
        folded[changed] = np.fromiter(map(_folded, told), np.uint64, len(same))
    return Texts(map(told_apart, parts, keys, map(_DIGITS.__getitem__, steps.data))) if steps.any() else parts


def told_apart(part: str, key: str, digits: int) -> str:
    """Put digits of a key's SHA-256 behind a part."""
    if not digits:
        return part
    return f"{part}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:digits]}"


def folded_stem(stem: str) -> str:
    """Give what is the same for stems which a file system may take for one."""
    # Upper case first: some systems compare by that, and of ı and i only it is the same.
    return stem.lower() if stem.isascii() else unicodedata.normalize("NFC", stem.upper().casefold())


def _folded(stem: str) -> int:
    """Give 64 bits of that."""
    return int.from_bytes(hashlib.blake2b(folded_stem(stem).encode(), digest_size=8).digest(), "little")


def _positions_of_repeats(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Return where the values stand that stand in several places."""
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    return order[np.concatenate([same, [False]]) | np.concatenate([[False], same])] if len(values) else order
