"""Output folders of drafts before version 0.1, IMAGE_LAYER.png: recognised, so that nothing is written among them.

They are known by the manifests beside their sheets and in their folders of single files, which have `layout` where
today's have `axes`. A sheet or a folder of single files without its manifest could be anybody's and is not recognised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..runtime.untrusted import MOST_JSON_BYTES, parse_json, read_regular
from .manifest_files import manifests_in

_KINDS = re.compile("_(compare|difference)$")
_READ_OF_A_LAYER = 8
"""Manifests of a layer's folder that are read: a folder is of one version, as another's is refused."""


def refuse_older_names(folder: Path) -> None:
    """Refuse a folder that holds sheets or single files in the layout of the drafts.

    Args:
        folder: where files are to go; it need not be there.

    Raises:
        OptionError: a manifest of a draft shows a layer of an image and is called IMAGE_LAYER; or it shows an atlas and
            is called after it, in the folder or in one of a layer.
    """
    name = next(_older_names(folder), None)
    if name is not None:
        raise OptionError(
            f"{str(folder)!r} is an output folder of the older layout, IMAGE_LAYER: it holds {name!r}. "
            f"Files are LAYER/IMAGE now. Give another folder."
        )


def _older_names(folder: Path) -> Iterator[str]:
    """Yield the names of what drafts wrote into a folder; in the folders of layers only atlases were drawn."""
    for name, path in sorted(manifests_in(folder)):
        made = _made_by_older(path)
        if made and (_is_atlas(name, made) or _is_image_and_layer(name, made)):
            yield name
    for layer in _folders_in(folder):
        for name, path in islice(manifests_in(layer), _READ_OF_A_LAYER):
            made = _made_by_older(path)
            if made and _is_atlas(name, made):
                yield f"{layer.name}/{name}"


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if os.path.isdir(path))
    except (OSError, ValueError):  # there is none yet; or making it says what is wrong
        return []


def _made_by_older(path: Path) -> Mapping[str, Any]:
    """Return what a manifest of a draft says of its maps, of a comparison its first side; empty for any other file."""
    try:
        content = read_regular(path, MOST_JSON_BYTES)
        manifest = parse_json(content) if b'"layout"' in content else None  # parsing takes longer than reading
    except (OSError, ValueError):  # missing, or somebody else's
        return {}
    if not isinstance(manifest, dict) or "cnnviz_fast" not in manifest:
        return {}
    made = manifest.get("a", manifest)
    return made if isinstance(made, dict) and "layout" in made else {}


def _is_image_and_layer(name: str, made: Mapping[str, Any]) -> bool:
    """Check whether a name is IMAGE_LAYER, of a clip IMAGE_LAYER-tSTEP, as drafts made it."""
    layer, step = made.get("layer"), made.get("time_step")
    if not made.get("image") or not isinstance(layer, str) or made.get("atlas"):
        return False
    tail = _as_older(f"_{layer}" if step is None else f"_{layer}@t{step}")
    return _KINDS.sub("", name).endswith(tail)


def _is_atlas(name: str, made: Mapping[str, Any]) -> bool:
    """Check whether a name is that of an atlas; the second of the same name ended in -2."""
    atlas = made.get("atlas")
    return isinstance(atlas, str) and re.sub(r"-\d+$", "", name) in _stems_of(atlas)


def _stems_of(atlas: str) -> tuple[str, ...]:
    stem = _as_older(Path(atlas).stem)
    return stem, re.sub(r"-\d+$", "", stem)


def _as_older(text: str) -> str:
    """Return a text as drafts had it in file names."""
    return re.sub(r"[^\w. -]", "-", text).strip(". ")
