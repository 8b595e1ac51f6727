"""The manifests in a folder of outputs: IMAGE.json beside a sheet, manifest.json in a folder of single files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .picture import FORMATS

MANIFEST_NAME = "manifest.json"
"""Of the manifest in a folder of single files."""


def manifests_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Find the manifests of the sheets and of the folders of single files that lie directly in a folder.

    Args:
        folder: it need not be there.

    Yields:
        The name of the sheet, without its suffix, or of the folder, and the path of a manifest, which for a folder
        need not be there; in the order of names.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_dir() for entry in entries}
    except OSError:  # there is none yet; or making it says what is wrong
        return
    for entry in sorted(found):
        name, suffix = os.path.splitext(entry)
        if found[entry]:
            yield entry, folder / entry / MANIFEST_NAME
        elif suffix == ".json" and any(name + ending in found for ending in FORMATS):
            yield name, folder / entry
