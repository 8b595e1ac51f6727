"""Native files: what write_png_files leaves on the disk, when it works and when it does not, and what pngcheck says."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.pngs import KINDS, assert_decodes, chunks_of, draw, encode_png, native, smooth


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


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    # Root may write anywhere, so root becomes somebody else for the test, who must be able to reach the folder.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_write_png_files_read_only_folder(read_only_folder: Path) -> None:
    images, paths = images_and_paths(read_only_folder)
    assert write(images, None, paths) == (0, errno.EACCES)
    assert list(read_only_folder.iterdir()) == []


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
    images, _ = images_and_paths(tmp_path, 50)
    batches = [[tmp_path / f"{batch}-{i}.png" for i in range(50)] for batch in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda paths: write(images, None, paths), batches))
    assert results == [(50, 0)] * 4
    assert len(list(tmp_path.iterdir())) == 200
    for path, image in zip(batches[3], images, strict=True):
        assert_decodes(path.read_bytes(), image)


def test_files_pass_pngcheck(tmp_path: Path) -> None:
    pngcheck = shutil.which("pngcheck")
    if pngcheck is None:
        pytest.skip("pngcheck is not on PATH (Debian package pngcheck)")
    for kind in KINDS:
        for height, width in ((1, 1), (3, 5), (64, 300), (130, 1000)):
            image = draw(kind, height, width, 3)
            (tmp_path / f"{kind}-{width}.png").write_bytes(encode_png(image, 50))
            rgb = np.dstack([image, image // 2, 255 - image])
            (tmp_path / f"{kind}-{width}-rgb.png").write_bytes(encode_png(rgb, 50))
            (tmp_path / f"{kind}-{width}-indexed.png").write_bytes(encode_png(image, 50, bytes(768)))
            name = os.fsencode(tmp_path / f"{kind}-{width}-native.png")
            assert native.write_png_files(image[None], None, [name]) == (1, 0)
    files = sorted(tmp_path.glob("*.png"))
    checked = subprocess.run([pngcheck, "-v", *files], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert "warning" not in checked.stdout.lower()
    assert checked.stdout.count("No errors detected") == len(files)
