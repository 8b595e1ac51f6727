"""Files of more than 8 bits reach a model with all of their levels, whatever holds them and wherever they are read."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file
from support.assertions import FLOAT32_NORMALISED, FLOAT32_PIXELS, TWO_LEVELS, assert_close, assert_equal_tensors
from support.pngs import chunk
from support.quick import quick
from support.shards import write_tar
from torch import nn
from torchvision.transforms import functional

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.in_memory import Encoded
from cnnviz_fast.models.float_images import takes_floats
from cnnviz_fast.models.loaded import LoadedModel

SIZE = 64, 64
RAMP = np.random.default_rng(0).permutation(np.arange(30_000, 34_096)).reshape(SIZE).astype(np.uint16)
"""4,096 values in a small range: 17 levels of 256."""
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T + 5], -1)


def whole(channels: int, **options: Any) -> LoadedModel:
    """Return a model whose preprocessing leaves the size as it is."""
    return cf.load_model(nn.Conv2d(channels, 2, 3), preprocess=cf.PreprocessOptions(size=SIZE, **options))


def png_16(array: np.ndarray[Any, Any], path: Path) -> None:
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def pnm_16(array: np.ndarray[Any, Any], path: Path) -> None:
    height, width = array.shape[:2]
    kind = 5 if array.ndim == 2 else 6
    path.write_bytes(f"P{kind} {width} {height} 65535\n".encode() + array.astype(">u2").tobytes())


def tif(array: np.ndarray[Any, Any], path: Path, **how: Any) -> None:
    if array.ndim == 2:
        tifffile.imwrite(path, array, byteorder=how.get("byteorder"))
    else:
        stored = np.moveaxis(array, -1, 0) if how else array
        tifffile.imwrite(path, stored, photometric="rgb", **{"planarconfig": "separate", **how} if how else {})


WRITERS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "png": ("a.png", png_16),
    "pgm, ppm": ("a.pgm", pnm_16),
    "tif": ("a.tif", tif),
    "big endian tif": ("a.tif", lambda array, path: tif(array, path, byteorder=">")),
    "planar tif": ("a.tif", lambda array, path: tif(array, path, planarconfig="separate")),
    "float tif": ("a.tif", lambda array, path: tif(array / np.float32(65535), path)),
    "float64 tif": ("a.tif", lambda array, path: tif(array / 65535, path)),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_load_images_has_as_many_values_as_the_file(kind: str, channels: int, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    write(COLOURS if channels == 3 else RAMP, tmp_path / name)
    model = whole(channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    found = cf.load_images(tmp_path / name, model)
    expected = torch.from_numpy((COLOURS if channels == 3 else RAMP[..., None]) / np.float32(65535)).permute(2, 0, 1)
    assert_equal_tensors(found, expected[None])
    assert len(found[0, 0].unique()) == 4096
    assert_equal_tensors(cf.load_images(Encoded(name, (tmp_path / name).read_bytes()), model), found)


def test_load_images_gives_what_the_same_array_gives(tmp_path: Path) -> None:
    png_16(RAMP, tmp_path / "a.png")
    np.save(tmp_path / "a.npy", RAMP)
    paths = [tmp_path / "a.png", tmp_path / "a.npy"]
    assert_equal_tensors(*(cf.load_images(path, whole(1)) for path in paths))
    opened = Image.open(tmp_path / "a.png")
    assert_equal_tensors(cf.load_images(opened, whole(1)), cf.load_images(paths[0], whole(1)))


def test_load_images_resizes_in_floats_and_normalises(tmp_path: Path) -> None:
    png_16(RAMP, tmp_path / "a.png")
    png_16(COLOURS, tmp_path / "b.png")
    resized = functional.resize(torch.from_numpy(RAMP / np.float32(65535))[None], [256], antialias=True)
    cropped = functional.center_crop(resized, [224])
    found = cf.load_images(tmp_path / "a.png", nn.Conv2d(1, 2, 3))
    assert_close(found[0], cropped, FLOAT32_PIXELS)
    assert len(found.unique()) > 30_000
    own = cf.load_model(nn.Conv2d(1, 2, 3), preprocess=cf.PreprocessOptions(mean=(0.5,), std=(0.1,)))
    assert_close(cf.load_images(tmp_path / "a.png", own)[0], (cropped - 0.5) / 0.1, FLOAT32_NORMALISED)
    colours = functional.resize(torch.from_numpy(COLOURS / np.float32(65535)).permute(2, 0, 1), [256], antialias=True)
    mean, std = (torch.tensor(part)[:, None, None] for part in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert_close(
        cf.load_images(tmp_path / "b.png")[0], (functional.center_crop(colours, [224]) - mean) / std, FLOAT32_NORMALISED
    )


def test_load_images_grey_for_colour_and_colour_for_grey(tmp_path: Path) -> None:
    png_16(RAMP, tmp_path / "a.png")
    png_16(COLOURS, tmp_path / "b.png")
    plain = whole(3, mean=(0.0,) * 3, std=(1.0,) * 3)
    grey = torch.from_numpy(RAMP / np.float32(65535))
    assert_equal_tensors(cf.load_images(tmp_path / "a.png", plain)[0], grey.expand(3, -1, -1))
    weighted = torch.from_numpy((COLOURS / 65535) @ [0.299, 0.587, 0.114]).float()
    assert_close(cf.load_images(tmp_path / "b.png", whole(1))[0, 0], weighted, FLOAT32_PIXELS)


def test_load_images_in_16_bits_with_blue_first_turns_the_colours(tmp_path: Path) -> None:
    png_16(COLOURS, tmp_path / "a.png")
    given = {"size": COLOURS.shape[:2], "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
    found, turned = (
        cf.load_images(tmp_path / "a.png", cf.load_model("resnet18", weights="none", device="meta", preprocess=options))
        for options in (cf.PreprocessOptions(**given), cf.PreprocessOptions(**given, channel_order="bgr"))
    )
    assert_equal_tensors(turned, found.flip(1))


@pytest.mark.parametrize(
    "spec",
    quick(["resnet18", "fcn_resnet50", "fasterrcnn_resnet50_fpn", "timm:resnet18"], ["resnet18", "timm:resnet18"]),
)
def test_load_images_of_models_with_their_own_presets_differ_by_the_rounding_alone(spec: str, tmp_path: Path) -> None:
    assert takes_floats(cf.load_model(spec, weights="none", device="meta").preprocess)
    bare = cf.PreprocessOptions(mean=(0.0,) * 3, std=(1.0,) * 3)
    model = cf.load_model(spec, weights="none", device="meta", preprocess=bare)
    levels = np.random.default_rng(1).integers(90, 170, (70, 90, 3))
    Image.fromarray(levels.astype(np.uint8)).save(tmp_path / "a.png")
    png_16((levels * 257).astype(np.uint16), tmp_path / "b.png")
    eight, sixteen = (cf.load_images(tmp_path / name, model) for name in ("a.png", "b.png"))
    assert eight.shape == sixteen.shape
    assert_close(eight * 255, sixteen * 255, TWO_LEVELS)  # rounded twice, once for each direction
    assert spec.startswith("faster") or not torch.equal(eight, sixteen)


def test_load_images_filters_that_overshoot_are_cut_off_as_in_8_bits(tmp_path: Path) -> None:
    png_16(np.kron([[0, 65535], [65535, 0]], np.ones((30, 30))).astype(np.uint16), tmp_path / "a.png")
    options = cf.PreprocessOptions(size=(90, 90), interpolation="bicubic")
    found = cf.load_images(tmp_path / "a.png", cf.load_model(nn.Conv2d(1, 2, 3), preprocess=options))
    assert (float(found.min()), float(found.max())) == (0, 1)


def test_load_images_a_file_of_8_bits_is_as_pillow_and_torchvision_make_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    resized = functional.center_crop(functional.resize(Image.fromarray(pixels), [256]), [224])
    assert_equal_tensors(cf.load_images(tmp_path / "a.png", nn.Conv2d(1, 2, 3))[0], functional.to_tensor(resized))
    ranged = cf.load_images(tmp_path / "a.png", whole(1), input_range=(0, 100))
    assert torch.equal((ranged * 255).round() / 255, ranged)


def test_load_images_scales_by_the_range_that_is_given_or_declared(tmp_path: Path) -> None:
    twelve = RAMP - np.uint16(30_000)
    expected = torch.from_numpy(twelve.astype(np.float32) / np.float32(4095))[None, None]
    png_16(twelve, tmp_path / "a.png")
    assert_equal_tensors(cf.load_images(tmp_path / "a.png", whole(1), input_range="0:4095"), expected)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content[:33] + chunk(b"sBIT", b"\x0c") + content[33:])  # behind the IHDR
    assert_equal_tensors(cf.load_images(tmp_path / "b.png", whole(1)), expected)
    tifffile.imwrite(tmp_path / "a.tif", twelve, extratags=[(281, 3, 1, 4095, True)])
    assert_equal_tensors(cf.load_images(tmp_path / "a.tif", whole(1)), expected)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 4095\n" + twelve.astype(">u2").tobytes())
    assert_equal_tensors(cf.load_images(tmp_path / "a.pgm", whole(1)), expected)
    cut = cf.load_images(tmp_path / "a.png", whole(1), input_range=(1000, 2000))
    assert (float(cut.min()), float(cut.max())) == (0, 1)
    assert len(cut.unique()) == 1001
    with pytest.warns(UserWarning, match=r"a\.png' is near black: its values reach 4095 of 65535"):
        cf.load_images(tmp_path / "a.png", whole(1))


def test_load_images_nan_stays_in_grey_and_is_refused_in_photos(tmp_path: Path) -> None:
    depth = (RAMP / 65535).astype(np.float32)
    depth[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", depth)
    np.save(tmp_path / "a.npy", depth)
    found, array = (cf.load_images(tmp_path / name, whole(1)) for name in ("a.tif", "a.npy"))
    assert_equal_tensors(found.nan_to_num(-1), array.nan_to_num(-1))
    assert int(found.isnan().sum()) == 1
    with pytest.raises(ImageError, match=r"a\.tif' must hold values from 0 to 1, got nan to nan"):
        cf.load_images(tmp_path / "a.tif")
    for worst in (np.full(SIZE, np.nan), depth * 2, depth - 1, np.where(depth > 0.5, np.inf, depth)):
        tifffile.imwrite(tmp_path / "b.tif", worst.astype(np.float32))
        with pytest.raises(ImageError, match=r"b\.tif' must hold values from 0 to 1, got .*input_range"):
            cf.load_images(tmp_path / "b.tif", whole(1))
    metres = cf.load_images(tmp_path / "a.tif", whole(1), input_range=(0.4, 0.5))
    assert int(metres.isnan().sum()) == 1


def test_load_images_transparency_lies_over_white_in_floats(tmp_path: Path) -> None:
    alpha = np.linspace(0, 65535, RAMP.size).reshape(SIZE).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RAMP, alpha], -1), photometric="minisblack", extrasamples=[2])
    share = alpha / 65535
    over = torch.from_numpy(RAMP / 65535 * share + 1 - share).float()
    assert_close(cf.load_images(tmp_path / "a.tif", whole(1))[0, 0], over, FLOAT32_PIXELS)
    tifffile.imwrite(tmp_path / "b.tif", RAMP, photometric="miniswhite")
    inverted = torch.from_numpy(1 - RAMP / 65535).float()
    assert_close(cf.load_images(tmp_path / "b.tif", whole(1))[0, 0], inverted, FLOAT32_PIXELS)


def test_load_images_turns_upright_in_floats(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RAMP, extratags=[(274, 3, 1, 6, True)])
    found = cf.load_images(tmp_path / "a.tif", whole(1))[0, 0]
    assert_equal_tensors(found, torch.from_numpy(np.rot90(RAMP, -1) / np.float32(65535)))


def test_runs_read_all_levels_from_folders_tars_and_other_processes(tmp_path: Path) -> None:
    model = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(model.weight)
    loaded = cf.load_model(nn.Sequential(model), preprocess=cf.PreprocessOptions(size=SIZE))
    (tmp_path / "in").mkdir()
    png_16(RAMP, tmp_path / "in" / "a.png")
    write_tar(tmp_path / "a.tar", {"a.png": (tmp_path / "in" / "a.png").read_bytes()})
    for name, source in {"folder": tmp_path / "in", "tar": tmp_path / "a.tar"}.items():
        for readers in (0, 1):
            out = tmp_path / f"{name}{readers}"
            cf.run(loaded, source, ["0"], out, save="maps", readers=readers, progress="none")
            (found,) = (maps for path in out.rglob("*.safetensors") for maps in load_file(path).values())
            assert_equal_tensors(found[0].float(), torch.from_numpy(RAMP / np.float32(65535)))


def test_visualize_of_a_wide_image_is_laid_over_what_the_model_saw(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "png")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    (sheet,) = cf.visualize(whole(1).module, tmp_path / "a.png", "output", overlay=True)
    assert sheet.rgb().shape[2] == 3
