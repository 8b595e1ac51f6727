"""Deconvolved patches beside patches, and the kernels before them."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import ONE_LEVEL, assert_close
from support.planted import BLUE, HORIZONTAL, KERNEL, VERTICAL, planted, planted_network, saved, top_file
from torch import nn
from torchvision import transforms
from torchvision.transforms._presets import ObjectDetection

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError, OptionError
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.own_preprocess import OwnPreprocess
from cnnviz_fast.models.preprocess import with_options
from cnnviz_fast.palette import make_palette
from cnnviz_fast.patches import deconvolved

FIELD_PX = KERNEL + 2 * 2
"""Of the network below: its second convolution is 3 units wide."""

RULES = ["guided", "deconvolution"]


def deeper(bend: Callable[[], nn.Module] = nn.ReLU) -> LoadedModel:
    """Return the network of planted filters with a second convolution behind it."""
    first = planted_network(ObjectDetection())
    second = nn.Conv2d(4, 4, 3, padding=1)
    torch.nn.init.normal_(second.weight, generator=torch.Generator().manual_seed(0))
    return replaced(first, nn.Sequential(first.module[0], bend(), second), bend())


def whole() -> LoadedModel:
    """Return the network of planted filters with all of it as one layer."""
    first = planted_network(ObjectDetection())
    return replaced(first, nn.Identity(), first.module)


def replaced(model: LoadedModel, *parts: nn.Module) -> LoadedModel:
    """Return a network of other parts, of which the last is called `last`."""
    module = nn.Sequential(OrderedDict(zip(("trunk", "last"), parts, strict=True)))
    return dataclasses.replace(model, module=module.eval())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate("abc"):
        there = {BLUE: (30 + 5 * i, 40), VERTICAL: (50, 70 - 8 * i), HORIZONTAL: (20, 80)}
        saved(planted(80, 100, there), folder / f"{name}.png")
    return folder


def kept(model: LoadedModel, photos: Path, folder: Path, **settings: Any) -> Path:
    """Write the strongest responses of a network."""
    fields = {"last": cf.receptive_field(model, "last", input_size=(80, 100)).to_json()}
    return top_file(model, str(photos), folder / "top.safetensors", fields=fields, layer="last", **settings)


def as_drawn(values: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return signed values, (H, W), in the colours that part at 0."""
    colours = make_palette("coolwarm", shows_background=False, shows_bad=False).colors
    share = values.double().numpy() / values.abs().max().item()
    return colours[np.floor((share + 1) / 2 * 255 + 0.5).astype(int)]


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("by", ["max", "mean"])
def test_deconvolved_patch_is_the_part_of_what_attribute_finds_of_its_unit(
    photos: Path, tmp_path: Path, method: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deconvolved, "AT_ONCE", 2)  # of three or more
    model = deeper()
    made = cf.patch_sheet(
        kept(model, photos, tmp_path, by=by), deconvolve=model, method=method, tile=FIELD_PX, threads=1
    )
    looked_at = 0
    for number, record in enumerate(made.table):
        y0, x0, y1, x1 = (round(record[edge]) for edge in ("y0", "x0", "y1", "x1"))
        assert (y1 - y0, x1 - x0) == (FIELD_PX, FIELD_PX)
        at = () if by == "mean" else (record["y"], record["x"])
        batch = cf.load_images(record["path"], model)
        found = cf.attribute(model, batch, method, target=("last", record["channel"], *at))[0].sum(0)
        rows, cols = slice(max(y0, 0), y1), slice(max(x0, 0), x1)
        drawn = made.deconvolved(number // 3, record["rank"])
        inside = drawn[rows.start - y0 :, cols.start - x0 :][: 80 - rows.start, : 100 - cols.start]
        assert_close(inside, as_drawn(found[rows, cols]), ONE_LEVEL)
        looked_at += 1
    assert looked_at == 12


def test_rules_draw_other_patches(photos: Path, tmp_path: Path) -> None:
    model = deeper()
    path = kept(model, photos, tmp_path)
    guided, usual, other = (cf.patch_sheet(path, deconvolve=model, method=each) for each in ("guided", None, RULES[1]))
    np.testing.assert_array_equal(guided.rgb(), usual.rgb())
    assert (guided.deconvolved(0, 0) != other.deconvolved(0, 0)).any()
    assert other.manifest["deconvolved"] == {"method": "deconvolution", "kernels": False}


def test_row_is_kernel_mean_and_each_patch_with_its_deconvolved_one(photos: Path, tmp_path: Path) -> None:
    model = whole()
    path = kept(model, photos, tmp_path)
    made = cf.patch_sheet(
        path, deconvolve=model, channels=BLUE, mean_patch=True, marks=False, label=False, title="", tile=KERNEL, gap=1,
        margin=0,
    )  # fmt: skip
    row = made.rgb()[:KERNEL, -(8 * (KERNEL + 1) - 1) :]
    parts = [row[:, start : start + KERNEL] for start in range(0, row.shape[1], KERNEL + 1)]
    pairs = [part for rank in range(3) for part in (made.patch(0, rank), made.deconvolved(0, rank))]
    np.testing.assert_array_equal(parts, [made.kernel(0), made.mean_patch(0), *pairs])


@pytest.mark.parametrize("order", [None, "bgr"])
def test_kernel_of_a_layer_that_reads_the_image_is_drawn_in_its_colours(
    photos: Path, tmp_path: Path, order: str | None
) -> None:
    model = whole()
    if order is not None:
        model = dataclasses.replace(
            model, preprocess=with_options(model.preprocess, cf.PreprocessOptions(channel_order=order))
        )
    made = cf.patch_sheet(kept(model, photos, tmp_path), deconvolve=model, tile=KERNEL)
    for channel in (BLUE, VERTICAL):
        weight = model.module.last[0].weight.detach()[channel].numpy()
        levels = 255 * (weight - weight.min()) / np.ptp(weight)
        assert_close(made.kernel(channel), np.moveaxis(levels if order is None else levels[::-1], 0, -1), ONE_LEVEL)
    assert made.manifest["deconvolved"]["kernels"]


@pytest.mark.parametrize("module", ["behind", "mixed", "pooled"])
def test_layer_that_is_no_convolution_of_the_image_has_no_kernels(photos: Path, tmp_path: Path, module: str) -> None:
    first = planted_network(ObjectDetection())
    parts: dict[str, tuple[nn.Module, nn.Module]] = {
        "behind": (first.module[0], nn.ReLU()),
        "mixed": (nn.Identity(), nn.Sequential(first.module, nn.Conv2d(4, 4, 1), nn.ReLU())),
        "pooled": (nn.Identity(), nn.Sequential(first.module, nn.MaxPool2d(2))),
    }
    model = replaced(first, *parts[module])
    made = cf.patch_sheet(kept(model, photos, tmp_path), deconvolve=model)
    assert made.kernel(0) is None
    assert not made.manifest["deconvolved"]["kernels"]


def test_single_files_of_kernels_and_deconvolved_patches(photos: Path, tmp_path: Path) -> None:
    model = whole()
    made = cf.patch_sheet(kept(model, photos, tmp_path), deconvolve=model, channels=BLUE, per_channel=1)
    names = [path.name for path in made.save_each(tmp_path / "each")]
    assert names == ["0_0.png", "0_0_deconvolved.png", "0_kernel.png"]


def test_photo_of_unknown_geometry_or_that_is_gone_has_no_deconvolved_patches(photos: Path, tmp_path: Path) -> None:
    model = deeper()
    mirrored = dataclasses.replace(
        model,
        preprocess=OwnPreprocess(transforms.Compose([transforms.RandomHorizontalFlip(1.0), transforms.ToTensor()])),
    )
    made = cf.patch_sheet(kept(mirrored, photos, tmp_path), deconvolve=mirrored, background="#102030")
    assert (made.deconvolved(0, 0) == (0x10, 0x20, 0x30)).all()
    path = kept(model, photos, tmp_path)
    gone = json.loads(json.dumps(cf.patch_sheet(path).table[0]))["path"]
    Path(gone).rename(tmp_path / "elsewhere.png")
    try:
        made = cf.patch_sheet(path, deconvolve=model, background="#102030")
    finally:
        (tmp_path / "elsewhere.png").rename(gone)
    assert (made.deconvolved(0, 0) == (0x10, 0x20, 0x30)).all()


def test_other_models_and_those_without_rectifiers_are_refused(photos: Path, tmp_path: Path) -> None:
    model = deeper()
    path = kept(model, photos, tmp_path)
    louder = deeper()
    louder.module.trunk[2].weight.data *= 1.1
    with pytest.raises(CaptureError, match="in the run: another preprocessing than the run's"):
        cf.patch_sheet(path, deconvolve=louder, threads=1)
    smooth = deeper(nn.GELU)
    with pytest.raises(CaptureError, match=r"guided must be of a network with rectifiers .* got one with 2 GELU"):
        cf.patch_sheet(kept(smooth, photos, tmp_path), deconvolve=smooth, threads=1)
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": {"model": "of the run", "weights": "another"}}))
    with pytest.raises(OptionError, match="deconvolve must be the model of the run, and has other weights"):
        cf.patch_sheet(tmp_path, deconvolve=model)


def test_method_alone_or_unknown_and_patches_that_were_not_made_are_refused(photos: Path, tmp_path: Path) -> None:
    model = deeper()
    path = kept(model, photos, tmp_path)
    with pytest.raises(OptionError, match="method goes with deconvolve"):
        cf.patch_sheet(path, method="guided")
    with pytest.raises(OptionError, match="method must be one of guided, deconvolution"):
        cf.patch_sheet(path, deconvolve=model, method="gradcam")
    with pytest.raises(OptionError, match="deconvolve must be given"):
        cf.patch_sheet(path).deconvolved(0, 0)


@pytest.mark.parametrize("method", RULES)
def test_maps_may_lie_over_patches_beside_deconvolved_ones(photos: Path, tmp_path: Path, method: str) -> None:
    model = deeper()
    path = kept(model, photos, tmp_path)
    both = cf.patch_sheet(path, overlay=model, deconvolve=model, method=method)
    np.testing.assert_array_equal(both.patch(1, 0), cf.patch_sheet(path, overlay=model).patch(1, 0))
    alone = cf.patch_sheet(path, deconvolve=model, method=method)
    np.testing.assert_array_equal(both.deconvolved(1, 0), alone.deconvolved(1, 0))
