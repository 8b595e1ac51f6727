"""What a model's input shows of a photo: rules for torchvision and timm against what is done to pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from support.assertions import VIEW_PX, assert_close
from support.looping import over
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms._presets import ImageClassification, ObjectDetection, SemanticSegmentation

from cnnviz_fast.models import views
from cnnviz_fast.models.expected import ExpectedInput
from cnnviz_fast.models.own_preprocess import ArrayPreprocess, OwnPreprocess
from cnnviz_fast.models.preprocess import (
    Bare,
    Clip,
    Preprocessing,
    TimmPreprocess,
    as_clips,
    grey_preset,
    imagenet_preset,
    with_options,
)
from cnnviz_fast.models.views import Region, View, view_as_described, view_of
from cnnviz_fast.options.reading import MAX_PIXELS, PreprocessOptions
from cnnviz_fast.runs.folder.fingerprint import described

SIZES = [(375, 500), (301, 299), (257, 1023), (97, 61), (33, 41)]
"""Heights and widths, odd ones, of which some are smaller than what is cut out of them."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def of_timm(**config: Any) -> TimmPreprocess:
    return TimmPreprocess({"input_size": (3, 224, 224), **config}, MEAN, STD, InterpolationMode.BICUBIC)


def video_preset() -> Any:
    return as_clips(torchvision.models.video.R3D_18_Weights.DEFAULT.transforms())


FOLLOWED: dict[str, Callable[[], Any]] = {
    "imagenet": imagenet_preset,
    "grey": grey_preset,
    "bare": lambda: Bare(grey_preset()),
    "large": lambda: ImageClassification(crop_size=480, resize_size=483),
    "segmentation": lambda: SemanticSegmentation(resize_size=520),
    "segmentation as it is": lambda: SemanticSegmentation(resize_size=None),
    "detection": ObjectDetection,
    "video": video_preset,
    "size": lambda: with_options(imagenet_preset(), PreprocessOptions(size=(120, 200))),
    "mean": lambda: with_options(imagenet_preset(), PreprocessOptions(mean=(0, 0, 0), std=(1, 1, 1))),
    "size of a clip": lambda: with_options(video_preset(), PreprocessOptions(size=64)),
    "timm": lambda: of_timm(crop_pct=0.9, crop_mode="center"),
    "timm, squash": lambda: of_timm(crop_pct=0.95, crop_mode="squash"),
    "timm, border": lambda: of_timm(crop_pct=1.0, crop_mode="border"),
    "timm, not square": lambda: TimmPreprocess(
        {"input_size": (3, 192, 256), "crop_pct": 0.9}, MEAN, STD, InterpolationMode.BILINEAR
    ),
    "compose": lambda: OwnPreprocess(
        transforms.Compose([transforms.Resize(200), transforms.CenterCrop((190, 180)), transforms.ToTensor()])
    ),
    "pad": lambda: OwnPreprocess(
        transforms.Compose([transforms.Pad((3, 8, 21, 5)), transforms.Resize((100, 150)), transforms.ToTensor()])
    ),
    "longest": lambda: OwnPreprocess(
        transforms.Compose([transforms.Resize(200, max_size=230), transforms.Pad([4, 9]), transforms.ToTensor()])
    ),
    "v2": lambda: OwnPreprocess(
        v2.Compose(
            [
                v2.ToImage(), v2.Resize(None, max_size=256), v2.Pad(2), v2.CenterCrop(240),
                v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
            ]
        )
    ),
}  # fmt: skip


LARGE = ("segmentation", "large")
"""Whose inputs take long to measure."""


