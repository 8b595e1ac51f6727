"""Images to encode, files assembled from native strips, and their decoding by other people's decoders."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image
from support.native_module import load_native

native = load_native()
LEVELS = native.vector_levels()
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, INDEXED = 0, 2, 3

# Around the 16, 32 and 64 bytes of the vectors, the 258 of the longest match, and the 32,768 of deflate's window.
WIDTHS = [1, 2, 3, 15, 16, 17, 31, 32, 33, 34, 47, 48, 49, 63, 64, 65, 66, 95, 96, 97, 127, 128, 129, 191, 192, 193]
MATCH_WIDTHS = [255, 256, 257, 258, 259, 260, 261, 289, 290, 291, 292, 515, 516, 517, 518, 519, 520, 774, 775]
WINDOW_WIDTHS = [32767, 32768, 33000, 70001]
RUN_LENGTHS = [1, 2, 3, 30, 31, 32, 33, 34, 62, 63, 64, 65, 257, 258, 259, 260, 290, 516, 517]


def chunk(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def encode_strip(rows: np.ndarray, bytes_per_pixel: int) -> tuple[bytes, int, int]:
    # Bytes after the bound must stay as they are.
    bound = native.strip_bound(*rows.shape)
    out = np.full(bound + 64, 0xA5, np.uint8)
    size, adler, filtered_bytes = native.encode_strip(rows, bytes_per_pixel, out[:bound])
    assert 12 < size <= bound
    assert (out[bound:] == 0xA5).all()
    return out[:size].tobytes(), adler, filtered_bytes


def encode_png(image: np.ndarray, strip_rows: int = 64, palette: bytes | None = None) -> bytes:
    """A file from strips, as the package writes it; image (h, w) or (h, w, 3)."""
    height, width = image.shape[:2]
    bytes_per_pixel = image[0, 0].size
    rows = np.ascontiguousarray(image).reshape(height, -1)
    kind = RGB if bytes_per_pixel == 3 else GREY if palette is None else INDEXED
    parts = [SIGNATURE, chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette is not None:
        parts.append(chunk(b"PLTE", palette))
    parts.append(chunk(b"IDAT", b"\x78\x01"))
    adler = 1
    for y in range(0, height, strip_rows):
        encoded, strip_adler, filtered_bytes = encode_strip(rows[y : y + strip_rows], bytes_per_pixel)
        parts.append(encoded)
        adler = native.adler32_combine(adler, strip_adler, filtered_bytes)
    parts += [chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", adler)), chunk(b"IEND", b"")]
    return b"".join(parts)


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    assert png.startswith(SIGNATURE)
    found, at = [], len(SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kind, contents = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size)[0] == zlib.crc32(kind + contents)
        found.append((kind, contents))
        at += 12 + size
    return found


def filtered_rows(png: bytes) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(b"".join(contents for kind, contents in chunks_of(png) if kind == b"IDAT"))
    assert inflater.eof
    assert not inflater.unused_data
    return raw


def assert_decodes(png: bytes, image: np.ndarray, palette: bytes | None = None) -> None:
    assert len(filtered_rows(png)) == image.shape[0] * (image[0].size + 1)
    with Image.open(io.BytesIO(png)) as decoded:
        assert decoded.mode == ("RGB" if image.ndim == 3 else "L" if palette is None else "P")
        np.testing.assert_array_equal(np.asarray(decoded), image)
    if palette is None:
        decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded if image.ndim == 2 else decoded[:, :, ::-1], image)


def smooth(height: int, width: int, seed: int = 0, tile: int = 56) -> np.ndarray:
    """Coarse random maps enlarged bilinearly, side by side: what a sheet looks like."""
    rng = np.random.default_rng(seed)
    rows, cols = -(-height // tile), -(-width // tile)
    maps = (rng.gamma(0.5, 1.0, (rows * cols, 7, 7)) * 120).clip(0, 255).astype(np.uint8)
    tiles = [cv2.resize(m, (tile, tile), interpolation=cv2.INTER_LINEAR) for m in maps]
    sheet = np.stack(tiles).reshape(rows, cols, tile, tile).transpose(0, 2, 1, 3).reshape(rows * tile, cols * tile)
    return np.ascontiguousarray(sheet[:height, :width])


def draw(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "zero":
        return np.zeros((height, width), np.uint8)
    if kind == "equal":
        return np.full((height, width), rng.integers(256), np.uint8)
    if kind == "noise":
        return rng.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == "two":
        return rng.integers(0, 2, (height, width), dtype=np.uint8) * 255
    if kind == "runs":
        lengths = rng.choice(RUN_LENGTHS, height * width)
        values = rng.integers(0, 4, height * width, dtype=np.uint8)
        return np.repeat(values[: height * width], lengths)[: height * width].reshape(height, width)
    if kind == "skewed":
        return np.minimum(rng.geometric(0.5, (height, width)) * 7, 255).astype(np.uint8)
    if kind == "gaps":
        image = np.kron(rng.integers(0, 256, (-(-height // 20), -(-width // 20))), np.ones((20, 20))).astype(np.uint8)
        image[::20] = 3
        image[:, ::20] = 3
        return image[:height, :width].copy()
    return smooth(height, width, seed)


KINDS = ["zero", "equal", "noise", "two", "runs", "skewed", "gaps", "smooth"]
