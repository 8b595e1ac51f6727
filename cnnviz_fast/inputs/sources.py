"""The images that a run is over, listed from folders, globs, lists, shards, tables and memory."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import ImageError, OptionError, reason_of
from ..runtime.untrusted import open_regular
from .catalogue import Catalogue, Failure, Files, InMemoryImage, normalised
from .decoding.formats import EXTENSIONS
from .find import find_images, has_extension, images_among, matching_files, natural_key
from .in_memory import Encoded, is_pil_image, is_tensor
from .own_sheets import RUNS, SHEETS, counted
from .parquet_tables import list_table
from .sets import COMPRESSED, LISTS, PARQUET, TAR
from .tar_shards import list_shard

STDIN = "-"
_FILES = Files()


class _Search(NamedTuple):
    """What a search passes over, the folder of the outputs and those of other runs, and whether it takes arrays."""

    out: str | os.PathLike[str] | None
    is_run: Callable[[str], bool]
    arrays: bool


def list_images(
    sources: object,
    out: str | os.PathLike[str] | None = None,
    is_run: Callable[[str], bool] = lambda folder: False,
    arrays: bool = False,
) -> Catalogue:
    """List the images that sources stand for, without reading any.

    Besides the files, globs and in-memory images that `load_images` takes, a source may be:

    - a folder: the images in it and in all folders below it; linked folders once, after the others. Sheets of this
      package, known by their manifests, are passed over.
    - `.txt`, `.lst`: one path a line, relative to the list's own folder; blank lines and lines that begin with # are
      ignored. `-` is such a list on standard input, relative to the working folder. Paths may also be separated by NUL.
    - `.tar`: a shard in the form of webdataset; see list_shard. `.parquet`: a table; see list_table.

    Globs may match any of these. A file that a list names is looked for only when it is read.

    Args:
        sources: one source, or any iterable of them.
        out: folder of the outputs. It is passed over where it lies in a folder that is searched.
        is_run: returns whether a folder holds the outputs of a run. Such folders are passed over in a search.
        arrays: whether folders, globs and shards are searched for .npy and .npz too.

    Returns:
        The images in the order given, those of a folder or glob in natural order. A float tensor (N, ...) is N images.

    Raises:
        ImageError: a source is missing, of another kind or empty, or no image is left at all.
        OptionError: a folder that is searched is `out` itself.
    """
    if isinstance(sources, Catalogue):
        return sources
    catalogue = Catalogue()
    _list_any(sources, catalogue, _Search(out, is_run, arrays))
    catalogue.drop_repeats()
    if not len(catalogue):
        first = catalogue.failures[0].reason if catalogue.failures else "images must name at least one image, got none."
        raise ImageError(first)
    return catalogue


def _list_any(source: Any, catalogue: Catalogue, search: _Search) -> None:
    """List one source, or an iterable of them."""
    if isinstance(source, str | os.PathLike):
        _list_path(os.fspath(source), catalogue, search)
    elif isinstance(source, np.ndarray | Encoded) or is_tensor(source) or is_pil_image(source):
        batch = is_tensor(source) and source.is_floating_point() and source.ndim > 3
        for image in source.split(1) if batch else [source]:
            catalogue.add(InMemoryImage(image), f"image{len(catalogue)}")
    elif isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | Mapping):
        for each in source:
            _list_any(each, catalogue, search)
    else:
        find_images(source)  # raises the error that lists what a source may be


def _list_path(text: str, catalogue: Catalogue, search: _Search) -> None:
    """List what a path, a folder, a glob or `-` stands for."""
    if text == STDIN:
        _list_lines(sys.stdin.buffer.read(), "", "standard input", catalogue)
    elif os.path.isdir(text):
        _list_folder(text, catalogue, search)
    else:
        for path in matching_files(text, search.arrays):
            if not _is_own(path, text, search.out):
                _list_file(path, catalogue, search.arrays)


def _is_own(path: str, text: str, out: str | os.PathLike[str] | None) -> bool:
    """Check whether a match of a glob lies in `out`, and `out` in the folder where the glob begins to search."""
    if out is None or path == text:
        return False
    own, place = os.path.realpath(out), os.path.realpath(path)
    root = os.path.realpath(os.path.dirname(text[: re.search(r"[*?[]", text).start()]))  # type: ignore[union-attr]
    return own.startswith(os.path.join(root, "")) and place.startswith(os.path.join(own, ""))


def _list_file(path: str, catalogue: Catalogue, arrays: bool) -> None:
    """List one file that is there: a list, a shard, a table or an image."""
    ending = path.lower()
    if ending.endswith(LISTS):
        try:
            with open_regular(path) as file:
                content = file.read()
        except OSError as error:
            raise ImageError(f"list {path!r} cannot be read: {reason_of(error)}.") from error
        _list_lines(content, os.path.dirname(path), f"list {path!r}", catalogue)
    elif ending.endswith((TAR, *COMPRESSED)):
        list_shard(normalised(path), catalogue, arrays)
    elif ending.endswith(PARQUET):
        list_table(normalised(path), catalogue)
    else:
        catalogue.add(_FILES, normalised(path))


def _list_lines(content: bytes, folder: str, label: str, catalogue: Catalogue) -> None:
    """List the paths in the content of a list file. Paths separated by NUL are taken as they are."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what PowerShell 5 writes
        content = content.decode("utf-16", "surrogatepass").encode(errors="surrogatepass")
    content = content.removeprefix(codecs.BOM_UTF8)
    exact = b"\0" in content
    before = len(catalogue)
    for match in re.finditer(rb"[^\0]+" if exact else rb"[^\r\n]+", content):
        line = os.fsdecode(match[0])
        if exact or not (line.isspace() or line.startswith("#")):
            catalogue.add(_FILES, normalised(os.path.join(folder, line)))
    if len(catalogue) == before:
        raise ImageError(f"{label} names no images.")


