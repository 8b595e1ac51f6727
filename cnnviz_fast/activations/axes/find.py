"""The axes of an output: how they are told, and how the output becomes maps (N, C, H, W).

    nchw      (N, C, H, W)       convolutions; the maps as they are
    nhwc      (N, H, W, C)       Swin, the inside of ConvNeXt
    tokens    (N, P + H*W + S, C)  ViT, DeiT, DINO: P prefix tokens (class, distillation, registers) and S suffix tokens
                                 (YOLOS), which are left out
              (N, P + T*H*W, C)  MViT: one set of maps for each time step; must be named, tokens:1:8x14x14
    tnc       (P + H*W + S, N, C)  tokens first: nn.MultiheadAttention and nn.TransformerEncoder without batch_first
    nct       (N, C, P + H*W + S)  tokens last: before a patch embedding is transposed, inside the blocks of mixers
    ncdhw     (N, C, D, H, W)    volumes; one set of maps for each plane
    ncthw     (N, C, T, H, W)    video; one set of maps for each time step
    nthwc     (N, T, H, W, C)    video transformers
    ncl       (N, C, L)          signals; a map of one row for each channel
    nlc       (N, L, C)          transformers for signals; the same
    nhw       (N, H, W)          depth maps; one map
    nc        (N, C)             fully connected layers; a map of one cell for each entry
    matrix    (N, heads, T, S)   attention: a tile for each head; (N, T, S) is one. No maps of the image

Axes are told from evidence, the strongest first. A pass of a copy without values shows what each axis holds, followed
from the input on (tracing/). Where a model cannot run without values, two things are taken together. The
first is what the module or its model says: torch's own convolutions put out channels first whatever the numbers are,
its LayerNorm and Linear channels last, other modules where the width that they declare is; tokens come from models that
cut images into patches. The second is the shape: maps have the aspect of the image, and there are as many tokens as a
grid of that aspect has cells. Names of classes and the last dimension alone prove nothing. Where two readings fit, or
none, the output is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DTypeError, ShapeError
from ...options.reading import TOKEN_AXES, AxesOptions
from .evidence import Evidence
from .given import as_given, as_given_tokens
from .likely import read_clips, read_maps, read_tokens, read_vectors
from .proven import as_proven
from .record import TO_TOKENS, Axes, refuse

if TYPE_CHECKING:
    import torch


def find_axes(shape: tuple[int, ...], evidence: Evidence | None = None, axes: str = "auto") -> Axes:
    """Find what the axes of an output mean.

    Args:
        shape: shape of the output.
        evidence: what else is known of it. Without it only (N, C), (N, C, H, W) and (N, C, T, H, W) are recognised.
        axes: auto, or the name of the axes; `AxesOptions` says how it is written.

    Returns:
        The axes, which fit the shape.

    Raises:
        ShapeError: the output has no maps, fits several readings or none, or does not fit the axes named.
        OptionError: `axes` is not a name of axes.
    """
    evidence = evidence or Evidence()
    asked = AxesOptions(axes=axes)
    name = asked.parts[0]
    if name in TOKEN_AXES:
        return as_given_tokens(shape, evidence, asked)
    if name != "auto":
        return as_given(shape, evidence, name)
    if (proven := as_proven(shape, evidence)) is not None:
        return proven
    readers = {2: read_vectors, 3: read_tokens, 4: read_maps, 5: read_clips}
    if len(shape) not in readers:
        raise ShapeError(
            f"layer {evidence.layer!r} puts out {shape}; only outputs of 2 to 5 axes can be drawn. "
            f"`cnnviz layers` shows the shapes."
        )
    found = readers[len(shape)](shape, evidence)
    if evidence.input_shape is not None and shape[0] != evidence.input_shape[0]:
        others = ", or `inputs` are those of another batch" if evidence.called[0] is not None else ""
        images = evidence.input_shape[0]
        refuse(
            shape,
            evidence,
            f"it makes {shape[0]} entries (windows or regions) of the {images} images in the batch{others}",
            f"'{found.name}' to see the first",
        )
    return found


def to_maps(output: torch.Tensor, axes: Axes, step: int = 0) -> torch.Tensor:
    """Return an output as maps.

    Args:
        output: (N, ...) real dtype, as `axes` says: nchw (N, C, H, W), nhwc (N, H, W, C), tokens (N, P + T*H*W, C),
            tnc (P + T*H*W, N, C), nct (N, C, P + T*H*W), ncthw (N, C, T, H, W), nthwc (N, T, H, W, C), nc (N, C) or
            matrix (N, heads, T, S). Not modified.
        axes: its axes, from `find_axes`.
        step: the time step, from 0.

    Returns:
        (N, C, H, W), same dtype and device: a view where strides allow one.

    Raises:
        DTypeError: the output is sparse.
    """
    import torch

    if output.layout != torch.strided:
        raise DTypeError(f"maps must be dense, got layout {output.layout}. Convert them: output.to_dense().")
    if axes.grid is not None:
        tokens = output.permute(TO_TOKENS[axes.name])
        (rows, cols), start = axes.grid, axes.prefix_tokens
        tokens = tokens[:, start : start + axes.steps * rows * cols]
        return tokens.reshape(len(tokens), axes.steps, rows, cols, -1)[:, step].permute(0, 3, 1, 2)
    if axes.name == "matrix":
        return output if output.ndim == 4 else output[:, None]
    if axes.name in ("ncthw", "ncdhw"):
        return output[:, :, step]
    if axes.name == "nthwc":
        return output[:, step].permute(0, 3, 1, 2)
    if axes.name == "nc":
        return output[:, :, None, None]
    if axes.name in ("ncl", "nlc"):
        return (output if axes.name == "ncl" else output.transpose(1, 2))[:, :, None]
    if axes.name == "nhw":
        return output[:, None]
    return output.permute(0, 3, 1, 2) if axes.name == "nhwc" else output
