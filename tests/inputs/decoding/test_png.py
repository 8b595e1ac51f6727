"""PNG whose pixels are sound, however its metadata are, against the pixels that went in."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from support.pngs import SIGNATURE, chunk

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_bytes
from cnnviz_fast.inputs.decoding.png import without_metadata
from cnnviz_fast.options.reading import MAX_PIXELS, ImageOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
BIG = b"a" * (2 << 20)
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 16, 8, 2, 0, 0, 0))
IMAGE = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
END = chunk(b"IEND", b"")


def with_wrong_crc(kind: bytes, contents: bytes) -> bytes:
    whole = chunk(kind, contents)
    return whole[:-4] + bytes(byte ^ 0xFF for byte in whole[-4:])


def png(*before: bytes, after: bytes = b"", image: bytes | None = None, end: bytes = END) -> bytes:
    return SIGNATURE + HEADER + b"".join(before) + (image or chunk(b"IDAT", IMAGE)) + after + end


def pixels(content: bytes, **options: object) -> np.ndarray:
    return np.asarray(decode_bytes(content, "a.png", MAX_PIXELS, ImageOptions(**options)))  # type: ignore[arg-type]


SOUND = {
    "large iCCP": png(chunk(b"iCCP", b"p\0\0" + zlib.compress(BIG))),
    "large zTXt": png(chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BIG))),
    "large iTXt": png(chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(BIG))),
    "large XMP": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG))),
    "large EXIF as text": png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(BIG))),
    "large tEXt": png(chunk(b"tEXt", b"prompt\0" + BIG)),
    "many tEXt": png(*[chunk(b"tEXt", b"k%d\0" % i + BIG) for i in range(40)]),
    "zTXt that is no zlib": png(chunk(b"zTXt", b"workflow\0\0no")),
    "iCCP that is no zlib": png(chunk(b"iCCP", b"p\0\0no")),
    "eXIf that is none": png(chunk(b"eXIf", b"garbage")),
    "large after the image": png(after=chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BIG))),
    "short gAMA, cHRM, pHYs": png(chunk(b"gAMA", b""), chunk(b"cHRM", b"1"), chunk(b"pHYs", b"1")),
    "animation that is none": png(chunk(b"acTL", b"\0"), chunk(b"fcTL", b"1")),
    "text in the midst of the image": png(
        image=chunk(b"IDAT", IMAGE[:100]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", IMAGE[100:])
    ),
    "empty parts of the image": png(image=chunk(b"IDAT", b"") + chunk(b"IDAT", IMAGE) + chunk(b"IDAT", b"")),
    "no end": png(end=b""),
    "bytes after the end": png() + BIG,
    "another image after the end": png() + png(),
    "what is no chunk after the image": png(after=b"\xff" * 100),
    "a chunk after the image that is cut off": png(end=chunk(b"tEXt", b"a\0" + BIG)[:1000]),
    **{
        f"wrong CRC of {kind.decode()}": png(with_wrong_crc(kind, b"a\0b"))
        for kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"pHYs", b"tIME", b"sBIT", b"prVt")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_decode_bytes_png_of_sound_pixels_is_read_whatever_its_metadata(name: str) -> None:
    np.testing.assert_array_equal(pixels(SOUND[name]), PIXELS)


def test_without_metadata_of_a_plain_file_is_the_file_itself() -> None:
    file = io.BytesIO(png())
    assert without_metadata(file).file is file
    assert file.tell() == 0


@pytest.mark.parametrize(
    "text",
    [
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>')),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
    ],
)
def test_decode_bytes_png_orientation_is_kept(text: bytes) -> None:
    np.testing.assert_array_equal(pixels(png(text)), np.rot90(PIXELS, -1))


PALETTED = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0))


@pytest.mark.parametrize("broken", [
    png(with_wrong_crc(b"tRNS", b"\0\1\0\2\0\3")),  # which colours are transparent is not sure
    png(chunk(b"CgBI", b"0000")),
    png(chunk(b"ABCD", b"0000")),
    SIGNATURE + HEADER[:-1] + b"\0" + chunk(b"IDAT", IMAGE) + END,
    png(image=chunk(b"IDAT", IMAGE[:-200])),
    SIGNATURE + PALETTED + chunk(b"IDAT", zlib.compress(bytes(8))) + END,  # numbers without their colours
    SIGNATURE + PALETTED + chunk(b"IDAT", zlib.compress(bytes(8))) + chunk(b"PLTE", b"abc") + END,
])  # fmt: skip
def test_decode_bytes_png_of_unsound_pixels_is_refused(broken: bytes) -> None:
    with pytest.raises(ImageError, match=r"^image 'a\.png' cannot be read: .*\.$"):
        pixels(broken)


def wide(values: object, colour: int, *chunks: bytes) -> bytes:
    """Return a PNG of 16 bits a sample: (H, W[, C]) values."""
    rows = np.asarray(values, ">u2")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, colour, 0, 0, 0))
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    return SIGNATURE + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(filtered)) + END


TWELVE = np.array([[0, 273, 2048, 4095]])


@pytest.mark.parametrize(("values", "colour", "bits"), [
    (TWELVE, 0, b"\x0c"),
    (TWELVE[..., None].repeat(3, axis=2), 2, b"\x0c" * 3),
    (np.dstack([TWELVE, TWELVE, TWELVE, TWELVE * 0 + 65535]), 6, b"\x0c" * 4),
])  # fmt: skip
def test_decode_bytes_png_heeds_its_significant_bits(values: np.ndarray, colour: int, bits: bytes) -> None:
    found = pixels(wide(values, colour, chunk(b"sBIT", bits)))
    np.testing.assert_array_equal(found[0, :, 0], [0, 17, 128, 255])


def test_decode_bytes_png_whose_high_bits_are_significant_keeps_its_peak() -> None:
    found = pixels(wide([[0, 0x2000, 0xFFF0]], 0, chunk(b"sBIT", b"\x0c")))  # as PNG asks for it
    np.testing.assert_array_equal(found[0, :, 0], [0, 32, 255])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_decode_bytes_png_input_range_scales_all_bits(channels: int) -> None:
    values = TWELVE if channels == 1 else TWELVE[..., None].repeat(channels, axis=2)
    if channels == 4:
        values[..., 3] = 65535
    found = pixels(wide(values, {1: 0, 3: 2, 4: 6}[channels]), input_range="0:4095")
    np.testing.assert_array_equal(found[0, :, 0], [0, 17, 128, 255])


@pytest.mark.parametrize(("values", "colour"), [(TWELVE, 0), (TWELVE[..., None].repeat(3, axis=2), 2)])
def test_decode_bytes_png_near_black_is_said_with_what_to_do(values: np.ndarray, colour: int) -> None:
    with pytest.warns(UserWarning, match=r"^image 'a\.png' is near black: .*4095 of 65535.* --input-range 0:4095\.$"):
        assert pixels(wide(values, colour)).max() == 15 + (colour == 0)


def test_decode_bytes_png_that_is_black_says_nothing() -> None:
    assert pixels(wide(np.zeros((2, 2, 3)), 2)).max() == 0


def test_decode_bytes_png_cut_off_is_drawn_as_far_as_it_goes_where_that_is_allowed() -> None:
    cut = png(image=chunk(b"IDAT", IMAGE)[:-400], end=b"")
    with pytest.raises(ImageError, match="cannot be read"):
        pixels(cut)
    with pytest.warns(UserWarning, match=r"^image 'a\.png' is damaged"):
        found = pixels(cut, truncated="allow")
    np.testing.assert_array_equal(found[:4], PIXELS[:4])
    assert found[-1].max() == 0
