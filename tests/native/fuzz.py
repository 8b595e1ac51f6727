"""Builds csrc under AddressSanitizer and UBSan, and has 10,000 random sheets and images confirmed.

Each pixel of a sheet is compared with its definition, and each encoded image is decoded by zlib and Pillow. At every
vector level the results have to be the same.

    python tests/native/fuzz.py [--target aarch64|windows|avx512] [--count 10000] [--seed 0] [--build-dir DIR]

Needs cmake and a C++ compiler with the sanitizers; no Python headers. With --target it is built for another processor
or another system, without sanitizers, and runs in an emulator: needs Debian's g++-aarch64-linux-gnu and qemu-user, or
g++-mingw-w64-x86-64-posix and wine64. The target avx512 is this machine with each vector instruction as a function in
C++, for processors without AVX-512: needs the headers of SIMDe 0.8.4 (of Debian's libsimde-dev, or in a folder that
CPLUS_INCLUDE_PATH names). Exit code 0 when everything is confirmed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPE = {1: 0, 3: 2}


class Target(NamedTuple):
    """A machine to build for: options of CMake, what a program is run by, a level that it must have, and suffixes."""

    options: list[str]
    emulator: list[str]
    level: str
    suffix: str = ""


TARGETS = {
    "here": Target(["-DCNNVIZ_SANITIZE=ON"], [], "scalar"),
    "aarch64": Target(
        [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'csrc/toolchains/aarch64-linux-gnu.cmake'}"],
        ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
        "neon",
    ),
    "windows": Target(
        [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'csrc/toolchains/x86_64-w64-mingw32.cmake'}"],
        ["/usr/lib/wine/wine64"],
        "scalar",
        ".exe",
    ),
    "avx512": Target(  # psabi: vectors are not handed over as real ones would be
        [f"-DCMAKE_CXX_FLAGS=-I{ROOT / 'tests/native/emulated'} -include immintrin.h -Wno-psabi"],
        [],
        "avx512",
    ),
}


@contextlib.contextmanager
def wine(folder: str) -> Iterator[None]:
    """Keep what wine makes in a folder, and end its processes before that is removed."""
    os.environ.update(WINEPREFIX=f"{folder}/wine", WINEDEBUG="-all", WINEDLLOVERRIDES="mscoree,mshtml=")
    try:
        yield
    finally:
        subprocess.run(["/usr/lib/wine/wineserver", "--kill", "--wait"], check=False)


def build(folder: Path, options: list[str]) -> Path:
    for command in (
        ["cmake", "-S", ROOT / "csrc", "-B", folder, "-DCNNVIZ_FUZZ=ON", "-DCNNVIZ_WERROR=ON", *options],
        ["cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1)],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def chunk(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def idat_contents(chunks: bytes) -> bytes:
    parts, at = [], 0
    while at < len(chunks):
        (size,) = struct.unpack_from(">I", chunks, at)
        kind, contents = chunks[at + 4 : at + 8], chunks[at + 8 : at + 8 + size]
        if struct.unpack_from(">I", chunks, at + 8 + size)[0] != zlib.crc32(kind + contents):
            raise AssertionError("wrong CRC-32")
        parts.append(contents if kind == b"IDAT" else b"")
        at += 12 + size
    return b"".join(parts)


def confirm(png: bytes, pixels: np.ndarray) -> None:
    filtered = zlib.decompress(idat_contents(png[len(SIGNATURE) :]))
    if len(filtered) != pixels.shape[0] * (pixels[0].size + 1):
        raise AssertionError("wrong number of filtered bytes")
    with Image.open(io.BytesIO(png)) as decoded:
        if not np.array_equal(np.asarray(decoded), pixels):
            raise AssertionError("wrong pixels")


def read(stream: IO[bytes], size: int) -> bytes:
    found = stream.read(size)
    if len(found) != size:
        raise AssertionError("the program ended early")
    return found


def confirm_record(stream: IO[bytes]) -> None:
    height, width, bytes_per_pixel, idat_size, adler, *sizes = struct.unpack("=7I", read(stream, 28))
    idat, (file, deflated) = read(stream, idat_size), (read(stream, size) for size in sizes)
    shape = (height, width) if bytes_per_pixel == 1 else (height, width, bytes_per_pixel)
    pixels = np.frombuffer(read(stream, height * width * bytes_per_pixel), np.uint8).reshape(shape)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPE[bytes_per_pixel], 0, 0, 0)
    last = chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", adler)) + chunk(b"IEND", b"")
    confirm(SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"\x78\x01") + idat + last, pixels)
    if bytes_per_pixel == 1:
        confirm(file, pixels)
    if zlib.decompress(deflated) != pixels.tobytes():
        raise AssertionError("wrong bytes in a zlib stream")


def fuzz(command: list[str | Path], seed: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [*command, str(seed), str(count), folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            for number in range(seed, seed + count):
                try:
                    confirm_record(running.stdout)
                except (AssertionError, OSError, zlib.error) as error:
                    running.kill()
                    raise SystemExit(f"seed {number}: {error}") from error
        if running.returncode != 0:
            raise SystemExit(f"fuzz_strips ended with {running.returncode}")
        left_over = [path.name for path in Path(folder).iterdir() if path.suffix != ".png"]
        if left_over:
            raise SystemExit(f"temporary files left: {left_over}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=TARGETS, default="here", help="the machine (default: this one)")
    parser.add_argument("--count", type=int, default=10_000, help="sheets and images (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first (default %(default)s)")
    parser.add_argument("--build-dir", type=Path, help="keep the build here (default: a temporary folder)")
    arguments = parser.parse_args()
    target, seed, count = TARGETS[arguments.target], arguments.seed, arguments.count
    with tempfile.TemporaryDirectory() as temporary:
        programs = build(arguments.build_dir or Path(temporary) / "build", target.options)
        files, strips, kernels = (
            [*target.emulator, programs / f"{name}{target.suffix}"]
            for name in ("check_files", "fuzz_strips", "fuzz_kernels")
        )
        with wine(temporary) if target.suffix else contextlib.nullcontext():
            (Path(temporary) / "files").mkdir()
            subprocess.run([*files, f"{temporary}/files"], check=True)
            command = [*kernels, str(seed), str(count)]
            levels = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            if target.level not in levels:
                raise SystemExit(f"the level {target.level} is not among {levels}")
            fuzz(strips, seed, count)
    sys.stdout.write(f"{count} sheets and images confirmed at the levels {', '.join(levels)}\n")


if __name__ == "__main__":
    main()
