"""Output folders of the older layout, IMAGE_LAYER.png: recognised, so that nothing of today's is written among them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import OptionError
from .names import safe_part
from .picture import FORMATS

_KINDS = ("_compare", "_difference")


def refuse_older_names(folder: Path) -> None:
    """Refuse a folder that holds sheets or single files in the older layout.

    Args:
        folder: where files are to go; it need not be there.

    Raises:
        OptionError: a manifest in it shows a layer of an image, and is called IMAGE_LAYER.
    """
    for name, manifest in _manifests(folder):
        made = manifest.get("a", manifest)  # of a comparison, its first side
        layer, image = made.get("layer"), made.get("image")
        if not layer or not image or made.get("atlas") or "tiles" not in manifest or "cnnviz_fast" not in manifest:
            continue
        stem = next((name.removesuffix(kind) for kind in _KINDS if name.endswith(kind)), name)
        if stem.endswith(f"_{safe_part(layer)}"):
            raise OptionError(
                f"{str(folder)!r} is an output folder of the older layout, IMAGE_LAYER: it holds {name!r}. "
                f"Files are LAYER/IMAGE now. Give another folder."
            )


def _manifests(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the manifests beside sheets and in folders of single files, where their names have a _."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # there is none yet; or making it says what is wrong
        return
    names = {entry.name for entry in entries}
    for entry in entries:
        name, suffix = os.path.splitext(entry.name)
        path = Path(entry.path)
        if entry.is_dir():
            name, path = entry.name, path / "manifest.json"
        elif suffix != ".json" or not any(name + ending in names for ending in FORMATS):
            continue
        if "_" in name:
            try:
                manifest = json.loads(path.read_bytes())
            except (OSError, ValueError):  # missing, or somebody else's
                continue
            if isinstance(manifest, dict):
                yield name, manifest
