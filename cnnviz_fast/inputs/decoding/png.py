"""PNG without its metadata: damage in them, or their size, is no reason to refuse pixels that are sound."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from .wide import Samples, is_near_black, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}  # without any of these the pixels would be others
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # texts in which Pillow 13 looks for it
_LARGEST_TEXT_BYTES = 1 << 16  # an EXIF record is at most this long; Pillow refuses a text of 16 times that
_MOST_TWICE_PX = 1 << 24
"""Larger images are decoded a second time only where that is asked for: this takes 0.5 s."""

_PALETTED = b"\3"  # colour type in IHDR

_END = b"\0\0\0\0IEND\xaeB`\x82"


class Chunk(NamedTuple):
    """A chunk of a PNG: its kind, its first byte in the file, that of its length, and the size of its content."""

    kind: bytes
    start: int
    size: int


class PlainPng(NamedTuple):
    """What is left of a PNG: the chunks that its pixels need, and its sBIT, which is no part of what Pillow reads."""

    file: BinaryIO
    significant_bits: int | None
    fault: str


def without_metadata(file: BinaryIO) -> PlainPng:
    """Return a PNG with only what its pixels and its orientation need; the file itself where it holds nothing else.

    Args:
        file: at its first byte.

    Returns:
        The file to be decoded; how many bits are significant in each sample, where it says that; and why its pixels
        cannot be known, "" where they can.
    """
    chunks = list(_chunks(file))
    kept = [chunk for chunk in chunks if chunk.kind in _NEEDED or _tells_orientation(file, chunk)]
    fault = _fault(file, chunks)
    bits = next((max(_content(file, c), default=0) for c in chunks if c.kind == b"sBIT" and _is_sound(file, c)), None)
    file.seek(0)
    if len(kept) < len(chunks) or not kept or kept[-1].kind != b"IEND":
        file = io.BytesIO(SIGNATURE + b"".join(_whole(file, c) for c in kept if c.kind != b"IEND") + _END)
    return PlainPng(file, bits, fault)


def tells_orientation(file: BinaryIO) -> bool:
    """Check for anything in a PNG that may turn it."""
    return any(_tells_orientation(file, chunk) for chunk in _chunks(file))


def _fault(file: BinaryIO, chunks: list[Chunk]) -> str:
    """Return why pixels cannot be known: an unknown chunk, such as Apple's CgBI, that changes them, or no palette."""
    unknown = next((c.kind for c in chunks if not c.kind[0] & 32 and c.kind not in _NEEDED), None)
    if unknown is not None:
        return f"{unknown.decode('ascii')} is no chunk of PNG"
    before = [chunk.kind for chunk in itertools.takewhile(lambda chunk: chunk.kind != b"IDAT", chunks)]
    if before[:1] == [b"IHDR"] and _content(file, chunks[0])[9:10] == _PALETTED and b"PLTE" not in before:
        return "its palette is missing"  # Pillow 13 makes it all black
    return ""


def _chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Walk the chunks up to IEND, to the end of the file, or to bytes that are no chunk."""
    start = len(SIGNATURE)
    while True:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            return
        chunk = Chunk(head[4:], start, int.from_bytes(head[:4], "big"))
        yield chunk
        if chunk.kind == b"IEND":
            return
        start += chunk.size + 12


def _whole(file: BinaryIO, chunk: Chunk) -> bytes:
    file.seek(chunk.start)
    return file.read(chunk.size + 12)


def _content(file: BinaryIO, chunk: Chunk) -> bytes:
    return _whole(file, chunk)[8:-4]


def _is_sound(file: BinaryIO, chunk: Chunk) -> bool:
    """Check the CRC of a small chunk; a large one counts as none of those that are looked at."""
    if chunk.size > _LARGEST_TEXT_BYTES:
        return False
    whole = _whole(file, chunk)
    return len(whole) == chunk.size + 12 and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")


def _tells_orientation(file: BinaryIO, chunk: Chunk) -> bool:
    """Check for EXIF or for a text that may hold the orientation, sound and of a plausible size."""
    if chunk.kind not in (b"eXIf", *_TEXTS) or not _is_sound(file, chunk):
        return False
    content = _content(file, chunk)
    return chunk.kind == b"eXIf" or (content.startswith(_ORIENTATION) and _unpacks_small(chunk.kind, content))


def _unpacks_small(kind: bytes, content: bytes) -> bool:
    """Check that a text, if it is compressed, is of a plausible size once it is unpacked."""
    text = content.partition(b"\0")[2]
    if kind == b"iTXt" and text.startswith(b"\1"):
        text = text[1:2] + text[2:].split(b"\0", 2)[-1]  # without the language, and the keyword in it
    elif kind != b"zTXt":
        return True
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(text[1:], _LARGEST_TEXT_BYTES)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail


def wide_colour(image: PilImage, opened: Callable[[], PilImage], all_bits: bool) -> Samples | None:
    """Return all 16 bits of a PNG in colour where they matter: they are asked for, or it is near black.

    Pillow 13 keeps the high bytes of such colour. The low ones come from decoding once more with its raw mode for
    samples whose bytes stand the other way round.

    Args:
        image: opened. It is loaded.
        opened: opens it once more.
        all_bits: whether they are asked for.

    Returns:
        Its samples; None where the high bytes are enough.
    """
    raw_mode = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined]
    if raw_mode not in ("RGB;16B", "RGBA;16B") or "transparency" in image.info:
        return None
    image.load()
    if not all_bits and (image.width * image.height > _MOST_TWICE_PX or not is_near_black(image)):
        return None
    low = opened()
    low.tile = [low.tile[0]._replace(args=raw_mode[:-1] + "L")]  # type: ignore[attr-defined]
    low.load()
    highs, lows = rows_of(image), rows_of(low)

    def read(first: int, last: int) -> NDArray[np.uint16]:
        return np.asarray(highs(first, last).astype(np.uint16) << 8 | lows(first, last))

    return Samples(image.size, image.mode, read, 65535.0, keeps_high_bytes=True)
