"""Stage 3 of 7, third part: what a layer put out becomes maps (N, C, H, W).

    nchw      (N, C, H, W)       convolutions; the maps as they are
    nhwc      (N, H, W, C)       Swin, the inside of ConvNeXt
    tokens    (N, P + H*W, C)    ViT, DeiT, DINO: P prefix tokens (class, distillation, registers), which are left out
              (N, P + T*H*W, C)  MViT: one set of maps a time step; has to be named, tokens:1:8x14x14
    ncthw     (N, C, T, H, W)    video; one set of maps a time step
    nthwc     (N, T, H, W, C)    video transformers
    nc        (N, C)             fully connected layers; a map of one cell for each entry

A layout is told from two things together. What the module or its model says: a Conv2d puts out channels first whatever
the numbers are, a LayerNorm or a Linear channels last, a model without any of the latter never channels last, and
tokens have a model that cuts pictures into patches. And what the shapes say: maps have the aspect of the picture, and
tokens are as many as a grid of that aspect has cells. What fits two layouts, or none, is refused and not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import DTypeError, ShapeError
from ..options.reading import AxesOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

_AXES = {"nchw": "(N, C, H, W)", "nhwc": "(N, H, W, C)", "tokens": "(N, T, C)",
         "ncthw": "(N, C, T, H, W)", "nthwc": "(N, T, H, W, C)", "nc": "(N, C)"}  # fmt: skip
_REORDERED = ("Hiera", "ViTMAE")
"""Families whose tokens do not lie row by row: Hiera sorts them by the units it masks, MAE shuffles them."""

_PREFIXES = ("cls_token", "class_token", "class_embedding", "dist_token", "distillation_token", "reg_token",
             "register_token", "register_tokens")  # fmt: skip
"""Names of the parameters that become prefix tokens, in timm, torchvision and transformers."""

Grid = tuple[int, int]


@dataclass(frozen=True)
class Axes:
    """How an output is laid out.

    Attributes:
        name: nchw, nhwc, tokens, ncthw, nthwc or nc.
        steps: number of time steps; 1 without a time axis.
        prefix_tokens: how many tokens before the grid are left out.
        grid: (rows, columns) of the tokens; None for the other layouts.
    """

    name: str
    steps: int = 1
    prefix_tokens: int = 0
    grid: Grid | None = None


@dataclass(frozen=True)
class Origin:
    """Where an output comes from: the evidence, beside its shape, for its layout. Each part may be unknown.

    Attributes:
        layer: its name, for messages.
        module: that put it out.
        model: that the module belongs to.
        input_shape: of the batch that went into the model, (N, C, H, W) or (N, C, T, H, W).
    """

    layer: str = "this"
    module: nn.Module | None = None
    model: nn.Module | None = None
    input_shape: tuple[int, ...] | None = None


def find_axes(shape: tuple[int, ...], origin: Origin | None = None, axes: str = "auto") -> Axes:
    """Tell the layout of an output.

    Args:
        shape: of the output.
        origin: where it comes from. Without it, only (N, C, H, W) and (N, C, T, H, W) are told.
        axes: auto, or the layout itself; `LayoutOptions` says how it is written.

    Returns:
        The layout, which fits the shape.

    Raises:
        ShapeError: the output is not spatial, it fits several layouts or none, or it does not fit the one given.
        OptionError: there is no such layout.
    """
    origin = origin or Origin()
    name, prefix, grid = AxesOptions(axes=axes).parts
    if name != "auto":
        return _as_given(shape, origin, name, prefix, grid)
    ways = {2: _tell_vectors, 3: _tell_tokens, 4: _tell_maps, 5: _tell_clips}
    if len(shape) not in ways:
        raise ShapeError(
            f"layer {origin.layer!r} puts out {shape}; only outputs of 2 to 5 axes can be drawn. "
            f"`cnnviz layers` shows the shapes."
        )
    found = ways[len(shape)](shape, origin)
    if origin.input_shape is not None and shape[0] != origin.input_shape[0]:
        _refuse(
            shape,
            origin,
            f"of {origin.input_shape[0]} in the batch it makes {shape[0]} (windows or regions of them)",
            f"'{found.name}' to see the first",
        )
    return found


def to_maps(output: torch.Tensor, axes: Axes, step: int = 0) -> torch.Tensor:
    """View an output as maps.

    Args:
        output: (N, ...) real dtype, as `axes` says: nchw (N, C, H, W), nhwc (N, H, W, C), tokens (N, P + T*H*W, C),
            ncthw (N, C, T, H, W), nthwc (N, T, H, W, C) or nc (N, C). Not modified.
        axes: of `find_layout`.
        step: which time step, from 0.

    Returns:
        (N, C, H, W), same dtype and device: a view, where strides can say it.

    Raises:
        DTypeError: the output is sparse.
    """
    import torch

    if output.layout != torch.strided:
        raise DTypeError(f"maps must be dense, got layout {output.layout}. Convert them: output.to_dense().")
    if axes.name == "tokens":
        assert axes.grid is not None
        rows, cols = axes.grid
        cells = output[:, axes.prefix_tokens :].reshape(len(output), axes.steps, rows, cols, -1)
        return cells[:, step].permute(0, 3, 1, 2)
    if axes.name == "ncthw":
        return output[:, :, step]
    if axes.name == "nthwc":
        return output[:, step].permute(0, 3, 1, 2)
    if axes.name == "nc":
        return output[:, :, None, None]
    return output.permute(0, 3, 1, 2) if axes.name == "nhwc" else output


def _as_given(
    shape: tuple[int, ...], origin: Origin, name: str, prefix: int | None, grid: tuple[int, ...] | None
) -> Axes:
    """Check a layout that the caller has named against the shape."""
    axes = _AXES[name]
    if len(shape) != axes.count(",") + 1:
        raise ShapeError(f"layer {origin.layer!r} must put out {axes} for layout {name!r}, got {shape}.")
    if name == "tokens":
        prefixes = _prefixes(origin) if prefix is None else [prefix]
        fits = [(p, g) for p in prefixes for g in ([grid] if grid else _grids(shape[1] - p, origin))]
        fits = [(p, g) for p, g in fits if math.prod(g) + p == shape[1]]
        if len(fits) != 1:
            _refuse(
                shape,
                origin,
                f"its {shape[1]} tokens are not one grid",
                "'tokens:PREFIX:HxW', such as 'tokens:1:14x14'",
            )
        ((prefix, whole),) = fits
        return Axes("tokens", math.prod(whole[:-2]), prefix, (whole[-2], whole[-1]))
    steps = shape[2] if name == "ncthw" else shape[1] if name == "nthwc" else 1
    return Axes(name, steps)


def _tell_vectors(shape: tuple[int, ...], origin: Origin) -> Axes:
    return Axes("nc")


def _tell_maps(shape: tuple[int, ...], origin: Origin) -> Axes:
    """Tell (N, C, H, W) from (N, H, W, C)."""
    said = _said_by_module(origin.module, shape)
    if said == "first" or (said is None and not _may_be_last(origin)):
        return Axes("nchw")
    first = said is None and _has_aspect((shape[2], shape[3]), origin)
    last = _has_aspect((shape[1], shape[2]), origin)
    if first and last and _output_format(origin.model) == "NHWC":
        first = False  # such a model says so of all that comes behind its patches
    if first == last:
        reason = "both (N, C, H, W) and (N, H, W, C) fit" if first else "neither (N, C, H, W) nor (N, H, W, C) fits"
        _refuse(shape, origin, f"{reason} a picture of {_size(origin)}", "'nchw' or 'nhwc'")
    return Axes("nchw" if first else "nhwc")


def _tell_clips(shape: tuple[int, ...], origin: Origin) -> Axes:
    """Tell (N, C, T, H, W) from (N, T, H, W, C)."""
    said = _said_by_module(origin.module, shape)
    if said == "first" or (said is None and not _may_be_last(origin)):
        return Axes("ncthw", shape[2])
    first = said is None and _has_aspect((shape[3], shape[4]), origin)
    last = _has_aspect((shape[2], shape[3]), origin)
    if first == last:
        reason = "both (N, C, T, H, W) and (N, T, H, W, C) fit" if first else "no layout fits"
        _refuse(shape, origin, f"{reason} frames of {_size(origin)}", "'ncthw' or 'nthwc'")
    return Axes("ncthw", shape[2]) if first else Axes("nthwc", shape[1])


def _tell_tokens(shape: tuple[int, ...], origin: Origin) -> Axes:
    """Tell tokens from other outputs of three axes, and find their grid and prefix."""
    advice = "'tokens:PREFIX:HxW', such as 'tokens:1:14x14'"
    if origin.model is None or origin.input_shape is None:
        _refuse(shape, origin, "tokens cannot be told without the model and its input", advice)
    families = (type(module).__name__ for module in origin.model.modules())  # it may stand inside another model
    if family := next((name for name in families if name.startswith(_REORDERED)), None):
        raise ShapeError(
            f"layer {origin.layer!r} puts out {shape}, tokens that {family} keeps in another order than "
            f"row by row: no grid shows them."
        )
    if len(origin.input_shape) != 4 or not _may_be_last(origin):
        _refuse(shape, origin, "its three axes are not told to be tokens of a picture", advice)
    known = _known_grids(origin)
    fits = [(prefix, grid) for prefix in _prefixes(origin) for grid in _grids(shape[1] - prefix, origin)]
    if known:
        fits = [(prefix, grid) for prefix, grid in fits if any(_reduces(grid, to) for to in known)]
    exact = [(prefix, grid) for prefix, grid in fits if grid in known]
    if len(exact or fits) != 1:
        count = "no grid" if not fits else "more than one grid"
        _refuse(shape, origin, f"{count} of its {shape[1]} tokens fits a picture of {_size(origin)}", advice)
    prefix, grid = (exact or fits)[0]
    # The same numbers may be tokens last, inside the blocks of mixers. There the last axis is a grid as well.
    swapped = [g for p in _prefixes(origin) for g in _grids(shape[2] - p, origin)]
    if known:
        swapped = [g for g in swapped if any(_reduces(g, to) for to in known)]
    if swapped and not (exact and not any(g in known for g in swapped)):
        widths = set(_widths(origin.module))
        if any(g in known for g in swapped) or shape[2] not in widths or shape[1] in widths:
            _refuse(shape, origin, "both its last axes fit a grid", advice)
    return Axes("tokens", 1, prefix, grid)


def _refuse(shape: tuple[int, ...], origin: Origin, reason: str, axes: str) -> NoReturn:
    raise ShapeError(
        f"layer {origin.layer!r} puts out {shape}, and its axes are ambiguous: {reason}. Name them: axes={axes}."
    )


def _size(origin: Origin) -> str:
    return "unknown size" if origin.input_shape is None else "x".join(map(str, origin.input_shape[-2:]))


def _said_by_module(module: nn.Module | None, shape: tuple[int, ...]) -> str | None:
    """Return what the class of a module says of its channels: "first", "last", or None where it says nothing."""
    if module is None:
        return None
    names = [kind.__name__ for kind in type(module).__mro__]
    if any(name.lower().endswith(("2d", "3d")) or name == "GroupNorm" for name in names):
        return "first"  # ahead of LayerNorm, from which timm's and torchvision's LayerNorm2d are derived
    if names[0] == "Permute":
        dims = tuple(getattr(module, "dims", ()))
        return "last" if dims and dims[-1] == 1 else "first" if dims[-1:] == (len(shape) - 1,) else None
    width = next(_own_widths(module), None)
    if any("LayerNorm" in name or "RmsNorm" in name or "RMSNorm" in name for name in names) or "Linear" in names:
        # Norms of either order exist under these names; the width decides where only one axis has it.
        if getattr(module, "data_format", None) == "channels_first":
            return "first"
        return "last" if width is None or shape[-1] == width else None
    said = _output_format(module)
    return {"NCHW": "first", "NHWC": "last"}.get(said or "")


def _output_format(module: nn.Module | None) -> str | None:
    """Return what timm's modules say of their own output: NCHW, NHWC, NLC or NCL."""
    said = getattr(module, "output_fmt", None)
    return None if said is None else str(getattr(said, "value", said))


