"""What image processors of transformers make of an image: their own values, bit for bit, and the way back."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import FEW_LEVELS, ONE_LEVEL, assert_close, close_to
from support.looping import over

from cnnviz_fast.errors import ModelError, OptionError
from cnnviz_fast.models.hf_packed import pack
from cnnviz_fast.models.hf_preprocess import preprocess_with
from cnnviz_fast.models.preprocess import Clip, as_image, with_options
from cnnviz_fast.options.reading import PreprocessOptions
from cnnviz_fast.runs.folder.fingerprint import described

transformers = pytest.importorskip("transformers")

QUICK = (
    "ViTImageProcessor", "ViTImageProcessorPil", "CLIPImageProcessor", "SamImageProcessor", "DPTImageProcessor",
    "EfficientNetImageProcessor", "MobileViTImageProcessor", "PPOCRV5ServerDetImageProcessor", "Owlv2ImageProcessor",
    "ZoeDepthImageProcessor", "SuperPointImageProcessor", "VideoMAEImageProcessor", "IdeficsImageProcessor",
    "LightGlueImageProcessor", "VitPoseImageProcessor", "VitMatteImageProcessor", "LlavaNextImageProcessor",
    "Qwen2VLImageProcessor", "Siglip2ImageProcessor", "Pix2StructImageProcessor", "TimmWrapperImageProcessor",
)  # fmt: skip

# They pack the patches of an image into one matrix, whose rows nothing but their own models can read.
PACKED = {
    "CohereCompass", "Cosmos3Edge", "Ernie4_5_VLMoe", "Gemma4", "Gemma4Unified", "Glm46V", "Glm4v", "Glm5Next",
    "GlmImage", "Glmga", "HYV4VL", "HunYuanVL", "Inkling", "Inkling2", "Kimi_K25", "Kosmos2_5", "MiniCPMOcr",
    "MiniCPMV4_6", "MiniMaxM3VL", "Molmo2", "MuseGlimmer", "NemotronH_Omni_Reasoning_V3", "NeoMME", "PaddleOCRVL",
    "Pix2Struct", "Qwen2VL", "VideoLlama3",
}  # fmt: skip

# They pack patches row by row, and give their models the number of rows and columns: here that is an image again.
IN_ROWS = {"Lfm2Vl", "Siglip2"}

# They cut a large image into tiles, and give its model the whole image beside them. Here the whole image is shown.
CUT = {
    "Cohere2Vision", "GraniteDocling", "Idefics3", "Llama4", "LlavaNext", "LlavaOnevision", "Mllama", "PerceptionLM",
    "SmolVLM", "UltraVBert",
}  # fmt: skip

# Arguments that their model's users have to give; here they stand for all of the image.
BESIDE: dict[str, Any] = {
    "EfficientLoFTR": lambda image: {"images": [image, image]},
    "LightGlue": lambda image: {"images": [image, image]},
    "SuperGlue": lambda image: {"images": [image, image]},
    "VitPose": lambda image: {"images": image, "boxes": [[[0, 0, *image.size]]]},
    "VitMatte": lambda image: {"images": image, "trimaps": Image.new("L", image.size, 128)},
    "LayoutLMv2": lambda image: {"images": image, "apply_ocr": False},
    "LayoutLMv3": lambda image: {"images": image, "apply_ocr": False},
}

OTHER_KEYS = {"Fuyu": "images", "Phi4Multimodal": "image_pixel_values", "VideoLlava": "pixel_values_images"}

# Without what a checkpoint brings they make nothing: a table of colours, a configuration of timm.
NEED_A_CHECKPOINT = {"ImageGPT", "TimmWrapper"}


def _names() -> list[str]:
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    return sorted({name for names in IMAGE_PROCESSOR_MAPPING_NAMES.values() for name in names.values() if name})


def _made(name: str) -> Any:
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the processor's own defaults
        return get_image_processor_class_from_name(name)()


@pytest.fixture
def image(photo: Path) -> Image.Image:
    """The photo, 640 x 427 px."""
    return Image.open(photo).convert("RGB")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.zoo) for name in _names()]
)
def test_preprocess_with_every_processor_gives_its_own_values(name: str, image: Image.Image) -> None:
    kind = re.sub(r"ImageProcessor(Pil)?$", "", name)
    if kind in NEED_A_CHECKPOINT:
        with pytest.raises((TypeError, ValueError)):
            _made(name)(images=image)
        return
    processor = _made(name)
    preprocess = preprocess_with(processor)
    if kind in PACKED:
        with pytest.raises(ModelError, match=r"packs the patches|and no (channels of )?pixels"):
            preprocess(image)
        return
    values = preprocess(image)
    made = processor(**BESIDE.get(kind, lambda image: {"images": image})(image), return_tensors="pt")
    expected = made if isinstance(made, torch.Tensor) else made[OTHER_KEYS.get(kind, "pixel_values")]
    if kind in IN_ROWS:
        part = SimpleNamespace(config=SimpleNamespace(patch_size=16))
        (packed,), beside = pack(part, (values[None],), {})
        assert torch.equal(packed[0], expected[0, : packed.shape[1]])
        assert beside["spatial_shapes"].tolist() == made["spatial_shapes"].tolist()
        assert beside["pixel_attention_mask"] is None
        assert made["pixel_attention_mask"].sum() == packed.shape[1]  # what else is there is padded
        return
    several = expected.flatten(0, -4).float()
    assert values.dtype == torch.float32
    if kind in CUT:
        assert len(several) > 1
        assert values.shape == several.shape[1:]
    else:
        assert kind in BESIDE or kind in OTHER_KEYS or len(several) == 1
        assert torch.equal(values, several[0])


@pytest.mark.parametrize("name", ["LlavaNextImageProcessor", "LlavaOnevisionImageProcessor"])
def test_preprocess_with_processor_that_cuts_shows_the_whole_image(name: str, image: Image.Image) -> None:
    processor = _made(name)
    tiles = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(preprocess_with(processor)(image), tiles[0])  # these put the whole image first


@pytest.mark.parametrize("settings", [
    ("DetrImageProcessor", {"pad_size": {"height": 1400, "width": 1400}}),
    ("DPTImageProcessor", {"do_pad": True, "size_divisor": 14, "size": {"height": 256, "width": 256}}),
    ("EfficientNetImageProcessor", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}),
    ("ViTImageProcessor", {"do_normalize": False}),
    ("ViTImageProcessor", {"do_rescale": False, "do_normalize": False}),
], ids=lambda settings: settings[0])  # fmt: skip
def test_preprocess_with_settings_of_checkpoints_gives_the_processors_values(
    settings: tuple[str, dict[str, Any]], image: Image.Image
) -> None:
    processor = getattr(transformers, settings[0])(**settings[1])
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(preprocess_with(processor)(image), expected.float())


SHOWN = (
    "ViTImageProcessor", "EfficientNetImageProcessor", "MobileViTImageProcessor", "PPOCRV5ServerDetImageProcessor",
    "ChameleonImageProcessor", "LayoutLMv2ImageProcessor", "VivitImageProcessor", "VitMatteImageProcessor",
)  # fmt: skip


@over("name", SHOWN)
def test_as_image_shows_colours_as_they_were(name: str) -> None:
    """A square of three stripes, red, green and blue: resizing blurs their borders alone."""
    stripes = np.zeros((480, 480, 3), np.uint8)
    for channel in range(3):
        stripes[channel * 160 : (channel + 1) * 160, :, channel] = 200
    preprocess = preprocess_with(_made(name))
    shown = as_image(preprocess(Image.fromarray(stripes)), preprocess)
    height, width = shown.shape[:2]
    for channel in range(3):
        expected = [200 if c == channel else 0 for c in range(3)]
        assert shown[(2 * channel + 1) * height // 6, width // 2].tolist() == expected


def test_as_image_shows_padding_of_sam_as_the_mean_colour(image: Image.Image) -> None:
    preprocess = preprocess_with(transformers.SamImageProcessor())
    shown = as_image(preprocess(image), preprocess)
    assert shown[-1, -1].tolist() == [124, 116, 104]  # 0 after normalisation
    expected = np.asarray(image.resize((1024, 683), Image.Resampling.BILINEAR))
    assert shown[100, 100].astype(int) == close_to(expected[100, 100], FEW_LEVELS)


@pytest.mark.parametrize("name", [*SHOWN, "SamImageProcessor", "Owlv2ImageProcessor", "ZoeDepthImageProcessor"])
def test_with_options_size_resizes_the_whole_image_and_keeps_the_colours(name: str, image: Image.Image) -> None:
    preprocess = with_options(preprocess_with(_made(name)), PreprocessOptions(size=(96, 128)))
    values = preprocess(image)
    assert tuple(values.shape[-2:]) == (96, 128)
    expected = np.asarray(image.resize((128, 96), Image.Resampling.BILINEAR))
    assert_close(as_image(values, preprocess), expected, ONE_LEVEL)


def test_with_options_mean_and_std_are_used_by_the_processor(image: Image.Image) -> None:
    processor = transformers.SamImageProcessor()
    own = PreprocessOptions(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    values = with_options(preprocess_with(processor), own)(image)
    expected = processor(images=image, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], return_tensors="pt")
    assert torch.equal(values, expected["pixel_values"][0])
    assert (values[:, -1, -1] == 0).all()  # the padding stays what it is for this model


RENORMALIZED = ("PPOCRV5ServerDetImageProcessor", "RTDetrImageProcessor")  # of large images


@pytest.mark.parametrize(
    "name", ["EfficientNetImageProcessor", *(pytest.param(name, marks=pytest.mark.zoo) for name in RENORMALIZED)]
)
def test_with_options_mean_and_std_are_those_of_colours(name: str, image: Image.Image) -> None:
    own = preprocess_with(_made(name))
    raw = with_options(own, PreprocessOptions(mean=(0, 0, 0), std=(1, 1, 1)))
    values = raw(image)[list(raw.order)]  # red first
    colours = values.permute(1, 2, 0).numpy() * 255.0
    assert_close(colours, as_image(own(image), own), ONE_LEVEL)


def test_with_options_interpolation_is_the_processors(image: Image.Image) -> None:
    processor = transformers.ViTImageProcessor()
    values = with_options(preprocess_with(processor), PreprocessOptions(interpolation="nearest"))(image)
    expected = processor(images=image, resample=Image.Resampling.NEAREST, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(values, expected)
    without = preprocess_with(transformers.Swin2SRImageProcessor())
    with pytest.raises(OptionError, match="interpolation must go with size"):
        with_options(without, PreprocessOptions(interpolation="nearest"))


def test_with_options_mean_of_what_holds_no_colours_is_refused() -> None:
    packed = preprocess_with(transformers.Pix2StructImageProcessor())
    with pytest.raises(OptionError, match="mean and std must not be given for this model, whose input holds no col"):
        with_options(packed, PreprocessOptions(mean=(0, 0, 0)))


def test_preprocess_pickles_and_is_described_the_same_again(image: Image.Image) -> None:
    preprocess = preprocess_with(transformers.SamImageProcessor())
    twin = pickle.loads(pickle.dumps(preprocess))
    assert torch.equal(twin(image), preprocess(image))
    assert described(twin) == described(preprocess_with(transformers.SamImageProcessor()))
    changed = with_options(preprocess, PreprocessOptions(std=(1, 1, 1)))
    assert described(changed) != described(preprocess)


class Grey:
    """A user's processor, which makes one channel."""

    image_mean, image_std, do_normalize = [0.5], [0.25], True

    def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
        values = torch.from_numpy(np.array(images.convert("L"))).float()[None, None] / 255
        return {"pixel_values": (values - 0.5) / 0.25}


