"""Small models of transformers: the kinds that users have, and any type's own configuration with few layers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DEPTHS = re.compile(r"(^|_)(depth|layers?|n_layer|num_(hidden_)?layers?|num_blocks?)$")
_SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_TEXT = {**_SMALL, "num_hidden_layers": 1, "vocab_size": 99}


def shallow(kind: Any) -> Any:
    """Make a type's configuration with its own defaults, but two layers, a block a stage and a small vocabulary."""
    from transformers import PreTrainedConfig

    changed: dict[str, Any] = {}
    for name, value in vars(kind()).items():
        if isinstance(value, PreTrainedConfig):
            changed[name] = shallow(type(value)).to_dict()
        elif isinstance(value, int) and not isinstance(value, bool) and value > 2 and _DEPTHS.search(name):
            changed[name] = 2
        elif name == "vocab_size" and isinstance(value, int):
            changed[name] = min(value, 2000)
        elif name in ("depths", "layer_depths", "encoder_depths") and isinstance(value, list | tuple):
            changed[name] = [1] * len(value)
    try:
        return kind(**changed)
    except Exception:  # other entries of it depend on its depth
        return kind()


def _depth_anything(t: Any) -> tuple[Any, Any]:
    backbone = t.Dinov2Config(**_SMALL, image_size=56, patch_size=14, out_features=_STAGES, reshape_hidden_states=False)
    config = t.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[16] * 4, fusion_hidden_size=16,
        head_hidden_size=8,
    )  # fmt: skip
    return t.DepthAnythingForDepthEstimation(config), t.DPTImageProcessor(size={"height": 56, "width": 56})


def _vitpose(t: Any) -> tuple[Any, Any]:
    backbone = t.VitPoseBackboneConfig(**_SMALL, image_size=[64, 48], patch_size=[16, 16], out_indices=[4])
    config = t.VitPoseConfig(backbone_config=backbone, num_labels=17)
    return t.VitPoseForPoseEstimation(config), t.VitPoseImageProcessor(size={"height": 64, "width": 48})


def _zoedepth(t: Any) -> tuple[Any, Any]:
    backbone = t.BeitConfig(
        **_SMALL, image_size=64, patch_size=16, out_features=_STAGES, reshape_hidden_states=False,
        use_relative_position_bias=True,
    )  # fmt: skip
    config = t.ZoeDepthConfig(
        backbone_config=backbone, backbone_hidden_size=32, neck_hidden_sizes=[16] * 4, fusion_hidden_size=16,
        bottleneck_features=16, num_relative_features=8,
    )  # fmt: skip
    processor = t.ZoeDepthImageProcessor(size={"height": 64, "width": 64}, keep_aspect_ratio=False)
    return t.ZoeDepthForDepthEstimation(config), processor


def _upernet(t: Any) -> tuple[Any, Any]:
    backbone = t.ConvNextConfig(depths=[1] * 4, hidden_sizes=[8, 16, 32, 64], out_features=_STAGES)
    config = t.UperNetConfig(backbone_config=backbone, hidden_size=32, auxiliary_in_channels=32, auxiliary_channels=16)
    return t.UperNetForSemanticSegmentation(config), t.SegformerImageProcessor(size={"height": 64, "width": 64})


def _vitmatte(t: Any) -> tuple[Any, Any]:
    backbone = t.VitDetConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, num_channels=4,
        out_features=["stage2"],
    )  # fmt: skip
    config = t.VitMatteConfig(
        backbone_config=backbone, hidden_size=32, convstream_hidden_sizes=[8] * 3, fusion_hidden_sizes=[16, 8, 8, 8]
    )
    return t.VitMatteForImageMatting(config), t.VitMatteImageProcessor()


def _superpoint(t: Any) -> tuple[Any, Any]:
    config = t.SuperPointConfig(
        encoder_hidden_sizes=[8] * 4, decoder_hidden_size=8, keypoint_decoder_dim=65, descriptor_decoder_dim=16
    )
    return t.SuperPointForKeypointDetection(config), t.SuperPointImageProcessor(size={"height": 48, "width": 64})


