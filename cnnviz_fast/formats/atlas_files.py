"""Atlases on a disk: single files, those in a folder and below it, and those in tar files, found and not yet read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import AtlasError, ImageError, reason_of
from ..inputs.tar_shards import members_of
from ..runtime.untrusted import open_regular
from .atlas_head import SUFFIX, AtlasHead, read_head

if TYPE_CHECKING:
    from .atlas import Atlas

HEAD_BYTES = 4096
"""Of an atlas are read to name its files; 720 were enough at a path of 240. With names of classes all of it is read."""


@dataclass(frozen=True)
class AtlasFile:
    """Where an atlas lies.

    name: its path; of one in a tar file, the path of the tar and the member's name.
    path: of the file, or of the tar.
    start: its first byte there.
    size: bytes; None for all of the file.
    damage: why it cannot be read, where that is known already.
    """

    name: str
    path: Path
    start: int = 0
    size: int | None = None
    damage: str | None = None

    def content(self, limit: int = -1) -> bytes:
        """Read its bytes, or with a limit its first ones.

        Raises:
            AtlasError: it cannot be read, or is cut off.
        """
        if self.damage is not None:
            raise AtlasError(self.damage)
        wanted = -1 if self.size is None else self.size
        if limit >= 0:
            wanted = limit if wanted < 0 else min(limit, wanted)
        try:
            with open_regular(self.path) as file:
                file.seek(self.start)
                return file.read(wanted)
        except OSError as error:
            raise AtlasError(f"atlas {self.name!r} cannot be read: {reason_of(error)}.") from error

    def read(self) -> Atlas:
        """Read the atlas; raise AtlasError where it is damaged."""
        from .atlas import parse_atlas

        return parse_atlas(self.content(), self.name)

    def head(self) -> AtlasHead:
        """Read what its head says; raise AtlasError where that is damaged."""
        with contextlib.suppress(AtlasError):
            return read_head(self.content(HEAD_BYTES), self.name)
        return read_head(self.content(), self.name)

    def layer(self) -> str:
        """Return the layer that it shows; where it does not say, or is damaged, the name of the folder it lies in."""
        with contextlib.suppress(AtlasError):  # if all of it is damaged, drawing it says what is wrong
            if (layer := self.head().layer) is not None:
                return layer
        return os.path.basename(os.path.dirname(os.path.abspath(self.name)))


def find_atlases(names: Sequence[str | os.PathLike[str]]) -> list[AtlasFile]:
    """List the atlases that are named, and those in the folders and tar files that are named.

    Args:
        names: paths.

    Returns:
        The atlases, none twice.

    Raises:
        AtlasError: a folder cannot be read, or one or a tar file holds no atlas.
        ImageError: a tar file is compressed.
    """
    found: list[AtlasFile] = []
    for path in map(Path, names):
        if path.is_dir():
            kind, inside = "folder", list(_in_folder(path))
        elif is_tar(path.name):
            kind, inside = "tar", list(_in_tar(path))
        else:
            kind, inside = "file", [AtlasFile(path.as_posix(), path)]
        if not inside:
            raise AtlasError(f"{kind} {str(path)!r} holds no atlases ({SUFFIX}).")
        found += inside
    return list({each.name: each for each in found}.values())


def _in_folder(folder: Path) -> Iterator[AtlasFile]:
    """Find the atlases in a folder and in the folders and tar files below it, by name; hidden ones are left out."""

    def refuse(error: OSError) -> NoReturn:
        raise AtlasError(f"folder {error.filename!r} cannot be read: {reason_of(error)}.") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix == SUFFIX:
                yield AtlasFile(path.as_posix(), path)
            elif is_tar(name):
                yield from _in_tar(path)


def is_tar(name: str) -> bool:
    """Check whether a file is a tar by its name."""
    return name.lower().endswith(".tar")


def _in_tar(path: Path) -> Iterator[AtlasFile]:
    """Find the atlases in a tar file. Of members of the same name the last counts, as when it is unpacked.

    Where the file is damaged, one more is found, which cannot be read.
    """
    places: dict[str, tuple[int, int]] = {}
    damage: Exception | None = None
    try:
        for member, start, size in members_of(str(path)):
            if member.endswith(SUFFIX):
                places[member] = (start, size)
    except ImageError:
        raise
    except Exception as error:
        damage = error
    for member, (start, size) in places.items():
        parts = (part for part in member.split("/") if part not in (".", ".."))
        if not any(part.startswith(".") for part in parts):
            yield AtlasFile(f"{path.as_posix()}/{member}", path, start, size)
    if damage is not None:
        why = f"tar {str(path)!r} cannot be read to its end: {reason_of(damage)}."
        yield AtlasFile(path.as_posix(), path, damage=why)
