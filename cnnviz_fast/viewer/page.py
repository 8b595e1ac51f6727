"""`save_page`: what is shown as one file that needs nothing else, or as a folder whose data is loaded when looked at.

page.html                one file: opens from a disk, without network and server
folder/index.html        the same for many images
folder/data/*.js         scripts that hand over base64: a page from a disk may load scripts, and nothing else
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import AtlasError, CnnvizError, OptionError, WriteError
from ..formats.atlas import parse_atlas, with_provenance
from ..options.parsers import path as path_of
from ..provenance import Provenance
from ..runs.spec import RunSummary
from ..runtime.files import make_folder, whole_file
from ..runtime.untrusted import open_regular
from . import html
from .collection import Collection, bytes_of, keys_of, without
from .memory import run_of_maps
from .opening import open_collection
from .photos import Photos
from .shown import KINDS
from .told import told, told_model

MOST_BYTES = 50_000_000
"""Of a page: larger ones take seconds to open, and some browsers and most mail servers refuse them."""

SHARD_BYTES = 2_000_000
"""Of a payload are in one script at most: Firefox refuses scripts that are much larger."""

SUFFIXES = (".html", ".htm")

CUT_AT_ONCE = 256
"""Channels whose patches are cut together: 8 of 64 px of each take 25 MB."""

INDEX = "index.html"
DATA = "data"

_DATA_FILE = re.compile(r"([a-z](?:-\d+)+)(?:\.\d+)?\.js", re.ASCII)
"""Name of a data file, with the key of what it holds."""

_HEAD_BYTES = 4096
"""Of a file, in which the mark of a page stands."""


def save_page(
    maps: Any,
    path: str | os.PathLike[str],
    *,
    photos: Any = None,
    title: str | None = None,
    similarity: bool = False,
    patches: bool = False,
    provenance: Provenance | None = None,
    axes: str = "auto",
) -> Path:
    """Write a page that shows every channel in a browser, without network and server.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W) of N images; layer name -> either, as capture returns them; an Atlas
            or a list of them; what `run` returned; or paths of runs, atlases, folders and tars of these, one or a list.
            Not modified.
        path: the file, .html; or a folder, for many images: its data is loaded when it is looked at.
        photos: of maps in memory, the images as the model saw them, one for each; of runs, the folder where their
            photos lie.
        title: of the page; None for the name of the run or the model.
        similarity: True adds an arrangement of the channels of each layer by the similarity of their maps.
        patches: True adds the strongest patches of each channel, of a run that kept `top`, cut from `photos`.
        provenance: where maps in memory came from.
        axes: of maps in memory; see render.

    Returns:
        The path: of a folder, that of its index.html.

    Raises:
        InputError: the maps cannot be used, or there are none.
        OptionError: the page would be larger than 50 MB.
        WriteError: it cannot be written, or the path is that of another file.
    """
    target = path_of("path", path)
    return write_page(collection_of(maps, photos, title, provenance, axes), target, similarity, patches)


def collection_of(maps: Any, photos: Any, title: str | None, provenance: Provenance | None, axes: str) -> Collection:
    """Return what is shown of what `save_page` takes.

    Args:
        maps: (C, H, W) real dtype, or what else save_page takes. Not modified.
        photos: see save_page.
        title: see save_page.
        provenance: see save_page.
        axes: see save_page.
    """
    maps = maps.folder if isinstance(maps, RunSummary) else maps
    names = list(maps) if isinstance(maps, (list, tuple)) else [maps]
    if names and all(isinstance(name, (str, os.PathLike)) for name in names):
        if provenance is not None or axes != "auto":
            raise OptionError("provenance and axes go with maps in memory. Atlases say both themselves.")
        folder = None if photos is None else Photos(path_of("photos", photos))
        found = open_collection(names, folder, CUT_AT_ONCE)
    else:
        run = run_of_maps(maps, photos, provenance, axes)
        found = Collection(run.name, [run])
    found.title = found.title if title is None else title
    return found


def write_page(shown: Collection, path: Path, similarity: bool = False, patches: bool = False) -> Path:
    """Write a page, or a folder of one. What cannot be read is named in the notes of the collection.

    Args:
        shown: what it shows.
        path: see save_page.
        similarity: see save_page.
        patches: see save_page.
    """
    wanted = _kinds(similarity, patches)
    is_file = path.suffix.lower() in SUFFIXES
    target = path if is_file else path / INDEX
    refuse_other_file(target)
    catalogue = shown.catalogue("inline" if is_file else "scripts")
    if patches and not any(layer["patches"] for run in catalogue["runs"] for layer in run["layers"]):
        raise OptionError(
            "patches need photos, and a run that kept the strongest images: cnnviz run MODEL SOURCE --layer L "
            "--save atlases,top --out DIR"
        )
    before = len(shown.notes)
    make_folder(path.parent if is_file else path / DATA)
    if is_file:
        payloads = _all_of(shown, catalogue, wanted)
    else:
        payloads = {}
        written = set(_write_data(shown, catalogue, wanted, path / DATA))
    catalogue["notes"] = shown.catalogue("inline", 0)["notes"] if len(shown.notes) > before else catalogue["notes"]
    with whole_file(target) as file:
        for part in html.page(catalogue, payloads.items()):
            file.write(part)
    if not is_file:
        _remove_older(path / DATA, written)
    return target


def inline_page(shown: Collection, similarity: bool = False) -> str:
    """Return a page in one text."""
    wanted = _kinds(similarity)
    catalogue = shown.catalogue("inline")
    payloads = _all_of(shown, catalogue, wanted)
    return b"".join(html.page(catalogue, payloads.items())).decode()


def _kinds(similarity: bool, patches: bool = False) -> set[str]:
    """Return which of KINDS a page holds: those that take time or room only where they are asked for."""
    left_out = {"similarity": not similarity, "patches": not patches}
    return {kind for kind in KINDS if not left_out.get(kind)}


def _all_of(shown: Collection, catalogue: dict[str, Any], kinds: set[str]) -> dict[str, bytes]:
    """Return all payloads of a page; raise OptionError as soon as they are too large for one."""
    payloads: dict[str, bytes] = {}
    total = 0
    for key, payload in _payloads(shown, catalogue, kinds):
        payloads[key] = payload
        total += (len(payload) + 2) // 3 * 4
        if total > MOST_BYTES:
            raise OptionError(
                f"a page holds at most {MOST_BYTES // 1_000_000} MB, and this one would have more. Give a folder in "
                f"place of a file (its data is loaded when it is looked at), fewer images or fewer layers."
            )
    return payloads


def _write_data(shown: Collection, catalogue: dict[str, Any], kinds: set[str], folder: Path) -> Iterator[str]:
    """Write each payload as a script that hands it over: KEY.js, and where it is large KEY.1.js and so on.

    Yields:
        The name of each file once it is written.
    """
    for key, payload in _payloads(shown, catalogue, kinds):
        parts = range(0, max(len(payload), 1), SHARD_BYTES)
        for number, first in enumerate(parts):
            name = f"{key}.{number}.js" if number else f"{key}.js"
            with whole_file(folder / name) as file:
                file.write(_put(key))
                file.writelines(html.as_base64(payload[first : first + SHARD_BYTES]))
                file.write(f'",{number},{len(parts)})\n'.encode())
            yield name


def _put(key: str) -> bytes:
    """Return how a data file of a key begins."""
    return f'cnnviz.put("{key}","'.encode()


def _remove_older(folder: Path, written: set[str]) -> None:
    """Remove the data files of a page that was here before, which are known by their names and how they begin."""
    for path in folder.iterdir():
        found = None if path.name in written else _DATA_FILE.fullmatch(path.name)
        if found is None:
            continue
        with contextlib.suppress(OSError):  # it costs nothing but room
            with open_regular(path) as file:
                is_ours = file.read(len(_put(found[1]))) == _put(found[1])
            if is_ours:
                path.unlink()


def _payloads(shown: Collection, catalogue: Mapping[str, Any], kinds: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of all that a page holds; what cannot be read is noted, and taken out of the catalogue."""
    for run in catalogue["runs"]:
        for layer in run["layers"]:
            layer |= {kind: None for kind in KINDS if kind not in kinds}
        for key in keys_of(run):
            if key.startswith("x-") and run["layers"][int(key.split("-")[2])]["patches"] is None:
                continue  # the file of which all are is damaged
            try:
                content = shown.content(key)
                if content is None and key.startswith("x-"):
                    continue  # a channel that never responded
                if content is None:
                    raise AtlasError(f"{key} is not there.")
                payload = bytes_of(content)
                if key.startswith(("a-", "t-")):
                    payload = without_folders(payload, key if isinstance(content, bytes) else content.name)
            except CnnvizError as error:
                if str(error) not in shown.notes:
                    shown.notes.append(str(error))
                without(run, key)
                continue
            yield key, payload


def without_folders(packed: bytes, name: str) -> bytes:
    """Return an atlas that says of its image and its model only their names; raise AtlasError where it is damaged.

    Args:
        packed: bytes of an atlas; they need not be trusted.
        name: of the file, for messages.
    """
    origin = parse_atlas(packed, name).provenance
    called = {"image": origin.image and told(origin.image), "model": origin.model and told_model(origin.model)}
    return packed if called.items() <= vars(origin).items() else with_provenance(packed, name, called)


def refuse_other_file(path: Path) -> None:
    """Raise WriteError where a path is that of a file that is no page of this package, and would be lost."""
    if not os.path.lexists(path):
        return
    with contextlib.suppress(OSError), open_regular(path) as file:
        if html.MARK.encode() in file.read(_HEAD_BYTES):
            return
    raise WriteError(f"cannot write {path}: it is no page of the viewer, and would be lost. Give another path.")
