"""The rules: what each operation does to the reach of the tensors that it takes; reach.py says what that is.

A rule gets the arguments of an operation by name and returns the reach of what it puts out. It raises Whole where an
output may depend on the whole input. An operation without a rule always may.
"""

from __future__ import annotations

from .calls import Rule, elementwise
from .moves import (
    as_real,
    copied,
    expanded,
    flipped,
    indexed,
    joined,
    padded,
    permuted,
    picked,
    repeated,
    rolled,
    same,
    selected,
    sliced,
    split,
    stacked,
    transposed,
    viewed,
)
from .sums import attended, linear, normalised, normalised_by_channel, normalised_in_groups, over, product
from .windows import convolved, patches, pooled, pooled_to_size, resized, shuffled_down, shuffled_up, unfolded


def _rules(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_rules(
        "view _unsafe_view reshape _reshape_alias view_copy squeeze unsqueeze squeeze_copy unsqueeze_copy flatten "
        "unflatten",
        viewed,
    ),
    **_rules("permute permute_copy", permuted),
    **_rules("t transpose transpose_copy", transposed),
    **_rules("expand expand_copy", expanded),
    **_rules("repeat", repeated),
    **_rules("slice slice_copy narrow", sliced),
    **_rules("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk", split),
    **_rules("select select_copy unbind", selected),
    **_rules("constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d", padded),
    **_rules("cat", joined),
    **_rules("stack", stacked),
    **_rules("flip", flipped),
    **_rules("roll", rolled),
    **_rules("sum amax amin max min var std prod argmax argmin any all logsumexp var_mean std_mean", over("dim", "")),
    **_rules("mean", over("dim", "mean")),
    **_rules("linalg_vector_norm norm", over("dim", "norm")),
    **_rules("_softmax _safe_softmax _log_softmax softmax log_softmax", over("dim", "softmax (attention)")),
    **_rules("cumsum cumprod sort argsort topk", over("dim", "")),
    **_rules("convolution _convolution", convolved),
    **_rules("max_pool1d avg_pool1d", pooled(1)),
    **_rules("max_pool2d_with_indices max_pool2d avg_pool2d", pooled(2)),
    **_rules("max_pool3d_with_indices avg_pool3d", pooled(3)),
    **_rules("_adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool3d adaptive_max_pool3d", pooled_to_size),
    **_rules("upsample_nearest1d upsample_nearest2d", resized("nearest")),
    **_rules("_upsample_nearest_exact1d _upsample_nearest_exact2d", resized("nearest_exact")),
    **_rules("upsample_linear1d upsample_bilinear2d", resized("linear")),
    **_rules("upsample_bicubic2d", resized("bicubic")),
    **_rules("_upsample_bilinear2d_aa", resized("linear_aa")),
    **_rules("_upsample_bicubic2d_aa", resized("bicubic_aa")),
    **_rules("native_layer_norm _fused_rms_norm", normalised),
    **_rules("native_group_norm", normalised_in_groups),
    **_rules(
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm",
        normalised_by_channel,
    ),
    **_rules("mm", product("self", "mat2")),
    **_rules("bmm", product("self", "mat2")),
    **_rules("addmm", product("mat1", "mat2")),
    **_rules("baddbmm addbmm", product("batch1", "batch2")),
    **_rules("linear", linear),
    **_rules(
        "scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_cudnn_attention",
        attended,
    ),
    **_rules("pixel_shuffle", shuffled_up),
    **_rules("pixel_unshuffle", shuffled_down),
    **_rules("channel_shuffle native_channel_shuffle alias detach clone contiguous lift_fresh _to_copy to", same),
    **_rules(
        "hardswish hardsigmoid hardtanh relu6 mish silu elu celu selu leaky_relu prelu _prelu_kernel softplus gelu "
        "log_sigmoid_forward softshrink hardshrink threshold rrelu rrelu_with_noise lerp addcmul addcdiv "
        "masked_fill where bernoulli real imag complex polar conj _conj _neg_view fill zero floor_divide nan_to_num",
        elementwise,
    ),
    **_rules("index_select", picked),
    **_rules("index", indexed),
    **_rules("unfold", unfolded),
    **_rules("im2col", patches),
    **_rules("copy", copied),
    **_rules("view_as_real", as_real),
}
"""Operation -> its rule. What torch itself marks as pointwise needs none; it does not mark all activations."""
