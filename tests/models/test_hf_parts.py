"""Which class each vision model of transformers is built as, which part takes images, and that it runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from support.hf_models import shallow
from support.looping import over

from cnnviz_fast.activations.listing import list_layers
from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.hf_parts import frames_first, needs_beside, vision_part
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.loaded import example_input

transformers = pytest.importorskip("transformers")

PARTS = {
    "aimv2": "Aimv2VisionModel", "aimv2_vision_model": "Aimv2VisionModel", "align_vision_model": "AlignVisionModel",
    "altclip": "AltCLIPVisionModel", "altclip_vision_model": "AltCLIPVisionModel",
    "aria": "Idefics3VisionTransformer", "beit": "BeitModel", "bit": "BitModel", "blip": "BlipVisionModel",
    "blip_2_vision_model": "Blip2VisionModel", "blip_vision_model": "BlipVisionModel",
    "bridgetower": "BridgeTowerVisionModel", "bridgetower_vision_model": "BridgeTowerVisionModel",
    "chinese_clip": "ChineseCLIPVisionModel", "chinese_clip_vision_model": "ChineseCLIPVisionModel",
    "clip": "CLIPVisionModel", "clip_vision_model": "CLIPVisionModel", "clipseg": "CLIPSegVisionModel",
    "clipseg_vision_model": "CLIPSegVisionModel", "colpali": "SiglipVisionModel", "convnext": "ConvNextModel",
    "convnextv2": "ConvNextV2Model", "cvt": "CvtModel", "data2vec-vision": "Data2VecVisionModel",
    "deepseek_ocr2_sam_vision_model": "DeepseekOcr2SamVisionEncoder", "deit": "DeiTModel", "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel", "dinov3_convnext": "DINOv3ConvNextModel",
    "dinov3_vit": "DINOv3ViTModel", "dpt": "DPTModel", "edgetam_video": "Sam2VisionModel", "flava": "FlavaImageModel",
    "focalnet": "FocalNetModel", "gemma3": "SiglipVisionModel", "git": "GitVisionModel",
    "git_vision_model": "GitVisionModel", "glpn": "GLPNModel", "got_ocr2_vision": "GotOcr2VisionEncoder",
    "groupvit": "GroupViTVisionTransformer", "groupvit_vision_model": "GroupViTVisionModel",
    "hgnet_v2": "HGNetV2Backbone", "hiera": "HieraModel", "idefics2": "Idefics2VisionTransformer",
    "idefics2_vision": "Idefics2VisionTransformer", "idefics3": "Idefics3VisionTransformer",
    "idefics3_vision": "Idefics3VisionTransformer", "ijepa": "IJepaModel",
    "instructblip_vision_model": "InstructBlipVisionModel",
    "instructblipvideo_vision_model": "InstructBlipVideoVisionModel", "internvl": "InternVLVisionModel",
    "internvl_vision": "InternVLVisionModel", "janus": "JanusVisionModel", "janus_vision_model": "JanusVisionModel",
    "kosmos-2": "Kosmos2VisionModel", "kosmos_2_vision_model": "Kosmos2VisionModel", "levit": "LevitModel",
    "lighton_ocr": "PixtralVisionModel", "llava": "CLIPVisionModel", "llava_next": "CLIPVisionModel",
    "llava_next_video": "CLIPVisionModel", "lw_detr_vit": "LwDetrViTBackbone", "maskformer": "MaskFormerModel",
    "maskformer-swin": "MaskFormerSwinModel", "metaclip_2": "MetaClip2VisionModel",
    "metaclip_2_vision_model": "MetaClip2VisionModelWithProjection", "mistral3": "PixtralVisionModel",
    "mistral_large4": "PixtralVisionModel", "mobilenet_v1": "MobileNetV1Model", "mobilenet_v2": "MobileNetV2Model",
    "mobilevit": "MobileViTModel", "mobilevitv2": "MobileViTV2Model", "ovis2_vision": "Ovis2VisionModel",
    "owlv2_vision_model": "Owlv2VisionModel", "owlvit": "OwlViTVisionTransformer",
    "owlvit_vision_model": "OwlViTVisionModel", "paligemma": "SiglipVisionModel", "pi0": "SiglipVisionModel",
    "pixio": "PixioModel", "pixtral": "PixtralVisionModel", "poolformer": "PoolFormerModel",
    "pp_formulanet_vision": "PPFormulaNetVisionModel", "pp_lcnet": "PPLCNetBackbone",
    "pp_lcnet_v4": "PPLCNetV4Backbone", "pp_ocrv6_small_rec": "PPOCRV6SmallRecModel",
    "pp_ocrv6_tiny_rec": "PPOCRV6TinyRecModel", "pvt": "PvtModel", "pvt_v2": "PvtV2Model",
    "qianfan_ocr": "QianfanOCRVisionModel", "qianfan_ocr_vision": "QianfanOCRVisionModel", "regnet": "RegNetModel",
    "resnet": "ResNetModel", "rf_detr_dinov2": "RfDetrDinov2Backbone", "rt_detr_resnet": "RTDetrResNetBackbone",
    "sam": "SamModel", "sam2_video": "Sam2VisionModel", "sam2_vision_model": "Sam2VisionModel",
    "sam3": "Sam3VisionModel", "sam3_tracker_video": "Sam3VisionModel", "sam3_vision_model": "Sam3VisionModel",
    "sam_hq_vision_model": "SamHQVisionModel", "sam_vision_model": "SamVisionModel", "segformer": "SegformerModel",
    "shieldgemma2": "SiglipVisionModel", "siglip": "SiglipVisionModel", "siglip_vision_model": "SiglipVisionModel",
    "slanext_vision": "SLANeXtVisionEncoder", "smolvlm_vision": "SmolVLMVisionTransformer",
    "swiftformer": "SwiftFormerModel", "swin": "SwinModel", "swin2sr": "Swin2SRModel", "swinv2": "Swinv2Model",
    "textnet": "TextNetModel", "timesformer": "TimesformerModel", "timm_wrapper": "TimmWrapperModel",
    "tipsv2": "Tipsv2VisionModel", "tipsv2_vision_model": "Tipsv2VisionModel",
    "unlimited_ocr_sam_vision_model": "UnlimitedOcrSamVisionEncoder",
    "unlimited_ocr_vision": "UnlimitedOcrVisionModel", "video_llava": "CLIPVisionModel",
    "vipllava": "CLIPVisionModel", "vision-encoder-decoder": "ViTModel", "vision-text-dual-encoder": "ViTModel",
    "vit": "ViTModel", "vit_mae": "ViTMAEModel", "vit_msn": "ViTMSNModel", "vitdet": "VitDetModel",
    "vitpose": "VitPoseForPoseEstimation", "vitpose_backbone": "VitPoseBackbone", "vivit": "VivitModel",
    "yolos": "YolosModel",
}  # fmt: skip
"""Model type -> class of the part that takes images. Each is built with its own defaults, but few layers."""

QUICK = ("blip", "bridgetower", "convnext", "florence2", "segformer", "superpoint", "vit_mae")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.zoo) for k in PARTS])
def test_load_model_every_type_is_built_and_runs(kind: str, tmp_path: Path) -> None:
    config = shallow(transformers.models.auto.configuration_auto.CONFIG_MAPPING[kind])
    config.save_pretrained(tmp_path)
    model = load_model(f"hf:{tmp_path}", weights="none", device="cpu")
    assert type(model.module).__name__ == PARTS[kind]
    assert sum(bool(layer.calls) for layer in list_layers(model, example_input(model))) > 5


class Tower(torch.nn.Module):
    """A vision model that merely has the usual arguments."""

    def forward(self, pixel_values: torch.Tensor, output_attentions: bool = False) -> torch.Tensor:
        return pixel_values


class Demanding(torch.nn.Module):
    """A vision model that needs more than an image."""

    def forward(self, pixel_values: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return pixel_values


class Whole(torch.nn.Module):
    """A model of text and images."""

    def __init__(self, **parts: torch.nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values


@over("name", ["vision_tower", "image_model", "vision_model", "visual", "vision_encoder"])
def test_vision_part_is_found_at_any_depth(name: str) -> None:
    tower = Tower()
    assert vision_part("m", Whole(**{name: tower})) == (name, tower)
    assert vision_part("m", Whole(model=Whole(inner=Whole(**{name: tower})))) == (f"model.inner.{name}", tower)


def test_vision_part_prefers_what_takes_images_alone_and_the_main_one() -> None:
    tower = Tower()
    assert vision_part("m", Whole(high_res_vision_model=Tower(), vision_model=tower)) == ("vision_model", tower)
    assert vision_part("m", Whole(vision_model=Demanding(), deep=Whole(vision_tower=tower)))[0] == "deep.vision_tower"
    path, part = vision_part("m", Whole(vision_model=Demanding()))
    assert path == "vision_model"
    assert needs_beside(part) == ["grid"]


def test_vision_part_is_no_layer_that_merely_cuts_patches() -> None:
    with pytest.raises(ModelError, match=r"'m' takes no images alone: Whole begins with input_ids\. Build it in Pyt"):
        vision_part("m", Whole(patch_embed=Tower()))
    with pytest.raises(ModelError, match="'m' takes no images: no part of Linear has an input pixel_values"):
        vision_part("m", torch.nn.Linear(2, 2))


def test_load_model_without_values_builds_no_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = transformers
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vision = t.CLIPVisionConfig(**small, image_size=64, patch_size=16)
    # A language model of 2 TB, which nobody can build.
    text = t.LlamaConfig(hidden_size=2**14, intermediate_size=2**16, num_hidden_layers=100, vocab_size=2**20)
    t.LlavaConfig(vision_config=vision, text_config=text).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(f"hf:{tmp_path}", weights="none", device="cpu")
    assert sum(parameter.numel() for parameter in model.module.parameters()) < 1e6


def test_frames_first_turns_clips_alone() -> None:
    clips, images = torch.zeros(2, 3, 8, 4, 4), torch.zeros(2, 3, 4, 4)
    assert frames_first(Tower(), (clips, 1))[0].shape == (2, 8, 3, 4, 4)
    assert frames_first(Tower(), (clips.transpose(1, 2),))[0].shape == (2, 8, 3, 4, 4)  # as transformers has them
    assert frames_first(Tower(), (images,)) == (images,)
    assert frames_first(Tower(), ()) == ()
