"""csrc through its Python surface: files decoded by zlib, Pillow, OpenCV and pngcheck, and every vector level against the scalar one."""

from __future__ import annotations

import errno
import importlib
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

REQUIRED = os.environ.get("CNNVIZ_REQUIRE_NATIVE", "0") not in ("", "0")


def load_native() -> ModuleType:
    try:
        return importlib.import_module("cnnviz_fast._native")
    except ImportError as error:
        if REQUIRED:
            raise
        pytest.skip(f"the native module is not built: {error}", allow_module_level=True)


native = load_native()
LEVELS = native.vector_levels()
FASTEST = native.vector_level()
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, INDEXED = 0, 2, 3

# Around the 16, 32 and 64 bytes of the vectors, the 258 of the longest match, and the 32,768 of deflate's window.
WIDTHS = [1, 2, 3, 15, 16, 17, 31, 32, 33, 34, 47, 48, 49, 63, 64, 65, 66, 95, 96, 97, 127, 128, 129, 191, 192, 193]
LONG_WIDTHS = [255, 256, 257, 258, 259, 260, 261, 289, 290, 291, 292, 515, 516, 517, 518, 519, 520, 774, 775, 32767, 32768, 33000, 70001]


@pytest.fixture(autouse=True)
def fastest_level() -> Iterator[None]:
    yield
    native.set_vector_level(FASTEST)


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
        lengths = rng.choice([1, 2, 3, 30, 31, 32, 33, 34, 62, 63, 64, 65, 257, 258, 259, 260, 290, 516, 517], height * width)
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


@given(
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 90),
    width=st.integers(1, 400) | st.sampled_from(WIDTHS + LONG_WIDTHS[:-4]),
    strip_rows=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from(LEVELS),
)
@settings(max_examples=300, deadline=None)
def test_encode_strip_random_grey_images_decode_equal(kind: str, height: int, width: int, strip_rows: int, seed: int, level: str) -> None:
    native.set_vector_level(level)
    image = draw(kind, height, width, seed)
    assert_decodes(encode_png(image, strip_rows), image)


