"""The class of each image of a run: the folder that it lies in, or what a file says."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import OptionError, reason_of
from ..inputs.catalogue import MEMORY, normalised
from ..inputs.sets import PARQUET, TAR
from ..options.runs import CLASS_FOLDERS
from ..runtime.untrusted import MOST_JSON_BYTES, parse_json, read_regular

COLUMNS = ("image", "class")
"""Of a table: in this order where its first line does not name them."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NO_CLASSES = (MEMORY, TAR, PARQUET)
"""How the first part of a key ends that is no folder."""


@dataclass(frozen=True)
class Labels:
    """The classes of images.

    digest: of the file; another one makes another run.
    classes: image -> class; None where the class of an image is the folder that it lies in.
    """

    digest: str = CLASS_FOLDERS
    classes: Mapping[str, str] | None = None

    def of(self, key: str) -> str | None:
        """Return the class of an image; None where it has none.

        A file may name an image by its whole path, or by any end of it, such as CLASS/NAME.jpg. The longest one counts.

        Args:
            key: of the image.

        Returns:
            The class.
        """
        if self.classes is None:
            folder = key.rpartition("/")[0].rpartition("/")[2]
            return None if folder.endswith(_NO_CLASSES) else folder or None
        ends = (key, *_ends_of(os.path.abspath(key)))
        return next((self.classes[end] for end in ends if end in self.classes), None)


def read_labels(labels: str) -> Labels:
    """Read the classes of images.

    Args:
        labels: CLASS_FOLDERS; or a .csv or .tsv file with a line for each image, IMAGE,CLASS, or with columns that its
            first line calls so; or a .json file, {IMAGE: CLASS} or a list of {"image": IMAGE, "class": CLASS}.

    Returns:
        The classes.

    Raises:
        OptionError: the file cannot be read, or an image has two classes in it.
    """
    if labels == CLASS_FOLDERS:
        return Labels()
    ending = os.path.splitext(labels)[1].lower()
    if ending not in (*_DELIMITERS, ".json"):
        raise OptionError(f"labels must be {CLASS_FOLDERS!r} or a .csv, .tsv or .json file, got {labels!r}.")
    classes: dict[str, str] = {}
    try:
        content = read_regular(labels, MOST_JSON_BYTES)
        pairs = _in_json(content) if ending == ".json" else _in_table(content, _DELIMITERS[ending])
        for image, known in pairs:
            if classes.setdefault(normalised(image), known) != known:
                raise ValueError(f"it has two classes for {image!r}, {classes[normalised(image)]!r} and {known!r}")
    except (OSError, ValueError, csv.Error) as error:
        raise OptionError(f"labels {labels!r} cannot be read: {reason_of(error).rstrip('.')}.") from error
    return Labels(hashlib.sha256(content).hexdigest(), classes)


def _in_table(content: bytes, delimiter: str) -> Iterator[tuple[str, str]]:
    """Yield image and class of each line of a table."""
    places = [0, 1]
    for number, row in enumerate(csv.reader(io.StringIO(content.decode("utf-8-sig")), delimiter=delimiter), 1):
        cells = [cell.strip() for cell in row]
        names = [cell.casefold() for cell in cells]
        if number == 1 and set(COLUMNS) <= set(names):
            places = [names.index(column) for column in COLUMNS]
        elif any(cells):
            if len(cells) <= max(places) or not all(cells[place] for place in places):
                raise ValueError(f"line {number} must name an image and its class")
            yield cells[places[0]], cells[places[1]]


def _in_json(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield image and class of each entry of a JSON document."""
    found = parse_json(content)
    entries = [dict(zip(COLUMNS, item, strict=True)) for item in found.items()] if isinstance(found, dict) else found
    if not isinstance(entries, list):
        raise ValueError("it must be an object or a list")
    for number, entry in enumerate(entries, 1):
        image, known = map(entry.get, COLUMNS) if isinstance(entry, dict) else (None, None)
        if not isinstance(image, str) or not isinstance(known, str | int):
            raise ValueError(f"entry {number} must be an image and its class")
        yield image, str(known)


def _ends_of(path: str) -> Iterator[str]:
    """Yield a path, and what is left of it without the first folder, without the first two, and so on."""
    path = path.replace(os.sep, "/")
    while path:
        yield path
        path = path.partition("/")[2]
