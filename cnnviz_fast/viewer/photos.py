"""Photos of a run where the user says that they lie: found there by the ends of their paths, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AtlasError, InputError
from ..inputs.decode import decode_file
from ..models.views import View
from ..options.reading import AS_USUAL, MAX_PIXELS
from ..patches.photos import Photo, moved
from ..patches.top_files import TopFile
from .payloads import as_jpeg
from .shown import inside

MOST_SIDE_PX = 8192
"""Of a view; a run that says more is damaged."""


@dataclass(frozen=True)
class Photos:
    """A folder of photos. A run may be anybody's, so that what it says of their paths is not believed.

    folder: that holds the photos, in as many of the folders above them as they had.
    max_pixels: largest photo to read, in px.
    """

    folder: Path
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Raise InputError where there is no such folder."""
        if not self.folder.is_dir():
            raise InputError(f"photos must be a folder, got {str(self.folder)!r}.")

    def find(self, key: str) -> Path | None:
        """Return where the photo of a key lies, by the longest end of it that is there; None where none is."""
        parts = Path(key).parts[os.path.isabs(key) :]
        for first in range(len(parts)):
            try:
                path = inside(self.folder, os.path.join(*parts[first:]))
            except AtlasError:
                continue
            if path.is_file():
                return path
        return None

    def view(self, path: Path, view_of: Callable[[int, int], View | None]) -> bytes | None:
        """Return what a model saw of a photo, as JPEG.

        Args:
            path: of the photo.
            view_of: height and width of the photo -> the view; None where that is not known.

        Returns:
            The JPEG; None where the view is not known.

        Raises:
            ImageError: the photo cannot be read.
        """
        image: Any = decode_file(path, self.max_pixels, AS_USUAL)
        view = view_of(image.height, image.width)
        if view is None:
            return None
        top, left, bottom, right = map(round, view.box)
        if max(*view.size, 1) > MOST_SIDE_PX or (bottom - top) * (right - left) > self.max_pixels:
            return None
        part = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))  # black where it was padded
        return as_jpeg(part.resize((view.size[1], view.size[0]), reducing_gap=2.0))

    def of_top(self, top: TopFile) -> TopFile:
        """Return the strongest images of a run with the photos that lie in the folder; the others have no file."""
        photos = {key: self._held(Photo.from_json(record)).to_json() for key, record in top.photos.items()}
        return replace(top, photos=photos)

    def _held(self, photo: Photo) -> Photo:
        there = moved(photo, self.folder)
        home = os.path.realpath(self.folder) + os.sep
        held = there.path is not None and os.path.realpath(there.path).startswith(home)
        return there if held else replace(photo, path=None)
