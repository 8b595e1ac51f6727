"""Sheets of this package among the images of a folder: a search for images passes them over."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from ..provenance import MANIFEST_NAME, size_in_manifest
from ..runtime.untrusted import read_json
from .decoding.process_wide import libraries_silenced, pillow_limit_lifted

SHEETS = "sheets of this package"
"""What they are counted as, where other files are counted by their extension."""

RUNS = "folders of runs"
"""What the folders of other runs are counted as."""


def counted(kind: str, count: int) -> str:
    """Return such as "2 folders of runs" or "1 sheet of this package"."""
    return f"{count} {kind if count != 1 else kind.replace('s of', ' of', 1)}"


def own_sheets(folder: str, names: Collection[str], manifests: Collection[str]) -> tuple[set[str], set[str]]:
    """Find the sheets and single files of this package in a folder.

    Args:
        folder: the folder.
        names: of the images in it.
        manifests: names of the .json files in it. Only those beside an image are read.

    Returns:
        The names of the sheets, and those of their manifests.
    """
    sheets: set[str] = set()
    found: set[str] = set()
    if MANIFEST_NAME in manifests and (tiles := _tiles_in(os.path.join(folder, MANIFEST_NAME))):
        sheets |= tiles & set(names)
        found.add(MANIFEST_NAME)
    beside_manifest: defaultdict[str, list[str]] = defaultdict(list)
    documents = set(manifests)
    for name in names if documents else ():
        if (manifest := f"{os.path.splitext(name)[0]}.json") in documents:
            beside_manifest[manifest].append(name)
    for manifest, beside in beside_manifest.items():
        if size := size_in_manifest(os.path.join(folder, manifest)):
            # A photo may have the name of its sheet, with another extension.
            own = {name for name in beside if _has_size(os.path.join(folder, name), size)}
            sheets |= own
            found |= {manifest} if own else set()
    return sheets, found


def without_own_sheets(paths: Iterable[str], passed_over: Counter[str]) -> list[str]:
    """Return the paths of images, from any folders, without sheets of this package, which are counted."""
    by_folder = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].append(name)
    kept = []
    for folder, names in by_folder.items():
        manifests = [name for name in os.listdir(folder or ".") if name.endswith(".json")]
        sheets, _ = own_sheets(folder, names, manifests)
        passed_over.update({SHEETS: len(sheets)} if sheets else {})
        kept += [os.path.join(folder, name) for name in names if name not in sheets]
    return kept


def _tiles_in(path: str) -> set[str]:
    """Return the names of the single files that a manifest lists; nothing for a manifest of others."""
    if size_in_manifest(path) is None:
        return set()
    try:
        tiles: Any = read_json(path)["tiles"]
        return {tile["file"] for tile in tiles if "file" in tile}
    except (OSError, ValueError, KeyError, TypeError):  # it was cut short, or changed by hand
        return set()


def _has_size(path: str, size: tuple[int, int]) -> bool:
    """Return whether an image has a (height, width) in px, by its header; arrays and damaged files may have any."""
    from PIL import Image

    try:
        with libraries_silenced.changed(), pillow_limit_lifted.changed(), Image.open(path) as image:
            return (image.height, image.width) == size
    except Exception:  # Pillow raises whatever a damaged file leads to
        return True
