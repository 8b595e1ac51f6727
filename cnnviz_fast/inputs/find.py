"""The files that paths, folders and globs stand for, in natural order."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..errors import ImageError, reason_of
from ..runtime.caller import warn_caller
from .arrays import ARRAY_EXTENSIONS
from .decoding.formats import EXTENSIONS
from .in_memory import Encoded, Source, is_pil_image, is_tensor
from .own_sheets import RUNS, SHEETS, counted, own_sheets, without_own_sheets

_MAGIC = re.compile(r"[*?[]")
_KINDS_NAMED = 5
_LONGEST_ENDING = 12
_NUMBER = re.compile(r"0*(\d+)")


def find_images(images: object, arrays: bool = False) -> list[Source]:
    """List the images that paths, folders, globs and in-memory images stand for.

    A folder stands for the files directly in it that have an image's extension; a warning counts the others. So does a
    glob, except that one with an extension of its own (`*.dat`) stands for all its matches. Neither takes sheets of
    this package, known by their manifests. Both are listed in natural order, 2 before 10. A file that is named is taken
    whatever it is.

    Args:
        images: a path, folder, glob, PIL image, array, tensor or file in memory, or any iterable of these.
        arrays: whether folders and globs stand for their .npy and .npz files too.

    Returns:
        Files as `Path`, everything else unchanged, in the order given.

    Raises:
        ImageError: a file is missing, a folder or a glob holds no image, or an entry is none of the above.
    """
    if isinstance(images, str | os.PathLike):
        return [Path(path) for path in matching_files(os.fspath(images), arrays)]
    if isinstance(images, np.ndarray | Encoded) or is_tensor(images) or is_pil_image(images):
        return [images]  # type: ignore[list-item]
    if isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | Mapping):
        return [source for each in images for source in find_images(each, arrays)]
    kind = type(images).__name__
    raise ImageError(f"images must be paths, folders, globs, PIL images, uint8 arrays or tensors, got {kind}.")


def matching_files(text: str, arrays: bool = False) -> list[str]:
    """Return the files of one path, folder or glob, as `find_images` does; raise ImageError where there are none.

    Args:
        text: the path.
        arrays: whether files of arrays count as images.
    """
    if os.path.isdir(text):
        try:
            inside = [os.path.join(text, name) for name in os.listdir(text) if not name.startswith(".")]
        except OSError as error:
            raise ImageError(f"folder {text!r} cannot be read: {reason_of(error)}.") from error
        files = [path for path in inside if os.path.isfile(path)]
        passed_over = Counter[str]()
        found = images_among(text, list(map(os.path.basename, files)), arrays, passed_over)
        label, missing = f"folder {text!r}", f"folder {text!r} holds no images ({' '.join(EXTENSIONS)})"
    elif os.path.exists(text):  # before globs, so that "cat[1].png" can be named
        return [text]
    elif _MAGIC.search(text):
        suffix = os.path.splitext(text)[1]
        explicit = bool(suffix) and not _MAGIC.search(suffix)
        matches = glob.glob(text, recursive=True)
        files = [path for path in matches if os.path.isfile(path) and (explicit or has_extension(path, arrays))]
        passed_over = Counter[str]()
        found = without_own_sheets(files, passed_over)
        label, missing = f"glob {text!r}", f"glob {text!r} matches no images"
    else:
        raise ImageError(f"no file or folder {text!r}.")
    if not found:
        drawn = f" but {counted(SHEETS, passed_over[SHEETS])}. Name one to take it" if passed_over[SHEETS] else ""
        raise ImageError(f"{missing}{drawn}.")
    if passed_over:
        warn_caller(f"{label}: {count_in_words(passed_over)}")
    return sorted(found, key=natural_key)


def images_among(folder: str, names: Iterable[str], arrays: bool, passed_over: Counter[str]) -> list[str]:
    """Return the images of a folder that this package did not draw, and count its other files.

    Args:
        folder: where they are.
        names: of the files in it.
        arrays: whether files of arrays count as images.
        passed_over: extension -> number of files, to which those that are no images are added; and the sheets of this
            package, whose manifests are not counted.

    Returns:
        Their paths, in the order given.
    """
    images, documents = [], []
    for name in names:
        if has_extension(name, arrays):
            images.append(name)
        elif name.endswith(".json"):
            documents.append(name)
        else:
            passed_over[ending_of(name)] += 1
    sheets, manifests = own_sheets(folder, images, documents)
    for kind, count in ((".json", len(documents) - len(manifests)), (SHEETS, len(sheets))):
        if count:
            passed_over[kind] += count
    return [os.path.join(folder, name) for name in images if name not in sheets]


def has_extension(path: str, arrays: bool = False) -> bool:
    """Check whether a path ends in an image's extension, or in that of an array where `arrays` count as images."""
    return path.lower().endswith((*EXTENSIONS, *ARRAY_EXTENSIONS) if arrays else EXTENSIONS)


def ending_of(path: str) -> str:
    """Return the extension of a path in small letters, or what to call none."""
    ending = os.path.splitext(path)[1].lower()
    return ending if ending.isprintable() and 1 < len(ending) < _LONGEST_ENDING else "without an extension"


def count_in_words(passed_over: Mapping[str, int]) -> str:
    """Return the sentence on what a folder holds beside its images.

    Args:
        passed_over: extension -> how many files have it; SHEETS and RUNS -> how many of them there are.

    Returns:
        Such as "12 files are no images and were passed over: 8 .heic, 3 .txt, 1 of other kinds. 2 sheets of this
        package were passed over."
    """
    foreign = Counter({ending: count for ending, count in passed_over.items() if ending not in (SHEETS, RUNS)})
    total, sentences = sum(foreign.values()), []
    if total:
        named = foreign.most_common(_KINDS_NAMED)
        kinds = [f"{count} {ending}" for ending, count in named]
        if others := total - sum(count for _, count in named):
            kinds.append(f"{others} of other kinds")
        files = "file is no image and was" if total == 1 else "files are no images and were"
        sentences.append(f"{total} {files} passed over: {', '.join(kinds)}.")
    if own := [counted(kind, passed_over[kind]) for kind in (SHEETS, RUNS) if passed_over.get(kind)]:
        was = "was" if len(own) == 1 and own[0].startswith("1 ") else "were"
        sentences.append(f"{' and '.join(own)} {was} passed over.")
    return " ".join(sentences)


def natural_key(path: str) -> tuple[str, str]:
    """Return a sorting key for natural order, 2 before 10, that ignores case.

    One string and not a list of parts, since the keys of a million paths are in memory while they are sorted. Each
    number is preceded by the count of its digits, so that the longer number comes later.
    """
    return _NUMBER.sub(lambda number: f"{chr(len(number[1]))}{number[1]}", path.casefold()), path
