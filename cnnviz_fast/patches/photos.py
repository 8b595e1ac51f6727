"""Photos of a run: where each lies, which part of it the model saw, and how its file is known again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, reason_of
from ..inputs.catalogue import Catalogue, Files, ListedImage, normalised
from ..inputs.decode import upright_size
from ..inputs.in_memory import Encoded
from ..inputs.parquet_tables import Table
from ..inputs.sources import list_images
from ..inputs.tar_shards import Shard
from ..models.views import Box, View, view_of
from ..options.reading import AS_USUAL, MAX_PIXELS, ImageOptions
from ..runtime.untrusted import open_regular
from ..runtime.workers import default_threads, in_order

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel

DIGEST_BYTES = 16

ON_DISK = (Files, Shard, Table)
"""Holders of images that can be read again after the run."""

Stamp = tuple[int, int]
"""Length of a file in bytes, and when it was last written, in ns: a file that is written anew has another."""

NO_STAMPS: Mapping[str, Stamp] = MappingProxyType({})

CHANGED: Stamp = (-1, -1)
"""Stamp of an image that was read twice, from files that differ: no file has it."""


@dataclass(frozen=True)
class Photo:
    """An image of a run.

    Attributes:
        name: as messages call it.
        path: absolute, of its file, or of the tar or the table that holds it; None for what was never a file.
        member: its name in a tar, or its row in a table.
        size: (height, width) upright, px; None where the file could not be read.
        view: y0, x0, y1, x1 of what the model's input shows from edge to edge, in pixels of the upright photo; None
            where that is no box of it.
        input: (height, width) of the model's input, px; None where `view` is.
        digest: BLAKE2b of the file's bytes, in hex.
        bytes: length of the file.
        label: its class; None where it has none.
        stamp: of its file, or of the tar or the table, when the model had read it; None where that is not known.
        changed: whether that file was another one at the end of the run. Nothing else is known of it then.
    """

    name: str
    path: str | None = None
    member: str | None = None
    size: tuple[int, int] | None = None
    view: Box | None = None
    input: tuple[int, int] | None = None
    digest: str | None = None
    bytes: int | None = None
    label: str | None = None
    stamp: Stamp | None = None
    changed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the photo as JSON."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Photo:
        """Make a photo of JSON; entries of later versions are passed over."""
        known = {field.name for field in dataclasses.fields(cls)} & set(record)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v := record[name], list) else v for name in known}
        return cls(**values)


def stamp_of(key: str) -> Stamp | None:
    """Return the stamp of the file of an image, or of the tar or the table that holds it; None where there is none.

    Args:
        key: of the image, which begins with the path of the file.
    """
    path = key
    while path:
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # a name in a tar; or no path at all
            above = os.path.dirname(path)
            path = above if above != path else ""
            continue
        return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
    return None


def describe(
    images: Catalogue | None,
    keys: Collection[str],
    model: LoadedModel,
    max_pixels: int = MAX_PIXELS,
    options: ImageOptions = AS_USUAL,
    label_of: Callable[[str], str | None] = lambda key: None,
    stamps: Mapping[str, Stamp] = NO_STAMPS,
) -> dict[str, dict[str, Any]]:
    """Describe images of a run as they are now, each file read once; of most of them only the header is decoded.

    Args:
        images: all images of the run; None where they have no files.
        keys: of the images to describe.
        model: whose preprocessing made the inputs.
        max_pixels: largest image that the run read, in px.
        options: how the run decoded them.
        label_of: key -> class of the image, or None.
        stamps: key -> stamp of its file when the model had read it, as far as that is known.

    Returns:
        Key -> Photo as JSON, in the order of the images. What cannot be found is described by its name alone.
    """
    wanted = set(keys)
    positions = [i for i, key in enumerate(images.iter_keys()) if key in wanted] if images is not None else []
    listed = [images[i] for i in positions] if images is not None else []
    views: dict[tuple[int, int], View | None] = {}
    found: dict[str, Photo] = {}
    read = in_order(
        lambda image: _as_it_is(image, max_pixels, options, stamps.get(image.key)), listed, default_threads()
    )
    for image, photo in zip(listed, read, strict=True):
        if photo.size is not None:
            if photo.size not in views:  # most images of a set share their size, and some preprocessing is measured
                views[photo.size] = view_of(model.preprocess, *photo.size, max_pixels)
            if (seen := views[photo.size]) is not None:
                photo = dataclasses.replace(photo, view=seen.box, input=seen.size)
        found[image.key] = photo
    photos = found | {key: Photo(key) for key in sorted(wanted - found.keys())}
    return {
        key: dataclasses.replace(photo, label=label_of(key), stamp=stamps.get(key)).to_json()
        for key, photo in photos.items()
    }


def _as_it_is(image: ListedImage, max_pixels: int, options: ImageOptions, stamp: Stamp | None) -> Photo:
    """Return where an image lies, its size and its digest; as far as it can be read."""
    holder = image.holder
    if not isinstance(holder, ON_DISK):
        return Photo(image.name)
    path, member = (image.key, None) if isinstance(holder, Files) else (holder.path, image.key[len(holder.path) + 1 :])
    photo = Photo(image.name, normalised(os.path.abspath(path)), member)
    try:
        content = content_of(image)
        size = upright_size(content, image.name, max_pixels, options)
    except ImageError:  # it has gone or changed since the model saw it, which is said when patches are cut
        return photo
    if stamp is not None and stamp_of(image.key) != stamp:
        return dataclasses.replace(photo, changed=True)
    return dataclasses.replace(photo, size=size, digest=digest_of(content), bytes=len(content))


def content_of(image: ListedImage, name: str | None = None) -> bytes:
    """Return the bytes of the file of an image, wherever it is stored; raise ImageError where it cannot be read.

    Args:
        image: the image.
        name: as messages call it; None for its own name.
    """
    source = image.open()
    if isinstance(source, Encoded):
        return source.content
    assert isinstance(source, Path)
    try:
        with open_regular(source) as file:
            return file.read()
    except OSError as error:
        raise ImageError(f"image {(name or image.name)!r} cannot be read: {reason_of(error)}.") from error


def digest_of(content: bytes) -> str:
    """Return the BLAKE2b of a file's bytes, in hex."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def moved(photo: Photo, folder: Path) -> Photo:
    """Return a photo as it lies in another folder than in the run, found by the end of its path.

    Args:
        photo: of the run.
        folder: where photos lie now, with as many of the folders above them as they had.

    Returns:
        The photo there: of the longest end of its path, and of its length in bytes before others; unchanged where there
        is none. That its content is the same is checked when it is cut.
    """
    parts = Path(photo.path or "").parts[1:]
    places = [place for n in range(len(parts)) if (place := folder.joinpath(*parts[n:])).is_file()]
    of_its_length = [place for place in places if photo.member is None and place.stat().st_size == photo.bytes]
    there = next(iter(of_its_length + places), None)
    return photo if there is None else dataclasses.replace(photo, path=os.path.abspath(there))


def find(photos: Sequence[Photo]) -> Iterator[ListedImage | ImageError]:
    """Find photos again, each tar and each table listed once.

    Args:
        photos: that have a path.

    Yields:
        Each as it is listed, or why it cannot be.
    """
    files = Files()
    inside: dict[str, dict[str, ListedImage] | ImageError] = {}
    for photo in photos:
        assert photo.path is not None
        if photo.member is None:
            yield ListedImage(photo.path, files)
            continue
        if photo.path not in inside:
            inside[photo.path] = _listed(photo.path)
        held = inside[photo.path]
        if isinstance(held, ImageError):
            yield held
        elif (image := held.get(f"{photo.path}/{photo.member}")) is None:
            yield ImageError(f"image {photo.name!r} is no longer in {photo.path!r}.")
        else:
            yield image


def _listed(path: str) -> dict[str, ListedImage] | ImageError:
    """Return the images in a tar or a table by their keys, or why they cannot be listed."""
    try:
        return {image.key: image for image in list_images(path, arrays=True)}
    except ImageError as error:
        return error
