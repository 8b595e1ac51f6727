"""Names of architectures that tests of layers, axes and places go through: quick ones, and the zoo."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

CNN = (
    "resnet18 resnetv2_50 mobilenetv3_small_050 efficientnet_b0 densenet121 regnety_002 hrnet_w18_small ghostnet_100 "
    "mixnet_s dla34 cspresnet50 rexnet_100 vovnet39a nfnet_l0 convnext_atto repvgg_a0 hgnet_tiny starnet_s1 "
    "inception_v3 res2net50_14w_8s efficientvit_b0 mobilenetv4_conv_small"
)
LAST = "swin_tiny_patch4_window7_224 swinv2_cr_tiny_ns_224 sequencer2d_s mambaout_femto davit_tiny pvt_v2_b0"
TOKENS = (
    "vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 vit_small_patch14_reg4_dinov2 beit_base_patch16_224 "
    "eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 mixer_s16_224 resmlp_12_224 gmlp_s16_224 "
    "hiera_tiny_224 twins_pcpvt_small flexivit_small"
)
HYBRID = (
    "levit_128s coatnet_nano_rw_224 maxvit_pico_rw_256 mobilevit_xxs efficientformer_l1 poolformer_s12 "
    "edgenext_xx_small vit_tiny_r_s16_p8_224 fastvit_t8 tiny_vit_5m_224 visformer_tiny nextvit_small repvit_m0_9 "
    "gcvit_xxtiny"
)
MODULES = (
    "halonet_h1 coat_tiny convit_tiny convmixer_768_32 cpubone_nano crossvit_tiny_240 cspnext_tiny "
    "deepseek_vit_412m dpn48b efficientformerv2_s0 efficientvim_m1 efficientvit_m0 fasternet_t0 "
    "focalnet_tiny_srf gemma4_vit_167m hardcorenas_b hieradet_small iformer_t inception_next_atto "
    "inception_resnet_v2 inception_v4 lcnetv2_small lowformer_b0 mobilenetv5_base mvitv2_tiny "
    "naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny pit_ti_224 pnasnet5large qwen3_vit_88m "
    "rdnet_tiny repghostnet_050 resnest14d selecsls42 legacy_seresnet18 shvit_s1 skresnet18 swiftformer_xs "
    "swinv2_tiny_window8_256 tnt_s_legacy_patch16_224 vgg11 vit_srelpos_small_patch16_224 "
    "samvit_base_patch16_224 vitamin_small_224 volo_d1_224 legacy_xception xception41p"
)
"""One architecture of each of timm's modules that no group above has."""

STEMS = "csatv2 tresnet_m"
"""Those whose first convolution is not the first that they list, so that it does not tell the channels of an input."""

SHALLOWER = {name: {"depth": 4} for name in ("deepseek_vit_412m", "gemma4_vit_167m", "qwen3_vit_88m")}
"""Arguments for timm that leave out most of many blocks of one kind."""

TIMM = [name for group in (CNN, LAST, TOKENS, HYBRID, MODULES) for name in group.split()]

TRANSFORMERS = (
    "ViTModel Dinov2WithRegistersModel YolosModel SwinModel Swinv2Model PvtV2Model PvtModel SegformerModel "
    "MobileViTModel ConvNextV2Model PoolFormerModel LevitModel CvtModel FocalNetModel GLPNModel SiglipVisionModel "
    "CLIPVisionModel DonutSwinModel BeitModel BitModel HieraModel"
)
"""Models of transformers, made of small configurations."""


def small_transformer(name: str) -> tuple[nn.Module, int]:
    """Make a model of transformers with few narrow layers and random weights.

    Args:
        name: its class.

    Returns:
        The model, and height and width of its input in px.
    """
    import transformers

    kind = getattr(transformers, name)
    config = kind.config_class()
    narrow = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    for option, value in narrow.items():
        # Models of several stages have a width for each, and are small as they are.
        if isinstance(getattr(config, option, None), int) and not hasattr(config, "hidden_sizes"):
            setattr(config, option, value)
    size = getattr(config, "image_size", 224)
    return kind(config), size if isinstance(size, int) else size[0]


_DRAWN = 65_537
"""Random numbers that are drawn for a weight. A prime, so that no two rows of a weight are the same."""


class RepeatedWeights(TorchDispatchMode):
    """Draw only the first random numbers of each large weight and repeat them: a large model is built in a third of
    the time, and puts out other values everywhere all the same."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = function in (torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default)
        weight = args[0] if args else None
        if not drawn or weight.is_meta or weight.numel() <= _DRAWN or not weight.is_contiguous():
            return function(*args, **(kwargs or {}))
        flat, done = weight.view(-1), _DRAWN
        function(flat[:done], *args[1:], **(kwargs or {}))
        while done < len(flat):
            flat[done : 2 * done] = flat[: min(done, len(flat) - done)]
            done *= 2
        return weight


def shrunk(detector: nn.Module) -> nn.Module:
    """Make a detector of torchvision enlarge images to 224 px, not to 800."""
    if (transform := getattr(detector, "transform", None)) is not None:
        transform.min_size = (224,)
    return detector
