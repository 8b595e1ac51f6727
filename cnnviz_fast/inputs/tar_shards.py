"""Tar files in the form of webdataset, whose images are read in place, without unpacking."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import ImageError, reason_of
from ..runtime.untrusted import open_regular
from .catalogue import Catalogue, Failure, ListedImage
from .find import has_extension
from .in_memory import Encoded
from .sets import COMPRESSED

_PACKERS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_SPARSE = 0  # stands for the size of a sparse member; like an empty one, it cannot be read in place


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file. Members with an image's extension are listed with their first byte and size."""

    path: str

    def key(self, text: str) -> str:
        """Return SHARD/MEMBER."""
        return f"{self.path}/{text}"

    def open(self, image: ListedImage) -> Encoded:
        """Read a member."""
        try:
            with open_regular(self.path) as file:  # buffered: one system call reads at most 2 GiB
                file.seek(image.start)
                content = file.read(image.size)
        except OSError as error:
            raise ImageError(f"image {image.name!r} cannot be read: {reason_of(error)}.") from error
        if len(content) < image.size:
            raise ImageError(f"image {image.name!r} is cut off: the shard has changed since it was listed.")
        if image.size == _SPARSE:
            raise ImageError(f"image {image.name!r} is empty (0 bytes) or sparse. Pack it again without --sparse.")
        return Encoded(image.name, content)


def refuse_compressed(path: str) -> None:
    """Raise ImageError for a tar file that is compressed as a whole: its members cannot be read one by one."""
    with open_regular(path) as file:
        head = file.read(6)
    packer = next((packer for magic, packer in _PACKERS.items() if head.startswith(magic)), None)
    if packer or path.lower().endswith(COMPRESSED):
        advice = f"Unpack it once: {packer} {os.path.basename(path)}" if packer else "Unpack it once"
        raise ImageError(f"shard {path!r} must be a plain .tar, not a compressed one. {advice}.")


def members_of(path: str) -> Iterator[tuple[str, int, int]]:
    """Return the files in a tar file, one after another; links, folders and other members are passed over.

    Args:
        path: of a .tar file.

    Yields:
        Name, first byte and size of each; the size is 0 for a sparse one, whose content is not in one piece.

    Raises:
        ImageError: it is compressed.
        Exception: it is damaged; tarfile then raises TarError, ValueError, RecursionError, ...
    """
    refuse_compressed(path)
    with open_regular(path) as file:
        end = os.fstat(file.fileno()).st_size
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while tar.offset and (member := tar.next()) is not None:  # Python 3.10 seeks to -1 where there is none
                tar.members.clear()  # type: ignore[attr-defined]  # so that a million of them do not stay in memory
                if member.offset_data + (0 if member.issparse() else member.size) > end:
                    raise tarfile.ReadError(f"{member.name!r} is cut off")
                if member.isreg():
                    name = re.sub(r"^(\./+)+", "", member.name)
                    yield name, member.offset_data, _SPARSE if member.issparse() else member.size
            _check_end(file, tar.offset)


def list_shard(path: str, catalogue: Catalogue, arrays: bool = False) -> None:
    """List the images in a tar file; damage to it becomes one failure of the catalogue.

    The last of several members of one name counts, as it does when tar unpacks. In webdataset a sample's key is the
    member's name up to its first dot; here it is the whole name, so that `7.jpg` and `7.mask.png` are two images.

    Args:
        path: of a .tar file.
        catalogue: to add to.
        arrays: whether members that are .npy or .npz count as images.

    Raises:
        ImageError: it is compressed.
    """
    places: dict[str, tuple[int, int]] = {}
    members = 0
    try:
        for name, start, size in members_of(path):
            if has_extension(name, arrays) and not os.path.basename(name).startswith("."):
                members += 1
                places[name] = (start, size)
    except ImageError:
        raise
    except Exception as error:
        found = f" after {len(places):,} images" if places else ""
        catalogue.failures.append(Failure(path, f"shard {path!r} is damaged{found}: {reason_of(error)}."))
    else:
        if not places:
            catalogue.failures.append(Failure(path, f"shard {path!r} holds no images."))
    shard = Shard(path)
    for name, (start, size) in places.items():
        catalogue.add(shard, name, start, size)
    catalogue.repeats += members - len(places)


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raise ReadError unless the end mark is there: `tarfile` stops silently at a header that it cannot read."""
    file.seek(offset)
    header = file.read(tarfile.BLOCKSIZE)
    if len(header) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends without the mark of its end")
    if header.strip(tarfile.NUL):
        raise tarfile.ReadError(f"no valid header at byte {offset:,}")