def _list_folder(folder: str, catalogue: Catalogue, search: _Search) -> None:
    """List the images in a folder and in those below it."""
    before, failed = len(catalogue), len(catalogue.failures)
    out = search.out
    apart = _identity(out) if out is not None and os.path.isdir(out) else None
    if apart == _identity(folder):
        raise OptionError(
            f"out must not be a folder that is searched for images, got {os.fspath(out)!r}. Give a folder in it."  # type: ignore[arg-type]
        )
    for path in _images_below(folder, catalogue, apart, search):
        catalogue.add(_FILES, normalised(path))
    if len(catalogue) > before:
        return
    if len(catalogue.failures) > failed:
        raise ImageError(catalogue.failures[failed].reason)
    drawn = f" but {counted(SHEETS, catalogue.passed_over[SHEETS])}" if catalogue.passed_over[SHEETS] else ""
    raise ImageError(
        f"folder {folder!r} holds no images ({' '.join(EXTENSIONS)}){drawn}. Shards and lists are named singly."
    )


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _images_below(folder: str, catalogue: Catalogue, apart: tuple[int, int] | None, search: _Search) -> Iterator[str]:
    """Walk a folder: its images, then those of its folders. Linked folders come last, and none is entered twice.

    The outputs of other runs are passed over, and so are sheets of this package, pipes and devices. A broken link with
    an image's extension counts as an image that is missing.
    """
    folders, linked = [folder], deque[str]()
    entered = {apart}
    while folders or linked:
        path = folders.pop() if folders else linked.popleft()
        try:
            if (identity := _identity(path)) in entered:
                continue
            entered.add(identity)
            if path != folder and search.is_run(path):
                catalogue.passed_over[RUNS] += 1
                continue
            images, inner, links = _inside(path, search.arrays, catalogue.passed_over)
        except OSError as error:
            catalogue.failures.append(Failure(path, f"folder {path!r} cannot be read: {reason_of(error)}."))
            continue
        yield from images
        folders += reversed(inner)
        linked += links


def _inside(folder: str, arrays: bool, passed_over: Counter[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the images, folders and linked folders directly in a folder, each in natural order; count the others."""
    names: list[str] = []
    inner: list[str] = []
    links: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            link = entry.is_symlink()
            if os.path.isdir(entry.path) if link else entry.is_dir():  # os.path takes links to themselves, entry raises
                (links if link else inner).append(entry.path)
            elif os.path.isfile(entry.path) or (
                link and has_extension(entry.name, arrays) and not os.path.exists(entry.path)
            ):
                names.append(entry.name)
    images = images_among(folder, names, arrays, passed_over)
    return sorted(images, key=natural_key), sorted(inner, key=natural_key), sorted(links, key=natural_key)