@given(kind=st.sampled_from(KINDS), height=st.integers(1, 20), width=st.integers(1, 150), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_encode_strip_rgb_decodes_equal(kind: str, height: int, width: int, seed: int) -> None:
    image = draw(kind, height, width * 3, seed).reshape(height, width, 3)
    files = set()
    for level in LEVELS:
        native.set_vector_level(level)
        png = encode_png(image, 7)
        assert_decodes(png, image)
        files.add(png)
    assert len(files) == 1


@pytest.mark.parametrize("size", [2, 3, 16, 17, 255, 256])
def test_encode_strip_palette_decodes_equal(size: int) -> None:
    rng = np.random.default_rng(size)
    image = rng.integers(0, size, (40, 50), dtype=np.uint8)
    palette = rng.integers(0, 256, 3 * size, dtype=np.uint8)
    png = encode_png(image, 16, palette.tobytes())
    assert_decodes(png, image, palette.tobytes())
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(decoded, palette.reshape(-1, 3)[image])


@pytest.mark.parametrize("width", WIDTHS + LONG_WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_encode_strip_every_width_decodes_equal_at_every_level(kind: str, width: int) -> None:
    files = set()
    for level in LEVELS:
        native.set_vector_level(level)
        for height in range(1, 8 if width < 1000 else 3):
            image = draw(kind, height, width, width)
            png = encode_png(image)
            assert_decodes(png, image)
            files.add((height, png))
    assert len(files) == (7 if width < 1000 else 2), "levels differ"


@pytest.mark.parametrize("strip_rows", range(1, 68))
def test_encode_strip_every_strip_height_decodes_equal(strip_rows: int) -> None:
    image = smooth(67, 300)
    assert_decodes(encode_png(image, strip_rows), image)


@pytest.mark.parametrize("kind", KINDS)
def test_encode_strip_large_strips_same_bytes_at_every_level(kind: str) -> None:
    # Beyond the size up to which all symbols are counted.
    image = draw(kind, 64, 5003, 5)
    encoded = []
    for level in LEVELS:
        native.set_vector_level(level)
        encoded.append(encode_png(image))
    assert_decodes(encoded[0], image)
    assert all(other == encoded[0] for other in encoded)


def test_encode_strip_all_256_values_decode_equal() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256).repeat(5, axis=0)
    for candidate in (image, image.T.copy(), np.roll(image, 7, axis=1), (image * 37).astype(np.uint8)):
        assert_decodes(encode_png(candidate), candidate)


def test_encode_strip_run_lengths_around_matches_decode_equal() -> None:
    # A run of every length from 1 to 1100, each between two other values, at shifting positions.
    for first in range(1, 1100, 100):
        row = np.concatenate([np.r_[np.full(n, 9), 200, n % 256] for n in range(first, first + 100)]).astype(np.uint8)
        image = np.stack([row, np.roll(row, 1), row])
        files = set()
        for level in LEVELS:
            native.set_vector_level(level)
            files.add(encode_png(image))
        assert len(files) == 1
        assert_decodes(files.pop(), image)


@pytest.mark.parametrize("symbols", [1, 2, 20, 24])
def test_encode_strip_fibonacci_histogram_limits_code_lengths(symbols: int) -> None:
    # Fibonacci frequencies give a Huffman code as long as there are symbols: 24 exceed the limit of 14 bits.
    counts = [1, 1]
    while len(counts) < symbols:
        counts.append(counts[-1] + counts[-2])
    values = np.repeat(np.arange(symbols, dtype=np.uint8) * 10 + 3, counts[:symbols])
    np.random.default_rng(1).shuffle(values)
    image = values[: len(values) // 2 * 2].reshape(2, -1) if len(values) > 1 else values.reshape(1, 1)
    for candidate in (image, image[:1].copy()):
        assert_decodes(encode_png(candidate), candidate)


def test_encode_strip_late_noise_in_quiet_strip_is_stored_within_bound() -> None:
    # The rows that are counted are flat, all others noise: the codes made from them fit badly and the bound must hold.
    rng = np.random.default_rng(0)
    for height, width in ((64, 20000), (9, 30000), (33, 40000)):
        image = rng.integers(0, 256, (height, width), dtype=np.uint8)
        step = height * (width + 1) // (64 << 10)
        image[step // 2 :: step] = 7
        image[step // 2 - 1 :: step] = 7
        assert_decodes(encode_png(image, height), image)


def test_encode_strip_noise_costs_under_one_permille() -> None:
    image = draw("noise", 64, 10304, 0)
    encoded, _, filtered_bytes = encode_strip(image, 1)
    assert len(encoded) < filtered_bytes * 1.001


def test_encode_strip_zero_strip_is_under_0_2_percent() -> None:
    encoded, _, _ = encode_strip(np.zeros((64, 10304), np.uint8), 1)
    assert len(encoded) < 64 * 10304 * 0.002


def test_encode_strip_smooth_sheet_is_smaller_than_opencv_default() -> None:
    image = smooth(448, 10304, tile=224)
    ok, by_opencv = cv2.imencode(".png", image)
    assert ok
    assert len(encode_png(image)) < len(by_opencv)


def test_encode_strip_order_does_not_matter() -> None:
    image = smooth(200, 700)
    strips = [image[y : y + 32] for y in range(0, 200, 32)]
    forward = [encode_strip(strip, 1) for strip in strips]
    backward = [encode_strip(strip, 1) for strip in reversed(strips)][::-1]
    assert forward == backward
    # The memory around a strip does not matter either.
    assert [encode_strip(strip.copy(), 1) for strip in strips] == forward


def test_encode_strip_wrong_arguments_are_refused() -> None:
    pixels = np.zeros((4, 6), np.uint8)
    out = np.zeros(native.strip_bound(4, 6), np.uint8)
    with pytest.raises(ValueError, match="out must hold"):
        native.encode_strip(pixels, 1, out[:-1])
    with pytest.raises(ValueError, match="bytes_per_pixel"):
        native.encode_strip(pixels, 4, out)
    with pytest.raises(ValueError, match="bytes_per_pixel"):
        native.encode_strip(pixels, 0, out)
    with pytest.raises(ValueError, match="at least 1"):
        native.encode_strip(pixels[:0], 1, out)
    with pytest.raises(ValueError, match="fewer rows"):
        native.strip_bound(2**16, 2**16)
    readonly = out.copy()
    readonly.setflags(write=False)
    for bad_pixels, bad_out in (
        (pixels.astype(np.int8), out),
        (pixels[:, ::2], out),
        (pixels[0], out),
        (pixels, out[::2]),
        (pixels, out.astype(np.uint16)),
        (pixels, readonly),
    ):
        with pytest.raises(TypeError):
            native.encode_strip(bad_pixels, 1, bad_out)
    pixels.setflags(write=False)
    native.encode_strip(pixels, 1, out)


def reference_filter(filter_type: int, row: np.ndarray, above: np.ndarray, left: int) -> np.ndarray:
    a = np.r_[np.zeros(left, int), row[:-left].astype(int)][: len(row)]
    b = above.astype(int)
    c = np.r_[np.zeros(left, int), b[:-left]][: len(row)]
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    prediction = {0: 0 * a, 1: a, 2: b, 4: paeth}[filter_type]
    return ((row - prediction) & 255).astype(np.uint8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("filter_type", [0, 1, 2, 4])
def test_filter_row_equals_specification(level: str, filter_type: int) -> None:
    native.set_vector_level(level)
    rng = np.random.default_rng(0)
    for left in (1, 3):
        for width in [*range(1, 200), 258, 1000]:
            row, above = rng.integers(0, 256, (2, width * left), dtype=np.uint8)
            residuals = np.zeros_like(row)
            native.filter_row(filter_type, row, above, left, residuals)
            np.testing.assert_array_equal(residuals, reference_filter(filter_type, row, above, left))


@pytest.mark.parametrize("level", LEVELS)
def test_filter_paeth_all_triples(level: str) -> None:
    # "Pixels" of 65,536 bytes: the left one and the one above together run through all pairs, above left is one value a call.
    native.set_vector_level(level)
    left = np.arange(65536, dtype=np.uint32)
    row = np.concatenate([left & 255, np.zeros(65536)]).astype(np.uint8)
    residuals = np.zeros_like(row)
    for above_left in range(256):
        above = np.concatenate([np.full(65536, above_left), left >> 8]).astype(np.uint8)
        native.filter_row(4, row, above, 65536, residuals)
        expected = reference_filter(4, row, above, 65536)
        assert residuals.tobytes() == expected.tobytes()


@pytest.mark.parametrize("level", LEVELS)
def test_checksums_equal_zlib(level: str) -> None:
    native.set_vector_level(level)
    rng = np.random.default_rng(0)
    for size in [*range(300), 5551, 5552, 5553, 65535, 1 << 20, (1 << 22) + 17, (1 << 23) + 1]:
        for values in (rng.integers(0, 256, size, dtype=np.uint8), np.full(size, 255, np.uint8)):
            assert native.adler32(values) == zlib.adler32(values)
            assert native.crc32(values) == zlib.crc32(values)
    start = rng.integers(0, 2**32)
    assert native.crc32(values, start) == zlib.crc32(values, start)
    assert native.adler32(values, 65520 << 16 | 65520) == zlib.adler32(values, 65520 << 16 | 65520)


@given(first=st.binary(max_size=200), second=st.binary(max_size=200), repeats=st.integers(0, 2000))
def test_adler32_combine_equals_checksum_of_the_whole(first: bytes, second: bytes, repeats: int) -> None:
    second = second * repeats
    combined = native.adler32_combine(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


def test_set_vector_level_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of 'scalar'"):
        native.set_vector_level("mmx")


@pytest.mark.parametrize(("value", "expected"), [("1", "scalar"), ("0", FASTEST), ("", FASTEST)])
def test_vector_level_environment_switches_off(value: str, expected: str) -> None:
    code = "import cnnviz_fast._native as n; print(n.vector_level())"
    env = {**os.environ, "CNNVIZ_NO_SIMD": value}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    if not os.environ.get("CNNVIZ_NO_SIMD"):
        assert found.strip() == expected


def test_files_pass_pngcheck(tmp_path: Path) -> None:
    pngcheck = shutil.which("pngcheck")
    if pngcheck is None:
        pytest.skip("pngcheck is not on PATH (Debian package pngcheck)")
    for kind in KINDS:
        for height, width in ((1, 1), (3, 5), (64, 300), (130, 1000)):
            image = draw(kind, height, width, 3)
            (tmp_path / f"{kind}-{width}.png").write_bytes(encode_png(image, 50))
            (tmp_path / f"{kind}-{width}-rgb.png").write_bytes(encode_png(np.dstack([image, image // 2, 255 - image]), 50))
            (tmp_path / f"{kind}-{width}-indexed.png").write_bytes(encode_png(image, 50, bytes(768)))
            name = os.fsencode(tmp_path / f"{kind}-{width}-native.png")
            assert native.write_png_files(image[None], None, [name]) == (1, 0)
    files = sorted(tmp_path.glob("*.png"))
    checked = subprocess.run([pngcheck, "-v", *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert "warning" not in checked.stdout.lower()
    assert checked.stdout.count("No errors detected") == len(files)


def images_and_paths(folder: Path, count: int = 6) -> tuple[np.ndarray, list[Path]]:
    images = np.stack([smooth(60, 70, seed) for seed in range(count)])
    return images, [folder / f"{i}.png" for i in range(count)]


def write(images: np.ndarray, palette: bytes | None, paths: list[Path]) -> tuple[int, int]:
    return native.write_png_files(images, palette, [os.fsencode(path) for path in paths])


@pytest.mark.parametrize("palette", [None, bytes(range(256)) * 3])
def test_write_png_files_content(tmp_path: Path, palette: bytes | None) -> None:
    images, paths = images_and_paths(tmp_path)
    assert write(images, palette, paths) == (6, 0)
    for image, path in zip(images, paths, strict=True):
        assert_decodes(path.read_bytes(), image, palette)
    assert sorted(tmp_path.iterdir()) == paths
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o666 & ~umask


def test_write_png_files_small_image_is_one_idat(tmp_path: Path) -> None:
    images, paths = images_and_paths(tmp_path, 1)
    write(images, None, paths)
    assert [kind for kind, _ in chunks_of(paths[0].read_bytes())] == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 70001), (2, 70001, 1), (1, 1500, 1400)])
def test_write_png_files_odd_and_large_shapes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    images = draw("runs", shape[0] * shape[1], shape[2], 1).reshape(shape)
    paths = [tmp_path / f"{i}.png" for i in range(shape[0])]
    assert write(images, None, paths) == (shape[0], 0)
    for image, path in zip(images, paths, strict=True):
        assert_decodes(path.read_bytes(), image)


def test_write_png_files_relative_name_and_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, _ = images_and_paths(tmp_path, 1)
    assert write(images, None, [Path("here.png")]) == (1, 0)
    assert_decodes((tmp_path / "here.png").read_bytes(), images[0])
    assert write(images[:0], None, []) == (0, 0)


def test_write_png_files_missing_folder_names_the_image(tmp_path: Path) -> None:
    images, paths = images_and_paths(tmp_path)
    paths[3] = tmp_path / "missing" / "3.png"
    assert write(images, None, paths) == (3, errno.ENOENT)
    assert sorted(tmp_path.iterdir()) == paths[:3]


def test_write_png_files_target_is_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    images, paths = images_and_paths(tmp_path)
    paths[2].mkdir()
    count, error = write(images, None, paths)
    assert (count, error) == (2, errno.EISDIR)
    assert sorted(tmp_path.iterdir()) == paths[:3]


def test_write_png_files_name_too_long(tmp_path: Path) -> None:
    images, paths = images_and_paths(tmp_path)
    paths[1] = tmp_path / ("x" * 300)
    assert write(images, None, paths) == (1, errno.ENAMETOOLONG)
    paths[1] = tmp_path / "/".join(["y" * 200] * 30)
    assert write(images, None, paths) == (1, errno.ENAMETOOLONG)
    assert sorted(tmp_path.iterdir()) == paths[:1]


def test_write_png_files_longest_possible_name(tmp_path: Path) -> None:
    images, _ = images_and_paths(tmp_path, 1)
    assert write(images, None, [tmp_path / ("x" * 255)]) == (1, 0)


def test_write_png_files_read_only_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write into read-only folders")
    images, paths = images_and_paths(tmp_path)
    tmp_path.chmod(0o555)
    try:
        assert write(images, None, paths) == (0, errno.EACCES)
        assert list(tmp_path.iterdir()) == []
    finally:
        tmp_path.chmod(0o755)


def test_write_png_files_not_a_writable_place() -> None:
    images, _ = images_and_paths(Path("."), 1)
    count, error = write(images, None, [Path("/proc/self/x.png")])
    assert count == 0
    assert error in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS)


def test_write_png_files_disk_full_keeps_the_old_file(tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk: the first image fits, the second does not.
    code = textwrap.dedent(
        """
        import os, resource, sys
        import numpy as np
        import cnnviz_fast._native as native
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        images = np.zeros((2, 100, 100), np.uint8)
        images[1] = np.random.default_rng(0).integers(0, 256, (100, 100))
        print(*native.write_png_files(images, None, [os.fsencode(path) for path in sys.argv[1:]]))
        """
    )
    paths = [tmp_path / "first.png", tmp_path / "second.png"]
    paths[1].write_bytes(b"old")
    found = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["1", str(errno.EFBIG)]
    assert paths[1].read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == paths


def test_write_png_files_leftover_temporary_file_is_not_touched(tmp_path: Path) -> None:
    images, paths = images_and_paths(tmp_path, 1)
    leftover = tmp_path / f".cnnviz-{os.getpid()}-0-0.tmp"
    leftover.write_bytes(b"someone else's")
    assert write(images, None, paths) == (1, 0)
    assert leftover.read_bytes() == b"someone else's"
    assert_decodes(paths[0].read_bytes(), images[0])


def test_write_png_files_wrong_arguments_are_refused(tmp_path: Path) -> None:
    images, paths = images_and_paths(tmp_path)
    with pytest.raises(ValueError, match="paths must be one for each"):
        write(images, None, paths[1:])
    for palette in (b"", b"1234", bytes(771)):
        with pytest.raises(ValueError, match="palette must be"):
            write(images, palette, paths)
    with pytest.raises(ValueError, match="zero bytes"):
        native.write_png_files(images[:1], None, [b"a\0b"])
    with pytest.raises(TypeError):
        native.write_png_files(images[:, :, ::2], None, [b""] * 6)
    with pytest.raises(TypeError):
        native.write_png_files(images, None, paths)
    assert list(tmp_path.iterdir()) == []


def test_write_png_files_threads_into_one_folder(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    images, _ = images_and_paths(tmp_path, 50)
    batches = [[tmp_path / f"{batch}-{i}.png" for i in range(50)] for batch in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda paths: write(images, None, paths), batches))
    assert results == [(50, 0)] * 4
    assert len(list(tmp_path.iterdir())) == 200
    for path, image in zip(batches[3], images, strict=True):
        assert_decodes(path.read_bytes(), image)
