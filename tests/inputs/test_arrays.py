"""Files of arrays: .npy, .npz, TIFF of many bands, and folders of them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.assertions import assert_equal_tensors
from support.shards import write_tar
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError, ImagesFailedError
from cnnviz_fast.inputs.arrays import is_array_file, read_array
from cnnviz_fast.inputs.in_memory import Encoded

ARRAY = np.random.default_rng(0).integers(0, 65536, (6, 7, 5)).astype(np.uint16)


def as_npy(array: np.ndarray[Any, Any], **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def write(folder: Path, kind: str) -> Path:
    """Write ARRAY into a file of one kind."""
    path = folder / f"a.{kind.partition(' ')[0]}"
    if kind == "npy":
        np.save(path, ARRAY)
    elif kind == "npz":
        np.savez_compressed(path, ARRAY)
    elif kind == "tif":
        tifffile.imwrite(path, ARRAY, photometric="minisblack", planarconfig="contig")
    elif kind == "tif planar":
        tifffile.imwrite(path, np.moveaxis(ARRAY, -1, 0), photometric="minisblack", planarconfig="separate")
    elif kind == "tif compressed":
        tifffile.imwrite(path, ARRAY, photometric="minisblack", planarconfig="contig", compression="zlib")
    else:
        tifffile.imwrite(path, np.moveaxis(ARRAY, -1, 0), photometric="minisblack")
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "tif planar", "tif compressed", "tif pages"])
def test_load_images_reads_bands_from_files(kind: str, tmp_path: Path) -> None:
    model = nn.Conv2d(5, 2, 1)
    path = write(tmp_path, kind)
    expected = torch.from_numpy(np.moveaxis(ARRAY, -1, 0).astype(np.float32) / np.float32(65535))[None]
    assert_equal_tensors(cf.load_images(path, model), expected)
    assert_equal_tensors(cf.load_images(Encoded("a", path.read_bytes()), model), expected)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("LA", 2)])
def test_load_images_takes_the_bands_of_an_image(mode: str, channels: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 7, channels), np.uint8)
    Image.merge(mode, [Image.fromarray(band) for band in np.moveaxis(pixels, -1, 0).copy()]).save(tmp_path / "a.png")
    expected = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    assert_equal_tensors(cf.load_images(tmp_path / "a.png", nn.Conv2d(channels, 2, 1)), expected)


def test_load_images_float_array_file_counts_as_preprocessed_for_photos(tmp_path: Path) -> None:
    floats = np.random.default_rng(2).standard_normal((3, 6, 7)).astype(np.float32)
    np.save(tmp_path / "a.npy", floats)
    assert_equal_tensors(cf.load_images(tmp_path / "a.npy", nn.Conv2d(3, 2, 1)), torch.from_numpy(floats)[None])
    pixels = np.random.default_rng(3).integers(0, 256, (60, 70, 3), np.uint8)
    np.save(tmp_path / "b.npy", pixels)
    assert_equal_tensors(cf.load_images(tmp_path / "b.npy"), cf.load_images(pixels))


DAMAGED = {
    "objects": as_npy(np.array([{}, None], dtype=object), allow_pickle=True),
    "cut": as_npy(ARRAY)[:-9],
    "header": as_npy(ARRAY)[:20],
    "huge": as_npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(9999999, 9999999)"[:6]),
    "zip": b"PK\x03\x04" + bytes(40),
    "tiff": b"II*\0" + bytes(40),
    "text": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_read_array_damaged_file_is_this_packages_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(DAMAGED[name])
    if name == "huge":
        np.lib.format.open_memmap(path, "w+", np.uint8, (2000, 2000))
    for source in (path, Encoded("a.npy", path.read_bytes())):
        with pytest.raises(ImageError) as caught:
            read_array(source, 10**6)
        assert "\n" not in str(caught.value)


def test_read_array_npz_with_several_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", left=ARRAY, right=ARRAY)
    with pytest.raises(ImageError, match="must hold one array, got 2: left, right"):
        read_array(tmp_path / "a.npz", 10**6)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_array_file_of_several_photos_is_a_sample_each(ending: str, tmp_path: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)
    file = tmp_path / f"photos.{ending}"
    np.save(file, photos) if ending == "npy" else np.savez(file, photos=photos)
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert_equal_tensors(cf.load_images(file, model), cf.load_images(photos, model))
    assert len(cf.visualize(model, file, "0", tmp_path / "out")) == 3
    assert len(sorted((tmp_path / "out" / "0").glob("*.png"))) == 3
    with pytest.raises(
        ImagesFailedError, match=r"a sample must be one image, got a batch .*Save each in a file of its own"
    ):
        cf.run(model, file, "0", tmp_path / "run", readers=0, progress="none", strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_array_file_of_several_samples_of_other_models(dtype: type, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for channels, shape in ((1, (3, 20, 24)), (5, (2, 5, 8, 9)), (5, (2, 8, 9, 5))):
        samples = (generator.random(shape) * 200).astype(dtype)
        np.save(tmp_path / "samples.npy", samples)
        batch = cf.load_images(tmp_path / "samples.npy", nn.Conv2d(channels, 4, 3))
        assert batch.shape[:2] == (len(samples), channels)


def test_array_file_that_holds_no_photo_names_itself(tmp_path: Path) -> None:
    for shape, said in (((0, 20, 24, 3), "must hold at least one sample"), ((3, 20, 24, 7), "image must have shape")):
        np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
        with pytest.raises(ImageError, match=rf"a\.npy'.* {said}"):
            cf.load_images(tmp_path / "a.npy")


def test_is_array_file_looks_at_the_content(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ARRAY)
    (tmp_path / "b.npy").write_bytes(b"hello")
    assert is_array_file(tmp_path / "a.npy")
    assert not is_array_file(tmp_path / "b.npy")
    assert not is_array_file(tmp_path / "absent.npy")
    assert not is_array_file(ARRAY)


def test_load_images_wrong_number_of_bands_names_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (6, 7)).save(tmp_path / "photo.png")
    with pytest.raises(ImageError, match=r"image '.*photo\.png': an array for this model must have shape \(5, H, W\)"):
        cf.load_images(tmp_path / "photo.png", nn.Conv2d(5, 2, 1))


def test_folders_globs_and_shards_hold_arrays_where_the_model_takes_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        np.save(folder / f"{number}.npy", np.full((5, 6, 7), number, np.float32))
    tifffile.imwrite(folder / "3.tif", np.full((5, 6, 7), 3, np.float32), photometric="minisblack")
    write_tar(tmp_path / "s.tar", {"a.npy": as_npy(np.full((5, 6, 7), 4, np.float32))})
    module = nn.Sequential(nn.Conv2d(5, 2, 1))
    batch = cf.load_images([folder, str(folder / "*.npy")], module)
    assert batch[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    summary = cf.run(module, [folder, tmp_path / "s.tar"], "0", tmp_path / "out", progress="none", workers=0)
    assert (summary.finished, summary.failed) == (5, 0)
    assert (tmp_path / "out" / "0" / "2.png").exists()
    (folder / "3.tif").unlink()
    with pytest.raises(ImageError, match="holds no images"):
        cf.load_images(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_read_array_of_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(
        ImageError, match=r"a\.npy' cannot be read as an array: it must be a regular file, but is a pipe"
    ):
        read_array(tmp_path / "a.npy", 100)


@pytest.mark.skipif(not os.path.isfile("/proc/self/mem"), reason="no file here whose reading fails")
def test_a_file_whose_bytes_cannot_be_read_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"image '/proc/self/mem' cannot be read: Input/output error\."):
        cf.visualize(nn.Conv2d(3, 2, 3), ["/proc/self/mem"], [""], out=tmp_path)
    with pytest.raises(ImageError, match="Input/output error"):
        read_array("/proc/self/mem", 100)