def _may_be_last(origin: Origin) -> bool:
    """Tell whether a model has anything in it that works on channels last: norms of that order, attention, patches."""
    if origin.model is None:
        return False
    for module in origin.model.modules():
        name = type(module).__name__
        if name.endswith("2d"):
            continue
        if any(part in name for part in ("LayerNorm", "RmsNorm", "RMSNorm", "Attention", "PatchEmbed", "Permute")):
            return True
    return _output_format(origin.model) == "NHWC"


def _own_widths(module: nn.Module) -> Iterator[int]:
    for attribute in ("out_features", "num_features", "normalized_shape"):
        width = getattr(module, attribute, None)
        if isinstance(width, (tuple, list)) and width:
            width = width[-1]
        if isinstance(width, int):
            yield width


def _widths(module: nn.Module | None) -> Iterator[int]:
    """List the numbers of channels that the layers in a module work on."""
    for inner in () if module is None else module.modules():
        yield from _own_widths(inner)


def _has_aspect(grid: Grid, origin: Origin) -> bool:
    """Tell whether maps of this size can show the model's input: its aspect, to within one cell if it is not square."""
    if origin.input_shape is None:
        return False
    height, width = origin.input_shape[-2:]
    slack = 0 if height == width else max(height, width)
    return abs(grid[0] * width - grid[1] * height) <= slack


