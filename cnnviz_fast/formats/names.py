"""Names of output files: OUT/LAYER/IMAGE.png, safe on any file system, and no two alike.

output_stems, layer_parts   IMAGE and LAYER
output_path                 how they make a path
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..runtime.compact import Texts
from ..runtime.windows import DEVICE

if TYPE_CHECKING:
    import numpy.typing as npt

PART_BYTES = 96
"""Longest part of a name, in UTF-8: two of them, with 25 bytes of digest each and a _, fit into the 255 of a name."""

# Controls, what turns the direction of writing, lone surrogates, what file systems refuse, and what shells expand.
_UNSAFE = re.compile(
    '[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff/\\\\:*?"<>|@\\[\\]]'
)
_SUFFIX = re.compile(r"(?<=.)\.[^.]*$", re.DOTALL)
_DIGITS = (0, 8, 16, 24)  # hexadecimal digits of SHA-256 after a stem: a step further with each collision


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
    if DEVICE.match(safe):
        safe = f"_{safe}"
    if len(safe) * 4 <= PART_BYTES:
        return safe
    return safe.encode()[:PART_BYTES].decode(errors="ignore").rstrip(". ")


def output_stems(keys: Sequence[str]) -> Sequence[str]:
    """Return the stem of each image's output files; it does not depend on the order of the keys.

    Args:
        keys: of images, none twice. Read several times.

    Returns:
        Stems as safe_part makes them of a key's last part without its suffix. Those that are the same where case does
        not count all get - and 8 digits of their key's SHA-256, or more where that is not enough.

    Raises:
        InputError: a key occurs twice.
    """
    return _distinct(keys, lambda key: safe_part(_SUFFIX.sub("", key[key.rfind("/") + 1 :])))


def layer_parts(layers: Sequence[str]) -> Sequence[str]:
    """Return the folder of each layer, as output_stems does for images: `layer1.0` is a name, not a suffix."""
    return _distinct(layers, safe_part)


def output_path(layer: str, image: str, ending: str, kind: str = "") -> str:
    """Return where an output of one layer of one image lies, below the folder of all outputs.

    Args:
        layer: folder of the layer; see layer_parts.
        image: stem of the image; see output_stems.
        ending: of the file, such as .png; "" for a folder.
        kind: a folder between them, for what would have the same name otherwise: tiles, sum, ...

    Returns:
        LAYER/IMAGE.png, or with a kind LAYER/sum/IMAGE.safetensors or LAYER/tiles/IMAGE; with / on every system.
    """
    return "/".join(filter(None, (layer, kind, f"{image}{ending}")))


def _distinct(keys: Sequence[str], part_of: Callable[[str], str]) -> Sequence[str]:
    """Make parts of keys, and add digits of the keys' SHA-256 to those that are the same, until none are."""
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
    """Add digits of a key's SHA-256 to a part."""
    if not digits:
        return part
    return f"{part}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:digits]}"


def folded_stem(stem: str) -> str:
    """Return one form for all stems that a file system may take for the same."""
    # Upper case first: some systems compare by that, and of ı and i only it is the same.
    return stem.lower() if stem.isascii() else unicodedata.normalize("NFC", stem.upper().casefold())


def _folded(stem: str) -> int:
    """Return 64 bits of a digest of the folded stem."""
    return int.from_bytes(hashlib.blake2b(folded_stem(stem).encode(), digest_size=8).digest(), "little")


def _positions_of_repeats(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Return the positions of the values that occur more than once."""
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    return order[np.concatenate([same, [False]]) | np.concatenate([[False], same])] if len(values) else order