def _eomt(t: Any) -> tuple[Any, Any]:
    config = t.EomtConfig(**_SMALL, image_size=64, patch_size=16, num_queries=5, num_blocks=1)
    processor = t.EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    return t.EomtForUniversalSegmentation(config), processor


def _clip(t: Any) -> tuple[Any, Any]:
    config = t.CLIPConfig(text_config=_TEXT, vision_config={**_SMALL, "image_size": 64, "patch_size": 16})
    return t.CLIPModel(config), _square(t)


def _llava(t: Any) -> tuple[Any, Any]:
    vision = t.CLIPVisionConfig(**_SMALL, image_size=64, patch_size=16)
    return t.LlavaForConditionalGeneration(
        t.LlavaConfig(vision_config=vision, text_config=t.LlamaConfig(**_TEXT))
    ), _square(t)


def _trocr(t: Any) -> tuple[Any, Any]:
    decoder = t.TrOCRConfig(d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=99)
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(_vit_config(t), decoder)
    return t.VisionEncoderDecoderModel(config), _square(t)


def _classifier(t: Any) -> tuple[Any, Any]:
    return t.ViTForImageClassification(_vit_config(t)), _square(t)


def _videomae(t: Any) -> tuple[Any, Any]:
    config = t.VideoMAEConfig(**_SMALL, image_size=32, num_frames=4)
    processor = t.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return t.VideoMAEForVideoClassification(config), processor


def _vjepa2(t: Any) -> tuple[Any, Any]:
    config = t.VJEPA2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, crop_size=32, frames_per_clip=4,
        pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1, pred_num_mask_tokens=2,
    )  # fmt: skip
    return t.VJEPA2Model(config), t.VJEPA2VideoProcessor(crop_size={"height": 32, "width": 32})


def _detr(t: Any) -> tuple[Any, Any]:
    backbone = t.ResNetConfig(
        depths=[1] * 4, embedding_size=8, hidden_sizes=[8] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = t.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, backbone_config=backbone,
    )  # fmt: skip
    size = {"shortest_edge": 64, "longest_edge": 96}
    return t.DetrForObjectDetection(config), t.DetrImageProcessor(size=size, pad_size={"height": 96, "width": 96})


def _siglip2(t: Any) -> tuple[Any, Any]:
    config = t.Siglip2Config(text_config=_TEXT, vision_config=_SMALL)
    return t.Siglip2Model(config), t.Siglip2ImageProcessor()


def _sam(t: Any) -> tuple[Any, Any]:
    config = t.SamConfig(
        vision_config={
            **_SMALL, "num_hidden_layers": 2, "mlp_dim": 64, "output_channels": 32, "image_size": 64,
            "patch_size": 16, "num_pos_feats": 16, "global_attn_indexes": [1],
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
    )  # fmt: skip
    processor = t.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return t.SamModel(config), processor


def _vit_config(t: Any) -> Any:
    return t.ViTConfig(**_SMALL, image_size=64, patch_size=16)


def _square(t: Any) -> Any:
    return t.ViTImageProcessor(size={"height": 64, "width": 64})


MODELS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "depth_anything": _depth_anything, "vitpose": _vitpose, "zoedepth": _zoedepth, "upernet": _upernet,
    "vitmatte": _vitmatte, "superpoint": _superpoint, "eomt": _eomt, "clip": _clip, "llava": _llava, "trocr": _trocr,
    "classifier": _classifier, "videomae": _videomae, "vjepa2": _vjepa2, "detr": _detr, "siglip2": _siglip2,
    "sam": _sam,
}  # fmt: skip
"""Name -> function of transformers that returns a model and its processor."""


def saved(name: str, folder: Path) -> Path:
    """Write a model of MODELS and its processor as `save_pretrained` does, with random weights of seed 0."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = MODELS[name](transformers)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
