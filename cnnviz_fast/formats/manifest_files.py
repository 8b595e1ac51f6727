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
        folder: it need not be there. It may hold a million files, of which none is kept in memory.

    Yields:
        The name of the sheet, without its suffix, or of the folder, and the path of a manifest, which for a folder
        need not be there; in any order.
    """
    try:
        entries = os.scandir(folder)
    except OSError:  # there is none yet; or making it says what is wrong
        return
    with entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            # os.path takes links to themselves, where an entry raises.
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                yield entry.name, folder / entry.name / MANIFEST_NAME
            elif suffix == ".json" and any(os.path.exists(folder / f"{name}{ending}") for ending in FORMATS):
                yield name, folder / entry.name