@pytest.mark.parametrize(
    ("name", "sizes"),
    [  # one size each in turn, and all of them
        *((name, SIZES[n % 5 :][:1]) for n, name in enumerate(FOLLOWED) if name not in LARGE),
        *(pytest.param(name, SIZES, marks=pytest.mark.long) for name in FOLLOWED),
    ],
)
def test_rule_and_measurement_agree_for_odd_sizes(name: str, sizes: Sequence[tuple[int, int]]) -> None:
    preprocess = FOLLOWED[name]()
    for height, width in sizes:
        photo = Region(height, width, (0.0, 0.0, float(height), float(width)))
        followed, measured = views._followed(preprocess, photo), views._measured(preprocess, photo)
        assert followed is not None
        assert measured is not None
        assert (followed.height, followed.width) == measured.size
        y0, x0, y1, x1 = followed.box
        pixel = np.maximum([(y1 - y0) / followed.height, (x1 - x0) / followed.width] * 2, 1)
        assert_close(np.array(measured.box) / pixel, np.array(followed.box) / pixel, VIEW_PX)


def test_view_is_the_rule_and_not_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_measured", None)
    assert view_of(imagenet_preset(), 256, 512, MAX_PIXELS) == View((16.0, 144.0, 240.0, 368.0), (224, 224))


def test_padding_of_small_photos_lies_beyond_them() -> None:
    cut = OwnPreprocess(transforms.Compose([transforms.CenterCrop(10), transforms.ToTensor()]))
    assert view_of(cut, 7, 30, MAX_PIXELS) == View((-1.0, 10.0, 9.0, 20.0), (10, 10))


def test_narrow_photo_is_cut_before_it_would_grow_beyond_the_limit() -> None:
    seen = view_of(imagenet_preset(), 2, 60_000, 1_000_000)
    assert seen == View((0.125, 29_999.125, 1.875, 30_000.875), (224, 224))


def test_array_preprocess_shows_the_whole() -> None:
    assert view_of(ArrayPreprocess(ExpectedInput(4, 2), (20, 30)), 50, 60, MAX_PIXELS) == View((0, 0, 50, 60), (20, 30))


def own(function: Callable[[Image.Image], torch.Tensor]) -> OwnPreprocess:
    return OwnPreprocess(function)


def to_tensor(image: Image.Image) -> torch.Tensor:
    return transforms.functional.to_tensor(image)


def test_function_of_ones_own_is_measured() -> None:
    cut = own(lambda image: to_tensor(image.crop((20, 10, 220, 130)).resize((100, 60), Image.Resampling.BILINEAR)))
    seen = view_of(cut, 200, 300, MAX_PIXELS)
    assert seen is not None
    assert seen.size == (60, 100)
    assert_close(np.array(seen.box) / 2, np.array([10, 20, 130, 220]) / 2, VIEW_PX)


def test_function_behind_colours_of_its_own_is_measured() -> None:
    blue = own(lambda image: 3 - 2 * to_tensor(image.convert("L").resize((64, 64))))
    seen = view_of(blue, 128, 192, MAX_PIXELS)
    assert seen is not None
    assert_close(np.array(seen.box) / 2, np.array([0, 0, 128, 192]) / 2, VIEW_PX)


