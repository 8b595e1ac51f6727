"""The manifests in a folder of outputs: IMAGE.json beside a sheet, manifest.json in a folder of single files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import WriteError
from ..provenance import MANIFEST_NAME, size_in_manifest
from ..runtime.untrusted import read_json
from .picture import FORMATS


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
    except (OSError, ValueError):  # there is none yet; or making it says what is wrong
        return
    with entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            # os.path takes links to themselves, where an entry raises.
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                yield entry.name, folder / entry.name / MANIFEST_NAME
            elif suffix == ".json" and any(os.path.exists(folder / f"{name}{ending}") for ending in FORMATS):
                yield name, folder / entry.name


def manifest_at(path: Path) -> dict[str, Any] | None:
    """Read a manifest of sheets or single files.

    Args:
        path: of a file, which may be anybody's.

    Returns:
        The manifest; None where the file is missing, cannot be read or is something else, such as those of a run.
    """
    try:
        document = read_json(path)
    except (OSError, ValueError):
        return None
    is_ours = isinstance(document, dict) and "cnnviz_fast" in document and not {"fingerprint", "save"} & set(document)
    return document if is_ours else None


def refuse_other_json(path: Path) -> None:
    """Refuse to write a manifest over a file that is no manifest: somebody's results, or the settings of a run.

    Args:
        path: where the manifest is to go.

    Raises:
        WriteError: there is such a file.
    """
    if os.path.lexists(path) and size_in_manifest(path) is None and manifest_at(path) is None:
        raise WriteError(
            f"cannot write {path}: it is no manifest of this package, and would be lost. Give the sheet another name, "
            f"or leave its manifest out with manifest=False."
        )
