"""What is known of an output beside its shape: what its module and its model say, and the size of the input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..tracing.trace import traced_grids

if TYPE_CHECKING:
    from torch import nn

_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
_REGISTERS = ("reg_token", "register_token", "register_tokens")
_PREFIXES = (*_CLASS_TOKENS, "dist_token", "distillation_token", *_REGISTERS)
"""Names of the parameters that become prefix tokens, in timm, torchvision and transformers."""

TokenGrid = tuple[int, int]
"""Rows and columns of tokens."""


@dataclass(frozen=True)
class Evidence:
    """What tells the axes of an output beside its shape. Each part may be unknown.

    Attributes:
        layer: name of the layer, for messages.
        module: the module whose output it is.
        model: the model that the module belongs to.
        input_shape: shape of the batch that went into the model, (N, C, H, W) or (N, C, T, H, W).
        called: `inputs` and `forward` of the capture.
        layers: ids of all modules of the model, which tell whether it is still the same; None to look them up.
    """

    layer: str = "this"
    module: nn.Module | None = None
    model: nn.Module | None = None
    input_shape: tuple[int, ...] | None = None
    called: tuple[Any, Any] = (None, None)
    layers: tuple[int, ...] | None = None

    @property
    def size(self) -> str:
        """Return height and width of the input, for messages."""
        return "unknown size" if self.input_shape is None else "x".join(map(str, self.input_shape[-2:]))


def channels_position(module: nn.Module | None, shape: tuple[int, ...]) -> str | None:
    """Return where a module says that channels lie: "first", "last", or None where it says nothing.

    What its class is called is no evidence: layers of one name are written for either order.
    """
    if module is None:
        return None
    if _is_first(module):
        return "first"
    if type(module).__name__ == "Permute":
        dims = tuple(getattr(module, "dims", ()))
        return "last" if dims and dims[-1] == 1 else "first" if dims[-1:] == (len(shape) - 1,) else None
    width = next(_own_widths(module), None)
    if _is_last(module):
        return "last" if width is None or shape[-1] == width else None
    if said := {"NCHW": "first", "NHWC": "last", "channels_first": "first"}.get(
        output_format(module) or str(getattr(module, "data_format", ""))
    ):
        return said
    if width is None or len(shape) < 3 or (shape[1] == width) == (shape[-1] == width):
        return None
    return "first" if shape[1] == width else "last"


def _is_first(module: nn.Module) -> bool:
    """Check whether a module is one of torch's own that put out channels first, or of a class made from one."""
    from torch.nn import modules

    kinds = (
        modules.conv._ConvNd, modules.batchnorm._BatchNorm, modules.instancenorm._InstanceNorm, modules.GroupNorm,
        modules.pooling._MaxPoolNd, modules.pooling._AvgPoolNd, modules.pooling._AdaptiveAvgPoolNd,
        modules.pooling._AdaptiveMaxPoolNd, modules.pooling._LPPoolNd, modules.pooling._MaxUnpoolNd,
        modules.LocalResponseNorm, modules.Upsample, modules.PixelShuffle, modules.PixelUnshuffle,
        modules.ChannelShuffle, modules.Fold,
    )  # fmt: skip
    return isinstance(module, kinds)


def _is_last(module: nn.Module) -> bool:
    """Check whether a module is one of torch's own that work on the last axis: a class made from one may permute."""
    from torch import nn

    kinds = [nn.Linear, nn.LayerNorm, *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ())]
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def output_format(module: nn.Module | None) -> str | None:
    """Return the format that timm's modules state for their output: NCHW, NHWC, NLC or NCL; None for other modules."""
    said = getattr(module, "output_fmt", None)
    return None if said is None else str(getattr(said, "value", said))


def may_be_last(evidence: Evidence) -> bool:
    """Check whether anything in a model may work on channels last: norms of that order, attention, patches.

    Names count here, since more of them only lead to more refusals.
    """
    if evidence.model is None:
        return False
    parts = ("LayerNorm", "RmsNorm", "RMSNorm", "Attention", "PatchEmbed", "Permute")
    for module in evidence.model.modules():
        if any(part in type(module).__name__ for part in parts) and not _is_permuting_norm(module):
            return True
    return output_format(evidence.model) == "NHWC"