class Subclass(transforms.Resize):
    """A step with a name of torchvision's that does something else."""

    def forward(self, image: Any) -> Any:
        return super().forward(image.crop((0, 0, image.width // 2, image.height)))


Subclass.__name__ = "Resize"


def test_step_of_another_package_is_measured_whatever_it_is_called() -> None:
    half = OwnPreprocess(transforms.Compose([Subclass((64, 64)), transforms.ToTensor()]))
    seen = view_of(half, 128, 256, MAX_PIXELS)
    assert seen is not None
    assert_close(np.array(seen.box) / 2, np.array([0, 0, 128, 128]) / 2, VIEW_PX)


def by_chance(image: Image.Image) -> torch.Tensor:
    left = int(torch.randint(0, 40, ()))
    return to_tensor(image.crop((left, 0, left + 100, 100)))


def bent(image: Image.Image) -> torch.Tensor:
    return to_tensor(image) ** 2.2


def refusing(image: Image.Image) -> torch.Tensor:
    raise RuntimeError("not this one")


NO_BOX: dict[str, Callable[[Image.Image], torch.Tensor]] = {
    "mirrored": lambda image: to_tensor(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "upside down": lambda image: to_tensor(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
    "turned": lambda image: to_tensor(image.transpose(Image.Transpose.ROTATE_90)),
    "transposed": lambda image: to_tensor(image.transpose(Image.Transpose.TRANSPOSE)),
    "leaning": lambda image: to_tensor(image.rotate(2)),
    "random": by_chance,
    "curved": bent,
    "failing": refusing,
    "black": lambda image: torch.zeros(3, 20, 20),
    "one number": lambda image: to_tensor(image).mean(),
    "tokens": lambda image: to_tensor(image).reshape(3, -1, 4, 10),
}


@over("name", NO_BOX)
def test_what_is_no_box_has_no_view(name: str) -> None:
    assert view_of(own(NO_BOX[name]), 120, 160, MAX_PIXELS) is None


def test_random_steps_of_torchvision_have_no_view() -> None:
    assert (
        view_of(OwnPreprocess(transforms.Compose([transforms.RandomCrop(64), transforms.ToTensor()])), 99, 99, 10**6)
        is None
    )


def test_unknown_module_of_torch_is_measured() -> None:
    seen = view_of(OwnPreprocess(transforms.Compose([transforms.ToTensor(), nn.AvgPool2d(2)])), 64, 96, MAX_PIXELS)
    assert seen is not None
    assert seen.size == (32, 48)
    assert_close(np.array(seen.box) / 2, np.array([0, 0, 64, 96]) / 2, VIEW_PX)


def test_clip_shows_what_its_frame_shows() -> None:
    assert view_of(Clip(imagenet_preset()), 256, 512, MAX_PIXELS) == view_of(imagenet_preset(), 256, 512, MAX_PIXELS)


def test_preprocessing_follows_its_preset() -> None:
    bare = Preprocessing(imagenet_preset(), None, InterpolationMode.BILINEAR, (0.0,) * 3, (1.0,) * 3)
    assert view_of(bare, 256, 512, MAX_PIXELS) == view_of(imagenet_preset(), 256, 512, MAX_PIXELS)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda hf: hf.ViTImageProcessor(size={"height": 64, "width": 96}), id="whole"),
        pytest.param(lambda hf: hf.CLIPImageProcessor(size={"shortest_edge": 80}, crop_size=64), id="crop"),
    ],
)
def test_image_processor_is_measured(make: Callable[[Any], Any]) -> None:
    import transformers

    from cnnviz_fast.models.hf_preprocess import preprocess_with

    processor = make(transformers)
    seen = view_of(preprocess_with(processor), 160, 240, MAX_PIXELS)
    expected = View((0, 0, 160, 240), (64, 96))
    if getattr(processor, "do_center_crop", False):
        expected = View((16, 56, 144, 184), (64, 64))
    assert seen is not None
    assert seen.size == expected.size
    assert_close(np.array(seen.box) / 2.5, np.array(expected.box) / 2.5, VIEW_PX)


TOLD = ("imagenet", "grey", "bare", "large", "segmentation", "segmentation as it is", "detection", "video", "size",
        "mean", "size of a clip")  # fmt: skip


@over("name", TOLD)
def test_view_of_a_preprocessing_as_a_run_describes_it_is_that_of_the_preprocessing(name: str) -> None:
    preprocess = FOLLOWED[name]()
    told = json.loads(json.dumps(described(preprocess)))
    for height, width in SIZES:
        assert view_as_described(told, height, width) == view_of(preprocess, height, width, MAX_PIXELS)


@over("told", [
    None, 3, [], {}, {"is": "a.b"}, {"is": "x.ImageClassification", "crop_size": "large"}, {"size": [3]},
    {"is": "x.ImageClassification", "resize_size": [0]}, {"size": ["a", "b"]}, {"is": "x.CenterCrop"},
    {"preset": {"preset": {"is": "timm.Unknown"}}},
])  # fmt: skip
def test_view_of_what_a_damaged_run_describes_is_not_known(told: Any) -> None:
    assert view_as_described(told, 60, 80) is None