def _grids(cells: int, origin: Origin) -> list[Grid]:
    """List the grids of so many cells that have the aspect of the input, each cell a whole number of its pixels."""
    if cells < 1 or origin.input_shape is None:
        return []
    height, width = origin.input_shape[-2:]
    # rows / columns = height / width: rows = sqrt(cells * height / width), and the slack of _has_aspect around it.
    middle = math.isqrt(cells * height // width)
    rows = [r for r in range(max(1, middle - 2), middle + 3) if cells % r == 0]
    return [(r, cells // r) for r in rows if _has_aspect((r, cells // r), origin) and r <= height]


def _reduces(grid: Grid, whole: Grid) -> bool:
    """Tell whether halving a grid some times, either way of rounding, gives another."""
    return any(
        grid == (-(-whole[0] // 2**k), -(-whole[1] // 2**k)) or grid == (whole[0] // 2**k, whole[1] // 2**k)
        for k in range(8)
    )


def _pair(value: Any) -> Grid | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value):
        return value[0], value[1]
    return None


def _known_grids(origin: Origin) -> list[Grid]:
    """List the grids that a model says it cuts its input into: by its patch size, or as fixed when it was built."""
    if origin.model is None or origin.input_shape is None:
        return []
    height, width = origin.input_shape[-2:]
    known: list[Grid] = []
    inside = (module for module in origin.model.modules() if "PatchEmbed" in type(module).__name__)
    for module in (origin.model, *origin.model.children(), *inside):
        config = getattr(module, "config", None)
        patch = _pair(getattr(module, "patch_size", None)) or _pair(getattr(config, "patch_size", None))
        grid = _pair(getattr(module, "grid_size", None))
        if grid and _has_aspect(grid, origin):
            known.append(grid)
        if patch and height >= patch[0] and width >= patch[1]:
            known.append((height // patch[0], width // patch[1]))
    return list(dict.fromkeys(known))


def _prefixes(origin: Origin) -> list[int]:
    """List how many tokens may stand before the grid: as many as the model has, or none before they are added."""
    model = origin.model
    if model is None:
        return [0]
    said = getattr(model, "num_prefix_tokens", None)
    if not isinstance(said, int):
        tokens = {name.rpartition(".")[2]: parameter for name, parameter in model.named_parameters()}
        said = sum(p.shape[-2] if p.ndim > 1 else 1 for name, p in tokens.items() if name in _PREFIXES)
    return sorted({0, said})