def test_preprocess_with_processor_of_one_channel(image: Image.Image) -> None:
    preprocess = preprocess_with(Grey())
    assert (preprocess.mean, preprocess.std, preprocess.order) == ((0.5,), (0.25,), (0,))
    shown = as_image(preprocess(image), preprocess)
    assert_close(shown[..., 0], np.array(image.convert("L")), ONE_LEVEL)


VIDEOS = (
    "InstructBlipVideoVideoProcessor", "InternVLVideoProcessor", "LlavaNextVideoVideoProcessor",
    "LlavaOnevisionVideoProcessor", "PeVideoVideoProcessor", "PerceptionLMVideoProcessor", "Sam2VideoVideoProcessor",
    "SmolVLMVideoProcessor", "TimesformerVideoProcessor", "VJEPA2VideoProcessor", "VideoLlavaVideoProcessor",
    "VideoMAEVideoProcessor", "VideomtVideoProcessor", "VivitVideoProcessor",
)  # fmt: skip
"""All video processors that do not pack the patches of several frames into one row."""


def _video_names() -> list[str]:
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    return sorted({name for names in VIDEO_PROCESSOR_MAPPING_NAMES.values() for name in names.values()})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if "MAE" in n or "Qwen2VL" in n else pytest.mark.zoo) for n in _video_names()]
)
def test_preprocess_with_every_video_processor_gives_the_frames_of_a_clip(name: str, image: Image.Image) -> None:
    processor = getattr(transformers, name)()
    preprocess = preprocess_with(processor, video=True)
    if name not in VIDEOS:
        with pytest.raises(
            Exception, match=r"packs the patches|no channels of pixels|temporal_factor|resource|NoneType"
        ):
            preprocess(image)
        return
    clip = Clip(preprocess, 4)(image)
    frames = np.stack([np.array(image)] * 4)
    expected = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
    key = next(key for key in ("pixel_values_videos", "pixel_values") if key in expected)
    assert torch.equal(clip.transpose(0, 1), expected[key][0])
