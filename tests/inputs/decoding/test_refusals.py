"""What is no image that can be read is named for what it is."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_bytes, decode_file, decode_pil_image
from cnnviz_fast.inputs.decoding import formats, refusals
from cnnviz_fast.options.reading import MAX_PIXELS


def ftyp(brand: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(body) + 4) + body + bytes(200)


FILES = {
    "a HEIC image": [ftyp(b"heic", b"mif1", b"heic"), ftyp(b"mif1", b"mif1", b"heic"), ftyp(b"heix"), ftyp(b"hevc")],
    "a Canon raw image": [ftyp(b"crx "), b"II*\0\x10\0\0\0CR\2\0"],
    "a PAM image": [b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\nabc"],
    "a PFM image in colour": [b"PF\n1 1\n-1.0\n" + bytes(12)],
    "a QuickTime or MP4 video": [ftyp(b"isom", b"mp41"), ftyp(b"qt  "), bytes(4) + b"moov" + bytes(100)],
    "a JPEG XL image": [b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n"],
    "a JPEG 2000 image": [b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51\0"],
    "a DICOM image": [bytes(128) + b"DICM" + bytes(60)],
    "an OpenEXR image": [b"\x76\x2f\x31\x01\2\0\0\0"],
    "a Photoshop document": [b"8BPS\0\1"],
    "a PDF document": [b"%PDF-1.7\n%\xe2\xe3", b"\n\n%PDF-1.4"],
    "an SVG drawing": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg>',
        b'\xef\xbb\xbf<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd"><svg>',
    ],
    "a web page (HTML)": [b"<!DOCTYPE html><html>", b"\n <html><head>", b"<!-- x --><HTML>", b"<!doctype HTML>"],
    "XML": [b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'],
    "JSON": [b'{"error": 404}', b"[1, 2]", b' {"a": 1}', b"[]", b"{}"],
    "text": [b"hello world, this is no image", "h\xe9llo".encode(), b"\xff\xfeh\0i\0"],
    "a pointer of Git LFS": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"],
    "a pointer of git-annex": [b"../.git/annex/objects/xx/yy/SHA", b"/annex/objects/SHA256E-s1--a.jpg\n"],
    "a zip archive": [b"PK\3\4" + bytes(30), b"PK\5\6" + bytes(18)],
    "a gzip archive": [b"\x1f\x8b\x08\0"],
    "a RAR archive": [b"Rar!\x1a\7\0"],
    "an AVI video": [b"RIFF\0\0\0\0AVI LIST"],
    "a WebM or Matroska video": [b"\x1a\x45\xdf\xa3\0"],
    "an HDF5 file": [b"\x89HDF\r\n\x1a\n"],
    "an NPY array": [b"\x93NUMPY\1\0"],
    "an icon": [b"\0\0\1\0\1\0"],
    "a pickle": [b"\x80\4\x95"],
    "zeros": [bytes(300), bytes(9)],
}


@pytest.mark.parametrize("kind", FILES)
def test_decode_bytes_of_what_is_no_image_names_it(kind: str) -> None:
    for content in FILES[kind]:
        with pytest.raises(ImageError) as caught:
            decode_bytes(content, "a.png", MAX_PIXELS)
        message = str(caught.value)
        assert message.startswith("image 'a.png' must be one of PNG, JPEG, "), content
        assert f", but it is {kind}" in message, message
        assert message.endswith(".")
        assert "\n" not in message


def test_decode_bytes_of_the_unknown_says_so() -> None:
    with pytest.raises(ImageError, match=r"but its content is none of them\.$"):
        decode_bytes(b"\x07\x01\xf3\x00\x99" * 9, "a.png", MAX_PIXELS)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_decode_file_avif_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (16, 24), (255, 0, 0)).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    found = decode_file(tmp_path / "a.avif", MAX_PIXELS)
    assert found.size == (16, 24)
    red, green, blue = found.getpixel((8, 8))  # type: ignore[misc]
    assert red > 250
    assert max(green, blue) < 5


def test_decode_file_avif_without_support_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz_fast.inputs.decoding.formats.features_of_pillow", lambda: ())
    formats.is_readable.cache_clear()
    try:
        with pytest.raises(ImageError, match=r"JPEG, WEBP, BMP, .* but it is an AVIF image\. This Pillow reads none"):
            decode_bytes(ftyp(b"avif"), "a.avif", MAX_PIXELS)
    finally:
        formats.is_readable.cache_clear()


def test_decode_file_raw_image_of_a_camera_is_not_its_preview(tmp_path: Path) -> None:
    preview, whole = np.zeros((4, 6, 3), np.uint8), np.zeros((40, 60), np.uint16)
    for options in ({"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}, {"subifds": 1, "subfiletype": 1}):
        with tifffile.TiffWriter(tmp_path / "a.dng") as tiff:
            tiff.write(preview, photometric="rgb", **options)  # type: ignore[arg-type]
            tiff.write(whole, photometric="minisblack")
        with pytest.raises(ImageError, match=r"a\.dng' is a raw image of a camera\. Develop it"):
            decode_file(tmp_path / "a.dng", MAX_PIXELS)


def test_decode_bytes_that_would_take_minutes_is_refused_at_once() -> None:
    row = bytes([255, 7]) * 52 + bytes([80, 7, 0, 0])
    rle = row * 13340
    header = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 1078, 40, 13340, 13340, 1, 8, 1, len(rle), 0, 0, 256, 0)
    for content in (
        b"P3\n13340 13340\n255\n",
        b"P1\n13340 13340\n",
        b"BM" + header + bytes(1024) + rle,
    ):
        with pytest.raises(ImageError, match=r"of 13340 x 13340 pixels would take too long to decode.*Save it as PNG"):
            decode_bytes(content, "a", MAX_PIXELS)


def test_decode_bytes_of_costly_kinds_has_limits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = Image.new("RGB", (16, 16), "red")
    contents = {"WEBP": colours, "LAB": Image.new("LAB", (16, 16))}
    contents |= {"AVIF": colours} if features.check("avif") else {}
    for kind, image in contents.items():
        file = io.BytesIO()
        image.save(file, "TIFF" if kind == "LAB" else kind)
        decode_bytes(file.getvalue(), "a", 256)  # whoever lowers the limit means that one
        monkeypatch.setitem(refusals._MOST_PIXELS, kind, 255)
        with pytest.raises(
            ImageError, match=rf"at most 255 pixels as {kind}, .* 16 x 16 = 256\. Raise max_pixels above"
        ):
            decode_bytes(file.getvalue(), "a", MAX_PIXELS)
        decode_bytes(file.getvalue(), "a", MAX_PIXELS + 1)


def test_decode_pil_image_that_is_loaded_has_cost_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "WEBP")
    monkeypatch.setitem(refusals._MOST_PIXELS, "WEBP", 255)
    with Image.open(file) as image:
        with pytest.raises(ImageError, match="at most 255 pixels as WEBP"):
            decode_pil_image(image, "a", MAX_PIXELS)
        image.load()
        assert decode_pil_image(image, "a", MAX_PIXELS).size == (16, 16)