def _is_permuting_norm(module: nn.Module) -> bool:
    """Check whether a module is made from torch's LayerNorm but has a forward of its own: it is for channels first."""
    from torch import nn

    return isinstance(module, nn.LayerNorm) and not _is_last(module)


def _own_widths(module: nn.Module) -> Iterator[int]:
    """List the numbers of channels that a module itself declares."""
    for attribute in ("out_features", "num_features", "normalized_shape", "out_channels", "embed_dim"):
        width = getattr(module, attribute, None)
        if isinstance(width, (tuple, list)) and width:
            width = width[-1]
        if isinstance(width, int):
            yield width


def widths(module: nn.Module | None) -> Iterator[int]:
    """List the numbers of channels that the layers in a module work on."""
    for inner in () if module is None else module.modules():
        yield from _own_widths(inner)


def has_aspect(grid: TokenGrid, evidence: Evidence) -> bool:
    """Check whether maps of this size have the aspect of the input, to within one cell if that is not square."""
    if evidence.input_shape is None:
        return False
    height, width = evidence.input_shape[-2:]
    slack = 0 if height == width else max(height, width)
    return abs(grid[0] * width - grid[1] * height) <= slack


def grids_of(cells: int, evidence: Evidence) -> list[TokenGrid]:
    """List the grids of `cells` cells that have the aspect of the input and no more rows than it has pixels."""
    if cells < 1 or evidence.input_shape is None:
        return []
    height, width = evidence.input_shape[-2:]
    # rows / columns = height / width: rows = sqrt(cells * height / width), and the slack of has_aspect around it.
    middle = math.isqrt(cells * height // width)
    rows = [r for r in range(max(1, middle - 2), middle + 3) if cells % r == 0]
    return [(r, cells // r) for r in rows if has_aspect((r, cells // r), evidence) and r <= height]


def is_halved(grid: TokenGrid, whole: TokenGrid) -> bool:
    """Check whether `grid` is `whole` halved up to 7 times, rounded up or down."""
    return any(
        grid == (-(-whole[0] // 2**k), -(-whole[1] // 2**k)) or grid == (whole[0] // 2**k, whole[1] // 2**k)
        for k in range(8)
    )


def _pair(value: Any) -> TokenGrid | None:
    """Return a size as (rows, columns), of one number or of two; None where it is neither."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value):
        return value[0], value[1]
    return None


def known_grids(evidence: Evidence) -> list[TokenGrid]:
    """List the grids into which a model cuts its input: by its patch size, as it was built, or seen in a pass."""
    if evidence.model is None or evidence.input_shape is None:
        return []
    height, width = evidence.input_shape[-2:]
    known: list[TokenGrid] = []
    inside = (module for module in evidence.model.modules() if "PatchEmbed" in type(module).__name__)
    for module in (evidence.model, *evidence.model.children(), *inside):
        config = getattr(module, "config", None)
        patch = _pair(getattr(module, "patch_size", None)) or _pair(getattr(config, "patch_size", None))
        grid = _pair(getattr(module, "grid_size", None))
        if grid and has_aspect(grid, evidence):
            known.append(grid)
        if patch and height >= patch[0] and width >= patch[1]:
            known.append((height // patch[0], width // patch[1]))
    traced = traced_grids(evidence.model, evidence.input_shape, evidence.called, evidence.layers)
    return list(dict.fromkeys([*known, *sorted(traced)]))


def prefix_counts(evidence: Evidence) -> list[int]:
    """List how many tokens may stand before the grid: all that the model adds, or none before it adds them."""
    model = evidence.model
    if model is None:
        return [0]
    said = getattr(model, "num_prefix_tokens", None)
    if not isinstance(said, int):
        tokens = {name.rpartition(".")[2]: parameter for name, parameter in model.named_parameters()}
        said = sum(p.shape[-2] if p.ndim > 1 else 1 for name, p in tokens.items() if name in _PREFIXES)
    return sorted({0, said})


def has_class_token(model: nn.Module) -> bool:
    """Check whether the first prefix token of a model is a class token, as it is unless it only has registers."""
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    return bool(names.intersection(_CLASS_TOKENS)) or not names.intersection(_REGISTERS)
